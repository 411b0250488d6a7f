//! Feature plans: a feature service with everything resolved, the same on both sides.

use std::sync::Arc;

use arrow::datatypes as arrow_types;
use arrow::datatypes::{Schema, SchemaRef};
use serde::{Deserialize, Serialize};

use crate::component::Description;
use crate::digest::Digest;
use crate::json::Literal;
use crate::types::{DataType, Field, ScalarType};
use crate::view::{OnError, View};

/// The version of what `evaluate` does with a plan. It grows with every change of meaning.
pub const SEMANTICS: u32 = 1;

/// The reserved name of the instant for which features are computed.
pub const EVENT_TIMESTAMP: &str = "event_timestamp";

/// A feature service, resolved.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FeaturePlan {
    /// [`SEMANTICS`] of the version that made the plan.
    pub semantics: u32,
    /// The feature service; `None` for a plan of features named one by one.
    pub service: Option<String>,
    /// The entities' join keys under the names that the service gives them, each once.
    pub join_keys: Vec<Field>,
    /// The request fields, each once.
    pub request_fields: Vec<Field>,
    /// The views to look up, each name once.
    pub lookups: Vec<Lookup>,
    /// The on-demand transformations, each after those whose outputs it takes.
    pub steps: Vec<Step>,
    /// The outputs, in the order of the service; names are unique.
    pub outputs: Vec<Output>,
}

/// A view under the name and the join keys with which a service uses it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Lookup {
    /// The view's name, or its alias.
    pub name: String,
    /// The view.
    pub view: Arc<View>,
    /// For each of the view's join keys its index in [`FeaturePlan::join_keys`].
    pub keys: Vec<usize>,
    /// The features that the plan uses, as indices into the view's; ascending.
    pub features: Vec<usize>,
}

impl Lookup {
    /// The features that the plan uses, in their order in the joined batch.
    pub fn used(&self) -> impl Iterator<Item = &Field> {
        self.features
            .iter()
            .filter_map(|&index| self.view.features.get(index))
    }
}

/// An on-demand transformation in a plan.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// The name of its definition.
    pub name: String,
    /// The component's digest.
    pub component: Digest,
    /// What the component says about itself.
    pub description: Description,
    /// One for each of `description.inputs`, in their order.
    pub inputs: Vec<Input>,
    /// What becomes of a row for which it fails.
    pub on_error: OnError,
}

/// Where an input of a component comes from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Input {
    /// The origin.
    pub binding: Binding,
    /// What stands for null.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default: Option<Literal>,
}

/// The origin of an input.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Binding {
    /// A feature: the lookup, and its index among those that the lookup uses.
    Feature {
        /// Index into [`FeaturePlan::lookups`].
        lookup: usize,
        /// Index into [`Lookup::features`].
        feature: usize,
    },
    /// An output of an earlier step.
    Output {
        /// Index into [`FeaturePlan::steps`].
        step: usize,
        /// Index into the step's outputs.
        output: usize,
    },
    /// A join key: index into [`FeaturePlan::join_keys`].
    Key(usize),
    /// A request field: index into [`FeaturePlan::request_fields`].
    Request(usize),
    /// The same value for every row.
    Constant(Literal),
    /// The instant for which features are computed.
    EventTimestamp,
}

/// An output of a plan. All are nullable.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Output {
    /// The name of its column.
    pub name: String,
    /// Its type.
    #[serde(rename = "type")]
    pub data_type: DataType,
    /// [`Binding::Feature`] or [`Binding::Output`].
    pub binding: Binding,
}

/// What decides a plan's results; its JSON form is what the plan digest is of.
#[derive(Serialize)]
struct Meaning<'a> {
    semantics: u32,
    service: Option<&'a str>,
    join_keys: Vec<(&'a str, DataType)>,
    request_fields: Vec<(&'a str, DataType)>,
    lookups: Vec<(&'a str, Digest, &'a [usize], &'a [usize])>,
    steps: Vec<(&'a str, Digest, &'a [Input], OnError)>,
    outputs: &'a [Output],
}

impl FeaturePlan {
    /// The plan digest: it names all that decides the plan's results.
    pub fn digest(&self) -> Digest {
        fn typed(fields: &[Field]) -> Vec<(&str, DataType)> {
            fields
                .iter()
                .map(|field| (field.name.as_str(), field.data_type))
                .collect()
        }
        Digest::of_json(&Meaning {
            semantics: self.semantics,
            service: self.service.as_deref(),
            join_keys: typed(&self.join_keys),
            request_fields: typed(&self.request_fields),
            lookups: self
                .lookups
                .iter()
                .map(|l| (l.name.as_str(), l.view.digest(), &*l.keys, &*l.features))
                .collect(),
            steps: self
                .steps
                .iter()
                .map(|s| (s.name.as_str(), s.component, &*s.inputs, s.on_error))
                .collect(),
            outputs: &self.outputs,
        })
    }

    /// The digests of the components that the plan runs, those of batch transformations included.
    pub fn components(&self) -> std::collections::BTreeSet<Digest> {
        let batch = self.lookups.iter().filter_map(|l| l.view.batch.as_ref());
        batch
            .map(|b| b.component)
            .chain(self.steps.iter().map(|s| s.component))
            .collect()
    }

    /// The schema of the plan's outputs, all nullable.
    pub fn output_schema(&self) -> SchemaRef {
        let fields = self
            .outputs
            .iter()
            .map(|output| arrow_types::Field::new(&output.name, output.data_type.arrow(), true));
        Arc::new(Schema::new(fields.collect::<Vec<_>>()))
    }

    /// The columns of the joined batch.
    pub fn layout(&self) -> Layout {
        Layout::of(self)
    }
}

/// What a lookup found for a row, in the column `NAME:@found` of the joined batch.
pub mod found {
    /// A row; whether it counts is for `evaluate` to say.
    pub const ROW: u8 = 0;
    /// No row of that key, or a null join key.
    pub const NOTHING: u8 = 1;
    /// No rows were materialized for the view digest.
    pub const NOT_MATERIALIZED: u8 = 2;
}

/// The columns of a plan's joined batch, the one thing that differs between the two sides only in
/// how it was obtained:
///
/// ```text
/// event_timestamp | key:NAME … | request:NAME … | for each lookup:
///     LOOKUP:@found  uint8, one of `found`, never null
///     LOOKUP:@event  timestamp, null where nothing was found
///     LOOKUP:@created  timestamp, null where nothing was found or none is known
///     LOOKUP:FEATURE …  the features that the plan uses
/// ```
///
/// Names with a colon cannot meet a name of a definition.
#[derive(Clone, Debug)]
pub struct Layout {
    /// The schema. All columns are nullable but `event_timestamp` and `@found`.
    pub schema: SchemaRef,
    /// The index of the first join key's column; that of the event timestamp is 0.
    pub keys: usize,
    /// The index of the first request field's column.
    pub request: usize,
    /// For each lookup the index of its column `@found`; `@event`, `@created` and the features
    /// follow it.
    pub lookups: Vec<usize>,
}

impl Layout {
    /// How many columns of a lookup come before its features.
    pub const LOOKUP_HEADER: usize = 3;

    fn of(plan: &FeaturePlan) -> Self {
        let timestamp = ScalarType::Timestamp.arrow();
        let column = |name: String, data_type: arrow_types::DataType, nullable: bool| {
            arrow_types::Field::new(name, data_type, nullable)
        };
        let mut fields = vec![column(EVENT_TIMESTAMP.to_owned(), timestamp.clone(), false)];
        let keys = fields.len();
        for key in &plan.join_keys {
            fields.push(column(
                format!("key:{}", key.name),
                key.data_type.arrow(),
                true,
            ));
        }
        let request = fields.len();
        for field in &plan.request_fields {
            fields.push(column(
                format!("request:{}", field.name),
                field.data_type.arrow(),
                true,
            ));
        }
        let mut lookups = Vec::with_capacity(plan.lookups.len());
        for lookup in &plan.lookups {
            lookups.push(fields.len());
            let name = &lookup.name;
            fields.push(column(
                format!("{name}:@found"),
                arrow_types::DataType::UInt8,
                false,
            ));
            fields.push(column(format!("{name}:@event"), timestamp.clone(), true));
            fields.push(column(format!("{name}:@created"), timestamp.clone(), true));
            for feature in lookup.used() {
                let data_type = feature.data_type.arrow();
                fields.push(column(format!("{name}:{}", feature.name), data_type, true));
            }
        }
        Self {
            schema: Arc::new(Schema::new(fields)),
            keys,
            request,
            lookups,
        }
    }

    /// The index of a lookup's feature, by its position among those that the lookup uses.
    pub fn feature(&self, lookup: usize, feature: usize) -> usize {
        self.lookups[lookup] + Self::LOOKUP_HEADER + feature
    }
}
