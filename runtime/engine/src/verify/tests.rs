use unskew_core::types::{DataType, ScalarType};

use super::*;
use crate::testing::{self, FLOAT64, Guest, INT64, field, required};

fn refused(guest: &Guest) -> String {
    verify(&guest.load()).unwrap_err().to_string()
}

/// `each`, whose function may see how many rows there are and what it did before.
fn with_state(body: &str) -> Guest {
    let mut guest = Guest::each(INT64, body);
    guest.items += "(global $n (mut i64) (i64.const 0))";
    guest
}

#[test]
fn components_whose_rows_stand_alone_pass() {
    for kind in [Kind::OnDemand, Kind::Batch] {
        let scalars = ScalarType::ALL.map(DataType::Scalar);
        let lists = ScalarType::ALL.map(DataType::List);
        let fields = scalars
            .into_iter()
            .chain(lists)
            .enumerate()
            .map(|(i, data_type)| field(&format!("x{i}"), data_type))
            .collect();
        verify(&Guest::echo(kind, fields).load()).unwrap();
    }
    verify(&Guest::two_floats("f64.div").load()).unwrap();
    // Some rows fail, trap or need more than there is, each alone as among others.
    for body in [
        "(if (i64.lt_s (local.get $x) (i64.const 0)) (then (global.set $failed (i32.const 1))))
         (local.get $x)",
        "(if (i64.lt_s (local.get $x) (i64.const 0)) (then (call $panic))) (local.get $x)",
        "(i64.div_s (i64.const 100) (local.get $x))",
        "(drop (call $alloc (i32.and (i32.wrap_i64 (local.get $x)) (i32.const 0xfffffff))))
         (local.get $x)",
        "unreachable",
    ] {
        let mut guest = Guest::each(INT64, body);
        verify(&guest.load()).unwrap();
        guest.run = guest.run.replace("(call $enter (local.get $row))", "");
        verify(&guest.load()).unwrap();
    }
    verify(&Guest::repeat().load()).unwrap();
}

#[test]
fn failures_of_single_rows_are_counted_and_the_first_is_named() {
    let verified = |body: &str| verify(&Guest::each(INT64, body).load()).unwrap();
    let none = Verified {
        rows: 256,
        failed: 0,
        first: None,
    };
    assert_eq!(verified("(local.get $x)"), none);
    let all = verified("(global.set $failed (i32.const 1)) (local.get $x)");
    assert_eq!((all.rows, all.failed), (256, 256));
    assert_eq!(all.first.as_deref(), Some("the guest says no"));
    let some = verified("(i64.div_s (i64.const 100) (local.get $x))");
    assert!((1..256).contains(&some.failed), "{some:?}");
    assert_eq!(some.first.as_deref(), Some("divided by zero"));
}

#[test]
fn a_result_that_depends_on_the_place_of_a_row_is_found() {
    let error = refused(&Guest::each(INT64, "(i64.extend_i32_u (local.get $row))"));
    assert!(
        error.starts_with(
            "component guest 0.1.0, function `run`: splitting rows changes a row's result"
        ),
        "{error}"
    );
    assert!(
        error
            .contains("the row: x = 1; its result alone: y = 0; its result in a batch of all rows")
            && error.ends_with("y = 1"),
        "{error}"
    );
}

#[test]
fn a_result_that_depends_on_the_rows_before_is_found() {
    refused(&with_state(
        "(global.set $n (i64.add (global.get $n) (local.get $x))) (global.get $n)",
    ));
    // Only a row that is the same as the one before it comes out otherwise.
    let error = refused(&with_state(
        "(if (i64.eq (global.get $n) (local.get $x))
           (then (return (i64.add (local.get $x) (i64.const 1)))))
         (global.set $n (local.get $x)) (local.get $x)",
    ));
    assert!(error.contains("rows changes a row's result"), "{error}");
    // Only a falling order shows it.
    let error = refused(&with_state(
        "(local $last i64) (local.set $last (global.get $n)) (global.set $n (local.get $x))
         (if (result i64)
           (i32.and
             (i64.eq (local.get $x) (i64.const 0))
             (i64.eq (local.get $last) (i64.const 1)))
           (then (i64.const 5)) (else (local.get $x)))",
    ));
    assert!(
        error.contains("reordering rows changes a row's result"),
        "{error}"
    );
}

#[test]
fn a_zero_of_another_sign_and_a_failure_are_other_results() {
    // −0.0 for every row but the first.
    let error = refused(&Guest::each(
        FLOAT64,
        "(if (result f64) (local.get $row) (then (f64.const -0)) (else (f64.const 0)))",
    ));
    assert!(
        error.contains("y = 0.0") && error.ends_with("y = -0.0"),
        "{error}"
    );
    // A failure that comes only in company.
    let error = refused(&Guest::each(
        INT64,
        "(if (i32.eq (local.get $row) (i32.const 3)) (then (global.set $failed (i32.const 1))))
         (local.get $x)",
    ));
    assert!(error.contains("the failure `the guest says no`"), "{error}");
    // And one that goes away in company.
    let mut guest = Guest::each(INT64, "(i64.div_s (i64.const 1) (local.get $x))");
    guest.run = guest.run.replace(
        "(loop $next",
        "(if (i32.gt_u (local.get $rows) (i32.const 1)) (then (global.set $many (i32.const 1))))
         (loop $next",
    );
    guest.items = "(global $many (mut i32) (i32.const 0))
        (func $each (param $x i64) (param $row i32) (result i64)
          (if (global.get $many) (then (return (i64.const 0))))
          (i64.mul (i64.const 0) (i64.div_s (i64.const 1) (local.get $x))))"
        .to_owned();
    let error = refused(&guest);
    assert!(
        error.contains("the failure `divided by zero`") && error.contains("y = 0"),
        "{error}"
    );
}

#[test]
fn batch_rows_are_compared_by_their_source_row() {
    // Only the first row of a call gives a row.
    let mut guest = Guest::echo(Kind::Batch, vec![required("x", INT64)]);
    guest.run = "(i32.store offset=4 (local.get $columns) (i32.const 1))
        (i32.store offset=24 (local.get $columns) (i32.const 1))
        (call $ok (i32.const 1) (local.get $columns) (i32.const 1)
          (call $identity (i32.const 1)) (i32.const 1))"
        .to_owned();
    let error = refused(&guest);
    assert!(
        error.contains("alone: 1 rows: (x = 1)") && error.ends_with("no row"),
        "{error}"
    );
}

#[test]
fn a_component_that_hangs_is_refused() {
    let guest = Guest::each(INT64, "(loop $l (br $l)) (local.get $x)");
    let error = verify(&guest.load_into(&testing::impatient()))
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("more than 3 different rows") && error.contains("took longer than 200 ms"),
        "{error}"
    );
    // One row that hangs is that row's result.
    let guest = Guest::each(
        INT64,
        "(loop $l (br_if $l (i64.eq (local.get $x) (i64.const 9223372036854775807))))
         (local.get $x)",
    );
    let verified = verify(&guest.load_into(&testing::impatient())).unwrap();
    assert!((1..256).contains(&verified.failed), "{verified:?}");
    let message = verified.first.unwrap();
    assert!(message.contains("took longer than 200 ms"), "{message}");
}
