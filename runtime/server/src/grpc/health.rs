//! The standard health service: serving while the server is ready.

use std::pin::Pin;
use std::sync::Arc;

use futures::Stream;
use tonic::{Request, Response, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse, health_server};

use super::SERVICES;
use crate::guard::Endless;
use crate::state::State;
use crate::work::in_time;

/// What reports health.
#[derive(Clone)]
pub(super) struct Health {
    state: State,
}

impl Health {
    pub(super) fn new(state: State) -> Self {
        Self { state }
    }

    /// What is the matter with a service; `None` if there is none of that name.
    async fn status(&self, service: &str) -> Option<ServingStatus> {
        if !service.is_empty() && !SERVICES.contains(&service) {
            return None;
        }
        // As `/ready` says it.
        if self.state.gate().is_closing() {
            return Some(ServingStatus::NotServing);
        }
        let served = Arc::clone(&self.state.served());
        let ready = in_time(&self.state, served.check_ready()).await;
        Some(match ready {
            Ok(()) => ServingStatus::Serving,
            Err(_) => ServingStatus::NotServing,
        })
    }

    /// What to say after what was said, as soon as it is another; `None`: nothing more.
    async fn next(&self, service: &str, said: Said) -> Option<(ServingStatus, Said)> {
        if said == Said::Last {
            return None;
        }
        loop {
            let look = async {
                if said != Said::Nothing {
                    tokio::time::sleep(self.state.settings().poll).await;
                }
                self.status(service).await
            };
            let (status, closes) = tokio::select! {
                biased;
                // Now it is known without a look at anything.
                () = self.state.gate().closes() => (self.status(service).await, true),
                status = look => (status, false),
            };
            let status = status.unwrap_or(ServingStatus::ServiceUnknown);
            if closes {
                return Some((status, Said::Last));
            }
            if said != Said::Status(status) {
                return Some((status, Said::Status(status)));
            }
        }
    }
}

/// What a client that watches was told.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Said {
    Nothing,
    Status(ServingStatus),
    /// That there is no more to come.
    Last,
}

fn response(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse {
        status: status.into(),
    }
}

#[tonic::async_trait]
impl health_server::Health for Health {
    type WatchStream =
        Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send + 'static>>;

    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        let service = request.into_inner().service;
        match self.status(&service).await {
            Some(status) => Ok(Response::new(response(status))),
            None => Err(Status::not_found(format!(
                "there is no service `{}`; there are: {}",
                crate::object::shortened(&service),
                unskew_core::text::list(SERVICES)
            ))),
        }
    }

    /// Says what the status is, and again whenever it has changed, as far as looking every
    /// [`Settings::poll`](crate::Settings::poll) shows it. That the server is about to end is said
    /// at once, and is the last: it would wait for this answer otherwise.
    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let service = request.into_inner().service;
        let health = self.clone();
        let changes = futures::stream::unfold(Said::Nothing, move |said| {
            let (health, service) = (health.clone(), service.clone());
            async move {
                let (status, said) = health.next(&service, said).await?;
                Some((Ok(response(status)), said))
            }
        });
        let changes: Self::WatchStream = Box::pin(changes);
        let mut answer = Response::new(changes);
        answer.extensions_mut().insert(Endless);
        Ok(answer)
    }
}
