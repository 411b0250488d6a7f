//! `unskew init`: makes a small, complete feature repository.

mod data;

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use anyhow::{Context, bail};
use serde::Serialize;
use unskew_core::definitions::is_name;

use crate::Outcome;
use crate::arguments;
use crate::output::Output;

/// The files that are written as they are, but for `{{project}}`.
const TEMPLATES: [(&str, &str); 7] = [
    (
        "unskew.yaml",
        include_str!("../../../templates/unskew.yaml"),
    ),
    (
        "features/drivers.yaml",
        include_str!("../../../templates/features/drivers.yaml"),
    ),
    ("Cargo.toml", include_str!("../../../templates/Cargo.toml")),
    (
        "transforms/pickup/Cargo.toml",
        include_str!("../../../templates/transforms/pickup/Cargo.toml"),
    ),
    (
        "transforms/pickup/src/lib.rs",
        include_str!("../../../templates/transforms/pickup/src/lib.rs"),
    ),
    ("README.md", include_str!("../../../templates/README.md")),
    (".gitignore", include_str!("../../../templates/gitignore")),
];

#[derive(Serialize)]
struct Made<'a> {
    project: String,
    folder: &'a Path,
    files: Vec<&'static str>,
}

/// Makes the repository in a folder that is new or empty.
pub(crate) fn run(arguments: &arguments::Init, output: &Output) -> anyhow::Result<Outcome> {
    let folder = arguments.name.as_path();
    let project = project_name(folder)?;
    check_empty(folder)?;
    let mut files = Vec::new();
    for (name, template) in TEMPLATES {
        let text = template.replace("{{project}}", &project);
        write(&folder.join(name), text.as_bytes())?;
        files.push(name);
    }
    for (name, bytes) in data::files()? {
        write(&folder.join(name), &bytes)?;
        files.push(name);
    }
    unskew_store::write_sdk(folder)?;
    let made = Made {
        project,
        folder,
        files,
    };
    output.print(&made, shown)?;
    Ok(Outcome::Done)
}

/// The folder's own name, with `_` for what a project's name may not have.
fn project_name(folder: &Path) -> anyhow::Result<String> {
    let absolute = std::path::absolute(folder)
        .with_context(|| format!("`{}` names no folder", folder.display()))?;
    let Some(name) = absolute.file_name() else {
        bail!(
            "`{}` has no name for a project; write `unskew init NAME`",
            folder.display()
        );
    };
    let mut project: String = name
        .to_string_lossy()
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '_' })
        .collect();
    if project.starts_with(|c: char| c.is_ascii_digit()) {
        project.insert(0, '_');
    }
    if !is_name(&project) {
        bail!("`{project}` cannot name a project: it is longer than 100 letters and digits");
    }
    Ok(project)
}

/// Refuses a folder in which something lies already.
fn check_empty(folder: &Path) -> anyhow::Result<()> {
    let first = match fs::read_dir(folder) {
        Ok(mut entries) => entries.next(),
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        Err(error) => {
            return Err(error).with_context(|| format!("cannot use `{}`", folder.display()));
        }
    };
    match first {
        None => Ok(()),
        Some(entry) => bail!(
            "`{}` is not empty, it holds `{}`; name a folder that is new or empty",
            folder.display(),
            entry?.file_name().display()
        ),
    }
}

fn write(file: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let written = match file.parent() {
        Some(folder) => fs::create_dir_all(folder),
        None => Ok(()),
    };
    written
        .and_then(|()| fs::write(file, bytes))
        .with_context(|| format!("cannot write `{}`", file.display()))
}

fn shown(made: &Made<'_>) -> String {
    let folder = made.folder.display();
    let mut text = format!("project `{}` in `{folder}`:\n", made.project);
    for file in &made.files {
        text.push_str(&format!("  {file}\n"));
    }
    let typed = quoted(&made.folder.to_string_lossy());
    text.push_str(&format!("next:\n  cd {typed}\n  unskew apply\n"));
    text.push_str("and what README.md there says\n");
    text
}

/// A path as one types it in a shell.
fn quoted(path: &str) -> String {
    // What begins with `-` would be an option, and `cd -` leads elsewhere.
    let path = match path.starts_with('-') {
        true => format!("./{path}"),
        false => path.to_owned(),
    };
    let plain = |c: char| c.is_alphanumeric() || "-_./:=,+@%".contains(c);
    if !path.is_empty() && path.chars().all(plain) {
        return path;
    }
    format!("'{}'", path.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use unskew_core::definitions::{Definitions, Settings};

    use super::*;

    #[test]
    fn the_folder_names_the_project() {
        for (folder, project) in [
            ("a/b/drivers", "drivers"),
            ("my-shop", "my_shop"),
            ("2001", "_2001"),
            ("größe", "gr__e"),
            ("./x/", "x"),
        ] {
            assert_eq!(project_name(Path::new(folder)).unwrap(), project);
        }
        assert!(project_name(Path::new("/")).is_err());
        assert!(project_name(Path::new(&"x".repeat(101))).is_err());
    }

    #[test]
    fn a_folder_is_shown_as_one_would_type_it() {
        for (path, typed) in [
            ("a/my-shop", "a/my-shop"),
            ("größe", "größe"),
            ("größe café", "'größe café'"),
            ("it's", r"'it'\''s'"),
            ("~", "'~'"),
            ("-x", "./-x"),
        ] {
            assert_eq!(quoted(path), typed);
        }
    }

    #[test]
    fn the_definitions_keep_to_their_shape() {
        let template = |name: &str| {
            let found = TEMPLATES.iter().find(|template| template.0 == name);
            found.unwrap().1.replace("{{project}}", "drivers")
        };
        let settings = Settings::read(&template("unskew.yaml"), |_| None).unwrap();
        assert_eq!(settings.project, "drivers");
        let file = "features/drivers.yaml";
        let definitions = Definitions::read(&[(file.to_owned(), template(file))]);
        assert!(
            definitions.problems.0.is_empty(),
            "{}",
            definitions.problems
        );
        assert_eq!(definitions.transformations.len(), 1);
    }
}
