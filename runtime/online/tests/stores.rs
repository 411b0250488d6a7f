//! What all stores must do alike, however they are run.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod common;

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use common::{one_row, row, rows, view, view_of};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use unskew_online::{
    Circuit, MAX_ROW_BYTES, OnlineError, OnlineStore, PutSummary, StoredRow, ViewState, Wanted,
};

type Store = Arc<dyn OnlineStore>;

on_every_store!(
    rows_come_back_as_they_were_written,
    nothing_is_found_in_an_empty_store,
    a_greater_row_wins_whatever_the_order,
    rows_compare_as_unsigned_bytes,
    the_greatest_of_rows_written_at_random_and_at_once_is_held,
    many_rows_in_one_call,
    one_call_reads_many_views,
    long_and_empty_keys_are_keys,
    a_row_that_is_too_large_is_refused,
    meanings_views_and_projects_are_apart,
    a_state_is_swapped_only_for_the_expected_one,
    of_many_who_swap_a_state_one_succeeds,
    a_state_with_unknown_fields_is_not_taken_for_another,
    a_sample_is_of_the_keys_of_the_view,
    a_project_is_removed_and_no_other,
    a_view_is_removed_under_its_digest_alone,
    a_store_answers_a_ping,
);

async fn put(store: &Store, view: &unskew_online::ViewKey, rows: &[StoredRow]) -> PutSummary {
    store.put(view, rows.to_vec()).await.unwrap()
}

async fn rows_come_back_as_they_were_written(store: Store) {
    let v = view("v");
    let all: Vec<u8> = (0..=255).collect();
    let values: [&[u8]; 4] = [b"", b"\0", &all, &[0xff; 70_000]];
    for (entity, value) in values.iter().enumerate() {
        put(&store, &v, &[row(&[entity as u8], value)]).await;
    }
    let held = rows(&*store, &v, &[&[0], &[1], &[2], &[3], &[4]]).await;
    let mut expected: Vec<_> = values.iter().map(|v| Some(v.to_vec())).collect();
    expected.push(None);
    assert_eq!(held, expected);
}

async fn nothing_is_found_in_an_empty_store(store: Store) {
    assert!(store.get(vec![]).await.unwrap().is_empty());
    let wanted = Wanted {
        view: Arc::new(view("v")),
        entities: vec![vec![1], vec![]],
    };
    let held = store.get(vec![wanted]).await.unwrap().remove(0);
    assert_eq!((held.state, held.rows), (None, vec![None, None]));
    assert_eq!(store.state(&view("v")).await.unwrap(), None);
    assert!(
        store
            .sample_keys(&view("v"), 5, 0)
            .await
            .unwrap()
            .is_empty()
    );
    assert_eq!(store.remove_project("project").await.unwrap(), 0);
    assert_eq!(put(&store, &view("v"), &[]).await, PutSummary::default());
}

async fn a_greater_row_wins_whatever_the_order(store: Store) {
    let v = view("v");
    let summary = |written, kept| PutSummary { written, kept };
    assert_eq!(put(&store, &v, &[row(b"k", b"2")]).await, summary(1, 0));
    assert_eq!(put(&store, &v, &[row(b"k", b"1")]).await, summary(0, 1));
    assert_eq!(one_row(&*store, &v, b"k").await.unwrap(), b"2");
    assert_eq!(put(&store, &v, &[row(b"k", b"2")]).await, summary(0, 1));
    assert_eq!(put(&store, &v, &[row(b"k", b"3")]).await, summary(1, 0));
    assert_eq!(one_row(&*store, &v, b"k").await.unwrap(), b"3");
    // Within one call too.
    let several = [row(b"m", b"5"), row(b"m", b"9"), row(b"m", b"7")];
    let PutSummary { written, kept } = put(&store, &v, &several).await;
    assert_eq!(written + kept, 3);
    assert_eq!(one_row(&*store, &v, b"m").await.unwrap(), b"9");
}

/// Neither signed bytes, nor words that a double cannot hold, nor a locale's order.
async fn rows_compare_as_unsigned_bytes(store: Store) {
    let ascending: [&[u8]; 14] = [
        b"",
        b"\0",
        b"\0\0",
        b"\0\0\0\0\0",
        b"A",
        b"Z",
        b"a",
        b"\x7f\xff\xff\xff\xff\xff\xff\xfe",
        b"\x7f\xff\xff\xff\xff\xff\xff\xff",
        b"\x80\0\0\0\0\0\0\0",
        b"\x80\0\0\0\0\0\0\0\0",
        b"\x80\0\0\0\0\0\0\x01",
        "é".as_bytes(),
        b"\xff\xff\xff\xff\xff",
    ];
    assert!(ascending.is_sorted());
    let v = view("v");
    for (i, less) in ascending.iter().enumerate() {
        for (j, greater) in ascending.iter().enumerate().skip(i + 1) {
            let key = [i as u8, j as u8];
            put(&store, &v, &[row(&key, greater)]).await;
            put(&store, &v, &[row(&key, less)]).await;
            assert_eq!(one_row(&*store, &v, &key).await.unwrap(), *greater);
            let key = [j as u8, i as u8];
            put(&store, &v, &[row(&key, less)]).await;
            put(&store, &v, &[row(&key, greater)]).await;
            assert_eq!(one_row(&*store, &v, &key).await.unwrap(), *greater);
        }
    }
}

async fn the_greatest_of_rows_written_at_random_and_at_once_is_held(store: Store) {
    let value = prop_oneof![
        prop::collection::vec(prop::sample::select(vec![0, 1, 0x7f, 0x80, 0xff]), 0..12),
        prop::collection::vec(any::<u8>(), 0..40),
    ];
    let writers = prop::collection::vec(prop::collection::vec((0..4_u8, value), 0..12), 1..6);
    let runtime = tokio::runtime::Handle::current();
    let property = move || {
        let case = Cell::new(0);
        let mut runner = TestRunner::new(Config {
            cases: 64,
            failure_persistence: None,
            ..Config::default()
        });
        runner
            .run(&writers, |writers| {
                case.set(case.get() + 1);
                let v = view_of("project", "v", &case.get().to_string());
                let mut greatest = BTreeMap::new();
                for (key, value) in writers.iter().flatten() {
                    let held: &mut Vec<u8> = greatest.entry(*key).or_default();
                    *held = value.clone().max(std::mem::take(held));
                }
                let written = writers.into_iter().map(|rows| {
                    let rows = rows
                        .iter()
                        .map(|(key, value)| row(&[*key], value))
                        .collect();
                    let (store, v) = (Arc::clone(&store), v.clone());
                    runtime.spawn(async move { store.put(&v, rows).await.unwrap() })
                });
                let written: Vec<_> = written.collect();
                runtime.block_on(async {
                    for writer in written {
                        writer.await.unwrap();
                    }
                    for key in 0..4 {
                        let held = one_row(&*store, &v, &[key]).await;
                        prop_assert_eq!(held.as_ref(), greatest.get(&key));
                    }
                    Ok(())
                })
            })
            .unwrap();
    };
    tokio::task::spawn_blocking(property).await.unwrap();
}

async fn many_rows_in_one_call(store: Store) {
    const COUNT: u32 = 45_000;
    let v = view("v");
    let all: Vec<StoredRow> = (0..COUNT)
        .map(|i| row(&i.to_be_bytes(), &i.to_le_bytes()))
        .collect();
    assert_eq!(put(&store, &v, &all).await.written, u64::from(COUNT));
    assert_eq!(put(&store, &v, &all).await.kept, u64::from(COUNT));
    let wanted = Wanted {
        view: Arc::new(v.clone()),
        entities: all.iter().map(|row| row.entity_key.clone()).collect(),
    };
    let held = store.get(vec![wanted]).await.unwrap().remove(0);
    assert_eq!(held.rows.len(), all.len());
    for (held, row) in held.rows.iter().zip(&all) {
        assert_eq!(held.as_deref(), Some(row.value.as_slice()));
    }
    // Large rows are split into batches by their size.
    let large: Vec<StoredRow> = (0..40).map(|i| row(&[i], &[i; 1 << 20])).collect();
    assert_eq!(put(&store, &view("large"), &large).await.written, 40);
    assert_eq!(
        one_row(&*store, &view("large"), &[39]).await.unwrap().len(),
        1 << 20
    );
    assert_eq!(
        store.remove_project("project").await.unwrap(),
        u64::from(COUNT) + 40
    );
}

async fn one_call_reads_many_views(store: Store) {
    let views: Vec<_> = (0..5).map(|i| view(&format!("v{i}"))).collect();
    for (i, view) in views.iter().enumerate().skip(1) {
        put(&store, view, &[row(b"k", &[i as u8])]).await;
        let state = ViewState {
            watermark: Some(i as i64),
            pending: vec![],
            ..ViewState::default()
        };
        assert!(store.update_state(view, None, &state).await.unwrap());
    }
    let wanted = views.iter().map(|view| Wanted {
        view: Arc::new(view.clone()),
        entities: vec![b"k".to_vec(), b"none".to_vec(), b"k".to_vec()],
    });
    let held = store.get(wanted.collect()).await.unwrap();
    assert_eq!(held.len(), 5);
    assert_eq!((&held[0].state, &held[0].rows), (&None, &vec![None; 3]));
    for (i, held) in held.iter().enumerate().skip(1) {
        assert_eq!(held.state.as_ref().unwrap().watermark, Some(i as i64));
        let row = Some(bytes::Bytes::copy_from_slice(&[i as u8]));
        assert_eq!(held.rows, [row.clone(), None, row]);
    }
    // A view of which no row is wanted has a state all the same.
    let wanted = Wanted {
        view: Arc::new(views[2].clone()),
        entities: vec![],
    };
    let held = store.get(vec![wanted]).await.unwrap();
    assert_eq!(held[0].state.as_ref().unwrap().watermark, Some(2));
}

async fn long_and_empty_keys_are_keys(store: Store) {
    let v = view("v");
    let keys: Vec<Vec<u8>> = [0, 1, 400, 476, 477, 478, 479, 511, 512, 100_000]
        .map(|length| vec![b'x'; length])
        .into_iter()
        .chain([[vec![b'x'; 999], b"y".to_vec()].concat()])
        .chain([[vec![b'x'; 999], b"z".to_vec()].concat()])
        .collect();
    for key in &keys {
        put(&store, &v, &[row(key, &(key.len() as u32).to_le_bytes())]).await;
        put(&store, &v, &[row(key, key)]).await;
        // Less than what is held now, unless the key is short.
        put(&store, &v, &[row(key, b"")]).await;
    }
    for key in &keys {
        let expected = key.clone().max((key.len() as u32).to_le_bytes().to_vec());
        assert_eq!(one_row(&*store, &v, key).await, Some(expected));
    }
    let sampled: BTreeSet<_> = store
        .sample_keys(&v, 100, 0)
        .await
        .unwrap()
        .into_iter()
        .collect();
    assert_eq!(sampled, keys.into_iter().collect());
}

async fn a_row_that_is_too_large_is_refused(store: Store) {
    let v = view("v");
    let rows = vec![row(b"k", b"fits"), row(b"k", &vec![0; MAX_ROW_BYTES + 1])];
    let error = store.put(&v, rows).await.unwrap_err();
    assert!(matches!(error, OnlineError::TooLarge { .. }), "{error}");
    assert_eq!(one_row(&*store, &v, b"k").await, None);
}

async fn meanings_views_and_projects_are_apart(store: Store) {
    let views = [
        view_of("a", "bc", "m"),
        view_of("ab", "c", "m"),
        view_of("a", "bc", "n"),
        view_of("a", "b", "m"),
        view_of("a:bc", "", "m"),
        view_of("a", "bc:", "m"),
        view_of("*", "[bc]?", "m"),
        view_of("é", "\u{1f600}", "m"),
    ];
    for (i, view) in views.iter().enumerate() {
        assert_eq!(put(&store, view, &[row(b"k", &[i as u8])]).await.written, 1);
        let state = ViewState {
            watermark: Some(i as i64),
            pending: vec![],
            ..ViewState::default()
        };
        assert!(store.update_state(view, None, &state).await.unwrap());
    }
    for (i, view) in views.iter().enumerate() {
        assert_eq!(one_row(&*store, view, b"k").await.unwrap(), [i as u8]);
        let state = store.state(view).await.unwrap().unwrap();
        assert_eq!(state.watermark, Some(i as i64));
        assert_eq!(store.sample_keys(view, 9, 0).await.unwrap(), [b"k"]);
    }
}

async fn a_state_is_swapped_only_for_the_expected_one(store: Store) {
    let v = view("v");
    let state = |watermark, pending: &[(i64, i64)]| ViewState {
        watermark,
        pending: pending.to_vec(),
        ..ViewState::default()
    };
    let (one, two) = (state(Some(1), &[]), state(Some(2), &[(5, i64::MAX)]));
    let swap = |expected: Option<ViewState>, new: ViewState| {
        let (store, v) = (Arc::clone(&store), v.clone());
        async move {
            store
                .update_state(&v, expected.as_ref(), &new)
                .await
                .unwrap()
        }
    };
    assert!(!swap(Some(one.clone()), two.clone()).await);
    assert_eq!(store.state(&v).await.unwrap(), None);
    assert!(swap(None, one.clone()).await);
    assert!(!swap(None, two.clone()).await);
    assert!(!swap(Some(state(None, &[])), two.clone()).await);
    assert_eq!(store.state(&v).await.unwrap(), Some(one.clone()));
    assert!(swap(Some(one.clone()), two.clone()).await);
    assert_eq!(store.state(&v).await.unwrap(), Some(two.clone()));
    // The same call again, as after a lost answer.
    assert!(swap(Some(one.clone()), two.clone()).await);
    assert!(!swap(Some(one.clone()), state(None, &[(1, 2)])).await);
    assert_eq!(store.state(&v).await.unwrap(), Some(two));
}

async fn of_many_who_swap_a_state_one_succeeds(store: Store) {
    let v = view("v");
    let mut expected = None;
    for round in 0..10 {
        let swaps: Vec<_> = (0..8)
            .map(|writer| {
                let (store, v, expected) = (Arc::clone(&store), v.clone(), expected.clone());
                let new = ViewState {
                    watermark: Some(round * 8 + writer),
                    pending: vec![],
                    ..ViewState::default()
                };
                tokio::spawn(async move {
                    let swapped = store.update_state(&v, expected.as_ref(), &new).await;
                    swapped.unwrap().then_some(new)
                })
            })
            .collect();
        let mut winners = Vec::new();
        for swap in swaps {
            winners.extend(swap.await.unwrap());
        }
        assert_eq!(winners.len(), 1);
        expected = winners.pop();
        assert_eq!(store.state(&v).await.unwrap(), expected);
    }
}

async fn a_state_with_unknown_fields_is_not_taken_for_another(_: Store) {
    let json = r#"{"watermark":1,"pending":[],"later":true}"#;
    assert!(serde_json::from_str::<ViewState>(json).is_err());
    let state: ViewState = serde_json::from_str(r#"{"watermark":null}"#).unwrap();
    assert_eq!(state, ViewState::default());
}

async fn a_sample_is_of_the_keys_of_the_view(store: Store) {
    let v = view("v");
    let keys: Vec<Vec<u8>> = (0..25_000_u32).map(|i| i.to_be_bytes().to_vec()).collect();
    let all: Vec<_> = keys.iter().map(|key| row(key, b"row")).collect();
    put(&store, &v, &all).await;
    put(&store, &view("w"), &[row(b"other", b"row")]).await;
    let sample = store.sample_keys(&v, 100, 1).await.unwrap();
    let distinct: BTreeSet<_> = sample.iter().collect();
    assert_eq!(distinct.len(), 100);
    assert!(sample.iter().all(|key| keys.contains(key)));
    assert_eq!(store.sample_keys(&v, 100, 1).await.unwrap(), sample);
    assert_ne!(store.sample_keys(&v, 100, 2).await.unwrap(), sample);
    // Not only of one end of the keys.
    assert!(sample.iter().any(|key| *key < keys[8_000]));
    assert!(sample.iter().any(|key| *key > keys[17_000]));
    assert_eq!(
        store.sample_keys(&v, 30_000, 1).await.unwrap().len(),
        25_000
    );
    assert!(store.sample_keys(&v, 0, 1).await.unwrap().is_empty());
}

#[tokio::test]
async fn both_stores_give_the_same_sample() {
    let (embedded, redis) = (common::embedded(), common::redis());
    let all: Vec<_> = (0..5000_u32)
        .map(|i| row(&vec![7; i as usize % 600], &i.to_be_bytes()))
        .collect();
    put(&embedded.store, &view("v"), &all).await;
    put(&redis.store, &view("v"), &all).await;
    for seed in 0..3 {
        assert_eq!(
            embedded
                .store
                .sample_keys(&view("v"), 50, seed)
                .await
                .unwrap(),
            redis.store.sample_keys(&view("v"), 50, seed).await.unwrap()
        );
    }
}

async fn a_project_is_removed_and_no_other(store: Store) {
    let projects = ["a", "ab", "b", "*", "a:v"];
    let state = ViewState {
        watermark: Some(1),
        pending: vec![],
        ..ViewState::default()
    };
    for project in projects {
        for view in ["v", "a"] {
            let v = view_of(project, view, "m");
            put(
                &store,
                &v,
                &[
                    row(b"k", b"row"),
                    row(b"", b"row"),
                    row(&[b'x'; 600], b"row"),
                ],
            )
            .await;
            assert!(store.update_state(&v, None, &state).await.unwrap());
        }
    }
    assert_eq!(store.remove_project("*").await.unwrap(), 6);
    assert_eq!(store.remove_project("a").await.unwrap(), 6);
    for project in projects {
        for view in ["v", "a"] {
            let v = view_of(project, view, "m");
            let gone = ["a", "*"].contains(&project);
            assert_eq!(
                one_row(&*store, &v, b"k").await.is_none(),
                gone,
                "{project}"
            );
            assert_eq!(one_row(&*store, &v, b"").await.is_none(), gone, "{project}");
            assert_eq!(store.state(&v).await.unwrap().is_none(), gone, "{project}");
        }
    }
    assert_eq!(store.remove_project("a").await.unwrap(), 0);
}

async fn a_view_is_removed_under_its_digest_alone(store: Store) {
    let views = [
        view_of("a", "v", "m"),
        view_of("a", "v", "n"),
        view_of("a", "vv", "m"),
        view_of("b", "v", "m"),
    ];
    let state = ViewState {
        watermark: Some(1),
        ..ViewState::default()
    };
    let mut all: Vec<_> = (0..2500_u16)
        .map(|i| row(&i.to_be_bytes(), b"row"))
        .collect();
    all.extend([row(b"", b"row"), row(&[b'x'; 600], b"row")]);
    for view in &views {
        put(&store, view, &all).await;
        assert!(store.update_state(view, None, &state).await.unwrap());
    }
    assert_eq!(store.remove_view(&views[0]).await.unwrap(), 2502);
    for (i, view) in views.iter().enumerate() {
        let entities: [&[u8]; 3] = [b"", &[0, 7], &[b'x'; 600]];
        let held = rows(&*store, view, &entities).await;
        assert!(held.iter().all(|row| row.is_none() == (i == 0)), "{i}");
        assert_eq!(store.state(view).await.unwrap().is_none(), i == 0, "{i}");
        let sampled = store.sample_keys(view, 5000, 0).await.unwrap();
        assert_eq!(sampled.len(), if i == 0 { 0 } else { 2502 });
    }
    assert_eq!(store.remove_view(&views[0]).await.unwrap(), 0);
    // A view that has a state and no rows.
    assert!(store.update_state(&views[0], None, &state).await.unwrap());
    assert_eq!(store.remove_view(&views[0]).await.unwrap(), 0);
    assert_eq!(store.state(&views[0]).await.unwrap(), None);
}

async fn a_store_answers_a_ping(store: Store) {
    store.ping().await.unwrap();
    assert!(!store.address().is_empty());
    let health = store.health();
    assert_eq!(health.circuit, Circuit::Closed);
    assert_eq!((health.reconnects, health.failures), (0, 0));
}
