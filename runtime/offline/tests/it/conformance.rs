//! The point-in-time conformance list, case by case, under both modes, each also against the oracle.

use std::num::NonZero;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int32Array, TimestampMicrosecondArray};
use arrow::datatypes::TimestampMicrosecondType;
use unskew_core::time::{Mode, SECOND};
use unskew_core::types::{DataType, Field, ScalarType};
use unskew_core::view::View;
use unskew_engine::Status;
use unskew_offline::Settings;

use crate::oracle::{needed, oracle};
use crate::repository::{
    INT64, Repository, Row, batch, entities, history, ints, key, plan, plan_of, strings, times,
    values, view,
};

/// What entity rows get of a history under each mode.
struct Case<'a> {
    history: &'a [Row<'a>],
    entities: &'a [(Option<&'a str>, i64)],
    ttl: Option<i64>,
    event: &'a [Option<i64>],
    known: &'a [Option<i64>],
}

impl Case<'_> {
    /// Checks the case under both modes, with one, two and eight partitions, with and without
    /// memory, with the history as it stands, reversed, and one row a row group.
    async fn check(self) {
        let mut reversed = self.history.to_vec();
        reversed.reverse();
        for (mode, expected) in [(Mode::Event, self.event), (Mode::Known, self.known)] {
            let mut view = view("h.parquet");
            view.source.point_in_time = mode;
            view.ttl = self.ttl;
            for (settings, rows, group) in settings().into_iter().flat_map(|settings| {
                [(self.history, 100), (&reversed[..], 100), (self.history, 1)]
                    .map(|(rows, group)| (settings.clone(), rows, group))
            }) {
                let about = format!("{mode:?} {settings:?} {rows:?} {group}");
                let repository = Repository::with_settings(settings);
                repository.write_grouped("h.parquet", &history(rows), group);
                self.compare(&repository, &view, expected, &about).await;
            }
        }
    }

    async fn compare(
        &self,
        repository: &Repository,
        view: &View,
        expected: &[Option<i64>],
        about: &str,
    ) {
        let (plan, entities) = (plan_of(view), entities(self.entities));
        let at: Vec<_> = self.entities.iter().map(|entity| entity.1).collect();
        let keys = [Arc::clone(entities.column(0))];
        let history = history(self.history);
        for (history, until) in [
            (needed(view, &history, &at), &[][..]),
            (history, &[None][..]),
        ] {
            let rows = repository.evaluated_until(&plan, &entities, until);
            let rows = rows.await.unwrap();
            assert_eq!(values(&rows.batch, "v__v"), expected, "{about}");
            let (features, statuses) = oracle(view, &history, &keys, &at);
            assert_eq!(rows.batch.columns(), features, "{about}");
            assert_eq!(rows.statuses, statuses, "{about}");
        }
    }
}

/// One, two and eight partitions, with memory enough and with none.
fn settings() -> Vec<Settings> {
    [1, 2, 8]
        .into_iter()
        .flat_map(|partitions| [None, Some(1)].map(|memory| (partitions, memory)))
        .map(|(partitions, memory_limit)| Settings {
            partitions: NonZero::new(partitions).unwrap(),
            memory_limit,
            ..Settings::default()
        })
        .collect()
}

const A: Option<&str> = Some("a");
const B: Option<&str> = Some("b");

#[tokio::test(flavor = "multi_thread")]
async fn equal_timestamps_count() {
    Case {
        history: &[(A, Some(10), Some(10), Some(1))],
        entities: &[(A, 10), (A, 9), (A, 11)],
        ttl: None,
        event: &[Some(1), None, Some(1)],
        known: &[Some(1), None, Some(1)],
    }
    .check()
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ttl_bounds_are_inclusive_and_no_older_row_steps_in() {
    Case {
        history: &[
            (A, Some(10), Some(10), Some(1)),
            (A, Some(20), Some(20), Some(2)),
        ],
        entities: &[(A, 10), (A, 19), (A, 25), (A, 26), (A, 15), (A, 16)],
        ttl: Some(5),
        event: &[Some(1), None, Some(2), None, Some(1), None],
        known: &[Some(1), None, Some(2), None, Some(1), None],
    }
    .check()
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ttl_absent_is_unlimited() {
    Case {
        history: &[(A, Some(-1_000_000_000 * SECOND), Some(0), Some(1))],
        entities: &[(A, 250_000_000_000 * SECOND)],
        ttl: None,
        event: &[Some(1)],
        known: &[Some(1)],
    }
    .check()
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ties_go_to_the_greatest_created_timestamp() {
    Case {
        history: &[
            (A, Some(10), Some(12), Some(2)),
            (A, Some(10), Some(13), Some(3)),
            (A, Some(10), Some(11), Some(9)),
            (A, Some(10), None, Some(4)),
        ],
        entities: &[(A, 20), (A, 12), (A, 10)],
        ttl: None,
        // Under `event` a created timestamp breaks ties and does not limit.
        event: &[Some(3), Some(3), Some(3)],
        known: &[Some(3), Some(2), None],
    }
    .check()
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ties_that_come_after_rows_of_other_times_are_told_apart_by_their_own_values() {
    Case {
        history: &[
            (A, Some(2), None, Some(1)),
            (A, Some(8), Some(8), Some(80)),
            (A, Some(0), Some(0), Some(7)),
            (A, Some(2), Some(3), Some(30)),
            (A, Some(2), Some(4), Some(40)),
            (A, Some(2), Some(5), Some(50)),
        ],
        entities: &[(A, 2), (A, 9)],
        ttl: None,
        event: &[Some(50), Some(80)],
        known: &[Some(7), Some(80)],
    }
    .check()
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn equal_in_both_the_greater_encoded_row_wins_the_same_choice_everywhere() {
    // Numbers are stored with the least byte first: 1 is 01 00 …, 256 is 00 01 …
    let rows = [
        (A, Some(10), Some(10), Some(256)),
        (A, Some(10), Some(10), Some(1)),
        (A, Some(10), Some(10), None),
    ];
    for rotation in 0..rows.len() {
        let mut rows = rows;
        rows.rotate_left(rotation);
        Case {
            history: &rows,
            entities: &[(A, 10)],
            ttl: None,
            event: &[Some(1)],
            known: &[Some(1)],
        }
        .check()
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn duplicate_entity_rows_stay() {
    Case {
        history: &[(A, Some(10), Some(10), Some(1))],
        entities: &[(A, 10), (A, 10), (B, 10), (A, 10), (B, 10)],
        ttl: None,
        event: &[Some(1), Some(1), None, Some(1), None],
        known: &[Some(1), Some(1), None, Some(1), None],
    }
    .check()
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_match_gives_nulls_not_a_missing_row() {
    Case {
        history: &[(A, Some(10), Some(10), Some(1))],
        entities: &[(B, 10), (A, 5)],
        ttl: None,
        event: &[None, None],
        known: &[None, None],
    }
    .check()
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_timestamp_without_zone_is_utc() {
    let naive = |at: i64| -> ArrayRef { Arc::new(TimestampMicrosecondArray::from(vec![at])) };
    let zoned = |at: i64| -> ArrayRef {
        Arc::new(TimestampMicrosecondArray::from(vec![at]).with_timezone("+02:00"))
    };
    for history_at in [naive(10), zoned(10)] {
        for (entity_at, expected) in [(naive(10), 7), (zoned(10), 7)] {
            let repository = Repository::new();
            let rows = [("id", strings([A])), ("at", ArrayRef::clone(&history_at))];
            let more = [("made", naive(3)), ("v", ints([Some(7)]))];
            repository.write("h.parquet", &batch(rows.into_iter().chain(more).collect()));
            let entities = batch(vec![("id", strings([A])), ("event_timestamp", entity_at)]);
            let plan = plan_of(&view("h.parquet"));
            let rows = repository.evaluated(&plan, &entities).await.unwrap();
            assert_eq!(values(&rows.batch, "v__v"), [Some(expected)]);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_null_join_key_matches_nothing_not_even_null() {
    Case {
        history: &[
            (None, Some(10), Some(10), Some(1)),
            (Some(""), Some(10), Some(10), Some(2)),
        ],
        entities: &[(None, 10), (Some(""), 10)],
        ttl: None,
        event: &[None, Some(2)],
        known: &[None, Some(2)],
    }
    .check()
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_with_a_null_feature_timestamp_never_counts() {
    Case {
        history: &[
            (A, None, Some(10), Some(1)),
            (A, Some(5), Some(5), Some(2)),
            (B, None, None, Some(3)),
        ],
        entities: &[(A, 20), (B, 20)],
        ttl: None,
        event: &[Some(2), None],
        known: &[Some(2), None],
    }
    .check()
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_correction_that_was_created_later_counts_and_under_known_only_from_then_on() {
    Case {
        history: &[
            (A, Some(10), Some(10), Some(1)),
            (A, Some(10), Some(30), Some(2)),
            (A, Some(20), Some(25), Some(3)),
        ],
        entities: &[(A, 10), (A, 19), (A, 20), (A, 24), (A, 25), (A, 30)],
        ttl: None,
        event: &[Some(2), Some(2), Some(3), Some(3), Some(3), Some(3)],
        // The correction of an older event, known at 30, does not displace the newer event.
        known: &[Some(1), Some(1), Some(1), Some(1), Some(3), Some(3)],
    }
    .check()
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_null_created_timestamp_is_never_known() {
    Case {
        history: &[(A, Some(10), None, Some(1)), (A, Some(5), Some(5), Some(2))],
        entities: &[(A, 100)],
        ttl: None,
        event: &[Some(1)],
        known: &[Some(2)],
    }
    .check()
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_null_feature_value_in_the_winning_row_is_null() {
    Case {
        history: &[
            (A, Some(10), Some(10), Some(1)),
            (A, Some(20), Some(20), None),
        ],
        entities: &[(A, 19), (A, 20)],
        ttl: None,
        event: &[Some(1), None],
        known: &[Some(1), None],
    }
    .check()
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_history_gives_nulls() {
    Case {
        history: &[],
        entities: &[(A, 10), (None, 10)],
        ttl: Some(5),
        event: &[None, None],
        known: &[None, None],
    }
    .check()
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_entity_rows_give_an_empty_batch_with_the_right_schema() {
    Case {
        history: &[(A, Some(10), Some(10), Some(1))],
        entities: &[],
        ttl: None,
        event: &[],
        known: &[],
    }
    .check()
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn several_views_with_different_keys() {
    let repository = Repository::new();
    repository.write("h.parquet", &history(&[(A, Some(10), None, Some(1))]));
    let of_shops = batch(vec![
        ("shop", Arc::new(Int32Array::from(vec![7, 8])) as ArrayRef),
        ("at", times([Some(10), Some(11)])),
        ("open", ints([Some(70), Some(80)])),
    ]);
    repository.write("shops.parquet", &of_shops);
    let of_all = batch(vec![
        ("at", times([Some(3), Some(12)])),
        ("rate", ints([Some(3), Some(12)])),
    ]);
    repository.write("all.parquet", &of_all);
    let other = |path: &str, keys, feature: &str| {
        let mut view = view(path);
        view.source.created_timestamp_column = None;
        view.keys = keys;
        view.features = vec![Field::new(feature, INT64)];
        view
    };
    let customers = view("h.parquet");
    let shops = other(
        "shops.parquet",
        vec![key("shop", ScalarType::Int32)],
        "open",
    );
    let rates = other("all.parquet", Vec::new(), "rate");
    let plan = plan(&[
        ("customer", &customers, &["customer"]),
        ("shop", &shops, &["shop"]),
        ("rate", &rates, &[]),
    ]);
    let entities = batch(vec![
        ("shop", ints([Some(8), Some(7), None])),
        ("event_timestamp", times([Some(11), Some(11), Some(12)])),
        ("customer", strings([B, A, A])),
    ]);
    let rows = repository.evaluated(&plan, &entities).await.unwrap();
    assert_eq!(values(&rows.batch, "customer__v"), [None, Some(1), Some(1)]);
    assert_eq!(
        values(&rows.batch, "shop__open"),
        [Some(80), Some(70), None]
    );
    assert_eq!(
        values(&rows.batch, "rate__rate"),
        [Some(3), Some(3), Some(12)]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn one_view_twice_under_two_names_with_different_features() {
    let repository = Repository::new();
    let flights = batch(vec![
        ("id", strings([A, B, A])),
        ("at", times([Some(1), Some(1), Some(5)])),
        ("made", times([None, None, None])),
        ("v", ints([Some(10), Some(20), Some(11)])),
        ("w", ints([Some(-10), Some(-20), None])),
    ]);
    repository.write("h.parquet", &flights);
    let mut view = view("h.parquet");
    view.features.push(Field::new("w", INT64));
    let mut plan = plan(&[
        ("origin", &view, &["origin"]),
        ("destination", &view, &["destination"]),
    ]);
    // The first uses only `w`, the second only `v`.
    plan.lookups[0].features = vec![1];
    plan.lookups[1].features = vec![0];
    plan.outputs.remove(3);
    plan.outputs.remove(0);
    for output in &mut plan.outputs {
        if let unskew_core::plan::Binding::Feature { feature, .. } = &mut output.binding {
            *feature = 0;
        }
    }
    let entities = batch(vec![
        ("destination", strings([B, A, Some("c"), A])),
        ("origin", strings([A, B, A, A])),
        (
            "event_timestamp",
            times([Some(4), Some(5), Some(5), Some(0)]),
        ),
    ]);
    let rows = repository.evaluated(&plan, &entities).await.unwrap();
    assert_eq!(
        values(&rows.batch, "origin__w"),
        [Some(-10), Some(-20), None, None]
    );
    assert_eq!(
        values(&rows.batch, "destination__v"),
        [Some(20), Some(11), None, None]
    );
    assert_eq!(rows.statuses[0][2], Status::NullValue);
    assert_eq!(rows.statuses[1][2], Status::NotFound);
}

#[tokio::test(flavor = "multi_thread")]
async fn composite_keys_are_told_apart() {
    let repository = Repository::new();
    let rows = batch(vec![
        ("one", strings([Some("a"), Some("ab"), Some("a"), None])),
        ("two", strings([Some("bc"), Some("c"), None, Some("x")])),
        ("at", times([Some(1), Some(1), Some(1), Some(1)])),
        ("made", times([None, None, None, None])),
        ("v", ints([Some(1), Some(2), Some(3), Some(4)])),
    ]);
    repository.write("h.parquet", &rows);
    let mut view = view("h.parquet");
    view.keys = vec![
        key("one", ScalarType::String),
        key("two", ScalarType::String),
    ];
    let entities = batch(vec![
        (
            "one",
            strings([Some("ab"), Some("a"), Some("a"), None, Some("abc")]),
        ),
        (
            "two",
            strings([Some("c"), Some("bc"), None, Some("x"), Some("")]),
        ),
        ("event_timestamp", times([Some(1); 5])),
    ]);
    let rows = repository
        .evaluated(&plan_of(&view), &entities)
        .await
        .unwrap();
    assert_eq!(
        values(&rows.batch, "v__v"),
        [Some(2), Some(1), None, None, None]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_of_every_type() {
    let mut columns: Vec<(ScalarType, ArrayRef)> = vec![
        (ScalarType::String, strings([Some("ü𝄞"), Some("")])),
        (
            ScalarType::Int32,
            Arc::new(Int32Array::from(vec![i32::MIN, 0])),
        ),
        (ScalarType::Int64, ints([Some(i64::MAX), Some(0)])),
        (ScalarType::Timestamp, times([Some(5), Some(6)])),
    ];
    let bools: ArrayRef = Arc::new(arrow::array::BooleanArray::from(vec![true, false]));
    columns.push((ScalarType::Bool, bools));
    let bytes = arrow::array::BinaryArray::from(vec![&b"\xff\0"[..], &b""[..]]);
    columns.push((ScalarType::Bytes, Arc::new(bytes)));
    for (data_type, column) in columns {
        let repository = Repository::new();
        let rows = batch(vec![
            ("id", Arc::clone(&column)),
            ("at", times([Some(1), Some(1)])),
            ("made", times([None, None])),
            ("v", ints([Some(1), Some(2)])),
        ]);
        repository.write("h.parquet", &rows);
        let mut view = view("h.parquet");
        view.keys = vec![key("id", data_type)];
        let entities = batch(vec![
            ("id", column),
            ("event_timestamp", times([Some(1), Some(1)])),
        ]);
        let rows = repository
            .evaluated(&plan_of(&view), &entities)
            .await
            .unwrap();
        assert_eq!(
            values(&rows.batch, "v__v"),
            [Some(1), Some(2)],
            "{data_type}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_its_value_in_whatever_type_the_files_hold_it() {
    let repository = Repository::new();
    let rows = batch(vec![
        ("id", Arc::new(Int32Array::from(vec![1, 2])) as ArrayRef),
        ("at", times([Some(1), Some(1)])),
        ("made", times([None, None])),
        ("v", ints([Some(10), Some(20)])),
    ]);
    repository.write("h.parquet", &rows);
    let mut view = view("h.parquet");
    view.keys = vec![key("id", ScalarType::Int64)];
    let floats: ArrayRef = Arc::new(arrow::array::Float64Array::from(vec![2.0, 1.0]));
    let entities = batch(vec![
        ("id", floats),
        ("event_timestamp", times([Some(1), Some(1)])),
    ]);
    let rows = repository
        .evaluated(&plan_of(&view), &entities)
        .await
        .unwrap();
    assert_eq!(values(&rows.batch, "v__v"), [Some(20), Some(10)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_beyond_a_bound_are_not_used_and_are_counted_as_lag() {
    let repository = Repository::new();
    let rows = [
        (A, Some(10), Some(10), Some(1)),
        (A, Some(11), Some(30), Some(2)),
        (B, Some(20), Some(20), Some(3)),
        (None, Some(40), Some(40), Some(4)),
        (A, None, Some(50), Some(5)),
    ];
    repository.write("h.parquet", &history(&rows));
    let entities = entities(&[(A, 100), (B, 100)]);
    for (mode, until, expected, lag) in [
        (Mode::Event, None, [Some(2), Some(3)], 0),
        (Mode::Event, Some(20), [Some(2), Some(3)], 1),
        (Mode::Event, Some(19), [Some(2), None], 2),
        (Mode::Known, Some(20), [Some(1), Some(3)], 2),
        (Mode::Known, Some(9), [None, None], 4),
    ] {
        let mut view = view("h.parquet");
        view.source.point_in_time = mode;
        let plan = plan_of(&view);
        let rows = repository
            .evaluated_until(&plan, &entities, &[until])
            .await
            .unwrap();
        assert_eq!(values(&rows.batch, "v__v"), expected, "{mode:?} {until:?}");
        assert_eq!(rows.lag, [lag], "{mode:?} {until:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn features_of_every_type_come_through_by_bits() {
    use arrow::array::{BinaryArray, BooleanArray, Float32Array, Float64Array, ListArray};
    let lists = ListArray::from_iter_primitive::<arrow::datatypes::Float64Type, _, _>([
        Some(vec![Some(-0.0), None, Some(f64::MIN_POSITIVE / 2.0)]),
        Some(vec![]),
        None,
    ]);
    let features: Vec<(&str, DataType, ArrayRef)> = vec![
        (
            "b",
            ScalarType::Bool,
            Arc::new(BooleanArray::from(vec![Some(true), Some(false), None])) as ArrayRef,
        ),
        (
            "i",
            ScalarType::Int32,
            Arc::new(Int32Array::from(vec![Some(i32::MIN), Some(i32::MAX), None])),
        ),
        (
            "l",
            ScalarType::Int64,
            ints([Some(i64::MIN), Some(i64::MAX), None]),
        ),
        (
            "f",
            ScalarType::Float32,
            Arc::new(Float32Array::from(vec![
                Some(-0.0),
                Some(f32::MIN_POSITIVE / 2.0),
                None,
            ])),
        ),
        (
            "d",
            ScalarType::Float64,
            Arc::new(Float64Array::from(vec![
                Some(f64::INFINITY),
                Some(-0.0),
                None,
            ])),
        ),
        (
            "s",
            ScalarType::String,
            strings([Some(""), Some("𝄞\0ü"), None]),
        ),
        (
            "y",
            ScalarType::Bytes,
            Arc::new(BinaryArray::from(vec![
                Some(&b"\xff\0"[..]),
                Some(&b""[..]),
                None,
            ])),
        ),
        (
            "t",
            ScalarType::Timestamp,
            times([
                Some(unskew_core::time::MIN),
                Some(unskew_core::time::MAX),
                None,
            ]),
        ),
    ]
    .into_iter()
    .map(|(name, data_type, array)| (name, DataType::Scalar(data_type), array))
    .chain([(
        "fs",
        DataType::List(ScalarType::Float64),
        Arc::new(lists) as ArrayRef,
    )])
    .collect();
    let ids = strings([Some("0"), Some("1"), Some("2")]);
    let mut columns = vec![
        ("id", Arc::clone(&ids)),
        ("at", times([Some(1); 3])),
        ("made", times([None; 3])),
    ];
    columns.extend(
        features
            .iter()
            .map(|(name, _, array)| (*name, Arc::clone(array))),
    );
    let repository = Repository::new();
    repository.write("h.parquet", &batch(columns));
    let mut view = view("h.parquet");
    view.features = features
        .iter()
        .map(|(name, data_type, _)| Field::new(*name, *data_type))
        .collect();
    let entities = batch(vec![("id", ids), ("event_timestamp", times([Some(1); 3]))]);
    let rows = repository
        .evaluated(&plan_of(&view), &entities)
        .await
        .unwrap();
    for (index, (name, _, expected)) in features.iter().enumerate() {
        assert_eq!(rows.batch.column(index), expected, "{name}");
        assert_eq!(
            rows.statuses[index],
            [Status::Present, Status::Present, Status::NullValue]
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn timestamps_at_the_edges_of_time() {
    let (first, last) = (unskew_core::time::MIN, unskew_core::time::MAX);
    let view: View = View {
        ttl: Some(i64::MAX),
        ..view("h.parquet")
    };
    let repository = Repository::new();
    let rows = [
        (A, Some(first), Some(first), Some(1)),
        (B, Some(last), Some(last), Some(2)),
    ];
    repository.write("h.parquet", &history(&rows));
    let entities = entities(&[(A, first), (A, last), (B, last), (B, last - 1)]);
    let times = entities
        .column(1)
        .as_primitive::<TimestampMicrosecondType>();
    assert_eq!(times.null_count(), 0);
    let rows = repository
        .evaluated(&plan_of(&view), &entities)
        .await
        .unwrap();
    assert_eq!(
        values(&rows.batch, "v__v"),
        [Some(1), Some(1), Some(2), None]
    );
}
