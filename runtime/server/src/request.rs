//! From a body to rows.

use std::fmt;
use std::io::{self, Write};

use arrow::array::{ArrayRef, AsArray, TimestampMicrosecondArray};
use arrow::datatypes::TimestampMicrosecondType;
use serde_json::value::RawValue;
use unskew_core::digest::Digest;
use unskew_core::json;
use unskew_core::plan::FeaturePlan;
use unskew_core::types::{DataType, Field, ScalarType, UTC};
use unskew_store::RequestRows;

use crate::error::Problem;
use crate::object::{Object, kind, shortened, write_object};

/// The members that a body may have.
const MEMBERS: [&str; 5] = ["feature_service", "entities", "request", "as_of", "plan"];

/// The body of `POST /online`, read as far as no plan is needed for it.
#[derive(Debug)]
pub(crate) struct Request<'a> {
    /// The feature service.
    pub(crate) service: String,
    /// The plan that the client demands.
    pub(crate) plan: Option<Digest>,
    as_of: Option<&'a RawValue>,
    entities: Object<'a>,
    request: Object<'a>,
}

impl<'a> Request<'a> {
    /// Reads a body.
    ///
    /// # Errors
    /// It is no JSON object, has a member twice or one that there is not, or one of the wrong form.
    pub(crate) fn read(body: &'a [u8]) -> Result<Self, Problem> {
        let body = Object::of_body(body)?;
        if let Some((name, _)) = body
            .members()
            .iter()
            .find(|(name, _)| !MEMBERS.contains(&&**name))
        {
            return Err(Problem::Unknown {
                place: "the body".to_owned(),
                name: shortened(name),
                hint: String::new(),
                valid: MEMBERS.map(str::to_owned).into(),
            });
        }
        let object = |name| match body.get(name) {
            Some(value) => Object::of_member(value, name),
            None => Ok(Object::default()),
        };
        let service = body
            .get("feature_service")
            .ok_or_else(|| Problem::Missing {
                field: "feature_service".to_owned(),
                what: "the name of the feature service whose features are wanted".to_owned(),
            })?;
        Ok(Self {
            service: text("feature_service", service, "the name of a feature service")?,
            plan: body.get("plan").map(digest).transpose()?,
            as_of: body.get("as_of"),
            entities: object("entities")?,
            request: object("request")?,
        })
    }

    /// The rows for `plan`, at `now` where the request names no instant, at most `limit`.
    ///
    /// # Errors
    /// A field is missing, unknown or of another length than the others, a value is none of its
    /// type, or there are too many rows.
    pub(crate) fn rows(
        &self,
        plan: &FeaturePlan,
        now: i64,
        limit: usize,
    ) -> Result<RequestRows, Problem> {
        let service = &self.service;
        let entities = Fields {
            member: "entities",
            given: &self.entities,
            wanted: &plan.join_keys,
            what: "a join key",
            elsewhere: ("request", &plan.request_fields),
        };
        let request = Fields {
            member: "request",
            given: &self.request,
            wanted: &plan.request_fields,
            what: "a request field",
            elsewhere: ("entities", &plan.join_keys),
        };
        entities.check(service)?;
        request.check(service)?;
        let mut length = Length::new(limit);
        let keys = entities.values(service, &mut length)?;
        let fields = request.values(service, &mut length)?;
        let as_of = self.as_of(&mut length, now)?;
        Ok(RequestRows {
            as_of,
            keys: entities.columns(&keys)?,
            request: request.columns(&fields)?,
        })
    }

    /// The instants: a single one is that of all rows.
    fn as_of(&self, length: &mut Length, now: i64) -> Result<TimestampMicrosecondArray, Problem> {
        const TYPE: DataType = DataType::Scalar(ScalarType::Timestamp);
        let repeated = |micros| {
            TimestampMicrosecondArray::from_value(micros, length.rows()).with_timezone(UTC)
        };
        let Some(value) = self.as_of else {
            return Ok(repeated(now));
        };
        if kind(value) != "a list" {
            return Ok(repeated(
                column("as_of", &[value], TYPE)?
                    .as_primitive::<TimestampMicrosecondType>()
                    .value(0),
            ));
        }
        let values = list("as_of", value)?;
        length.take("as_of", values.len())?;
        if let Some(row) = values.iter().position(|value| value.get() == "null") {
            return Err(Problem::Form {
                field: "as_of".to_owned(),
                found: format!("null in row {row}"),
                valid: "an instant, such as \"2001-03-01T12:00:00Z\", or a list of one for each \
                        row"
                .to_owned(),
            });
        }
        let instants = column("as_of", &values, TYPE)?;
        Ok(instants.as_primitive::<TimestampMicrosecondType>().clone())
    }
}

/// Writes the body that asks `service`, which must have the plan `plan`, for `rows`: every value
/// exactly.
///
/// # Errors
/// A column is of none of the contract's types.
pub(crate) fn write(
    service: &str,
    plan: &FeaturePlan,
    digest: Digest,
    rows: &RequestRows,
) -> io::Result<Vec<u8>> {
    let mut out = Vec::new();
    out.write_all(b"{\"feature_service\":")?;
    serde_json::to_writer(&mut out, service)?;
    write!(out, ",\"plan\":\"{digest}\",\"as_of\":")?;
    json::write_column(&mut out, &rows.as_of)?;
    out.write_all(b",\"entities\":")?;
    write_columns(&mut out, &plan.join_keys, &rows.keys)?;
    out.write_all(b",\"request\":")?;
    write_columns(&mut out, &plan.request_fields, &rows.request)?;
    out.write_all(b"}")?;
    Ok(out)
}

fn write_columns(out: &mut Vec<u8>, fields: &[Field], columns: &[ArrayRef]) -> io::Result<()> {
    let columns = fields
        .iter()
        .zip(columns)
        .map(|(field, column)| (field.name.as_str(), column));
    write_object(out, columns, |out, column| json::write_column(out, column))
}

/// The columns that one member of the body gives.
struct Fields<'p, 'a> {
    member: &'static str,
    given: &'p Object<'a>,
    wanted: &'p [Field],
    what: &'static str,
    /// The other member, and what belongs there.
    elsewhere: (&'static str, &'p [Field]),
}

impl<'a> Fields<'_, 'a> {
    /// Refuses fields that the plan does not take.
    fn check(&self, service: &str) -> Result<(), Problem> {
        let is_of = |fields: &[Field], name: &str| fields.iter().any(|field| field.name == name);
        let mut given = self.given.members().iter();
        let Some((name, _)) = given.find(|(name, _)| !is_of(self.wanted, name)) else {
            return Ok(());
        };
        let (elsewhere, fields) = self.elsewhere;
        let hint = if is_of(fields, name) {
            format!(" (it belongs into `{elsewhere}`)")
        } else {
            String::new()
        };
        Err(Problem::Unknown {
            place: format!("`{}` of feature service `{service}`", self.member),
            name: shortened(name),
            hint,
            valid: self.wanted.iter().map(|field| field.name.clone()).collect(),
        })
    }

    /// The values of each wanted field, all equally many.
    fn values(
        &self,
        service: &str,
        length: &mut Length,
    ) -> Result<Vec<Vec<&'a RawValue>>, Problem> {
        let values = |field: &Field| {
            let path = self.path(field);
            let value = self
                .given
                .get_or_null(&field.name)
                .ok_or_else(|| Problem::Missing {
                    field: path.to_string(),
                    what: format!(
                        "{} of type {} that feature service `{service}` needs",
                        self.what, field.data_type
                    ),
                })?;
            let values = rows(path, value, field.data_type)?;
            length.take(path, values.len())?;
            Ok(values)
        };
        self.wanted.iter().map(values).collect()
    }

    fn columns(&self, values: &[Vec<&RawValue>]) -> Result<Vec<ArrayRef>, Problem> {
        self.wanted
            .iter()
            .zip(values)
            .map(|(field, values)| column(self.path(field), values, field.data_type))
            .collect()
    }

    fn path<'f>(&self, field: &'f Field) -> FieldPath<'f> {
        FieldPath {
            member: self.member,
            name: &field.name,
        }
    }
}

/// Where in a body a field stands; only messages have it as a text.
#[derive(Clone, Copy)]
struct FieldPath<'a> {
    member: &'static str,
    name: &'a str,
}

impl fmt::Display for FieldPath<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.member, self.name)
    }
}

/// How many rows a request has: as many as the first field that says it.
pub(crate) struct Length {
    first: Option<(String, usize)>,
    limit: usize,
}

impl Length {
    /// None yet, of at most `limit`.
    pub(crate) fn new(limit: usize) -> Self {
        Self { first: None, limit }
    }

    /// How many rows there are; one where no field says it.
    pub(crate) fn rows(&self) -> usize {
        self.given().unwrap_or(1)
    }

    /// How many rows the fields say that there are.
    pub(crate) fn given(&self) -> Option<usize> {
        self.first.as_ref().map(|(_, rows)| *rows)
    }

    /// Takes a field with so many values into account.
    ///
    /// # Errors
    /// It has too many, or another number than the fields before it.
    pub(crate) fn take(&mut self, field: impl fmt::Display, values: usize) -> Result<(), Problem> {
        if values > self.limit {
            return Err(Problem::TooManyRows {
                rows: values,
                limit: self.limit,
            });
        }
        let count = |values| match values {
            1 => "1 value".to_owned(),
            values => format!("{values} values"),
        };
        match &self.first {
            None => self.first = Some((field.to_string(), values)),
            Some((_, rows)) if *rows == values => {}
            Some((other, rows)) => {
                return Err(Problem::Lengths {
                    field: field.to_string(),
                    found: count(values),
                    other: other.clone(),
                    expected: count(*rows),
                });
            }
        }
        Ok(())
    }
}

/// The values of the rows that a field gives: a list's, or a single one that stands for a list.
///
/// Where each value is itself a list, a list is one of rows if each of its items is a list or null,
/// and otherwise a single value: `[[1, 2], null]` has two rows, `[1, 2]` one, `[]` none.
fn rows<'a>(
    field: FieldPath<'_>,
    value: &'a RawValue,
    data_type: DataType,
) -> Result<Vec<&'a RawValue>, Problem> {
    if kind(value) != "a list" {
        return Ok(vec![value]);
    }
    let items = list(field, value)?;
    let is_row = |item: &&RawValue| matches!(kind(item), "a list" | "null");
    match data_type {
        DataType::List(_) if !items.iter().all(is_row) => Ok(vec![value]),
        DataType::List(_) | DataType::Scalar(_) => Ok(items),
    }
}

/// The values of a list.
///
/// # Errors
/// It is none.
pub(crate) fn list(field: impl fmt::Display, value: &RawValue) -> Result<Vec<&RawValue>, Problem> {
    serde_json::from_str(value.get()).map_err(|_| Problem::Form {
        field: field.to_string(),
        found: kind(value).to_owned(),
        valid: "a list".to_owned(),
    })
}

/// The column of a field's values.
///
/// # Errors
/// A value is none of the type.
pub(crate) fn column(
    field: impl fmt::Display,
    values: &[&RawValue],
    data_type: DataType,
) -> Result<ArrayRef, Problem> {
    json::read_column(values, data_type).map_err(|source| Problem::Value {
        field: field.to_string(),
        source,
    })
}

pub(crate) fn text(field: &str, value: &RawValue, valid: &str) -> Result<String, Problem> {
    serde_json::from_str(value.get()).map_err(|_| Problem::Form {
        field: field.to_owned(),
        found: kind(value).to_owned(),
        valid: valid.to_owned(),
    })
}

fn digest(value: &RawValue) -> Result<Digest, Problem> {
    const VALID: &str = "a plan digest: `sha256:` and 64 hexadecimal digits";
    let text = text("plan", value, VALID)?;
    text.parse().map_err(|_| Problem::Form {
        field: "plan".to_owned(),
        found: shortened(&text),
        valid: VALID.to_owned(),
    })
}

#[cfg(test)]
mod tests;
