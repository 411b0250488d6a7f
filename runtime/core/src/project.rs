//! A project as the registry holds it: definitions with every reference and type resolved.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::component::{Description, Kind};
use crate::digest::Digest;
use crate::json::Literal;
use crate::types::Field;
use crate::view::{JoinKey, OnError, Source, View};

/// What a definition says about itself to people; no part of any digest.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct About {
    /// What it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Who answers for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// Free labels.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tags: BTreeMap<String, String>,
    /// What it says about its join keys or features, by name; those of which it says nothing are
    /// absent.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub members: BTreeMap<String, About>,
}

/// A definition, and what it says about itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Defined<T> {
    /// The definition.
    #[serde(flatten)]
    pub value: T,
    /// What it says about itself.
    #[serde(default)]
    pub about: About,
}

/// What features describe.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entity {
    /// Its name.
    pub name: String,
    /// Its join keys.
    pub join_keys: Vec<JoinKey>,
}

/// A view and the entities that it describes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FeatureView {
    /// Its entities.
    pub entities: Vec<String>,
    /// The view.
    pub view: Arc<View>,
}

/// Another name and other join keys for a view.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alias {
    /// Its name.
    pub name: String,
    /// The view's name.
    pub alias_of: String,
    /// Join key of the view: its name here. Those that are absent keep their name.
    pub join_keys: BTreeMap<String, String>,
}

/// A component and where its inputs come from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Transformation {
    /// Its name.
    pub name: String,
    /// On-demand or batch.
    pub kind: Kind,
    /// The component's digest.
    pub component: Digest,
    /// What the component says about itself.
    pub description: Description,
    /// What becomes of a row for which it fails.
    pub on_error: OnError,
    /// One for each of the component's inputs, in their order.
    pub inputs: Vec<InputDefinition>,
}

impl Transformation {
    /// The position of the output called `name`.
    pub fn output(&self, name: &str) -> Option<usize> {
        self.description
            .outputs
            .iter()
            .position(|field| field.name == name)
    }
}

/// Where an input comes from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct InputDefinition {
    /// Its origin.
    pub from: Reference,
    /// What stands for null.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default: Option<Literal>,
}

/// The origin of an input, by name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reference {
    /// `VIEW:FEATURE` or `TRANSFORMATION:OUTPUT`.
    Member(String, String),
    /// `key:JOIN_KEY`.
    Key(String),
    /// `request:FIELD`.
    Request(String),
    /// Of a batch transformation: a column of the source.
    Column(String),
    /// A constant.
    Constant(Literal),
    /// `event_timestamp`.
    EventTimestamp,
}

/// The features that one model uses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FeatureService {
    /// Its name.
    pub name: String,
    /// Whether an output is called `view__feature`.
    pub full_feature_names: bool,
    /// `VIEW`, `VIEW:FEATURE`, `TRANSFORMATION` or `TRANSFORMATION:OUTPUT`.
    pub features: Vec<String>,
}

/// All definitions of a project by name, resolved.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Project {
    /// The project's name.
    pub name: String,
    /// What features describe.
    pub entities: BTreeMap<String, Defined<Entity>>,
    /// Where history lies.
    pub sources: BTreeMap<String, Defined<Source>>,
    /// Typed features of an entity.
    pub views: BTreeMap<String, Defined<FeatureView>>,
    /// Other names for views.
    pub aliases: BTreeMap<String, Defined<Alias>>,
    /// Components and where their inputs come from.
    pub transformations: BTreeMap<String, Defined<Transformation>>,
    /// The lists of features that models use.
    pub services: BTreeMap<String, Defined<FeatureService>>,
}

impl Project {
    /// The view called `name`, or of which `name` is an alias, and the names of its join keys under
    /// that name.
    pub fn lookup(&self, name: &str) -> Option<(&Arc<View>, Vec<&str>)> {
        if let Some(defined) = self.views.get(name) {
            let view = &defined.value.view;
            return Some((
                view,
                view.keys.iter().map(|key| key.name.as_str()).collect(),
            ));
        }
        let alias = &self.aliases.get(name)?.value;
        let view = &self.views.get(&alias.alias_of)?.value.view;
        let keys = view
            .keys
            .iter()
            .map(|key| alias.join_keys.get(&key.name).unwrap_or(&key.name));
        Some((view, keys.map(String::as_str).collect()))
    }

    /// The names of all views and aliases.
    pub fn lookup_names(&self) -> impl Iterator<Item = &str> {
        self.views
            .keys()
            .chain(self.aliases.keys())
            .map(String::as_str)
    }

    /// The digests of all components.
    pub fn components(&self) -> std::collections::BTreeSet<Digest> {
        self.transformations
            .values()
            .map(|defined| defined.value.component)
            .collect()
    }

    /// The features or outputs of a view, an alias or an on-demand transformation.
    pub fn members(&self, name: &str) -> Option<Vec<&Field>> {
        if let Some((view, _)) = self.lookup(name) {
            return Some(view.features.iter().collect());
        }
        let transformation = &self.transformations.get(name)?.value;
        (transformation.kind == Kind::OnDemand)
            .then(|| transformation.description.outputs.iter().collect())
    }
}
