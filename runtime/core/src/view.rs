//! Feature views as the registry holds them: everything resolved, every type known.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::component::Description;
use crate::digest::Digest;
use crate::json::Literal;
use crate::time::Mode;
use crate::types::{DataType, Field, ScalarType};

/// The schemes of URLs under which sources lie in an object store: S3, Google Cloud Storage, Azure.
pub const STORE_SCHEMES: [&str; 6] = ["s3", "s3a", "gs", "az", "abfs", "abfss"];

/// The key in the metadata of a source's column that only the names of its folders give
/// (`country=CH`): text, which is read as the type that a definition says.
pub const FOLDER_COLUMN: &str = "unskew.folder_column";

/// Where history lies.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Source {
    /// Its name.
    pub name: String,
    /// A file, a folder or a glob: relative to the feature repository, or a URL with one of
    /// [`STORE_SCHEMES`].
    pub path: String,
    /// The column of event timestamps.
    pub timestamp_field: String,
    /// The column of created timestamps: when a row became known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_timestamp_column: Option<String>,
    /// From when a row counts.
    #[serde(default)]
    pub point_in_time: Mode,
    /// How late a row may arrive, in microseconds: what an incremental materialization reads again
    /// of a source without a created timestamp.
    #[serde(default)]
    pub late_by: i64,
    /// Name here: name in the file; for columns whose two names differ.
    #[serde(default)]
    pub columns: BTreeMap<String, String>,
    /// What the files' folders say about event timestamps; `None`: nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partition: Option<Partition>,
}

/// What the folders of a source, hive style (`dt=2024-01-01`), say about the event timestamps of
/// the rows in them. It decides what need not be read, and nothing of what a row means.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Partition {
    /// The column that the folders name, as it stands before the `=`.
    pub column: String,
    /// How far, in microseconds, a row's event timestamp may lie before the time that its folder
    /// names, or after it.
    #[serde(default)]
    pub slack: i64,
}

impl Source {
    /// The name in the file of the column that definitions call `name`.
    pub fn file_column<'a>(&'a self, name: &'a str) -> &'a str {
        self.columns.get(name).map_or(name, String::as_str)
    }
}

/// A join key of a view.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinKey {
    /// Its name in the view and its source.
    pub name: String,
    /// Its type; never a float.
    pub data_type: ScalarType,
}

/// What becomes of a row for which a component fails.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum OnError {
    /// The training set stops and names the row; the request gets an error.
    #[default]
    Fail,
    /// The outputs of that row are null.
    Null,
}

/// Where an input of a batch transformation comes from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SourceBinding {
    /// A column of the source, by its name in definitions.
    Column(String),
    /// The source row's event timestamp.
    EventTimestamp,
    /// The same value for every row.
    Constant(Literal),
}

/// The component that turns a source's rows into a view's rows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BatchTransformation {
    /// The name of its definition.
    pub name: String,
    /// The component's digest.
    pub component: Digest,
    /// What the component says about itself.
    pub description: Description,
    /// One for each of `description.inputs`, in their order.
    pub inputs: Vec<(SourceBinding, Option<Literal>)>,
    /// What becomes of a row for which it fails.
    pub on_error: OnError,
}

impl BatchTransformation {
    /// The position of the output called `name`.
    pub fn output(&self, name: &str) -> Option<usize> {
        self.description
            .outputs
            .iter()
            .position(|field| field.name == name)
    }
}

/// Typed features of an entity, from one source.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct View {
    /// Its name.
    pub name: String,
    /// Where its history lies.
    pub source: Source,
    /// Its join keys, in the order of its entities; none for a view of one row for everybody.
    pub keys: Vec<JoinKey>,
    /// Its features, in order: the schema of a stored row. All are nullable.
    pub features: Vec<Field>,
    /// How old a row may be, in microseconds; `None`: no limit. Never 0.
    pub ttl: Option<i64>,
    /// Whether the online store serves it.
    pub online: bool,
    /// The component that makes its rows; `None`: they are the source's.
    pub batch: Option<BatchTransformation>,
}

/// What of a view decides the meaning of a stored row; its JSON form is what the digest is of.
#[derive(Serialize)]
struct Meaning<'a> {
    format: u32,
    path: &'a str,
    timestamp_field: &'a str,
    created_timestamp_column: Option<&'a str>,
    point_in_time: Mode,
    /// Name here: name in the file, for every column that is read.
    columns: BTreeMap<&'a str, &'a str>,
    keys: &'a [JoinKey],
    features: Vec<(&'a str, DataType)>,
    ttl: Option<i64>,
    batch: Option<BatchMeaning<'a>>,
}

#[derive(Serialize)]
struct BatchMeaning<'a> {
    component: Digest,
    inputs: Vec<(&'a str, &'a (SourceBinding, Option<Literal>))>,
    on_error: OnError,
}

impl View {
    /// The view digest: it names all that decides the meaning of a stored row, and nothing else.
    pub fn digest(&self) -> Digest {
        Digest::of_json(&Meaning {
            format: crate::row::FORMAT,
            path: &self.source.path,
            timestamp_field: &self.source.timestamp_field,
            created_timestamp_column: self.source.created_timestamp_column.as_deref(),
            point_in_time: self.source.point_in_time,
            columns: self
                .source_columns()
                .into_iter()
                .map(|name| (name, self.source.file_column(name)))
                .collect(),
            keys: &self.keys,
            features: self
                .features
                .iter()
                .map(|f| (f.name.as_str(), f.data_type))
                .collect(),
            ttl: self.ttl,
            batch: self.batch.as_ref().map(|batch| BatchMeaning {
                component: batch.component,
                inputs: batch
                    .description
                    .inputs
                    .iter()
                    .map(|field| field.name.as_str())
                    .zip(&batch.inputs)
                    .collect(),
                on_error: batch.on_error,
            }),
        })
    }

    /// The columns that are read of the source, by their names in definitions, each once: the
    /// timestamps, then the keys and features, or what the batch transformation does not make
    /// itself and what it takes.
    pub fn source_columns(&self) -> Vec<&str> {
        let mut columns = vec![self.source.timestamp_field.as_str()];
        columns.extend(self.source.created_timestamp_column.as_deref());
        let keys = self.keys.iter().map(|key| key.name.as_str());
        match &self.batch {
            None => {
                columns.extend(keys);
                columns.extend(self.features.iter().map(|feature| feature.name.as_str()));
            }
            Some(batch) => {
                columns.extend(keys.filter(|key| batch.output(key).is_none()));
                columns.extend(
                    batch
                        .inputs
                        .iter()
                        .filter_map(|(binding, _)| match binding {
                            SourceBinding::Column(name) => Some(name.as_str()),
                            SourceBinding::EventTimestamp | SourceBinding::Constant(_) => None,
                        }),
                );
            }
        }
        let mut seen = std::collections::BTreeSet::new();
        columns.retain(|column| seen.insert(*column));
        columns
    }

    /// The types of the features, in order: the schema of a stored row.
    pub fn feature_types(&self) -> Vec<DataType> {
        self.features
            .iter()
            .map(|feature| feature.data_type)
            .collect()
    }

    /// The types of the join keys, in order.
    pub fn key_types(&self) -> Vec<ScalarType> {
        self.keys.iter().map(|key| key.data_type).collect()
    }
}
