//! What is deployed: the image's command as the image runs it, and the manifests.
#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod common;

use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use common::{Ran, Repository};
use serde_json::Value;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// What the last stage of the Dockerfile says.
#[derive(Debug, Default)]
struct Image {
    entrypoint: Vec<String>,
    command: Vec<String>,
    user: String,
    environment: Vec<(String, String)>,
    folder: String,
}

impl Image {
    fn read() -> Self {
        let text = std::fs::read_to_string(root().join("Dockerfile")).unwrap();
        let mut image = Self::default();
        let words = |json: &str| serde_json::from_str(json).unwrap();
        for line in text.lines() {
            let Some((instruction, value)) = line.split_once(' ') else {
                continue;
            };
            match instruction {
                "FROM" => image = Self::default(),
                "ENTRYPOINT" => image.entrypoint = words(value),
                "CMD" => image.command = words(value),
                "USER" => image.user = value.to_owned(),
                "WORKDIR" => image.folder = value.to_owned(),
                "ENV" => {
                    let (name, value) = value.split_once('=').unwrap();
                    image.environment.push((name.to_owned(), value.to_owned()));
                }
                _ => {}
            }
        }
        image
    }

    /// User and group, as numbers: Kubernetes cannot tell of a name that it is not root's.
    fn ids(&self) -> (u32, u32) {
        let (user, group) = self.user.split_once(':').unwrap();
        (user.parse().unwrap(), group.parse().unwrap())
    }
}

/// Whether this process may become another user.
fn is_root() -> bool {
    let id = Command::new("id").arg("-u").output().unwrap();
    id.stdout == b"0\n"
}

#[test]
fn the_images_command_serves_as_its_user_from_a_folder_that_it_cannot_write_to() {
    let image = Image::read();
    assert_eq!(image.entrypoint, ["/usr/local/bin/unskew"]);
    assert_eq!(image.folder, "/repository");
    let (user, group) = image.ids();
    assert!(user > 0 && group > 0);

    let repository = Repository::empty("project: shop\n");
    repository.write(
        "features/shop.yaml",
        "entities: [{name: customer, join_keys: [{name: id, type: int64}]}]\n",
    );
    repository.run(&["apply"]).done();
    // The registry and the settings are all that a server needs.
    std::fs::remove_dir_all(repository.path("features")).unwrap();
    std::fs::create_dir_all(repository.path(".unskew/online")).unwrap();

    // Where another user may go, unlike a folder of builds.
    let place = tempfile::tempdir().unwrap();
    let program = place.path().join("unskew");
    std::fs::copy(env!("CARGO_BIN_EXE_unskew"), &program).unwrap();
    let everybody = |path: &Path, mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    everybody(place.path(), 0o755);
    everybody(&program, 0o755);
    everybody(&repository.path("."), 0o755);
    // The embedded store is a volume; with Redis there is none.
    everybody(&repository.path(".unskew/online"), 0o777);

    let run = |more: &[&str]| {
        let mut command = Command::new(&program);
        command
            .args(&image.command)
            .args(more)
            .current_dir(repository.path("."))
            .env_clear()
            .envs(image.environment.iter().cloned())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        if is_root() {
            command.uid(user).gid(group);
        }
        command.spawn().unwrap()
    };

    // Open to everybody, it does not start without being told whom to let in.
    let refused = run(&["--port", "0"]).wait_with_output().unwrap();
    let said = String::from_utf8(refused.stderr).unwrap();
    assert!(
        !refused.status.success() && said.contains("--tokens"),
        "{said}"
    );

    let mut server = run(&[
        "--port",
        "0",
        "--insecure-no-auth",
        "--request-log-level",
        "info",
    ]);
    let mut stdout = BufReader::new(server.stdout.take().unwrap());
    let mut line = String::new();
    stdout.read_line(&mut line).unwrap();
    let Some(url) = line.trim().rsplit(' ').next().filter(|url| !url.is_empty()) else {
        let mut said = String::new();
        let mut stderr = server.stderr.take().unwrap();
        stderr.read_to_string(&mut said).unwrap();
        panic!("it does not serve: {said}");
    };
    let url = url.replace("0.0.0.0", "127.0.0.1");
    let health = ureq::get(format!("{url}/health")).call().unwrap();
    assert_eq!(health.status(), 200);
    let pid = server.id().to_string();
    let sent = Command::new("kill").args(["-TERM", &pid]).status().unwrap();
    assert!(sent.success());
    let ended = server.wait_with_output().unwrap();
    let log = String::from_utf8(ended.stderr).unwrap();
    assert!(ended.status.success(), "{}: {log}", ended.status);
    // What it logs is JSON, as the image's environment says: here the request.
    assert!(log.contains("/health"), "{log}");
    for line in log.lines() {
        serde_json::from_str::<Value>(line).expect(line);
    }
}

/// The manifests but for kustomize's own file, which is none of Kubernetes.
fn manifests() -> Vec<PathBuf> {
    let folder = root().join("deploy/kubernetes");
    let entries = std::fs::read_dir(folder).unwrap();
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| !file.ends_with("kustomization.yaml"));
    files.sort();
    assert!(files.len() >= 8, "{files:?}");
    files
}

/// Runs a module of the environment that has the schemas; says whether it is content, and what it
/// said.
fn python(arguments: &[&str], files: &[PathBuf]) -> (bool, String) {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap();
    let python = target.join("venv/deploy/bin/python");
    let ran = Command::new(&python)
        .arg("-m")
        .args(arguments)
        .args(files)
        .output()
        .unwrap_or_else(|error| {
            panic!(
                "{} cannot be run ({error}); `cargo xtask setup` makes it",
                python.display()
            )
        });
    let said = [ran.stdout, ran.stderr].concat();
    (
        ran.status.success(),
        String::from_utf8_lossy(&said).into_owned(),
    )
}

/// Checks manifests against the schemas of Kubernetes; what is not in a schema is an error too.
fn kubernetes_takes(files: &[PathBuf]) -> (bool, String) {
    python(&["kubernetes_validate", "--strict"], files)
}

/// Checks a file against the schema of the Compose specification.
fn compose_takes(file: PathBuf) -> (bool, String) {
    let check = [
        "check_jsonschema",
        "--builtin-schema",
        "vendor.compose-spec",
    ];
    python(&check, &[file])
}

/// A file of the project, in `folder`, with a word in place of another.
fn changed(file: &str, from: &str, to: &str, folder: &Path) -> PathBuf {
    let text = std::fs::read_to_string(root().join(file)).unwrap();
    assert!(text.contains(from), "{file} has no `{from}`");
    let changed = folder.join("changed.yaml");
    std::fs::write(&changed, text.replace(from, to)).unwrap();
    changed
}

#[test]
fn the_manifests_are_what_kubernetes_takes() {
    let files = manifests();
    let (valid, said) = kubernetes_takes(&files);
    assert!(valid, "{said}");
    // None is forgotten.
    let applied = root().join("deploy/kubernetes/kustomization.yaml");
    let applied = std::fs::read_to_string(applied).unwrap();
    for file in &files {
        let named = format!("  - {}", file.file_name().unwrap().display());
        assert!(applied.lines().any(|line| line == named), "{named}");
    }
    let folder = tempfile::tempdir().unwrap();
    let wrong = changed(
        "deploy/kubernetes/deployment.yaml",
        "terminationGracePeriodSeconds",
        "gracePeriod",
        folder.path(),
    );
    let (valid, said) = kubernetes_takes(&[wrong]);
    assert!(!valid && said.contains("gracePeriod"), "{said}");
}

#[test]
fn the_compose_file_is_what_the_specification_says() {
    const FILE: &str = "deploy/compose.yaml";
    let (valid, said) = compose_takes(root().join(FILE));
    assert!(valid, "{said}");
    let folder = tempfile::tempdir().unwrap();
    // Of a service, and of what services share.
    for (from, to) in [("healthcheck", "health_check"), ("depends_on", "depend_on")] {
        let (valid, said) = compose_takes(changed(FILE, from, to, folder.path()));
        assert!(!valid && said.contains(to), "{said}");
    }
}

/// The text that lies under `key: |` in a manifest.
fn content(manifest: &str, key: &str) -> String {
    let manifest = std::fs::read_to_string(root().join(manifest)).unwrap();
    let begin = format!("  {key}: |");
    let lines = manifest.lines().skip_while(|line| *line != begin).skip(1);
    let lines = lines.map_while(|line| line.strip_prefix("    "));
    let text: String = lines.flat_map(|line| [line, "\n"]).collect();
    assert!(!text.is_empty(), "{key}");
    text
}

#[test]
fn what_users_start_from_is_what_the_command_reads() {
    let repository = Repository::empty(&content("deploy/kubernetes/configmap.yaml", "unskew.yaml"));
    let secret = "deploy/kubernetes/secret.yaml";
    repository.write("tokens.json", &content(secret, "tokens.json"));
    let secret = std::fs::read_to_string(root().join(secret)).unwrap();
    let url = secret
        .lines()
        .find_map(|line| line.strip_prefix("  REDIS_URL: "))
        .unwrap();

    let tokens = repository
        .command(&["token", "list"])
        .env("UNSKEW_TOKENS", "tokens.json")
        .output()
        .unwrap();
    Ran::of(tokens).done();
    // The settings are read; then the bucket is asked for, where nobody answers.
    let listed = repository
        .command(&["list"])
        .env("REDIS_URL", url)
        .env("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
        .env("AWS_ALLOW_HTTP", "true")
        .env("AWS_ACCESS_KEY_ID", "id")
        .env("AWS_SECRET_ACCESS_KEY", "secret")
        .output()
        .unwrap();
    let said = Ran::of(listed).stderr;
    assert!(said.contains("nobody answers for bucket"), "{said}");
}

/// The lists of arguments of `unskew` in a manifest: what follows `args:` or `command:`.
fn arguments(text: &str) -> Vec<Vec<String>> {
    let mut all = Vec::new();
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        let Some((key, value)) = line.split_once(':') else {
            continue;
        };
        if !matches!(key.trim(), "args" | "command") {
            continue;
        }
        if let Ok(words) = serde_json::from_str::<Vec<String>>(value.trim()) {
            all.push(words);
            continue;
        }
        let mut words = Vec::new();
        while let Some(line) = lines.peek().map(|line| line.trim()) {
            if let Some(word) = line.strip_prefix("- ") {
                words.push(word.to_owned());
            } else if !line.starts_with('#') {
                break;
            }
            lines.next();
        }
        all.push(words);
    }
    all.retain(|words| words.first().is_some_and(|word| word != "redis-server"));
    all
}

#[test]
fn what_the_manifests_call_is_a_command_that_there_is() {
    let folder = tempfile::tempdir().unwrap();
    for (file, calls) in [
        ("deploy/kubernetes/deployment.yaml", 1),
        ("deploy/kubernetes/cronjob.yaml", 1),
        ("deploy/compose.yaml", 2),
    ] {
        let text = std::fs::read_to_string(root().join(file)).unwrap();
        let found = arguments(&text);
        assert_eq!(found.len(), calls, "{file}: {found:?}");
        for words in found {
            let mut words: Vec<&str> = words.iter().map(String::as_str).collect();
            // All before it is read, and nothing is done.
            words.push("--help");
            let ran = common::unskew(folder.path(), &words);
            assert_eq!(ran.code, 0, "{file}: {words:?}: {}", ran.stderr);
            words.insert(1, "--no-such-thing");
            assert_eq!(common::unskew(folder.path(), &words).code, 2, "{words:?}");
        }
    }
}
