//! The slot in a component.

#![expect(
    unsafe_code,
    reason = "the runtime reads the slot from outside of the program"
)]

use std::cell::UnsafeCell;
use std::fmt::Write;
use std::panic::PanicHookInfo;

use super::slot::PanicSlot;

struct Shared(UnsafeCell<PanicSlot>);

// SAFETY: a component has one thread.
unsafe impl Sync for Shared {}

// `used`: nothing in the program reads the magic, yet it must not be optimized away.
#[used]
static SLOT: Shared = Shared(UnsafeCell::new(PanicSlot::new()));

/// Makes panics write their message into the slot.
pub(crate) fn install() {
    std::panic::set_hook(Box::new(record));
}

fn record(panic: &PanicHookInfo<'_>) {
    // SAFETY: a component has one thread, and no other reference to the slot exists: `enter`
    // and `leave` make none, and a panic within the formatting below aborts without coming
    // here again.
    let slot = unsafe { &mut *SLOT.0.get() };
    slot.length = 0;
    let message = panic.payload_as_str().unwrap_or("panic without a message");
    // An error only says that the message was cut off.
    let _ = match panic.location() {
        Some(location) => write!(slot, "{message}, at {location}"),
        None => slot.write_str(message),
    };
}

/// Notes that the work on `row` begins.
#[inline]
pub(crate) fn enter(row: u32) {
    set_row(row, 1);
}

/// Notes that no row is being worked on.
pub(crate) fn leave() {
    set_row(0, 0);
}

/// Volatile, so that the row in the slot is the right one at any instruction that may trap.
#[inline]
fn set_row(row: u32, known: u32) {
    let slot = SLOT.0.get();
    // SAFETY: the pointers are to fields of a static; a component has one thread, and `record`
    // holds its reference only while a panic is on its way to the end of the program.
    unsafe {
        (&raw mut (*slot).row).write_volatile(row);
        (&raw mut (*slot).row_known).write_volatile(known);
    }
}
