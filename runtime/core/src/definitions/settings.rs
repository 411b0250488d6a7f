//! The project file.

use std::collections::BTreeSet;

use serde_json::Value;

use super::problem::{Place, Problems};
use super::schema;
use super::shape::{OnlineStoreKind, OnlineStoreShape, ProjectFile};
use super::yaml::{self, Document};
use super::{check_name, check_path};

/// The name of the project file.
pub const PROJECT_FILE: &str = "unskew.yaml";

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
        let Some(mut document) = yaml::read(PROJECT_FILE, text, &mut problems) else {
            return Err(problems);
        };
        expand(&mut document, &environment, &mut problems);
        let wrong = schema::check::<ProjectFile>(&mut document, &mut problems);
        let Document {
            mut value,
            root,
            spoilt,
        } = document;
        let Value::Object(map) = &mut value else {
            return Err(problems.sorted());
        };
        // What is wrong is left out, so that the rest can be checked.
        for key in wrong.iter().filter_map(|at| at.split('/').nth(1)) {
            map.remove(key);
        }
        let has_name = map.contains_key("project");
        map.entry("project").or_insert_with(|| "".into());
        let file: ProjectFile = match serde_json::from_value(value) {
            Ok(file) => file,
            // The schema comes from the same types, so that what keeps to it can be read.
            Err(error) => {
                problems.at(&root, error);
                return Err(problems.sorted());
            }
        };
        let mut checks = Checks {
            spoilt: &spoilt,
            problems: &mut problems,
        };
        if has_name {
            checks.of(&root.at("project"), |at, problems| {
                check_name(&file.project, "project", at, problems);
            });
        }
        checks.path(&file.registry, &root.at("registry"));
        let online_store = checks.online_store(&file.online_store, &root.at("online_store"));
        problems.or(Self {
            project: file.project,
            registry: file.registry,
            online_store,
        })
    }
}

/// Checks of values that could be read.
struct Checks<'a> {
    /// The places of values that have a problem already, and are not what was meant.
    spoilt: &'a BTreeSet<String>,
    problems: &'a mut Problems,
}

impl Checks<'_> {
    fn of(&mut self, at: &Place, check: impl FnOnce(&Place, &mut Problems)) {
        if !self.spoilt.contains(&at.pointer) {
            check(at, self.problems);
        }
    }

    fn path(&mut self, path: &str, at: &Place) {
        self.of(at, |at, problems| check_path(path, at, problems));
    }

    fn online_store(&mut self, store: &OnlineStoreShape, place: &Place) -> OnlineStore {
        let (path, url) = (place.at("path"), place.at("url"));
        match store.kind {
            OnlineStoreKind::Embedded => {
                if store.url.is_some() {
                    let message = "`url` belongs to type redis; an embedded store has a `path`";
                    self.problems.at(&url, message);
                }
                let folder = store.path.as_deref().unwrap_or(".unskew/online").to_owned();
                self.path(&folder, &path);
                OnlineStore::Embedded { path: folder }
            }
            OnlineStoreKind::Redis => {
                if store.path.is_some() {
                    let message = "`path` belongs to type embedded; a redis store has a `url`";
                    self.problems.at(&path, message);
                }
                self.of(&url, |at, problems| match &store.url {
                    Some(url) => check_url(url, at, problems),
                    None => {
                        let message =
                            "a redis store needs a `url`, such as redis://127.0.0.1:6379/0";
                        problems.at(place, message);
                    }
                });
                OnlineStore::Redis {
                    url: store.url.clone().unwrap_or_default(),
                }
            }
        }
    }
}

/// Adds a problem if `url` is none of a Redis server. What else there is to a URL is known to the
/// client alone.
fn check_url(url: &str, at: &Place, problems: &mut Problems) {
    // What the client takes; Valkey is a Redis.
    const SCHEMES: [&str; 7] = [
        "redis",
        "rediss",
        "redis+unix",
        "unix",
        "valkey",
        "valkeys",
        "valkey+unix",
    ];
    const FORM: &str = "write redis://HOST:PORT/DATABASE";
    match url.split_once("://") {
        Some((scheme, _))
            if SCHEMES
                .iter()
                .any(|known| scheme.eq_ignore_ascii_case(known)) => {}
        Some((scheme, rest)) => {
            // User and password stand before an `@`, and other secrets in a query.
            let (hidden, rest) = match rest.rsplit_once('@') {
                Some((_, rest)) => ("…@", rest),
                None => ("", rest),
            };
            let shown = rest.split(['?', '#']).next().unwrap_or_default();
            let message = format!("`{scheme}://{hidden}{shown}` is no Redis URL; {FORM}");
            problems.at(at, message);
        }
        // It may be anything, a password too.
        None => problems.at(at, format_args!("a Redis URL has a scheme; {FORM}")),
    }
}

/// Replaces `${NAME}` in every text; a text in which that fails is spoilt.
fn expand(
    document: &mut Document,
    environment: &impl Fn(&str) -> Option<String>,
    problems: &mut Problems,
) {
    let Document {
        value,
        root,
        spoilt,
    } = document;
    expand_value(value, root, environment, &mut |place, message| {
        spoilt.insert(place.pointer.clone());
        problems.at(place, message);
    });
}

fn expand_value(
    value: &mut Value,
    place: &Place,
    environment: &impl Fn(&str) -> Option<String>,
    fail: &mut impl FnMut(&Place, String),
) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                expand_value(value, &place.at(key), environment, fail);
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter_mut().enumerate() {
                expand_value(item, &place.at(index), environment, fail);
            }
        }
        Value::String(text) => {
            let mut expanded = String::with_capacity(text.len());
            let mut rest = text.as_str();
            while let Some(start) = rest.find("${") {
                expanded.push_str(&rest[..start]);
                let Some(length) = rest[start..].find('}') else {
                    fail(place, "`${` without `}`; write ${NAME}".to_owned());
                    return;
                };
                let name = &rest[start + 2..start + length];
                match environment(name) {
                    Some(value) => expanded.push_str(&value),
                    None => {
                        let message = format!("the environment variable `{name}` is not set");
                        fail(place, message);
                    }
                }
                rest = &rest[start + length + 1..];
            }
            expanded.push_str(rest);
            *text = expanded;
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}
