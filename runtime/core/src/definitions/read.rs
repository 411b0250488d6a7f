//! Files of definitions, one definition after the other: what is wrong with one leaves the others
//! as they are.

use std::collections::{BTreeMap, BTreeSet};

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::names::{AllOmitted, Omitted, RESERVED, check_name};
use super::problem::{Located, Place, Problems};
use super::shape::FeatureFile;
use super::yaml::{self, Document};
use super::{Definitions, FileText, schema};
use crate::text;

/// Reads and merges `files`.
pub(super) fn read(files: &[FileText]) -> Definitions {
    let mut reader = Reader::default();
    for (name, text) in files {
        reader.file(name, text);
    }
    let mut definitions = reader.definitions;
    definitions.problems.sort();
    definitions
}

/// What a name stands for, and where it is.
type Named = (&'static str, Place);

#[derive(Default)]
struct Reader {
    definitions: Definitions,
    entities: BTreeMap<String, Named>,
    sources: BTreeMap<String, Named>,
    /// Feature views, aliases and transformations.
    lookups: BTreeMap<String, Named>,
    services: BTreeMap<String, Named>,
}

impl Reader {
    fn file(&mut self, name: &str, text: &str) {
        let Definitions {
            entities,
            sources,
            feature_views,
            transformations,
            feature_services,
            problems,
            omitted,
        } = &mut self.definitions;
        let Some(mut document) = yaml::read(name, text, problems) else {
            return omit_all(omitted, None);
        };
        let unknown = names_of_unknown(&document.value);
        let wrong = schema::check::<FeatureFile>(&mut document, problems);
        let Document {
            value,
            root,
            spoilt,
        } = document;
        let Value::Object(value) = value else {
            return omit_all(omitted, None);
        };
        for name in unknown {
            omit_all(omitted, Some(&name));
        }
        let mut file = File {
            value,
            root,
            wrong: wrong.iter().chain(&spoilt).map(|at| item(at)).collect(),
            problems,
        };
        let list = ("entities", "entity");
        file.list(list, entities, &mut self.entities, &mut omitted.entities);
        let list = ("sources", "source");
        file.list(list, sources, &mut self.sources, &mut omitted.sources);
        let (lookups, services) = (&mut self.lookups, &mut self.services);
        let list = ("feature_views", "feature view");
        file.list(list, feature_views, lookups, &mut omitted.views);
        let list = ("transformations", "transformation");
        let others = &mut omitted.transformations;
        file.list(list, transformations, lookups, others);
        let list = ("feature_services", "feature service");
        file.list(list, feature_services, services, &mut Omitted::default());
    }
}

/// One file: its lists, and the places of items in them with which something is wrong.
struct File<'a> {
    value: Map<String, Value>,
    root: Place,
    wrong: BTreeSet<String>,
    problems: &'a mut Problems,
}

impl File<'_> {
    /// Adds the definitions under `key` to `found`, and what is left out to `omitted`.
    fn list<T: DeserializeOwned>(
        &mut self,
        (key, what): (&'static str, &'static str),
        found: &mut Vec<Located<T>>,
        seen: &mut BTreeMap<String, Named>,
        omitted: &mut Omitted,
    ) {
        let list = self.root.at(key);
        let items = match self.value.remove(key) {
            None => return,
            Some(Value::Array(items)) => items,
            Some(_) => return omitted.add(None),
        };
        for (index, value) in items.into_iter().enumerate() {
            let place = list.at(index);
            let what = match value.get("alias_of") {
                None | Some(Value::Null) => what,
                Some(_) => "alias",
            };
            // Where a mapping is wanted, a text is likely to be meant as the name.
            let name = value.get("name").unwrap_or(&value).as_str();
            let name = name.map(str::to_owned);
            let mut is_whole = !self.wrong.contains(&place.pointer);
            if let Some(name) = &name {
                is_whole &= self.name(name, what, &place.at("name"), seen);
            }
            let value = is_whole.then(|| serde_json::from_value(value)).transpose();
            match value {
                Ok(Some(value)) => found.push(Located { value, place }),
                Ok(None) => omitted.add(name.as_deref()),
                // The schema comes from the same types, so that what keeps to it can be read.
                Err(error) => {
                    self.problems.at(&place, error);
                    omitted.add(name.as_deref());
                }
            }
        }
    }

    /// Checks a name; whether it is the first of its namespace.
    fn name(
        &mut self,
        name: &str,
        what: &'static str,
        at: &Place,
        seen: &mut BTreeMap<String, Named>,
    ) -> bool {
        check_name(name, what, at, self.problems);
        let is_lookup = matches!(what, "feature view" | "alias" | "transformation");
        if is_lookup && RESERVED.contains(&name) {
            let message = format!("`{name}` is reserved; so are {}", text::list(RESERVED));
            self.problems.at(at, message);
        }
        let Some((other, first)) = seen.get(name) else {
            seen.insert(name.to_owned(), (what, at.clone()));
            return true;
        };
        let message = format!(
            "{what} `{name}` is called like the {other} at {}:{}; a name stands for one thing",
            first.file.name,
            first.line()
        );
        self.problems.at(at, message);
        false
    }
}

fn omit_all(omitted: &mut AllOmitted, name: Option<&str>) {
    for omitted in omitted.each() {
        omitted.add(name);
    }
}

/// The names of definitions under keys that are unknown, such as a misspelt `entitys`: nobody can
/// say of what kind they are.
fn names_of_unknown(value: &Value) -> Vec<String> {
    const KEYS: [&str; 5] = [
        "entities",
        "sources",
        "feature_views",
        "transformations",
        "feature_services",
    ];
    let lists = value.as_object().into_iter().flatten();
    let lists = lists.filter(|(key, _)| !KEYS.contains(&key.as_str()));
    let items = lists.filter_map(|(_, list)| list.as_array()).flatten();
    items
        .filter_map(|item| item.get("name")?.as_str().map(str::to_owned))
        .collect()
}

/// Of a pointer into an item of a list, that to the item: `/entities/3` of `/entities/3/name`.
fn item(pointer: &str) -> String {
    let end = pointer.match_indices('/').nth(2);
    end.map_or(pointer, |(end, _)| &pointer[..end]).to_owned()
}
