//! The paths of the server.

mod delete;
mod docs;
mod feast_docs;
mod metrics;
mod online;
mod status;

use std::sync::Arc;

use axum::Router;
use axum::http::{Method, Uri};
use axum::routing::{get, post};
use tower::util::option_layer;

pub(crate) use docs::paths;

use crate::error::Problem;
use crate::feast;
use crate::guard::AdmitLayer;
use crate::object::shortened;
use crate::state::State;
use crate::watch::ObserveLayer;

/// All paths. Whatever fails is answered as JSON, and a panic costs the one request in which it
/// happens.
pub(crate) fn router(state: State) -> Router {
    let gate = Arc::clone(state.gate());
    // What any of the others answers is seen. A browser asks whether it may ask without a token.
    let layers = (
        ObserveLayer::new(state.clone()),
        option_layer(gate.cors().cloned()),
        AdmitLayer::new(gate),
    );
    Router::new()
        .route("/online", post(online::online).delete(delete::delete))
        .route("/get-online-features", post(feast::get_online_features))
        .route("/push", post(feast::push))
        .route("/write-to-online-store", post(feast::write_to_online_store))
        .route("/health", get(status::health))
        .route("/ready", get(status::ready))
        .route("/admin/reload", post(status::reload))
        .route("/metrics", get(metrics::metrics))
        .route("/openapi.json", get(docs::openapi))
        .route("/docs", get(docs::docs))
        .route("/docs/", get(docs::page))
        .route("/docs/{file}", get(docs::file))
        .with_state(state)
        .fallback(no_path)
        .method_not_allowed_fallback(no_method)
        // All at once: each call of `layer` costs a request some boxes.
        .layer(layers)
}

async fn no_path(uri: Uri) -> Problem {
    Problem::NoPath(shortened(uri.path()))
}

async fn no_method(method: Method, uri: Uri) -> Problem {
    Problem::NoMethod {
        path: shortened(uri.path()),
        method: shortened(method.as_str()),
    }
}

#[cfg(test)]
mod tests;
