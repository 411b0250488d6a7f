//! The JSON Schema of the definition files, and messages for what does not keep to it.

use std::collections::BTreeSet;

use jsonschema::Validator;
use jsonschema::error::ValidationErrorKind;
use schemars::JsonSchema;
use serde_json::Value;

use super::problem::{Place, Problems, below};
use super::shape::{FeatureFile, ProjectFile};
use super::yaml::Document;
use crate::text;

/// The JSON Schema of `unskew.yaml` and of `features/*.yaml`: one document, that checks each file as
/// what it is.
pub fn json_schema() -> Value {
    let mut schema = schemars::generate::SchemaSettings::draft2020_12().into_generator();
    let project = schema.subschema_for::<ProjectFile>();
    let features = schema.subschema_for::<FeatureFile>();
    let has = |key: &str| serde_json::json!({ "required": [key] });
    serde_json::json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Unskew definitions: unskew.yaml and features/*.yaml",
        // Keys that only a project file has. With `anyOf` in place of a choice, an editor would
        // complain of either file by what the other lacks.
        "if": {
            "type": "object",
            "anyOf": [has("project"), has("registry"), has("online_store")],
        },
        "then": project,
        "else": features,
        "$defs": schema.take_definitions(true),
    })
}

/// Checks a document against the schema of `T`: every violation becomes a problem, unless it is of
/// a value that is spoilt. Gives the places of all that violates it. Unknown keys are not among
/// them: they are taken out, and the rest may be right without them.
pub(super) fn check<T: JsonSchema>(
    document: &mut Document,
    problems: &mut Problems,
) -> Vec<String> {
    let schema = schemars::schema_for!(T).to_value();
    let validator = match jsonschema::validator_for(&schema) {
        Ok(validator) => validator,
        Err(error) => {
            let message = format_args!("the schema is broken: {error}");
            problems.at(&document.root, message);
            return vec![String::new()];
        }
    };
    let (wrong, unknown) = report(&validator, document, &schema, problems);
    for (pointer, key) in unknown {
        if let Some(Value::Object(object)) = document.value.pointer_mut(&pointer) {
            object.remove(&key);
        }
    }
    wrong
}

/// An unknown key, with the place of its object.
type UnknownKey = (String, String);

/// Reports every violation; gives the places of all, and the unknown keys.
fn report(
    validator: &Validator,
    document: &Document,
    schema: &Value,
    problems: &mut Problems,
) -> (Vec<String>, Vec<UnknownKey>) {
    let Document {
        value,
        root,
        spoilt,
    } = document;
    let (mut wrong, mut unknown) = (Vec::new(), Vec::new());
    for error in validator.iter_errors(value) {
        let pointer = error.instance_path().to_string();
        let place = Place {
            pointer: pointer.clone(),
            ..root.clone()
        };
        let found = value.pointer(&pointer).unwrap_or(value);
        match error.kind() {
            ValidationErrorKind::AdditionalProperties { unexpected } => {
                let valid = valid_keys(schema, &pointer);
                for key in unexpected {
                    // In braces, a comma ends a text: {description: small, round}.
                    let hint = match found.get(key) {
                        Some(Value::Null) => "; a text that holds a comma is written in quotes",
                        _ => "",
                    };
                    let message = format!("unknown key `{key}`; valid: {valid}{hint}");
                    problems.at(&place.at(key), message);
                    unknown.push((pointer.clone(), key.clone()));
                }
                continue;
            }
            ValidationErrorKind::Required { property } => {
                let property = property
                    .as_str()
                    .map_or_else(|| property.to_string(), str::to_owned);
                let missing = below(&pointer, &property);
                let wanted = at(schema, &missing)
                    .map_or_else(String::new, |s| format!("; wanted {}", wanted(s, schema)));
                problems.at(&place, format!("`{property}` is missing{wanted}"));
                wrong.push(missing);
                continue;
            }
            _ if is_spoilt(spoilt, &pointer) => {}
            ValidationErrorKind::Type { .. }
            | ValidationErrorKind::Enum { .. }
            | ValidationErrorKind::AnyOf { .. }
            | ValidationErrorKind::OneOfNotValid { .. }
            | ValidationErrorKind::Pattern { .. }
            | ValidationErrorKind::Constant { .. } => {
                let mut wanted =
                    at(schema, &pointer).map_or_else(|| error.to_string(), |s| wanted(s, schema));
                if wanted == "text" && (found.is_number() || found.is_boolean()) {
                    wanted.push_str(", in quotes");
                }
                problems.at(&place, format!("found {}, wanted {wanted}", shown(found)));
            }
            ValidationErrorKind::MinItems { .. } => {
                problems.at(&place, "the list is empty; at least one item is needed");
            }
            _ => problems.at(&place, error.to_string()),
        }
        wrong.push(pointer);
    }
    (wrong, unknown)
}

/// Whether the value at `pointer`, or one in it, has a problem already.
fn is_spoilt(spoilt: &BTreeSet<String>, pointer: &str) -> bool {
    let mut below = spoilt.iter().filter_map(|at| at.strip_prefix(pointer));
    below.any(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// A value as a message shows it.
fn shown(value: &Value) -> String {
    match value {
        Value::Null => "nothing".to_owned(),
        Value::Object(map) if map.is_empty() => "an empty mapping".to_owned(),
        Value::Object(map) => format!("a mapping with {}", text::list(map.keys())),
        Value::Array(_) => "a list".to_owned(),
        Value::String(text) => format!("`{text}`"),
        other => format!("`{other}`"),
    }
}

fn resolved<'a>(schema: &'a Value, root: &'a Value) -> &'a Value {
    schema
        .get("$ref")
        .and_then(Value::as_str)
        .and_then(|reference| root.pointer(reference.trim_start_matches('#')))
        .unwrap_or(schema)
}

/// The schema of the value at `pointer`.
fn at<'a>(root: &'a Value, pointer: &str) -> Option<&'a Value> {
    pointer.split('/').skip(1).try_fold(root, |schema, key| {
        let schema = object_form(resolved(schema, root), root);
        let below = match key.parse::<usize>() {
            Ok(_) if schema.get("items").is_some() => schema.get("items"),
            _ => schema
                .get("properties")
                .and_then(|properties| properties.get(key))
                .or_else(|| schema.get("additionalProperties")),
        };
        Some(resolved(below?, root))
    })
}

/// Of a value that may be left out, the schema of the value.
fn object_form<'a>(schema: &'a Value, root: &'a Value) -> &'a Value {
    let is_null = |one: &Value| one.get("type") == Some(&"null".into());
    match schema.get("anyOf").and_then(Value::as_array) {
        Some(all) if all.iter().any(is_null) => all
            .iter()
            .find(|one| !is_null(one))
            .map_or(schema, |one| resolved(one, root)),
        _ => schema,
    }
}

fn valid_keys(root: &Value, pointer: &str) -> String {
    let properties = at(root, pointer)
        .map(|schema| object_form(schema, root))
        .and_then(|schema| schema.get("properties"))
        .and_then(Value::as_object);
    text::list(
        properties
            .into_iter()
            .flat_map(|properties| properties.keys()),
    )
}

/// What a schema takes, in words.
fn wanted(schema: &Value, root: &Value) -> String {
    let schema = object_form(resolved(schema, root), root);
    if let Some(description) = schema.get("description").and_then(Value::as_str)
        && (schema.get("anyOf").is_some() || schema.get("enum").is_some())
    {
        return description.to_owned();
    }
    for (key, joined) in [("enum", " or "), ("anyOf", " or "), ("oneOf", " or ")] {
        if let Some(Value::Array(all)) = schema.get(key) {
            let all = all.iter().map(|one| match one {
                Value::String(text) => text.clone(),
                Value::Object(_) => wanted(one, root),
                other => other.to_string(),
            });
            let all: Vec<_> = all.filter(|one| one != "nothing").collect();
            return all.join(joined);
        }
    }
    if let Some(constant) = schema.get("const") {
        return constant
            .as_str()
            .map_or_else(|| constant.to_string(), str::to_owned);
    }
    let types: Vec<&str> = match schema.get("type") {
        Some(Value::String(one)) => vec![one],
        Some(Value::Array(all)) => all.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    };
    let words = types
        .iter()
        .filter(|name| **name != "null" || types.len() == 1);
    let words = words.map(|name| match *name {
        "string" => "text".to_owned(),
        "object" => match schema.get("properties").and_then(Value::as_object) {
            Some(properties) => format!("a mapping with {}", text::list(properties.keys())),
            None => "a mapping".to_owned(),
        },
        "array" => "a list".to_owned(),
        "boolean" => "true or false".to_owned(),
        "null" => "nothing".to_owned(),
        other => format!("a {other}"),
    });
    words.collect::<Vec<_>>().join(" or ")
}
