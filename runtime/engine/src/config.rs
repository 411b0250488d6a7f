//! The one place that decides how wasmtime runs components.

use std::io;
use std::time::Duration;

use wasmtime::{
    Config, Enabled, InstanceAllocationStrategy, PoolingAllocationConfig, WasmFeatures,
};

use crate::error::EngineError;
use crate::settings::Settings;

/// What one instance of a component may hold, in a pool whose totals are these times its instances.
pub(crate) mod limits {
    /// Core instances: a component linked from shared libraries has one for each.
    pub(crate) const CORE_INSTANCES: u32 = 64;
    /// Linear memories.
    pub(crate) const MEMORIES: u32 = 2;
    /// Tables.
    pub(crate) const TABLES: u32 = 8;
    /// Elements of a table.
    pub(crate) const TABLE_ELEMENTS: usize = 65_536;
    /// The bytes of wasmtime's own data about an instance.
    pub(crate) const INSTANCE_SIZE: usize = 4 << 20;
    /// The bytes of what one call returns.
    pub(crate) const RESULT: usize = 128 << 20;
}

/// How many epochs pass within a timeout: the finer, the less later than the timeout a call ends.
const TICKS: u64 = 20;

/// The longest epoch: a call that is to take a moment ends within two of them.
const LONGEST_TICK: Duration = Duration::from_millis(2);

/// The epochs that a call has which is to take a moment. One passes before it has begun; so it has
/// 2 to 4 ms, and less only where the whole timeout is short.
pub(crate) const MOMENT: u64 = 2;

/// The epochs that a call has for rows of several requests: 18 to 20 ms, and less only where the
/// whole timeout is short. Components for which that is too little gain nothing from it.
pub(crate) const TOGETHER: u64 = 10;

/// Slots of the pool for each call that runs at once. More than calls need: a component goes back to
/// the slot that it used last on that CPU, where its memory is mapped already, and loses it only
/// when slots run out. No more, since each is 4 GiB of address space, of which some machines have
/// 512.
const SLOTS: u32 = 3;

/// Where instances come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Allocation {
    /// A pool that reserves address space for all of them at once.
    Pool,
    /// The operating system, for each anew: where the pool's address space cannot be had, such as
    /// under `ulimit -v`. Slower, with the same results.
    OnDemand,
}

/// The configuration of wasmtime; everything that could make two sides disagree is set here.
pub(crate) fn wasmtime_config(settings: &Settings, allocation: Allocation) -> Config {
    let kept = brief_instances() + shared_instances();
    let instances = settings.instances.saturating_add(kept);
    let mut config = Config::new();
    config
        // The same bits: NaNs have one form after each operation, and nothing depends on the machine.
        .cranelift_nan_canonicalization(true)
        .wasm_relaxed_simd(false)
        .relaxed_simd_deterministic(true)
        .wasm_features(WasmFeatures::THREADS, false)
        // A memory beyond 4 GiB would cost each access a check, and no limit is that high.
        .wasm_memory64(false)
        // Epochs cost about 10 %, fuel two to three times.
        .epoch_interruption(true)
        // A panic's message and the row of a trap lie in the memory of the dead instance.
        .coredump_on_trap(true);
    match allocation {
        Allocation::Pool => {
            let mut pool = PoolingAllocationConfig::new();
            pool.total_component_instances(instances)
                .total_core_instances(instances.saturating_mul(limits::CORE_INSTANCES))
                .total_memories(instances.saturating_mul(SLOTS))
                .total_tables(instances.saturating_mul(limits::TABLES))
                .max_core_instances_per_component(limits::CORE_INSTANCES)
                .max_memories_per_component(limits::MEMORIES)
                .max_tables_per_component(limits::TABLES)
                .table_elements(limits::TABLE_ELEMENTS)
                .max_component_instance_size(limits::INSTANCE_SIZE)
                .max_core_instance_size(limits::INSTANCE_SIZE)
                // Address space, not memory: `Limits` holds each instance to the memory limit, and
                // `Engine::load` says so of a component that begins with more.
                .max_memory_size(4 << 30)
                // What a call wrote to is cleared by the process up to here, and given back to the
                // kernel beyond. To fault it in again takes longer: with 256 KiB instead, a call of
                // 8,192 rows of three columns took a tenth longer.
                .linear_memory_keep_resident(2 << 20)
                // One system call asks what was written to, instead of clearing all that there is. A
                // call of one row, with one page of 64 KiB, takes 2 % longer for it; one of 8,192
                // rows is 5 % faster, and one of a component in Python, which has 20 MiB and writes
                // to little of it, takes 0.9 ms instead of 1.2.
                .pagemap_scan(Enabled::Auto)
                .table_keep_resident(64 << 10);
            config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
        }
        Allocation::OnDemand => {
            config
                .allocation_strategy(InstanceAllocationStrategy::OnDemand)
                // Nothing reserved beyond what a memory holds.
                .memory_reservation(0)
                .memory_reservation_for_growth(1 << 20)
                .memory_guard_size(0);
        }
    }
    config
}

/// wasmtime with the pool, or without it where its address space cannot be reserved.
///
/// # Errors
/// wasmtime refuses both, which is a matter of the machine.
pub(crate) fn wasmtime_engine(
    settings: &Settings,
) -> Result<(wasmtime::Engine, Allocation), EngineError> {
    let pooled = wasmtime::Engine::new(&wasmtime_config(settings, Allocation::Pool));
    match pooled {
        Ok(engine) => Ok((engine, Allocation::Pool)),
        Err(pool) => wasmtime::Engine::new(&wasmtime_config(settings, Allocation::OnDemand))
            .map(|engine| (engine, Allocation::OnDemand))
            .map_err(|error| EngineError::Wasmtime(format!("{error:#}; with a pool: {pool:#}"))),
    }
}

/// How many instances are kept for calls that take a moment: one for each thread that runs. So
/// components that take long, however many, never keep those from running that do not.
pub(crate) fn brief_instances() -> u32 {
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    u32::try_from(threads).unwrap_or(1).min(64)
}

/// How many instances are kept for calls of several requests: one for two threads that run. Who
/// receives requests and answers them needs some, and calls at once get into each other's way, since
/// each takes page faults that interrupt the other cores: on two cores a component in Python gave
/// 3,400 answers/s one call after the other, and 1,700 two at once.
pub(crate) fn shared_instances() -> u32 {
    (brief_instances() / 2).max(1)
}

/// The time between two epochs, and how many a call has.
pub(crate) fn epochs(timeout: Duration) -> (Duration, u64) {
    let tick = (timeout / TICKS as u32).clamp(Duration::from_millis(1), LONGEST_TICK);
    let ticks = timeout.as_nanos().div_ceil(tick.as_nanos());
    // One more: the epoch in which a call begins has partly passed.
    (tick, u64::try_from(ticks).unwrap_or(u64::MAX - 1) + 1)
}

/// Starts the thread that advances the engine's epoch until the engine is dropped.
///
/// # Errors
/// The operating system gives no thread.
pub(crate) fn start_epochs(engine: &wasmtime::Engine, tick: Duration) -> io::Result<()> {
    // Weak: the thread must not keep the engine alive.
    let engine = engine.weak();
    std::thread::Builder::new()
        .name("unskew-epoch".to_owned())
        .spawn(move || {
            while let Some(engine) = engine.upgrade() {
                engine.increment_epoch();
                drop(engine);
                std::thread::sleep(tick);
            }
        })
        .map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_has_all_of_its_time_and_hardly_more() {
        for milliseconds in [1, 2, 5, 19, 50, 333, 1_000, 10_000, 3_600_000] {
            let timeout = Duration::from_millis(milliseconds);
            let (tick, ticks) = epochs(timeout);
            let (least, most) = (tick * (ticks - 1) as u32, tick * ticks as u32);
            assert!(least >= timeout, "{timeout:?}: {least:?}");
            let late = (timeout / 10).max(Duration::from_millis(2));
            assert!(most <= timeout + late, "{timeout:?}: {most:?}");
        }
        assert_eq!(
            epochs(Duration::from_millis(50)),
            (Duration::from_millis(2), 26)
        );
    }
}
