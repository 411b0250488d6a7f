//! The layout of the slot, which the runtime knows too.

use std::fmt;

/// How many bytes of a message are kept.
const MESSAGE: usize = 2048;

/// The slot. The documentation of `panic_slot` says what is in it.
#[repr(C)]
pub(super) struct PanicSlot {
    magic: [u8; 32],
    pub(super) row: u32,
    pub(super) row_known: u32,
    pub(super) length: u32,
    message: [u8; MESSAGE],
}

impl PanicSlot {
    pub(super) const fn new() -> Self {
        Self {
            magic:
                *b"unskew panic slot\x8e\x2f\xd1\x5b\xa4\x07\xc9\x63\xf0\x1c\x7d\x9a\x46\xe8\xb2",
            row: 0,
            row_known: 0,
            length: 0,
            message: [0; MESSAGE],
        }
    }
}

impl fmt::Write for PanicSlot {
    /// Appends as much of `text` as there is space for, in whole characters.
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let start = self.length as usize;
        let end = text.floor_char_boundary(MESSAGE - start);
        self.message[start..start + end].copy_from_slice(&text.as_bytes()[..end]);
        self.length += end as u32;
        // Nothing follows what was cut off, even if it were short enough.
        if end < text.len() {
            return Err(fmt::Error);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write;
    use std::mem::{offset_of, size_of};

    use super::*;

    fn message(slot: &PanicSlot) -> &str {
        std::str::from_utf8(&slot.message[..slot.length as usize]).expect("UTF-8")
    }

    #[test]
    fn the_layout_is_the_documented_one() {
        assert_eq!(offset_of!(PanicSlot, row), 32);
        assert_eq!(offset_of!(PanicSlot, row_known), 36);
        assert_eq!(offset_of!(PanicSlot, length), 40);
        assert_eq!(offset_of!(PanicSlot, message), 44);
        assert_eq!(size_of::<PanicSlot>(), 2092);
    }

    #[test]
    fn a_message_is_kept_whole() {
        let mut slot = PanicSlot::new();
        let (value, place) = (7, "src/lib.rs:3:5");
        write!(slot, "value {value} is too large, at {place}").expect("it fits");
        assert_eq!(message(&slot), "value 7 is too large, at src/lib.rs:3:5");
    }

    #[test]
    fn a_long_message_is_cut_off_at_the_end_of_a_character() {
        let mut slot = PanicSlot::new();
        assert!(write!(slot, "a{}", "é".repeat(MESSAGE)).is_err());
        assert_eq!(message(&slot), format!("a{}", "é".repeat(1023)));
    }
}
