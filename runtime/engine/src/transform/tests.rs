use std::sync::Arc;

use arrow::array::{BinaryArray, Int64Array};
use unskew_core::types::{DataType, ScalarType};

use super::*;
use crate::testing::{self, Guest, INT64, field, ints, required, text};
use crate::{Engine, Settings};

/// Twice x; negative x's fail, 13 panics, 14 divides by zero.
const DOUBLE: &str = "
    (if (i64.lt_s (local.get $x) (i64.const 0)) (then (global.set $failed (i32.const 1))))
    (if (i64.eq (local.get $x) (i64.const 13)) (then (call $panic)))
    (drop (i64.div_s (i64.const 1) (i64.sub (local.get $x) (i64.const 14))))
    (i64.mul (local.get $x) (i64.const 2))";

fn nullable(values: &[Option<i64>]) -> ArrayRef {
    Arc::new(Int64Array::from(values.to_vec()))
}

fn on_demand(
    component: &Component,
    values: &[Option<i64>],
    on_error: OnError,
) -> Result<String, Box<Failure>> {
    let columns = transform_on_demand(component, &[nullable(values)], values.len(), on_error)?;
    assert_eq!(columns[0].len(), values.len());
    Ok(text(&columns[0]))
}

fn engine(chunk_rows: usize) -> Engine {
    Engine::new(&Settings {
        chunk_rows,
        memory_limit: 8 << 20,
        ..testing::settings()
    })
    .unwrap()
}

#[test]
fn a_null_in_a_required_input_is_not_seen_and_gives_null() {
    let component = Guest::each(INT64, DOUBLE).load();
    let values = [None, Some(1), None, None, Some(2), None];
    for on_error in [OnError::Fail, OnError::Null] {
        assert_eq!(
            on_demand(&component, &values, on_error).unwrap(),
            "[null,2,null,null,4,null]"
        );
        assert_eq!(
            on_demand(&component, &[None, None], on_error).unwrap(),
            "[null,null]"
        );
        assert_eq!(on_demand(&component, &[], on_error).unwrap(), "[]");
    }
}

#[test]
fn a_null_in_a_nullable_input_is_seen() {
    let component = Guest::identity().load();
    assert_eq!(
        on_demand(&component, &[Some(1), None], OnError::Fail).unwrap(),
        "[1,null]"
    );
}

#[test]
fn a_failure_names_component_function_row_and_the_guests_message() {
    let component = Guest::each(INT64, DOUBLE).named("route").load();
    let values = [None, Some(1), Some(-5), Some(2), Some(-1)];
    let failure = on_demand(&component, &values, OnError::Fail).unwrap_err();
    assert_eq!(
        failure.to_string(),
        "component (route 0.1.0, function `run`) failed on row 2: the guest says no"
    );
    assert_eq!(
        failure.of_transformation("miles").shifted(100).to_string(),
        "transformation `miles` (route 0.1.0, function `run`) failed on row 102: the guest says no"
    );
}

#[test]
fn the_first_row_that_fails_is_the_one_that_is_named() {
    // Calls of more than one row name the last row; alone each negative row fails.
    let mut guest = Guest::each(INT64, DOUBLE);
    guest.run = format!(
        "(if (i32.gt_u (local.get $rows) (i32.const 1))
           (then (return (call $fail (i32.const 1) (i32.sub (local.get $rows) (i32.const 1))))))
         {}",
        guest.run.replace("(local $at i32) (local $row i32)", "")
    );
    guest.run = format!("(local $at i32) (local $row i32) {}", guest.run);
    let component = guest.load();
    let values = [Some(3), Some(-1), Some(4), Some(-2), Some(-3)];
    let failure = on_demand(&component, &values, OnError::Fail).unwrap_err();
    assert_eq!(failure.row, Some(1));
    assert_eq!(
        on_demand(&component, &values, OnError::Null).unwrap(),
        "[6,null,8,null,null]"
    );
}

#[test]
fn the_size_of_a_chunk_never_decides_a_result() {
    let values: Vec<Option<i64>> = (0..200_i64)
        .map(|i| match i % 23 {
            3 => None,
            5 => Some(-i),
            7 => Some(13),
            8 => Some(14),
            _ => Some(i * 1_000),
        })
        .collect();
    let expected: Vec<Option<i64>> = values
        .iter()
        .map(|x| x.filter(|&x| x >= 0 && x != 13 && x != 14).map(|x| x * 2))
        .collect();
    let expected = text(&nullable(&expected));
    let mut first = None;
    for chunk_rows in [1, 2, 3, 7, 64, 8_192] {
        let component = Guest::each(INT64, DOUBLE).load_into(&engine(chunk_rows));
        assert_eq!(
            on_demand(&component, &values, OnError::Null).unwrap(),
            expected
        );
        let failure = on_demand(&component, &values, OnError::Fail).unwrap_err();
        assert_eq!(*first.get_or_insert(failure.clone()), failure);
        assert_eq!(failure.row, Some(5));
    }
}

#[test]
fn traps_that_name_no_row_are_found_by_halving() {
    let mut guest = Guest::each(INT64, DOUBLE);
    guest.run = guest.run.replace("(call $enter (local.get $row))", "");
    let component = guest.load();
    let values: Vec<Option<i64>> = (0..1_000)
        .map(|i| Some(if i == 777 { 14 } else { 100 + i }))
        .collect();
    let failure = on_demand(&component, &values, OnError::Fail).unwrap_err();
    assert_eq!(failure.row, Some(777));
    assert_eq!(failure.message, "divided by zero");
    let columns =
        transform_on_demand(&component, &[nullable(&values)], 1_000, OnError::Null).unwrap();
    assert_eq!(columns[0].null_count(), 1);
    assert!(columns[0].is_null(777));
}

#[test]
fn rows_that_all_fail_are_all_found() {
    for (value, enter) in [(-1, true), (13, true), (14, false)] {
        let mut guest = Guest::each(INT64, DOUBLE);
        if !enter {
            guest.run = guest.run.replace("(call $enter (local.get $row))", "");
        }
        let columns = transform_on_demand(
            &guest.load(),
            &[ints(&vec![value; 8_192])],
            8_192,
            OnError::Null,
        );
        assert_eq!(columns.unwrap()[0].null_count(), 8_192);
    }
}

#[test]
fn a_chunk_that_runs_out_of_memory_is_split() {
    // 1 MiB for each row, of 8 MiB.
    let component = Guest::each(
        INT64,
        "(drop (call $alloc (i32.const 1048576))) (local.get $x)",
    )
    .load_into(&engine(8_192));
    let values: Vec<Option<i64>> = (0..100).map(Some).collect();
    assert_eq!(
        on_demand(&component, &values, OnError::Fail).unwrap(),
        text(&nullable(&values))
    );
    // A row that needs more than there is fails, and it alone.
    let component = Guest::each(
        INT64,
        "(drop (call $alloc (i32.mul (i32.wrap_i64 (local.get $x)) (i32.const 1048576))))
         (local.get $x)",
    )
    .load_into(&engine(8_192));
    let values = [Some(3), Some(3), Some(9), Some(3), Some(3)];
    assert_eq!(
        on_demand(&component, &values, OnError::Null).unwrap(),
        "[3,3,null,3,3]"
    );
    let failure = on_demand(&component, &values, OnError::Fail).unwrap_err();
    assert_eq!(
        (failure.row, failure.message.as_str()),
        (Some(2), "ran out of memory (limit 8 MiB)")
    );
}

#[test]
fn a_chunk_that_returns_too_much_is_split() {
    let bytes = DataType::Scalar(ScalarType::Bytes);
    let mut guest = Guest::echo(Kind::OnDemand, vec![required("x", bytes)]);
    guest.outputs = (0..40).map(|i| required(&format!("y{i}"), bytes)).collect();
    guest.run = "(local $many i32) (local $i i32)
        (local.set $many (call $alloc (i32.const 2240)))
        (loop $next
          (memory.copy (i32.add (local.get $many) (i32.mul (local.get $i) (i32.const 56)))
            (local.get $columns) (i32.const 56))
          (local.set $i (i32.add (local.get $i) (i32.const 1)))
          (br_if $next (i32.lt_u (local.get $i) (i32.const 40))))
        (call $ok (local.get $rows) (local.get $many) (i32.const 40) (i32.const 0) (i32.const 0))"
        .to_owned();
    let large = vec![7_u8; 2 << 20];
    let rows: ArrayRef = Arc::new(BinaryArray::from(vec![&large[..], b"", &large, b"x"]));
    let columns =
        transform_on_demand(&guest.load(), &[Arc::clone(&rows)], 4, OnError::Fail).unwrap();
    assert!(columns.iter().all(|column| column == &rows));
}

#[test]
fn a_row_that_takes_too_long_is_found() {
    let component = Guest::each(
        INT64,
        "(loop $l (br_if $l (i64.eq (local.get $x) (i64.const 13)))) (local.get $x)",
    )
    .load_into(&testing::impatient());
    let values: Vec<Option<i64>> = (0..40).map(Some).collect();
    let failure = on_demand(&component, &values, OnError::Fail).unwrap_err();
    assert_eq!(
        (failure.row, failure.message.as_str()),
        (Some(13), "took longer than 200 ms")
    );
    let columns = transform_on_demand(&component, &[nullable(&values)], 40, OnError::Null).unwrap();
    assert_eq!(columns[0].null_count(), 1);
    assert!(columns[0].is_null(13));
}

#[test]
fn a_component_that_hangs_on_every_row_is_given_up() {
    let component =
        Guest::each(INT64, "(loop $l (br $l)) (local.get $x)").load_into(&testing::waiting(20));
    let failure =
        transform_on_demand(&component, &[ints(&[0; 1_000])], 1_000, OnError::Null).unwrap_err();
    assert!(
        failure
            .message
            .contains("took longer than 20 ms, like 32 calls before it"),
        "{failure}"
    );
}

#[test]
fn a_wrong_number_of_rows_is_a_failure_like_any_other() {
    let mut guest = Guest::identity();
    guest.run = format!(
        "(if (i32.gt_u (local.get $rows) (i32.const 2))
           (then (local.set $rows (i32.const 2)))) {}",
        guest.run
    );
    let component = guest.load();
    let values: Vec<Option<i64>> = (0..9).map(Some).collect();
    assert_eq!(
        on_demand(&component, &values, OnError::Fail).unwrap(),
        text(&nullable(&values))
    );
    guest.run = format!(
        "(local.set $rows (i32.add (local.get $rows) (i32.const 1))) {}",
        Guest::identity().run
    );
    let failure = on_demand(&guest.load(), &values, OnError::Fail).unwrap_err();
    assert_eq!(failure.row, Some(0));
    assert_eq!(failure.message, "returned 2 rows for 1");
}

#[test]
fn batch_rows_follow_their_source_rows() {
    for chunk_rows in [1, 2, 3, 8_192] {
        let component = Guest::repeat().load_into(&engine(chunk_rows));
        let values = [Some(2), Some(0), None, Some(-1), Some(3), None];
        let rows = transform_batch(&component, &[nullable(&values)], 6, OnError::Fail).unwrap();
        assert_eq!(text(&rows.columns[0]), "[2,2,null,3,3,3,null]");
        assert_eq!(rows.source_row, [0, 0, 2, 4, 4, 4, 5]);
        let given: Vec<bool> = rows.given.iter().flatten().collect();
        assert_eq!(given, [true, true, false, true, true, true, false]);
    }
}

#[test]
fn a_source_row_that_fails_gives_one_row_of_nulls() {
    // More than its memory holds: it traps.
    let values = [Some(1), Some(1 << 40), Some(2), Some(1 << 40), None];
    for chunk_rows in [1, 2, 8_192] {
        let component = Guest::repeat().load_into(&engine(chunk_rows));
        let rows = transform_batch(&component, &[nullable(&values)], 5, OnError::Null).unwrap();
        assert_eq!(text(&rows.columns[0]), "[1,null,2,2,null,null]");
        assert_eq!(rows.source_row, [0, 1, 2, 2, 3, 4]);
        let given: Vec<bool> = rows.given.iter().flatten().collect();
        assert_eq!(given, [true, false, true, true, false, false]);
        let failure =
            transform_batch(&component, &[nullable(&values)], 5, OnError::Fail).unwrap_err();
        assert_eq!(failure.row, Some(1));
    }
}

#[test]
fn no_rows_give_no_rows() {
    let rows = transform_batch(&Guest::repeat().load(), &[ints(&[])], 0, OnError::Fail).unwrap();
    assert_eq!((rows.columns[0].len(), rows.source_row.len()), (0, 0));
    // All rows were looked at, and gave none.
    let rows =
        transform_batch(&Guest::repeat().load(), &[ints(&[0, 0])], 2, OnError::Fail).unwrap();
    assert_eq!((rows.columns[0].len(), rows.source_row.len()), (0, 0));
}

#[test]
fn a_component_of_the_other_kind_or_other_columns_are_refused() {
    let component = Guest::repeat().load();
    let failure = transform_on_demand(&component, &[ints(&[1])], 1, OnError::Null).unwrap_err();
    assert!(failure.message.contains("kind batch"), "{failure}");
    assert_eq!(failure.kind, CallErrorKind::Input);
    for inputs in [vec![], vec![ints(&[1, 2])]] {
        let failure = transform_batch(&component, &inputs, 1, OnError::Null).unwrap_err();
        assert_eq!(failure.kind, CallErrorKind::Input);
    }
    let floats: ArrayRef = Arc::new(arrow::array::Float64Array::from(vec![1.0]));
    let failure = transform_batch(&component, &[floats], 1, OnError::Null).unwrap_err();
    assert!(failure.message.contains("it must be int64"), "{failure}");
}

#[test]
fn a_transformation_without_inputs_runs_for_each_row() {
    let mut guest = Guest::new(
        Kind::OnDemand,
        vec![],
        vec![field("y", INT64)],
        "(local.set $columns (call $alloc (i32.const 56)))
         (i32.store8 (local.get $columns) (i32.const 0))
         (i32.store offset=4 (local.get $columns) (local.get $rows))
         (i32.store offset=16 (local.get $columns) (i32.const 2))
         (i32.store offset=20 (local.get $columns)
           (call $alloc (i32.mul (local.get $rows) (i32.const 8))))
         (i32.store offset=24 (local.get $columns) (local.get $rows))
         (call $ok (local.get $rows) (local.get $columns) (i32.const 1)
           (i32.const 0) (i32.const 0))",
    );
    guest.pages = 3;
    let columns = transform_on_demand(&guest.load(), &[], 3, OnError::Fail).unwrap();
    assert_eq!(text(&columns[0]), "[0,0,0]");
}
