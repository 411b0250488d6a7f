//! Memory for bodies that are being read, all together.
//!
//! A body is read before its request gets a place, so that a slow client holds none. What all of
//! them may take together is therefore bounded here.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use axum::body::{Body, Bytes};
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::error::Problem;

/// Bodies up to this size need no room: as many as there can be connections have it together.
const SMALL: u64 = 64 << 10;
/// How much room is taken at once.
const STEP: u64 = 256 << 10;

/// The room for bodies that are not small.
#[derive(Debug)]
pub(super) struct Room {
    /// One permit for each KiB.
    free: Arc<Semaphore>,
    /// No body takes more, however much of it is read and thrown away.
    most: u64,
}

/// There is no room for what arrived.
#[derive(Debug, thiserror::Error)]
#[error("there is no memory for large bodies now")]
pub(crate) struct NoRoom {
    /// What a client of gRPC is told: who reads messages there looks for it in an error's cause.
    #[source]
    status: tonic::Status,
}

impl NoRoom {
    fn new() -> Self {
        Self {
            status: Problem::no_room().grpc_status(),
        }
    }
}

impl Problem {
    /// No large body is read now.
    pub(crate) fn no_room() -> Self {
        Self::Overloaded {
            what: "the memory for large bodies".to_owned(),
        }
    }
}

impl Room {
    /// Room for `all` bytes, of which one body takes `most`.
    pub(super) fn new(all: usize, most: usize) -> Self {
        let kib = (all >> 10).clamp(1, Semaphore::MAX_PERMITS);
        Self {
            free: Arc::new(Semaphore::new(kib)),
            most: (most as u64).min((kib as u64) << 10),
        }
    }

    /// The body, for which room is taken as it arrives, and what holds the room; `None`: the body
    /// is small.
    pub(super) fn counted(&self, body: &mut Body) -> Option<Taken> {
        if body.size_hint().upper().is_some_and(|upper| upper <= SMALL) {
            return None;
        }
        let taken = Taken(Arc::default());
        let counted = Counted {
            body: std::mem::take(body),
            free: Arc::clone(&self.free),
            taken: taken.clone(),
            most: self.most,
            arrived: 0,
            reserved: SMALL,
        };
        *body = Body::new(counted);
        Some(taken)
    }
}

/// Room that is taken until the last clone is dropped.
#[derive(Clone, Debug)]
pub(crate) struct Taken(Arc<Mutex<Option<OwnedSemaphorePermit>>>);

impl Taken {
    fn add(&self, more: OwnedSemaphorePermit) {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut *held {
            Some(held) => held.merge(more),
            None => *held = Some(more),
        }
    }
}

/// A body for which room is taken as it arrives.
struct Counted {
    body: Body,
    free: Arc<Semaphore>,
    taken: Taken,
    most: u64,
    arrived: u64,
    reserved: u64,
}

impl Counted {
    fn take_room(&mut self) -> Result<(), NoRoom> {
        while self.arrived > self.reserved && self.reserved < self.most {
            let step = STEP.min(self.most - self.reserved).max(1 << 10);
            // A step is far below what 32 bits hold.
            let kib = u32::try_from(step.div_ceil(1 << 10)).unwrap_or(u32::MAX);
            let more = Arc::clone(&self.free).try_acquire_many_owned(kib);
            self.taken.add(more.map_err(|_| NoRoom::new())?);
            self.reserved += step;
        }
        Ok(())
    }
}

impl HttpBody for Counted {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        if let Some(Ok(frame)) = &frame
            && let Some(data) = frame.data_ref()
        {
            self.arrived += data.len() as u64;
            if let Err(none) = self.take_room() {
                return Poll::Ready(Some(Err(axum::Error::new(none))));
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Whether a body broke off since there was no room for it.
pub(crate) fn is_no_room(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if error.is::<NoRoom>() {
            return true;
        }
        cause = error.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use futures::stream;

    use super::*;

    fn chunked(kib: usize) -> Body {
        let chunks = (0..kib).map(|_| Ok::<_, std::io::Error>(Bytes::from(vec![0; 1 << 10])));
        Body::from_stream(stream::iter(chunks))
    }

    async fn read(body: Body) -> Result<usize, axum::Error> {
        axum::body::to_bytes(body, usize::MAX)
            .await
            .map(|it| it.len())
    }

    #[tokio::test]
    async fn bodies_share_the_room_and_give_it_back() {
        let room = Room::new(1 << 20, 10 << 20);
        let mut small = Body::from(vec![0; SMALL as usize]);
        assert!(room.counted(&mut small).is_none());

        let mut one = chunked(800);
        let taken = room.counted(&mut one).unwrap();
        assert_eq!(read(one).await.unwrap(), 800 << 10);
        // The body is read, and the request goes on with it.
        let mut other = chunked(800);
        let of_other = room.counted(&mut other).unwrap();
        let error = read(other).await.unwrap_err();
        assert!(is_no_room(&error), "{error}");
        drop((taken, of_other));
        let mut other = chunked(800);
        let _taken = room.counted(&mut other).unwrap();
        assert_eq!(read(other).await.unwrap(), 800 << 10);
    }

    #[tokio::test]
    async fn one_body_takes_no_more_than_it_may_have() {
        let room = Room::new(10 << 20, 1 << 20);
        let mut large = chunked(4 << 10);
        let _taken = room.counted(&mut large).unwrap();
        assert_eq!(read(large).await.unwrap(), 4 << 20);
        assert!(room.free.available_permits() >= 9 << 10);
    }
}
