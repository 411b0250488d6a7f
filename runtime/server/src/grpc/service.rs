//! The services of Feast.

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;

use futures::FutureExt;
use tonic::{Request, Response, Status};
use unskew_feast_proto::proto::grpc_feature_server_server::GrpcFeatureServer;
use unskew_feast_proto::proto::{
    PushRequest, PushResponse, WriteToOnlineStoreRequest, WriteToOnlineStoreResponse,
};
use unskew_feast_proto::serving::serving_service_server::ServingService;
use unskew_feast_proto::serving::{
    GetFeastServingInfoRequest, GetFeastServingInfoResponse, GetOnlineFeaturesRequest,
    GetOnlineFeaturesResponse,
};
use unskew_feast_proto::types::Value;
use unskew_offline::PushedRows;

use super::{features, value};
use crate::error::Problem;
use crate::feast::{Rows, Sent, send};
use crate::state::State;
use crate::work::{Turn, panicked};

/// What answers the calls of Feast's clients.
#[derive(Clone)]
pub(super) struct Service {
    state: State,
}

impl Service {
    pub(super) fn new(state: State) -> Self {
        Self { state }
    }

    /// Does the work of a call; a panic costs this one call.
    async fn done<T>(
        &self,
        work: impl Future<Output = Result<T, Problem>>,
    ) -> Result<Response<T>, Status> {
        let work = AssertUnwindSafe(work).catch_unwind();
        let done = work.await.unwrap_or_else(|_| Err(panicked()));
        done.map(Response::new)
            .map_err(|problem| problem.grpc_status())
    }

    /// Writes one row, given as texts or as values.
    async fn write(
        &self,
        target: Sent,
        features: BTreeMap<String, String>,
        typed: BTreeMap<String, Value>,
    ) -> Result<(), Problem> {
        let rows = match (features.is_empty(), typed.is_empty()) {
            (false, false) => return Err(Problem::TextsOrValues),
            (_, true) => PushedRows::Texts(value::row_of_texts(&features)?),
            (true, false) => PushedRows::Typed(value::row(&typed)?),
        };
        let turn = Turn::take(&self.state).await?;
        let rows = Rows::Columns(rows);
        send(&self.state, turn, target, rows).await.map(drop)
    }
}

#[tonic::async_trait]
impl ServingService for Service {
    async fn get_feast_serving_info(
        &self,
        _: Request<GetFeastServingInfoRequest>,
    ) -> Result<Response<GetFeastServingInfoResponse>, Status> {
        Ok(Response::new(GetFeastServingInfoResponse {
            version: env!("CARGO_PKG_VERSION").to_owned(),
        }))
    }

    async fn get_online_features(
        &self,
        request: Request<GetOnlineFeaturesRequest>,
    ) -> Result<Response<GetOnlineFeaturesResponse>, Status> {
        self.done(features::answered(&self.state, request.into_inner()))
            .await
    }
}

#[tonic::async_trait]
impl GrpcFeatureServer for Service {
    async fn push(&self, request: Request<PushRequest>) -> Result<Response<PushResponse>, Status> {
        let request = request.into_inner();
        self.done(async {
            let target = Sent::to_source(request.stream_feature_view, Some(&request.to))?;
            self.write(target, request.features, request.typed_features)
                .await?;
            Ok(PushResponse { status: true })
        })
        .await
    }

    async fn write_to_online_store(
        &self,
        request: Request<WriteToOnlineStoreRequest>,
    ) -> Result<Response<WriteToOnlineStoreResponse>, Status> {
        let request = request.into_inner();
        self.done(async {
            let target = Sent::to_view(request.feature_view_name);
            self.write(target, request.features, request.typed_features)
                .await?;
            Ok(WriteToOnlineStoreResponse { status: true })
        })
        .await
    }

    async fn get_online_features(
        &self,
        request: Request<GetOnlineFeaturesRequest>,
    ) -> Result<Response<GetOnlineFeaturesResponse>, Status> {
        ServingService::get_online_features(self, request).await
    }
}
