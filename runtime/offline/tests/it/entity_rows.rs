//! Entity rows from Parquet, CSV and memory: what is taken and what is refused.

use std::fs;
use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, RecordBatch};
use arrow::datatypes::{DataType as ArrowType, Field as ArrowField, Schema};
use unskew_core::plan::FeaturePlan;
use unskew_core::types::{DataType, Field, ScalarType};
use unskew_offline::{EntityRows, OfflineError};

use crate::repository::{INT64, Repository, batch, ints, plan_of, strings, times, view};

/// A plan with the join key `id` and the request fields `n` (int64) and `tags` (list of int64).
fn a_plan() -> FeaturePlan {
    let mut plan = plan_of(&view("h.parquet"));
    plan.request_fields = vec![
        Field::new("n", INT64),
        Field::new("tags", DataType::List(ScalarType::Int64)),
    ];
    plan
}

fn refused(plan: &FeaturePlan, batch: &RecordBatch) -> String {
    EntityRows::from_batch(plan, batch).unwrap_err().to_string()
}

#[test]
fn missing_columns_are_listed_with_those_there_are() {
    let rows = batch(vec![("n", ints([Some(1)])), ("ID", strings([Some("a")]))]);
    let error = refused(&a_plan(), &rows);
    for part in ["`event_timestamp`, `id`, `tags`", "`n`, `ID`"] {
        assert!(error.contains(part), "{part}: {error}");
    }
}

#[test]
fn a_null_event_timestamp_is_an_error_that_names_the_row() {
    let plan = plan_of(&view("h.parquet"));
    let rows = batch(vec![
        ("id", strings((0..20_000).map(|_| Some("a")))),
        (
            "event_timestamp",
            times((0..20_000).map(|row| (row != 9_000).then_some(row))),
        ),
    ]);
    let error = refused(&plan, &rows);
    assert!(
        error.contains("row 9000") && error.contains("event_timestamp"),
        "{error}"
    );
}

#[test]
fn a_value_that_does_not_fit_is_named_with_column_and_row() {
    let mut plan = a_plan();
    plan.request_fields.pop();
    let numbers: ArrayRef = Arc::new(Float64Array::from_iter_values(
        (0..10_000).map(|row| if row == 9_999 { 1.5 } else { 2.0 }),
    ));
    let rows = batch(vec![
        ("id", strings((0..10_000).map(|_| Some("a")))),
        ("event_timestamp", times((0..10_000).map(Some))),
        ("n", numbers),
    ]);
    let error = refused(&plan, &rows);
    for part in ["`n`", "row 9999", "1.5", "int64"] {
        assert!(error.contains(part), "{part}: {error}");
    }
}

#[test]
fn a_column_with_the_name_of_an_output_is_an_error() {
    let plan = plan_of(&view("h.parquet"));
    let rows = batch(vec![
        ("id", strings([Some("a")])),
        ("event_timestamp", times([Some(1)])),
        ("v__v", ints([Some(1)])),
    ]);
    let error = refused(&plan, &rows);
    assert!(
        error.contains("`v__v`") && error.contains("full_feature_names"),
        "{error}"
    );
}

#[test]
fn two_columns_of_one_name_are_an_error() {
    let plan = plan_of(&view("h.parquet"));
    let fields = ["id", "event_timestamp", "id"];
    let arrays = vec![strings([Some("a")]), times([Some(1)]), strings([Some("b")])];
    let fields = fields.iter().zip(&arrays);
    let fields: Vec<_> = fields
        .map(|(name, array)| ArrowField::new(*name, array.data_type().clone(), true))
        .collect();
    let rows = RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays).unwrap();
    let error = refused(&plan, &rows);
    assert!(error.contains("two columns are called `id`"), "{error}");
}

#[tokio::test]
async fn csv_fields_are_read_in_the_types_of_the_plan_and_others_as_they_look() {
    let repository = Repository::new();
    let text = "\u{feff}id,event_timestamp,n,tags,label,when,note,empty\r\n\
        007,2001-03-01T12:00:00Z,9007199254740993,\"[1, null]\",1.5,2001-03-01,\"a, \"\"b\"\"\",\r\n\
        ,2001-03-01 12:00:00.000001,,,2,2001-03-02,,\r\n";
    let path = repository.write_text("rows.CSV", text);
    let rows = repository
        .offline
        .read_entity_rows(&a_plan(), &path)
        .await
        .unwrap();
    assert_eq!(rows.num_rows(), 2);
    let types: Vec<_> = rows
        .schema()
        .fields()
        .iter()
        .map(|f| f.data_type().clone())
        .collect();
    assert_eq!(
        types,
        [
            ArrowType::Utf8,
            ScalarType::Timestamp.arrow(),
            ArrowType::Int64,
            DataType::List(ScalarType::Int64).arrow(),
            ArrowType::Float64,
            ArrowType::Date32,
            ArrowType::Utf8,
            ArrowType::Utf8,
        ]
    );
}

#[tokio::test]
async fn csv_fields_that_another_type_would_change_stay_text() {
    let repository = Repository::new();
    for (fields, expected) in [
        (
            vec!["1", "-2", "", "0", "9223372036854775807"],
            ArrowType::Int64,
        ),
        (vec!["00712"], ArrowType::Utf8),
        (vec!["712", "", "00"], ArrowType::Utf8),
        (vec!["-07"], ArrowType::Utf8),
        (vec!["-0"], ArrowType::Utf8),
        (vec!["+1"], ArrowType::Utf8),
        (vec![" 1"], ArrowType::Utf8),
        (vec!["9223372036854775808"], ArrowType::Utf8),
        (
            vec!["0.5", "-0.25", ".5", "1e9", "3", "0", "NaN"],
            ArrowType::Float64,
        ),
        (vec!["1.5", "00712"], ArrowType::Utf8),
        (vec!["00.5"], ArrowType::Utf8),
        (vec!["-01.5"], ArrowType::Utf8),
        (vec!["1.5", "9007199254740992"], ArrowType::Float64),
        (vec!["1.5", "9007199254740993"], ArrowType::Utf8),
        (vec!["true", "False"], ArrowType::Boolean),
        (vec!["2001-02-28"], ArrowType::Date32),
        // It looks like a date.
        (vec!["2001-02-29"], ArrowType::Utf8),
    ] {
        // What decides comes late, after the first batch that is read.
        let lines = std::iter::repeat_n(fields[0], 9_000).chain(fields.iter().copied());
        let rows: String = lines
            .map(|field| format!("a,2001-03-01,1,,{field}\n"))
            .collect();
        let text = format!("id,event_timestamp,n,tags,own\n{rows}");
        let path = repository.write_text("rows.csv", &text);
        let rows = repository
            .offline
            .read_entity_rows(&a_plan(), &path)
            .await
            .unwrap();
        assert_eq!(rows.num_rows(), 9_000 + fields.len());
        let own = rows.schema().field_with_name("own").unwrap();
        assert_eq!(own.data_type(), &expected, "{fields:?}");
    }
}

#[tokio::test]
async fn csv_errors_name_file_column_row_and_value() {
    let repository = Repository::new();
    let header = "id,event_timestamp,n,tags\n";
    for (row, parts) in [
        (
            "a,yesterday,1,\n",
            ["`event_timestamp`", "row 1", "`yesterday`"],
        ),
        (
            "a,2001-03-01,9223372036854775808,\n",
            ["`n`", "row 1", "9223372036854775808"],
        ),
        ("a,2001-03-01,1,[x]\n", ["`tags`", "row 1", "[x]"]),
        ("a,,1,\n", ["event_timestamp", "row 1", "null"]),
    ] {
        let text = format!("{header}a,2001-03-01,1,[2]\n{row}");
        let path = repository.write_text("rows.csv", &text);
        let read = repository.offline.read_entity_rows(&a_plan(), &path).await;
        let error = read.unwrap_err().to_string();
        for part in parts.into_iter().chain(["rows.csv"]) {
            assert!(error.contains(part), "{part}: {error}");
        }
    }
    for (text, part) in [
        ("id,event_timestamp,n,tags\na,2001-03-01,1\n", "rows.csv"),
        ("id,event_timestamp,n,n\n", "two columns are called `n`"),
        ("", "no column `event_timestamp`"),
    ] {
        let path = repository.write_text("rows.csv", text);
        let read = repository.offline.read_entity_rows(&a_plan(), &path).await;
        let error = read.unwrap_err().to_string();
        assert!(error.contains(part), "{part}: {error}");
    }
}

#[tokio::test]
async fn a_file_is_read_by_the_ending_of_its_name() {
    let repository = Repository::new();
    let plan = plan_of(&view("h.parquet"));
    let path = repository.write_text("rows.json", "{}");
    let error = repository
        .offline
        .read_entity_rows(&plan, &path)
        .await
        .unwrap_err();
    assert!(
        error.to_string().contains(".parquet nor in .csv"),
        "{error}"
    );

    let missing = repository.path("none.parquet");
    let error = repository
        .offline
        .read_entity_rows(&plan, &missing)
        .await
        .unwrap_err();
    assert!(matches!(error, OfflineError::Io { .. }), "{error}");
    assert!(error.to_string().contains("none.parquet"), "{error}");

    let rows = batch(vec![
        ("id", strings([Some("a")])),
        ("event_timestamp", times([Some(1)])),
    ]);
    let path = repository.write("rows.parquet", &rows);
    assert_eq!(
        repository
            .offline
            .read_entity_rows(&plan, &path)
            .await
            .unwrap()
            .num_rows(),
        1
    );
    let bytes = fs::read(&path).unwrap();
    fs::write(&path, &bytes[..bytes.len() - 20]).unwrap();
    let error = repository
        .offline
        .read_entity_rows(&plan, &path)
        .await
        .unwrap_err();
    assert!(
        matches!(error, OfflineError::UnreadableFile { .. }),
        "{error}"
    );
}
