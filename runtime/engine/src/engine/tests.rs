use std::time::Duration;

use super::*;
use crate::testing::{self, Guest};

fn refused(bytes: &[u8]) -> String {
    Engine::new(&testing::settings())
        .unwrap()
        .load(bytes)
        .unwrap_err()
        .to_string()
}

fn component(text: &str) -> Vec<u8> {
    wat::parse_str(text).unwrap()
}

#[test]
fn a_component_is_loaded_and_says_what_it_is() {
    let bytes = Guest::identity().bytes();
    let loaded = Engine::new(&testing::settings())
        .unwrap()
        .load(&bytes)
        .unwrap();
    assert_eq!(loaded.digest(), Digest::of(&bytes));
    assert_eq!(loaded.size(), bytes.len());
    assert_eq!(
        loaded.description().provenance(),
        "guest 0.1.0, function `run`"
    );
    assert_eq!(loaded.description().inputs, Guest::identity().inputs);
    assert_eq!(loaded.description().outputs, Guest::identity().outputs);
}

#[test]
fn what_is_no_component_is_refused() {
    let component = Guest::identity().bytes();
    let cases: [(&[u8], &str); 6] = [
        (b"", "it begins with nothing"),
        (b"PK\x03\x04 something", "it begins with `PK\\x03\\x04 som`"),
        (b"(component)", "no WebAssembly component"),
        (b"\0asm\x01\0\0\0", "a WebAssembly module and no component"),
        (&component[..component.len() / 2], "does not compile"),
        (b"\0asm\x0d\0\x01\0garbage", "does not compile"),
    ];
    for (bytes, expected) in cases {
        let error = refused(bytes);
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn imports_are_listed_and_refused() {
    let bytes = component(
        r#"(component
            (import "wasi:clocks/wall-clock@0.2.0" (instance))
            (import "now" (func (result u64))))"#,
    );
    let error = refused(&bytes);
    assert!(
        error.contains("imports `wasi:clocks/wall-clock@0.2.0`, `now`;"),
        "{error}"
    );
    let inspection = Engine::new(&testing::settings())
        .unwrap()
        .inspect(&bytes)
        .unwrap();
    assert_eq!(inspection.imports, ["wasi:clocks/wall-clock@0.2.0", "now"]);
    assert_eq!(inspection.size, bytes.len());
    assert_eq!(inspection.digest, Digest::of(&bytes));
}

#[test]
fn another_export_than_the_transformation_is_named() {
    let error = refused(&component("(component)"));
    assert!(error.contains("it exports none"), "{error}");
    let error = refused(&component(
        r#"(component
            (core module $m (func (export "f")))
            (core instance $i (instantiate $m))
            (func (export "go") (canon lift (core func $i "f"))))"#,
    ));
    assert!(
        error.contains("does not export `unskew:transform/transformation@1.0.0`; it exports `go`"),
        "{error}"
    );
}

#[test]
fn an_export_of_another_shape_is_refused() {
    let error = refused(&component(
        r#"(component
            (core module $m (func (export "f") (result i32) i32.const 0))
            (core instance $i (instantiate $m))
            (func $f (result u32) (canon lift (core func $i "f")))
            (instance $t (export "describe" (func $f)) (export "run" (func $f)))
            (export "unskew:transform/transformation@1.0.0" (instance $t)))"#,
    ));
    assert!(error.contains("but not as the contract has it"), "{error}");
    let error = refused(&component(
        r#"(component
            (instance $t)
            (export "unskew:transform/transformation@1.0.0" (instance $t)))"#,
    ));
    assert!(error.contains("`describe`"), "{error}");
}

#[test]
fn a_component_that_cannot_describe_itself_is_refused() {
    let cases = [
        ("unreachable", "cannot describe itself: stopped itself"),
        (
            "(call $panic)",
            "cannot describe itself: panicked: bad-value",
        ),
        ("(loop $l (br $l))", "took longer than 200 ms"),
        (
            "(loop $l (drop (call $alloc (i32.const 65536))) (br $l))",
            "ran out of memory (limit 8 MiB)",
        ),
        ("(return (i32.const 3))", "cannot describe itself"),
        ("(return (i32.const 0x7ffffff0))", "cannot describe itself"),
    ];
    let engine = testing::impatient();
    for (describe, expected) in cases {
        let guest = Guest {
            describe: describe.to_owned(),
            ..Guest::identity()
        };
        let error = engine.load(&guest.bytes()).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
    Guest::identity().load_into(&engine);
}

#[test]
fn a_wrong_description_is_refused() {
    let twice = testing::field("x", testing::INT64);
    let guest = Guest {
        outputs: vec![twice.clone(), twice],
        ..Guest::identity()
    };
    let error = refused(&guest.bytes());
    assert!(error.contains("two outputs are named `x`"), "{error}");
    let guest = Guest {
        outputs: vec![],
        ..Guest::identity()
    };
    assert!(refused(&guest.bytes()).contains("no outputs"));
}

#[test]
fn more_memory_than_there_is_is_refused_at_once() {
    let guest = Guest {
        pages: 1_025,
        ..Guest::identity()
    };
    let error = refused(&guest.bytes());
    assert!(
        error.contains("needs 65600 KiB of memory at the start; at most 64 MiB"),
        "{error}"
    );
}

#[test]
fn settings_out_of_range_are_refused() {
    type Change = fn(&mut Settings);
    let cases: [(Change, &str); 5] = [
        (|s| s.memory_limit = 1_000_000, "`memory_limit` is 1000000"),
        (|s| s.memory_limit = 0, "`memory_limit` is 0"),
        (|s| s.timeout = Duration::ZERO, "`timeout` is 0"),
        (|s| s.instances = 0, "`instances` is 0"),
        (|s| s.chunk_rows = 0, "`chunk_rows` is 0"),
    ];
    for (change, expected) in cases {
        let mut settings = testing::settings();
        change(&mut settings);
        let error = Engine::new(&settings).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn without_a_pool_results_are_the_same() {
    let settings = testing::settings();
    let config = config::wasmtime_config(&settings, Allocation::OnDemand);
    let wasmtime = wasmtime::Engine::new(&config).unwrap();
    let engine = Engine::of(&settings, wasmtime, Allocation::OnDemand).unwrap();
    let guest = Guest::each(testing::INT64, "(i64.div_s (i64.const 6) (local.get $x))");
    let (pooled, not_pooled) = (guest.load(), guest.load_into(&engine));
    let good = [testing::ints(&[1, 2, 3, -6])];
    assert_eq!(
        pooled.call(&good, 4).unwrap().columns,
        not_pooled.call(&good, 4).unwrap().columns
    );
    let bad = [testing::ints(&[1, 0])];
    assert_eq!(
        pooled.call(&bad, 2).unwrap_err(),
        not_pooled.call(&bad, 2).unwrap_err()
    );
    let greedy = Guest::each(
        testing::INT64,
        "(loop $l (drop (call $alloc (i32.const 65536))) (br $l)) (local.get $x)",
    );
    assert_eq!(
        greedy.load().call(&good, 4).unwrap_err(),
        greedy.load_into(&engine).call(&good, 4).unwrap_err()
    );
}

#[test]
fn the_thread_of_interruptions_ends_with_the_engine() {
    let engine = Engine::new(&Settings {
        timeout: Duration::from_millis(20),
        ..testing::settings()
    })
    .unwrap();
    let component = Guest::identity().load_into(&engine);
    let weak = engine.shared.wasmtime.weak();
    drop(engine);
    // The component still works without the engine.
    component.call(&[testing::ints(&[1])], 1).unwrap();
    assert!(weak.upgrade().is_some());
    drop(component);
    // It may be at its work for a moment; then it is gone, or this never ends.
    while weak.upgrade().is_some() {
        std::thread::yield_now();
    }
}
