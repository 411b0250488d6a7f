use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, Float64Array, Int64Array, RecordBatch, TimestampMicrosecondArray,
};
use arrow::datatypes::{Int64Type, TimestampMicrosecondType};
use axum::response::IntoResponse;
use serde_json::{Value, json};
use unskew_core::plan::{Binding, FeaturePlan, Lookup, Output};
use unskew_core::types::{DataType, Field, ScalarType, UTC};
use unskew_engine::{Evaluated, Status};
use unskew_store::RequestRows;

use super::request::Request;
use super::{Column, Features, Origin, Wanted, answer, columns, refusal, rows};
use crate::error::Problem;
use crate::testing::{Random, plan, types};

const NOW: i64 = 983_448_000_000_000;
const SECOND: i64 = 1_000_000;

/// A plan of two views with the same feature, whose outputs are named in turns.
fn two_views() -> FeaturePlan {
    let mut plan = plan(vec![Field::new(
        "amount",
        DataType::Scalar(ScalarType::Float64),
    )]);
    let lookup = |name: &str| Lookup {
        name: name.to_owned(),
        ..plan.lookups[0].clone()
    };
    plan.lookups = vec![lookup("first"), lookup("second")];
    let names: Vec<String> = types().into_iter().map(|(name, _)| name).collect();
    let feature = |name: &str| names.iter().position(|known| known == name).unwrap();
    let output = |lookup, name: &str| Output {
        name: format!("{lookup}{name}"),
        data_type: types()[feature(name)].1,
        binding: Binding::Feature {
            lookup,
            feature: feature(name),
        },
    };
    plan.outputs = vec![
        output(1, "float64"),
        output(0, "int64"),
        output(1, "timestamp"),
    ];
    plan
}

fn names(columns: &[Column]) -> Vec<&str> {
    columns.iter().map(|column| &*column.name).collect()
}

#[test]
fn columns_are_grouped_by_view_after_the_keys_and_named_as_the_request_wants() {
    let plan = two_views();
    let short = columns(&plan, [0], false).unwrap();
    assert_eq!(names(&short), ["id", "float64", "timestamp", "int64"]);
    assert_eq!(
        short[3].origin,
        Origin::Output {
            output: 1,
            lookup: Some(0)
        }
    );
    let full = columns(&plan, [0], true).unwrap();
    let expected = ["id", "second__float64", "second__timestamp", "first__int64"];
    assert_eq!(names(&full), expected);
}

#[test]
fn two_columns_of_one_name_are_refused_unless_they_bear_their_views_names() {
    let mut plan = two_views();
    plan.outputs[1] = Output {
        binding: match plan.outputs[0].binding {
            Binding::Feature { feature, .. } => Binding::Feature { lookup: 0, feature },
            _ => unreachable!(),
        },
        ..plan.outputs[0].clone()
    };
    let refused = columns(&plan, [0], false).unwrap_err().to_string();
    assert!(
        refused.contains("`float64`") && refused.contains("full_feature_names"),
        "{refused}"
    );
    assert_eq!(columns(&plan, [0], true).unwrap().len(), 4);
}

fn written(statuses: &[Status], values: Vec<Option<f64>>, events: Vec<Option<i64>>) -> Value {
    let plan = two_views();
    let rows = statuses.len();
    let instants: ArrayRef = Arc::new(TimestampMicrosecondArray::from(events).with_timezone(UTC));
    let values: ArrayRef = Arc::new(Float64Array::from(values));
    let ids: ArrayRef = Arc::new(Int64Array::from_iter_values(0..rows as i64));
    let batch = RecordBatch::try_new(
        plan.output_schema(),
        vec![values, Arc::clone(&ids), Arc::clone(&instants)],
    );
    let evaluated = Evaluated {
        batch: batch.unwrap(),
        statuses: vec![statuses.into(); 3],
        events: vec![Arc::clone(&instants), instants],
    };
    let asked = RequestRows {
        as_of: TimestampMicrosecondArray::from(vec![NOW; rows]).with_timezone(UTC),
        keys: vec![ids],
        request: Vec::new(),
    };
    let columns = columns(&plan, [0], false).unwrap();
    let body = answer::write(&plan, &columns, &asked, &evaluated, true).unwrap();
    serde_json::from_slice(&body).unwrap()
}

#[test]
fn what_is_not_there_yet_is_not_found_and_only_rows_that_were_found_have_an_instant() {
    let body = written(
        &Status::ALL,
        vec![Some(0.1), None, None, None, None, None],
        vec![
            Some(NOW + 1),
            Some(NOW),
            None,
            Some(-SECOND / 2),
            Some(NOW + 2 * SECOND),
            Some(NOW),
        ],
    );
    let none = "1970-01-01T00:00:00Z";
    assert_eq!(
        body["metadata"],
        json!({
            "feature_names": ["id", "float64", "timestamp", "int64"],
            "feature_view_metadata": [{"name": "first"}, {"name": "second"}],
        })
    );
    let at = "2001-03-01T12:00:00";
    assert_eq!(
        body["results"][1],
        json!({
            "values": [0.1, null, null, null, null, null],
            "statuses": [
                "PRESENT", "NULL_VALUE", "NOT_FOUND", "OUTSIDE_MAX_AGE", "NOT_FOUND", "NOT_FOUND",
            ],
            "event_timestamps": [
                format!("{at}.000001Z"), format!("{at}Z"), none,
                "1969-12-31T23:59:59.500000Z", none, none,
            ],
        })
    );
    // Seconds, rounded down.
    let seconds = NOW / SECOND;
    assert_eq!(
        body["results"][2]["values"],
        json!([seconds, seconds, null, -1, seconds + 2, seconds])
    );
    assert_eq!(body["results"][0]["statuses"], json!(vec!["PRESENT"; 6]));
    assert_eq!(body["results"][0]["event_timestamps"], json!(vec![none; 6]));
}

#[test]
fn every_type_has_a_form_that_json_can_hold() {
    let mut random = Random(7);
    for (name, data_type) in types() {
        let column = random.column(data_type, 50);
        let mut out = Vec::new();
        unskew_core::json::write_column(&mut out, &super::form::of_json(&column)).unwrap();
        let values: Vec<Value> = serde_json::from_slice(&out).unwrap();
        assert_eq!(values.len(), 50, "{name}");
        for (row, value) in values.iter().enumerate() {
            assert_eq!(value.is_null(), column.is_null(row), "{name}");
        }
    }
}

fn read(body: &Value) -> Result<RequestRows, Problem> {
    let plan = plan(vec![Field::new(
        "at",
        DataType::List(ScalarType::Timestamp),
    )]);
    let body = body.to_string();
    let request = Request::read(body.as_bytes())?;
    rows(&request, &plan, NOW, 3)
}

#[test]
fn a_body_is_read_whatever_else_a_client_sends() {
    let rows = read(&json!({
        "features": ["things:int64"],
        "feature_service": null,
        "something_new": {"a": 1},
        "entities": {
            "other": [[], {}, "x"],
            "id": [1, null, 3.0],
            "at": [[0, "1970-01-01T00:00:01Z", null], null, [-1]],
        },
    }));
    let rows = rows.unwrap();
    let ids = rows.keys[0].as_primitive::<Int64Type>();
    assert_eq!(ids.iter().collect::<Vec<_>>(), [Some(1), None, Some(3)]);
    let lists = rows.request[0].as_list::<i32>();
    let items = lists.values().as_primitive::<TimestampMicrosecondType>();
    assert_eq!(
        items.iter().collect::<Vec<_>>(),
        [Some(0), Some(SECOND), None, Some(-SECOND)]
    );
    assert!(lists.is_null(1));
    assert_eq!(rows.as_of.values(), &[NOW; 3]);
}

#[test]
fn a_body_that_does_not_validate_is_refused_with_what_is_wrong() {
    let good = json!({"id": [1], "at": [[]]});
    for (body, said) in [
        (json!([]), "`the body` is a list"),
        (json!({"entities": good}), "no features are named"),
        (
            json!({"features": ["a:b"], "feature_service": "c", "entities": good}),
            "both `features` and `feature_service`",
        ),
        (
            json!({"features": [1], "entities": good}),
            "`features` is a list; it must be a list of texts",
        ),
        (
            json!({"feature_service": 1, "entities": good}),
            "`feature_service` is a number",
        ),
        (
            json!({"features": ["a:b"], "full_feature_names": "yes", "entities": good}),
            "`full_feature_names` is a text",
        ),
        (json!({"features": ["a:b"]}), "`entities` is missing"),
        (
            json!({"features": ["a:b"], "entities": [1]}),
            "`entities` is a list; it must be an object",
        ),
        (
            json!({"features": ["a:b"], "entities": {"at": [[]]}}),
            "`entities.id` is missing: a join key of type int64",
        ),
        (
            json!({"features": ["a:b"], "entities": {"id": [1]}}),
            "`entities.at` is missing: a request field of type list<timestamp>",
        ),
        (
            json!({"features": ["a:b"], "entities": {"id": 1, "at": [[]]}}),
            "`entities.id` is a number; it must be a list",
        ),
        (
            json!({"features": ["a:b"], "entities": {"id": ["1"], "at": [[]]}}),
            "`entities.id`: row 0",
        ),
        (
            json!({"features": ["a:b"], "entities": {"id": [1], "at": [[1e300]]}}),
            "`entities.at`: row 0",
        ),
        (
            json!({"features": ["a:b"], "entities": {"id": [1, 2], "at": [[]]}}),
            "`entities.at` has 1 value, but `entities.id` has 2 values",
        ),
        (
            json!({"features": ["a:b"], "entities": {"id": [1, 2, 3, 4], "at": [[]]}}),
            "4 rows are too many",
        ),
    ] {
        let refused = read(&body).unwrap_err().to_string();
        assert!(refused.contains(said), "{body}: {refused}");
    }
    let wanted = Request::read(br#"{"feature_service": "m", "features": [], "entities": {}}"#);
    assert_eq!(
        wanted.unwrap().wanted,
        Wanted {
            features: Features::Service("m".to_owned()),
            full_feature_names: false,
            views: false,
        }
    );
}

async fn refused(problem: Problem) -> (u16, BTreeMap<String, String>, Value) {
    let response = refusal::Refusal::from(problem).into_response();
    let (parts, body) = response.into_parts();
    let headers = parts.headers.iter();
    let headers =
        headers.map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()));
    let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
    (
        parts.status.as_u16(),
        headers.collect(),
        serde_json::from_slice(&body).unwrap(),
    )
}

#[tokio::test]
async fn problems_have_the_forms_that_feasts_client_reads() {
    let (status, headers, body) = refused(Problem::FeaturesOrService(false)).await;
    assert_eq!(status, 422);
    assert_eq!(headers["content-type"], "application/json");
    assert_eq!(body["detail"][0]["type"], "either_or");

    // A JSON text that holds JSON.
    let (status, _, body) = refused(Problem::UnknownService {
        name: "x".to_owned(),
        valid: vec!["y".to_owned()],
    })
    .await;
    assert_eq!(status, 404);
    let inner: Value = serde_json::from_str(body.as_str().unwrap()).unwrap();
    assert_eq!(inner["module"], "feast.errors");
    assert_eq!(inner["class"], "FeatureServiceNotFoundException");
    assert!(inner["message"].as_str().unwrap().contains("`x`"));

    let overloaded = Problem::Overloaded {
        what: "it".to_owned(),
    };
    let (status, headers, body) = refused(overloaded).await;
    assert_eq!((status, &*headers["retry-after"]), (503, "1"));
    assert!(body.as_str().unwrap().contains("FeastError"));

    let plan = plan(Vec::new());
    let mismatch = Problem::PlanMismatch {
        service: "x".to_owned(),
        serves: plan.digest(),
        wanted: two_views().digest(),
    };
    assert_eq!(refused(mismatch).await.0, 409);
}
