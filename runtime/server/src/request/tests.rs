use arrow::array::{Array, Int64Array};
use arrow::datatypes::Int64Type;
use unskew_core::time;

use super::*;
use crate::testing::{Random, plan, types};

const NOW: i64 = 1_000_000;

fn number(name: &str) -> Field {
    Field::new(name, DataType::Scalar(ScalarType::Int64))
}

fn read(plan: &FeaturePlan, body: &str) -> Result<RequestRows, Problem> {
    Request::read(body.as_bytes())?.rows(plan, NOW, 100)
}

fn numbers(column: &ArrayRef) -> Vec<i64> {
    column.as_primitive::<Int64Type>().values().to_vec()
}

#[test]
fn values_of_every_type_come_through_bit_for_bit() {
    let fields = types()
        .into_iter()
        .map(|(name, data_type)| Field::new(name, data_type));
    let plan = plan(fields.collect());
    for seed in 0..300 {
        let mut random = Random(seed);
        let count = random.below(5);
        let column = |data_type| random.column(data_type, count);
        let request = types().into_iter().map(|(_, t)| t).map(column).collect();
        let mut random = Random(seed + 1000);
        let as_of: Vec<i64> = (0..count)
            .map(|_| time::MIN + (random.next() >> 8) as i64)
            .collect();
        let rows = RequestRows {
            as_of: TimestampMicrosecondArray::from(as_of).with_timezone(UTC),
            keys: vec![random.column(DataType::Scalar(ScalarType::Int64), count)],
            request,
        };
        let body = write("everything", &plan, plan.digest(), &rows).unwrap();
        let request = Request::read(&body).unwrap();
        assert_eq!(request.plan, Some(plan.digest()));
        let back = request.rows(&plan, NOW, 100).unwrap();
        assert_eq!(back.as_of, rows.as_of, "seed {seed}");
        // Arrow compares floats by their bits.
        assert_eq!(back.keys, rows.keys, "seed {seed}");
        assert_eq!(back.request, rows.request, "seed {seed}");
    }
}

#[test]
fn arrow_compares_floats_by_their_bits() {
    // What the tests here and of the routes rely on.
    let one = |value: f64| arrow::array::Float64Array::from(vec![value]);
    assert_ne!(one(0.0), one(-0.0));
    assert_ne!(one(f64::NAN), one(-f64::NAN));
    assert_eq!(one(f64::NAN), one(f64::NAN));
}

#[test]
fn a_scalar_stands_for_a_list_of_one() {
    let plan = plan(vec![number("n")]);
    let rows = read(
        &plan,
        r#"{"feature_service": "s", "entities": {"id": 7}, "request": {"n": [35.0]}}"#,
    )
    .unwrap();
    assert_eq!(numbers(&rows.keys[0]), [7]);
    assert_eq!(numbers(&rows.request[0]), [35]);
    let rows = read(
        &plan,
        r#"{"feature_service": "s", "entities": {"id": null}, "request": {"n": null}}"#,
    )
    .unwrap();
    assert!(rows.keys[0].is_null(0) && rows.request[0].is_null(0));
}

#[test]
fn a_list_of_lists_is_one_of_rows_and_another_list_a_value() {
    let list = Field::new("l", DataType::List(ScalarType::Int64));
    let mut plan = plan(vec![list]);
    plan.join_keys.clear();
    let lengths = |json: &str| {
        let body = format!(r#"{{"feature_service": "s", "request": {{"l": {json}}}}}"#);
        let rows = read(&plan, &body)?;
        let lists = rows.request[0].as_list::<i32>();
        let length = |row| lists.is_valid(row).then(|| lists.value(row).len());
        Ok::<_, Problem>((0..lists.len()).map(length).collect::<Vec<_>>())
    };
    assert_eq!(
        lengths("[[1, 2], null, []]").unwrap(),
        [Some(2), None, Some(0)]
    );
    assert_eq!(lengths("[1, null]").unwrap(), [Some(2)]);
    assert_eq!(lengths("[]").unwrap(), []);
    assert_eq!(lengths("[[]]").unwrap(), [Some(0)]);
    assert_eq!(lengths("[null]").unwrap(), [None]);
    assert_eq!(lengths("null").unwrap(), [None]);
    for wrong in ["[[1], 2]", "[[[1]]]", "3", r#"{"a": [1]}"#, r#"[["1"]]"#] {
        assert!(lengths(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn as_of_is_one_instant_or_one_for_each_row_or_the_clock() {
    let plan = plan(Vec::new());
    let as_of = |json: &str| {
        let body = format!(r#"{{"feature_service": "s", "entities": {{"id": [1, 2]}}{json}}}"#);
        read(&plan, &body).map(|rows| rows.as_of.values().to_vec())
    };
    assert_eq!(as_of("").unwrap(), [NOW, NOW]);
    assert_eq!(as_of(r#", "as_of": null"#).unwrap(), [NOW, NOW]);
    assert_eq!(
        as_of(r#", "as_of": "1970-01-01T00:00:01Z""#).unwrap(),
        [NOW, NOW]
    );
    let two = r#", "as_of": ["1970-01-01T00:00:00.000001Z", "9999-12-31"]"#;
    assert_eq!(as_of(two).unwrap(), [1, time::MAX - time::DAY + 1]);
    for wrong in [
        "7",
        "true",
        "{}",
        r#""soon""#,
        r#""10000-01-01T00:00:00Z""#,
        "[]",
        r#"["1970-01-01"]"#,
        r#"["1970-01-01", null]"#,
        r#"["1970-01-01", 5]"#,
    ] {
        let error = as_of(&format!(r#", "as_of": {wrong}"#)).unwrap_err();
        assert!(error.to_string().contains("`as_of`"), "{error}");
    }
}

#[test]
fn no_values_are_no_rows_and_a_plan_without_fields_has_one() {
    let mut plan = plan(Vec::new());
    let none = r#"{"feature_service": "s", "entities": {"id": []}}"#;
    assert_eq!(read(&plan, none).unwrap().as_of.len(), 0);
    plan.join_keys.clear();
    assert_eq!(
        read(&plan, r#"{"feature_service": "s"}"#)
            .unwrap()
            .as_of
            .len(),
        1
    );
    let two = r#"{"feature_service": "s", "as_of": ["2000-01-01", "2001-01-01"]}"#;
    assert_eq!(read(&plan, two).unwrap().as_of.len(), 2);
}

#[test]
fn whatever_is_wrong_is_named_with_what_would_be_valid() {
    let plan = plan(vec![number("n")]);
    let digest = format!("sha256:{}", "0".repeat(63));
    let cases: &[(&str, &str, &[&str])] = &[
        ("", "invalid_json", &["no JSON"]),
        ("{", "invalid_json", &["no JSON"]),
        ("{} {}", "invalid_json", &["trailing"]),
        (r#"{"feature_service": NaN}"#, "invalid_json", &["line 1"]),
        (r#"{"\ud800": 1}"#, "invalid_json", &["the body"]),
        (
            "[]",
            "invalid_value",
            &["`the body`", "a list", "an object"],
        ),
        ("null", "invalid_value", &["null", "an object"]),
        ("{}", "missing_field", &["`feature_service`"]),
        (
            r#"{"feature_service": null}"#,
            "missing_field",
            &["`feature_service`"],
        ),
        (
            r#"{"feature_service": ["s"]}"#,
            "invalid_value",
            &["`feature_service`", "a list"],
        ),
        (
            r#"{"feature_service": "s", "entites": {}}"#,
            "unknown_field",
            &["`entites`", "entities, request, as_of, plan"],
        ),
        (
            r#"{"feature_service": "s", "feature_service": "s"}"#,
            "duplicate_field",
            &["`feature_service`"],
        ),
        (
            r#"{"feature_service": "s", "entities": {"id": 1, "\u0069d": 2}}"#,
            "duplicate_field",
            &["`entities.id`"],
        ),
        (
            r#"{"feature_service": "s", "entities": [1]}"#,
            "invalid_value",
            &["`entities`", "a list", "an object"],
        ),
        (
            r#"{"feature_service": "s", "request": "n"}"#,
            "invalid_value",
            &["`request`", "a text", "an object"],
        ),
        (
            r#"{"feature_service": "s", "request": {"n": 1}}"#,
            "missing_field",
            &["`entities.id`", "int64", "`s`"],
        ),
        (
            r#"{"feature_service": "s", "entities": {"id": 1}}"#,
            "missing_field",
            &["`request.n`", "int64"],
        ),
        (
            r#"{"feature_service": "s", "entities": {"id": 1, "n": 1}}"#,
            "unknown_field",
            &[
                "`n`",
                "`entities`",
                "belongs into `request`",
                "there are: id",
            ],
        ),
        (
            r#"{"feature_service": "s", "entities": {"id": 1}, "request": {"m": 1}}"#,
            "unknown_field",
            &["`m`", "`request`", "there are: n"],
        ),
        (
            r#"{"feature_service": "s", "entities": {"id": [1, 2]}, "request": {"n": [1]}}"#,
            "unequal_lengths",
            &["`request.n` has 1 value", "`entities.id` has 2 values"],
        ),
        (
            r#"{"feature_service": "s", "entities": {"id": [1, 2]}, "request": {"n": 1}}"#,
            "unequal_lengths",
            &["`request.n`"],
        ),
        (
            r#"{"feature_service": "s", "entities": {"id": [1, "2"]}, "request": {"n": [1, 1]}}"#,
            "invalid_value",
            &["`entities.id`", "row 1", "\"2\"", "int64"],
        ),
        (
            r#"{"feature_service": "s", "entities": {"id": 1}, "request": {"n": 9223372036854775808}}"#,
            "invalid_value",
            &["`request.n`", "9223372036854775808", "int64"],
        ),
        (
            r#"{"feature_service": "s", "entities": {"id": 1.5}, "request": {"n": 1}}"#,
            "invalid_value",
            &["`entities.id`", "1.5"],
        ),
        (
            r#"{"feature_service": "s", "entities": {"id": {"a": 1}}, "request": {"n": 1}}"#,
            "invalid_value",
            &["`entities.id`"],
        ),
        (
            r#"{"feature_service": "s", "entities": {"id": [[1]]}, "request": {"n": 1}}"#,
            "invalid_value",
            &["`entities.id`", "[1]"],
        ),
        (
            r#"{"feature_service": "s", "plan": 7}"#,
            "invalid_value",
            &["`plan`", "a number", "sha256:"],
        ),
        (
            r#"{"feature_service": "s", "plan": "DIGEST"}"#,
            "invalid_value",
            &["`plan`", "64"],
        ),
    ];
    for (body, code, parts) in cases {
        let error = read(&plan, &body.replace("DIGEST", &digest)).unwrap_err();
        let (status, found) = error.status_and_code();
        assert_eq!(found, *code, "{body}: {error}");
        assert!(status.is_client_error(), "{body}: {status}");
        for part in *parts {
            assert!(error.to_string().contains(part), "{body}: {error}");
        }
    }
}

#[test]
fn a_body_that_is_no_utf_8_is_no_json() {
    let error = Request::read(b"{\"feature_service\": \"\xff\"}").unwrap_err();
    assert_eq!(error.status_and_code().1, "invalid_json");
}

#[test]
fn a_long_name_is_cut_in_the_message() {
    let body = format!(
        r#"{{"feature_service": "s", "{}": 1}}"#,
        "é".repeat(1 << 20)
    );
    assert!(
        read(&plan(Vec::new()), &body)
            .unwrap_err()
            .to_string()
            .len()
            < 1000
    );
}

#[test]
fn more_rows_than_the_limit_are_refused() {
    let plan = plan(Vec::new());
    let ids: Vec<String> = (0..101).map(|id| id.to_string()).collect();
    let body = |ids: &[String]| {
        format!(
            r#"{{"feature_service": "s", "entities": {{"id": [{}]}}}}"#,
            ids.join(",")
        )
    };
    assert_eq!(read(&plan, &body(&ids[1..])).unwrap().as_of.len(), 100);
    let error = read(&plan, &body(&ids)).unwrap_err();
    assert_eq!(error.status_and_code().0.as_u16(), 400);
    assert!(
        error.to_string().contains("101 rows") && error.to_string().contains("100"),
        "{error}"
    );
}

#[test]
fn deep_nesting_neither_crashes_nor_passes() {
    let plan = plan(Vec::new());
    let deep = "[".repeat(1 << 20);
    for body in [
        deep.clone(),
        format!(
            r#"{{"feature_service": "s", "entities": {{"id": {deep}{}}}}}"#,
            "]".repeat(1 << 20)
        ),
    ] {
        assert!(read(&plan, &body).is_err());
    }
}

#[test]
fn what_is_sliced_is_written_as_its_own_rows() {
    let plan = plan(Vec::new());
    let ids: ArrayRef = std::sync::Arc::new(Int64Array::from(vec![1, 2, 3, 4]));
    let as_of = TimestampMicrosecondArray::from(vec![1, 2, 3, 4]).with_timezone(UTC);
    let rows = RequestRows {
        as_of: as_of.slice(1, 2),
        keys: vec![ids.slice(1, 2)],
        request: Vec::new(),
    };
    let body = write("s", &plan, plan.digest(), &rows).unwrap();
    let back = read(&plan, std::str::from_utf8(&body).unwrap()).unwrap();
    assert_eq!(numbers(&back.keys[0]), [2, 3]);
    assert_eq!(back.as_of.values(), &[2, 3]);
}
