//! The body of `POST /get-online-features`.

use arrow::array::ArrayRef;
use serde::Deserialize;
use serde_json::value::RawValue;
use unskew_core::plan::FeaturePlan;
use unskew_core::time;
use unskew_core::types::{DataType, Field, ScalarType};

use super::rows::Given;
use super::{Features, Wanted};
use crate::error::Problem;
use crate::object::{Object, kind};
use crate::request::{column, list};

/// A body, read as far as no plan is needed for it. Members that are unknown here are passed over,
/// since newer clients of Feast send more.
#[derive(Debug)]
pub(super) struct Request<'a> {
    /// What is wanted.
    pub(super) wanted: Wanted,
    entities: Object<'a>,
}

impl<'a> Request<'a> {
    /// Reads a body.
    ///
    /// # Errors
    /// It is no JSON object, has a member twice, or one of the wrong form.
    pub(super) fn read(body: &'a [u8]) -> Result<Self, Problem> {
        let body = Object::of_body(body)?;
        let service: Option<String> = member(&body, "feature_service", "the name of a service")?;
        let features: Option<Vec<String>> =
            member(&body, "features", "a list of texts `VIEW:FEATURE`")?;
        let flag = |name| member(&body, name, "true or false").map(Option::unwrap_or_default);
        let features = match (service, features.unwrap_or_default()) {
            (Some(service), features) if features.is_empty() => Features::Service(service),
            (None, features) if !features.is_empty() => Features::Named(features),
            (service, _) => return Err(Problem::FeaturesOrService(service.is_some())),
        };
        let entities = body.get("entities").ok_or_else(|| Problem::Missing {
            field: "entities".to_owned(),
            what: "for each join key and request field a list of its values".to_owned(),
        })?;
        Ok(Self {
            wanted: Wanted {
                features,
                full_feature_names: flag("full_feature_names")?,
                views: flag("include_feature_view_version_metadata")?,
            },
            entities: Object::of_member(entities, "entities")?,
        })
    }

    /// The indices of the plan's join keys in the order of the request.
    pub(super) fn keys(&self, plan: &FeaturePlan) -> Vec<usize> {
        let names = self.entities.members().iter().map(|(name, _)| name);
        names
            .filter_map(|name| plan.join_keys.iter().position(|key| key.name == *name))
            .collect()
    }
}

/// The member `name` of a body; `None` if it is not there.
///
/// # Errors
/// It is not of the form that `valid` says.
pub(super) fn member<'a, T: Deserialize<'a>>(
    body: &Object<'a>,
    name: &str,
    valid: &str,
) -> Result<Option<T>, Problem> {
    let Some(value) = body.get(name) else {
        return Ok(None);
    };
    match serde_json::from_str(value.get()) {
        Ok(value) => Ok(Some(value)),
        Err(_) => Err(Problem::Form {
            field: name.to_owned(),
            found: kind(value).to_owned(),
            valid: valid.to_owned(),
        }),
    }
}

impl Given for Request<'_> {
    fn rows(&self) -> Option<usize> {
        let (name, value) = self.entities.members().first()?;
        list(name, value).ok().map(|values| values.len())
    }

    fn column(&self, field: &Field) -> Result<Option<ArrayRef>, Problem> {
        self.entities
            .get_or_null(&field.name)
            .map(|value| values(&format!("entities.{}", field.name), value, field.data_type))
            .transpose()
    }
}

/// Reads a list of values as a column. An instant may be a number, of seconds since 1970.
///
/// # Errors
/// It is no list, or a value is none of the type.
pub(super) fn values(
    path: &str,
    value: &RawValue,
    data_type: DataType,
) -> Result<ArrayRef, Problem> {
    let values = list(path, value)?;
    let (DataType::Scalar(scalar) | DataType::List(scalar)) = data_type;
    if scalar != ScalarType::Timestamp {
        return column(path, &values, data_type);
    }
    let instants: Vec<Box<RawValue>> = values
        .into_iter()
        .map(|value| match data_type {
            DataType::Scalar(_) => instant(value),
            DataType::List(_) => instants(value),
        })
        .collect();
    let instants: Vec<&RawValue> = instants.iter().map(|instant| &**instant).collect();
    column(path, &instants, data_type)
}

/// The list with its items as [`instant`] has them, and no deeper: lists may be nested in each other
/// until the stack is full.
fn instants(value: &RawValue) -> Box<RawValue> {
    serde_json::from_str::<Vec<&RawValue>>(value.get())
        .ok()
        .and_then(|items| {
            let items: Vec<Box<RawValue>> = items.into_iter().map(instant).collect();
            serde_json::to_string(&items).ok()
        })
        .and_then(|text| RawValue::from_string(text).ok())
        .unwrap_or_else(|| value.to_owned())
}

/// The value, if it is a number, which is of seconds since 1970, as the text of the same instant.
/// What is no instant stays as it is, to be refused by who reads it.
fn instant(value: &RawValue) -> Box<RawValue> {
    value
        .get()
        .parse::<i64>()
        .ok()
        .and_then(|seconds| time::check(seconds.checked_mul(1_000_000)?).ok())
        .and_then(|micros| RawValue::from_string(format!("\"{}\"", time::format(micros))).ok())
        .unwrap_or_else(|| value.to_owned())
}
