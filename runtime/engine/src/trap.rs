//! What an instance that died, or a call that wasmtime refused, means in plain words.

use std::sync::OnceLock;
use std::time::Duration;

use wasmtime::{Store, Trap, WasmCoreDump};

use crate::config::limits;
use crate::engine::size;
use crate::error::{CallError, CallErrorKind};
use crate::limits::{Limits, OutOfMemory};
use crate::settings::Settings;

/// With what the slot begins in which the Rust SDK leaves a panic's message and the row of any trap
/// (`sdk/rust/src/panic_slot.rs`). After it, little-endian: the row (4 bytes), 1 if a row was being
/// worked on (4), the length of the message (4), the message in UTF-8 (up to 2,048).
pub(crate) const MAGIC: [u8; 32] =
    *b"unskew panic slot\x8e\x2f\xd1\x5b\xa4\x07\xc9\x63\xf0\x1c\x7d\x9a\x46\xe8\xb2";
const LONGEST_MESSAGE: usize = 2_048;

/// Where in its memory a component has its slot, once that was found.
pub(crate) type SlotOffset = OnceLock<usize>;

/// Whether the call ended since its time was over.
pub(crate) fn is_interrupt(error: &wasmtime::Error) -> bool {
    matches!(error.downcast_ref(), Some(Trap::Interrupt))
}

/// Why the call ended with `error`.
pub(crate) fn call_error(
    error: &wasmtime::Error,
    store: &Store<Limits>,
    settings: &Settings,
    offset: &SlotOffset,
) -> CallError {
    let slot = error
        .downcast_ref::<WasmCoreDump>()
        .and_then(|dump| Slot::find(dump, store, offset))
        .unwrap_or_default();
    let (kind, message) = if error.is::<OutOfMemory>() {
        let limit = size(settings.memory_limit as u64);
        (
            CallErrorKind::Memory,
            format!("ran out of memory (limit {limit})"),
        )
    } else if let Some(trap) = error.downcast_ref::<Trap>() {
        match (trap, &slot.message) {
            (Trap::UnreachableCodeReached, Some(message)) => {
                (CallErrorKind::Panicked, format!("panicked: {message}"))
            }
            (Trap::Interrupt, _) => (
                CallErrorKind::Time,
                format!("took longer than {}", span(settings.timeout)),
            ),
            _ => trapped(*trap),
        }
    } else {
        refused(error)
    };
    CallError::new(kind, slot.row, message)
}

/// A trap without a message, in words of the language in which the author wrote.
fn trapped(trap: Trap) -> (CallErrorKind, String) {
    let words = match trap {
        Trap::UnreachableCodeReached => {
            "stopped itself (the instruction `unreachable`) without a message"
        }
        Trap::IntegerDivisionByZero => "divided by zero",
        Trap::IntegerOverflow => "arithmetic overflow",
        Trap::BadConversionToInteger => "converted a float to an integer that cannot hold it",
        Trap::StackOverflow => "called itself too deeply",
        Trap::MemoryOutOfBounds => {
            "reached outside of its memory, as a call stack that is too deep does"
        }
        Trap::TableOutOfBounds | Trap::IndirectCallToNull | Trap::BadSignature => {
            "called a function that is not there"
        }
        other => {
            return (CallErrorKind::Trapped, format!("ended in a trap: {other}"));
        }
    };
    (CallErrorKind::Trapped, words.to_owned())
}

/// What wasmtime found wrong with what the component returned.
fn refused(error: &wasmtime::Error) -> (CallErrorKind, String) {
    let cause = error.root_cause().to_string();
    // wasmtime gives this error no public type.
    if cause.contains("fuel allocated for hostcalls") {
        let limit = size(limits::RESULT as u64);
        return (
            CallErrorKind::ResultSpace,
            format!("returned too much at once (limit {limit})"),
        );
    }
    (
        CallErrorKind::Contract,
        format!("returned what the contract does not allow: {cause}"),
    )
}

/// A time span for a person.
fn span(duration: Duration) -> String {
    if duration.subsec_nanos() == 0 {
        format!("{} s", duration.as_secs())
    } else {
        format!("{} ms", duration.as_millis())
    }
}

/// What the slot says.
#[derive(Debug, Default, PartialEq, Eq)]
struct Slot {
    row: Option<usize>,
    message: Option<String>,
}

impl Slot {
    /// Reads the slot in the memory of a dead instance, if it has one.
    fn find(dump: &WasmCoreDump, store: &Store<Limits>, offset: &SlotOffset) -> Option<Self> {
        dump.memories().iter().find_map(|memory| {
            let data = memory.data(store);
            // A static lies at one place in each instance.
            let known = offset
                .get()
                .and_then(|&at| data.get(at..))
                .filter(|slot| slot.starts_with(&MAGIC));
            let slot = known.or_else(|| {
                let at = memchr::memmem::find(data, &MAGIC)?;
                let _ = offset.set(at);
                data.get(at..)
            })?;
            Some(Self::read(slot))
        })
    }

    /// Reads a slot, whose content anybody may have written.
    fn read(slot: &[u8]) -> Self {
        let word = |at: usize| {
            let bytes = slot.get(at..at + 4)?;
            Some(u32::from_le_bytes(bytes.try_into().ok()?) as usize)
        };
        let message = word(40).and_then(|length| {
            let bytes = slot.get(44..44 + length.min(LONGEST_MESSAGE))?;
            (!bytes.is_empty()).then(|| String::from_utf8_lossy(bytes).into_owned())
        });
        Self {
            row: word(32).filter(|_| word(36) == Some(1)),
            message,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slot(row: u32, known: u32, length: u32, message: &[u8]) -> Vec<u8> {
        let mut slot = MAGIC.to_vec();
        for word in [row, known, length] {
            slot.extend(word.to_le_bytes());
        }
        slot.extend(message);
        slot
    }

    #[test]
    fn a_slot_is_read_and_a_hostile_one_does_no_harm() {
        let cases = [
            (slot(7, 1, 5, b"hello, world"), Some(7), Some("hello")),
            (slot(7, 0, 0, b""), None, None),
            (slot(7, 1, u32::MAX, b"short"), Some(7), None),
            (slot(7, 9, 2, b"\xff!"), None, Some("\u{fffd}!")),
            (MAGIC.to_vec(), None, None),
        ];
        for (bytes, row, message) in cases {
            let message = message.map(str::to_owned);
            assert_eq!(Slot::read(&bytes), Slot { row, message });
        }
        let long = slot(0, 1, u32::MAX, &[b'x'; 10_000]);
        assert_eq!(
            Slot::read(&long).message.map(|m| m.len()),
            Some(LONGEST_MESSAGE)
        );
    }

    #[test]
    fn spans_are_written_for_a_person() {
        assert_eq!(span(Duration::from_secs(10)), "10 s");
        assert_eq!(span(Duration::from_millis(1_500)), "1500 ms");
    }
}
