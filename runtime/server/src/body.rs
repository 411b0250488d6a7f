//! The body of a request, read within its limits.

use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::header;
use axum::http::request::Parts;
use futures::{StreamExt, TryStreamExt};
use hyper::body::Body as HttpBody;

use crate::error::Problem;
use crate::guard::{Taken, is_no_room};
use crate::settings::Settings;

/// How much of a body that is too large is read and thrown away, as a multiple of the limit: a
/// client that is still sending does not read the answer, and closing on it would lose the answer.
const DRAINED: usize = 8;

/// Memory is taken for so much of a body before it is there; for more, as it arrives. A client that
/// announces much has sent nothing yet.
const AT_ONCE: usize = 64 << 10;

/// Reads the body of the request that begins with `parts`. The room that it takes is taken for as
/// long as its bytes are there.
///
/// # Errors
/// It is too large, breaks off or does not arrive in time.
pub(crate) async fn read(parts: &Parts, body: Body, settings: &Settings) -> Result<Bytes, Problem> {
    let read = read_all(parts, body, settings.body_bytes);
    let read = match tokio::time::timeout(settings.timeout, read).await {
        Ok(read) => read?,
        Err(_) => {
            return Err(Problem::BodyLate {
                seconds: seconds(settings.timeout),
            });
        }
    };
    Ok(match parts.extensions.get::<Taken>() {
        None => read,
        Some(taken) => Bytes::from_owner(Roomy {
            bytes: read,
            _taken: taken.clone(),
        }),
    })
}

/// The bytes of a body that takes room.
struct Roomy {
    bytes: Bytes,
    _taken: Taken,
}

impl AsRef<[u8]> for Roomy {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// Whole seconds, for a message.
pub(crate) fn seconds(duration: Duration) -> u64 {
    duration.as_secs()
}

fn broken(error: axum::Error) -> Problem {
    if is_no_room(&error) {
        return Problem::no_room();
    }
    Problem::BodyBroken(error.to_string())
}

async fn read_all(parts: &Parts, body: Body, limit: usize) -> Result<Bytes, Problem> {
    let too_large = Problem::BodyTooLarge { limit };
    let headers = &parts.headers;
    let announced: Option<usize> = headers
        .get(header::CONTENT_LENGTH)
        .and_then(|length| length.to_str().ok()?.parse().ok());
    // A client that asks first has sent nothing yet.
    if announced > Some(limit) && headers.contains_key(header::EXPECT) {
        return Err(too_large);
    }
    let mut stream = body.into_data_stream();
    let Some(first) = stream.next().await else {
        return Ok(Bytes::new());
    };
    // Nearly all bodies come in one piece, which need not be copied.
    if stream.is_end_stream()
        && let Ok(whole) = &first
        && whole.len() <= limit
    {
        return Ok(whole.clone());
    }
    let mut read = Vec::with_capacity(announced.unwrap_or(0).min(limit).min(AT_ONCE));
    let mut next = Some(first);
    while let Some(piece) = next {
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
        next = stream.next().await;
    }
    Ok(read.into())
}
