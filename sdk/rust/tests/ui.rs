//! Compile errors point at the author's line and say what is allowed.
//!
//! `TRYBUILD=overwrite cargo test -p unskew-sdk --test ui` writes the expected errors anew.

#[test]
fn errors_say_what_is_allowed() {
    trybuild::TestCases::new().compile_fail("tests/ui/*.rs");
}
