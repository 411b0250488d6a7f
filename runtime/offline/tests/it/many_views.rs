//! Many views at once, views of one source, rows that are equal in all but their features, and work
//! that nobody waits for any more.

use std::fs;
use std::num::NonZero;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use arrow::array::{ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::Int64Type;
use unskew_core::plan::Binding;
use unskew_core::row::encode;
use unskew_core::types::Field;
use unskew_core::view::View;
use unskew_offline::{Components, EntityRows, Progress, Settings};

use crate::oracle::oracle;
use crate::repository::{
    INT64, Repository, Row, batch, entities, evaluator, history, ints, plan, plan_of, strings,
    times, values, view,
};

const A: Option<&str> = Some("a");
const B: Option<&str> = Some("b");

#[tokio::test(flavor = "multi_thread")]
async fn twenty_views_over_twenty_sources_are_each_read_once() {
    let repository = Repository::new();
    let views: Vec<View> = (0..20_i64)
        .map(|number| {
            let rows: Vec<Row<'_>> = (0..=number)
                .flat_map(|row| {
                    let value = number * 100 + row;
                    [
                        (A, Some(row), None, Some(value)),
                        (B, Some(row), None, Some(-value)),
                    ]
                })
                .collect();
            repository.write(&format!("{number}.parquet"), &history(&rows));
            let mut view = view(&format!("{number}.parquet"));
            view.name = format!("v{number}");
            view.source.name = format!("s{number}");
            view
        })
        .collect();
    let lookups: Vec<(&str, &View, &[&str])> = views
        .iter()
        .map(|view| (view.name.as_str(), view, ["id"].as_slice()))
        .collect();
    let plan = plan(&lookups);
    let asked = entities(&[(B, 3), (A, 100), (Some("c"), 100), (A, -1)]);
    let metrics = repository.pruned(&plan, &asked).await;
    let names: Vec<_> = views.iter().map(|view| view.name.as_str()).collect();
    assert_eq!(metrics.views(), names);
    // 2 · (1 + 2 + … + 20)
    assert_eq!(metrics.get("rows_read"), 420);
    let (set, _) = repository.trained(&plan, &asked).await.unwrap();
    for number in 0..20 {
        let expected = [
            Some(-(number * 100 + number.min(3))),
            Some(number * 100 + number),
            None,
            None,
        ];
        assert_eq!(values(&set, &format!("v{number}__v")), expected);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn all_names_of_a_view_share_one_reading_of_its_source() {
    let keys: Vec<String> = (0..100).map(|key| format!("airport {key}")).collect();
    let rows: Vec<Row<'_>> = (0..9_000)
        .map(|row| {
            (
                Some(keys[row as usize % 100].as_str()),
                Some(row),
                None,
                Some(row),
            )
        })
        .collect();
    let repository = Repository::new();
    repository.write_grouped("h.parquet", &history(&rows), 1_000);
    let view = view("h.parquet");
    let names = ["origin", "destination", "via", "alternate", "home"];
    let lookups: Vec<(&str, &View, Vec<&str>)> = names
        .iter()
        .map(|&name| (name, &view, vec![name]))
        .collect();
    let lookups: Vec<_> = lookups
        .iter()
        .map(|(name, view, keys)| (*name, *view, keys.as_slice()))
        .collect();
    let plan = plan(&lookups);
    let mut columns = vec![("event_timestamp", times([Some(9_000), Some(150), Some(-1)]))];
    for (number, name) in names.iter().enumerate() {
        columns.push((name, strings([Some(keys[number].as_str()); 3])));
    }
    let asked = batch(columns);
    let metrics = repository.pruned(&plan, &asked).await;
    assert_eq!(metrics.views(), ["v"]);
    assert_eq!(metrics.get("rows_read"), 9_000);
    let (set, _) = repository.trained(&plan, &asked).await.unwrap();
    for (number, name) in (0..).zip(names) {
        let expected = [Some(8_900 + number), Some(100 + number), None];
        assert_eq!(values(&set, &format!("{name}__v")), expected);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_whose_keys_lie_elsewhere_is_not_left_out() {
    // What files are asked for is what any of the names asks for.
    let rows: Vec<Row<'_>> = (0..1_000)
        .map(|row| (if row < 500 { A } else { B }, Some(row), None, Some(row)))
        .collect();
    let repository = Repository::new();
    repository.write_grouped("h.parquet", &history(&rows), 100);
    let view = view("h.parquet");
    let plan = plan(&[("one", &view, &["one"]), ("other", &view, &["other"])]);
    let asked = batch(vec![
        ("one", strings([A, A])),
        ("other", strings([B, None])),
        ("event_timestamp", times([Some(2_000), Some(2_000)])),
    ]);
    repository.pruned(&plan, &asked).await;
    let (set, _) = repository.trained(&plan, &asked).await.unwrap();
    assert_eq!(values(&set, "one__v"), [Some(499); 2]);
    assert_eq!(values(&set, "other__v"), [Some(999), None]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_view_without_keys_has_one_row_for_everybody() {
    let rows: Vec<Row<'_>> = (0..1_000)
        .map(|row| (A, Some(row), None, Some(row)))
        .collect();
    let repository = Repository::new();
    repository.write_grouped("h.parquet", &history(&rows), 100);
    let mut view = view("h.parquet");
    view.keys.clear();
    view.ttl = Some(150);
    let asked = batch(vec![(
        "event_timestamp",
        times([Some(500), Some(350), Some(500), Some(599)]),
    )]);
    let plan = plan_of(&view);
    let metrics = repository.pruned(&plan, &asked).await;
    assert_eq!(metrics.get("row_groups_pruned"), 6);
    assert_eq!(metrics.get("winners"), 3);
    let (set, _) = repository.trained(&plan, &asked).await.unwrap();
    assert_eq!(
        values(&set, "v__v"),
        [Some(500), Some(350), Some(500), Some(599)]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_without_views_gives_the_entity_rows_back() {
    let repository = Repository::new();
    let mut plan = plan(&[]);
    plan.request_fields = vec![Field::new("amount", INT64)];
    for rows in [20_000_i64, 1, 0] {
        let amounts: Vec<_> = (0..rows).map(|row| (row % 3 > 0).then_some(row)).collect();
        let asked = batch(vec![
            ("amount", ints(amounts.iter().copied())),
            ("event_timestamp", times((0..rows).map(|_| Some(1)))),
        ]);
        let (set, metrics) = repository.trained(&plan, &asked).await.unwrap();
        assert!(metrics.views().is_empty());
        assert_eq!(set.columns(), asked.columns());
        let evaluated = repository.evaluated(&plan, &asked).await.unwrap();
        assert_eq!(evaluated.batch.num_rows() as i64, rows);
    }
    // They are asked for all the same.
    let asked = batch(vec![("event_timestamp", times([Some(1)]))]);
    let error = repository.trained(&plan, &asked).await.err().unwrap();
    assert!(error.to_string().contains("`amount`"), "{error}");
}

/// A view with a feature more, `w`.
fn two_features(path: &str) -> View {
    let mut view = view(path);
    view.features.push(Field::new("w", INT64));
    view
}

/// Rows of key `a` that are equal but for their features.
fn equals(features: &[(Option<i64>, Option<i64>)]) -> RecordBatch {
    let rows = features.len();
    batch(vec![
        ("id", strings((0..rows).map(|_| A))),
        ("at", times((0..rows).map(|_| Some(5)))),
        ("made", times((0..rows).map(|_| Some(7)))),
        ("v", ints(features.iter().map(|row| row.0))),
        ("w", ints(features.iter().map(|row| row.1))),
    ])
}

/// The features of the row that is the greatest when encoded.
fn greatest(features: &[(Option<i64>, Option<i64>)]) -> (Option<i64>, Option<i64>) {
    let columns: Vec<ArrayRef> = vec![
        ints(features.iter().map(|row| row.0)),
        ints(features.iter().map(|row| row.1)),
    ];
    let encoded = |row: usize| {
        let mut bytes = Vec::new();
        encode(&columns, row, 5, Some(7), &mut bytes);
        bytes
    };
    let row = (0..features.len()).max_by_key(|&row| encoded(row)).unwrap();
    features[row]
}

#[tokio::test(flavor = "multi_thread")]
async fn of_any_number_of_equal_rows_the_greatest_when_encoded_counts() {
    let many = |count: i64| -> Vec<_> {
        // In no order, with nulls among them.
        (0..count)
            .map(|row| {
                let mixed = row * 7_919 % 100_003;
                let value = (mixed % 11 > 0).then_some(mixed - 50_000);
                (value, (mixed % 13 > 0).then_some(row))
            })
            .collect()
    };
    // More than can be kept aside, too; in one file, one row group and in many.
    for (count, files, group) in [
        (2, 1, 1),
        (3_000, 3, 500),
        (150_000, 1, 1 << 20),
        (150_000, 5, 9_000),
    ] {
        let rows = many(count);
        let expected = greatest(&rows);
        let repository = Repository::new();
        for (file, rows) in rows.chunks(rows.len().div_ceil(files)).enumerate() {
            repository.write_grouped(&format!("d/{file}.parquet"), &equals(rows), group);
        }
        let plan = plan_of(&two_features("d"));
        let asked = entities(&[(A, 5), (A, 100), (A, 4), (B, 100)]);
        repository.pruned(&plan, &asked).await;
        let case = format!("{count} in {files} files");
        let found = repository.evaluated(&plan, &asked).await.unwrap().batch;
        assert_eq!(
            values(&found, "v__v"),
            [expected.0, expected.0, None, None],
            "{case}"
        );
        assert_eq!(
            values(&found, "v__w"),
            [expected.1, expected.1, None, None],
            "{case}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn features_that_a_plan_does_not_use_decide_between_equal_rows_too() {
    // By `w` alone it would be another row.
    let rows = [
        (Some(1), Some(90)),
        (Some(3), Some(10)),
        (Some(2), Some(99)),
        (None, Some(100)),
    ];
    assert_eq!(greatest(&rows), (Some(3), Some(10)));
    for split in [4, 2, 1] {
        let repository = Repository::new();
        for (file, rows) in rows.chunks(split).enumerate() {
            repository.write(&format!("d/{file}.parquet"), &equals(rows));
        }
        let mut plan = plan_of(&two_features("d"));
        plan.lookups[0].features = vec![1];
        plan.outputs.remove(0);
        plan.outputs[0].binding = Binding::Feature {
            lookup: 0,
            feature: 0,
        };
        let asked = entities(&[(A, 100)]);
        repository.pruned(&plan, &asked).await;
        let found = repository.evaluated(&plan, &asked).await.unwrap().batch;
        assert_eq!(values(&found, "v__w"), [Some(10)], "{split}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ties_at_many_instants_of_many_keys_are_those_of_the_oracle() {
    // Few events and few created timestamps, so that almost every row is equal to others.
    let keys = ["a", "b", "c"];
    let rows: Vec<Row<'_>> = (0..600_i64)
        .map(|row| {
            let mixed = row * 7_919 % 601;
            let made = (mixed % 4 > 0).then_some(mixed % 4);
            (
                Some(keys[(mixed % 3) as usize]),
                Some(mixed % 5),
                made,
                Some(mixed % 7),
            )
        })
        .collect();
    let history = history(&rows);
    let asked: Vec<_> = keys
        .iter()
        .flat_map(|&key| (-1..7).map(move |at| (Some(key), at)))
        .collect();
    let asked_times: Vec<_> = asked.iter().map(|row| row.1).collect();
    for mode in [
        unskew_core::time::Mode::Event,
        unskew_core::time::Mode::Known,
    ] {
        let mut view = view("h.parquet");
        view.source.point_in_time = mode;
        let repository = Repository::new();
        repository.write_grouped("h.parquet", &history, 70);
        let asked = entities(&asked);
        repository.pruned(&plan_of(&view), &asked).await;
        let found = repository.evaluated(&plan_of(&view), &asked).await.unwrap();
        let keys = [Arc::clone(asked.column_by_name("id").unwrap())];
        let (expected, statuses) = oracle(&view, &history, &keys, &asked_times);
        assert_eq!(
            found.batch.column(0).as_primitive::<Int64Type>(),
            expected[0].as_primitive::<Int64Type>()
        );
        assert_eq!(found.statuses, statuses);
    }
}

/// Tells when a stage begins, and counts the rows that are done from then on.
struct Reached {
    stage: &'static str,
    sender: tokio::sync::mpsc::UnboundedSender<()>,
    /// The stage goes on when nothing can come from here any more.
    gate: Mutex<Option<mpsc::Receiver<()>>>,
    is_there: AtomicBool,
    rows: AtomicU64,
}

impl Progress for Reached {
    fn begin(&self, stage: &str, _: u64) {
        if !stage.starts_with(self.stage) {
            return;
        }
        self.is_there.store(true, Ordering::SeqCst);
        let _ = self.sender.send(());
        if let Some(gate) = self.gate.lock().unwrap().take() {
            let _ = gate.recv();
        }
    }

    fn advance(&self, rows: u64) {
        if self.is_there.load(Ordering::SeqCst) {
            self.rows.fetch_add(rows, Ordering::SeqCst);
        }
    }
}

/// The temporary files that there are.
fn temporary(repository: &Repository) -> Vec<PathBuf> {
    let environment = repository.offline.task_context().runtime_env();
    let folders = environment.disk_manager.temp_dir_paths();
    let entries = folders
        .iter()
        .filter_map(|folder| fs::read_dir(folder).ok());
    entries
        .flatten()
        .map(|entry| entry.unwrap().path())
        .collect()
}

/// Waits until there are no temporary files.
async fn without_temporary_files(repository: &Repository) {
    while !temporary(repository).is_empty() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn work_that_is_dropped_while_it_reads_ends_and_leaves_no_temporary_files() {
    let keys: Vec<String> = (0..500).map(|key| format!("key {key}")).collect();
    let rows: Vec<Row<'_>> = (0..100_000)
        .map(|row| {
            (
                Some(keys[row as usize % 500].as_str()),
                Some(row),
                None,
                Some(row),
            )
        })
        .collect();
    let asked: Vec<_> = (0..20_000)
        .map(|row| (Some(keys[row as usize * 7 % 500].as_str()), row * 5))
        .collect();
    let plan = plan_of(&view("d"));
    // The rows that may still be read of 400,000, and of the 20,000 that count.
    for (stage, memory_limit, most_rows) in [
        ("reading the history", Some(1), None),
        ("reading the history", None, Some(200_000)),
        ("reading the features", None, Some(10_000)),
    ] {
        let repository = Repository::with_settings(Settings {
            partitions: NonZero::new(2).unwrap(),
            memory_limit,
            ..Settings::default()
        });
        for file in 0..4 {
            repository.write_grouped(&format!("d/{file}.parquet"), &history(&rows), 20_000);
        }
        let (sender, mut reached) = tokio::sync::mpsc::unbounded_channel();
        // Where temporary files are used, the stage begins on a thread that must not wait.
        let (hold, gate) = mpsc::channel();
        let progress = Arc::new(Reached {
            stage,
            sender,
            gate: Mutex::new(memory_limit.is_none().then_some(gate)),
            is_there: AtomicBool::new(false),
            rows: AtomicU64::new(0),
        });
        let entities = EntityRows::from_batch(&plan, &entities(&asked)).unwrap();
        let (evaluator, components) = (evaluator(&plan), Components::new());
        {
            let work = repository.offline.evaluated_rows(
                &evaluator,
                &components,
                &entities,
                &[],
                Arc::clone(&progress) as Arc<dyn Progress>,
            );
            tokio::pin!(work);
            tokio::select! {
                biased;
                _ = reached.recv() => {}
                done = &mut work => panic!("it was done before it was dropped: {}", done.is_ok()),
            }
            if memory_limit.is_some() {
                assert!(!temporary(&repository).is_empty());
            }
            // The work is dropped where it waits.
        }
        // Tasks that are aborted end when the runtime comes to them.
        tokio::time::sleep(Duration::from_millis(100)).await;
        drop(hold);
        // Whom it tells of progress, the work holds as long as it lasts.
        while Arc::strong_count(&progress) > 1 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        without_temporary_files(&repository).await;
        let rows = progress.rows.load(Ordering::SeqCst);
        assert!(most_rows.is_none_or(|most| rows < most), "{stage}: {rows}");
        // The same can be asked for again.
        let rows = repository
            .offline
            .evaluated_rows(&evaluator, &components, &entities, &[], Arc::new(()))
            .await
            .unwrap();
        assert_eq!(rows.batch.num_rows(), 20_000);
        without_temporary_files(&repository).await;
    }
}
