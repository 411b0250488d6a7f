//! The forms in which training sets are written, and what is left where they cannot be.

use std::fs;
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryArray, BooleanArray, Date32Array, DictionaryArray, Float32Array, Float64Array,
    ListArray, RecordBatch, StringViewArray, StructArray, TimestampNanosecondArray, UInt64Array,
};
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType as ArrowType, Field as ArrowField, Int32Type, Int64Type};
use parquet::basic::Compression as Codec;
use parquet::file::reader::{FileReader, SerializedFileReader};
use unskew_core::plan::FeaturePlan;
use unskew_core::types::{DataType, Field, ScalarType};
use unskew_offline::{
    Components, EntityRange, EntitySource, OfflineError, Output, PLAN_DIGEST, Settings, Summary,
    Target, TrainingSetRequest, plan_file,
};

use crate::repository::{
    Repository, batch, entities, evaluator, history, ints, key, plan, plan_of, read, strings,
    times, values, view,
};

const A: Option<&str> = Some("a");
const B: Option<&str> = Some("b");

/// A history of two keys, and a folder for training sets.
fn repository() -> Repository {
    repository_with(Settings::default())
}

fn repository_with(settings: Settings) -> Repository {
    let repository = Repository::with_settings(settings);
    repository.write(
        "h.parquet",
        &history(&[(A, Some(10), None, Some(1)), (B, Some(20), None, None)]),
    );
    fs::create_dir(repository.path("out")).unwrap();
    repository
}

async fn build(
    repository: &Repository,
    plan: &FeaturePlan,
    entities: EntitySource,
    out: Output,
) -> Result<Summary, OfflineError> {
    let request = TrainingSetRequest {
        evaluator: evaluator(plan),
        components: Components::new(),
        entities,
        out,
        progress: Arc::new(()),
    };
    repository.offline.training_set(request).await
}

/// Builds a training set of rows.
async fn build_rows(
    repository: &Repository,
    rows: &RecordBatch,
    out: Output,
) -> Result<Summary, OfflineError> {
    let rows = EntitySource::Files(repository.write("rows.parquet", rows));
    build(repository, &plan_of(&view("h.parquet")), rows, out).await
}

fn names_in(folder: PathBuf) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn metadata(path: &Path) -> Vec<(String, String)> {
    let reader = SerializedFileReader::new(fs::File::open(path).unwrap()).unwrap();
    let metadata = reader.metadata().file_metadata();
    let entries = metadata.key_value_metadata().unwrap().clone();
    let entries = entries.into_iter();
    entries
        .filter_map(|entry| Some((entry.key, entry.value?)))
        .filter(|(key, _)| key.starts_with("unskew."))
        .collect()
}

/// Many rows, of more columns than there are threads.
fn many(rows: i64) -> RecordBatch {
    let names: Vec<String> = (0..rows)
        .map(|row| format!("name {}", row % 1_000))
        .collect();
    let lists = (0..rows).map(|row| (row % 3 > 0).then(|| vec![Some(row), None]));
    let inner: ArrayRef = ints((0..rows).map(Some));
    let field = Arc::new(ArrowField::new("inner", ArrowType::Int64, true));
    batch(vec![
        (
            "id",
            strings((0..rows).map(|row| if row % 2 == 0 { A } else { B })),
        ),
        ("event_timestamp", times((0..rows).map(Some))),
        ("row", ints((0..rows).map(Some))),
        (
            "name",
            strings(names.iter().map(|name| Some(name.as_str()))),
        ),
        (
            "lists",
            Arc::new(ListArray::from_iter_primitive::<Int64Type, _, _>(lists)),
        ),
        ("nested", Arc::new(StructArray::from(vec![(field, inner)]))),
    ])
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_and_their_groups_do_not_depend_on_threads_or_on_the_memory_that_there_is() {
    let rows = many(100_000);
    let mut first: Option<Vec<u8>> = None;
    for (threads, memory_limit) in [(1, None), (2, None), (8, Some(1 << 20))] {
        let repository = repository_with(Settings {
            partitions: NonZero::new(threads).unwrap(),
            memory_limit,
            ..Settings::default()
        });
        let out = repository.path("out/set.parquet");
        let output = Output {
            row_group_rows: NonZero::new(30_000),
            ..Output::to(Target::Parquet(out.clone()))
        };
        build_rows(&repository, &rows, output).await.unwrap();
        let set = read(&out);
        for (index, column) in rows.columns().iter().enumerate() {
            assert_eq!(set.column(index), column);
        }
        let expected: Vec<_> = (0..100_000)
            .map(|row| (row % 2 == 0 && row >= 10).then_some(1))
            .collect();
        assert_eq!(values(&set, "v__v"), expected);
        let reader = SerializedFileReader::new(fs::File::open(&out).unwrap()).unwrap();
        let groups = reader.metadata().row_groups().iter();
        let groups: Vec<_> = groups.map(|group| group.num_rows()).collect();
        assert_eq!(groups, [30_000, 30_000, 30_000, 10_000]);
        let bytes = fs::read(&out).unwrap();
        let plan_digest = metadata(&out);
        assert_eq!(plan_digest.len(), 3);
        assert!(
            first.get_or_insert_with(|| bytes.clone()) == &bytes,
            "{threads}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn columns_are_compressed_as_was_asked_for() {
    let repository = repository();
    let level = |level| Codec::ZSTD(parquet::basic::ZstdLevel::try_new(level).unwrap());
    for (name, codec) in [
        ("zstd(9)", level(9)),
        ("snappy", Codec::SNAPPY),
        ("gzip", Codec::GZIP(Default::default())),
        ("lz4", Codec::LZ4_RAW),
        ("brotli", Codec::BROTLI(Default::default())),
        ("none", Codec::UNCOMPRESSED),
    ] {
        let out = repository.path("out/set.parquet");
        let output = Output {
            compression: Some(name.parse().unwrap()),
            overwrite: true,
            ..Output::to(Target::Parquet(out.clone()))
        };
        let rows = many(100);
        build_rows(&repository, &rows, output).await.unwrap();
        let reader = SerializedFileReader::new(fs::File::open(&out).unwrap()).unwrap();
        let written = reader.metadata().row_group(0).column(0).compression();
        // A file does not say by which level.
        assert_eq!(
            std::mem::discriminant(&written),
            std::mem::discriminant(&codec),
            "{name}"
        );
        assert_eq!(read(&out).column(3), rows.column(3), "{name}");
    }
    assert_eq!(names_in(repository.path("out")), ["set.parquet"]);
}

fn folder(repository: &Repository, rows_per_file: usize, overwrite: bool) -> Output {
    Output {
        overwrite,
        ..Output::to(Target::Folder {
            path: repository.path("out/set/"),
            rows_per_file: NonZero::new(rows_per_file),
        })
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_has_files_of_so_many_rows_in_their_order() {
    let repository = repository();
    for (rows, files) in [
        (25_000, vec![10_000, 10_000, 5_000]),
        (20_000, vec![10_000; 2]),
        (0, vec![0]),
    ] {
        let rows = many(rows);
        let output = folder(&repository, 10_000, true);
        build_rows(&repository, &rows, output).await.unwrap();
        let set = repository.path("out/set");
        let names = names_in(set.clone());
        let expected: Vec<_> = (0..files.len())
            .map(|n| format!("part-{n:05}.parquet"))
            .collect();
        assert_eq!(names, expected);
        let parts: Vec<_> = names.iter().map(|name| read(&set.join(name))).collect();
        let lengths: Vec<_> = parts.iter().map(RecordBatch::num_rows).collect();
        assert_eq!(lengths, files);
        let all = concat_batches(&parts[0].schema(), &parts).unwrap();
        for (index, column) in rows.columns().iter().enumerate() {
            assert_eq!(all.column(index), column);
        }
        let digest = plan_of(&view("h.parquet")).digest().to_string();
        for name in &names {
            let metadata = metadata(&set.join(name));
            assert!(
                metadata.contains(&(PLAN_DIGEST.to_owned(), digest.clone())),
                "{name}"
            );
        }
        assert_eq!(names_in(repository.path("out")), ["set"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_is_replaced_only_by_leave_and_only_if_it_holds_a_training_set() {
    let repository = repository();
    build_rows(&repository, &many(10), folder(&repository, 3, false))
        .await
        .unwrap();
    let error = build_rows(&repository, &many(10), folder(&repository, 3, false)).await;
    let error = error.unwrap_err();
    assert!(matches!(error, OfflineError::Exists { .. }), "{error}");

    // An error leaves the former one as it was.
    let bad = batch(vec![("id", strings([A]))]);
    build_rows(&repository, &bad, folder(&repository, 3, true))
        .await
        .unwrap_err();
    assert_eq!(names_in(repository.path("out")), ["set"]);
    assert_eq!(names_in(repository.path("out/set")).len(), 4);

    build_rows(&repository, &many(10), folder(&repository, 5, true))
        .await
        .unwrap();
    assert_eq!(names_in(repository.path("out")), ["set"]);
    assert_eq!(names_in(repository.path("out/set")).len(), 2);

    fs::write(repository.path("out/set/thesis.txt"), "").unwrap();
    let error = build_rows(&repository, &many(10), folder(&repository, 5, true)).await;
    let error = error.unwrap_err().to_string();
    assert!(
        error.contains("only a folder that holds a training set"),
        "{error}"
    );
    assert_eq!(names_in(repository.path("out/set")).len(), 3);
}

/// A column of every kind that CSV holds.
fn every_kind() -> RecordBatch {
    let dictionary: DictionaryArray<Int32Type> = ["x", "y", "x"].into_iter().collect();
    let nanos = TimestampNanosecondArray::from(vec![Some(-1), None, Some(1)]);
    let lists = ListArray::from_iter_primitive::<Int64Type, _, _>([
        Some(vec![Some(1), None]),
        None,
        Some(vec![]),
    ]);
    batch(vec![
        ("id", strings([A, Some("a,\"b\"\nc"), Some("")])),
        (
            "event_timestamp",
            times([Some(10), Some(1_500_000), Some(0)]),
        ),
        ("label", ints([Some(i64::MIN), None, Some(3)])),
        (
            "flag",
            Arc::new(BooleanArray::from(vec![Some(true), None, Some(false)])),
        ),
        (
            "double",
            Arc::new(Float64Array::from(vec![0.1, f64::NAN, -0.0])),
        ),
        (
            "single",
            Arc::new(Float32Array::from(vec![0.1, f32::INFINITY, 1e-45])),
        ),
        (
            "bytes",
            Arc::new(BinaryArray::from(vec![b"\x00\xff".as_slice(), b"", b"a"])),
        ),
        ("tags", Arc::new(lists)),
        ("kind", Arc::new(dictionary)),
        ("nanos", Arc::new(nanos.with_timezone("Europe/Berlin"))),
        (
            "day",
            Arc::new(Date32Array::from(vec![Some(0), None, Some(-1)])),
        ),
        ("big", Arc::new(UInt64Array::from(vec![u64::MAX, 0, 1]))),
        (
            "view",
            Arc::new(StringViewArray::from(vec![" a", "b", "c "])),
        ),
    ])
}

#[tokio::test(flavor = "multi_thread")]
async fn csv_says_each_value_in_full() {
    let repository = repository();
    let out = repository.path("out/set.csv");
    let output = Output::to(Target::Csv(out.clone()));
    build_rows(&repository, &every_kind(), output)
        .await
        .unwrap();
    let expected = "\
id,event_timestamp,label,flag,double,single,bytes,tags,kind,nanos,day,big,view,v__v
a,1970-01-01T00:00:00.000010Z,-9223372036854775808,true,0.1,0.1,AP8=,\"[1,null]\",x,1969-12-31T23:59:59.999999999Z,1970-01-01,18446744073709551615,\" a\",1
\"a,\"\"b\"\"\nc\",1970-01-01T00:00:01.500000Z,,,NaN,Infinity,\"\",,y,,,0,b,
\"\",1970-01-01T00:00:00Z,3,false,-0.0,1e-45,YQ==,[],x,1970-01-01T00:00:00.000000001Z,1969-12-31,1,\"c \",
";
    assert_eq!(fs::read_to_string(&out).unwrap(), expected);

    let plan = plan_of(&view("h.parquet"));
    let beside = fs::read_to_string(plan_file(&out)).unwrap();
    let beside: serde_json::Value = serde_json::from_str(&beside).unwrap();
    assert_eq!(beside[PLAN_DIGEST], plan.digest().to_string());
    assert_eq!(beside["unskew.components"], serde_json::json!([]));
    let said: FeaturePlan = serde_json::from_value(beside["unskew.plan"].clone()).unwrap();
    assert_eq!(said.digest(), plan.digest());
    assert_eq!(
        names_in(repository.path("out")),
        ["set.csv", "set.csv.plan.json"]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn csv_is_read_back_to_the_same_values_but_for_empty_texts() {
    let repository = repository();
    let written = every_kind();
    let out = repository.path("out/set.csv");
    let output = Output::to(Target::Csv(out.clone()));
    build_rows(&repository, &written, output).await.unwrap();
    // Without the feature, whose name it may not have as entity rows.
    let mut plan = plan_of(&view("h.parquet"));
    plan.outputs[0].name = "other".to_owned();
    let scalar = DataType::Scalar;
    plan.request_fields = vec![
        Field::new("label", scalar(ScalarType::Int64)),
        Field::new("flag", scalar(ScalarType::Bool)),
        Field::new("double", scalar(ScalarType::Float64)),
        Field::new("single", scalar(ScalarType::Float32)),
        Field::new("tags", DataType::List(ScalarType::Int64)),
    ];
    let rows = repository
        .offline
        .read_entity_rows(&plan, &out)
        .await
        .unwrap();
    let inputs = rows.inputs().unwrap();
    for name in [
        "event_timestamp",
        "label",
        "flag",
        "double",
        "single",
        "tags",
    ] {
        let (read, was) = (inputs.column_by_name(name), written.column_by_name(name));
        assert_eq!(read.unwrap(), was.unwrap(), "{name}");
    }
    let ids = strings([A, Some("a,\"b\"\nc"), None]);
    assert_eq!(inputs.column_by_name("id").unwrap(), &ids);
}

#[tokio::test(flavor = "multi_thread")]
async fn csv_and_its_plan_appear_together_or_not_at_all() {
    let repository = repository();
    let out = repository.path("out/set.csv");
    let csv = |overwrite| Output {
        overwrite,
        ..Output::to(Target::Csv(out.clone()))
    };
    // Either of the two is in the way.
    for name in ["set.csv", "set.csv.plan.json"] {
        let there = repository.path("out").join(name);
        fs::write(&there, "former").unwrap();
        let error = build_rows(&repository, &many(5), csv(false))
            .await
            .unwrap_err();
        assert!(error.to_string().contains(name), "{error}");
        assert_eq!(names_in(repository.path("out")), [name]);
        fs::remove_file(there).unwrap();
    }
    let flat = many(5).project(&[0, 1, 2]).unwrap();
    build_rows(&repository, &flat, csv(false)).await.unwrap();
    let before = fs::read(&out).unwrap();
    let error = build_rows(&repository, &many(5), csv(true))
        .await
        .unwrap_err();
    let error = error.to_string();
    for part in ["`nested`", "CSV cannot hold", ".parquet"] {
        assert!(error.contains(part), "{error}");
    }
    assert_eq!(fs::read(&out).unwrap(), before);
    build_rows(&repository, &every_kind(), csv(true))
        .await
        .unwrap();
    assert_ne!(fs::read(&out).unwrap(), before);
    assert_eq!(
        names_in(repository.path("out")),
        ["set.csv", "set.csv.plan.json"]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_entity_table_gives_an_empty_result_of_any_form() {
    let repository = repository();
    let none = entities(&[]);
    let csv = repository.path("out/set.csv");
    build_rows(&repository, &none, Output::to(Target::Csv(csv.clone())))
        .await
        .unwrap();
    assert_eq!(
        fs::read_to_string(csv).unwrap(),
        "id,event_timestamp,v__v\n"
    );
    build_rows(&repository, &none, folder(&repository, 5, false))
        .await
        .unwrap();
    let set = read(&repository.path("out/set/part-00000.parquet"));
    assert_eq!((set.num_rows(), set.num_columns()), (0, 3));
}

fn range(start: i64, end: i64, of: Option<&str>) -> EntitySource {
    EntitySource::Range(EntityRange {
        start,
        end,
        of: of.map(str::to_owned),
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rows_of_a_view_in_a_range_are_entity_rows_in_the_order_of_time_and_keys() {
    for partitions in [1, 3] {
        let repository = Repository::with_settings(Settings {
            partitions: NonZero::new(partitions).unwrap(),
            ..Settings::default()
        });
        let table = history(&[
            (B, Some(20), Some(21), Some(6)),
            (A, Some(20), Some(20), Some(5)),
            (A, Some(9), None, Some(1)),
            (A, Some(20), Some(25), Some(7)),
            (None, Some(15), None, Some(3)),
            (A, None, None, Some(4)),
            (B, Some(10), None, Some(2)),
            (A, Some(31), None, Some(8)),
            (Some(""), Some(30), None, None),
        ]);
        repository.write_grouped("h/1.parquet", &table.slice(0, 5), 2);
        repository.write_grouped("h/2.parquet", &table.slice(5, 4), 1);
        let out = repository.path("set.parquet");
        let output = Output::to(Target::Parquet(out.clone()));
        let plan = plan_of(&view("h"));
        let summary = build(&repository, &plan, range(10, 30, None), output)
            .await
            .unwrap();
        assert_eq!(summary.rows, 4);
        let set = read(&out);
        assert_eq!(set.column(0), &strings([B, A, B, Some("")]));
        let at = [10, 20, 20, 30];
        assert_eq!(set.column(1), &times(at.map(Some)));
        assert_eq!(values(&set, "v__v"), [Some(2), Some(7), Some(6), None]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_range_is_of_one_view_under_the_keys_of_its_alias() {
    let repository = repository();
    let flights = view("h.parquet");
    let out = || Output {
        overwrite: true,
        ..Output::to(Target::Parquet(repository.path("out/set.parquet")))
    };
    let both = plan(&[("v", &flights, &["id"]), ("w", &flights, &["id"])]);
    let error = build(&repository, &both, range(0, 99, None), out())
        .await
        .unwrap_err();
    for part in ["--of", "`v`, `w`"] {
        assert!(error.to_string().contains(part), "{error}");
    }
    let error = build(&repository, &both, range(0, 99, Some("x")), out())
        .await
        .unwrap_err();
    for part in ["`x`", "`v`, `w`"] {
        assert!(error.to_string().contains(part), "{error}");
    }
    build(&repository, &both, range(0, 99, Some("w")), out())
        .await
        .unwrap();

    let alias = plan(&[("origin", &flights, &["origin_id"])]);
    build(&repository, &alias, range(0, 99, Some("origin")), out())
        .await
        .unwrap();
    let set = read(&repository.path("out/set.parquet"));
    assert_eq!(set.schema().field(0).name(), "origin_id");
    assert_eq!(set.column(0), &strings([A, B]));

    // What a view's rows do not have, none of them can be given.
    let mut other = flights.clone();
    other.keys = vec![key("place", ScalarType::String)];
    let mut more = plan(&[("v", &flights, &["id"]), ("o", &other, &["place"])]);
    more.request_fields = vec![Field::new("amount", DataType::Scalar(ScalarType::Float64))];
    let error = build(&repository, &more, range(0, 99, Some("v")), out())
        .await
        .unwrap_err();
    for part in ["view `v`", "`place`, `amount`", "entity rows"] {
        assert!(error.to_string().contains(part), "{error}");
    }
}
