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
use crate::view::Source;

/// What the definitions stand on, by name; an `Err` is why it could not be had.
#[derive(Debug, Default)]
pub struct Surroundings {
    /// The schema of each source's files, with the names in the files.
    pub sources: BTreeMap<String, Result<Schema, String>>,
    /// The component of each transformation.
    pub components: BTreeMap<String, Result<(Digest, Description), String>>,
}

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
        problems: definitions.problems.clone(),
    };
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
            members: Default::default(),
        }
    };
    ($shape:expr, $members:expr) => {
        $crate::project::About {
            members: $members
                .into_iter()
                .map(|member| (member.name.clone(), $crate::resolve::about!(member)))
                .filter(|(_, about)| *about != $crate::project::About::default())
                .collect(),
            ..$crate::resolve::about!($shape)
        }
    };
}
use about;

impl<'a> Resolver<'a> {
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

    /// The source called `name`, if there is one, and one only.
    fn source(&self, name: &str) -> Option<&Source> {
        let is_omitted = self.definitions.omitted.sources.contains(name);
        let source = self.project.sources.get(name);
        source.filter(|_| !is_omitted).map(|defined| &defined.value)
    }

    /// Views, aliases and transformations of which it is not known what they are.
    fn broken(&self) -> Broken<'a> {
        let definitions = self.definitions;
        let views = definitions.feature_views.iter().map(|d| &d.value.name);
        let transformations = definitions.transformations.iter().map(|d| &d.value.name);
        let (mut sound, mut names) = (BTreeSet::new(), BTreeSet::new());
        for name in views.chain(transformations).map(String::as_str) {
            let is_resolved = self.project.lookup(name).is_some()
                || self.project.transformations.contains_key(name);
            match is_resolved {
                true => sound.insert(name),
                false => names.insert(name),
            };
        }
        let mut is_open = false;
        for omitted in [
            &definitions.omitted.views,
            &definitions.omitted.transformations,
        ] {
            names.extend(omitted.names.iter().map(String::as_str));
            is_open |= omitted.is_nameless;
        }
        Broken {
            sound,
            names,
            is_open,
        }
    }

    /// Whether every join key that there is is known.
    fn knows_all_keys(&self) -> bool {
        let omitted = &self.definitions.omitted;
        !omitted.entities.any()
            && !self.broken().any()
            && self.project.entities.len() == self.definitions.entities.len()
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

/// Views, aliases and transformations of which it is not known what they are: what refers to them
/// has no problem of its own.
struct Broken<'a> {
    /// The others.
    sound: BTreeSet<&'a str>,
    /// Their names: they could not be resolved, or were left out.
    names: BTreeSet<&'a str>,
    /// Whether there are some whose names are not known.
    is_open: bool,
}

impl Broken<'_> {
    /// Whether `name` is one of them, or may be.
    fn contains(&self, name: &str) -> bool {
        self.names.contains(name) || (self.is_open && !self.sound.contains(name))
    }

    fn any(&self) -> bool {
        self.is_open || !self.names.is_empty()
    }
}

fn no_column(column: &str, source: &str, schema: &Schema) -> String {
    format!(
        "source `{source}` has no column `{column}`; it has: {}",
        text::list(schema.fields().iter().map(|field| field.name()))
    )
}
