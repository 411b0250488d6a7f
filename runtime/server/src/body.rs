//! The body of a request, read within its limits.

use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, header};
use futures::{StreamExt, TryStreamExt};

use crate::error::Problem;
use crate::guard::is_no_room;
use crate::settings::Settings;

/// How much of a body that is too large is read and thrown away, as a multiple of the limit: a
/// client that is still sending does not read the answer, and closing on it would lose the answer.
const DRAINED: usize = 8;

/// Reads a body.
///
/// # Errors
/// It is too large, breaks off or does not arrive in time.
pub(crate) async fn read(
    headers: &HeaderMap,
    body: Body,
    settings: &Settings,
) -> Result<Bytes, Problem> {
    match tokio::time::timeout(
        settings.timeout,
        read_all(headers, body, settings.body_bytes),
    )
    .await
    {
        Ok(read) => read,
        Err(_) => Err(Problem::BodyLate {
            seconds: seconds(settings.timeout),
        }),
    }
}

/// Whole seconds, for a message.
pub(crate) fn seconds(duration: Duration) -> u64 {
    duration.as_secs()
}

fn broken(error: axum::Error) -> Problem {
    if is_no_room(&error) {
        return Problem::Overloaded {
            what: "the memory for large bodies".to_owned(),
        };
    }
    Problem::BodyBroken(error.to_string())
}

async fn read_all(headers: &HeaderMap, body: Body, limit: usize) -> Result<Bytes, Problem> {
    let too_large = Problem::BodyTooLarge { limit };
    let announced: Option<usize> = headers
        .get(header::CONTENT_LENGTH)
        .and_then(|length| length.to_str().ok()?.parse().ok());
    // A client that asks first has sent nothing yet.
    if announced > Some(limit) && headers.contains_key(header::EXPECT) {
        return Err(too_large);
    }
    let mut stream = body.into_data_stream();
    let mut read = Vec::with_capacity(announced.unwrap_or(0).min(limit));
    while let Some(piece) = stream.next().await {
        let piece = piece.map_err(broken)?;
        if read.len() + piece.len() > limit {
            drop(read);
            let mut drained = piece.len();
            while let Ok(Some(piece)) = stream.try_next().await {
                drained += piece.len();
                if drained > limit.saturating_mul(DRAINED) {
                    break;
                }
            }
            return Err(too_large);
        }
        read.extend_from_slice(&piece);
    }
    Ok(read.into())
}
