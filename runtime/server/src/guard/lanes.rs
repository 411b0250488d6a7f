//! Places for requests that are answered at once, and bounded queues before them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::error::Problem;
use crate::settings::Settings;

/// So many requests at once; some more wait, for some time, and others are refused at once: a
/// client that hears so can go elsewhere, and one that waits in vain cannot.
#[derive(Debug)]
pub(crate) struct Lane {
    places: Arc<Semaphore>,
    waiting: AtomicUsize,
    queue: usize,
    patience: Duration,
    /// For whom it is, in a message.
    name: String,
}

/// A place in a lane, until it is dropped.
#[derive(Debug)]
pub(crate) struct Place(#[expect(dead_code, reason = "held")] OwnedSemaphorePermit);

impl Lane {
    fn new(name: String, places: usize, settings: &Settings) -> Self {
        Self {
            places: Arc::new(Semaphore::new(places.clamp(1, Semaphore::MAX_PERMITS))),
            waiting: AtomicUsize::new(0),
            queue: settings.queue,
            patience: settings.queue_timeout,
            name,
        }
    }

    /// A place, if one is free.
    pub(crate) fn try_enter(&self) -> Option<Place> {
        let permit = Arc::clone(&self.places).try_acquire_owned();
        permit.ok().map(Place)
    }

    /// A place, as soon as one is free.
    ///
    /// # Errors
    /// Too many wait already, or none is free for too long.
    pub(crate) async fn enter(&self) -> Result<Place, Problem> {
        match self.try_enter() {
            Some(place) => Ok(place),
            None => self.wait().await,
        }
    }

    #[cold]
    async fn wait(&self) -> Result<Place, Problem> {
        let _waiting = Waiting::begin(&self.waiting, self.queue).ok_or_else(|| self.busy())?;
        let free = Arc::clone(&self.places).acquire_owned();
        match tokio::time::timeout(self.patience, free).await {
            Ok(Ok(permit)) => Ok(Place(permit)),
            Ok(Err(closed)) => Err(Problem::Internal(closed.to_string())),
            Err(_) => Err(self.busy()),
        }
    }

    fn busy(&self) -> Problem {
        Problem::Overloaded {
            what: self.name.clone(),
        }
    }
}

/// One of those that wait; also a client that goes away ends its waiting.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn begin(waiting: &'a AtomicUsize, most: usize) -> Option<Self> {
        let room = |waiting: usize| (waiting < most).then_some(waiting + 1);
        let begun = waiting.fetch_update(Ordering::Relaxed, Ordering::Relaxed, room);
        begun.ok().map(|_| Self(waiting))
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The lane of all requests, and one for each feature service that runs components: whichever of
/// them takes long, it has a share of the places and no more.
#[derive(Debug)]
pub(crate) struct Lanes {
    all: Lane,
    settings: Settings,
    /// By the name of the service; those that list features by themselves share one, called "".
    services: ArcSwap<BTreeMap<String, Arc<Lane>>>,
}

impl Lanes {
    pub(crate) fn new(settings: &Settings) -> Self {
        let all = Lane::new("the server".to_owned(), settings.concurrency, settings);
        Self {
            all,
            settings: settings.clone(),
            services: ArcSwap::default(),
        }
    }

    /// The lane of all requests.
    pub(crate) const fn all(&self) -> &Lane {
        &self.all
    }

    /// The lane of the service called so, or of lists of features.
    pub(crate) fn of(&self, service: Option<&str>) -> Arc<Lane> {
        let name = service.unwrap_or("");
        if let Some(lane) = self.services.load().get(name) {
            return Arc::clone(lane);
        }
        let what = match service {
            Some(name) => format!("feature service `{name}`"),
            None => "what answers lists of features".to_owned(),
        };
        let lane = Arc::new(Lane::new(
            what,
            self.settings.component_share,
            &self.settings,
        ));
        let before = self.services.rcu(|services| {
            let mut services = BTreeMap::clone(services);
            services
                .entry(name.to_owned())
                .or_insert_with(|| Arc::clone(&lane));
            services
        });
        // Two may have made it at once; one of theirs is the lane.
        before.get(name).map_or(lane, Arc::clone)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn small() -> Settings {
        Settings {
            concurrency: 1,
            component_share: 1,
            queue: 1,
            queue_timeout: Duration::from_secs(60),
            ..Settings::default()
        }
    }

    #[tokio::test]
    async fn who_finds_the_queue_full_is_refused_at_once_and_others_get_their_turn() {
        let lanes = Arc::new(Lanes::new(&small()));
        let place = lanes.all().enter().await.unwrap();
        let waits = tokio::spawn({
            let lanes = Arc::clone(&lanes);
            async move { lanes.all().enter().await.is_ok() }
        });
        while lanes.all().waiting.load(Ordering::Relaxed) == 0 {
            tokio::task::yield_now().await;
        }
        let refused = lanes.all().enter().await.unwrap_err();
        assert!(refused.to_string().contains("the server"), "{refused}");
        drop(place);
        assert!(waits.await.unwrap());
        assert_eq!(lanes.all().waiting.load(Ordering::Relaxed), 0);
        assert!(lanes.all().enter().await.is_ok());
    }

    #[tokio::test]
    async fn who_waits_too_long_or_goes_away_leaves_the_queue() {
        let waiting = |milliseconds| {
            Lanes::new(&Settings {
                queue_timeout: Duration::from_millis(milliseconds),
                ..small()
            })
        };
        let lanes = waiting(5);
        let _place = lanes.all().enter().await.unwrap();
        assert!(lanes.all().enter().await.is_err());
        assert_eq!(lanes.all().waiting.load(Ordering::Relaxed), 0);

        let lanes = waiting(60_000);
        let _place = lanes.all().enter().await.unwrap();
        let gone = tokio::time::timeout(Duration::ZERO, lanes.all().enter());
        assert!(gone.await.is_err());
        assert_eq!(lanes.all().waiting.load(Ordering::Relaxed), 0);
    }

    #[tokio::test]
    async fn each_service_has_one_lane_of_its_own() {
        let lanes = Lanes::new(&small());
        let slow = lanes.of(Some("slow"));
        let _place = slow.enter().await.unwrap();
        assert!(lanes.of(Some("slow")).try_enter().is_none());
        assert!(lanes.of(Some("quick")).try_enter().is_some());
        assert!(lanes.of(None).try_enter().is_some());
        assert!(Arc::ptr_eq(&lanes.of(Some("slow")), &slow));
    }
}
