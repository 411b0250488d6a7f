//! The project file.

use std::collections::BTreeSet;

use serde_json::Value;

use super::problem::{Place, Problems};
use super::schema;
use super::shape::{OnlineStoreKind, OnlineStoreShape, ProjectFile};
use super::yaml::{self, Document};
use super::{check_name, check_path, check_registry};

/// The name of the project file.
pub const PROJECT_FILE: &str = "unskew.yaml";

/// The project file, checked.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The project's name.
    pub project: String,
    /// The registry: a folder, relative to the feature repository; or a URL with one of
    /// [`STORE_SCHEMES`](crate::view::STORE_SCHEMES).
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
        checks.of(&root.at("registry"), |at, problems| {
            check_registry(&file.registry, at, problems);
        });
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
        let path = place.at("path");
        match store.kind {
            OnlineStoreKind::Embedded => {
                for (key, value) in store.redis_keys() {
                    if value.is_some() {
                        let message = format!(
                            "`{key}` belongs to type redis; an embedded store has a `path`"
                        );
                        self.problems.at(&place.at(key), message);
                    }
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
                OnlineStore::Redis {
                    url: self.redis(store, place),
                }
            }
        }
    }

    /// The URL of a redis store, or its connection string with all that belongs to it.
    fn redis(&mut self, store: &OnlineStoreShape, place: &Place) -> String {
        let Some(list) = &store.connection_string else {
            for (key, value) in store.redis_keys().into_iter().skip(2) {
                if value.is_some() {
                    let message =
                        format!("`{key}` goes with a `connection_string`; a `url` says it itself");
                    self.problems.at(&place.at(key), message);
                }
            }
            self.of(&place.at("url"), |at, problems| match &store.url {
                Some(url) => check_url(url, at, problems),
                None => {
                    let message = "a redis store needs a `url`, such as redis://127.0.0.1:6379/0";
                    problems.at(place, message);
                }
            });
            return store.url.clone().unwrap_or_default();
        };
        if store.url.is_some() {
            let message = "a redis store has a `url` or a `connection_string`, not both";
            self.problems.at(&place.at("url"), message);
        }
        let mut whole = list.clone();
        for (key, value) in store.redis_keys().into_iter().skip(2) {
            let Some(value) = value else {
                continue;
            };
            // It would be taken for the end of this part and the beginning of the next.
            if value.contains([',', '=']) {
                let message = format!("`{key}` is one name, without `,` and `=`");
                self.problems.at(&place.at(key), message);
            }
            whole.push_str(&format!(",{key}={value}"));
        }
        self.of(&place.at("connection_string"), |at, problems| {
            if !is_list(list) {
                let message = "write HOST:PORT, more of them after commas, and then options such as \
                               password=PASSWORD,ssl=true,db=0";
                problems.at(at, message);
            }
        });
        whole
    }
}

impl OnlineStoreShape {
    /// What belongs to a redis store alone: the two ways to name it, then what goes with the second.
    const fn redis_keys(&self) -> [(&'static str, &Option<String>); 4] {
        [
            ("url", &self.url),
            ("connection_string", &self.connection_string),
            ("redis_type", &self.redis_type),
            ("sentinel_master", &self.sentinel_master),
        ]
    }
}

/// Whether a text begins as Feast writes servers: with HOST:PORT.
fn is_list(text: &str) -> bool {
    let first = text.split(',').next().unwrap_or_default().trim();
    first.rsplit_once(':').is_some_and(|(host, port)| {
        !host.is_empty() && !host.contains(['@', '/']) && port.parse::<u16>().is_ok()
    })
}

/// Adds a problem if `url` is none of a Redis server. What else there is to a URL is known to the
/// client alone.
fn check_url(url: &str, at: &Place, problems: &mut Problems) {
    const FORM: &str = "write redis://HOST:PORT/DATABASE";
    match url.split_once("://") {
        Some((scheme, _)) if is_scheme(&scheme.to_ascii_lowercase()) => {}
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
        None if is_list(url) => {}
        // It may be anything, a password too.
        None => problems.at(at, format_args!("a Redis URL has a scheme; {FORM}")),
    }
}

/// Whether the client takes a scheme: with TLS, of one server, of a cluster or of sentinels, or a
/// socket. Valkey is a Redis.
fn is_scheme(scheme: &str) -> bool {
    let (name, kind) = scheme.split_once('+').unwrap_or((scheme, ""));
    match kind {
        "" => matches!(name, "redis" | "rediss" | "valkey" | "valkeys" | "unix"),
        "cluster" | "sentinel" => matches!(name, "redis" | "rediss" | "valkey" | "valkeys"),
        "unix" => matches!(name, "redis" | "valkey"),
        _ => false,
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
