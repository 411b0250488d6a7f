//! The standard health service: serving while the server is ready.

use std::pin::Pin;
use std::sync::Arc;

use futures::Stream;
use tonic::{Request, Response, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse, health_server};

use super::SERVICES;
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
    /// [`Settings::poll`](crate::Settings::poll) shows it.
    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let service = request.into_inner().service;
        let health = self.clone();
        let changes = futures::stream::unfold(None, move |before: Option<ServingStatus>| {
            let (health, service) = (health.clone(), service.clone());
            async move {
                loop {
                    if before.is_some() {
                        tokio::time::sleep(health.state.settings().poll).await;
                    }
                    let status = health.status(&service).await;
                    let status = status.unwrap_or(ServingStatus::ServiceUnknown);
                    if before != Some(status) {
                        return Some((Ok(response(status)), Some(status)));
                    }
                }
            }
        });
        Ok(Response::new(Box::pin(changes)))
    }
}
