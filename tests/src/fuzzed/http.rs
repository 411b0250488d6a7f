//! Bodies that a client could send, to a server as it is.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;
use tokio::runtime::{Builder, Runtime};

use super::answers;
use super::connection::Connection;
use super::repository::Served;
use crate::Server;

/// A server, and a client of it.
pub struct Http {
    connection: Connection,
    served: Served,
    // After all that needs it.
    _server: Server,
    runtime: Runtime,
}

/// Where a body is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Path {
    Online,
    Delete,
    GetOnlineFeatures,
    Push,
    WriteToOnlineStore,
    Nothing,
}

impl Path {
    fn of(byte: u8) -> Self {
        match byte {
            b'o' => Self::Online,
            b'd' => Self::Delete,
            b'f' => Self::GetOnlineFeatures,
            b'p' => Self::Push,
            b'w' => Self::WriteToOnlineStore,
            _ => Self::Nothing,
        }
    }

    const fn method_and_path(self) -> (&'static str, &'static str) {
        match self {
            Self::Online => ("POST", "/online"),
            Self::Delete => ("DELETE", "/online"),
            Self::GetOnlineFeatures => ("POST", "/get-online-features"),
            Self::Push => ("POST", "/push"),
            Self::WriteToOnlineStore => ("POST", "/write-to-online-store"),
            Self::Nothing => ("GET", "/nothing"),
        }
    }

    const fn writes(self) -> bool {
        matches!(self, Self::Delete | Self::Push | Self::WriteToOnlineStore)
    }

    /// Whether Feast's clients ask it, who read problems in another form.
    pub(super) const fn is_of_feast(self) -> bool {
        matches!(
            self,
            Self::GetOnlineFeatures | Self::Push | Self::WriteToOnlineStore
        )
    }
}

impl Http {
    /// Serves a repository of its own.
    pub fn start() -> Self {
        let threads = Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build();
        let runtime = threads.unwrap();
        let settings = unskew_server::Settings {
            // So few that a short body can ask for too many.
            rows: 1_000,
            // The registry stays as it is.
            poll: Duration::from_secs(86_400),
            ..unskew_server::Settings::default()
        };
        let (served, server) = runtime.block_on(async {
            let served = Served::new().await;
            let server = Server::start_with(served.store(), settings).await;
            (served, server)
        });
        let address: SocketAddr = server.url["http://".len()..].parse().unwrap();
        Self {
            connection: Connection::to(address),
            served,
            _server: server,
            runtime,
        }
    }

    /// Sends all but the first byte as a body; the first one says where to.
    ///
    /// # Panics
    /// The server fails, or the answer is none.
    pub fn check(&mut self, input: &[u8]) {
        let Some((&first, body)) = input.split_first() else {
            return;
        };
        let path = Path::of(first);
        let (method, url) = path.method_and_path();
        let answer = self.connection.ask(method, url, body);
        let shown = || {
            format!(
                "{method} {url} {}: {} {}",
                String::from_utf8_lossy(body),
                answer.status,
                String::from_utf8_lossy(&answer.body)
            )
        };
        let Ok(json) = serde_json::from_slice::<Value>(&answer.body) else {
            panic!("no JSON: {}", shown());
        };
        let is_right = match answer.status {
            200 => answers::is_answer(path, &json),
            400..500 => answers::is_problem(path, answer.status, &json),
            _ => None,
        };
        assert_eq!(is_right, Some(true), "{}", shown());
        if path.writes() && answer.status == 200 {
            self.runtime.block_on(self.served.restore());
        }
    }
}
