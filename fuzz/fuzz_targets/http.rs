//! Bodies that a client could send.
#![no_main]

use std::path::PathBuf;
use std::sync::{LazyLock, Mutex, PoisonError};

use libfuzzer_sys::fuzz_target;
use unskew_tests::fuzzed::http::Http;

static HTTP: LazyLock<Mutex<Http>> = LazyLock::new(|| Mutex::new(Http::start()));

/// Where the input that is tried is kept, if anywhere: libFuzzer itself keeps none by which a thread
/// of the server overflows its stack.
static TRIED: LazyLock<Option<PathBuf>> =
    LazyLock::new(|| std::env::var_os("UNSKEW_FUZZ_TRIED").map(PathBuf::from));

fuzz_target!(
    // What takes long is not to be taken for a slow answer.
    init: LazyLock::force(&HTTP),
    |input: &[u8]| {
        if let Some(tried) = &*TRIED {
            let _ = std::fs::write(tried, input);
        }
        HTTP.lock().unwrap_or_else(PoisonError::into_inner).check(input);
    }
);
