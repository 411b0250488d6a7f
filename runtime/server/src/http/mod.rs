//! The paths of the server.

mod delete;
mod docs;
mod feast_docs;
mod metrics;
mod online;
mod status;

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use axum::Router;
use axum::extract::Request;
use axum::http::{Method, Uri};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use futures::FutureExt;

pub(crate) use docs::paths;

use crate::error::Problem;
use crate::feast;
use crate::guard::AdmitLayer;
use crate::object::shortened;
use crate::state::State;
use crate::watch::observe;
use crate::work::panicked;

/// All paths. Whatever fails is answered as JSON, and a panic costs the one request in which it
/// happens.
pub(crate) fn router(state: State) -> Router {
    let (gate, watched) = (Arc::clone(state.gate()), state.clone());
    let routes = Router::new()
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
        .route_layer(AdmitLayer::new(Arc::clone(&gate)));
    let routes = guarded(routes);
    // A browser asks whether it may ask without a token.
    let routes = match gate.cors() {
        Some(cors) => routes.layer(cors.clone()),
        None => routes,
    };
    // What any of the others answers is seen.
    routes.layer(middleware::from_fn_with_state(watched, observe))
}

/// Gives `routes` the answers that all paths share: to other paths, to other methods, to a panic.
fn guarded(routes: Router) -> Router {
    routes
        .fallback(no_path)
        .method_not_allowed_fallback(no_method)
        .layer(middleware::from_fn(catch_panic))
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

async fn catch_panic(request: Request, next: Next) -> Response {
    // What a panic leaves behind belongs to the request alone; what requests share has no state
    // that a panic could leave half changed.
    match AssertUnwindSafe(next.run(request)).catch_unwind().await {
        Ok(response) => response,
        Err(_) => panicked().into_response(),
    }
}

#[cfg(test)]
mod tests;
