//! Ctrl-C and SIGTERM: work ends soon, and leaves nothing half done.

use std::future::Future;
use std::time::Duration;

use crate::Outcome;

/// How long interrupted work has to take away what it has begun; it needs some milliseconds.
const GRACE: Duration = Duration::from_secs(5);

/// A signal that ended the work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Interrupted {
    /// Ctrl-C.
    #[error("interrupted")]
    Interrupt,
    /// What service managers send.
    #[error("terminated")]
    Terminate,
}

impl Interrupted {
    /// What shells report of a process that a signal ended.
    pub(crate) const fn exit_code(self) -> u8 {
        match self {
            Self::Interrupt => 130,
            Self::Terminate => 143,
        }
    }
}

/// Works to the end, or until a signal comes.
///
/// # Errors
/// Those of the work, or [`Interrupted`].
pub(crate) async fn until_interrupted(
    work: impl Future<Output = anyhow::Result<Outcome>> + Send + 'static,
) -> anyhow::Result<Outcome> {
    // On a thread of its own: some of the work blocks, such as a question to the user.
    let mut work = tokio::spawn(work);
    let interrupted = tokio::select! {
        outcome = &mut work => return joined(outcome),
        interrupted = signal() => interrupted,
    };
    work.abort();
    tokio::select! {
        outcome = &mut work => {
            // It may have ended in the same moment.
            if let Ok(outcome) = outcome {
                return outcome;
            }
        }
        // Whoever asks twice does not want to wait.
        _ = signal() => {}
        () = tokio::time::sleep(GRACE) => {}
    }
    Err(interrupted.into())
}

fn joined(
    outcome: Result<anyhow::Result<Outcome>, tokio::task::JoinError>,
) -> anyhow::Result<Outcome> {
    match outcome {
        Ok(outcome) => outcome,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        Err(error) => Err(error.into()),
    }
}

#[cfg(unix)]
async fn signal() -> Interrupted {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut interrupt), Ok(mut terminate)) = (
        signal(SignalKind::interrupt()),
        signal(SignalKind::terminate()),
    ) else {
        // Where none can be heard, the system ends the process.
        return std::future::pending().await;
    };
    tokio::select! {
        _ = interrupt.recv() => Interrupted::Interrupt,
        _ = terminate.recv() => Interrupted::Terminate,
    }
}

#[cfg(not(unix))]
async fn signal() -> Interrupted {
    match tokio::signal::ctrl_c().await {
        Ok(()) => Interrupted::Interrupt,
        Err(_) => std::future::pending().await,
    }
}
