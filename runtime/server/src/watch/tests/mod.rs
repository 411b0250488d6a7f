//! What is counted, logged and said of real requests, over a real connection.

mod features;
mod metrics;
mod scraped;

use std::sync::Arc;

use arrow::array::ArrayRef;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use unskew_core::plan::FeaturePlan;

use super::CONTENT_TYPE;
use crate::serve::{ServeError, Signals, serve_state};
use crate::settings::Settings;
use crate::state::State;
use crate::testing::{self, ByHand, Random, SERVICE, Store};
use scraped::Scraped;

/// A server that runs until it is told to end.
pub(crate) struct Server {
    url: String,
    shutdown: oneshot::Sender<()>,
    done: JoinHandle<Result<(), ServeError>>,
}

/// What a server answered.
pub(crate) struct Answered {
    pub(crate) status: u16,
    pub(crate) headers: ureq::http::HeaderMap,
    pub(crate) body: Vec<u8>,
}

impl Server {
    pub(crate) async fn start(state: State) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (shutdown, down) = oneshot::channel::<()>();
        let ended = async {
            let _ = down.await;
        };
        let done = tokio::spawn(serve_state(state, listener, Signals::new(ended)));
        Self {
            url,
            shutdown,
            done,
        }
    }

    /// Asks with headers and a body; without a body by GET.
    pub(crate) async fn ask(
        &self,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<String>,
    ) -> Answered {
        let method = if body.is_some() { "POST" } else { "GET" };
        self.send(method, path, headers, body).await
    }

    pub(crate) async fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<String>,
    ) -> Answered {
        let url = format!("{}{path}", self.url);
        let mut request = ureq::http::Request::builder().method(method).uri(url);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(body.unwrap_or_default()).unwrap();
        let answered = tokio::task::spawn_blocking(move || {
            let config = ureq::Agent::config_builder()
                .http_status_as_error(false)
                .max_redirects(0)
                .allow_non_standard_methods(true)
                .build();
            let mut response = config.new_agent().run(request).unwrap();
            Answered {
                status: response.status().as_u16(),
                headers: response.headers().clone(),
                body: response.body_mut().read_to_vec().unwrap(),
            }
        });
        answered.await.unwrap()
    }

    pub(crate) async fn get(&self, path: &str) -> Answered {
        self.ask(path, &[], None).await
    }

    async fn online(&self, ids: &str) -> Answered {
        let body = format!(r#"{{"feature_service": "{SERVICE}", "entities": {{"id": {ids}}}}}"#);
        self.ask("/online", &[], Some(body)).await
    }

    async fn metrics(&self) -> Scraped {
        let answered = self.get("/metrics").await;
        assert_eq!(answered.status, 200);
        assert_eq!(answered.headers["content-type"], CONTENT_TYPE);
        Scraped::read(&answered.text())
    }

    pub(crate) async fn end(self) {
        self.shutdown.send(()).unwrap();
        self.done.await.unwrap().unwrap();
    }
}

impl Answered {
    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap()
    }
}

/// The features of ten keys, and a state that serves them.
pub(crate) async fn filled(
    store: &Store,
    settings: Settings,
) -> (State, FeaturePlan, Vec<ArrayRef>) {
    let plan = testing::plan(Vec::new());
    let mut random = Random(7);
    let columns: Vec<ArrayRef> = testing::types()
        .into_iter()
        .map(|(_, data_type)| random.column(data_type, 10))
        .collect();
    store.fill(&plan, &columns).await;
    let answers = Arc::new(ByHand::new(&plan, &store.online));
    (
        testing::state(settings, answers, &store.online),
        plan,
        columns,
    )
}
