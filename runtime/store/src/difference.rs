//! What differs between a definition as it was and as it is, in the words of definitions.

use std::collections::BTreeSet;

use serde::Serialize;
use serde_json::{Map, Value, json};
use unskew_core::digest::Digest;
use unskew_core::time::Span;

/// How many differences are named; of the others only their number.
const NAMED: usize = 5;
/// How many characters a value may have to be shown.
const SHORT: usize = 48;

/// The fields in which two forms of a definition differ, with both values where they are short:
/// `ttl: 7d → 8d`. A changed component comes first.
///
/// The JSON forms are compared, so a field that a definition gains is compared as well.
pub(crate) fn difference<T: Serialize>(before: &T, after: &T) -> Vec<String> {
    // What is registered has a JSON form.
    let (Ok(mut before), Ok(mut after)) =
        (serde_json::to_value(before), serde_json::to_value(after))
    else {
        return Vec::new();
    };
    name_inputs(&mut before);
    name_inputs(&mut after);
    let mut found = Vec::new();
    compare(&mut Vec::new(), &before, &after, &mut found);
    found.sort_by_key(|line| !line.starts_with("component "));
    let more = found.len().saturating_sub(NAMED);
    if more > 0 {
        found.truncate(NAMED);
        found.push(format!("and {more} more"));
    }
    found
}

/// Gives each input of a transformation its name, which its component knows.
fn name_inputs(value: &mut Value) {
    for path in ["", "/view/batch"] {
        let names = value.pointer(&format!("{path}/description/inputs"));
        let names: Vec<Value> = names
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .map(|field| field["name"].clone())
            .collect();
        let inputs = value.pointer_mut(&format!("{path}/inputs"));
        let inputs = inputs.and_then(Value::as_array_mut).into_iter().flatten();
        for (input, name) in inputs.zip(names) {
            *input = match input.take() {
                Value::Object(mut input) => {
                    input.insert("name".to_owned(), name);
                    Value::Object(input)
                }
                // Of a batch transformation: where it comes from, and its default.
                pair => json!({"name": name, "from": pair[0], "default": pair[1]}),
            };
        }
    }
}

fn compare(path: &mut Vec<String>, before: &Value, after: &Value, found: &mut Vec<String>) {
    if before == after {
        return;
    }
    // A reference is one thing, however it is written.
    let is_reference = path.last().is_some_and(|key| key == "from");
    match (before, after) {
        (Value::Object(before), Value::Object(after)) if !is_reference => {
            compare_members(path, before, after, found);
        }
        (Value::Array(before), Value::Array(after)) => match (by_name(before), by_name(after)) {
            (Some(old), Some(new)) => {
                let known = found.len();
                compare_members(path, &old, &new, found);
                if found.len() == known {
                    found.push(format!("{}: another order", shown(path)));
                }
            }
            _ => found.push(leaf(path, &json!(before), &json!(after))),
        },
        _ => found.push(leaf(path, before, after)),
    }
}

fn compare_members(
    path: &mut Vec<String>,
    before: &Map<String, Value>,
    after: &Map<String, Value>,
    found: &mut Vec<String>,
) {
    let keys: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    for key in keys {
        let of = |map: &Map<String, Value>| map.get(key).cloned().unwrap_or_default();
        path.push(key.clone());
        compare(path, &of(before), &of(after), found);
        path.pop();
    }
}

/// A list of things with names of their own.
fn by_name(items: &[Value]) -> Option<Map<String, Value>> {
    let named: Map<String, Value> = items
        .iter()
        .map(|item| Some((item.get("name")?.as_str()?.to_owned(), item.clone())))
        .collect::<Option<_>>()?;
    (named.len() == items.len()).then_some(named)
}

fn leaf(path: &[String], before: &Value, after: &Value) -> String {
    let key = path.last().map_or("", String::as_str);
    let name = shown(path);
    match (short(key, before), short(key, after)) {
        (Some(before), Some(after)) if key == "component" => format!("{name} {before} → {after}"),
        (Some(before), Some(after)) => format!("{name}: {before} → {after}"),
        _ if before.is_null() => format!("{name}: added"),
        _ if after.is_null() => format!("{name}: removed"),
        _ => name,
    }
}

/// A value as text, unless it takes too much room.
fn short(key: &str, value: &Value) -> Option<String> {
    let text = match value {
        Value::Null => "none".to_owned(),
        Value::Bool(_) => value.to_string(),
        Value::Number(number) => match (key, number.as_i64()) {
            ("ttl" | "late_by" | "slack", Some(micros)) => Span(micros).to_string(),
            _ => number.to_string(),
        },
        Value::String(text) => match text.parse::<Digest>() {
            Ok(digest) => digest.short(),
            Err(_) => text.clone(),
        },
        Value::Array(items) => {
            let items: Vec<String> = items
                .iter()
                .map(|item| short("", item))
                .collect::<Option<_>>()?;
            format!("[{}]", items.join(", "))
        }
        Value::Object(_) => return None,
    };
    let fits = text.chars().count() <= SHORT && !text.contains(char::is_control);
    fits.then_some(text)
}

/// The path as definitions have it: what the registry's form adds is left out.
fn shown(path: &[String]) -> String {
    let mut names: Vec<&str> = path.iter().map(String::as_str).collect();
    match names.as_mut_slice() {
        ["view", name, ..] => {
            match *name {
                "batch" => *name = "transformation",
                "keys" => *name = "join_keys",
                _ => {}
            }
            names.remove(0);
        }
        ["about", ..] => {
            names.remove(0);
        }
        _ => {}
    }
    for name in &mut names {
        if *name == "data_type" {
            *name = "type";
        }
    }
    names.join(".")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use unskew_core::component::{Description, Kind};
    use unskew_core::project::{
        About, Defined, FeatureService, FeatureView, InputDefinition, Reference, Transformation,
    };
    use unskew_core::time::{DAY, Mode};
    use unskew_core::types::{DataType, Field, ScalarType};
    use unskew_core::view::{OnError, Source, View};

    use super::*;

    fn defined<T>(value: T) -> Defined<T> {
        Defined {
            value,
            about: About::default(),
        }
    }

    fn source() -> Source {
        Source {
            name: "history".to_owned(),
            path: "data/a.parquet".to_owned(),
            timestamp_field: "at".to_owned(),
            created_timestamp_column: None,
            point_in_time: Mode::Event,
            late_by: 0,
            columns: BTreeMap::new(),
            partition: None,
        }
    }

    fn feature(name: &str) -> Field {
        Field::new(name, DataType::Scalar(ScalarType::Float64))
    }

    fn view() -> View {
        View {
            name: "things".to_owned(),
            source: source(),
            keys: Vec::new(),
            features: vec![feature("a"), feature("b")],
            ttl: Some(7 * DAY),
            online: true,
            batch: None,
        }
    }

    fn of_views(change: impl FnOnce(&mut View)) -> Vec<String> {
        let mut after = view();
        change(&mut after);
        let defined = |view| {
            defined(FeatureView {
                entities: Vec::new(),
                view: Arc::new(view),
            })
        };
        difference(&defined(view()), &defined(after))
    }

    fn transformation() -> Transformation {
        Transformation {
            name: "score".to_owned(),
            kind: Kind::OnDemand,
            component: Digest::of(b"before"),
            description: Description {
                component: "score".to_owned(),
                version: "0.1.0".to_owned(),
                function: "score".to_owned(),
                documentation: String::new(),
                kind: Kind::OnDemand,
                inputs: vec![feature("x")],
                outputs: vec![feature("y")],
            },
            on_error: OnError::Fail,
            inputs: vec![InputDefinition {
                from: Reference::Request("x".to_owned()),
                default: None,
            }],
        }
    }

    #[test]
    fn equal_definitions_do_not_differ() {
        assert!(of_views(|_| {}).is_empty());
    }

    #[test]
    fn spans_paths_and_texts_are_shown_with_both_values() {
        assert_eq!(of_views(|view| view.ttl = Some(8 * DAY)), ["ttl: 7d → 8d"]);
        assert_eq!(of_views(|view| view.ttl = None), ["ttl: 7d → none"]);
        assert_eq!(
            of_views(|view| view.source.path = "data/b.parquet".to_owned()),
            ["source.path: data/a.parquet → data/b.parquet"]
        );
        assert_eq!(
            of_views(|view| view.source.path = "b".repeat(SHORT + 1)),
            ["source.path"]
        );
        let mut after = defined(source());
        after.about.description = Some("two\nlines".to_owned());
        after.value.point_in_time = Mode::Known;
        assert_eq!(
            difference(&defined(source()), &after),
            ["description: added", "point_in_time: event → known"]
        );
    }

    #[test]
    fn features_are_told_apart_by_name() {
        assert_eq!(
            of_views(|view| view.features[1] = feature("c")),
            ["features.b: removed", "features.c: added"]
        );
        assert_eq!(
            of_views(|view| view.features[1].data_type = DataType::Scalar(ScalarType::Int64)),
            ["features.b.type: float64 → int64"]
        );
        assert_eq!(
            of_views(|view| view.features.reverse()),
            ["features: another order"]
        );
        let service = |features: &[&str]| {
            defined(FeatureService {
                name: "model".to_owned(),
                full_feature_names: false,
                features: features.iter().map(|&name| name.to_owned()).collect(),
            })
        };
        assert_eq!(
            difference(&service(&["a"]), &service(&["a", "b:c"])),
            ["features: [a] → [a, b:c]"]
        );
    }

    #[test]
    fn a_component_comes_first_and_inputs_have_their_names() {
        let mut after = transformation();
        after.component = Digest::of(b"after");
        after.description.version = "0.2.0".to_owned();
        after.inputs[0].from = Reference::EventTimestamp;
        assert_eq!(
            difference(&defined(transformation()), &defined(after)),
            [
                format!(
                    "component {} → {}",
                    Digest::of(b"before").short(),
                    Digest::of(b"after").short()
                ),
                "description.version: 0.1.0 → 0.2.0".to_owned(),
                "inputs.x.from".to_owned(),
            ]
        );
    }

    #[test]
    fn of_many_differences_the_rest_is_counted() {
        let found =
            of_views(|view| view.features = ('c'..='g').map(|c| feature(&c.to_string())).collect());
        assert_eq!(found.len(), NAMED + 1);
        assert_eq!(found[NAMED], "and 2 more");
    }
}
