use arrow::array::{
    Float32Array, Float64Array, Int32Array, Int64Array, ListBuilder, StringArray,
    TimestampMicrosecondArray, UInt8Array,
};
use arrow::datatypes::Float64Type;
use unskew_core::json::Literal;
use unskew_core::plan::{Input, Lookup, Output, found};
use unskew_core::time::Mode;
use unskew_core::types::UTC;
use unskew_core::view::{JoinKey, OnError, Source, View};

use super::*;
use crate::testing::{FLOAT64, Guest, INT64, STRING, by_digest, field, required, text};

const INT32: DataType = DataType::Scalar(ScalarType::Int32);
const FLOAT32: DataType = DataType::Scalar(ScalarType::Float32);
const TIMESTAMP: DataType = DataType::Scalar(ScalarType::Timestamp);

/// A view of `iata` with one feature `f`.
fn view(data_type: DataType, ttl: Option<i64>, mode: Mode) -> Arc<View> {
    Arc::new(View {
        name: "airport".to_owned(),
        source: Source {
            name: "airports".to_owned(),
            path: "airports.parquet".to_owned(),
            timestamp_field: "event_timestamp".to_owned(),
            created_timestamp_column: Some("created".to_owned()),
            point_in_time: mode,
            late_by: 0,
            columns: BTreeMap::new(),
            partition: None,
        },
        keys: vec![JoinKey {
            name: "iata".to_owned(),
            data_type: ScalarType::String,
        }],
        features: vec![field("unused", STRING), field("f", data_type)],
        ttl,
        online: true,
        batch: None,
    })
}

fn lookup(name: &str, view: Arc<View>) -> Lookup {
    Lookup {
        name: name.to_owned(),
        view,
        keys: vec![0],
        features: vec![1],
    }
}

fn step(name: &str, component: &Component, inputs: Vec<Input>) -> Step {
    Step {
        name: name.to_owned(),
        component: component.digest(),
        description: component.description().clone(),
        inputs,
        on_error: OnError::Fail,
    }
}

fn from(binding: Binding) -> Input {
    Input {
        binding,
        default: None,
    }
}

fn or(binding: Binding, default: &str) -> Input {
    Input {
        binding,
        default: Some(literal(default)),
    }
}

fn literal(json: &str) -> Literal {
    Literal(serde_json::from_str(json).unwrap())
}

const FEATURE: Binding = Binding::Feature {
    lookup: 0,
    feature: 0,
};

fn output(name: &str, data_type: DataType, binding: Binding) -> Output {
    Output {
        name: name.to_owned(),
        data_type,
        binding,
    }
}

fn of_step(step: usize, output: usize) -> Binding {
    Binding::Output { step, output }
}

fn plan(lookups: Vec<Lookup>, steps: Vec<Step>, outputs: Vec<Output>) -> FeaturePlan {
    FeaturePlan {
        semantics: SEMANTICS,
        service: Some("model".to_owned()),
        join_keys: vec![field("origin", STRING)],
        request_fields: vec![field("r", INT32), field("t", FLOAT64)],
        lookups,
        steps,
        outputs,
    }
}

fn evaluator(plan: FeaturePlan, components: &[&Arc<Component>]) -> Evaluator {
    Evaluator::new(Arc::new(plan), &by_digest(components)).unwrap()
}

fn times(values: &[Option<i64>]) -> ArrayRef {
    Arc::new(TimestampMicrosecondArray::from(values.to_vec()).with_timezone(UTC))
}

/// Rows of a joined batch at instant 100, with one lookup: (found, event, created, feature).
fn joined(
    evaluator: &Evaluator,
    rows: &[(u8, Option<i64>, Option<i64>)],
    feature: ArrayRef,
) -> RecordBatch {
    let n = rows.len();
    let columns: Vec<ArrayRef> = vec![
        times(&vec![Some(100); n]),
        Arc::new(StringArray::from_iter(
            (0..n).map(|i| (i != 1).then(|| format!("k{i}"))),
        )),
        Arc::new(Int32Array::from_iter(
            (0..n as i32).map(|i| (i != 1).then_some(i)),
        )),
        Arc::new(Float64Array::from_iter(
            (0..n).map(|i| Some(i as f64 / 2.0)),
        )),
        Arc::new(UInt8Array::from_iter_values(rows.iter().map(|row| row.0))),
        times(&rows.iter().map(|row| row.1).collect::<Vec<_>>()),
        times(&rows.iter().map(|row| row.2).collect::<Vec<_>>()),
        feature,
    ];
    RecordBatch::try_new(Arc::clone(&evaluator.layout().schema), columns).unwrap()
}

/// `n` rows that count.
fn present(evaluator: &Evaluator, feature: ArrayRef) -> RecordBatch {
    let rows = vec![(found::ROW, Some(100), None); feature.len()];
    joined(evaluator, &rows, feature)
}

fn ints(values: &[Option<i64>]) -> ArrayRef {
    Arc::new(Int64Array::from(values.to_vec()))
}

fn column(evaluated: &Evaluated, name: &str) -> String {
    text(evaluated.batch.column_by_name(name).unwrap())
}

fn statuses(evaluated: &Evaluated, index: usize) -> String {
    evaluated.statuses[index]
        .iter()
        .map(|status| status.name())
        .collect::<Vec<_>>()
        .join(" ")
}

#[test]
fn time_decides_what_counts() {
    let rows = [
        (found::ROW, Some(100), Some(100)),
        (found::ROW, Some(93), None),
        (found::ROW, Some(92), None),
        (found::ROW, Some(101), None),
        (found::ROW, Some(95), Some(101)),
        (found::ROW, None, Some(1)),
        (found::NOTHING, None, None),
        (found::NOT_MATERIALIZED, None, None),
        (found::ROW, Some(99), Some(99)),
    ];
    let values = [
        Some(0),
        Some(1),
        Some(2),
        Some(3),
        Some(4),
        Some(5),
        Some(6),
        Some(7),
        None,
    ];
    for (mode, expected, status) in [
        (
            Mode::Event,
            "[0,1,null,null,4,null,null,null,null]",
            "PRESENT PRESENT OUTSIDE_MAX_AGE IN_FUTURE PRESENT NOT_FOUND NOT_FOUND \
             NOT_MATERIALIZED NULL_VALUE",
        ),
        (
            // A row of which it is not known when it was created is never available.
            Mode::Known,
            "[0,null,null,null,null,null,null,null,null]",
            "PRESENT NOT_FOUND NOT_FOUND NOT_FOUND IN_FUTURE NOT_FOUND NOT_FOUND \
             NOT_MATERIALIZED NULL_VALUE",
        ),
    ] {
        let lookups = vec![lookup("o", view(INT64, Some(7), mode))];
        let evaluator = evaluator(
            plan(lookups, vec![], vec![output("f", INT64, FEATURE)]),
            &[],
        );
        let evaluated = evaluator
            .evaluate(&joined(&evaluator, &rows, ints(&values)))
            .unwrap();
        assert_eq!(column(&evaluated, "f"), expected);
        assert_eq!(statuses(&evaluated, 0), status);
    }
}

#[test]
fn a_masked_feature_is_null_as_an_input_too() {
    let echo = Guest::identity().load();
    let evaluator = evaluator(
        plan(
            vec![lookup("o", view(INT64, Some(7), Mode::Event))],
            vec![
                step("plain", &echo, vec![from(FEATURE)]),
                step("defaulted", &echo, vec![or(FEATURE, "-1")]),
            ],
            vec![
                output("a", INT64, of_step(0, 0)),
                output("b", INT64, of_step(1, 0)),
            ],
        ),
        &[&echo],
    );
    let rows = [
        (found::ROW, Some(100), None),
        (found::ROW, Some(1), None),
        (found::ROW, Some(200), None),
        (found::NOTHING, None, None),
        (found::NOT_MATERIALIZED, None, None),
    ];
    let secret = ints(&[Some(1), Some(2), Some(3), Some(4), Some(5)]);
    let evaluated = evaluator
        .evaluate(&joined(&evaluator, &rows, secret))
        .unwrap();
    assert_eq!(column(&evaluated, "a"), "[1,null,null,null,null]");
    assert_eq!(column(&evaluated, "b"), "[1,-1,-1,-1,-1]");
    // An output of a transformation is there or null, whatever became of its inputs.
    assert_eq!(
        statuses(&evaluated, 0),
        "PRESENT NULL_VALUE NULL_VALUE NULL_VALUE NULL_VALUE"
    );
    assert_eq!(
        statuses(&evaluated, 1),
        "PRESENT PRESENT PRESENT PRESENT PRESENT"
    );
}

#[test]
fn inputs_come_from_everywhere() {
    let fields = vec![
        field("feature", INT64),
        field("key", STRING),
        field("request", INT64),
        field("constant", DataType::List(ScalarType::Float32)),
        field("at", TIMESTAMP),
        field("nothing", STRING),
    ];
    let echo = Guest::echo(Kind::OnDemand, fields.clone()).load();
    let outputs = fields
        .iter()
        .enumerate()
        .map(|(i, field)| output(&field.name, field.data_type, of_step(0, i)))
        .collect();
    let evaluator = evaluator(
        plan(
            vec![lookup("o", view(INT64, None, Mode::Event))],
            vec![step(
                "all",
                &echo,
                vec![
                    from(FEATURE),
                    or(Binding::Key(0), r#""nowhere""#),
                    or(Binding::Request(0), "7"),
                    from(Binding::Constant(literal("[1.5, null]"))),
                    from(Binding::EventTimestamp),
                    from(Binding::Constant(literal("null"))),
                ],
            )],
            outputs,
        ),
        &[&echo],
    );
    let evaluated = evaluator
        .evaluate(&present(&evaluator, ints(&[Some(1), None, Some(3)])))
        .unwrap();
    assert_eq!(column(&evaluated, "feature"), "[1,null,3]");
    assert_eq!(column(&evaluated, "key"), r#"["k0","nowhere","k2"]"#);
    assert_eq!(column(&evaluated, "request"), "[0,7,2]");
    assert_eq!(
        column(&evaluated, "constant"),
        "[[1.5,null],[1.5,null],[1.5,null]]"
    );
    assert_eq!(
        column(&evaluated, "at"),
        r#"["1970-01-01T00:00:00.000100Z","1970-01-01T00:00:00.000100Z","1970-01-01T00:00:00.000100Z"]"#
    );
    assert_eq!(column(&evaluated, "nothing"), "[null,null,null]");
    assert_eq!(evaluated.batch.schema(), evaluator.plan().output_schema());
    assert_eq!(evaluator.digest(), evaluator.plan().digest());
}

#[test]
fn defaults_of_every_type_stand_for_null() {
    let cases = [
        (DataType::Scalar(ScalarType::Bool), "true"),
        (INT32, "-7"),
        (FLOAT32, "0.1"),
        (STRING, r#""né""#),
        (DataType::Scalar(ScalarType::Bytes), r#""AAE=""#),
        (TIMESTAMP, r#""2001-03-01T12:00:00Z""#),
        (DataType::List(ScalarType::String), r#"["a",null]"#),
        (DataType::List(ScalarType::Int64), "[]"),
    ];
    for (data_type, default) in cases {
        let echo = Guest::echo(Kind::OnDemand, vec![required("x", data_type)]).load();
        let evaluator = evaluator(
            plan(
                vec![lookup("o", view(data_type, None, Mode::Event))],
                vec![step("s", &echo, vec![or(FEATURE, default)])],
                vec![output("x", data_type, of_step(0, 0))],
            ),
            &[&echo],
        );
        let nulls = arrow::array::new_null_array(&data_type.arrow(), 2);
        let evaluated = evaluator.evaluate(&present(&evaluator, nulls)).unwrap();
        assert_eq!(column(&evaluated, "x"), format!("[{default},{default}]"));
    }
}

#[test]
fn a_null_in_a_required_input_without_default_gives_nulls() {
    let double = Guest::each(INT64, "(i64.mul (local.get $x) (i64.const 2))").load();
    let evaluator = evaluator(
        plan(
            vec![lookup("o", view(INT64, None, Mode::Event))],
            vec![step("s", &double, vec![from(FEATURE)])],
            vec![output("y", INT64, of_step(0, 0))],
        ),
        &[&double],
    );
    let evaluated = evaluator
        .evaluate(&present(&evaluator, ints(&[Some(1), None, Some(3)])))
        .unwrap();
    assert_eq!(column(&evaluated, "y"), "[2,null,6]");
    assert_eq!(statuses(&evaluated, 0), "PRESENT NULL_VALUE PRESENT");
    assert!(evaluated.batch.schema().field(0).is_nullable());
}

#[test]
fn transformations_follow_one_another() {
    let double = Guest::each(INT64, "(i64.mul (local.get $x) (i64.const 2))").load();
    let sum = Guest::two_floats("f64.add").load();
    let echo = Guest::echo(Kind::OnDemand, vec![field("x", FLOAT64)]).load();
    let widened = view(FLOAT32, None, Mode::Event);
    let evaluator = evaluator(
        plan(
            vec![lookup("o", widened)],
            vec![
                step("double", &double, vec![from(Binding::Request(0))]),
                step("sum", &sum, vec![from(FEATURE), from(Binding::Request(1))]),
                step("echo", &echo, vec![from(of_step(1, 0))]),
                step(
                    "defaulted",
                    &sum,
                    vec![or(of_step(1, 0), "100"), from(of_step(2, 0))],
                ),
            ],
            vec![
                output("last", FLOAT64, of_step(3, 0)),
                output("double", INT64, of_step(0, 0)),
                output("f", FLOAT32, FEATURE),
                output("echo", FLOAT64, of_step(2, 0)),
            ],
        ),
        &[&double, &sum, &echo],
    );
    let features: ArrayRef = Arc::new(Float32Array::from(vec![Some(0.1), Some(2.0), None]));
    let evaluated = evaluator.evaluate(&present(&evaluator, features)).unwrap();
    // An int32 of the request to an int64, a float32 feature to a float64: nothing is lost.
    assert_eq!(column(&evaluated, "double"), "[0,null,4]");
    assert_eq!(column(&evaluated, "f"), "[0.1,2.0,null]");
    assert_eq!(
        column(&evaluated, "echo"),
        format!("[{},2.5,null]", f64::from(0.1_f32))
    );
    assert_eq!(
        column(&evaluated, "last"),
        format!("[{},5.0,null]", 2.0 * f64::from(0.1_f32))
    );
}

#[test]
fn a_failure_names_transformation_and_row_or_gives_null() {
    let picky = Guest::each(
        INT64,
        "(if (i64.eq (local.get $x) (i64.const 13)) (then (global.set $failed (i32.const 1))))
         (local.get $x)",
    )
    .named("route")
    .load();
    let of = |on_error| {
        let mut steps = vec![step("miles", &picky, vec![from(FEATURE)])];
        steps[0].on_error = on_error;
        evaluator(
            plan(
                vec![lookup("o", view(INT64, None, Mode::Event))],
                steps,
                vec![output("y", INT64, of_step(0, 0))],
            ),
            &[&picky],
        )
    };
    let values = ints(&[None, Some(1), Some(13), Some(4), Some(13)]);
    let fail = of(OnError::Fail);
    let error = fail
        .evaluate(&present(&fail, Arc::clone(&values)))
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "transformation `miles` (route 0.1.0, function `run`) failed on row 2: the guest says no"
    );
    assert_eq!(error.row(), Some(2));
    assert_eq!(error.shifted(40).row(), Some(42));
    let null = of(OnError::Null);
    let evaluated = null.evaluate(&present(&null, values)).unwrap();
    assert_eq!(column(&evaluated, "y"), "[null,1,null,4,null]");
    assert_eq!(
        statuses(&evaluated, 0),
        "NULL_VALUE PRESENT NULL_VALUE PRESENT NULL_VALUE"
    );
    assert_ne!(fail.digest(), null.digest());
}

/// Writes down what it is told.
#[derive(Default)]
struct Told(Vec<String>);

impl Observer for Told {
    fn began(&mut self, step: usize) {
        self.0.push(format!("{step} began"));
    }

    fn ended(&mut self, step: usize) {
        self.0.push(format!("{step} ended"));
    }
}

#[test]
fn an_observer_is_told_of_each_step_also_of_the_one_that_fails() {
    let echo = Guest::identity().load();
    let refuse = Guest::each(INT64, "(global.set $failed (i32.const 1)) (local.get $x)").load();
    let evaluator = evaluator(
        plan(
            vec![lookup("o", view(INT64, None, Mode::Event))],
            vec![
                step("first", &echo, vec![from(FEATURE)]),
                step("second", &refuse, vec![from(of_step(0, 0))]),
                step("third", &echo, vec![from(of_step(1, 0))]),
            ],
            vec![output("y", INT64, of_step(2, 0))],
        ),
        &[&echo, &refuse],
    );
    let mut told = Told::default();
    let nothing = present(&evaluator, ints(&[None]));
    let evaluated = evaluator.evaluate_observed(&nothing, &mut told).unwrap();
    assert_eq!(column(&evaluated, "y"), "[null]");
    assert_eq!(
        told.0.join(", "),
        "0 began, 0 ended, 1 began, 1 ended, 2 began, 2 ended"
    );
    let mut told = Told::default();
    let something = present(&evaluator, ints(&[Some(1)]));
    let failed = evaluator.evaluate_observed(&something, &mut told);
    assert_eq!(failed.unwrap_err().row(), Some(0));
    assert_eq!(told.0.join(", "), "0 began, 0 ended, 1 began, 1 ended");
}

#[test]
fn nans_come_out_in_one_form() {
    let strange = f64::from_bits(0xfff0_0000_0000_0001);
    let lookups = || vec![lookup("o", view(FLOAT64, None, Mode::Event))];
    let plain = evaluator(
        plan(lookups(), vec![], vec![output("f", FLOAT64, FEATURE)]),
        &[],
    );
    let values: ArrayRef = Arc::new(Float64Array::from(vec![Some(strange), Some(-0.0), None]));
    let evaluated = plain.evaluate(&present(&plain, values)).unwrap();
    let floats = evaluated.batch.column(0).as_primitive::<Float64Type>();
    assert_eq!(floats.value(0).to_bits(), 0x7ff8_0000_0000_0000);
    assert_eq!(floats.value(1).to_bits(), (-0.0_f64).to_bits());
    assert!(floats.is_null(2));

    let list = DataType::List(ScalarType::Float64);
    let lookups = vec![lookup("o", view(list, None, Mode::Event))];
    let lists = evaluator(plan(lookups, vec![], vec![output("f", list, FEATURE)]), &[]);
    let mut builder = ListBuilder::new(arrow::array::Float64Builder::new());
    builder.append_value([Some(strange), None]);
    let evaluated = lists
        .evaluate(&present(&lists, Arc::new(builder.finish())))
        .unwrap();
    let items = evaluated.batch.column(0).as_list::<i32>().value(0);
    assert_eq!(
        items.as_primitive::<Float64Type>().value(0).to_bits(),
        0x7ff8_0000_0000_0000
    );
}

#[test]
fn rows_are_never_mixed_up_whatever_the_size_of_the_batch() {
    let double = Guest::each(INT64, "(i64.mul (local.get $x) (i64.const 2))").load();
    let evaluator = evaluator(
        plan(
            vec![lookup("o", view(INT64, None, Mode::Event))],
            vec![step("s", &double, vec![from(FEATURE)])],
            vec![
                output("y", INT64, of_step(0, 0)),
                output("f", INT64, FEATURE),
            ],
        ),
        &[&double],
    );
    let values: Vec<Option<i64>> = (0..20_000).map(|i| (i % 7 != 0).then_some(i)).collect();
    let whole = present(&evaluator, ints(&values));
    let together = evaluator.evaluate(&whole).unwrap();
    let expected: Vec<Option<i64>> = values.iter().map(|v| v.map(|v| v * 2)).collect();
    assert_eq!(together.batch.column(0), &ints(&expected));
    for (start, length) in [(0, 0), (0, 1), (7, 1), (13, 9_000), (19_999, 1)] {
        let part = evaluator.evaluate(&whole.slice(start, length)).unwrap();
        assert_eq!(part.batch, together.batch.slice(start, length));
        assert_eq!(
            part.statuses[0][..],
            together.statuses[0][start..start + length]
        );
    }
}

#[test]
fn a_batch_that_is_not_as_the_plan_has_it_is_refused() {
    let lookups = vec![lookup("o", view(INT64, None, Mode::Event))];
    let evaluator = evaluator(
        plan(lookups, vec![], vec![output("f", INT64, FEATURE)]),
        &[],
    );
    let batch = present(&evaluator, ints(&[Some(1)]));
    let error = evaluator
        .evaluate(&batch.project(&[0, 1, 2]).unwrap())
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("they must be `event_timestamp`") && error.contains("`o:@found` UInt8"),
        "{error}"
    );
    let mut fields: Vec<_> = evaluator.layout().schema.fields().iter().cloned().collect();
    fields[0] = Arc::new(fields[0].as_ref().clone().with_nullable(true));
    let mut columns = batch.columns().to_vec();
    columns[0] = times(&[None]);
    let schema = arrow::datatypes::Schema::new(fields);
    let batch = RecordBatch::try_new(Arc::new(schema), columns).unwrap();
    let error = evaluator.evaluate(&batch).unwrap_err().to_string();
    assert!(error.contains("`event_timestamp` has nulls"), "{error}");
}

#[test]
fn a_plan_that_does_not_fit_is_refused() {
    let echo = Guest::identity().load();
    let batch = Guest::repeat().load();
    let good = || {
        plan(
            vec![lookup("o", view(INT64, None, Mode::Event))],
            vec![step("s", &echo, vec![from(FEATURE)])],
            vec![output("x", INT64, of_step(0, 0))],
        )
    };
    let components = by_digest(&[&echo, &batch]);
    Evaluator::new(Arc::new(good()), &components).unwrap();
    type Change = Box<dyn Fn(&mut FeaturePlan)>;
    let batch_step = step("b", &batch, vec![from(FEATURE)]);
    let cases: Vec<(Change, &str)> = vec![
        (Box::new(|p| p.semantics = 99), "has semantics 99"),
        (
            Box::new(|p| p.steps[0].component = Digest::of(b"other")),
            "`s`: its component sha256:",
        ),
        (
            Box::new(|p| p.steps[0].description.version = "2".to_owned()),
            "describes itself otherwise",
        ),
        (
            Box::new(move |p| p.steps[0] = batch_step.clone()),
            "is of kind batch; it must be on_demand",
        ),
        (
            Box::new(|p| p.steps[0].inputs.clear()),
            "has 1 inputs and 0 bindings",
        ),
        (
            Box::new(|p| p.steps[0].inputs[0].binding = Binding::Key(0)),
            "its input `x` is int64 and is bound to string",
        ),
        (
            Box::new(|p| p.steps[0].inputs[0].binding = Binding::Request(1)),
            "is bound to float64",
        ),
        (
            Box::new(|p| p.steps[0].inputs[0].binding = Binding::Constant(literal("1.5"))),
            "the value of its input `x`",
        ),
        (
            Box::new(|p| p.steps[0].inputs[0].default = Some(literal(r#""one""#))),
            "the default of its input `x`",
        ),
        (
            Box::new(|p| p.steps[0].inputs[0].binding = of_step(0, 0)),
            "leads nowhere",
        ),
        (
            Box::new(|p| p.lookups[0].keys = vec![4]),
            "lookup `o` does not fit",
        ),
        (
            Box::new(|p| p.lookups[0].features = vec![9]),
            "lookup `o` does not fit",
        ),
        (
            Box::new(|p| p.outputs[0].data_type = STRING),
            "its output `x` is string and is bound to int64",
        ),
        (
            Box::new(|p| p.outputs[0].binding = of_step(0, 3)),
            "leads nowhere",
        ),
    ];
    for (change, expected) in cases {
        let mut plan = good();
        change(&mut plan);
        let error = Evaluator::new(Arc::new(plan), &components)
            .unwrap_err()
            .to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn many_threads_share_an_evaluator() {
    let double = Guest::each(INT64, "(i64.mul (local.get $x) (i64.const 2))").load();
    let evaluator = evaluator(
        plan(
            vec![lookup("o", view(INT64, None, Mode::Event))],
            vec![step("s", &double, vec![from(FEATURE)])],
            vec![output("y", INT64, of_step(0, 0))],
        ),
        &[&double],
    );
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let evaluator = &evaluator;
            scope.spawn(move || {
                for i in 0..20 {
                    let value = thread * 100 + i;
                    let batch = present(evaluator, ints(&[Some(value)]));
                    let evaluated = evaluator.evaluate(&batch).unwrap();
                    assert_eq!(column(&evaluated, "y"), format!("[{}]", 2 * value));
                }
            });
        }
    });
}

#[test]
fn what_takes_longer_than_a_moment_is_left_to_be_done_again() {
    // It works long for 13, about a billion steps, and never ends for 14.
    let slow = Guest::each(
        INT64,
        "(local $i i64)
         (if (i64.eq (local.get $x) (i64.const 13)) (then
           (loop $l
             (local.set $i (i64.add (local.get $i) (i64.const 1)))
             (br_if $l (i64.lt_u (local.get $i) (i64.const 300000000))))))
         (if (i64.eq (local.get $x) (i64.const 14)) (then (loop $l (br $l))))
         (i64.add (local.get $x) (i64.const 1))",
    );
    let engine = crate::testing::waiting(5_000);
    let of = |on_error| {
        let slow = slow.load_into(&engine);
        let mut steps = vec![step("slow", &slow, vec![from(FEATURE)])];
        steps[0].on_error = on_error;
        evaluator(
            plan(
                vec![lookup("o", view(INT64, None, Mode::Event))],
                steps,
                vec![output("y", INT64, of_step(0, 0))],
            ),
            &[&slow],
        )
    };
    for on_error in [OnError::Fail, OnError::Null] {
        let evaluator = of(on_error);
        let rows = |x| present(&evaluator, ints(&[Some(1), Some(x)]));
        let quick = evaluator.evaluate_briefly(&rows(2), ()).unwrap();
        assert_eq!(column(&quick.unwrap(), "y"), "[2,3]");
        // Not a failure, and not a null either.
        assert!(evaluator.evaluate_briefly(&rows(14), ()).unwrap().is_none());
        let mut ended = Ended::default();
        let quick = evaluator.evaluate_briefly(&rows(13), &mut ended);
        assert!(quick.unwrap().is_none());
        // What was interrupted has not ended.
        assert_eq!(ended.0, 0);
        let whole = evaluator.evaluate_observed(&rows(13), &mut ended);
        assert_eq!(column(&whole.unwrap(), "y"), "[2,14]");
        assert_eq!(ended.0, 1);
    }
}

#[test]
fn a_moment_is_enough_to_find_a_row_that_fails_and_not_for_one_call_for_each_row() {
    use crate::transform::CALLS_IN_A_MOMENT;

    // It fails for 13, and does not say which row that is.
    let engine = crate::testing::waiting(60_000);
    let failing = Guest::each(
        INT64,
        "(if (i64.eq (local.get $x) (i64.const 13)) (then unreachable)) (local.get $x)",
    )
    .load_into(&engine);
    let mut steps = vec![step("failing", &failing, vec![from(FEATURE)])];
    steps[0].on_error = OnError::Null;
    let evaluator = evaluator(
        plan(
            vec![lookup("o", view(INT64, None, Mode::Event))],
            steps,
            vec![output("y", INT64, of_step(0, 0))],
        ),
        &[&failing],
    );
    let rows = |values: &[i64]| {
        let values: Vec<_> = values.iter().copied().map(Some).collect();
        present(&evaluator, ints(&values))
    };
    let mut one = [1; 256];
    one[200] = 13;
    let one = loop {
        // On a machine that is busy a moment may pass before the call runs.
        if let Some(one) = evaluator.evaluate_briefly(&rows(&one), ()).unwrap() {
            break one;
        }
    };
    assert_eq!(one.batch.column(0).null_count(), 1);
    let all = rows(&[13; CALLS_IN_A_MOMENT]);
    assert!(evaluator.evaluate_briefly(&all, ()).unwrap().is_none());
    let whole = evaluator.evaluate(&all).unwrap();
    assert_eq!(whole.batch.column(0).null_count(), CALLS_IN_A_MOMENT);
}

#[test]
fn requests_together_get_what_each_gets_alone() {
    // Loops for 14, fails for 13.
    let some = Guest::each(
        INT64,
        "(if (i64.eq (local.get $x) (i64.const 14)) (then (loop $l (br $l))))
         (if (i64.eq (local.get $x) (i64.const 13)) (then unreachable))
         (i64.add (local.get $x) (i64.const 1))",
    );
    let engine = crate::testing::waiting(60_000);
    let some = some.load_into(&engine);
    for on_error in [OnError::Fail, OnError::Null] {
        let mut steps = vec![step("some", &some, vec![from(FEATURE)])];
        steps[0].on_error = on_error;
        let evaluator = evaluator(
            plan(
                vec![lookup("o", view(INT64, None, Mode::Event))],
                steps,
                vec![
                    output("x", INT64, FEATURE),
                    output("y", INT64, of_step(0, 0)),
                ],
            ),
            &[&some],
        );
        let requests = |all: &[&[Option<i64>]]| -> Vec<RecordBatch> {
            let each = all.iter();
            each.map(|rows| present(&evaluator, ints(rows))).collect()
        };
        let all = requests(&[&[Some(1)], &[], &[Some(2), None, Some(3)], &[None]]);
        for requests in [&all[..], &all[..1], &all[..2], &all[2..], &all[1..2], &[]] {
            let mut ended = Ended::default();
            let together = loop {
                // On a machine that is busy 20 ms may pass before the call has run.
                if let Some(together) = evaluator.evaluate_together(requests, &mut ended) {
                    break together;
                }
            };
            // One call for all.
            assert_eq!(ended.0, 1);
            assert_eq!(together.len(), requests.len());
            for (together, joined) in together.iter().zip(requests) {
                let alone = evaluator.evaluate(joined).unwrap();
                assert_eq!(together.batch, alone.batch);
                assert_eq!(together.statuses, alone.statuses);
                assert_eq!(together.events.len(), alone.events.len());
                for (together, alone) in together.events.iter().zip(&alone.events) {
                    assert_eq!(together, alone);
                }
            }
        }
        // Whose row takes too long, or fails where that is an error, is found out apart.
        for bad in [13, 14] {
            let mut ended = Ended::default();
            let requests = requests(&[&[Some(1)], &[Some(2), Some(bad)]]);
            if bad == 13 && on_error == OnError::Null {
                let together = loop {
                    if let Some(together) = evaluator.evaluate_together(&requests, ()) {
                        break together;
                    }
                };
                assert_eq!(column(&together[0], "y"), "[2]");
                assert_eq!(column(&together[1], "y"), "[3,null]");
                continue;
            }
            for requests in [&requests[..], &requests[1..]] {
                let together = evaluator.evaluate_together(requests, &mut ended);
                assert!(together.is_none());
            }
            assert_eq!(ended.0, 0);
        }
        let other = RecordBatch::new_empty(Arc::new(arrow::datatypes::Schema::empty()));
        assert!(
            evaluator
                .evaluate_together(&[all[0].clone(), other.clone()], ())
                .is_none()
        );
        assert!(evaluator.evaluate_together(&[other], ()).is_none());
    }
}

/// How many steps ended.
#[derive(Default)]
struct Ended(usize);

impl crate::observer::Observer for Ended {
    fn ended(&mut self, _step: usize) {
        self.0 += 1;
    }
}

#[test]
fn calls_that_take_long_do_not_keep_those_that_do_not_from_running() {
    let engine = crate::testing::waiting(60_000);
    let instances = engine.settings().instances;
    let endless = Guest::each(
        INT64,
        "(if (i64.eq (local.get $x) (i64.const 14)) (then (loop $l (br $l)))) (local.get $x)",
    )
    .load_into(&engine);
    let evaluator = Arc::new(evaluator(
        plan(
            vec![lookup("o", view(INT64, None, Mode::Event))],
            vec![step("endless", &endless, vec![from(FEATURE)])],
            vec![output("y", INT64, of_step(0, 0))],
        ),
        &[&endless],
    ));
    for _ in 0..2 * instances {
        let evaluator = Arc::clone(&evaluator);
        // They end with the process of the test.
        std::thread::spawn(move || {
            let _ = evaluator.evaluate(&present(&evaluator, ints(&[Some(14)])));
        });
    }
    while engine.shared.permits.try_acquire().is_some() {
        std::thread::yield_now();
    }
    let quick = loop {
        // On a machine that is busy a moment may pass before the call runs.
        let rows = present(&evaluator, ints(&[Some(1)]));
        if let Some(quick) = evaluator.evaluate_briefly(&rows, ()).unwrap() {
            break quick;
        }
    };
    assert_eq!(column(&quick, "y"), "[1]");
    let together = loop {
        let rows = present(&evaluator, ints(&[Some(1)]));
        if let Some(together) = evaluator.evaluate_together(&[rows.clone(), rows], ()) {
            break together;
        }
    };
    assert_eq!(column(&together[1], "y"), "[1]");
}
