//! A file that is read again while the server runs.

use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::{ArcSwap, Guard};

use crate::guard::GuardError;

/// What a file says. Requests look at it without a lock.
pub(super) struct Reread<T, B> {
    value: ArcSwap<T>,
    /// What was read last, used or not; or why nothing could be read.
    seen: Mutex<Result<B, String>>,
}

/// What came of reading a file again.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Read {
    /// It is as it was.
    Same,
    /// What it says now counts.
    New,
    /// It cannot be used, so what it said before goes on.
    Refused(String),
}

impl<T, B: PartialEq> Reread<T, B> {
    /// What `bytes` say, which is `value`.
    pub(super) fn new(value: T, bytes: B) -> Self {
        Self {
            value: ArcSwap::from_pointee(value),
            seen: Mutex::new(Ok(bytes)),
        }
    }

    /// What it says now, for as long as a request looks at it.
    pub(super) fn load(&self) -> Guard<Arc<T>> {
        self.value.load()
    }

    /// Uses what was read, if it is something else than before and can be used. A refusal is said
    /// once, however often the file is read.
    pub(super) fn replace(
        &self,
        read: Result<B, GuardError>,
        make: impl FnOnce(&B) -> Result<T, GuardError>,
    ) -> Read {
        // Whoever panicked here left one of two whole values.
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let next = read.map_err(|error| error.to_string());
        if *seen == next {
            return Read::Same;
        }
        *seen = next;
        match &*seen {
            Err(error) => Read::Refused(error.clone()),
            Ok(bytes) => match make(bytes) {
                Ok(value) => {
                    self.value.store(Arc::new(value));
                    Read::New
                }
                Err(error) => Read::Refused(error.to_string()),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::guard::TokensError;

    fn wrong(reason: &str) -> GuardError {
        GuardError::Tokens(TokensError::Form {
            file: PathBuf::from("f"),
            reason: reason.to_owned(),
        })
    }

    #[test]
    fn what_cannot_be_used_is_said_once_and_what_was_used_goes_on() {
        let parsed = |bytes: &&str| bytes.parse::<u8>().map_err(|it| wrong(&it.to_string()));
        let file = Reread::new(1_u8, "1");
        let refused = |read| matches!(read, Read::Refused(_));
        assert_eq!(file.replace(Ok("1"), parsed), Read::Same);
        assert_eq!(file.replace(Ok("2"), parsed), Read::New);
        assert!(refused(file.replace(Ok("x"), parsed)));
        assert_eq!(file.replace(Ok("x"), parsed), Read::Same);
        assert!(refused(file.replace(Err(wrong("gone")), parsed)));
        assert_eq!(file.replace(Err(wrong("gone")), parsed), Read::Same);
        assert_eq!(**file.load(), 2);
        assert_eq!(file.replace(Ok("2"), parsed), Read::New);
        assert_eq!(file.replace(Ok("3"), parsed), Read::New);
        assert_eq!(**file.load(), 3);
    }
}
