//! The shape of the definition files. The JSON Schema that `unskew schema` prints comes from these
//! types, and the files are checked against it.

use std::collections::BTreeMap;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;

use crate::component::Kind;
use crate::time::Mode;
use crate::view::OnError;

/// The project file, `unskew.yaml`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ProjectFile {
    /// The project's name: a letter or `_`, then letters, digits and `_`.
    pub project: String,
    /// Where what was applied is kept: a folder, relative to the feature repository; or an object
    /// store, where several machines can share it: `s3://BUCKET/PATH`, `gs://BUCKET/PATH` or
    /// `az://CONTAINER/PATH`.
    #[serde(default = "default_registry")]
    pub registry: String,
    /// Where materialized rows are served from.
    #[serde(default)]
    pub online_store: OnlineStoreShape,
    /// What the project is for.
    #[serde(default)]
    pub description: Option<String>,
    /// Who answers for it.
    #[serde(default)]
    pub owner: Option<String>,
    /// Free labels.
    #[serde(default)]
    pub tags: BTreeMap<String, String>,
}

fn default_registry() -> String {
    ".unskew/registry".to_owned()
}

/// Where materialized rows are served from.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OnlineStoreShape {
    /// The kind of store.
    #[serde(default, rename = "type")]
    pub kind: OnlineStoreKind,
    /// embedded: its folder.
    #[serde(default)]
    pub path: Option<String>,
    /// redis: its URL, such as redis://127.0.0.1:6379/0.
    #[serde(default)]
    pub url: Option<String>,
    /// redis: in place of a URL what Feast has, such as host:6379,password=secret,ssl=true.
    #[serde(default)]
    pub connection_string: Option<String>,
    /// redis, with a connection string: redis, redis_cluster or redis_sentinel.
    #[serde(default)]
    pub redis_type: Option<String>,
    /// redis, with a connection string: what the sentinels call the master.
    #[serde(default)]
    pub sentinel_master: Option<String>,
}

/// The kinds of online store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnlineStoreKind {
    /// LMDB, in a folder.
    #[default]
    Embedded,
    /// Redis.
    Redis,
}

/// A file of definitions, `features/*.yaml`; all of them are merged.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FeatureFile {
    /// What features describe.
    #[serde(default)]
    pub entities: Vec<EntityShape>,
    /// Where history lies.
    #[serde(default)]
    pub sources: Vec<SourceShape>,
    /// Typed features of an entity, and other names for them.
    #[serde(default)]
    pub feature_views: Vec<FeatureViewShape>,
    /// Components, and where their inputs come from.
    #[serde(default)]
    pub transformations: Vec<TransformationShape>,
    /// The lists of features that models use.
    #[serde(default)]
    pub feature_services: Vec<FeatureServiceShape>,
}

/// An entity: what features describe.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EntityShape {
    /// Its name.
    pub name: String,
    /// One or more join keys.
    #[schemars(length(min = 1))]
    pub join_keys: Vec<JoinKeyShape>,
    /// What it is.
    #[serde(default)]
    pub description: Option<String>,
    /// Who answers for it.
    #[serde(default)]
    pub owner: Option<String>,
    /// Free labels.
    #[serde(default)]
    pub tags: BTreeMap<String, String>,
}

/// A join key of an entity.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct JoinKeyShape {
    /// Its name.
    pub name: String,
    /// string, int32, int64, bool, bytes or timestamp; absent: as in the source.
    #[serde(default, rename = "type")]
    pub data_type: Option<String>,
    /// What it is.
    #[serde(default)]
    pub description: Option<String>,
    /// Who answers for it.
    #[serde(default)]
    pub owner: Option<String>,
    /// Free labels.
    #[serde(default)]
    pub tags: BTreeMap<String, String>,
}

/// A source: where history lies.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SourceShape {
    /// Its name.
    pub name: String,
    /// Parquet: a file, a folder or a glob, relative to the feature repository; or the same in an
    /// object store: `s3://BUCKET/PATH`, `gs://BUCKET/PATH` or `az://CONTAINER/PATH`.
    pub path: String,
    /// The column of event timestamps.
    pub timestamp_field: String,
    /// The column of created timestamps: when a row became known.
    #[serde(default)]
    pub created_timestamp_column: Option<String>,
    /// event: a row counts from its event timestamp; known: from the later of event and created.
    #[serde(default)]
    pub point_in_time: Mode,
    /// How late a row may arrive: what an incremental materialization of a source without a
    /// created timestamp reads again.
    #[serde(default)]
    pub late_by: SpanShape,
    /// Name here: name in the file.
    #[serde(default)]
    pub columns: BTreeMap<String, String>,
    /// Folders by time, such as `dt=2024-01-01`: those that cannot matter are not read. Folders by
    /// date of arrival are not declared.
    #[serde(default)]
    // A choice with null in it would hide what is wrong inside.
    #[schemars(with = "PartitionShape")]
    pub partition: Option<PartitionShape>,
    /// What it holds.
    #[serde(default)]
    pub description: Option<String>,
    /// Who answers for it.
    #[serde(default)]
    pub owner: Option<String>,
    /// Free labels.
    #[serde(default)]
    pub tags: BTreeMap<String, String>,
}

/// Folders by time.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PartitionShape {
    /// The name before the `=`: of `dt=2024-01-01` it is `dt`.
    pub column: String,
    /// The column whose time the folders name: the source's timestamp_field.
    pub of: String,
    /// How far a row's time may lie outside of its folder's.
    #[serde(default)]
    pub slack: SpanShape,
}

/// A feature view, or (with `alias_of`) another name and other join keys for one.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FeatureViewShape {
    /// Its name.
    pub name: String,
    /// The view that this is another name for.
    #[serde(default)]
    pub alias_of: Option<String>,
    /// With `alias_of`: join key of the view: its name here.
    #[serde(default)]
    pub join_keys: Option<BTreeMap<String, String>>,
    /// Its entities; none: one row for everybody.
    #[serde(default)]
    pub entities: Option<Vec<String>>,
    /// Its source.
    #[serde(default)]
    pub source: Option<String>,
    /// The batch transformation that makes its rows of the source's.
    #[serde(default)]
    pub transformation: Option<String>,
    /// How old a row may be: 30s, 15m, 6h, 7d; absent or 0: no limit.
    #[serde(default)]
    pub ttl: Option<SpanShape>,
    /// Whether the online store serves it.
    #[serde(default)]
    pub online: Option<bool>,
    /// Its features.
    #[serde(default)]
    pub features: Option<Vec<FeatureShape>>,
    /// What it holds.
    #[serde(default)]
    pub description: Option<String>,
    /// Who answers for it.
    #[serde(default)]
    pub owner: Option<String>,
    /// Free labels.
    #[serde(default)]
    pub tags: BTreeMap<String, String>,
}

/// A feature.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FeatureShape {
    /// Its name.
    pub name: String,
    /// Its type; absent: as in the source or the component.
    #[serde(default, rename = "type")]
    pub data_type: Option<String>,
    /// What it is.
    #[serde(default)]
    pub description: Option<String>,
    /// Who answers for it.
    #[serde(default)]
    pub owner: Option<String>,
    /// Free labels.
    #[serde(default)]
    pub tags: BTreeMap<String, String>,
}

/// A transformation: a component, and where its inputs come from.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TransformationShape {
    /// Its name.
    pub name: String,
    /// on_demand or batch.
    pub kind: Kind,
    /// The folder of its source, or a .wasm file; relative to the feature repository.
    pub component: String,
    /// What becomes of a row for which it fails: fail (everything stops) or null.
    #[serde(default)]
    pub on_error: OnErrorShape,
    /// The component's input: where it comes from.
    #[serde(default)]
    pub inputs: BTreeMap<String, InputShape>,
    /// What it computes.
    #[serde(default)]
    pub description: Option<String>,
    /// Who answers for it.
    #[serde(default)]
    pub owner: Option<String>,
    /// Free labels.
    #[serde(default)]
    pub tags: BTreeMap<String, String>,
}

/// Where an input comes from.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
#[schemars(
    description = "where an input comes from: VIEW:FEATURE, TRANSFORMATION:OUTPUT, key:JOIN_KEY, \
                   request:FIELD, event_timestamp, {from: REFERENCE, default: CONSTANT} or \
                   {value: CONSTANT}; of a batch transformation a column of the source in place of \
                   the first four"
)]
pub enum InputShape {
    /// `VIEW:FEATURE`, `TRANSFORMATION:OUTPUT`, `key:JOIN_KEY`, `request:FIELD` or
    /// `event_timestamp`; of a batch transformation a column of the source or `event_timestamp`.
    Reference(String),
    /// The same, with a value that stands for null.
    WithDefault(WithDefault),
    /// A constant.
    Constant(Constant),
}

/// A reference, with a value that stands for null.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WithDefault {
    /// Where it comes from.
    pub from: String,
    /// What stands for null.
    #[serde(default)]
    pub default: Option<serde_json::Value>,
}

/// A constant.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Constant {
    /// Its value.
    pub value: serde_json::Value,
}

/// A feature service: the list of features that one model uses.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FeatureServiceShape {
    /// Its name.
    pub name: String,
    /// Whether an output is called `view__feature` and not `feature`.
    #[serde(default)]
    pub full_feature_names: bool,
    /// `VIEW`, `VIEW:FEATURE`, `TRANSFORMATION` or `TRANSFORMATION:OUTPUT`.
    #[schemars(length(min = 1))]
    pub features: Vec<String>,
    /// What it is for.
    #[serde(default)]
    pub description: Option<String>,
    /// Who answers for it.
    #[serde(default)]
    pub owner: Option<String>,
    /// Free labels.
    #[serde(default)]
    pub tags: BTreeMap<String, String>,
}

/// A duration: 30s, 15m, 6h, 7d, or 0.
#[derive(Clone, Debug)]
pub struct SpanShape(pub String);

impl Default for SpanShape {
    fn default() -> Self {
        Self("0".to_owned())
    }
}

impl<'de> Deserialize<'de> for SpanShape {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match serde_json::Value::deserialize(deserializer)? {
            serde_json::Value::String(text) => Ok(Self(text)),
            other => Ok(Self(other.to_string())),
        }
    }
}

impl JsonSchema for SpanShape {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Duration".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "a duration: 30s, 15m, 6h, 7d, or 0",
            "anyOf": [{"type": "string", "pattern": "^([0-9]+[smhd]|0)$"}, {"const": 0}]
        })
    }
}

/// `fail` or `null`; YAML reads the latter, unquoted, as no value.
#[derive(Clone, Copy, Debug, Default)]
pub struct OnErrorShape(pub OnError);

impl<'de> Deserialize<'de> for OnErrorShape {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Option::<OnError>::deserialize(deserializer)? {
            Some(on_error) => Ok(Self(on_error)),
            None => Ok(Self(OnError::Null)),
        }
    }
}

impl JsonSchema for OnErrorShape {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "OnError".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "fail or null: what becomes of a row for which a component fails",
            "enum": ["fail", "null", null]
        })
    }
}
