//! Small helpers for text: hexadecimal digits and lists for messages.

use std::fmt::Display;

/// The hexadecimal digits of `bytes`, in lower case.
pub fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(2 * bytes.len());
    text.extend(bytes.iter().flat_map(|&byte| digits(byte)).map(char::from));
    text
}

/// A byte in hexadecimal digits, in lower case.
pub const fn digits(byte: u8) -> [u8; 2] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    [DIGITS[(byte >> 4) as usize], DIGITS[(byte & 15) as usize]]
}

/// The bytes that hexadecimal digits stand for; `None` for anything else.
pub fn unhex(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(2) || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).ok())
        .collect()
}

/// `a, b, c` for a message, or `none` when there is nothing to list.
pub fn list<T: Display>(items: impl IntoIterator<Item = T>) -> String {
    let listed = items
        .into_iter()
        .map(|item| item.to_string())
        .collect::<Vec<_>>()
        .join(", ");
    if listed.is_empty() {
        "none".to_owned()
    } else {
        listed
    }
}
