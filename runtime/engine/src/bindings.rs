//! The contract, `wit/transform.wit`, as host types.

#![allow(
    missing_docs,
    unreachable_pub,
    clippy::allow_attributes_without_reason,
    reason = "generated: the WIT file documents the items"
)]

wasmtime::component::bindgen!({
    path: "../../wit",
    world: "transform",
    // Batches are lowered straight from Arrow's buffers, one copy each.
    ownership: Borrowing { duplicate_if_necessary: true },
});
