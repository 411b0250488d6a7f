//! Training sets as files: what is in them, and what is left when something fails.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow::array::{
    ArrayRef, AsArray, DictionaryArray, Float32Array, ListArray, RecordBatch, StructArray,
    TimestampNanosecondArray,
};
use arrow::datatypes::{DataType as ArrowType, Field as ArrowField, Int32Type};
use parquet::file::reader::{FileReader, SerializedFileReader};
use unskew_core::plan::FeaturePlan;
use unskew_engine::Status;
use unskew_offline::{
    COMPONENTS, Components, EntitySource, OfflineError, Output, PLAN, PLAN_DIGEST, Progress,
    Summary, Target, TrainingSetRequest,
};

use crate::repository::{
    Repository, batch, entities, evaluator, history, ints, plan_of, read, strings, times, values,
    view,
};

const A: Option<&str> = Some("a");
const B: Option<&str> = Some("b");

fn request(repository: &Repository, plan: &FeaturePlan, entities: &str) -> TrainingSetRequest {
    TrainingSetRequest {
        evaluator: evaluator(plan),
        components: Components::new(),
        entities: EntitySource::Files(repository.path(entities)),
        out: Output::to(Target::Parquet(repository.path("out/set.parquet"))),
        progress: Arc::new(()),
    }
}

/// A history, entity rows, and a folder for the training set.
fn repository(entities: &RecordBatch) -> Repository {
    let repository = Repository::new();
    repository.write(
        "h.parquet",
        &history(&[(A, Some(10), None, Some(1)), (B, Some(10), None, None)]),
    );
    repository.write("rows.parquet", entities);
    fs::create_dir(repository.path("out")).unwrap();
    repository
}

async fn build(repository: &Repository, plan: &FeaturePlan) -> Result<Summary, OfflineError> {
    let request = request(repository, plan, "rows.parquet");
    repository.offline.training_set(request).await
}

fn names_in(folder: PathBuf) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn extra_entity_columns_come_through_untouched_in_their_order() {
    let dictionary: DictionaryArray<Int32Type> = ["x", "y", "x", "y"].into_iter().collect();
    let nanos = TimestampNanosecondArray::from(vec![-1, 0, 1, i64::MAX]);
    let lists = ListArray::from_iter_primitive::<Int32Type, _, _>([
        Some(vec![Some(1), None]),
        None,
        Some(vec![]),
        Some(vec![Some(2)]),
    ]);
    let floats = Float32Array::from(vec![
        -0.0,
        f32::from_bits(0x7fc0_0123),
        f32::INFINITY,
        1e-45,
    ]);
    let inner: ArrayRef = ints([Some(1), None, Some(3), Some(4)]);
    let field = Arc::new(ArrowField::new("inner", ArrowType::Int64, true));
    let own: Vec<(&str, ArrayRef)> = vec![
        ("label", ints([None, Some(1), Some(2), Some(3)])),
        (
            "event_timestamp",
            times([Some(10), Some(9), Some(11), Some(10)]),
        ),
        ("kind", Arc::new(dictionary)),
        ("id", strings([A, A, B, None])),
        ("nanos", Arc::new(nanos.with_timezone("Europe/Berlin"))),
        ("lists", Arc::new(lists)),
        ("floats", Arc::new(floats)),
        ("nested", Arc::new(StructArray::from(vec![(field, inner)]))),
    ];
    let rows = batch(own.clone());
    let repository = repository(&rows);
    let summary = build(&repository, &plan_of(&view("h.parquet")))
        .await
        .unwrap();

    let set = read(&repository.path("out/set.parquet"));
    let names: Vec<_> = set
        .schema()
        .fields()
        .iter()
        .map(|f| f.name().clone())
        .collect();
    let mut expected: Vec<_> = own.iter().map(|(name, _)| (*name).to_owned()).collect();
    expected.push("v__v".to_owned());
    assert_eq!(names, expected);
    for (name, column) in &own {
        assert_eq!(set.column_by_name(name).unwrap(), column, "{name}");
    }
    let floats = set.column_by_name("floats").unwrap();
    let floats = floats.as_primitive::<arrow::datatypes::Float32Type>();
    assert_eq!(floats.value(1).to_bits(), 0x7fc0_0123);
    assert_eq!(values(&set, "v__v"), [Some(1), None, None, None]);

    assert_eq!(summary.rows, 4);
    let statuses: Vec<_> = summary.outputs[0].statuses.clone().into_iter().collect();
    let expected = [
        (Status::Present, 1),
        (Status::NullValue, 1),
        (Status::NotFound, 2),
    ];
    assert_eq!(statuses, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_file_says_by_which_plan_it_was_made() {
    let repository = repository(&entities(&[(A, 10)]));
    let plan = plan_of(&view("h.parquet"));
    let summary = build(&repository, &plan).await.unwrap();
    assert_eq!(summary.plan, plan.digest());

    let file = fs::File::open(repository.path("out/set.parquet")).unwrap();
    let reader = SerializedFileReader::new(file).unwrap();
    let metadata = reader
        .metadata()
        .file_metadata()
        .key_value_metadata()
        .unwrap();
    let value = |key: &str| {
        let entry = metadata.iter().find(|entry| entry.key == key).unwrap();
        entry.value.clone().unwrap()
    };
    assert_eq!(value(PLAN_DIGEST), plan.digest().to_string());
    assert_eq!(value(COMPONENTS), "[]");
    let read: FeaturePlan = serde_json::from_str(&value(PLAN)).unwrap();
    assert_eq!(read, plan);
    assert_eq!(read.digest(), plan.digest());
    let column = reader.metadata().row_group(0).column(0);
    assert!(matches!(
        column.compression(),
        parquet::basic::Compression::ZSTD(_)
    ));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_entity_table_gives_an_empty_training_set_with_the_right_schema() {
    let repository = repository(&entities(&[]));
    let summary = build(&repository, &plan_of(&view("h.parquet")))
        .await
        .unwrap();
    assert_eq!(summary.rows, 0);
    let set = read(&repository.path("out/set.parquet"));
    assert_eq!(set.num_rows(), 0);
    let schema = set.schema();
    let fields = schema.fields().iter();
    let fields: Vec<_> = fields
        .map(|f| (f.name().as_str(), f.data_type().clone()))
        .collect();
    let timestamp = unskew_core::types::ScalarType::Timestamp.arrow();
    let expected = [
        ("id", ArrowType::Utf8),
        ("event_timestamp", timestamp),
        ("v__v", ArrowType::Int64),
    ];
    assert_eq!(fields, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn row_i_is_entity_row_i_over_many_chunks() {
    let asked: Vec<_> = (0..30_000)
        .map(|row| (if row % 3 == 0 { A } else { B }, row % 20))
        .collect();
    let rows = entities(&asked);
    let labels = ints((0..30_000).map(Some));
    let rows = batch(vec![
        ("id", Arc::clone(rows.column(0))),
        ("event_timestamp", Arc::clone(rows.column(1))),
        ("label", labels),
    ]);
    let repository = repository(&rows);
    build(&repository, &plan_of(&view("h.parquet")))
        .await
        .unwrap();
    let set = read(&repository.path("out/set.parquet"));
    assert_eq!(set.num_rows(), 30_000);
    for (index, name) in ["id", "event_timestamp", "label"].iter().enumerate() {
        assert_eq!(set.column_by_name(name).unwrap(), rows.column(index));
    }
    let expected: Vec<_> = asked
        .iter()
        .map(|&(id, at)| (id == A && at >= 10).then_some(1))
        .collect();
    assert_eq!(values(&set, "v__v"), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn entity_rows_from_csv_give_typed_columns() {
    let repository = repository(&entities(&[]));
    repository.write_text(
        "rows.csv",
        "id,event_timestamp,label\na,1970-01-01T00:00:01Z,yes\n,1970-01-02,no\n",
    );
    let request = request(&repository, &plan_of(&view("h.parquet")), "rows.csv");
    repository.offline.training_set(request).await.unwrap();
    let set = read(&repository.path("out/set.parquet"));
    assert_eq!(set.column(0).as_ref(), strings([A, None]).as_ref());
    assert_eq!(
        set.column(1).as_ref(),
        times([Some(1_000_000), Some(86_400_000_000)]).as_ref()
    );
    assert_eq!(
        set.column(2).as_ref(),
        strings([Some("yes"), Some("no")]).as_ref()
    );
    assert_eq!(values(&set, "v__v"), [Some(1), None]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_leaves_nothing_behind_and_what_was_there_as_it_was() {
    let repository = repository(&entities(&[(A, 10)]));
    let out = repository.path("out/set.parquet");
    fs::write(&out, b"an older one").unwrap();
    for path in ["missing.parquet", "bad.parquet"] {
        let bad = batch(vec![
            ("id", strings([A])),
            ("at", times([Some(1)])),
            ("made", times([None])),
            ("v", strings([Some("no number")])),
        ]);
        repository.write("bad.parquet", &bad);
        let mut request = request(&repository, &plan_of(&view(path)), "rows.parquet");
        request.out.overwrite = true;
        repository.offline.training_set(request).await.unwrap_err();
        assert_eq!(names_in(repository.path("out")), ["set.parquet"]);
        assert_eq!(fs::read(&out).unwrap(), b"an older one");
    }
    let error = build(&repository, &plan_of(&view("h.parquet"))).await;
    let error = error.unwrap_err();
    assert!(matches!(error, OfflineError::Exists { .. }), "{error}");
    assert!(error.to_string().contains("--overwrite"), "{error}");
    assert_eq!(fs::read(&out).unwrap(), b"an older one");

    let mut request = request(&repository, &plan_of(&view("h.parquet")), "rows.parquet");
    request.out.overwrite = true;
    repository.offline.training_set(request).await.unwrap();
    assert_eq!(names_in(repository.path("out")), ["set.parquet"]);
    assert_eq!(read(&out).num_rows(), 1);
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let plain = repository.write_text("plain", "");
        let mode = |path: &PathBuf| fs::metadata(path).unwrap().permissions().mode();
        assert_eq!(mode(&out), mode(&plain));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_place_that_cannot_be_written_is_an_error_before_any_work() {
    let repository = repository(&entities(&[(A, 10)]));
    fs::create_dir(repository.path("out/folder")).unwrap();
    for (out, part) in [
        ("none/set.parquet", "none"),
        ("out/folder", "folder of that name"),
    ] {
        let mut request = request(&repository, &plan_of(&view("missing")), "rows.parquet");
        request.out = Output::to(Target::Parquet(repository.path(out)));
        let error = repository.offline.training_set(request).await.unwrap_err();
        assert!(matches!(error, OfflineError::Io { .. }), "{error}");
        assert!(error.to_string().contains(part), "{error}");
    }
    assert_eq!(names_in(repository.path("out")), ["folder"]);
}

/// Tells when the work has come to a stage.
struct Reached {
    stage: &'static str,
    sender: tokio::sync::mpsc::UnboundedSender<()>,
    rows: AtomicU64,
}

impl Progress for Reached {
    fn begin(&self, stage: &str, _: u64) {
        if stage.starts_with(self.stage) {
            let _ = self.sender.send(());
        }
    }

    fn advance(&self, rows: u64) {
        self.rows.fetch_add(rows, Ordering::Relaxed);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn dropping_the_work_halfway_leaves_nothing_behind() {
    for stage in ["reading the history of `v`", "computing features"] {
        let asked: Vec<_> = (0..100_000).map(|row| (A, row)).collect();
        let repository = repository(&entities(&asked));
        let (sender, mut reached) = tokio::sync::mpsc::unbounded_channel();
        let mut request = request(&repository, &plan_of(&view("h.parquet")), "rows.parquet");
        request.progress = Arc::new(Reached {
            stage,
            sender,
            rows: AtomicU64::new(0),
        });
        let work = repository.offline.training_set(request);
        tokio::select! {
            // As soon as the stage is reached, the work is dropped where it waits.
            biased;
            _ = reached.recv() => {}
            _ = work => {}
        }
        let left = names_in(repository.path("out"));
        assert!(
            left.is_empty() || left == ["set.parquet"],
            "{stage}: {left:?}"
        );
        if left.is_empty() {
            assert!(!repository.path("out/set.parquet").exists());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn progress_hears_of_every_row() {
    let asked: Vec<_> = (0..10_000).map(|row| (A, row)).collect();
    let repository = repository(&entities(&asked));
    let (sender, mut reached) = tokio::sync::mpsc::unbounded_channel();
    let progress = Arc::new(Reached {
        stage: "",
        sender,
        rows: AtomicU64::new(0),
    });
    let mut request = request(&repository, &plan_of(&view("h.parquet")), "rows.parquet");
    request.progress = Arc::clone(&progress) as Arc<dyn Progress>;
    repository.offline.training_set(request).await.unwrap();
    // The entity rows when they are read, two rows of history, which may be looked at twice, and the
    // entity rows once more.
    let rows = progress.rows.load(Ordering::Relaxed);
    assert!((20_002..=20_004).contains(&rows), "{rows}");
    for _ in 0..3 {
        assert!(reached.try_recv().is_ok());
    }
}
