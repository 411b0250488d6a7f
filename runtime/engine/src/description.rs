//! What a component says about itself, checked.

use std::collections::BTreeSet;

use unskew_core::component::{Description, Kind};
use unskew_core::types::{DataType, Field, ScalarType};

use crate::bindings::exports::unskew::transform::transformation as wit;

/// The longest name, in bytes.
const NAME: usize = 256;
/// The longest text for people, in bytes.
const DOCUMENTATION: usize = 64 << 10;
/// The most inputs, and the most outputs.
const FIELDS: usize = 4_096;

/// The description in core's types.
///
/// # Errors
/// Says what is wrong and what would be valid.
pub(crate) fn convert(description: wit::Description) -> Result<Description, String> {
    let wit::Description {
        component,
        version,
        function,
        documentation,
        kind,
        inputs,
        outputs,
    } = description;
    for (what, text) in [
        ("name", &component),
        ("version", &version),
        ("function", &function),
    ] {
        if text.trim().is_empty() || text.len() > NAME || text.chars().any(char::is_control) {
            return Err(format!(
                "its {what} is `{}`; it must be a line of 1 to {NAME} bytes",
                shortened(text)
            ));
        }
    }
    check_documentation("it", &documentation)?;
    let inputs = fields("input", inputs)?;
    let outputs = fields("output", outputs)?;
    if outputs.is_empty() {
        return Err("it has no outputs; it must have at least one".to_owned());
    }
    Ok(Description {
        component,
        version,
        function,
        documentation,
        kind: match kind {
            wit::Kind::OnDemand => Kind::OnDemand,
            wit::Kind::Batch => Kind::Batch,
        },
        inputs,
        outputs,
    })
}

fn fields(what: &str, fields: Vec<wit::Field>) -> Result<Vec<Field>, String> {
    if fields.len() > FIELDS {
        return Err(format!("it has {} {what}s; at most {FIELDS}", fields.len()));
    }
    let mut names = BTreeSet::new();
    fields
        .into_iter()
        .map(|field| {
            if !is_identifier(&field.name) {
                return Err(format!(
                    "`{}` is no name of an {what}; a name is a letter or `_`, then letters, digits \
                     and `_`, at most {NAME} bytes",
                    shortened(&field.name)
                ));
            }
            if !names.insert(field.name.clone()) {
                return Err(format!(
                    "two {what}s are named `{}`; names must be unique",
                    field.name
                ));
            }
            check_documentation(&format!("{what} `{}`", field.name), &field.description)?;
            Ok(Field {
                name: field.name,
                data_type: match field.data_type {
                    wit::DataType::Scalar(scalar) => DataType::Scalar(scalar_type(scalar)),
                    wit::DataType::ListOf(scalar) => DataType::List(scalar_type(scalar)),
                },
                nullable: field.nullable,
                description: field.description,
            })
        })
        .collect()
}

fn check_documentation(whose: &str, text: &str) -> Result<(), String> {
    if text.len() > DOCUMENTATION {
        return Err(format!(
            "{whose} is documented in {} bytes; at most {DOCUMENTATION}",
            text.len()
        ));
    }
    Ok(())
}

/// The contract's names: ASCII, so that each means the same in YAML, JSON, Rust and Python.
fn is_identifier(name: &str) -> bool {
    name.len() <= NAME
        && name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

fn shortened(text: &str) -> String {
    const LONGEST: usize = 64;
    let mut short: String = text.escape_debug().take(LONGEST).collect();
    if text.chars().count() > LONGEST {
        short.push('…');
    }
    short
}

const fn scalar_type(scalar: wit::ScalarType) -> ScalarType {
    match scalar {
        wit::ScalarType::Bool => ScalarType::Bool,
        wit::ScalarType::Int32 => ScalarType::Int32,
        wit::ScalarType::Int64 => ScalarType::Int64,
        wit::ScalarType::Float32 => ScalarType::Float32,
        wit::ScalarType::Float64 => ScalarType::Float64,
        wit::ScalarType::String => ScalarType::String,
        wit::ScalarType::Bytes => ScalarType::Bytes,
        wit::ScalarType::Timestamp => ScalarType::Timestamp,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(name: &str) -> wit::Field {
        wit::Field {
            name: name.to_owned(),
            data_type: wit::DataType::ListOf(wit::ScalarType::Bytes),
            nullable: true,
            description: String::new(),
        }
    }

    fn valid() -> wit::Description {
        wit::Description {
            component: "route".to_owned(),
            version: "0.1.0".to_owned(),
            function: "route".to_owned(),
            documentation: String::new(),
            kind: wit::Kind::Batch,
            inputs: vec![field("a")],
            outputs: vec![field("_b2"), field("a")],
        }
    }

    #[test]
    fn a_valid_description_is_taken_as_it_is() {
        let converted = convert(valid()).unwrap();
        assert_eq!(converted.kind, Kind::Batch);
        assert_eq!(converted.outputs[0].name, "_b2");
        assert_eq!(
            converted.inputs[0].data_type,
            DataType::List(ScalarType::Bytes)
        );
    }

    #[test]
    fn what_is_wrong_is_named() {
        type Change = fn(&mut wit::Description);
        let cases: [(Change, &str); 9] = [
            (|d| d.component.clear(), "its name is ``"),
            (|d| d.version = "1\n2".to_owned(), "its version is `1\\n2`"),
            (|d| d.function = "f".repeat(300), "its function is `fff"),
            (|d| d.outputs.clear(), "no outputs"),
            (
                |d| d.inputs[0].name = "2a".to_owned(),
                "`2a` is no name of an input",
            ),
            (|d| d.inputs[0].name = "a:b".to_owned(), "`a:b` is no name"),
            (
                |d| d.outputs[1].name = "_b2".to_owned(),
                "two outputs are named `_b2`",
            ),
            (
                |d| d.inputs = (0..5_000).map(|i| field(&format!("i{i}"))).collect(),
                "5000 inputs; at most 4096",
            ),
            (
                |d| d.inputs[0].description = "x".repeat(70_000),
                "input `a` is documented in 70000 bytes",
            ),
        ];
        for (change, expected) in cases {
            let mut description = valid();
            change(&mut description);
            let error = convert(description).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
    }
}
