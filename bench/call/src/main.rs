//! `unskew-bench-call COMPONENT [SECONDS [CASE]]`
//!
//! What an isolated call costs: percentiles in nanoseconds of [`Component::call`] and of
//! [`Evaluator::evaluate`] on joined batches of a view with ten features. COMPONENT is
//! `bench/transforms/three_to_two`, built. Each case runs for SECONDS (default 1), of which the
//! first tenth does not count; with two threads each calls on its own. CASE takes the cases with
//! that in their name.
//!
//! ```text
//! case                      calls    min    p50    p90    p99
//! ```

#![expect(
    clippy::print_stdout,
    reason = "a program that prints what it measures"
)]

use std::collections::BTreeMap;
use std::error::Error;
use std::hint::black_box;
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use arrow::array::{
    ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
    UInt8Array,
};
use unskew_core::plan::{Binding, FeaturePlan, Input, Layout, Lookup, Output, SEMANTICS, Step};
use unskew_core::time::Mode;
use unskew_core::types::{DataType, Field, ScalarType, UTC};
use unskew_core::view::{JoinKey, OnError, Source, View};
use unskew_engine::{Component, Engine, Evaluator, Settings};

const INT64: DataType = DataType::Scalar(ScalarType::Int64);
const FLOAT64: DataType = DataType::Scalar(ScalarType::Float64);
const STRING: DataType = DataType::Scalar(ScalarType::String);
/// The instant for which features are computed; rows are an hour older.
const NOW: i64 = 1_700_000_000_000_000;
const HOUR: i64 = 3_600_000_000;
/// Features of the view, of which the last two are int64.
const FEATURES: usize = 10;

/// That of the command.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (path, seconds, wanted) = match arguments.as_slice() {
        [path] => (path, 1.0, ""),
        [path, seconds] => (path, seconds.parse()?, ""),
        [path, seconds, case] => (path, seconds.parse()?, case.as_str()),
        _ => return Err("usage: unskew-bench-call COMPONENT [SECONDS [CASE]]".into()),
    };
    let time = Duration::try_from_secs_f64(seconds)?;
    let measure = |name: String, threads: usize, call: &(dyn Fn() -> bool + Sync)| {
        if name.contains(wanted) {
            measure(&name, time, threads, call);
        }
    };
    let engine = Engine::new(&Settings::default())?;
    let component = engine.load(&std::fs::read(path)?)?;
    let with = Evaluator::new(
        Arc::new(plan(Some(&component))),
        &BTreeMap::from([(component.digest(), Arc::clone(&component))]),
    )?;
    let without = Evaluator::new(Arc::new(plan(None)), &BTreeMap::new())?;

    println!(
        "{:<40} {:>9} {:>8} {:>8} {:>8} {:>8}  (ns)",
        "case", "calls", "min", "p50", "p90", "p99"
    );
    for rows in [1, 100, 8_192] {
        let inputs = inputs(rows);
        // What fails is said once, and not measured.
        component.call(&inputs, rows)?;
        let call = || component.call(&inputs, rows).is_ok();
        measure(format!("call, {rows} rows, 1 thread"), 1, &call);
        measure(format!("call, {rows} rows, 2 threads"), 2, &call);
    }
    for (name, evaluator) in [("with the component", &with), ("features alone", &without)] {
        for rows in [1, 100] {
            let joined = joined(evaluator.layout(), rows)?;
            evaluator.evaluate(&joined)?;
            let evaluate = || evaluator.evaluate(&joined).is_ok();
            measure(format!("evaluate, {rows} rows, {name}"), 1, &evaluate);
        }
    }
    Ok(())
}

/// Runs `call` over and over on that many threads at once, and prints what one run took.
fn measure(name: &str, time: Duration, threads: usize, call: impl Fn() -> bool + Sync) {
    let barrier = Barrier::new(threads);
    let mut nanoseconds: Vec<u64> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|_| scope.spawn(|| timed(&barrier, time, &call)))
            .collect();
        let all = workers.into_iter().filter_map(|worker| worker.join().ok());
        all.flatten().collect()
    });
    nanoseconds.sort_unstable();
    let at = |share: f64| {
        let index = (nanoseconds.len() as f64 * share) as usize;
        nanoseconds.get(index).copied().unwrap_or_default()
    };
    let calls = nanoseconds.len();
    let (min, p50, p90, p99) = (at(0.0), at(0.5), at(0.9), at(0.99));
    println!("{name:<40} {calls:>9} {min:>8} {p50:>8} {p90:>8} {p99:>8}");
}

/// The nanoseconds of each run; none if one fails.
fn timed(barrier: &Barrier, time: Duration, call: impl Fn() -> bool) -> Vec<u64> {
    let mut taken = Vec::with_capacity(1 << 22);
    barrier.wait();
    let begun = Instant::now();
    let mut before = begun;
    while before - begun < time {
        if !black_box(call()) {
            return Vec::new();
        }
        let after = Instant::now();
        // The first calls set up instances, and warm caches.
        if after - begun > time / 10 {
            taken.push((after - before).as_nanos() as u64);
        }
        before = after;
    }
    taken
}

/// The columns of the component: every fourth row has nulls where they may be.
fn inputs(rows: usize) -> Vec<ArrayRef> {
    let nullable = |row: usize| row % 4 != 3;
    vec![
        Arc::new(Int64Array::from_iter(
            (0..rows).map(|row| nullable(row).then_some(row as i64 % 90)),
        )),
        Arc::new(Int64Array::from_iter_values(
            (0..rows as i64).map(|row| row % 7),
        )),
        Arc::new(Float64Array::from_iter(
            (0..rows).map(|row| nullable(row).then_some(row as f64 * 0.5)),
        )),
    ]
}

/// A service of ten features, and of the component's outputs if there is one: two of its inputs are
/// features, one is a request field.
fn plan(component: Option<&Component>) -> FeaturePlan {
    let view = view();
    let features = 0..view.features.len();
    let feature = |feature| Binding::Feature { lookup: 0, feature };
    let mut outputs: Vec<Output> = features
        .clone()
        .map(|index| Output {
            name: view.features[index].name.clone(),
            data_type: view.features[index].data_type,
            binding: feature(index),
        })
        .collect();
    let input = |binding| Input {
        binding,
        default: None,
    };
    let steps: Vec<Step> = component
        .into_iter()
        .map(|component| Step {
            name: "three_to_two".to_owned(),
            component: component.digest(),
            description: component.description().clone(),
            inputs: vec![
                input(feature(FEATURES - 1)),
                input(Binding::Request(0)),
                input(feature(0)),
            ],
            on_error: OnError::Fail,
        })
        .collect();
    if let [step] = steps.as_slice() {
        let found = step.description.outputs.iter().enumerate();
        outputs.extend(found.map(|(output, field)| Output {
            name: field.name.clone(),
            data_type: field.data_type,
            binding: Binding::Output { step: 0, output },
        }));
    }
    FeaturePlan {
        semantics: SEMANTICS,
        service: Some("measured".to_owned()),
        join_keys: vec![Field::new("customer", STRING)],
        request_fields: vec![Field::new("purchases", INT64)],
        lookups: vec![Lookup {
            name: view.name.clone(),
            keys: vec![0],
            features: features.collect(),
            view: Arc::new(view),
        }],
        steps,
        outputs,
    }
}

fn view() -> View {
    let features = (0..FEATURES).map(|index| {
        let data_type = if index < FEATURES - 2 { FLOAT64 } else { INT64 };
        Field::new(format!("f{index}"), data_type)
    });
    View {
        name: "activity".to_owned(),
        source: Source {
            name: "activity".to_owned(),
            path: "activity.parquet".to_owned(),
            timestamp_field: "event_timestamp".to_owned(),
            created_timestamp_column: None,
            point_in_time: Mode::Event,
            late_by: 0,
            columns: BTreeMap::new(),
            partition: None,
        },
        keys: vec![JoinKey {
            name: "customer".to_owned(),
            data_type: ScalarType::String,
        }],
        features: features.collect(),
        ttl: Some(24 * HOUR),
        online: true,
        batch: None,
    }
}

/// Rows that were all found, with a null in every fourth.
fn joined(layout: &Layout, rows: usize) -> Result<RecordBatch, Box<dyn Error>> {
    let times = |time: Option<i64>| -> ArrayRef {
        Arc::new(TimestampMicrosecondArray::from(vec![time; rows]).with_timezone(UTC))
    };
    let keys = (0..rows).map(|row| format!("customer {row}"));
    let mut columns: Vec<ArrayRef> = vec![
        times(Some(NOW)),
        Arc::new(StringArray::from_iter_values(keys)),
        Arc::new(Int64Array::from_iter_values(0..rows as i64)),
        Arc::new(UInt8Array::from(vec![0; rows])),
        times(Some(NOW - HOUR)),
        times(None),
    ];
    let [ints, _, floats] = inputs(rows).try_into().map_err(|_| "an input is missing")?;
    for index in 0..FEATURES {
        let float = index < FEATURES - 2;
        columns.push(Arc::clone(if float { &floats } else { &ints }));
    }
    Ok(RecordBatch::try_new(Arc::clone(&layout.schema), columns)?)
}
