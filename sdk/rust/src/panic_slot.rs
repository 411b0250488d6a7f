//! How a panic's message, and the row of any trap, reach the runtime.
//!
//! WebAssembly has no unwinding here: a panic ends in the instruction `unreachable`, without a
//! message, and a stack overflow or an endless loop ends without any code of the component. But
//! the memory outlives the trap. So a slot lies in it, at an address that does not matter, which
//! the runtime finds by its first 32 bytes. All numbers are little-endian:
//!
//! | offset | size | what |
//! | --- | --- | --- |
//! | 0 | 32 | the magic: `unskew panic slot` and the bytes `8e 2f d1 5b a4 07 c9 63 f0 1c 7d 9a 46 e8 b2` |
//! | 32 | 4 | the row that was being worked on |
//! | 36 | 4 | 1 if a row was being worked on, else 0 |
//! | 40 | 4 | how many bytes of the message there are, 0 if there was no panic |
//! | 44 | 2048 | the message in UTF-8, cut off at the end of a character |
//!
//! The magic is the initial value of the slot and stands nowhere else in the component, so that
//! the only place that holds it is the slot.

#[cfg(target_arch = "wasm32")]
mod component;
#[cfg(any(target_arch = "wasm32", test))]
mod slot;

#[cfg(target_arch = "wasm32")]
pub(crate) use component::{enter, install, leave};
#[cfg(not(target_arch = "wasm32"))]
pub(crate) use native::{enter, install, leave};

/// In a native test a panic is the test's, with its own message.
#[cfg(not(target_arch = "wasm32"))]
mod native {
    pub(crate) fn install() {}
    pub(crate) fn enter(_row: u32) {}
    pub(crate) fn leave() {}
}
