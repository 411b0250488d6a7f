use arrow::array::{Array, BinaryArray, StringArray, TimestampMicrosecondArray};
use unskew_core::component::Kind;
use unskew_core::types::{DataType, Field, ScalarType, UTC};

use super::*;
use crate::Engine;
use crate::testing::{self, FLOAT64, Guest, INT64, STRING, field, ints, required, text};

/// The error of a call; then the process lives on, and the component's next call works.
fn error(guest: &Guest, columns: &[ArrayRef]) -> CallError {
    error_of(&guest.load(), columns)
}

fn error_of(component: &Component, columns: &[ArrayRef]) -> CallError {
    let rows = columns[0].len();
    let error = component.call(columns, rows).unwrap_err();
    assert_eq!(component.call(columns, rows).unwrap_err(), error);
    let neighbour = Guest::identity().load();
    let returned = neighbour.call(&[ints(&[7])], 1).unwrap();
    assert_eq!(text(&returned.columns[0]), "[7]");
    error
}

fn all_types() -> Vec<Field> {
    let scalars = ScalarType::ALL.map(DataType::Scalar);
    let lists = ScalarType::ALL.map(DataType::List);
    let types = scalars.into_iter().chain(lists);
    types
        .flat_map(|data_type| {
            [
                field(&format!("n_{}", data_type.scalar()), data_type),
                required(&format!("r_{}", data_type.scalar()), data_type),
            ]
        })
        .enumerate()
        .map(|(i, mut field)| {
            field.name = format!("{}_{i}", field.name);
            field
        })
        .collect()
}

#[test]
fn each_copy_is_warm_before_the_first_call() {
    // What it says of the row is of no interest, nor that it never ends.
    let hangs = "(loop $l (br $l)) (local.get $x)";
    for guest in [Guest::identity(), Guest::each(INT64, hangs)] {
        let component = guest.load_into(&Engine::new(&testing::settings()).unwrap());
        let pool = component.shared.wasmtime.pooling_allocator_metrics();
        let pool = pool.unwrap();
        assert_eq!(pool.unused_warm_memories(), 1, "the one that was described");
        component.warm();
        let copies = component.lanes.all().len();
        assert_eq!(pool.unused_warm_memories() as usize, copies);
        assert_eq!(pool.memories(), 0);
    }
}

#[test]
fn every_type_goes_in_and_comes_out_as_it_was() {
    for kind in [Kind::OnDemand, Kind::Batch] {
        let fields = all_types();
        let component = Guest::echo(kind, fields.clone()).load();
        let columns = samples::columns(&fields, 256).unwrap();
        for (start, length) in [
            (0, 256),
            (0, 1),
            (1, 1),
            (3, 0),
            (5, 9),
            (13, 200),
            (255, 1),
        ] {
            let part: Vec<ArrayRef> = columns.iter().map(|c| c.slice(start, length)).collect();
            let returned = component.call(&part, length).unwrap();
            assert_eq!(returned.rows, length);
            assert_eq!(returned.columns, part);
            if kind == Kind::Batch {
                assert_eq!(returned.source_row, (0..length as u32).collect::<Vec<_>>());
            }
        }
    }
}

#[test]
fn a_component_keeps_nothing_from_call_to_call() {
    let mut guest = Guest::each(
        INT64,
        "(global.set $n (i64.add (global.get $n) (i64.const 1))) (global.get $n)",
    );
    guest.items += "(global $n (mut i64) (i64.const 0))";
    let component = guest.load();
    for _ in 0..3 {
        let returned = component.call(&[ints(&[0, 0])], 2).unwrap();
        assert_eq!(text(&returned.columns[0]), "[1,2]");
    }
}

#[test]
fn more_calls_at_once_than_instances_wait_for_their_turn() {
    let component = Guest::each(INT64, "(i64.mul (local.get $x) (i64.const 3))").load();
    std::thread::scope(|scope| {
        for thread in 0..16_i64 {
            let component = &component;
            scope.spawn(move || {
                for call in 0..50 {
                    let x = thread * 1_000 + call;
                    let returned = component.call(&[ints(&[x])], 1).unwrap();
                    assert_eq!(text(&returned.columns[0]), format!("[{}]", 3 * x));
                }
            });
        }
    });
}

#[test]
fn traps_are_told_in_plain_words() {
    let cases = [
        ("unreachable", CallErrorKind::Trapped, "stopped itself"),
        (
            "(call $panic) (i64.const 0)",
            CallErrorKind::Panicked,
            "panicked: bad-value",
        ),
        (
            "(i64.div_s (i64.const 1) (i64.const 0))",
            CallErrorKind::Trapped,
            "divided by zero",
        ),
        (
            "(i64.div_s (i64.const 0x8000000000000000) (i64.const -1))",
            CallErrorKind::Trapped,
            "arithmetic overflow",
        ),
        (
            "(i64.trunc_f64_s (f64.const nan))",
            CallErrorKind::Trapped,
            "converted a float to an integer that cannot hold it",
        ),
        (
            "(call $each (local.get $x) (local.get $row))",
            CallErrorKind::Trapped,
            "called itself too deeply",
        ),
        (
            "(i64.load (i32.const -8))",
            CallErrorKind::Trapped,
            "reached outside of its memory",
        ),
        (
            "(loop $l (drop (call $alloc (i32.const 65536))) (br $l)) (local.get $x)",
            CallErrorKind::Memory,
            "ran out of memory (limit 64 MiB)",
        ),
        (
            "(drop (memory.grow (i32.const 60000))) (local.get $x)",
            CallErrorKind::Memory,
            "ran out of memory",
        ),
    ];
    for (body, kind, message) in cases {
        let body = format!(
            "(if (result i64) (i64.eq (local.get $x) (i64.const 13))
               (then {body}) (else (local.get $x)))"
        );
        let component = Guest::each(INT64, &body).load();
        let error = error_of(&component, &[ints(&[1, 2, 13, 4])]);
        assert_eq!(error.kind, kind, "{error}");
        assert!(error.message.contains(message), "{error}");
        assert_eq!(error.row, Some(2), "{error}");
        // The same component, without the row at fault.
        assert_eq!(
            text(&component.call(&[ints(&[1, 2])], 2).unwrap().columns[0]),
            "[1,2]"
        );
    }
}

#[test]
fn an_endless_loop_is_ended() {
    let engine = testing::impatient();
    let guest = Guest::each(INT64, "(loop $l (br $l)) (local.get $x)");
    let error = error_of(&guest.load_into(&engine), &[ints(&[1])]);
    assert_eq!(error.kind, CallErrorKind::Time);
    assert_eq!(error.message, "took longer than 200 ms");
    assert_eq!(error.row, Some(0));
    // In the start function too, before anything was called.
    let mut guest = Guest::identity();
    guest.items = "(func $start (loop $l (br $l))) (start $start)".to_owned();
    let error = engine.load(&guest.bytes()).unwrap_err().to_string();
    assert!(error.contains("took longer than 200 ms"), "{error}");
}

#[test]
fn the_guests_own_failure_is_passed_on() {
    let guest = Guest::each(INT64, "(global.set $failed (i32.const 1)) (local.get $x)");
    let failed = error(&guest, &[ints(&[1, 2])]);
    assert_eq!(failed.kind, CallErrorKind::Failed);
    assert_eq!(failed.message, "the guest says no");
    assert_eq!(failed.row, Some(0));
    // A row that is not there is not believed, nor is a row that is not named.
    for known in [0, 1] {
        let guest = Guest {
            run: format!("(call $fail (i32.const {known}) (i32.const 2))"),
            ..Guest::identity()
        };
        assert_eq!(error(&guest, &[ints(&[1, 2])]).row, None);
    }
}

#[test]
fn nothing_that_comes_back_is_believed() {
    const ROWS: &str = "(local.set $rows (i32.const 3))";
    const BITMAP: &str = "(i32.store offset=8 (local.get $columns) (call $alloc (i32.const 8)))
                          (i32.store offset=12 (local.get $columns) (i32.const 1))";
    let int = || required("x", INT64);
    let two = || ints(&[1, 2]);
    let texts = || -> ArrayRef { Arc::new(StringArray::from(vec!["é", "b", "cc"])) };
    let bytes = || -> ArrayRef { Arc::new(BinaryArray::from(vec![&b"a"[..], b"b", b"cc"])) };
    let offset = |at: u32, value: u32| {
        format!(
            "(i32.store offset={at} (i32.load offset=20 (local.get $columns)) (i32.const {value}))"
        )
    };
    let put = |at: u32, value: &str| {
        format!("(i32.store offset={at} (local.get $columns) (i32.const {value}))")
    };
    let byte = |at: u32| {
        format!(
            "(i32.store8 offset={at} (i32.load offset=28 (local.get $columns)) (i32.const 255))"
        )
    };
    let text_field = || required("x", STRING);
    let bytes_field = || required("x", DataType::Scalar(ScalarType::Bytes));
    let cases: Vec<(Field, ArrayRef, String, &str, Option<usize>)> = vec![
        (int(), two(), ROWS.into(), "returned 3 rows for 2", None),
        (
            int(),
            two(),
            "(local.set $count (i32.const 0))".into(),
            "returned 0 columns; it describes 1",
            None,
        ),
        (int(), two(), put(4, "7"), "of 7 values instead of 2", None),
        (
            int(),
            two(),
            put(24, "1"),
            "of 1 numbers instead of 2",
            None,
        ),
        (
            int(),
            two(),
            put(16, "4"),
            "as float64; it describes int64",
            None,
        ),
        (
            int(),
            two(),
            put(16, "7"),
            "as timestamp; it describes int64",
            None,
        ),
        (int(), two(), put(16, "99"), "does not allow", None),
        (int(), two(), put(0, "1"), "", None),
        (int(), two(), put(24, "0x10000000"), "does not allow", None),
        (int(), two(), put(20, "-8"), "does not allow", None),
        (int(), two(), put(20, "3"), "does not allow", None),
        (
            int(),
            two(),
            format!("{} {}", put(8, "0"), put(12, "5")),
            "a bitmap of validity of 5 bytes; 2 values have 1",
            None,
        ),
        (
            int(),
            two(),
            BITMAP.into(),
            "with a null, and describes it as not nullable",
            Some(0),
        ),
        (
            text_field(),
            texts(),
            offset(0, 1),
            "offsets from 1 to 5; they must be from 0 to 5",
            None,
        ),
        (
            text_field(),
            texts(),
            offset(12, 4),
            "offsets from 0 to 4",
            None,
        ),
        (
            text_field(),
            texts(),
            offset(4, 4),
            "an offset that falls from 4 to 3",
            Some(1),
        ),
        (
            text_field(),
            texts(),
            offset(4, 0x8000_0000),
            "falls from 2147483648",
            Some(1),
        ),
        (text_field(), texts(), offset(4, 1), "no UTF-8", Some(0)),
        (text_field(), texts(), byte(2), "no UTF-8", Some(1)),
        (text_field(), texts(), byte(4), "no UTF-8", Some(2)),
        (
            text_field(),
            texts(),
            put(24, "3"),
            "with 3 offsets; 3 values have 4",
            None,
        ),
        (
            text_field(),
            texts(),
            put(32, "4"),
            "they must be from 0 to 4",
            None,
        ),
        (
            text_field(),
            texts(),
            put(16, "6"),
            "as bytes; it describes string",
            None,
        ),
        (
            bytes_field(),
            bytes(),
            offset(4, 3),
            "falls from 3 to 2",
            Some(1),
        ),
        (bytes_field(), bytes(), put(24, "0"), "with 0 offsets", None),
        (
            required("x", DataType::Scalar(ScalarType::Timestamp)),
            Arc::new(TimestampMicrosecondArray::from(vec![1, 2]).with_timezone(UTC)),
            "(i64.store offset=8 (i32.load offset=20 (local.get $columns))
               (i64.const 9223372036854775807))"
                .into(),
            "outside of the years 1 to 9999",
            Some(1),
        ),
        (
            required("x", DataType::Scalar(ScalarType::Bool)),
            Arc::new(arrow::array::BooleanArray::from(vec![true; 9])),
            put(24, "1"),
            "a bitmap of values of 1 bytes; 9 values have 2",
            None,
        ),
    ];
    for (field, column, edit, message, row) in cases {
        let mut guest = Guest::echo(Kind::OnDemand, vec![field]);
        guest.run = format!("{edit} {}", guest.run);
        let error = error(&guest, &[column]);
        assert_eq!(error.kind, CallErrorKind::Contract, "{edit}: {error}");
        assert!(error.message.contains(message), "{edit}: {error}");
        assert_eq!(error.row, row, "{edit}: {error}");
    }
}

#[test]
fn lists_are_not_believed_either() {
    let mut builder = arrow::array::ListBuilder::new(arrow::array::StringBuilder::new());
    builder.append_value([Some("a")]);
    builder.append_value([Some("b"), Some("é")]);
    let lists: ArrayRef = Arc::new(builder.finish());
    let list_field = || required("x", DataType::List(ScalarType::String));
    let cases = [
        // The offsets of the lists.
        (
            "(i32.store offset=4 (i32.load offset=16 (local.get $columns)) (i32.const 9))",
            "an offset that falls from 9 to 3",
            Some(1),
        ),
        (
            "(i32.store offset=8 (i32.load offset=16 (local.get $columns)) (i32.const 2))",
            "offsets from 0 to 2; they must be from 0 to 3",
            None,
        ),
        // How many items there are.
        (
            "(i32.store offset=24 (local.get $columns) (i32.const 4))",
            "must be from 0 to 4",
            None,
        ),
        // The text of the last item.
        (
            "(i32.store8 offset=2 (i32.load offset=48 (local.get $columns)) (i32.const 255))",
            "whose items are with a text that is no UTF-8",
            Some(1),
        ),
        // The type of the items.
        (
            "(i32.store offset=36 (local.get $columns) (i32.const 6))",
            "whose items are as bytes; it describes string",
            None,
        ),
    ];
    for (edit, message, row) in cases {
        let mut guest = Guest::echo(Kind::OnDemand, vec![list_field()]);
        guest.run = format!("{edit} {}", guest.run);
        let error = error(&guest, &[Arc::clone(&lists)]);
        assert!(error.message.contains(message), "{edit}: {error}");
        assert_eq!(error.row, row, "{edit}: {error}");
    }
    // As no lists at all.
    let mut guest = Guest::echo(Kind::OnDemand, vec![required("x", INT64)]);
    guest.outputs = vec![list_field()];
    assert!(
        error(&guest, &[ints(&[1])])
            .message
            .contains("without lists")
    );
}

#[test]
fn what_lies_under_a_null_is_of_no_meaning() {
    let mut guest = Guest::echo(Kind::OnDemand, vec![required("x", STRING)]);
    guest.outputs = vec![field("x", STRING)];
    // The second text becomes null, and its bytes no UTF-8.
    guest.run = format!(
        "(i32.store offset=8 (local.get $columns) (call $alloc (i32.const 8)))
         (i32.store8 (i32.load offset=8 (local.get $columns)) (i32.const 5))
         (i32.store offset=12 (local.get $columns) (i32.const 1))
         (i32.store8 offset=1 (i32.load offset=28 (local.get $columns)) (i32.const 255))
         {}",
        guest.run
    );
    let texts: ArrayRef = Arc::new(StringArray::from(vec!["a", "b", "c"]));
    let returned = guest.load().call(&[texts], 3).unwrap();
    assert_eq!(text(&returned.columns[0]), r#"["a",null,"c"]"#);
}

#[test]
fn source_rows_are_checked() {
    let batch = |source: &str| {
        let mut guest = Guest::echo(Kind::Batch, vec![field("x", INT64)]);
        guest.run = format!(
            "(local $source i32) (local.set $source (call $identity (local.get $rows))) {source}
             (call $ok (local.get $rows) (local.get $columns) (local.get $count)
               (local.get $source) (local.get $rows))"
        );
        error(&guest, &[ints(&[1, 2, 3])]).message
    };
    let at = |offset: u32, value: u32| {
        format!("(i32.store offset={offset} (local.get $source) (i32.const {value}))")
    };
    assert!(batch(&at(8, 3)).contains("comes from row 3, of 3 rows given"));
    assert!(batch(&at(0, u32::MAX)).contains("comes from row 4294967295"));
    assert!(batch(&at(0, 2)).contains("from row 1 after one from row 2"));
    let mut guest = Guest::echo(Kind::Batch, vec![field("x", INT64)]);
    guest.run = "(call $ok (local.get $rows) (local.get $columns) (local.get $count)
                   (i32.const 0) (i32.const 0))"
        .to_owned();
    assert!(
        error(&guest, &[ints(&[1])])
            .message
            .contains("returned 1 rows and the source row of 0")
    );
    guest.kind = Kind::OnDemand;
    guest.run = "(call $ok (local.get $rows) (local.get $columns) (local.get $count)
                   (call $identity (local.get $rows)) (local.get $rows))"
        .to_owned();
    assert!(
        error(&guest, &[ints(&[1])])
            .message
            .contains("an on-demand transformation does not have")
    );
}

#[test]
fn returning_more_than_may_be_returned_is_an_error() {
    // The same 8 MiB as 40 columns.
    let column = || required("x", DataType::Scalar(ScalarType::Bytes));
    let mut guest = Guest::echo(Kind::OnDemand, vec![column()]);
    guest.outputs = (0..40)
        .map(|i| required(&format!("y{i}"), DataType::Scalar(ScalarType::Bytes)))
        .collect();
    guest.run = "(local $many i32) (local $i i32)
        (local.set $many (call $alloc (i32.const 2240)))
        (loop $next
          (memory.copy (i32.add (local.get $many) (i32.mul (local.get $i) (i32.const 56)))
            (local.get $columns) (i32.const 56))
          (local.set $i (i32.add (local.get $i) (i32.const 1)))
          (br_if $next (i32.lt_u (local.get $i) (i32.const 40))))
        (call $ok (local.get $rows) (local.get $many) (i32.const 40) (i32.const 0) (i32.const 0))"
        .to_owned();
    let large = vec![7_u8; 8 << 20];
    let error = error(&guest, &[Arc::new(BinaryArray::from(vec![&large[..]]))]);
    assert_eq!(error.kind, CallErrorKind::ResultSpace, "{error}");
    assert_eq!(error.message, "returned too much at once (limit 128 MiB)");
    let small = guest
        .load()
        .call(&[Arc::new(BinaryArray::from(vec![&large[..9]]))], 1);
    assert_eq!(small.unwrap().columns.len(), 40);
}

#[test]
fn a_row_that_does_not_fit_into_the_memory_runs_out_of_it() {
    let large = "x".repeat(70 << 20);
    let guest = Guest::echo(Kind::OnDemand, vec![field("x", STRING)]);
    let error = error(&guest, &[Arc::new(StringArray::from(vec![large.as_str()]))]);
    assert_eq!(error.kind, CallErrorKind::Memory, "{error}");
}

#[test]
fn nans_come_in_in_one_form() {
    let guest = Guest::two_floats("f64.copysign");
    let strange = f64::from_bits(0xfff0_0000_0000_0001);
    let column =
        |value: f64| -> ArrayRef { Arc::new(arrow::array::Float64Array::from(vec![value])) };
    let of = |nan: f64| {
        let returned = guest.load().call(&[column(nan), column(1.0)], 1).unwrap();
        let values = returned.columns[0].to_data();
        values.buffers()[0].typed_data::<f64>()[0].to_bits()
    };
    assert_eq!(of(strange), of(f64::NAN));
    assert_eq!(guest.inputs[0].data_type, FLOAT64);
}

#[test]
fn no_rows_are_answered_without_a_call() {
    let guest = Guest::each(INT64, "unreachable");
    let returned = guest.load().call(&[ints(&[])], 0).unwrap();
    assert_eq!((returned.rows, returned.columns[0].len()), (0, 0));
}
