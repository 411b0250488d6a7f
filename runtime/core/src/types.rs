//! The types of the contract: what a join key, a feature, a request field and a column of a
//! component may hold, and the one Arrow type that stands for each.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use arrow::datatypes as arrow_types;
use arrow::datatypes::TimeUnit;
use serde::{Deserialize, Serialize};

/// The zone of every timestamp column inside Unskew.
pub const UTC: &str = "UTC";

/// The type of one value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ScalarType {
    /// True or false.
    Bool,
    /// A signed integer of 32 bits.
    Int32,
    /// A signed integer of 64 bits.
    Int64,
    /// An IEEE 754 number of 32 bits.
    Float32,
    /// An IEEE 754 number of 64 bits.
    Float64,
    /// Text in UTF-8.
    String,
    /// Any bytes.
    Bytes,
    /// Microseconds since 1970-01-01T00:00:00 UTC.
    Timestamp,
}

impl ScalarType {
    /// Every scalar type, in the order of the contract.
    pub const ALL: [Self; 8] = [
        Self::Bool,
        Self::Int32,
        Self::Int64,
        Self::Float32,
        Self::Float64,
        Self::String,
        Self::Bytes,
        Self::Timestamp,
    ];

    /// The types that a join key may have: never a float, whose equality is not identity.
    pub const JOIN_KEYS: [Self; 6] = [
        Self::String,
        Self::Int32,
        Self::Int64,
        Self::Bool,
        Self::Bytes,
        Self::Timestamp,
    ];

    /// The name by which definitions and messages call it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Bool => "bool",
            Self::Int32 => "int32",
            Self::Int64 => "int64",
            Self::Float32 => "float32",
            Self::Float64 => "float64",
            Self::String => "string",
            Self::Bytes => "bytes",
            Self::Timestamp => "timestamp",
        }
    }

    /// The Arrow type that holds it.
    pub fn arrow(self) -> arrow_types::DataType {
        match self {
            Self::Bool => arrow_types::DataType::Boolean,
            Self::Int32 => arrow_types::DataType::Int32,
            Self::Int64 => arrow_types::DataType::Int64,
            Self::Float32 => arrow_types::DataType::Float32,
            Self::Float64 => arrow_types::DataType::Float64,
            Self::String => arrow_types::DataType::Utf8,
            Self::Bytes => arrow_types::DataType::Binary,
            Self::Timestamp => {
                arrow_types::DataType::Timestamp(TimeUnit::Microsecond, Some(UTC.into()))
            }
        }
    }
}

impl fmt::Display for ScalarType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The type of a column: a value or a list of values in each row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DataType {
    /// One value in each row.
    Scalar(ScalarType),
    /// A list of values in each row; its items may be null.
    List(ScalarType),
}

impl DataType {
    /// The Arrow type that holds it: `List` has one nullable child named `item`.
    pub fn arrow(self) -> arrow_types::DataType {
        match self {
            Self::Scalar(scalar) => scalar.arrow(),
            Self::List(scalar) => arrow_types::DataType::List(Arc::new(list_item(scalar))),
        }
    }

    /// The type of a value, or of a list's items.
    pub const fn scalar(self) -> ScalarType {
        match self {
            Self::Scalar(scalar) | Self::List(scalar) => scalar,
        }
    }

    /// The type as which a column of Arrow type `arrow` counts, when a definition states none.
    ///
    /// Narrower integers count as the next type that holds them all; `None` for a type that no
    /// type of the contract holds without loss.
    pub fn of_arrow(arrow: &arrow_types::DataType) -> Option<Self> {
        use arrow_types::DataType as A;
        Some(match arrow {
            A::List(item) | A::LargeList(item) | A::FixedSizeList(item, _) | A::ListView(item) => {
                match Self::of_arrow(item.data_type())? {
                    Self::Scalar(scalar) => Self::List(scalar),
                    Self::List(_) => return None,
                }
            }
            A::Dictionary(_, value) => Self::of_arrow(value)?,
            A::Boolean => Self::Scalar(ScalarType::Bool),
            A::Int8 | A::Int16 | A::Int32 | A::UInt8 | A::UInt16 => Self::Scalar(ScalarType::Int32),
            A::Int64 | A::UInt32 | A::UInt64 => Self::Scalar(ScalarType::Int64),
            A::Float16 | A::Float32 => Self::Scalar(ScalarType::Float32),
            A::Float64 => Self::Scalar(ScalarType::Float64),
            A::Utf8 | A::LargeUtf8 | A::Utf8View => Self::Scalar(ScalarType::String),
            A::Binary | A::LargeBinary | A::BinaryView | A::FixedSizeBinary(_) => {
                Self::Scalar(ScalarType::Bytes)
            }
            A::Timestamp(_, _) | A::Date32 | A::Date64 => Self::Scalar(ScalarType::Timestamp),
            _ => return None,
        })
    }

    /// Whether some values of this type are values of `wanted` too, in the sense of
    /// [`crate::values::coerce`]; which ones is for that to say.
    pub fn may_become(self, wanted: Self) -> bool {
        use ScalarType::{Float32, Float64, Int32, Int64, String, Timestamp};
        let is_number = |scalar| matches!(scalar, Int32 | Int64 | Float32 | Float64);
        match (self, wanted) {
            (Self::Scalar(from), Self::Scalar(to)) | (Self::List(from), Self::List(to)) => {
                from == to || is_number(from) && is_number(to) || (from, to) == (String, Timestamp)
            }
            _ => false,
        }
    }

    /// Whether each value of this type is also a value of `wider`, so that a definition may bind
    /// the one to the other.
    pub fn widens_to(self, wider: Self) -> bool {
        use ScalarType::{Float32, Float64, Int32, Int64};
        match (self, wider) {
            (Self::Scalar(from), Self::Scalar(to)) | (Self::List(from), Self::List(to)) => {
                from == to
                    || matches!(
                        (from, to),
                        (Int32, Int64) | (Int32, Float64) | (Float32, Float64)
                    )
            }
            _ => false,
        }
    }
}

/// The child field of a list column.
pub(crate) fn list_item(scalar: ScalarType) -> arrow_types::Field {
    arrow_types::Field::new("item", scalar.arrow(), true)
}

impl fmt::Display for DataType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Scalar(scalar) => scalar.fmt(f),
            Self::List(scalar) => write!(f, "list<{scalar}>"),
        }
    }
}

/// A text that names no type.
#[derive(Clone, Debug, thiserror::Error)]
#[error(
    "no such type `{0}`; types are bool, int32, int64, float32, float64, string, bytes, timestamp \
     and lists of them, such as list<int64>"
)]
pub struct UnknownType(pub String);

impl FromStr for DataType {
    type Err = UnknownType;

    fn from_str(text: &str) -> Result<Self, UnknownType> {
        let scalar = |name: &str| {
            ScalarType::ALL
                .into_iter()
                .find(|s| s.name() == name.trim())
        };
        match text
            .strip_prefix("list<")
            .and_then(|rest| rest.strip_suffix('>'))
        {
            Some(item) => scalar(item).map(Self::List),
            None => scalar(text).map(Self::Scalar),
        }
        .ok_or_else(|| UnknownType(text.to_owned()))
    }
}

impl Serialize for DataType {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for DataType {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

/// A named and typed column.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Field {
    /// Its name.
    pub name: String,
    /// Its type.
    #[serde(rename = "type")]
    pub data_type: DataType,
    /// Whether a row may hold null.
    #[serde(default = "yes")]
    pub nullable: bool,
    /// What it means, in its author's words; may be empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
}

fn yes() -> bool {
    true
}

impl Field {
    /// A nullable field without a description.
    pub fn new(name: impl Into<String>, data_type: DataType) -> Self {
        Self {
            name: name.into(),
            data_type,
            nullable: true,
            description: String::new(),
        }
    }

    /// The Arrow field of the same name, type and nullability.
    pub fn arrow(&self) -> arrow_types::Field {
        arrow_types::Field::new(&self.name, self.data_type.arrow(), self.nullable)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_read_back_as_the_type_that_they_name() {
        for scalar in ScalarType::ALL {
            for data_type in [DataType::Scalar(scalar), DataType::List(scalar)] {
                assert_eq!(
                    data_type.to_string().parse::<DataType>().unwrap(),
                    data_type
                );
                assert_eq!(DataType::of_arrow(&data_type.arrow()), Some(data_type));
            }
        }
    }

    #[test]
    fn an_unknown_name_is_refused_with_the_names_that_exist() {
        let error = "list<list<int64>>"
            .parse::<DataType>()
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("`list<list<int64>>`") && error.contains("float32"),
            "{error}"
        );
    }
}
