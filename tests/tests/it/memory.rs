//! What a component built from Rust takes of memory: a call of few rows has room enough in the one
//! page with which it begins, since to grow a memory and to shrink it again takes longer than such a
//! call.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int64Array, StringArray};
use arrow::datatypes::Int64Type;
use unskew_engine::{CallErrorKind, Component, Engine, Settings};
use unskew_tests::component;

const PAGE: usize = 65_536;

fn loaded(memory_limit: usize) -> Arc<Component> {
    let engine = Engine::new(&Settings {
        memory_limit,
        instances: 1,
        ..Settings::default()
    });
    let bytes = std::fs::read(component("failing")).unwrap();
    engine.unwrap().load(&bytes).unwrap()
}

/// Columns of the mode and the value: nothing fails in the mode `ok`.
fn rows(count: usize) -> Vec<ArrayRef> {
    vec![
        Arc::new(StringArray::from(vec!["ok"; count])),
        Arc::new((0..count as i64).collect::<Int64Array>()),
    ]
}

#[test]
fn a_call_of_few_rows_does_not_grow_the_memory() {
    let component = loaded(PAGE);
    for count in [1, 100] {
        let returned = component.call(&rows(count), count).unwrap();
        assert_eq!(returned.rows, count);
    }
    let error = component.call(&rows(8_192), 8_192).unwrap_err();
    assert_eq!(error.kind, CallErrorKind::Memory, "{error:?}");
}

#[test]
fn a_large_batch_grows_it_as_far_as_it_needs() {
    let component = loaded(64 << 20);
    for count in [1_000, 8_192, 100_000] {
        let returned = component.call(&rows(count), count).unwrap();
        let values = returned.columns[0].as_primitive::<Int64Type>();
        assert!(values.iter().eq((0..count as i64).map(Some)), "{count}");
    }
}
