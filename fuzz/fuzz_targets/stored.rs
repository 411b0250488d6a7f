//! Bytes that a store could hold.
#![no_main]

use libfuzzer_sys::fuzz_target;
use unskew_tests::fuzzed::stored;

fuzz_target!(|input: &[u8]| stored::check(input));
