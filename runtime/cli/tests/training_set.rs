//! `unskew training-set` as a process: pipes, signals, what is in the way, a disk that is full.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod common;

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, TimestampMicrosecondArray};
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::{FileWriter, StreamWriter};
use common::Repository;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::Value;

const DEFINITIONS: &str = "
entities:
  - {name: thing, join_keys: [{name: id, type: int64}]}
sources:
  - {name: history, path: data, timestamp_field: event_timestamp}
feature_views:
  - {name: things, entities: [thing], source: history, features: [{name: value, type: float64}]}
feature_services:
  - {name: model, features: [things]}
";

const SET: [&str; 3] = ["training-set", "-s", "model"];

/// A repository with a hundred rows of history, one a second, of ten things.
fn repository() -> Repository {
    let repository = Repository::empty("project: test\n");
    repository.write("features/test.yaml", DEFINITIONS);
    fs::create_dir(repository.path("data")).unwrap();
    fs::create_dir(repository.path("out")).unwrap();
    let values = Float64Array::from_iter_values((0..100).map(f64::from));
    write_parquet(
        &repository.path("data/h.parquet"),
        &table(100, Some(("value", Arc::new(values)))),
    );
    repository.run(&["apply"]).done();
    repository
}

/// Rows of ten things, one a second.
fn table(rows: i64, more: Option<(&str, ArrayRef)>) -> RecordBatch {
    let at = TimestampMicrosecondArray::from_iter_values((0..rows).map(|row| row * 1_000_000));
    let mut columns: Vec<(&str, ArrayRef)> = vec![
        (
            "id",
            Arc::new(Int64Array::from_iter_values((0..rows).map(|row| row % 10))),
        ),
        ("event_timestamp", Arc::new(at.with_timezone("UTC"))),
    ];
    columns.extend(more);
    RecordBatch::try_from_iter(columns).unwrap()
}

fn write_parquet(path: &Path, batch: &RecordBatch) {
    let mut writer =
        ArrowWriter::try_new(File::create(path).unwrap(), batch.schema(), None).unwrap();
    writer.write(batch).unwrap();
    writer.close().unwrap();
}

fn read_parquet(path: &Path) -> RecordBatch {
    let reader = ParquetRecordBatchReaderBuilder::try_new(File::open(path).unwrap()).unwrap();
    let schema = Arc::clone(reader.schema());
    let batches: Vec<_> = reader.build().unwrap().map(Result::unwrap).collect();
    arrow::compute::concat_batches(&schema, &batches).unwrap()
}

fn stream(batches: &[RecordBatch]) -> Vec<u8> {
    let mut writer = StreamWriter::try_new(Vec::new(), batches[0].schema_ref()).unwrap();
    for batch in batches {
        writer.write(batch).unwrap();
    }
    writer.into_inner().unwrap()
}

fn names_in(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// Runs the command with `input` on its standard input: code, stdout, stderr.
fn piped(repository: &Repository, arguments: &[&str], input: &[u8]) -> (i32, Vec<u8>, String) {
    let mut command = repository.command(&[&SET[..], arguments].concat());
    let command = command.stdin(Stdio::piped());
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    // It may end before it has read all.
    let feed = std::thread::spawn(move || drop(stdin.write_all(&input)));
    let output = child.wait_with_output().unwrap();
    feed.join().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    (output.status.code().unwrap(), output.stdout, stderr)
}

#[test]
fn arrow_goes_in_and_out_through_pipes_and_nothing_else_does() {
    let repository = repository();
    let rows = table(20_000, None);
    let halves = [rows.slice(0, 5), rows.slice(5, 19_995)];
    let mut file = FileWriter::try_new(Vec::new(), rows.schema_ref()).unwrap();
    file.write(&rows).unwrap();
    for input in [stream(&halves), file.into_inner().unwrap()] {
        for json in [&[][..], &["--json"]] {
            let arguments = [&["--entities", "-", "--out", "-"], json].concat();
            let (code, stdout, stderr) = piped(&repository, &arguments, &input);
            assert_eq!(code, 0, "{stderr}");
            let reader = StreamReader::try_new(stdout.as_slice(), None).unwrap();
            let schema = reader.schema();
            assert!(schema.metadata().contains_key("unskew.plan_digest"));
            let batches: Vec<_> = reader.map(Result::unwrap).collect();
            let set = arrow::compute::concat_batches(&schema, &batches).unwrap();
            assert_eq!((set.num_rows(), set.num_columns()), (20_000, 3));
            assert_eq!(set.column(0), rows.column(0));
            if json.is_empty() {
                assert!(stderr.contains("20,000 rows"), "{stderr}");
                assert!(stderr.contains("written to standard output"), "{stderr}");
            } else {
                let report: Value = serde_json::from_str(&stderr).unwrap();
                assert_eq!(report["rows"], 20_000);
            }
        }
    }
}

#[test]
fn input_that_is_no_arrow_or_breaks_off_is_an_error_that_names_it() {
    let repository = repository();
    let whole = stream(&[table(10, None), table(10, None)]);
    let one = stream(&[table(10, None)]);
    // Without the mark at the end: as if the writer had died between two batches.
    let unmarked = &one[..one.len() - 8];
    let parquet = fs::read(repository.path("data/h.parquet")).unwrap();
    for (input, part) in [
        (&b""[..], "there is nothing in it"),
        (b"id,event_timestamp\n", "no Arrow IPC"),
        (&parquet, "this is Parquet"),
        (&whole[..whole.len() - 100], "standard input"),
        (unmarked, "breaks off without the end mark"),
    ] {
        let arguments = ["--entities", "-", "--out", "out/set.parquet"];
        let (code, _, stderr) = piped(&repository, &arguments, input);
        assert_eq!(code, 1, "{part}: {stderr}");
        for part in [part, "standard input"] {
            assert!(stderr.contains(part), "{part}: {stderr}");
        }
        assert!(names_in(&repository.path("out")).is_empty());
    }
}

#[test]
fn a_file_is_read_in_pieces_and_written_in_pieces() {
    let repository = repository();
    fs::create_dir(repository.path("rows")).unwrap();
    write_parquet(&repository.path("rows/1.parquet"), &table(10, None));
    write_parquet(&repository.path("rows/2.parquet"), &table(5, None));
    let out = [
        "--out",
        "out/set/",
        "--max-rows-per-file",
        "6",
        "--compression",
        "snappy",
    ];
    let rows = [
        "--entities",
        "rows",
        "--memory-limit",
        "64MiB",
        "--explain",
        "--json",
    ];
    let arguments = [&SET[..], &rows, &out].concat();
    let report = repository.run(&arguments).done().json();
    assert_eq!(
        (&report["rows"], &report["file"]),
        (&15.into(), &"out/set/".into())
    );
    let set = repository.path("out/set");
    assert_eq!(
        names_in(&set),
        [
            "part-00000.parquet",
            "part-00001.parquet",
            "part-00002.parquet"
        ]
    );
    assert_eq!(read_parquet(&set.join("part-00002.parquet")).num_rows(), 3);

    let ran = repository.run(&arguments);
    assert_eq!(ran.code, 1);
    assert!(ran.stderr.contains("--overwrite"), "{}", ran.stderr);
    repository
        .run(&[&arguments[..], &["--overwrite"]].concat())
        .done();
    assert_eq!(names_in(&repository.path("out")), ["set"]);
}

#[test]
fn a_range_of_time_stands_for_entity_rows() {
    let repository = repository();
    let range = [
        "--start",
        "1970-01-01T00:00:10Z",
        "--end",
        "1970-01-01T00:00:19Z",
    ];
    let out = ["--out", "out/set.csv"];
    repository.run(&[&SET[..], &range, &out].concat()).done();
    let set = repository.read("out/set.csv");
    let lines: Vec<&str> = set.lines().collect();
    assert_eq!(lines.len(), 11, "{set}");
    assert_eq!(
        lines[..2],
        ["id,event_timestamp,value", "0,1970-01-01T00:00:10Z,10.0"]
    );
    let plan: Value = serde_json::from_str(&repository.read("out/set.csv.plan.json")).unwrap();
    assert!(plan["unskew.plan_digest"].is_string());
}

#[test]
fn arguments_that_do_not_fit_together_are_wrong_usage() {
    let repository = repository();
    write_parquet(&repository.path("rows.parquet"), &table(5, None));
    let rows = ["--entities", "rows.parquet"];
    let range = [
        "--start",
        "2001-01-02",
        "--end",
        "2001-01-01",
        "--out",
        "out/s.csv",
    ];
    for (arguments, part) in [
        (&["--out", "out/s.csv"][..], "--entities"),
        (&["--start", "2001-01-01", "--out", "out/s.csv"], "--end"),
        (&range, "lies before START"),
        (&[&rows[..], &range[..]].concat(), "cannot be used with"),
        (
            &[&rows[..], &["--of", "things", "--out", "out/s.csv"]].concat(),
            "--of",
        ),
        (
            &[&rows[..], &["--out", "out/s.csv", "--compression", "zstd"]].concat(),
            "for Parquet alone",
        ),
        (
            &[
                &rows[..],
                &["--out", "out/s.parquet", "--compression", "zip"],
            ]
            .concat(),
            "snappy",
        ),
        (
            &[
                &rows[..],
                &["--out", "out/s.parquet", "--memory-limit", "lots"],
            ]
            .concat(),
            "2GiB, 512MB or 60%",
        ),
        (
            &[&rows[..], &["--out", "-", "--max-rows-per-file", "5"]].concat(),
            "needs a folder",
        ),
    ] {
        let ran = repository.run(&[&SET[..], arguments].concat());
        assert_eq!(ran.code, 2, "{arguments:?}: {}", ran.stderr);
        assert!(ran.stderr.contains(part), "{part}: {}", ran.stderr);
    }
    for (out, part) in [
        ("out/s.arrow", ".parquet or .csv"),
        ("out/s.feather", "standard output"),
    ] {
        let ran = repository.run(&[&SET[..], &rows, &["--out", out]].concat());
        assert_eq!(ran.code, 1);
        assert!(ran.stderr.contains(part), "{}", ran.stderr);
    }
    assert!(names_in(&repository.path("out")).is_empty());
}

#[test]
fn neither_entity_rows_nor_history_are_written_over() {
    let repository = repository();
    fs::create_dir(repository.path("rows")).unwrap();
    let rows = repository.path("rows/part-00000.parquet");
    write_parquet(&rows, &table(5, None));
    let history = repository.path("data/part-00000.parquet");
    fs::rename(repository.path("data/h.parquet"), &history).unwrap();
    let before = [fs::read(&rows).unwrap(), fs::read(&history).unwrap()];
    for entities in ["rows/part-00000.parquet", "rows", "rows/*.parquet"] {
        for (out, part) in [
            ("rows/part-00000.parquet", "entity rows"),
            ("rows/", "entity rows"),
            ("rows", "entity rows"),
            ("data/part-00000.parquet", "`history`"),
            ("data/", "`history`"),
        ] {
            let arguments = ["--entities", entities, "--out", out, "--overwrite"];
            let ran = repository.run(&[&SET[..], &arguments].concat());
            assert_eq!(ran.code, 1, "{entities} {out}");
            assert!(
                ran.stderr.contains(part),
                "{entities} {out}: {}",
                ran.stderr
            );
        }
    }
    assert_eq!(
        before,
        [fs::read(&rows).unwrap(), fs::read(&history).unwrap()]
    );
}

#[test]
fn a_truncated_history_or_truncated_entity_rows_leave_nothing() {
    let repository = repository();
    let rows = repository.path("rows.parquet");
    write_parquet(&rows, &table(5, None));
    for name in ["data/h.parquet", "rows.parquet"] {
        let path = repository.path(name);
        let whole = fs::read(&path).unwrap();
        fs::write(&path, &whole[..whole.len() - 30]).unwrap();
        let ran = repository.run(
            &[
                &SET[..],
                &["--entities", "rows.parquet", "--out", "out/set.parquet"],
            ]
            .concat(),
        );
        assert_eq!(ran.code, 1);
        assert!(ran.stderr.contains(name), "{}", ran.stderr);
        assert!(names_in(&repository.path("out")).is_empty());
        fs::write(&path, &whole).unwrap();
    }
}

/// More rows than are worked through in the time in which a signal comes.
#[cfg(unix)]
fn many_rows(repository: &Repository) {
    let noise =
        (0..3_000_000_u64).map(|row| (row.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 11) as f64);
    let noise = Float64Array::from_iter_values(noise);
    let rows = table(3_000_000, Some(("noise", Arc::new(noise))));
    write_parquet(&repository.path("rows.parquet"), &rows);
}

#[cfg(unix)]
fn send(signal: &str, child: &Child) {
    let pid = child.id().to_string();
    let sent = Command::new("kill").args([signal, &pid]).status().unwrap();
    assert!(sent.success());
}

/// Waits until a file in `folder` has bytes.
#[cfg(unix)]
fn wait_for_bytes(folder: &Path, child: &mut Child) {
    let has_bytes = |folder: &Path| {
        let files = walk(folder);
        files
            .iter()
            .any(|file| fs::metadata(file).is_ok_and(|file| file.len() > 100))
    };
    while !has_bytes(folder) {
        assert!(child.try_wait().unwrap().is_none(), "it has ended");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}

#[cfg(unix)]
fn walk(folder: &Path) -> Vec<std::path::PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else {
        return Vec::new();
    };
    let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
    paths
        .flat_map(|path| {
            if path.is_dir() {
                walk(&path)
            } else {
                vec![path]
            }
        })
        .collect()
}

#[cfg(unix)]
#[test]
fn a_signal_ends_the_work_and_leaves_what_was_there() {
    let repository = repository();
    many_rows(&repository);
    let temporary = tempfile::tempdir().unwrap();
    for (signal, code, out) in [
        ("-INT", 130, "out/set.parquet"),
        ("-TERM", 143, "out/set.parquet"),
        ("-INT", 130, "out/set/"),
        ("-INT", 130, "out/set.csv"),
    ] {
        let arguments = [
            "--entities",
            "rows.parquet",
            "--out",
            out,
            "--row-group-size",
            "1000",
        ];
        let arguments = match out.ends_with("csv") {
            true => &arguments[..4],
            false => &arguments[..],
        };
        let mut child = repository
            .command(&[&SET[..], arguments, &["--memory-limit", "16MiB"]].concat())
            .env("TMPDIR", temporary.path())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        wait_for_bytes(&repository.path("out"), &mut child);
        send(signal, &child);
        let output = child.wait_with_output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{stderr}");
        assert!(stderr.contains("error: "), "{stderr}");
        assert!(names_in(&repository.path("out")).is_empty(), "{out}");
        // Entity rows beyond the limit went into temporary files.
        assert!(names_in(temporary.path()).is_empty(), "{out}");
    }
}

#[cfg(unix)]
#[test]
fn a_signal_ends_the_wait_for_standard_input() {
    let repository = repository();
    let mut child = repository
        .command(&[&SET[..], &["--entities", "-", "--out", "out/set.parquet"]].concat())
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let start = stream(&[table(10, None)]);
    stdin.write_all(&start[..start.len() - 8]).unwrap();
    while names_in(&repository.path("out")).is_empty() {
        assert!(child.try_wait().unwrap().is_none(), "it has ended");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    send("-INT", &child);
    // Standard input is still open.
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert!(names_in(&repository.path("out")).is_empty());
    drop(stdin);
}

#[cfg(unix)]
#[test]
fn whoever_closes_standard_output_has_what_he_wants() {
    let repository = repository();
    many_rows(&repository);
    let mut child = repository
        .command(&[&SET[..], &["--entities", "rows.parquet", "--out", "-"]].concat())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdout = child.stdout.take().unwrap();
    stdout.read_exact(&mut [0; 1_000]).unwrap();
    drop(stdout);
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
}

#[cfg(target_os = "linux")]
#[test]
fn a_device_without_space_is_an_error() {
    let repository = repository();
    write_parquet(&repository.path("rows.parquet"), &table(5, None));
    let output = repository
        .command(&[&SET[..], &["--entities", "rows.parquet", "--out", "-"]].concat())
        .stdout(File::options().write(true).open("/dev/full").unwrap())
        .output()
        .unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    for part in ["standard output", "No space left"] {
        assert!(stderr.contains(part), "{stderr}");
    }
}

/// A file may not grow beyond so many KiB: what a full disk does, without one.
#[cfg(unix)]
#[test]
fn a_disk_that_fills_up_is_an_error_that_names_the_file_and_leaves_nothing() {
    let repository = repository();
    let noise = (0..200_000_u64).map(|row| (row.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 11) as f64);
    let noise = Float64Array::from_iter_values(noise);
    let rows = table(200_000, Some(("noise", Arc::new(noise))));
    write_parquet(&repository.path("rows.parquet"), &rows);
    let temporary = tempfile::tempdir().unwrap();
    for (out, name) in [
        ("out/set.parquet", "out/set.parquet"),
        ("out/set/", "out/set/part-00000.parquet"),
        ("out/set.csv", "out/set.csv"),
    ] {
        // The signal would end the process before it can say anything.
        let script = "trap '' XFSZ; ulimit -f 256; exec \"$0\" \"$@\"";
        let output = Command::new("sh")
            .args(["-c", script, env!("CARGO_BIN_EXE_unskew")])
            .args(SET)
            .args(["--entities", "rows.parquet", "--out", out])
            .current_dir(repository.path(""))
            .env("TMPDIR", temporary.path())
            .output()
            .unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{out}: {stderr}");
        for part in [name, "too large"] {
            assert!(stderr.contains(part), "{out}: {stderr}");
        }
        assert!(names_in(&repository.path("out")).is_empty(), "{out}");
        assert!(names_in(temporary.path()).is_empty(), "{out}");
    }
    // Temporary files for entity rows are on a disk, too.
    let script = "trap '' XFSZ; ulimit -f 256; exec \"$0\" \"$@\"";
    let output = Command::new("sh")
        .args(["-c", script, env!("CARGO_BIN_EXE_unskew")])
        .args(SET)
        .args([
            "--entities",
            "rows.parquet",
            "--out",
            "out/set.parquet",
            "--memory-limit",
            "1MiB",
        ])
        .current_dir(repository.path(""))
        .env("TMPDIR", temporary.path())
        .output()
        .unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    let place = temporary.path().to_str().unwrap();
    assert!(stderr.contains(place), "{stderr}");
    assert!(names_in(&repository.path("out")).is_empty());
    assert!(names_in(temporary.path()).is_empty());
}
