//! What only the embedded store does: many processes at once, and processes that are killed.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "tests"
)]

mod common;

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use common::{one_row, row, rows, view};
use unskew_online::{OnlineError, OnlineSettings, OnlineStore, ViewState, connect};

/// In a child process: the folder of the store. In the test itself it is not set.
const FOLDER: &str = "UNSKEW_TEST_ONLINE_FOLDER";
/// In a child process: what it writes.
const WRITER: &str = "UNSKEW_TEST_ONLINE_WRITER";
/// How many entities each writer writes in a round.
const ENTITIES: u32 = 500;

fn open(folder: &Path) -> Arc<dyn OnlineStore> {
    connect(&OnlineSettings::Embedded {
        path: folder.to_owned(),
    })
    .unwrap()
}

/// A value of round `round`: each is greater than those of earlier rounds, and knows what it is.
fn value(round: u32, writer: u8, entity: u32) -> Vec<u8> {
    let mut value = round.to_be_bytes().to_vec();
    value.push(writer);
    value.extend(entity.to_be_bytes());
    // Some rows have pages of their own.
    value.extend(std::iter::repeat_n(writer, (entity as usize * 37) % 9000));
    value
}

/// Not a test of its own: what the child processes of the tests below do. Writes round after round
/// and says which rounds are done, until its input ends or it is killed.
#[test]
fn child() {
    let Some(folder) = std::env::var_os(FOLDER) else {
        return;
    };
    let writer: u8 = std::env::var(WRITER).unwrap().parse().unwrap();
    let store = open(Path::new(&folder));
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut go_on = std::io::stdin().lines();
    for round in 1_u32.. {
        let all = (0..ENTITIES).map(|i| row(&i.to_be_bytes(), &value(round, writer, i)));
        runtime
            .block_on(store.put(&view("v"), all.collect()))
            .unwrap();
        let mut output = std::io::stdout();
        writeln!(output, "round {round}").unwrap();
        output.flush().unwrap();
        if go_on.next().is_none() {
            return;
        }
    }
}

struct Writer {
    child: Child,
    output: BufReader<std::process::ChildStdout>,
}

impl Writer {
    fn start(folder: &Path, writer: u8) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["child", "--exact", "--nocapture"])
            .env(FOLDER, folder)
            .env(WRITER, writer.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        Self { child, output }
    }

    /// Waits until it has written a round, and says which.
    fn round(&mut self) -> u32 {
        loop {
            let mut line = String::new();
            assert_ne!(self.output.read_line(&mut line).unwrap(), 0, "it ended");
            if let Some(round) = line.trim().rsplit_once("round ") {
                return round.1.parse().unwrap();
            }
        }
    }

    /// Lets it write `rounds` more.
    fn go_on(&mut self, rounds: u32) {
        let input = self.child.stdin.as_mut().unwrap();
        for _ in 0..rounds {
            input.write_all(b"\n").unwrap();
        }
        input.flush().unwrap();
    }

    /// SIGKILL, wherever it is.
    fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    fn end(mut self) {
        drop(self.child.stdin.take());
        while self.output.read_line(&mut String::new()).unwrap() != 0 {}
        assert!(self.child.wait().unwrap().success());
    }
}

/// Not a test of its own: writes rows of a MiB until that fails, and says how.
#[test]
fn child_that_fills() {
    let Some(folder) = std::env::var_os(FOLDER) else {
        return;
    };
    let store = open(Path::new(&folder));
    let runtime = tokio::runtime::Runtime::new().unwrap();
    for entity in 0..16 {
        let rows = vec![row(&[entity], &[entity; 1 << 20])];
        if let Err(error) = runtime.block_on(store.put(&view("v"), rows)) {
            println!("failed {entity} {error:?}");
            return;
        }
    }
    println!("all were written");
}

/// What `child_that_fills` says under the limits that a line of shell sets.
fn filled(folder: &Path, limits: &str) -> String {
    let output = Command::new("sh")
        .args(["-c", &format!("{limits}; exec \"$0\" \"$@\"")])
        .arg(std::env::current_exe().unwrap())
        .args(["child_that_fills", "--exact", "--nocapture"])
        .env(FOLDER, folder)
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test]
async fn a_full_disk_is_said_to_be_one_and_does_no_damage() {
    let folder = tempfile::tempdir().unwrap();
    // Files of at most 8 MiB stand for a disk that is full then.
    let said = filled(folder.path(), "trap '' XFSZ; ulimit -f 16384");
    let (_, failed) = said.split_once("failed ").expect(&said);
    let (entity, error) = failed.split_once(' ').unwrap();
    assert!(error.starts_with("Full"), "{error}");
    let entity: u8 = entity.parse().unwrap();
    assert!(entity > 0);
    let store = open(folder.path());
    for written in 0..entity {
        let held = one_row(&*store, &view("v"), &[written]).await.unwrap();
        assert_eq!(held, vec![written; 1 << 20]);
    }
    assert_eq!(one_row(&*store, &view("v"), &[entity]).await, None);
    // With room again, it goes on.
    drop(store);
    assert!(filled(folder.path(), "true").contains("all were written"));
}

#[test]
fn limited_address_space_is_enough() {
    let folder = tempfile::tempdir().unwrap();
    let said = filled(folder.path(), "ulimit -v 4000000");
    assert!(said.contains("all were written"), "{said}");
}

/// Every row is one that was written, for its own key, and of round `least` or later.
async fn check(store: &dyn OnlineStore, least: u32) {
    for entity in 0..ENTITIES {
        let row = one_row(store, &view("v"), &entity.to_be_bytes())
            .await
            .unwrap();
        let round = u32::from_be_bytes(row[..4].try_into().unwrap());
        assert!(round >= least, "entity {entity}: round {round} of {least}");
        assert_eq!(row, value(round, row[4], entity));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn processes_write_and_read_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let mut writers = [1, 2].map(|writer| Writer::start(folder.path(), writer));
    for writer in &mut writers {
        writer.go_on(5);
    }
    for round in 1..=5 {
        let own = (0..ENTITIES).map(|i| row(&i.to_be_bytes(), &value(round, 0, i)));
        store.put(&view("v"), own.collect()).await.unwrap();
        check(&*store, round).await;
    }
    for writer in &mut writers {
        while writer.round() < 6 {}
    }
    check(&*store, 6).await;
    for writer in writers {
        writer.end();
    }
    // The greater writer of the last round wins.
    let last = one_row(&*store, &view("v"), &[0; 4]).await.unwrap();
    assert_eq!(last, value(6, 2, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_writer_leaves_no_damage() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let mut least = 0;
    for attempt in 0..6_u8 {
        let mut writer = Writer::start(folder.path(), attempt);
        writer.go_on(1000);
        // At least as far as before; then somewhere in the middle of the next rounds.
        loop {
            let round = writer.round();
            if round > least + u32::from(attempt) {
                least = round;
                break;
            }
        }
        writer.kill();
        // Who had the store open before goes on, and can write.
        check(&*store, least).await;
        store
            .put(&view("v"), vec![row(&[0; 4], &value(least, attempt, 0))])
            .await
            .unwrap();
    }
    drop(store);
    check(&*open(folder.path()), least).await;
}

#[tokio::test]
async fn a_store_is_opened_once_in_a_process_by_whatever_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("deep/er/online");
    let one = open(&path);
    let two = open(&path.join("../online"));
    one.put(&view("v"), vec![row(b"k", b"row")]).await.unwrap();
    assert_eq!(one_row(&*two, &view("v"), b"k").await.unwrap(), b"row");
    drop((one, two));
    assert_eq!(
        one_row(&*open(&path), &view("v"), b"k").await.unwrap(),
        b"row"
    );
}

#[test]
fn threads_may_open_and_close_it_at_once() {
    let folder = tempfile::tempdir().unwrap();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..50 {
                    drop(open(folder.path()));
                }
            });
        }
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn more_readers_than_lmdb_has_by_default() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    store
        .put(&view("v"), vec![row(b"k", b"row")])
        .await
        .unwrap();
    let reads: Vec<_> = (0..1000)
        .map(|_| {
            let store = Arc::clone(&store);
            tokio::spawn(async move { one_row(&*store, &view("v"), b"k").await })
        })
        .collect();
    for read in reads {
        assert_eq!(read.await.unwrap().unwrap(), b"row");
    }
}

#[tokio::test]
async fn a_folder_that_was_deleted_or_replaced_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("online");
    let store = open(&path);
    store
        .put(&view("v"), vec![row(b"k", b"row")])
        .await
        .unwrap();
    std::fs::remove_dir_all(&path).unwrap();
    assert!(store.ping().await.unwrap_err().is_unavailable());
    assert!(
        store
            .put(&view("v"), vec![row(b"k", b"row")])
            .await
            .is_err()
    );
    std::fs::create_dir(&path).unwrap();
    std::fs::write(path.join("data.mdb"), b"").unwrap();
    assert!(store.state(&view("v")).await.unwrap_err().is_unavailable());
    drop(store);
    let store = open(&path);
    assert_eq!(one_row(&*store, &view("v"), b"k").await, None);
}

#[test]
fn what_is_no_store_is_refused_with_its_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("online");
    std::fs::create_dir(&path).unwrap();
    std::fs::write(path.join("data.mdb"), vec![7; 100_000]).unwrap();
    let refused = |path: &Path| {
        connect(&OnlineSettings::Embedded {
            path: path.to_owned(),
        })
        .unwrap_err()
    };
    let error = refused(&path);
    assert!(matches!(error, OnlineError::Refused { .. }), "{error}");
    assert!(error.to_string().contains("online"), "{error}");
    // A file where the folder should be.
    let error = refused(&path.join("data.mdb"));
    assert!(error.to_string().contains("data.mdb"), "{error}");
}

#[tokio::test]
async fn a_write_is_done_even_if_nobody_waits_for_it() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path());
    let state = ViewState {
        watermark: Some(1),
        pending: vec![],
        ..ViewState::default()
    };
    // Polled once and dropped: the writer's turn must not be lost.
    let v = view("v");
    let mut write = store.put(&v, vec![row(b"k", b"row")]);
    let _ = futures::poll!(&mut write);
    drop(write);
    assert!(store.update_state(&v, None, &state).await.unwrap());
    assert_eq!(rows(&*store, &v, &[b"k"]).await, [Some(b"row".to_vec())]);
}
