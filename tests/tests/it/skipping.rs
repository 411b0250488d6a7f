//! What of a history is left out, where a batch transformation makes its rows: what the source's own
//! columns exclude, and nothing by a column that the transformation makes.

use std::fs::File;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, AsArray, Int32Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
};
use arrow::datatypes::{Field, Schema};
use parquet::arrow::ArrowWriter;
use parquet::file::properties::WriterProperties;
use unskew_core::time::DAY;
use unskew_core::types::UTC;
use unskew_offline::{EntitySource, Output, Target};
use unskew_store::{Features, TrainingSet};
use unskew_tests::{Online, Repository, component, read_parquet};

/// `every_row` gives `out_of_X` for each `of_X`.
const DEFINITIONS: &str = "
entities:
  - {name: thing, join_keys: [{name: KEY, type: int64}]}
sources:
  - {name: history, path: data/history.parquet, timestamp_field: TIME}
feature_views:
  - name: things
    entities: [thing]
    source: history
    ttl: 1d
    transformation: rows
    features: [{name: out_of_string}]
transformations:
  - name: rows
    kind: batch
    component: every_row.wasm
    inputs:
      copies: {value: 1}
      of_int64: thing
      of_timestamp: happened
      of_string: text
      of_float64: out_of_int64
      of_bool: {value: null}
      of_int32: {value: null}
      of_float32: {value: null}
      of_bytes: {value: null}
      of_bool_list: {value: null}
      of_int64_list: {value: null}
      of_float32_list: {value: null}
      of_string_list: {value: null}
      of_bytes_list: {value: null}
      of_timestamp_list: {value: null}
feature_services:
  - {name: model, features: [things]}
";

fn batch(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
    let fields = columns.iter();
    let fields = fields.map(|(name, column)| Field::new(*name, column.data_type().clone(), true));
    let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
    let columns = columns.into_iter().map(|(_, column)| column).collect();
    RecordBatch::try_new(schema, columns).unwrap()
}

fn times(values: Vec<i64>) -> ArrayRef {
    Arc::new(TimestampMicrosecondArray::from(values).with_timezone(UTC))
}

/// 50 things in row groups of ten, one for each day; each thing has its own row. What is called as
/// the transformation calls what it makes has other keys, and times of long before.
fn history() -> RecordBatch {
    let rows = 0..50_i64;
    let all = |value: &dyn Fn(i64) -> i64| rows.clone().map(value).collect::<Vec<_>>();
    batch(vec![
        ("thing", Arc::new(Int64Array::from(all(&|row| row)))),
        ("happened", times(all(&|row| (100 + row / 10) * DAY))),
        (
            "text",
            Arc::new(StringArray::from_iter_values(
                rows.clone().map(|row| format!("thing {row}")),
            )),
        ),
        (
            "out_of_int64",
            Arc::new(Int32Array::from_iter_values(
                rows.clone().map(|row| row as i32 - 1_000),
            )),
        ),
        ("out_of_timestamp", times(all(&|row| row))),
    ])
}

/// The feature of things 23 and 24, by a view with this join key and timestamp, and the plan that was
/// executed.
async fn trained(key: &str, time: &str) -> (Vec<Option<String>>, String) {
    let definitions = DEFINITIONS.replace("KEY", key).replace("TIME", time);
    let repository = Repository::new(Online::Embedded, &definitions);
    std::fs::copy(component("every_row"), repository.path("every_row.wasm")).unwrap();
    let history = history();
    std::fs::create_dir(repository.path("data")).unwrap();
    let file = File::create(repository.path("data/history.parquet")).unwrap();
    let properties = WriterProperties::builder().set_max_row_group_row_count(Some(10));
    let writer = ArrowWriter::try_new(file, history.schema(), Some(properties.build()));
    let mut writer = writer.unwrap();
    writer.write(&history).unwrap();
    writer.close().unwrap();
    let store = repository.store();
    store.apply(&()).await.unwrap();
    let asked = batch(vec![
        (key, Arc::new(Int64Array::from(vec![23, 24]))),
        ("event_timestamp", times(vec![102 * DAY, 102 * DAY + 5])),
    ]);
    let request = TrainingSet {
        features: Features::Service("model".to_owned()),
        entities: EntitySource::Files(repository.write("asked.parquet", &asked)),
        out: Output::to(Target::Parquet(repository.path("set.parquet"))),
        memory_limit: None,
        progress: Arc::new(()),
    };
    let summary = store.training_set(request).await.unwrap();
    let set = read_parquet(&repository.path("set.parquet"));
    let found = set.column_by_name("out_of_string").unwrap();
    let found = found.as_string::<i32>().iter();
    let found = found.map(|text| text.map(str::to_owned)).collect();
    (found, summary.explain)
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_left_out_by_a_column_that_the_transformation_makes() {
    let expected = ["thing 23", "thing 24"].map(|text| Some(text.to_owned()));
    for (key, time, rows_read) in [
        ("thing", "happened", 10),
        // The row groups of the day, and of the day before, which the time to live allows.
        ("out_of_int64", "happened", 20),
        ("thing", "out_of_timestamp", 10),
        ("out_of_int64", "out_of_timestamp", 50),
    ] {
        let (found, explain) = trained(key, time).await;
        assert_eq!(found, expected, "{key} {time}");
        let pruned = 5 - rows_read / 10;
        for part in [
            format!("rows_read={rows_read},"),
            format!("row_groups_pruned={pruned},"),
        ] {
            assert!(explain.contains(&part), "{key} {time}: {part} {explain}");
        }
    }
}
