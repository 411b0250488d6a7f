//! Finds the feature repository in which the command runs.

use std::path::Path;

use anyhow::Context;
use unskew_core::definitions::PROJECT_FILE;
use unskew_store::FeatureStore;

/// Opens the feature repository of the current folder: the nearest one at or above it.
///
/// # Errors
/// There is none, or its `unskew.yaml` is wrong.
pub(crate) fn open() -> anyhow::Result<FeatureStore> {
    open_with(unskew_engine::Settings::default())
}

/// The same, whose components run in an engine of these settings.
///
/// # Errors
/// As [`open`].
pub(crate) fn open_with(engine: unskew_engine::Settings) -> anyhow::Result<FeatureStore> {
    let here = std::env::current_dir().context("the current folder cannot be read")?;
    let root = here.ancestors().find(|folder| is_repository(folder));
    // Where there is none, the store says so of this folder.
    Ok(FeatureStore::open_with(root.unwrap_or(&here), engine)?)
}

fn is_repository(folder: &Path) -> bool {
    folder.join(PROJECT_FILE).is_file()
}
