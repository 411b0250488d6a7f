//! Small files become large ones: each row is seen once, before, between and after all steps.

use std::fs::{self, File};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use arrow::array::RecordBatch;
use datafusion::physical_plan::{ExecutionPlan, collect};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::basic::Compression;
use parquet::file::properties::WriterProperties;
use tokio::sync::Notify;
use unskew_core::view::Source;
use unskew_offline::{Compact, Compacted, Components, OfflineError, Progress, Settings};
use unskew_test_s3::S3Server;

use crate::repository::{Repository, batch, history, ints, strings, values, view};

const A: Option<&str> = Some("a");
const MIB: u64 = 1 << 20;

/// After every file of these tests was written.
const LATER: i64 = 253_000_000_000_000_000;

fn request(target_bytes: u64) -> Compact {
    Compact {
        target_bytes,
        now: LATER,
        grace: 0,
    }
}

async fn compact(repository: &Repository, source: &Source) -> Result<Compacted, OfflineError> {
    let request = request(MIB);
    let progress = Arc::new(());
    repository.offline.compact(source, &request, progress).await
}

/// The values of `v` that readers see, ascending.
async fn seen(repository: &Repository, source: &Source) -> Vec<i64> {
    let scan = repository.offline.scan(source, &["v"]).await.unwrap();
    assert_eq!(scan.rows() as usize, {
        let context = repository.offline.task_context();
        let plan = Arc::clone(&scan) as Arc<dyn ExecutionPlan>;
        let batches = collect(plan, context).await.unwrap();
        batches.iter().map(RecordBatch::num_rows).sum::<usize>()
    });
    let context = repository.offline.task_context();
    let batches = collect(scan as Arc<dyn ExecutionPlan>, context)
        .await
        .unwrap();
    let all = batches.iter().flat_map(|batch| values(batch, "v"));
    let mut all: Vec<i64> = all.map(Option::unwrap).collect();
    all.sort_unstable();
    all
}

/// Writes a file of one row.
fn row(repository: &Repository, file: &str, value: i64) -> PathBuf {
    repository.write(file, &history(&[(A, Some(value), Some(1), Some(value))]))
}

/// The Parquet files of a folder, whatever counts.
fn files(repository: &Repository, folder: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(repository.path(folder)).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = paths
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "parquet")
        })
        .collect();
    files.sort();
    files
}

#[tokio::test(flavor = "multi_thread")]
async fn each_row_is_seen_once_wherever_a_run_is_killed() {
    let repository = Repository::new();
    let source = view("d").source;
    // Equal rows are rows all the same.
    for (file, value) in [("a", 1), ("b", 2), ("c", 2)] {
        row(&repository, &format!("d/{file}.parquet"), value);
    }
    let all = [1, 2, 2];
    // Killed while it writes: a file that has no name yet.
    repository.write_text("d/.compacted-x.parquet.abc.tmp", "PAR1");
    assert_eq!(seen(&repository, &source).await, all);
    // Killed when the new file has its name: all others are still there.
    let done = compact(&repository, &source).await.unwrap();
    assert_eq!((done.files_before, done.files_after, done.kept), (3, 1, 3));
    assert_eq!((done.merged[0].rows, done.merged[0].files), (3, 3));
    assert_eq!(files(&repository, "d").len(), 4);
    assert_eq!(seen(&repository, &source).await, all);
    // Killed between the deletions, in whatever order these come.
    for gone in ["b", "a", "c"] {
        fs::remove_file(repository.path(&format!("d/{gone}.parquet"))).unwrap();
        assert_eq!(seen(&repository, &source).await, all, "without {gone}");
    }
    assert_eq!(files(&repository, "d").len(), 1);
    // What others have left is taken away by the next run.
    assert!(!repository.path("d/.compacted-x.parquet.abc.tmp").exists());
    let done = compact(&repository, &source).await.unwrap();
    assert_eq!((done.merged.len(), done.files_before), (0, 1));
}

/// A file that replaces others and is replaced itself: what it replaced must not count again.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_replaced_stays_so_when_its_successor_is_replaced() {
    let repository = Repository::new();
    let source = view("d").source;
    row(&repository, "d/a.parquet", 1);
    row(&repository, "d/b.parquet", 2);
    // The first run is killed before it deletes anything, and its files are young.
    let young = Compact {
        grace: i64::MAX,
        ..request(MIB)
    };
    let progress = || Arc::new(());
    let offline = &repository.offline;
    let first = offline.compact(&source, &young, progress()).await.unwrap();
    row(&repository, "d/c.parquet", 3);
    let second = offline.compact(&source, &young, progress()).await.unwrap();
    assert_eq!(
        (second.files_before, second.files_after, second.kept),
        (2, 1, 4)
    );
    assert_eq!(seen(&repository, &source).await, [1, 2, 3]);
    // The successor goes first.
    fs::remove_file(&first.merged[0].file).unwrap();
    assert_eq!(seen(&repository, &source).await, [1, 2, 3]);
    let removed = offline.remove_replaced(&source, LATER, &[]).await.unwrap();
    assert_eq!(removed.len(), 3);
    assert_eq!(seen(&repository, &source).await, [1, 2, 3]);
    assert_eq!(
        files(&repository, "d"),
        [PathBuf::from(&second.merged[0].file)]
    );
}

/// A file that takes the name of a replaced one is another.
#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_written_anew_counts() {
    let repository = Repository::new();
    let source = view("d").source;
    let file = row(&repository, "d/a.parquet", 1);
    row(&repository, "d/b.parquet", 2);
    compact(&repository, &source).await.unwrap();
    let before = fs::metadata(&file).unwrap();
    row(&repository, "d/a.parquet", 7);
    let after = File::options().write(true).open(&file).unwrap();
    // As large as before, and a second later.
    assert_eq!(after.metadata().unwrap().len(), before.len());
    let later = before.modified().unwrap() + std::time::Duration::from_secs(1);
    after.set_modified(later).unwrap();
    assert_eq!(seen(&repository, &source).await, [1, 2, 7]);
    // Nor is it deleted.
    let removed = repository
        .offline
        .remove_replaced(&source, LATER, &[])
        .await;
    assert_eq!(removed.unwrap().len(), 1);
    assert_eq!(seen(&repository, &source).await, [1, 2, 7]);
}

#[tokio::test(flavor = "multi_thread")]
async fn replaced_files_are_kept_for_who_reads_them() {
    let repository = Repository::new();
    let source = view("d").source;
    row(&repository, "d/a.parquet", 1);
    row(&repository, "d/b.parquet", 2);
    let scan = repository.offline.scan(&source, &["v"]).await.unwrap();
    compact(&repository, &source).await.unwrap();
    // Who has begun before goes on with what was there.
    let plan = scan as Arc<dyn ExecutionPlan>;
    let batches = collect(plan, repository.offline.task_context())
        .await
        .unwrap();
    assert_eq!(batches.iter().map(RecordBatch::num_rows).sum::<usize>(), 2);
    let young = Compact {
        grace: i64::MAX,
        ..request(MIB)
    };
    let offline = &repository.offline;
    let next = offline
        .compact(&source, &young, Arc::new(()))
        .await
        .unwrap();
    assert_eq!((next.kept, next.removed.len()), (2, 0));
    // Long enough after that they are deleted.
    let next = compact(&repository, &source).await.unwrap();
    assert_eq!((next.kept, next.removed.len()), (0, 2));
    assert_eq!(seen(&repository, &source).await, [1, 2]);
}

/// Whoever has waited long enough for the readers of what it replaced has not for those of another
/// run.
#[tokio::test(flavor = "multi_thread")]
async fn a_run_deletes_what_it_replaced_itself() {
    let repository = Repository::new();
    let source = view("d").source;
    let young = Compact {
        grace: i64::MAX,
        ..request(MIB)
    };
    let offline = &repository.offline;
    let run = || offline.compact(&source, &young, Arc::new(()));
    row(&repository, "d/a.parquet", 1);
    row(&repository, "d/b.parquet", 2);
    let first = run().await.unwrap();
    row(&repository, "d/c.parquet", 3);
    row(&repository, "d/d.parquet", 4);
    let second = run().await.unwrap();
    let removed = offline.remove_replaced(&source, 0, &first.merged).await;
    let removed: Vec<PathBuf> = removed.unwrap().into_iter().map(PathBuf::from).collect();
    assert_eq!(
        removed,
        ["a", "b"].map(|file| repository.path(&format!("d/{file}.parquet")))
    );
    assert_eq!(seen(&repository, &source).await, [1, 2, 3, 4]);
    // The file that the first has made is replaced by the second, too.
    let removed = offline.remove_replaced(&source, 0, &second.merged).await;
    assert_eq!(removed.unwrap().len(), 3);
    assert_eq!(seen(&repository, &source).await, [1, 2, 3, 4]);
    assert_eq!(files(&repository, "d").len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn files_are_merged_within_their_folder_and_schema() {
    let repository = Repository::new();
    let mut view = view("d");
    view.source.columns.clear();
    for day in ["1970-01-02", "1970-01-03"] {
        for file in ["a", "b"] {
            row(&repository, &format!("d/dt={day}/{file}.parquet"), 1);
        }
    }
    let other = batch(vec![("id", strings([A])), ("v", ints([Some(5)]))]);
    repository.write("d/dt=1970-01-03/c.parquet", &other);
    let done = compact(&repository, &view.source).await.unwrap();
    assert_eq!((done.files_before, done.files_after), (5, 3));
    assert_eq!(seen(&repository, &view.source).await, [1, 1, 1, 1, 5]);
    for merged in &done.merged {
        assert!(merged.file.contains("/dt=1970-01-0"), "{}", merged.file);
        // What folders say is in no file.
        let file = File::open(&merged.file).unwrap();
        let reader = ParquetRecordBatchReaderBuilder::try_new(file).unwrap();
        assert_eq!(reader.schema().fields().len(), 4);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn files_become_as_large_as_wanted_and_large_ones_stay() {
    let repository = Repository::new();
    let source = view("d").source;
    let plain = || {
        WriterProperties::builder()
            .set_compression(Compression::UNCOMPRESSED)
            .set_dictionary_enabled(false)
            .build()
    };
    let rows = |from: i64, count: i64| {
        let rows: Vec<_> = (from..from + count)
            .map(|v| (A, Some(v), Some(1), Some(v)))
            .collect();
        history(&rows)
    };
    // About 320 KB each; the last is of 1.6 MB.
    for file in 0..7 {
        let name = format!("d/{file}.parquet");
        repository.write_as(&name, &rows(file * 10_000, 10_000), plain());
    }
    repository.write_as("d/large.parquet", &rows(70_000, 50_000), plain());
    let done = compact(&repository, &source).await.unwrap();
    let merged: Vec<u64> = done.merged.iter().map(|merged| merged.files).collect();
    assert_eq!(merged, [4, 3]);
    assert_eq!(done.files_after, 3);
    let all: Vec<i64> = (0..120_000).collect();
    assert_eq!(seen(&repository, &source).await, all);
}

/// Bloom filters, and what all files say of themselves, are kept.
#[tokio::test(flavor = "multi_thread")]
async fn what_makes_files_fast_is_kept() {
    let repository = Repository::new();
    let entry = parquet::file::metadata::KeyValue::new("made by".to_owned(), "us".to_owned());
    let properties = WriterProperties::builder()
        .set_column_bloom_filter_enabled("id".into(), true)
        .set_key_value_metadata(Some(vec![entry.clone()]))
        .build();
    for file in ["a", "b"] {
        let rows = history(&[(A, Some(1), Some(1), Some(1))]);
        repository.write_as(&format!("d/{file}.parquet"), &rows, properties.clone());
    }
    let done = compact(&repository, &view("d").source).await.unwrap();
    let file = File::open(&done.merged[0].file).unwrap();
    let reader = ParquetRecordBatchReaderBuilder::try_new(file).unwrap();
    let metadata = reader.metadata();
    let column = |index: usize| metadata.row_group(0).column(index).bloom_filter_offset();
    assert!(column(0).is_some() && column(3).is_none());
    let entries = metadata.file_metadata().key_value_metadata().unwrap();
    assert!(entries.contains(&entry), "{entries:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_at_a_time_and_folders_alone() {
    let repository = Repository::new();
    let source = view("d").source;
    row(&repository, "d/a.parquet", 1);
    row(&repository, "d/b.parquet", 2);
    let mut lock = File::options();
    let lock = lock.create(true).append(true);
    let lock = lock
        .open(repository.path("d/.unskew-compact.lock"))
        .unwrap();
    lock.lock().unwrap();
    let error = compact(&repository, &source).await.unwrap_err().to_string();
    assert!(error.contains("being compacted already"), "{error}");
    assert!(error.contains("d/.unskew-compact.lock"), "{error}");
    drop(lock);
    compact(&repository, &source).await.unwrap();
    let error = compact(&repository, &view("d/*.parquet").source).await;
    let error = error.unwrap_err().to_string();
    assert!(error.contains("write `d` as its path"), "{error}");
}

/// Runs beside each other, and rows that come meanwhile: none is lost, none is there twice.
#[tokio::test(flavor = "multi_thread")]
async fn rows_may_come_while_files_are_merged() {
    let repository = Arc::new(Repository::new());
    let source = view("d").source;
    row(&repository, "d/0.parquet", 0);
    let writer = {
        let repository = Arc::clone(&repository);
        tokio::task::spawn_blocking(move || {
            for value in 1..60 {
                // By rename, as whoever appends does.
                let staged = row(&repository, &format!("staged/{value}.parquet"), value);
                fs::rename(staged, repository.path(&format!("d/{value}.parquet"))).unwrap();
            }
        })
    };
    let mut runs = 0;
    while !writer.is_finished() || runs < 5 {
        match compact(&repository, &source).await {
            Ok(_) => runs += 1,
            Err(error) => panic!("{error}"),
        }
        let all = seen(&repository, &source).await;
        assert!(
            all.iter()
                .enumerate()
                .all(|(at, &value)| at as i64 == value),
            "{all:?}"
        );
        if runs % 2 == 0 {
            repository
                .offline
                .remove_replaced(&source, LATER, &[])
                .await
                .unwrap();
        }
    }
    writer.await.unwrap();
    assert_eq!(
        seen(&repository, &source).await,
        (0..60).collect::<Vec<_>>()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_are_merged_too() {
    let server = S3Server::start();
    let repository = Repository::with_settings(Settings {
        object_store: server.environment().into_iter().collect(),
        ..Settings::default()
    });
    let put = |key: &str, value: i64| {
        let file = row(&repository, "local/x.parquet", value);
        server.put(key, &fs::read(file).unwrap());
    };
    put("d/dt=1/a b.parquet", 1);
    put("d/dt=1/b.parquet", 2);
    put("d/c.parquet", 3);
    let source = view(&server.url("d")).source;
    let done = compact(&repository, &source).await.unwrap();
    assert_eq!((done.files_before, done.files_after, done.kept), (3, 2, 2));
    assert!(
        done.merged[0]
            .file
            .starts_with("s3://history/d/dt=1/compacted-")
    );
    assert_eq!(seen(&repository, &source).await, [1, 2, 3]);
    let removed = repository
        .offline
        .remove_replaced(&source, LATER, &[])
        .await;
    assert_eq!(removed.unwrap().len(), 2);
    assert_eq!(seen(&repository, &source).await, [1, 2, 3]);
    // A lock that was not let go.
    server.put("d/_unskew-compact.lock", b"");
    let soon = Compact {
        now: 0,
        ..request(MIB)
    };
    let offline = &repository.offline;
    let error = offline.compact(&source, &soon, Arc::new(())).await;
    let error = error.unwrap_err().to_string();
    assert!(
        error.contains("s3://history/d/_unskew-compact.lock"),
        "{error}"
    );
    // After hours it counts as that of a run that was killed.
    put("d/d.parquet", 4);
    let done = compact(&repository, &source).await.unwrap();
    assert_eq!((done.files_before, done.files_after), (3, 2));
    assert_eq!(seen(&repository, &source).await, [1, 2, 3, 4]);
}

/// What is too large to be put at once is put in parts.
#[tokio::test(flavor = "multi_thread")]
async fn a_large_object_is_made_of_parts() {
    const ROWS: i64 = 400;
    let server = S3Server::start();
    let repository = Repository::with_settings(Settings {
        object_store: server.environment().into_iter().collect(),
        ..Settings::default()
    });
    let mut random = fastrand::Rng::with_seed(3);
    for file in 0..2 {
        // Of keys that no compression makes much smaller.
        let keys: Vec<String> = (0..ROWS)
            .map(|_| {
                std::iter::repeat_with(|| random.alphanumeric())
                    .take(32 << 10)
                    .collect()
            })
            .collect();
        let values = file * ROWS..(file + 1) * ROWS;
        let rows: Vec<_> = keys
            .iter()
            .zip(values)
            .map(|(key, value)| (Some(key.as_str()), Some(value), Some(1), Some(value)))
            .collect();
        let local = repository.write("local/x.parquet", &history(&rows));
        server.put(&format!("d/{file}.parquet"), &fs::read(local).unwrap());
    }
    let source = view(&server.url("d")).source;
    let large = request(64 * MIB);
    let offline = &repository.offline;
    let done = offline
        .compact(&source, &large, Arc::new(()))
        .await
        .unwrap();
    assert!(done.merged[0].bytes > 16 * MIB, "{done:?}");
    let all: Vec<i64> = (0..2 * ROWS).collect();
    assert_eq!(seen(&repository, &source).await, all);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_files_of_a_key_are_found() {
    let repository = Repository::new();
    let view = Arc::new(view("d"));
    let file = |name: &str, ids: &[&str]| {
        let rows: Vec<_> = ids
            .iter()
            .map(|id| (Some(*id), Some(1), Some(1), Some(1)))
            .collect();
        repository.write(&format!("d/{name}.parquet"), &history(&rows));
    };
    file("1", &["a", "b", "a"]);
    file("2", &["x", "y"]);
    file("3", &["a", "c"]);
    file("4", &["Z", "b"]);
    let (components, keys) = (Components::new(), [strings([A])]);
    let offline = &repository.offline;
    let found = offline.key_history(&view, &components, &keys, Arc::new(()));
    let found = found.await.unwrap();
    let files: Vec<(bool, u64)> = found
        .files
        .iter()
        .zip(["1.parquet", "3.parquet"])
        .map(|(file, name)| (file.file.ends_with(name), file.rows))
        .collect();
    assert_eq!(files, [(true, 2), (true, 1)]);
    // The second has no key of that range; the fourth has to be read.
    assert_eq!((found.files_read, found.files_in_all), (3, 4));
}

/// Counts how often work goes on, which begins when it is let.
struct Steps {
    begun: Notify,
    go_on: Mutex<mpsc::Receiver<()>>,
    count: AtomicUsize,
}

impl Progress for Steps {
    fn begin(&self, _stage: &str, _rows: u64) {
        self.begun.notify_one();
        let _ = self.go_on.lock().unwrap().recv();
    }

    fn advance(&self, _rows: u64) {
        self.count.fetch_add(1, Ordering::SeqCst);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_search_for_which_nobody_waits_ends() {
    let repository = Repository::new();
    let view = Arc::new(view("d"));
    for file in 0..20 {
        row(&repository, &format!("d/{file}.parquet"), 1);
    }
    let (components, keys) = (Components::new(), [strings([A])]);
    for stays in [true, false] {
        let (go_on, may_go_on) = mpsc::channel();
        let steps = Arc::new(Steps {
            begun: Notify::new(),
            go_on: Mutex::new(may_go_on),
            count: AtomicUsize::new(0),
        });
        let progress = Arc::clone(&steps) as Arc<dyn Progress>;
        let offline = &repository.offline;
        let mut search = Box::pin(offline.key_history(&view, &components, &keys, progress));
        tokio::select! {
            _ = &mut search => panic!("it did not wait"),
            () = steps.begun.notified() => {}
        }
        if stays {
            go_on.send(()).unwrap();
            search.await.unwrap();
            assert_eq!(steps.count.load(Ordering::SeqCst), 20);
        } else {
            drop(search);
            go_on.send(()).unwrap();
            // The work holds it until it ends.
            while Arc::strong_count(&steps) > 1 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            assert_eq!(steps.count.load(Ordering::SeqCst), 0);
        }
    }
}
