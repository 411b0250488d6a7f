//! The allocator of a component.
//!
//! A grown memory costs the runtime two system calls in each call: one to grow it, one to shrink
//! it for the next instance. So the allocator first uses what the initial memory leaves over,
//! from `__heap_base` to `__heap_end`, and grows it only for what does not fit.
//! `unskew transform build` asks for an initial memory that a batch of few rows fits into.

#[global_allocator]
static ALLOCATOR: dlmalloc::GlobalDlmalloc = dlmalloc::GlobalDlmalloc;
