use arrow::array::{
    BooleanArray, DictionaryArray, Float64Array, Int32Array, Int64Array, TimestampNanosecondArray,
};
use arrow::datatypes::{Field as ArrowField, Int8Type, Schema};
use unskew_core::json::Literal;
use unskew_core::time::Mode;
use unskew_core::types::Field;
use unskew_core::view::{JoinKey, OnError, Source};

use super::*;
use crate::testing::{FLOAT64, Guest, INT64, by_digest, field, required, text};

fn view(features: Vec<Field>, batch: Option<BatchTransformation>) -> View {
    View {
        name: "orders".to_owned(),
        source: Source {
            name: "raw".to_owned(),
            path: "raw.parquet".to_owned(),
            timestamp_field: "at".to_owned(),
            created_timestamp_column: Some("known".to_owned()),
            point_in_time: Mode::Event,
            late_by: 0,
            columns: BTreeMap::new(),
            partition: None,
        },
        keys: vec![JoinKey {
            name: "customer".to_owned(),
            data_type: ScalarType::Int64,
        }],
        features,
        ttl: None,
        online: true,
        batch,
    }
}

fn batch_of(
    component: &Component,
    inputs: Vec<(SourceBinding, Option<Literal>)>,
    on_error: OnError,
) -> BatchTransformation {
    BatchTransformation {
        name: "cleaned".to_owned(),
        component: component.digest(),
        description: component.description().clone(),
        inputs,
        on_error,
    }
}

fn times(values: &[Option<i64>]) -> ArrayRef {
    Arc::new(TimestampMicrosecondArray::from(values.to_vec()))
}

fn source(columns: &[(&str, ArrayRef)]) -> RecordBatch {
    let fields: Vec<ArrowField> = columns
        .iter()
        .map(|(name, column)| ArrowField::new(*name, column.data_type().clone(), true))
        .collect();
    let arrays = columns.iter().map(|(_, column)| Arc::clone(column));
    RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays.collect()).unwrap()
}

/// Three orders of customers 1, null, 3, with `x` of 2, 0, 1.
fn orders() -> RecordBatch {
    source(&[
        ("x", Arc::new(Int32Array::from(vec![2, 0, 1]))),
        ("known", times(&[Some(11), None, Some(31)])),
        (
            "customer",
            Arc::new(Int32Array::from(vec![Some(1), None, Some(3)])),
        ),
        ("at", times(&[Some(10), Some(20), Some(30)])),
    ])
}

fn runner(view: View, components: &[&Arc<Component>]) -> ViewRunner {
    ViewRunner::new(Arc::new(view), &by_digest(components)).unwrap()
}

/// `keys | event | created | features`.
fn shown(rows: &ViewRows) -> String {
    let micros = |array: &TimestampMicrosecondArray| {
        let values: Vec<_> = array
            .iter()
            .map(|v| v.map_or("-".into(), |v| v.to_string()))
            .collect();
        values.join(" ")
    };
    let columns = |columns: &[ArrayRef]| {
        columns
            .iter()
            .map(|c| text(c))
            .collect::<Vec<_>>()
            .join(" ")
    };
    format!(
        "{} | {} | {} | {}",
        columns(&rows.keys),
        micros(&rows.event),
        micros(&rows.created),
        columns(&rows.features)
    )
}

#[test]
fn without_a_transformation_rows_are_the_sources() {
    let runner = runner(
        view(
            vec![
                field("x", FLOAT64),
                field("label", DataType::Scalar(ScalarType::String)),
            ],
            None,
        ),
        &[],
    );
    let labels: DictionaryArray<Int8Type> = vec![Some("a"), None, Some("b")].into_iter().collect();
    let rows = source(&[
        ("x", Arc::new(Int32Array::from(vec![2, 0, 1]))),
        ("label", Arc::new(labels)),
        ("other", Arc::new(BooleanArray::from(vec![true; 3]))),
        ("known", times(&[Some(11), None, Some(31)])),
        (
            "customer",
            Arc::new(Int32Array::from(vec![Some(1), None, Some(3)])),
        ),
        (
            "at",
            Arc::new(TimestampNanosecondArray::from(vec![
                Some(10_999),
                Some(-1),
                None,
            ])),
        ),
    ]);
    assert_eq!(
        shown(&runner.run(&rows).unwrap()),
        r#"[1,null,3] | 10 -1 - | 11 - 31 | [2.0,0.0,1.0] ["a",null,"b"]"#
    );
    assert_eq!(
        shown(&runner.run(&rows.slice(1, 0)).unwrap()),
        "[] |  |  | [] []"
    );
}

#[test]
fn a_source_without_a_created_column_has_none() {
    let mut view = view(vec![field("x", INT64)], None);
    view.source.created_timestamp_column = None;
    let rows = runner(view, &[]).run(&orders()).unwrap();
    assert_eq!(shown(&rows), "[1,null,3] | 10 20 30 | - - - | [2,0,1]");
}

#[test]
fn errors_name_column_row_and_value() {
    let run = runner(view(vec![field("x", INT64)], None), &[]);
    let mut columns: Vec<(&str, ArrayRef)> = vec![
        (
            "x",
            Arc::new(Float64Array::from(vec![Some(1.0), None, Some(1.5)])),
        ),
        ("known", times(&[None; 3])),
        ("customer", Arc::new(Int64Array::from(vec![1, 2, 3]))),
        ("at", times(&[Some(0); 3])),
    ];
    let error = run.run(&source(&columns)).unwrap_err();
    let message = error.clone().shifted(1_000).to_string();
    assert!(
        message.contains("feature view `orders`, column `x`: row 1002: 1.5"),
        "{message}"
    );
    columns[0].1 = Arc::new(Int64Array::from(vec![1, 2, 3]));
    columns[3].1 = times(&[Some(0), Some(i64::MAX), None]);
    let message = run.run(&source(&columns)).unwrap_err().to_string();
    assert!(message.contains("column `at`: row 1"), "{message}");
    columns[3].1 = times(&[None; 3]);
    columns.remove(2);
    let message = run.run(&source(&columns)).unwrap_err().to_string();
    assert!(
        message.contains("needs the column `customer`; there are x, known, at"),
        "{message}"
    );
}

#[test]
fn what_a_component_does_not_give_is_of_the_source_row() {
    let component = Guest::repeat().load();
    let batch = batch_of(
        &component,
        vec![(SourceBinding::Column("x".to_owned()), None)],
        OnError::Fail,
    );
    let run = runner(view(vec![field("x", INT64)], Some(batch)), &[&component]);
    // Each row as often as x says.
    assert_eq!(
        shown(&run.run(&orders()).unwrap()),
        "[1,1,3] | 10 10 30 | 11 11 31 | [2,2,1]"
    );
}

/// A component that gives back what it takes: keys, timestamps and a feature.
fn giving(names: &[(&str, DataType)]) -> Arc<Component> {
    let fields = names.iter().map(|(name, t)| field(name, *t)).collect();
    Guest::echo(Kind::Batch, fields).load()
}

fn column(name: &str) -> (SourceBinding, Option<Literal>) {
    (SourceBinding::Column(name.to_owned()), None)
}

#[test]
fn what_a_component_gives_itself_counts() {
    let component = giving(&[
        ("customer", DataType::Scalar(ScalarType::Int32)),
        ("at", TIMESTAMP),
        ("known", TIMESTAMP),
        ("x", DataType::Scalar(ScalarType::Int32)),
    ]);
    let constant = SourceBinding::Constant(Literal(serde_json::json!("1970-01-01T00:00:01Z")));
    let batch = batch_of(
        &component,
        vec![
            (column("x").0, Some(Literal(serde_json::json!(7)))),
            (constant, None),
            (SourceBinding::EventTimestamp, None),
            column("customer"),
        ],
        OnError::Fail,
    );
    let run = runner(view(vec![field("x", FLOAT64)], Some(batch)), &[&component]);
    assert_eq!(
        run.view().source_columns(),
        ["at", "known", "x", "customer"]
    );
    let rows = source(&[
        (
            "x",
            Arc::new(Int32Array::from(vec![Some(2), None, Some(1)])),
        ),
        ("known", times(&[Some(10), Some(19), None])),
        (
            "customer",
            Arc::new(Int64Array::from(vec![Some(4), Some(5), None])),
        ),
        ("at", times(&[Some(10), Some(20), Some(30)])),
    ]);
    assert_eq!(
        shown(&run.run(&rows).unwrap()),
        "[2,7,1] | 1000000 1000000 1000000 | 10 20 - | [4.0,5.0,null]"
    );
}

#[test]
fn an_event_timestamp_before_the_source_rows_is_refused() {
    let component = giving(&[("at", TIMESTAMP), ("x", INT64)]);
    let batch = batch_of(
        &component,
        vec![column("shipped"), column("x")],
        OnError::Fail,
    );
    let run = runner(view(vec![field("x", INT64)], Some(batch)), &[&component]);
    let rows = |at: &[Option<i64>], shipped: &[Option<i64>]| {
        source(&[
            ("x", Arc::new(Int64Array::from(vec![1, 2, 3]))),
            ("known", times(&[None; 3])),
            ("customer", Arc::new(Int64Array::from(vec![1, 2, 3]))),
            ("at", times(at)),
            ("shipped", times(shipped)),
        ])
    };
    // Later, equal, and none; a source row that never counts gives none that does.
    let given = run
        .run(&rows(
            &[Some(10), Some(20), None],
            &[Some(11), Some(20), Some(99)],
        ))
        .unwrap();
    assert_eq!(shown(&given), "[1,2,3] | 11 20 - | - - - | [1,2,3]");
    let given = run
        .run(&rows(&[Some(10), Some(20), None], &[None, Some(21), None]))
        .unwrap();
    assert_eq!(shown(&given), "[1,2,3] | - 21 - | - - - | [1,2,3]");
    let error = run
        .run(&rows(
            &[Some(10), Some(2_000_000), None],
            &[Some(10), Some(1_000_000), None],
        ))
        .unwrap_err();
    assert_eq!(
        error.shifted(5).to_string(),
        "feature view `orders`: transformation `cleaned` turned row 6 of 1970-01-01T00:00:02Z into \
         a row of 1970-01-01T00:00:01Z; what it gives may not be before that from which it comes"
    );
}

#[test]
fn a_created_timestamp_before_the_source_rows_is_refused() {
    let component = giving(&[("known", TIMESTAMP), ("x", INT64)]);
    let batch = batch_of(
        &component,
        vec![column("loaded"), column("x")],
        OnError::Fail,
    );
    let run = runner(view(vec![field("x", INT64)], Some(batch)), &[&component]);
    let rows = |known: &[Option<i64>], loaded: &[Option<i64>]| {
        source(&[
            ("x", Arc::new(Int64Array::from(vec![1, 2, 3]))),
            ("known", times(known)),
            ("customer", Arc::new(Int64Array::from(vec![1, 2, 3]))),
            ("at", times(&[Some(10), Some(20), Some(30)])),
            ("loaded", times(loaded)),
        ])
    };
    // Later, equal, and none; what was never known stays so.
    let given = run
        .run(&rows(
            &[Some(11), Some(21), None],
            &[Some(12), Some(21), Some(99)],
        ))
        .unwrap();
    assert_eq!(shown(&given), "[1,2,3] | 10 20 30 | 12 21 - | [1,2,3]");
    let refused = |known, loaded| {
        let error = run.run(&rows(known, loaded)).unwrap_err();
        error.shifted(5).to_string()
    };
    assert_eq!(
        refused(
            &[None, Some(2_000_000), Some(31)],
            &[None, Some(1_000_000), Some(31)]
        ),
        "feature view `orders`: transformation `cleaned` turned row 6, created \
         1970-01-01T00:00:02Z, into a row created 1970-01-01T00:00:01Z; what it gives may not be \
         created before that from which it comes"
    );
    assert_eq!(
        refused(&[None, None, Some(2_000_000)], &[None, Some(7), None]),
        "feature view `orders`: transformation `cleaned` turned row 7, created \
         1970-01-01T00:00:02Z, into a row without a created timestamp; what it gives may not be \
         created before that from which it comes"
    );
}

#[test]
fn a_row_that_a_component_does_not_give_was_created_when_the_source_row_was() {
    // It does not see rows without `x`, and would give the others' created timestamps.
    let fields = vec![field("known", TIMESTAMP), required("x", INT64)];
    let component = Guest::echo(Kind::Batch, fields).load();
    let inputs = vec![column("loaded"), column("x")];
    let batch = batch_of(&component, inputs, OnError::Null);
    let run = runner(view(vec![field("x", INT64)], Some(batch)), &[&component]);
    let rows = source(&[
        ("x", Arc::new(Int64Array::from(vec![None, Some(2), None]))),
        ("known", times(&[Some(11), Some(21), None])),
        ("customer", Arc::new(Int64Array::from(vec![1, 2, 3]))),
        ("at", times(&[Some(10), Some(20), Some(30)])),
        ("loaded", times(&[Some(1), Some(22), Some(33)])),
    ]);
    assert_eq!(
        shown(&run.run(&rows).unwrap()),
        "[1,2,3] | 10 20 30 | 11 22 - | [null,2,null]"
    );
}

#[test]
fn a_failing_source_row_is_named_or_gives_nulls() {
    let component = Guest::repeat().named("orders").load();
    let of = |on_error| {
        let batch = batch_of(&component, vec![column("x")], on_error);
        runner(view(vec![field("x", INT64)], Some(batch)), &[&component])
    };
    let rows = source(&[
        (
            "x",
            Arc::new(Int64Array::from(vec![
                Some(1),
                None,
                Some(1 << 40),
                Some(2),
            ])),
        ),
        ("known", times(&[None; 4])),
        ("customer", Arc::new(Int64Array::from(vec![1, 2, 3, 4]))),
        ("at", times(&[Some(10), Some(20), Some(30), Some(40)])),
    ]);
    assert_eq!(
        shown(&of(OnError::Null).run(&rows).unwrap()),
        "[1,2,3,4,4] | 10 20 30 40 40 | - - - - - | [1,null,null,2,2]"
    );
    let error = of(OnError::Fail).run(&rows).unwrap_err().to_string();
    assert!(
        error.starts_with(
            "feature view `orders`: transformation `cleaned` (orders 0.1.0, function `run`) failed \
             on row 2: stopped itself"
        ),
        "{error}"
    );
}

#[test]
fn an_output_that_does_not_fit_names_the_source_row() {
    // float64 to int64 would lose something, so it is refused before any row.
    let component = giving(&[("x", FLOAT64)]);
    let batch = batch_of(&component, vec![column("x")], OnError::Fail);
    let error = ViewRunner::new(
        Arc::new(view(vec![field("x", INT64)], Some(batch))),
        &by_digest(&[&component]),
    )
    .unwrap_err()
    .to_string();
    assert!(
        error.contains("gives `x` as float64; it must be int64"),
        "{error}"
    );
}

#[test]
fn a_view_and_a_component_that_do_not_fit_are_refused() {
    let component = Guest::repeat().load();
    let on_demand = Guest::echo(Kind::OnDemand, vec![required("x", INT64)]).load();
    let refused = |view: View| {
        ViewRunner::new(Arc::new(view), &by_digest(&[&component, &on_demand]))
            .unwrap_err()
            .to_string()
    };
    let batch = || batch_of(&component, vec![column("x")], OnError::Fail);
    let x = || vec![field("x", INT64)];
    let mut other = batch();
    other.component = Digest::of(b"other");
    assert!(refused(view(x(), Some(other))).contains("is not loaded"));
    let mut other = batch();
    other.description.version = "9".to_owned();
    assert!(refused(view(x(), Some(other))).contains("describes itself otherwise"));
    let other = batch_of(&on_demand, vec![column("x")], OnError::Fail);
    assert!(refused(view(x(), Some(other))).contains("of kind on_demand; it must be batch"));
    let other = batch_of(&component, vec![], OnError::Fail);
    assert!(refused(view(x(), Some(other))).contains("has 1 inputs and 0 bindings"));
    let error = refused(view(vec![field("y", INT64)], Some(batch())));
    assert!(
        error.contains("does not give the feature `y`; it gives x"),
        "{error}"
    );
    let mut other = batch();
    other.inputs[0].1 = Some(Literal(serde_json::json!("many")));
    assert!(refused(view(x(), Some(other))).contains("`x` whose default does not fit"));
}
