//! From a transformation's sources to a component.

use std::path::{Path, PathBuf};
use std::process::Command;

use bytes::Bytes;
use serde::Deserialize;
use unskew_core::digest::Digest;
use wit_component::ComponentEncoder;

use crate::error::StoreError;
use crate::files::{read, write_if_changed};
use crate::sdk::write_sdk;

/// The target for which guests are built.
const TARGET: &str = "wasm32-unknown-unknown";

/// The beginning of the name of the custom section that wit-bindgen writes for the contract.
const CONTRACT_SECTION: &[u8] = b"component-type";

/// A component that was built.
#[derive(Clone, Debug)]
pub struct Built {
    /// The file that holds it.
    pub file: PathBuf,
    /// The component.
    pub bytes: Bytes,
    /// Its digest.
    pub digest: Digest,
}

/// Builds the Rust package in `folder`, in the feature repository `root`. Cargo decides what has to
/// be compiled again, below `.unskew/target`; the component is written below `.unskew/components`.
///
/// # Errors
/// The toolchain is missing (the message says how to get it), or it refuses the sources (the
/// message is its own).
pub fn build_component(root: &Path, folder: &Path) -> Result<Built, StoreError> {
    let refuse = |message: String| StoreError::Build {
        folder: folder.to_owned(),
        message,
    };
    let manifest = folder.join("Cargo.toml");
    if !manifest.is_file() {
        return Err(refuse(
            "it has no Cargo.toml; a transformation is a Rust package".to_owned(),
        ));
    }
    write_sdk(root)?;
    check_toolchain().map_err(refuse)?;
    let core = compile(root, &manifest).map_err(refuse)?;
    let module = read(&core)?;
    let no_function =
        "it needs one function with `#[transform(on_demand)]` or `#[transform(batch)]`";
    // Without it the module exports nothing of the contract.
    if !module
        .windows(CONTRACT_SECTION.len())
        .any(|bytes| bytes == CONTRACT_SECTION)
    {
        return Err(refuse(format!("it is no transformation: {no_function}")));
    }
    let component = ComponentEncoder::default()
        .validate(true)
        .module(&module)
        .and_then(|mut encoder| encoder.encode())
        .map_err(|error| refuse(format!("it is no transformation: {error:#}; {no_function}")))?;
    let name = core
        .file_stem()
        .map(|stem| stem.to_string_lossy().into_owned())
        .unwrap_or_default();
    let file = root.join(".unskew/components").join(format!("{name}.wasm"));
    write_if_changed(&file, &component)?;
    Ok(Built {
        file,
        digest: Digest::of(&component),
        bytes: component.into(),
    })
}

/// Says how to get what is missing.
fn check_toolchain() -> Result<(), String> {
    let output = Command::new("rustc")
        .args(["--print", "target-libdir", "--target", TARGET])
        .output();
    let output = match output {
        Ok(output) if output.status.success() => output,
        Ok(output) => return Err(String::from_utf8_lossy(&output.stderr).into_owned()),
        Err(_) => {
            return Err(
                "no Rust toolchain was found (`rustc`); install one with rustup, https://rustup.rs, \
                 or name a built .wasm file as `component`"
                    .to_owned(),
            );
        }
    };
    let folder = String::from_utf8_lossy(&output.stdout);
    if Path::new(folder.trim()).is_dir() {
        return Ok(());
    }
    Err(format!(
        "the Rust target {TARGET} is not installed; run `rustup target add {TARGET}` (without rustup: \
         Debian's packages rustc-web and rust-web-src have it)"
    ))
}

/// A line of cargo's JSON messages.
#[derive(Deserialize)]
struct Message {
    reason: String,
    #[serde(default)]
    filenames: Vec<PathBuf>,
    #[serde(default)]
    manifest_path: PathBuf,
}

/// Compiles to a core module, and gives its file.
fn compile(root: &Path, manifest: &Path) -> Result<PathBuf, String> {
    let absolute = |path: &Path| path.canonicalize().map_err(|error| error.to_string());
    let (root, manifest) = (absolute(root)?, absolute(manifest)?);
    let output = Command::new("cargo")
        .args([
            "build",
            "--release",
            "--target",
            TARGET,
            "--message-format",
            "json-render-diagnostics",
        ])
        .arg("--manifest-path")
        .arg(&manifest)
        .env("CARGO_TARGET_DIR", root.join(".unskew/target"))
        .env("CARGO_ENCODED_RUSTFLAGS", rust_flags(&root).join("\x1f"))
        .envs([
            ("CARGO_PROFILE_RELEASE_OPT_LEVEL", "3"),
            ("CARGO_PROFILE_RELEASE_LTO", "fat"),
            ("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "1"),
            ("CARGO_PROFILE_RELEASE_PANIC", "abort"),
            ("CARGO_PROFILE_RELEASE_OVERFLOW_CHECKS", "true"),
            ("CARGO_PROFILE_RELEASE_DEBUG", "false"),
            ("CARGO_PROFILE_RELEASE_STRIP", "debuginfo"),
            ("CARGO_TERM_COLOR", "never"),
        ])
        // What a build around this one has set is not meant for the guest.
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_BUILD_TARGET")
        .env_remove("RUSTC_WRAPPER")
        .env_remove("RUSTC_WORKSPACE_WRAPPER")
        .output()
        .map_err(|error| format!("cargo could not be started: {error}"))?;
    if !output.status.success() {
        let message = String::from_utf8_lossy(&output.stderr);
        if message.contains("cabi_post_unskew") && message.contains("already defined") {
            return Err(
                "it has two functions with `#[transform]`; a package is one transformation: \
                        put the other into a package of its own"
                    .to_owned(),
            );
        }
        return Err(message.trim_end().to_owned());
    }
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter_map(|line| serde_json::from_str::<Message>(line).ok())
        .filter(|message| message.reason == "compiler-artifact" && message.manifest_path == manifest)
        .flat_map(|message| message.filenames)
        .find(|file| file.extension().is_some_and(|extension| extension == "wasm"))
        .ok_or_else(|| {
            "cargo made no .wasm file of it; write `[lib] crate-type = [\"cdylib\", \"rlib\"]` in its \
             Cargo.toml"
                .to_owned()
        })
}

/// How guests are compiled. Paths of this machine are left out of it.
fn rust_flags(root: &Path) -> Vec<String> {
    let mut flags: Vec<String> = [
        "-Ctarget-feature=+simd128",
        // All the memory that an instance begins with is cleared after each call, 1 µs for each
        // 64 KiB. With a stack of 32 KiB and what the SDK's allocator sets aside for a batch of few
        // rows, a component whose data are not large begins with 64 KiB.
        "-Clink-arg=-zstack-size=32768",
    ]
    .map(str::to_owned)
    .to_vec();
    flags.push(format!("--remap-path-prefix={}=.", root.display()));
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cargo")));
    if let Some(home) = home {
        flags.push(format!("--remap-path-prefix={}=cargo", home.display()));
    }
    flags
}
