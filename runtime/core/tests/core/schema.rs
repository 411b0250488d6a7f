//! The JSON Schema that editors get.

use serde_json::{Value, json};
use unskew_core::definitions::json_schema;

fn validator() -> jsonschema::Validator {
    let schema = json_schema();
    assert!(jsonschema::meta::is_valid(&schema));
    jsonschema::validator_for(&schema).unwrap()
}

fn yaml(text: &str) -> Value {
    fn json(yaml: &saphyr::Yaml<'_>) -> Value {
        use saphyr::Scalar;
        match yaml {
            saphyr::Yaml::Value(Scalar::Null) => Value::Null,
            saphyr::Yaml::Value(Scalar::Boolean(value)) => json!(value),
            saphyr::Yaml::Value(Scalar::Integer(value)) => json!(value),
            saphyr::Yaml::Value(Scalar::FloatingPoint(value)) => json!(value.into_inner()),
            saphyr::Yaml::Value(Scalar::String(value)) => json!(value),
            saphyr::Yaml::Sequence(items) => items.iter().map(json).collect(),
            saphyr::Yaml::Mapping(map) => {
                let entries = map.iter();
                Value::Object(
                    entries
                        .map(|(k, v)| (k.as_str().unwrap().to_owned(), json(v)))
                        .collect(),
                )
            }
            other => panic!("{other:?}"),
        }
    }
    use saphyr::LoadableYamlNode;
    json(&saphyr::Yaml::load_from_str(text).unwrap()[0])
}

#[test]
fn it_accepts_what_can_be_applied() {
    let validator = validator();
    for text in [
        crate::repository::SETTINGS,
        crate::repository::FLIGHTS,
        crate::repository::ORDERS,
    ] {
        let value = yaml(text);
        let errors: Vec<_> = validator
            .iter_errors(&value)
            .map(|error| error.to_string())
            .collect();
        assert!(errors.is_empty(), "{errors:?}");
    }
}

#[test]
fn it_refuses_what_cannot() {
    let validator = validator();
    for value in [
        json!({"project": "a", "foo": 1}),
        json!({"project": "a", "entities": []}),
        json!({"project": 1}),
        json!({"entities": [{"name": "a", "join_keys": []}]}),
        json!({"feature_views": [{"name": "a", "ttl": 7}]}),
        json!({"feature_views": [{"name": "a", "ttl": "7w"}]}),
        json!({"transformations": [{"name": "a", "kind": "other", "component": "x"}]}),
        json!({"transformations": [{"name": "a", "kind": "batch", "component": "x", "on_error": 1}]}),
        json!([]),
    ] {
        assert!(!validator.is_valid(&value), "{value}");
    }
}

#[test]
fn it_says_what_is_wrong_with_either_file() {
    let validator = validator();
    for (value, at) in [
        (json!({"project": 1}), "/project"),
        (json!({"registry": 1, "project": "a"}), "/registry"),
        (
            json!({"project": "a", "online_store": {"type": "x"}}),
            "/online_store/type",
        ),
        (
            json!({"entities": [{"name": "a", "join_keys": []}]}),
            "/entities/0/join_keys",
        ),
        (
            json!({"feature_views": [{"name": "a"}, {"name": 1}]}),
            "/feature_views/1/name",
        ),
    ] {
        let found: Vec<_> = validator
            .iter_errors(&value)
            .map(|error| error.instance_path().to_string())
            .collect();
        assert_eq!(found, [at], "{value}");
    }
    // A project file without its name is still a project file.
    let value = json!({"registry": "r", "online_store": {}});
    let errors = validator.iter_errors(&value).map(|error| error.to_string());
    assert_eq!(
        errors.collect::<Vec<_>>(),
        [r#""project" is a required property"#]
    );
    let schema = json_schema();
    for kind in ["ProjectFile", "FeatureFile"] {
        assert!(schema["$defs"].get(kind).is_some(), "{kind}");
    }
}

#[test]
fn every_key_is_described() {
    fn walk(schema: &Value, at: &str, bare: &mut Vec<String>) {
        if let Some(properties) = schema.get("properties").and_then(Value::as_object) {
            for (name, property) in properties {
                if property.get("description").is_none() {
                    bare.push(format!("{at}.{name}"));
                }
            }
        }
    }
    let schema = json_schema();
    let mut bare = Vec::new();
    for (name, definition) in schema["$defs"].as_object().unwrap() {
        walk(definition, name, &mut bare);
    }
    assert!(bare.is_empty(), "{bare:?}");
}
