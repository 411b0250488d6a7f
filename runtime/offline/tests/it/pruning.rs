//! What need not be read is left out, and the result is that of a run over everything.

use std::fs::{self, File};
use std::path::Path;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, BinaryArray, DictionaryArray, FixedSizeBinaryArray, Int8Array, Int32Array,
    LargeStringArray, RecordBatch, StringArray, StringViewArray, UInt32Array,
};
use arrow::datatypes::Int32Type;
use parquet::file::metadata::{ParquetMetaDataReader, ParquetMetaDataWriter};
use parquet::file::properties::{EnabledStatistics, WriterProperties, WriterPropertiesBuilder};
use parquet::file::statistics::Statistics;
use unskew_core::time::{self, DAY, Mode};
use unskew_core::types::{DataType, Field, ScalarType};
use unskew_core::view::{JoinKey, Partition, View};
use unskew_offline::{OfflineError, Settings, SourceProblem};

use crate::repository::{
    Repository, Row, batch, entities, history, ints, key, plan_of, strings, times, values, view,
};

const A: Option<&str> = Some("a");

/// 10,000 rows of ten keys in the order of time, one for each microsecond; a key of its own, `edge`,
/// has the row at 3,999. Keys are everywhere, so those that are asked for exclude nothing.
fn by_time() -> RecordBatch {
    let keys: Vec<String> = (0..10).map(|key| format!("k{key}")).collect();
    let rows: Vec<Row<'_>> = (0..10_000)
        .map(|row| {
            let key = match row {
                3_999 => "edge",
                row => keys[(row % 10) as usize].as_str(),
            };
            (Some(key), Some(row), None, Some(row))
        })
        .collect();
    history(&rows)
}

/// All keys of [`by_time`] at each of the instants.
fn all_keys(instants: &[i64]) -> RecordBatch {
    let keys: Vec<String> = (0..10).map(|key| format!("k{key}")).collect();
    let keys = keys.iter().map(String::as_str).chain(["edge", "none"]);
    let rows: Vec<_> = keys
        .flat_map(|key| instants.iter().map(move |&at| (Some(key), at)))
        .collect();
    entities(&rows)
}

fn groups_of(rows: usize) -> WriterPropertiesBuilder {
    WriterProperties::builder().set_max_row_group_row_count(Some(rows))
}

/// Row groups of which each page has so many rows.
fn pages_of(rows: usize) -> WriterPropertiesBuilder {
    WriterProperties::builder()
        .set_data_page_row_count_limit(rows)
        .set_write_batch_size(rows)
}

#[tokio::test(flavor = "multi_thread")]
async fn row_groups_outside_of_the_time_that_counts_are_not_read() {
    // In memory, and by way of temporary files.
    for memory_limit in [None, Some(1)] {
        let settings = Settings {
            memory_limit,
            ..Settings::default()
        };
        let repository = Repository::with_settings(settings);
        repository.write_grouped("h.parquet", &by_time(), 1_000);
        let mut view = view("h.parquet");
        // The ttl, the first and the last instant, and how many of ten row groups are left out.
        for (ttl, first, last, pruned) in [
            (Some(501), 4_500, 5_999, 7),
            (Some(500), 4_500, 5_999, 8),
            (Some(500), 4_500, 6_000, 7),
            (Some(1), 100_000, 100_000, 10),
            (Some(i64::MAX), 4_500, 5_999, 4),
            // Without a ttl nothing is too old.
            (None, 4_500, 5_999, 4),
            (None, 100_000, 100_000, 0),
            (None, -2, -1, 10),
        ] {
            view.ttl = ttl;
            let plan = plan_of(&view);
            let asked = all_keys(&[last, first]);
            let metrics = repository.pruned(&plan, &asked).await;
            let case = format!("{memory_limit:?} {ttl:?} {first} {last}");
            assert_eq!(metrics.get("row_groups_pruned"), pruned, "{case}");
            assert_eq!(metrics.get("rows_pruned"), pruned * 1_000, "{case}");
            assert_eq!(metrics.get("rows_read"), (10 - pruned) * 1_000, "{case}");
        }
        // The bound is inclusive: the row at it counts.
        for (ttl, expected) in [(501, Some(3_999)), (500, None)] {
            view.ttl = Some(ttl);
            let asked = all_keys(&[4_500]);
            let rows = repository.evaluated(&plan_of(&view), &asked).await.unwrap();
            assert_eq!(values(&rows.batch, "v__v")[10], expected);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_outside_of_the_time_that_counts_are_not_read() {
    for has_index in [true, false] {
        let repository = Repository::new();
        let mut properties = pages_of(500);
        if !has_index {
            properties = properties
                .set_offset_index_disabled(true)
                .set_statistics_enabled(EnabledStatistics::Chunk);
        }
        repository.write_as("h.parquet", &by_time(), properties.build());
        let mut view = view("h.parquet");
        for (ttl, first, last, pruned) in [
            (Some(500), 4_500, 5_499, 17),
            (Some(501), 4_500, 5_499, 16),
            (Some(501), 4_500, 5_500, 15),
            (None, 4_500, 5_499, 9),
            (None, 9_500, 9_500, 0),
        ] {
            view.ttl = ttl;
            let asked = all_keys(&[first, last]);
            let metrics = repository.pruned(&plan_of(&view), &asked).await;
            let pruned = if has_index { pruned } else { 0 };
            let case = format!("{has_index} {ttl:?} {first} {last}");
            assert_eq!(metrics.get("row_groups_pruned"), 0, "{case}");
            assert_eq!(metrics.get("pages_pruned"), pruned, "{case}");
            assert_eq!(metrics.get("rows_pruned"), pruned * 500, "{case}");
        }
        // A file of which no page is wanted, though its row group as a whole spans the time.
        let gap = history(&[(A, Some(0), None, Some(1)), (A, Some(1_000), None, Some(2))]);
        repository.write_as("gap.parquet", &gap, pages_of(1).build());
        view.source.path = "gap.parquet".to_owned();
        view.ttl = Some(100);
        let asked = entities(&[(A, 500)]);
        let metrics = repository.pruned(&plan_of(&view), &asked).await;
        assert_eq!(metrics.get("pages_pruned"), 2);
        assert_eq!(metrics.get("row_groups_pruned"), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_of_time_and_of_keys_are_left_out_together() {
    // Ten keys, one after the other; each has its rows in the order of time.
    let keys: Vec<String> = (0..10).map(|key| format!("k{key}")).collect();
    let rows: Vec<Row<'_>> = (0..10_000)
        .map(|row| {
            let key = keys[(row / 1_000) as usize].as_str();
            (Some(key), Some(row % 1_000), None, Some(row))
        })
        .collect();
    let repository = Repository::new();
    repository.write_as("h.parquet", &history(&rows), pages_of(100).build());
    let mut view = view("h.parquet");
    view.ttl = Some(150);
    let asked = entities(&[(Some("k3"), 500), (Some("k7"), 450)]);
    let metrics = repository.pruned(&plan_of(&view), &asked).await;
    // Of each of the two keys the pages from 300 on, from 400 on, and from 500 on.
    assert_eq!(metrics.get("rows_read"), 600);
    assert_eq!(metrics.get("rows_pruned"), 9_400);
    let rows = repository.evaluated(&plan_of(&view), &asked).await.unwrap();
    assert_eq!(values(&rows.batch, "v__v"), [Some(3_500), Some(7_450)]);
}

/// A view of `h.parquet` with one key.
fn keyed(data_type: ScalarType) -> View {
    let mut view = view("h.parquet");
    view.keys = vec![key("id", data_type)];
    view
}

fn with_keys(id: ArrayRef) -> RecordBatch {
    let rows = id.len() as i64;
    batch(vec![
        ("id", id),
        ("at", times((0..rows).map(|_| Some(1)))),
        ("made", times((0..rows).map(|_| None))),
        ("v", ints((0..rows).map(Some))),
    ])
}

fn asking(id: ArrayRef) -> RecordBatch {
    let rows = id.len();
    batch(vec![
        ("id", id),
        ("event_timestamp", times((0..rows).map(|_| Some(5)))),
    ])
}

#[tokio::test(flavor = "multi_thread")]
async fn row_groups_whose_statistics_have_no_key_that_is_asked_for_are_not_read() {
    let texts = |keys: &[i64]| -> ArrayRef {
        let texts = keys.iter().map(|key| format!("key {:05} ü", key + 10_000));
        Arc::new(texts.map(Some).collect::<StringArray>())
    };
    let numbers = |keys: &[i64]| -> ArrayRef { ints(keys.iter().copied().map(Some)) };
    // Even numbers from -10,000 on, in ten row groups of a hundred.
    let all: Vec<i64> = (-500..500).map(|key| key * 20).collect();
    for (data_type, column) in [
        (ScalarType::Int64, &numbers as &dyn Fn(&[i64]) -> ArrayRef),
        (ScalarType::String, &texts),
    ] {
        let repository = Repository::new();
        repository.write_grouped("h.parquet", &with_keys(column(&all)), 100);
        let plan = plan_of(&keyed(data_type));
        for (keys, pruned) in [
            (vec![-10_000], 9),
            (vec![-3_000, 6_020, 6_040], 8),
            // Between two row groups, and within one but not there.
            (vec![-8_010], 10),
            (vec![-8_030], 9),
            (vec![-10_001, 10_000], 10),
            // So many that only the least and the greatest are known.
            ((0..1_500).collect(), 9),
            ((0..1_500).chain([9_000]).collect(), 5),
        ] {
            let metrics = repository.pruned(&plan, &asking(column(&keys))).await;
            let case = format!("{data_type:?} {}", keys.len());
            assert_eq!(metrics.get("row_groups_pruned"), pruned, "{case}");
            assert_eq!(metrics.get("rows_pruned"), pruned * 100, "{case}");
        }
        let rows = repository.evaluated(&plan, &asking(column(&all))).await;
        let expected: Vec<_> = (0..1_000).map(Some).collect();
        assert_eq!(values(&rows.unwrap().batch, "v__v"), expected);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_longer_than_what_statistics_hold_of_them_are_found() {
    // They differ only where statistics are cut.
    let long = |key: i64| format!("{}{key:03}ü", "\u{10ffff}".repeat(40));
    let all: StringArray = (0..1_000).map(|key| Some(long(key))).collect();
    let repository = Repository::new();
    repository.write_grouped("h.parquet", &with_keys(Arc::new(all.clone())), 100);
    let plan = plan_of(&keyed(ScalarType::String));
    for asked in [&all, &all.slice(250, 1)] {
        let asked = asking(Arc::new(asked.clone()));
        repository.pruned(&plan, &asked).await;
        let rows = repository.evaluated(&plan, &asked).await.unwrap();
        assert!(values(&rows.batch, "v__v").iter().all(Option::is_some));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn row_groups_whose_bloom_filter_has_no_key_that_is_asked_for_are_not_read() {
    // Row group g has the keys g, g + 10, g + 20, …, so statistics exclude next to none.
    let keys: Vec<i64> = (0..1_000).map(|row| row % 100 * 10 + row / 100).collect();
    let text = |key: i64| format!("key {key}");
    let texts: StringArray = keys.iter().map(|&key| Some(text(key))).collect();
    let int32: Int32Array = keys.iter().map(|&key| Some(key as i32)).collect();
    let uint32: UInt32Array = keys.iter().map(|&key| Some(key as u32)).collect();
    let dictionary: DictionaryArray<Int32Type> = texts.iter().collect();
    let large: LargeStringArray = texts.iter().collect();
    let views: StringViewArray = texts.iter().collect();
    let fixed: Vec<_> = keys.iter().map(|&key| (key as u32).to_be_bytes()).collect();
    let bytes: BinaryArray = fixed.iter().map(Some).collect();
    let fixed = FixedSizeBinaryArray::try_from_iter(fixed.iter()).unwrap();
    let columns: Vec<(ScalarType, ArrayRef, bool)> = vec![
        (
            ScalarType::Int64,
            ints(keys.iter().copied().map(Some)),
            true,
        ),
        (ScalarType::Int64, Arc::new(int32.clone()), true),
        (ScalarType::Int32, Arc::new(int32), true),
        (
            ScalarType::Int32,
            ints(keys.iter().copied().map(Some)),
            true,
        ),
        (ScalarType::String, Arc::new(texts), true),
        (ScalarType::String, Arc::new(dictionary), true),
        (ScalarType::String, Arc::new(large), true),
        (ScalarType::String, Arc::new(views), true),
        (ScalarType::Bytes, Arc::new(bytes), true),
        // Their filters are not asked.
        (ScalarType::Int64, Arc::new(uint32), false),
        (ScalarType::Bytes, Arc::new(fixed), false),
    ];
    let asked = [513, 517, 527, 5_555];
    for (data_type, column, is_asked) in columns {
        let case = format!("{data_type:?} in {}", column.data_type());
        let wanted: ArrayRef = match data_type {
            ScalarType::String => Arc::new(StringArray::from_iter_values(asked.map(text))),
            ScalarType::Bytes => {
                let keys = asked.map(|key| (key as u32).to_be_bytes());
                Arc::new(BinaryArray::from_iter_values(keys))
            }
            _ => ints(asked.map(Some)),
        };
        for has_filter in [true, false] {
            let repository = Repository::new();
            let properties = groups_of(100).set_bloom_filter_enabled(has_filter);
            let rows = with_keys(Arc::clone(&column));
            repository.write_as("h.parquet", &rows, properties.build());
            let plan = plan_of(&keyed(data_type));
            let metrics = repository.pruned(&plan, &asking(Arc::clone(&wanted))).await;
            let pruned = metrics.get("row_groups_pruned");
            if has_filter && is_asked {
                // A filter may err, in one direction.
                assert!((6..=8).contains(&pruned), "{case}: {pruned}");
            } else {
                assert_eq!(pruned, 0, "{case}");
            }
            let rows = repository
                .evaluated(&plan, &asking(Arc::clone(&wanted)))
                .await;
            let expected = [Some(351), Some(751), Some(752), None];
            assert_eq!(values(&rows.unwrap().batch, "v__v"), expected, "{case}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_narrow_in_the_files_is_sought_in_its_filter_as_it_is_there() {
    let keys: Int8Array = (-100..100).map(Some).collect();
    let repository = Repository::new();
    let properties = groups_of(200).set_bloom_filter_enabled(true).build();
    repository.write_as("h.parquet", &with_keys(Arc::new(keys)), properties);
    for data_type in [ScalarType::Int32, ScalarType::Int64] {
        let plan = plan_of(&keyed(data_type));
        let rows = repository.evaluated(&plan, &asking(ints([Some(-1)]))).await;
        assert_eq!(values(&rows.unwrap().batch, "v__v"), [Some(99)]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_were_not_known_yet_are_not_read_under_known() {
    // All of one instant; when they were created, is in order.
    let rows: Vec<_> = (0..1_000)
        .map(|row| (A, Some(0), Some(row), Some(row)))
        .collect();
    let repository = Repository::new();
    repository.write_grouped("h.parquet", &history(&rows), 100);
    let mut view = view("h.parquet");
    let asked = entities(&[(A, 450), (A, 120)]);
    for (mode, pruned, expected) in [
        (Mode::Known, 5, [Some(450), Some(120)]),
        (Mode::Event, 0, [Some(999), Some(999)]),
    ] {
        view.source.point_in_time = mode;
        let plan = plan_of(&view);
        let metrics = repository.pruned(&plan, &asked).await;
        assert_eq!(metrics.get("row_groups_pruned"), pruned, "{mode:?}");
        let rows = repository.evaluated(&plan, &asked).await.unwrap();
        assert_eq!(values(&rows.batch, "v__v"), expected, "{mode:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_column_of_a_composite_key_excludes() {
    let shard = |row: i64| row / 100;
    let name = |row: i64| match (row < 500, row % 2 == 0) {
        (true, true) => "m",
        (true, false) => "n",
        (false, true) => "x",
        (false, false) => "z",
    };
    let rows = batch(vec![
        ("shard", ints((0..1_000).map(|row| Some(shard(row))))),
        ("name", strings((0..1_000).map(|row| Some(name(row))))),
        ("at", times((0..1_000).map(|_| Some(1)))),
        ("made", times((0..1_000).map(|_| None))),
        ("v", ints((0..1_000).map(Some))),
    ]);
    let repository = Repository::new();
    repository.write_grouped("h.parquet", &rows, 100);
    let mut view = view("h.parquet");
    view.keys = vec![
        key("shard", ScalarType::Int64),
        key("name", ScalarType::String),
    ];
    let plan = plan_of(&view);
    for (asked, pruned, found) in [
        (vec![(Some(7), Some("x"))], 9, vec![true]),
        (vec![(Some(3), Some("x"))], 10, vec![false]),
        (
            vec![(Some(3), Some("m")), (Some(7), Some("z"))],
            8,
            vec![true; 2],
        ),
        // Values of each column, not pairs of them, are what files are asked for.
        (
            vec![(Some(3), Some("z")), (Some(7), Some("m"))],
            8,
            vec![false; 2],
        ),
        (vec![(Some(3), None), (None, Some("m"))], 9, vec![false; 2]),
        (
            vec![(Some(3), Some("n")), (None, None)],
            9,
            vec![true, false],
        ),
    ] {
        let entities = batch(vec![
            ("shard", ints(asked.iter().map(|key| key.0))),
            ("name", strings(asked.iter().map(|key| key.1))),
            ("event_timestamp", times(asked.iter().map(|_| Some(5)))),
        ]);
        let metrics = repository.pruned(&plan, &entities).await;
        assert_eq!(metrics.get("row_groups_pruned"), pruned, "{asked:?}");
        let rows = repository.evaluated(&plan, &entities).await.unwrap();
        let values = values(&rows.batch, "v__v");
        let is_found: Vec<_> = values.iter().map(Option::is_some).collect();
        assert_eq!(is_found, found, "{asked:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn instants_written_as_text_are_not_compared_as_text() {
    // As text the first is the greater, as an instant the less.
    let rows = |at: [&str; 2]| {
        batch(vec![
            ("at", strings(at.map(Some))),
            ("id", strings([A, A])),
            ("made", times([None, None])),
            ("v", ints([Some(7), Some(10)])),
        ])
    };
    let repository = Repository::new();
    let texts = ["2024-01-01T12:00:00+05:00", "2024-01-01T10:00:00Z"];
    repository.write("h.parquet", &rows(texts));
    let mut view = view("h.parquet");
    let asked = entities(&[(A, time::parse("2024-01-01T08:00:00Z").unwrap())]);
    for ttl in [None, Some(DAY / 24)] {
        view.ttl = ttl;
        repository.pruned(&plan_of(&view), &asked).await;
        let rows = repository.evaluated(&plan_of(&view), &asked).await.unwrap();
        assert_eq!(values(&rows.batch, "v__v"), [Some(7)]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn statistics_of_old_writers_are_not_trusted_where_these_had_another_order() {
    // Such writers compared bytes as signed numbers, so `ü` came before `a`.
    let texts: ArrayRef = strings(["a", "ü", "b"].map(Some));
    let text = Statistics::byte_array(Some("ü".into()), Some("b".into()), None, Some(0), true);
    // And a great unsigned number before 1.
    let unsigned: ArrayRef = Arc::new(UInt32Array::from(vec![1, u32::MAX, 2]));
    let number = Statistics::int32(Some(-1), Some(2), None, Some(0), true);
    for (data_type, column, statistics) in [
        (ScalarType::String, texts, text),
        (ScalarType::Int64, unsigned, number),
    ] {
        let repository = Repository::new();
        let rows = with_keys(Arc::clone(&column));
        let properties = WriterProperties::builder()
            .set_statistics_enabled(EnabledStatistics::None)
            .set_offset_index_disabled(true);
        let path = repository.write_as("h.parquet", &rows, properties.build());

        let mut bytes = fs::read(&path).unwrap();
        let metadata = ParquetMetaDataReader::new();
        let metadata = metadata
            .parse_and_finish(&File::open(&path).unwrap())
            .unwrap();
        let mut metadata = metadata.into_builder();
        let group = metadata.take_row_groups().remove(0);
        let mut columns = group.columns().to_vec();
        let builder = columns[0].clone().into_builder().set_statistics(statistics);
        columns[0] = builder.build().unwrap();
        let group = group.into_builder().set_column_metadata(columns).build();
        let metadata = metadata.add_row_group(group.unwrap()).build();
        bytes.truncate(bytes.len() - footer_length(&bytes));
        let mut footer = Vec::new();
        ParquetMetaDataWriter::new(&mut footer, &metadata)
            .finish()
            .unwrap();
        bytes.extend(footer);
        fs::write(&path, bytes).unwrap();

        let plan = plan_of(&keyed(data_type));
        for row in 0..3 {
            let asked = asking(column.slice(row, 1));
            repository.pruned(&plan, &asked).await;
            let found = repository.evaluated(&plan, &asked).await.unwrap();
            assert_eq!(values(&found.batch, "v__v"), [Some(row as i64)]);
        }
    }
}

/// How many bytes the footer of a Parquet file takes.
fn footer_length(bytes: &[u8]) -> usize {
    let length = bytes.len();
    let tail: [u8; 4] = bytes[length - 8..length - 4].try_into().unwrap();
    u32::from_le_bytes(tail) as usize + 8
}

/// Makes everything but the footer unreadable.
fn corrupt(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    let data = 4..bytes.len() - footer_length(&bytes);
    bytes[data].fill(0xff);
    fs::write(path, bytes).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn files_of_other_days_are_not_read_where_folders_are_declared_to_be_by_time() {
    let repository = Repository::new();
    let day = |day: i64| time::parse("2024-01-01").unwrap() + (day - 1) * DAY;
    // Without statistics only the folders tell.
    let properties = WriterProperties::builder().set_statistics_enabled(EnabledStatistics::None);
    let properties = properties.build();
    let file = |number: i64| format!("d/dt=2024-01-{number:02}/1.parquet");
    for number in 1..=9 {
        let rows = history(&[
            (A, Some(day(number)), None, Some(number)),
            (A, Some(day(number + 1) - 1), None, Some(number * 10)),
        ]);
        repository.write_as(&file(number), &rows, properties.clone());
    }
    let mut view = view("d");
    view.source.partition = Some(Partition {
        column: "dt".to_owned(),
        slack: 0,
    });
    let plan_of = |ttl, slack| {
        let mut view = view.clone();
        view.ttl = ttl;
        view.source.partition = Some(Partition {
            column: "dt".to_owned(),
            slack,
        });
        plan_of(&view)
    };
    let asked = entities(&[(A, day(5) + 1), (A, day(5)), (A, day(6) - 1)]);
    let plan = plan_of(Some(DAY), 0);
    let metrics = repository.pruned(&plan, &asked).await;
    assert_eq!(metrics.get("row_groups_pruned"), 7);
    assert_eq!(metrics.get("rows_read"), 4);
    assert_eq!(
        repository
            .pruned(&plan_of(None, 0), &asked)
            .await
            .get("row_groups_pruned"),
        4
    );
    // A microsecond of slack is enough for rows of the days beside these to count.
    let metrics = repository.pruned(&plan_of(Some(DAY), 1), &asked).await;
    assert_eq!(metrics.get("row_groups_pruned"), 5);

    for number in [1, 2, 3, 6, 7, 8, 9] {
        corrupt(&repository.path(&file(number)));
    }
    let rows = repository.evaluated(&plan, &asked).await.unwrap();
    assert_eq!(values(&rows.batch, "v__v"), [Some(5), Some(5), Some(50)]);
    // Whoever needs them sees that they are damaged.
    for plan in [plan_of(None, 0), plan_of(Some(DAY), 1)] {
        let error = repository.evaluated(&plan, &asked).await.unwrap_err();
        assert!(
            matches!(error, OfflineError::UnreadableFile { .. }),
            "{error}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_outside_of_the_time_of_its_folder_is_an_error() {
    let start = time::parse("2024-01-02").unwrap();
    for (event, slack, is_refused) in [
        (start, 0, false),
        (start + DAY - 1, 0, false),
        (start - 1, 0, true),
        (start + DAY, 0, true),
        (start - 1, 1, false),
        (start - 2, 1, true),
        (start + DAY, 1, false),
        (start + DAY + 1, 1, true),
    ] {
        let repository = Repository::new();
        let mut rows: Vec<_> = (0..20_000)
            .map(|_| (A, Some(start), None, Some(1)))
            .collect();
        rows[12_345] = (A, Some(event), None, Some(2));
        repository.write_grouped("d/dt=2024-01-02/1.parquet", &history(&rows), 5_000);
        let mut view = view("d");
        view.source.partition = Some(Partition {
            column: "dt".to_owned(),
            slack,
        });
        let asked = entities(&[(A, start + 3 * DAY)]);
        let result = repository.evaluated(&plan_of(&view), &asked).await;
        if !is_refused {
            result.unwrap();
            continue;
        }
        let error = result.unwrap_err();
        let OfflineError::Source { problem, .. } = &error else {
            panic!("{error}")
        };
        assert!(
            matches!(**problem, SourceProblem::OutsidePartition { .. }),
            "{error}"
        );
        let text = error.to_string();
        for part in [
            "`s`",
            "1.parquet",
            "row 12345",
            &time::format(event),
            "slack",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }
}

/// Rows of one row group, of whose columns the feature is by far the largest.
fn heavy(rows: i64) -> RecordBatch {
    // Numbers without an order, so that they do not compress.
    let text = |row: i64| {
        let mut state = row as u64;
        let parts = (0..6).map(|_| {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mixed = (state ^ state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            format!("{:016x}", mixed ^ mixed >> 27)
        });
        parts.collect::<String>()
    };
    let texts: StringArray = (0..rows).map(|row| Some(text(row))).collect();
    batch(vec![
        ("id", ints((0..rows).map(Some))),
        ("at", times((0..rows).map(|_| Some(1)))),
        ("made", times((0..rows).map(|_| None))),
        ("v", Arc::new(texts)),
    ])
}

#[tokio::test(flavor = "multi_thread")]
async fn features_are_read_only_where_winners_are() {
    const ROWS: i64 = 100_000;
    let rows = heavy(ROWS);
    let mut view = view("h.parquet");
    view.keys = vec![JoinKey {
        name: "id".to_owned(),
        data_type: ScalarType::Int64,
    }];
    view.features = vec![Field::new("v", DataType::Scalar(ScalarType::String))];
    let plan = plan_of(&view);
    for has_index in [true, false] {
        let repository = Repository::new();
        let properties = pages_of(1_000).set_dictionary_enabled(false);
        let properties = if has_index {
            properties
        } else {
            properties
                .set_offset_index_disabled(true)
                .set_statistics_enabled(EnabledStatistics::None)
        };
        let path = repository.write_as("h.parquet", &rows, properties.build());
        let size = fs::metadata(path).unwrap().len();
        let few = asking(ints([3, 40_001, 99_999].map(Some)));
        let metrics = repository.pruned(&plan, &few).await;
        let read = metrics.get("bytes_read");
        assert_eq!(metrics.get("winners"), 3);
        assert!(0 < read && read < size / 4, "{has_index}: {read} of {size}");
        let found = repository.evaluated(&plan, &few).await.unwrap().batch;
        for (row, id) in [3, 40_001, 99_999].into_iter().enumerate() {
            let expected = rows.column(3).slice(id, 1);
            assert_eq!(found.column(0).slice(row, 1).as_ref(), expected.as_ref());
        }
        // Whoever wants all of it gets all of it.
        let all = asking(ints((0..ROWS).map(Some)));
        let metrics = repository.pruned(&plan, &all).await;
        let read = metrics.get("bytes_read");
        assert!(read > size / 10 * 9, "{has_index}: {read} of {size}");
        let found = repository.evaluated(&plan, &all).await.unwrap().batch;
        assert_eq!(found.column(0), rows.column(3));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn columns_that_nobody_asks_for_are_not_read() {
    let repository = Repository::new();
    let path = repository.write("h.parquet", &heavy(20_000));
    let size = fs::metadata(path).unwrap().len();
    let mut view = keyed(ScalarType::Int64);
    view.features[0].data_type = DataType::Scalar(ScalarType::String);
    view.features
        .push(Field::new("id", DataType::Scalar(ScalarType::Int64)));
    let mut plan = plan_of(&view);
    plan.lookups[0].features = vec![1];
    plan.outputs.remove(0);
    let unskew_core::plan::Binding::Feature { feature, .. } = &mut plan.outputs[0].binding else {
        panic!()
    };
    *feature = 0;
    let asked = asking(ints((0..20_000).map(Some)));
    let metrics = repository.pruned(&plan, &asked).await;
    let read = metrics.get("bytes_read");
    assert!(0 < read && read < size / 2, "{read} of {size}");
}
