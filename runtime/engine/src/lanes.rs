//! Copies of a component's code, so that each CPU has instances of its own.
//!
//! wasmtime gives a component the slot of the pool that it used last. Between the end of a call on
//! one CPU and the beginning of the next one there, another CPU often ends one too, and the two
//! exchange slots: the memory that each clears lies in the other's cache, and a call of one row took
//! twice as long as soon as two threads called at once, so that two cores did no more than one.
//! Slots go by the compiled code, so code that is loaded once more has others. The counters of
//! references to it, which each call raises and lowers, are then no longer shared either.

use wasmtime::component::{Component, ComponentExportIndex, InstancePre, Linker};

use crate::bindings::TransformPre;
use crate::cache;
use crate::engine::INTERFACE;
use crate::limits::Limits;

/// The most copies of one component: what they take up must not grow with any machine.
const MOST: usize = 8;
/// The most bytes of all copies of one component. Code that is larger works longer for a call than
/// the exchange of slots takes.
const MOST_BYTES: usize = 8 << 20;

/// A component's code, for each CPU or for some of them.
pub(crate) struct Lanes(Box<[Lane]>);

/// A copy of a component, ready to be instantiated.
pub(crate) struct Lane {
    pub(crate) instance: InstancePre<Limits>,
    /// Its export `run`.
    pub(crate) run: ComponentExportIndex,
}

impl Lanes {
    /// As many copies as the machine has use for. `cpus`: how many threads run at once.
    ///
    /// # Errors
    /// Its export is not what the contract says.
    pub(crate) fn new(
        engine: &wasmtime::Engine,
        compiled: &Component,
        cpus: usize,
    ) -> wasmtime::Result<Self> {
        let mut lanes = vec![Lane::new(engine, compiled)?];
        if cpus > 1 {
            let code = compiled.serialize()?;
            for _ in 1..count(cpus, code.len()) {
                lanes.push(Lane::new(engine, &cache::copy(engine, &code)?)?);
            }
        }
        Ok(Self(lanes.into()))
    }

    /// The copy of the CPU on which this thread runs. Another would give the same result.
    pub(crate) fn here(&self) -> &Lane {
        &self.0[cpu() % self.0.len()]
    }

    /// Any copy.
    pub(crate) fn first(&self) -> &Lane {
        &self.0[0]
    }

    /// All copies.
    pub(crate) fn all(&self) -> &[Lane] {
        &self.0
    }
}

impl Lane {
    fn new(engine: &wasmtime::Engine, compiled: &Component) -> wasmtime::Result<Self> {
        let instance = Linker::<Limits>::new(engine).instantiate_pre(compiled)?;
        // Its error names the export that is missing; `describe` compares types.
        TransformPre::new(instance.clone())?;
        let run = compiled
            .get_export_index(None, INTERFACE)
            .and_then(|interface| compiled.get_export_index(Some(&interface), "run"))
            .ok_or_else(|| {
                wasmtime::Error::msg(format!("it exports no function `run` in {INTERFACE}"))
            })?;
        Ok(Self { instance, run })
    }
}

/// How many copies there are of code of that size.
fn count(cpus: usize, bytes: usize) -> usize {
    cpus.min(MOST).min(MOST_BYTES / bytes.max(1)).max(1)
}

/// The number of the CPU on which this thread runs.
#[cfg(target_os = "linux")]
fn cpu() -> usize {
    rustix::thread::sched_getcpu()
}

/// Where the system does not say, all threads share one copy.
#[cfg(not(target_os = "linux"))]
fn cpu() -> usize {
    0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bindings::exports::unskew::transform::transformation as wit;
    use crate::config::{Allocation, wasmtime_config};
    use crate::testing::{self, Guest};

    #[test]
    fn there_are_as_many_copies_as_the_machine_has_use_for() {
        for (cpus, bytes, copies) in [
            (1, 100_000, 1),
            (2, 100_000, 2),
            (64, 100_000, MOST),
            (64, 3 << 20, 2),
            (64, 50 << 20, 1),
            (0, 0, 1),
        ] {
            assert_eq!(count(cpus, bytes), copies, "{cpus} CPUs, {bytes} bytes");
        }
    }

    #[test]
    fn each_copy_is_the_component() {
        let config = wasmtime_config(&testing::settings(), Allocation::Pool);
        let engine = wasmtime::Engine::new(&config).unwrap();
        let compiled = Component::new(&engine, Guest::identity().bytes()).unwrap();
        let lanes = Lanes::new(&engine, &compiled, 3).unwrap();
        assert_eq!(lanes.0.len(), 3);
        for Lane { instance, run } in &lanes.0 {
            let mut store = wasmtime::Store::new(&engine, Limits::new(1 << 20));
            store.set_epoch_deadline(1);
            let instance = instance.instantiate(&mut store).unwrap();
            let run = instance
                .get_typed_func::<(wit::Batch<'_>,), (Result<wit::Output, wit::Failure>,)>(
                    &mut store, run,
                )
                .unwrap();
            let flat = wit::FlatParam {
                length: 2,
                validity: &[],
                values: wit::ValuesParam::Int64s(&[7, -8]),
            };
            let batch = wit::Batch {
                rows: 2,
                columns: &[wit::ColumnParam::Flat(flat)],
            };
            let (returned,) = run.call(&mut store, (batch,)).unwrap();
            let mut columns = returned.unwrap().columns;
            let Some(wit::ColumnResult::Flat(column)) = columns.pop() else {
                panic!("a flat column")
            };
            assert!(matches!(column.values, wit::ValuesResult::Int64s(v) if v == [7, -8]));
        }
    }
}
