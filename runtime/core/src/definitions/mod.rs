//! Definition files: read, checked against their shape, merged.

mod names;
mod problem;
mod read;
mod schema;
mod settings;
pub mod shape;
mod yaml;

use crate::text;
use crate::view::STORE_SCHEMES;
pub use names::is_name;
pub(crate) use names::{AllOmitted, check_name};
pub use problem::{Located, Place, Problem, Problems};
pub use schema::json_schema;
pub use settings::{OnlineStore, PROJECT_FILE, Settings};
use shape::{EntityShape, FeatureServiceShape, FeatureViewShape, SourceShape, TransformationShape};

/// A file's name, relative to the feature repository, and its text.
pub type FileText = (String, String);

/// All definitions of a feature repository, merged, each with its place; references not yet
/// resolved.
#[derive(Clone, Debug, Default)]
pub struct Definitions {
    /// What features describe.
    pub entities: Vec<Located<EntityShape>>,
    /// Where history lies.
    pub sources: Vec<Located<SourceShape>>,
    /// Views and aliases.
    pub feature_views: Vec<Located<FeatureViewShape>>,
    /// Components and their inputs.
    pub transformations: Vec<Located<TransformationShape>>,
    /// The lists of features that models use.
    pub feature_services: Vec<Located<FeatureServiceShape>>,
    /// What is wrong with the files, with shapes and with names. What it hinders is left out above;
    /// the resolving of the rest reports it with all else.
    pub problems: Problems,
    /// What is left out.
    pub(crate) omitted: AllOmitted,
}

impl Definitions {
    /// Reads and merges files of definitions.
    ///
    /// A definition whose shape is wrong, or whose name another has, is left out alone.
    pub fn read(files: &[FileText]) -> Self {
        read::read(files)
    }
}

/// Adds a problem if a source's `path` is a URL that names nothing in an object store.
pub(crate) fn check_source_path(path: &str, place: &Place, problems: &mut Problems) {
    check_stored("a source", path, place, problems);
}

/// Adds a problem if the registry's `path` is a URL that names nothing in an object store.
pub(crate) fn check_registry(path: &str, place: &Place, problems: &mut Problems) {
    check_stored("a registry", path, place, problems);
}

fn check_stored(what: &str, path: &str, place: &Place, problems: &mut Problems) {
    let Some((scheme, rest)) = path.split_once("://") else {
        return;
    };
    if !STORE_SCHEMES.contains(&scheme) {
        let message = format_args!(
            "`{scheme}://`: there is no such object store; {what} lies at a path, or at a URL that \
             begins with {}",
            text::list(STORE_SCHEMES.map(|scheme| format!("{scheme}://")))
        );
        problems.at(place, message);
    } else if rest.is_empty() || rest.starts_with('/') {
        let message = format_args!("`{path}` names no bucket; write {scheme}://BUCKET/PATH");
        problems.at(place, message);
    }
}

/// Adds a problem if the `path` of an embedded store is one of an object store.
pub(crate) fn check_path(path: &str, place: &Place, problems: &mut Problems) {
    if let Some((scheme, _)) = path.split_once("://") {
        let message = format_args!(
            "`{scheme}://`: an embedded store lies in a folder of this machine; write its path"
        );
        problems.at(place, message);
    }
}
