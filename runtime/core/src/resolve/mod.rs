//! From definition files to a [`Project`]: references, types and names, with every problem found.

mod aliases;
mod batch;
mod entities;
mod services;
mod sources;
mod transformations;
mod views;

use std::collections::{BTreeMap, BTreeSet};

use arrow::datatypes::Schema;

use crate::component::{Description, Kind};
use crate::definitions::{Definitions, Place, Problems, check_name};
use crate::digest::Digest;
use crate::plan::EVENT_TIMESTAMP;
use crate::project::Project;
use crate::text;

/// What the definitions stand on, by name; an `Err` is why it could not be had.
#[derive(Debug, Default)]
pub struct Surroundings {
    /// The schema of each source's files, with the names in the files.
    pub sources: BTreeMap<String, Result<Schema, String>>,
    /// The component of each transformation.
    pub components: BTreeMap<String, Result<(Digest, Description), String>>,
}

/// Names that stand for something in references.
const RESERVED: [&str; 4] = ["request", "key", "value", EVENT_TIMESTAMP];

/// Resolves all definitions.
///
/// # Errors
/// Everything that is wrong, each with file, line, what was found and what would be valid.
pub fn resolve(
    project: &str,
    definitions: &Definitions,
    surroundings: &Surroundings,
) -> Result<Project, Problems> {
    let mut resolver = Resolver {
        definitions,
        surroundings,
        project: Project {
            name: project.to_owned(),
            ..Project::default()
        },
        problems: definitions.unknown_keys.clone(),
    };
    resolver.names();
    resolver.sources();
    let batch = resolver.batch_transformations();
    resolver.entities(&batch);
    resolver.views(&batch);
    resolver.aliases();
    resolver.project.transformations.extend(batch);
    resolver.on_demand_transformations();
    resolver.services();
    resolver.problems.or(resolver.project)
}

struct Resolver<'a> {
    definitions: &'a Definitions,
    surroundings: &'a Surroundings,
    project: Project,
    problems: Problems,
}

/// What a shape says about itself.
macro_rules! about {
    ($shape:expr) => {
        $crate::project::About {
            description: $shape.description.clone(),
            owner: $shape.owner.clone(),
            tags: $shape.tags.clone(),
        }
    };
}
use about;

impl<'a> Resolver<'a> {
    /// Names are names, and stand for one thing in their namespace.
    fn names(&mut self) {
        let definitions = self.definitions;
        let named = |what: &'static str, name: &'a str, place: &Place| (what, name, place.clone());
        let entities: Vec<_> = definitions
            .entities
            .iter()
            .map(|d| named("entity", &d.value.name, &d.place))
            .collect();
        let sources: Vec<_> = definitions
            .sources
            .iter()
            .map(|d| named("source", &d.value.name, &d.place))
            .collect();
        let services: Vec<_> = definitions
            .feature_services
            .iter()
            .map(|d| named("feature service", &d.value.name, &d.place))
            .collect();
        let views = definitions.feature_views.iter().map(|d| {
            let what = if d.value.alias_of.is_some() {
                "alias"
            } else {
                "feature view"
            };
            named(what, &d.value.name, &d.place)
        });
        let transformations = definitions
            .transformations
            .iter()
            .map(|d| named("transformation", &d.value.name, &d.place));
        let lookups: Vec<_> = views.chain(transformations).collect();
        for (_, name, place) in &lookups {
            if RESERVED.contains(name) {
                let message = format!("`{name}` is reserved; so are {}", text::list(RESERVED));
                self.problems.at(&place.at("name"), message);
            }
        }
        for namespace in [entities, sources, services, lookups] {
            let mut seen: BTreeMap<&str, (&str, Place)> = BTreeMap::new();
            for (what, name, place) in namespace {
                let at = place.at("name");
                check_name(name, what, &at, &mut self.problems);
                if let Some((other, first)) = seen.get(name) {
                    let message = format!(
                        "{what} `{name}` is called like the {other} at {}:{}; a name stands for one \
                         thing",
                        first.file.name,
                        first.line()
                    );
                    self.problems.at(&at, message);
                } else {
                    seen.insert(name, (what, at));
                }
            }
        }
    }

    /// The schema of a source, if it could be read.
    fn schema(&self, source: &str) -> Option<&'a Schema> {
        self.surroundings.sources.get(source)?.as_ref().ok()
    }

    /// A name of a column that entity rows, requests or outputs have.
    pub(super) fn column_name(&mut self, name: &str, what: &str, place: &Place) {
        check_name(name, what, place, &mut self.problems);
        if name == EVENT_TIMESTAMP {
            let message =
                format!("a {what} cannot be called `{EVENT_TIMESTAMP}`, which is reserved");
            self.problems.at(place, message);
        }
    }

    /// Views, aliases and transformations that are defined and could not be resolved.
    fn broken(&self) -> BTreeSet<&'a str> {
        let views = self
            .definitions
            .feature_views
            .iter()
            .map(|d| d.value.name.as_str());
        let transformations = self
            .definitions
            .transformations
            .iter()
            .map(|d| d.value.name.as_str());
        views
            .chain(transformations)
            .filter(|name| {
                self.project.lookup(name).is_none()
                    && !self.project.transformations.contains_key(*name)
            })
            .collect()
    }

    /// Whether `owner` and its `member` exist; says what there is if not.
    fn member(&self, owner: &str, member: Option<&str>) -> Result<(), String> {
        let Some(members) = self.project.members(owner) else {
            if self.project.transformations.contains_key(owner) {
                return Err(format!(
                    "`{owner}` is a batch transformation; its outputs are features of the views \
                     that name it"
                ));
            }
            let definitions = self.definitions;
            let transformations = definitions.transformations.iter().map(|d| &d.value);
            let on_demand = transformations.filter(|t| t.kind == Kind::OnDemand);
            let views = definitions.feature_views.iter().map(|d| &d.value.name);
            let names: BTreeSet<_> = views.chain(on_demand.map(|t| &t.name)).collect();
            let valid = text::list(names);
            return Err(format!(
                "no view, alias or on-demand transformation `{owner}`; there are: {valid}"
            ));
        };
        match member {
            Some(member) if !members.iter().any(|field| field.name == member) => Err(format!(
                "`{owner}` has no `{member}`; it has: {}",
                text::list(members.iter().map(|field| &field.name))
            )),
            _ => Ok(()),
        }
    }
}

fn no_column(column: &str, source: &str, schema: &Schema) -> String {
    format!(
        "source `{source}` has no column `{column}`; it has: {}",
        text::list(schema.fields().iter().map(|field| field.name()))
    )
}
