//! Feast's interface over gRPC, with the standard health service and reflection.
//!
//! The services are an axum router, so the gRPC port is served, guarded and watched as the HTTP
//! port is.

mod deadline;
mod features;
mod health;
mod service;
mod value;

use axum::Router;
use tonic::service::Routes;
use tonic_health::pb::health_server::HealthServer;
use unskew_feast_proto::proto::grpc_feature_server_server::GrpcFeatureServerServer;
use unskew_feast_proto::serving::serving_service_server::ServingServiceServer;

use crate::state::State;
pub(crate) use deadline::DeadlineLayer;
use health::Health;
use service::Service;

/// The services that reports of health are about, beside the empty name, which is all of them.
const SERVICES: [&str; 2] = ["feast.serving.ServingService", "GrpcFeatureServer"];

/// All gRPC services.
pub(crate) fn router(state: State) -> Router {
    let limit = state.settings().body_bytes;
    let service = Service::new(state.clone());
    let mut routes =
        Routes::new(ServingServiceServer::new(service.clone()).max_decoding_message_size(limit))
            .add_service(GrpcFeatureServerServer::new(service).max_decoding_message_size(limit))
            .add_service(HealthServer::new(Health::new(state)));
    // What is registered is made by the compiler of protocols, so none of these fails; a server
    // without reflection would serve all the same.
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(unskew_feast_proto::DESCRIPTORS)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    if let Ok(service) = reflection().build_v1() {
        routes = routes.add_service(service);
    }
    // What older tools ask for.
    if let Ok(service) = reflection().build_v1alpha() {
        routes = routes.add_service(service);
    }
    routes.prepare().into_axum_router()
}

#[cfg(test)]
mod tests;
