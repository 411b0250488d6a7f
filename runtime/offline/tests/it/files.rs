//! Sources of every shape: folders, globs, files that differ, odd types, and damage.

use std::fs;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, AsArray, Date32Array, DictionaryArray, Float64Array, Int32Array, NullArray,
    RecordBatch, StringArray, StringViewArray, TimestampMillisecondArray, TimestampNanosecondArray,
    TimestampSecondArray,
};
use arrow::datatypes::{DataType as ArrowType, Int32Type, TimeUnit};
use datafusion::physical_plan::{ExecutionPlan, collect, displayable};
use parquet::data_type::{ByteArray, ByteArrayType, Int64Type, Int96, Int96Type};
use parquet::file::writer::SerializedFileWriter;
use unskew_core::types::{Field, ScalarType};
use unskew_core::view::View;
use unskew_offline::{Components, OfflineError, SourceProblem};

use crate::repository::{
    INT64, Repository, batch, entities, history, ints, plan_of, strings, times, values, view,
};

const A: Option<&str> = Some("a");

/// What key `a` has at instant 100, by the history in `path`.
async fn value_at_100(repository: &Repository, path: &str) -> Result<Option<i64>, OfflineError> {
    let plan = plan_of(&view(path));
    let rows = repository.evaluated(&plan, &entities(&[(A, 100)])).await?;
    Ok(values(&rows.batch, "v__v")[0])
}

fn one_row(event: i64, value: i64) -> RecordBatch {
    history(&[(A, Some(event), None, Some(value))])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_a_folder_and_a_glob() {
    let repository = Repository::new();
    repository.write("d/x=1/one.parquet", &one_row(1, 10));
    repository.write("d/x=2/deep/two.parquet", &one_row(2, 20));
    repository.write("d/_temporary/three.parquet", &one_row(3, 30));
    repository.write_text("d/_SUCCESS", "");
    for (path, expected) in [
        ("d/x=1/one.parquet", Some(10)),
        ("d", Some(20)),
        ("d/*/*.parquet", Some(10)),
        ("d/**/*.parquet", Some(20)),
        ("d/x=[1]", Some(10)),
    ] {
        assert_eq!(
            value_at_100(&repository, path).await.unwrap(),
            expected,
            "{path}"
        );
    }
    let absolute = repository.path("d");
    let found = value_at_100(&repository, absolute.to_str().unwrap()).await;
    assert_eq!(found.unwrap(), Some(20));
}

#[tokio::test(flavor = "multi_thread")]
async fn names_of_files_may_hold_any_character() {
    let repository = Repository::new();
    for name in [
        "a b",
        "50%41",
        "x#y",
        "[1]",
        "*",
        "?",
        "ü𝄞",
        "a+b&c=d;e",
        "q'\"`",
    ] {
        let path = format!("{name}/{name}.parquet");
        repository.write(&path, &one_row(1, 10));
        assert_eq!(
            value_at_100(&repository, &path).await.unwrap(),
            Some(10),
            "{name}"
        );
        assert_eq!(
            value_at_100(&repository, name).await.unwrap(),
            Some(10),
            "{name}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn files_may_lack_a_column_that_others_have() {
    let repository = Repository::new();
    repository.write("d/1.parquet", &one_row(1, 10));
    let newer = batch(vec![
        ("extra", ints([Some(0)])),
        ("at", times([Some(2)])),
        ("id", strings([A])),
    ]);
    repository.write("d/2.parquet", &newer);
    assert_eq!(
        value_at_100(&repository, "d/1.parquet").await.unwrap(),
        Some(10)
    );
    // The newer row counts, and has no value.
    assert_eq!(value_at_100(&repository, "d").await.unwrap(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_column_that_no_file_has_is_an_error_that_lists_those_there_are() {
    let repository = Repository::new();
    repository.write("d/1.parquet", &one_row(1, 10));
    repository.write("d/2.parquet", &one_row(1, 10));
    let mut view = view("d");
    view.features.push(Field::new("w", INT64));
    view.source
        .columns
        .insert("w".to_owned(), "weight".to_owned());
    let error = repository
        .evaluated(&plan_of(&view), &entities(&[]))
        .await
        .unwrap_err()
        .to_string();
    for part in [
        "`s`",
        "`w`",
        "`weight`",
        "1.parquet",
        "other file",
        "id, at, made, v",
    ] {
        assert!(error.contains(part), "{part}: {error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn columns_are_renamed() {
    let repository = Repository::new();
    let rows = batch(vec![
        ("Customer ID", strings([A])),
        ("@found", times([Some(1)])),
        ("v", ints([Some(1)])),
        ("V", ints([Some(2)])),
    ]);
    repository.write("h.parquet", &rows);
    let mut view = view("h.parquet");
    view.source.created_timestamp_column = None;
    for (name, file_column) in [("id", "Customer ID"), ("at", "@found"), ("v", "V")] {
        view.source
            .columns
            .insert(name.to_owned(), file_column.to_owned());
    }
    let rows = repository
        .evaluated(&plan_of(&view), &entities(&[(A, 5)]))
        .await
        .unwrap();
    assert_eq!(values(&rows.batch, "v__v"), [Some(2)]);
    let scan = repository
        .offline
        .scan(&view.source, &["v", "id", "v"])
        .await
        .unwrap();
    let plan: Arc<dyn ExecutionPlan> = scan;
    let read = collect(plan, repository.offline.task_context())
        .await
        .unwrap();
    let names: Vec<_> = read[0]
        .schema()
        .fields()
        .iter()
        .map(|f| f.name().clone())
        .collect();
    assert_eq!(names, ["v", "id", "v"]);
    assert_eq!(read[0].column(0), read[0].column(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn files_may_hold_a_column_in_types_that_join() {
    let repository = Repository::new();
    let with = |event: ArrayRef, id: ArrayRef, value: ArrayRef| {
        batch(vec![
            ("at", event),
            ("id", id),
            ("made", times([None])),
            ("v", value),
        ])
    };
    let dictionary: DictionaryArray<Int32Type> = ["a"].into_iter().collect();
    let views: ArrayRef = Arc::new(StringViewArray::from(vec!["a"]));
    let files = [
        with(times([Some(1)]), strings([A]), ints([Some(1)])),
        with(
            Arc::new(TimestampNanosecondArray::from(vec![2_999])),
            Arc::new(dictionary),
            Arc::new(Int32Array::from(vec![2])),
        ),
        with(
            // One nanosecond before 1970 is the microsecond before it, not 1970.
            Arc::new(TimestampNanosecondArray::from(vec![-1])),
            views,
            Arc::new(Float64Array::from(vec![3.0])),
        ),
        with(
            Arc::new(Date32Array::from(vec![-1])),
            Arc::new(NullArray::new(1)),
            Arc::new(NullArray::new(1)),
        ),
    ];
    for (index, file) in files.iter().enumerate() {
        repository.write(&format!("d/{index}.parquet"), file);
    }
    let schema = repository.offline.source_schema("d", "d").await.unwrap();
    let types: Vec<_> = schema
        .fields()
        .iter()
        .map(|field| field.data_type().clone())
        .collect();
    let micros = ScalarType::Timestamp.arrow();
    assert_eq!(
        types,
        [micros.clone(), ArrowType::Utf8, micros, ArrowType::Float64]
    );

    let asked = [(A, 100), (A, 1), (A, 0), (A, -1), (A, -2)];
    let rows = repository
        .evaluated(&plan_of(&view("d")), &entities(&asked))
        .await
        .unwrap();
    let expected = [Some(2), Some(1), Some(3), Some(3), None];
    assert_eq!(values(&rows.batch, "v__v"), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_disagree_about_a_type_are_an_error_for_those_who_read_it() {
    let repository = Repository::new();
    repository.write("d/1.parquet", &one_row(1, 10));
    let other = batch(vec![
        ("id", strings([A])),
        ("at", times([Some(2)])),
        ("v", strings([Some("ten")])),
    ]);
    repository.write("d/2.parquet", &other);
    let error = value_at_100(&repository, "d").await.unwrap_err();
    let OfflineError::Source { problem, .. } = &error else {
        panic!("{error}")
    };
    assert!(
        matches!(**problem, SourceProblem::IncompatibleTypes { .. }),
        "{error}"
    );
    for part in ["`v`", "Int64", "Utf8", "1.parquet", "2.parquet"] {
        assert!(error.to_string().contains(part), "{part}: {error}");
    }
    // Nobody else is kept from his work.
    let mut view = view("d");
    view.features.clear();
    repository
        .offline
        .source_schema(&view.source.name, &view.source.path)
        .await
        .unwrap();
    let scan = repository
        .offline
        .scan(&view.source, &["at", "id"])
        .await
        .unwrap();
    assert_eq!(scan.rows(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn timestamps_of_every_unit_floor_to_microseconds() {
    let columns: [(ArrayRef, i64); 5] = [
        (Arc::new(TimestampSecondArray::from(vec![-1])), -1_000_000),
        (Arc::new(TimestampMillisecondArray::from(vec![-1])), -1_000),
        (Arc::new(TimestampNanosecondArray::from(vec![-1])), -1),
        (Arc::new(Date32Array::from(vec![-1])), -86_400_000_000),
        (
            Arc::new(StringArray::from(vec!["1969-12-31T23:59:59.999999Z"])),
            -1,
        ),
    ];
    for (column, at) in columns {
        let repository = Repository::new();
        let data_type = column.data_type().clone();
        let rows = batch(vec![
            ("at", column),
            ("id", strings([A])),
            ("made", times([None])),
            ("v", ints([Some(1)])),
        ]);
        repository.write("h.parquet", &rows);
        let asked = [(A, at), (A, at - 1)];
        let plan = plan_of(&view("h.parquet"));
        let rows = repository
            .evaluated(&plan, &entities(&asked))
            .await
            .unwrap();
        assert_eq!(values(&rows.batch, "v__v"), [Some(1), None], "{data_type}");
    }
}

/// INT96, as older Spark and Hive write it, which no Arrow writer does.
pub(crate) fn write_int96(repository: &Repository, name: &str, rows: &[(u32, u64, i64)]) {
    let message = "message m { optional binary id (UTF8); optional int96 at; optional int64 v; }";
    let schema = Arc::new(parquet::schema::parser::parse_message_type(message).unwrap());
    let file = fs::File::create(repository.path(name)).unwrap();
    let mut writer = SerializedFileWriter::new(file, schema, Arc::default()).unwrap();
    let mut group = writer.next_row_group().unwrap();
    let levels = vec![1; rows.len()];
    let mut column = group.next_column().unwrap().unwrap();
    let ids: Vec<_> = rows.iter().map(|_| ByteArray::from("a")).collect();
    column
        .typed::<ByteArrayType>()
        .write_batch(&ids, Some(&levels), None)
        .unwrap();
    column.close().unwrap();
    let mut column = group.next_column().unwrap().unwrap();
    let times: Vec<_> = rows
        .iter()
        .map(|&(day, nanos, _)| {
            let mut value = Int96::new();
            value.set_data(nanos as u32, (nanos >> 32) as u32, day);
            value
        })
        .collect();
    column
        .typed::<Int96Type>()
        .write_batch(&times, Some(&levels), None)
        .unwrap();
    column.close().unwrap();
    let mut column = group.next_column().unwrap().unwrap();
    let values: Vec<_> = rows.iter().map(|row| row.2).collect();
    column
        .typed::<Int64Type>()
        .write_batch(&values, Some(&levels), None)
        .unwrap();
    column.close().unwrap();
    group.close().unwrap();
    writer.close().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn int96_timestamps_reach_beyond_2262() {
    const EPOCH: u32 = 2_440_588;
    const DAY: i64 = 86_400_000_000;
    let repository = Repository::new();
    // 1970-01-01T00:00:00.000001999, and 9999-12-31.
    let last = 2_932_896;
    write_int96(
        &repository,
        "h.parquet",
        &[(EPOCH, 1_999, 1), (EPOCH + last, 0, 2)],
    );
    let mut view = view("h.parquet");
    view.source.created_timestamp_column = None;
    let schema = repository
        .offline
        .source_schema(&view.source.name, &view.source.path)
        .await
        .unwrap();
    let data_type = schema.field_with_name("at").unwrap().data_type().clone();
    assert_eq!(data_type, ArrowType::Timestamp(TimeUnit::Microsecond, None));
    let last = i64::from(last) * DAY;
    let asked = [(A, 0), (A, 1), (A, last - 1), (A, last)];
    let rows = repository
        .evaluated(&plan_of(&view), &entities(&asked))
        .await
        .unwrap();
    assert_eq!(
        values(&rows.batch, "v__v"),
        [None, Some(1), Some(1), Some(2)]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn files_without_rows_are_fine() {
    let repository = Repository::new();
    repository.write("d/1.parquet", &history(&[]));
    assert_eq!(value_at_100(&repository, "d").await.unwrap(), None);
    repository.write("d/2.parquet", &one_row(1, 10));
    assert_eq!(value_at_100(&repository, "d").await.unwrap(), Some(10));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_source_is_an_error_that_names_where_it_was_sought() {
    let repository = Repository::new();
    for path in ["none.parquet", "none/*.parquet"] {
        let error = value_at_100(&repository, path)
            .await
            .unwrap_err()
            .to_string();
        assert!(error.contains(path) && error.contains("`s`"), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_file_is_named_among_many() {
    let whole = |repository: &Repository| {
        for file in 0..5 {
            let rows: Vec<_> = (0..3_000)
                .map(|row| (A, Some(row), None, Some(row * file)))
                .collect();
            repository.write(&format!("d/{file}.parquet"), &history(&rows));
        }
        repository.path("d/3.parquet")
    };
    for damage in ["empty", "truncated", "no parquet", "corrupt pages"] {
        let repository = Repository::new();
        let path = whole(&repository);
        let mut bytes = fs::read(&path).unwrap();
        match damage {
            "empty" => bytes.clear(),
            "truncated" => bytes.truncate(bytes.len() / 2),
            "no parquet" => bytes = b"id,at,v\na,1,2\n".repeat(100),
            // Everything between the first magic and the footer.
            _ => {
                let length = bytes.len();
                let tail: [u8; 4] = bytes[length - 8..length - 4].try_into().unwrap();
                let footer = u32::from_le_bytes(tail) as usize + 8;
                bytes[4..length - footer].fill(0xff);
            }
        }
        fs::write(&path, bytes).unwrap();
        let error = value_at_100(&repository, "d").await.unwrap_err();
        assert!(
            matches!(error, OfflineError::UnreadableFile { .. }),
            "{damage}: {error:?}"
        );
        assert!(error.to_string().contains("3.parquet"), "{damage}: {error}");
        assert!(!error.to_string().contains("Parquet error"), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_that_does_not_fit_is_named_with_its_file_and_row() {
    let repository = Repository::new();
    for file in 0..4 {
        let values: Vec<_> = (0..20_000)
            .map(|row| {
                if file == 2 && row == 12_345 {
                    0.5
                } else {
                    f64::from(row)
                }
            })
            .collect();
        // Of all rows only the one at fault counts at 100.
        let at = |row| Some(if file == 2 && row == 12_345 { 100 } else { 101 });
        let rows = batch(vec![
            ("id", strings((0..20_000).map(|_| A))),
            ("at", times((0..20_000).map(at))),
            ("made", times((0..20_000).map(|_| None))),
            ("v", Arc::new(Float64Array::from(values))),
        ]);
        repository.write_grouped(&format!("d/{file}.parquet"), &rows, 3_000);
    }
    let error = value_at_100(&repository, "d")
        .await
        .unwrap_err()
        .to_string();
    for part in ["2.parquet", "`v`", "row 12345", "0.5", "int64"] {
        assert!(error.contains(part), "{part}: {error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn plans_explain_themselves_and_read_only_what_is_needed() {
    let repository = Repository::new();
    let rows: Vec<_> = (0..50_000)
        .map(|row| (A, Some(row), None, Some(row)))
        .collect();
    for file in 0..4 {
        repository.write(&format!("d/{file}.parquet"), &history(&rows));
    }
    let view: Arc<View> = Arc::new(view("d"));
    let plan = repository
        .offline
        .view_rows(&view, &Components::new(), Arc::new(()))
        .await
        .unwrap();
    assert_eq!(plan.properties().partitioning.partition_count(), 3);
    let text = displayable(&plan).indent(false).to_string();
    for part in [
        "ViewRowsExec: view=v",
        "ScanExec: source=s, files=4, row_groups=4, rows=200000",
        "[at, made, id, v]",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let plan: Arc<dyn ExecutionPlan> = Arc::new(plan);
    let batches = collect(plan, repository.offline.task_context())
        .await
        .unwrap();
    assert_eq!(
        batches.iter().map(RecordBatch::num_rows).sum::<usize>(),
        200_000
    );
    let events = batches[0]
        .column(0)
        .as_primitive::<arrow::datatypes::TimestampMicrosecondType>();
    assert_eq!(events.timezone(), Some("UTC"));
}
