//! The sources of the SDK and of the contract, which this crate carries, so that a transformation
//! builds for somebody who has only the `unskew` command.

use std::path::Path;

use include_dir::{Dir, include_dir};

use crate::error::StoreError;
use crate::files::write_if_changed;

static WIT: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/../../wit");
static SDK: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/../../sdk/rust/src");
static MACROS: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/../../sdk/rust/macros/src");
static MANIFESTS: [(&str, &str); 2] = [
    (
        "sdk/rust/Cargo.toml",
        include_str!("../../../sdk/rust/Cargo.toml"),
    ),
    (
        "sdk/rust/macros/Cargo.toml",
        include_str!("../../../sdk/rust/macros/Cargo.toml"),
    ),
];

/// Writes the SDK's sources below `.unskew/sdk` of the feature repository `root`; files that are as
/// they should be are left alone, so that cargo sees no change.
///
/// # Errors
/// A file cannot be written.
pub fn write_sdk(root: &Path) -> Result<(), StoreError> {
    let sdk = root.join(".unskew/sdk");
    let embedded = [
        (WIT.clone(), "wit"),
        (SDK.clone(), "sdk/rust/src"),
        (MACROS.clone(), "sdk/rust/macros/src"),
    ];
    for (dir, place) in &embedded {
        write_dir(dir, &sdk.join(place))?;
    }
    for (place, text) in MANIFESTS {
        write_if_changed(&sdk.join(place), text.as_bytes())?;
    }
    Ok(())
}

fn write_dir(dir: &Dir<'_>, place: &Path) -> Result<(), StoreError> {
    for file in dir.files() {
        write_if_changed(&place.join(file.path()), file.contents())?;
    }
    for below in dir.dirs() {
        write_dir(below, place)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sdk_is_written_whole_and_only_once() {
        let root = tempfile::tempdir().unwrap();
        write_sdk(root.path()).unwrap();
        let sdk = root.path().join(".unskew/sdk");
        for file in [
            "wit/transform.wit",
            "sdk/rust/Cargo.toml",
            "sdk/rust/src/lib.rs",
            "sdk/rust/macros/src/lib.rs",
        ] {
            assert!(sdk.join(file).is_file(), "{file}");
        }
        let written = |name: &str| {
            std::fs::metadata(sdk.join(name))
                .unwrap()
                .modified()
                .unwrap()
        };
        let before = written("wit/transform.wit");
        write_sdk(root.path()).unwrap();
        assert_eq!(written("wit/transform.wit"), before);
    }
}
