//! Definition files: read, checked against their shape, merged.

mod problem;
mod schema;
pub mod shape;
mod yaml;

use serde::de::DeserializeOwned;
use serde_json::Value;

pub use problem::{Located, Place, Problem, Problems};
pub use schema::json_schema;
use shape::{
    EntityShape, FeatureFile, FeatureServiceShape, FeatureViewShape, OnlineStoreKind, ProjectFile,
    SourceShape, TransformationShape,
};

/// The name of the project file.
pub const PROJECT_FILE: &str = "unskew.yaml";

/// A file's name, relative to the feature repository, and its text.
pub type FileText = (String, String);

/// The project file, checked.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The project's name.
    pub project: String,
    /// The registry's folder, relative to the feature repository.
    pub registry: String,
    /// Where materialized rows are served from.
    pub online_store: OnlineStore,
}

/// Where materialized rows are served from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OnlineStore {
    /// LMDB.
    Embedded {
        /// Its folder, relative to the feature repository.
        path: String,
    },
    /// Redis.
    Redis {
        /// Its URL.
        url: String,
    },
}

impl Settings {
    /// Reads the project file; `${NAME}` is what `environment` gives for NAME.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn read(
        text: &str,
        environment: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, Problems> {
        let mut problems = Problems::default();
        let Some((mut value, root)) = yaml::read(PROJECT_FILE, text, &mut problems) else {
            return Err(problems);
        };
        expand(&mut value, &root, &environment, &mut problems);
        let mut unknown_keys = Problems::default();
        let file = typed::<ProjectFile>(value, &root, &mut unknown_keys, &mut problems);
        problems.0.append(&mut unknown_keys.0);
        let Some(file) = file else {
            return Err(sorted(problems));
        };
        check_name(&file.project, "project", &root.at("project"), &mut problems);
        let store = &file.online_store;
        let place = root.at("online_store");
        let online_store = match store.kind {
            OnlineStoreKind::Embedded => {
                if store.url.is_some() {
                    let message = "`url` belongs to type redis; an embedded store has a `path`";
                    problems.at(&place.at("url"), message);
                }
                let path = store
                    .path
                    .clone()
                    .unwrap_or_else(|| ".unskew/online".to_owned());
                OnlineStore::Embedded { path }
            }
            OnlineStoreKind::Redis => {
                if store.path.is_some() {
                    let message = "`path` belongs to type embedded; a redis store has a `url`";
                    problems.at(&place.at("path"), message);
                }
                if store.url.is_none() {
                    let message = "a redis store needs a `url`, such as redis://127.0.0.1:6379/0";
                    problems.at(&place, message);
                }
                OnlineStore::Redis {
                    url: store.url.clone().unwrap_or_default(),
                }
            }
        };
        problems.or(Self {
            project: file.project,
            registry: file.registry,
            online_store,
        })
    }
}

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
    /// Unknown keys: what is wrong and does not hinder the resolving, which reports it with all
    /// else.
    pub unknown_keys: Problems,
}

impl Definitions {
    /// Reads and merges files of definitions.
    ///
    /// # Errors
    /// Everything that is wrong with their shape, in all files, if anything but unknown keys is.
    pub fn read(files: &[FileText]) -> Result<Self, Problems> {
        let mut problems = Problems::default();
        let mut merged = Self::default();
        for (name, text) in files {
            let Some((value, root)) = yaml::read(name, text, &mut problems) else {
                continue;
            };
            let unknown_keys = &mut merged.unknown_keys;
            let Some(file) = typed::<FeatureFile>(value, &root, unknown_keys, &mut problems) else {
                continue;
            };
            merged
                .entities
                .extend(located(file.entities, &root.at("entities")));
            merged
                .sources
                .extend(located(file.sources, &root.at("sources")));
            merged
                .feature_views
                .extend(located(file.feature_views, &root.at("feature_views")));
            merged
                .transformations
                .extend(located(file.transformations, &root.at("transformations")));
            merged
                .feature_services
                .extend(located(file.feature_services, &root.at("feature_services")));
        }
        if !problems.0.is_empty() {
            problems.0.append(&mut merged.unknown_keys.0);
        }
        problems.or(merged)
    }
}

fn located<T>(values: Vec<T>, list: &Place) -> impl Iterator<Item = Located<T>> {
    values
        .into_iter()
        .enumerate()
        .map(|(index, value)| Located {
            value,
            place: list.at(index),
        })
}

fn sorted(problems: Problems) -> Problems {
    problems.or(()).err().unwrap_or_default()
}

fn typed<T: DeserializeOwned + schemars::JsonSchema>(
    mut value: Value,
    root: &Place,
    unknown_keys: &mut Problems,
    problems: &mut Problems,
) -> Option<T> {
    let before = problems.0.len();
    schema::check::<T>(&mut value, root, unknown_keys, problems);
    if problems.0.len() > before {
        return None;
    }
    // The schema comes from the same types, so that what keeps to it can be read.
    serde_json::from_value(value)
        .map_err(|error| problems.at(root, error))
        .ok()
}

/// Replaces `${NAME}` in every text below `value`.
fn expand(
    value: &mut Value,
    place: &Place,
    environment: &impl Fn(&str) -> Option<String>,
    problems: &mut Problems,
) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                expand(value, &place.at(key), environment, problems);
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter_mut().enumerate() {
                expand(item, &place.at(index), environment, problems);
            }
        }
        Value::String(text) => {
            let mut expanded = String::with_capacity(text.len());
            let mut rest = text.as_str();
            while let Some(start) = rest.find("${") {
                expanded.push_str(&rest[..start]);
                let Some(length) = rest[start..].find('}') else {
                    problems.at(place, "`${` without `}`; write ${NAME}");
                    return;
                };
                let name = &rest[start + 2..start + length];
                match environment(name) {
                    Some(value) => expanded.push_str(&value),
                    None => problems.at(
                        place,
                        format_args!("the environment variable `{name}` is not set"),
                    ),
                }
                rest = &rest[start + length + 1..];
            }
            expanded.push_str(rest);
            *text = expanded;
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// The longest name, in bytes.
const LONGEST_NAME: usize = 100;

/// Whether `name` may name a definition, a column or a field: a letter or `_`, then letters,
/// digits and `_`, at most 100.
pub fn is_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    name.len() <= LONGEST_NAME
        && bytes
            .next()
            .is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
        && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// Adds a problem if `name` is no name.
pub(crate) fn check_name(name: &str, what: &str, place: &Place, problems: &mut Problems) {
    if !is_name(name) {
        problems.at(
            place,
            format_args!(
                "`{name}` is no {what} name; a name is a letter or `_`, then letters, digits \
                 and `_`, at most {LONGEST_NAME}"
            ),
        );
    }
}
