//! A connection to Redis that comes back.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, Client, ErrorKind, IntoConnectionInfo, RedisError, RedisResult,
    ServerErrorKind,
};
use tokio::sync::Mutex;

use crate::error::OnlineError;

/// How long to wait for a connection.
const CONNECT: Duration = Duration::from_secs(1);
/// How long to wait for an answer.
const RESPONSE: Duration = Duration::from_secs(2);

/// One multiplexed connection, made when it is first needed and again when it is lost.
///
/// The client's own connection manager was not taken: after an outage it answers the first call
/// with the failure of an attempt that lies in the past, and it keeps a connection whose peer went
/// silent.
pub(super) struct Link {
    client: Client,
    config: AsyncConnectionConfig,
    address: String,
    current: Mutex<Current>,
    /// How many attempts to connect have ended.
    attempts: AtomicU64,
}

#[derive(Default)]
struct Current {
    connection: Option<MultiplexedConnection>,
    /// Which of the connections it is.
    generation: u64,
    /// Why the last attempt failed.
    failure: Option<RedisError>,
}

impl Link {
    /// A link to the server that `url` names. Nothing is sent yet.
    pub(super) fn new(url: &str) -> Result<Self, OnlineError> {
        const FORM: &str = "write redis://[[user]:password@]host[:port][/database]";
        // Nothing that the client says about a URL is repeated: it might hold the password.
        let invalid = |what: &str| OnlineError::Settings(format!("{what}; {FORM}"));
        if url.starts_with("rediss:") || url.starts_with("valkeys:") {
            return Err(invalid("this version connects to Redis without TLS only"));
        }
        let info = url
            .into_connection_info()
            .map_err(|_| invalid("the URL of the Redis server is none"))?;
        let address = info.addr().to_string();
        let client =
            Client::open(info).map_err(|_| invalid("the URL of the Redis server is none"))?;
        Ok(Self {
            client,
            config: AsyncConnectionConfig::new()
                .set_connection_timeout(Some(CONNECT))
                .set_response_timeout(Some(RESPONSE)),
            address,
            current: Mutex::default(),
            attempts: AtomicU64::new(0),
        })
    }

    /// `host:port`, or the path of a socket.
    pub(super) fn address(&self) -> &str {
        &self.address
    }

    /// Does `operation`, which must bear being done twice: it is done once more over a new
    /// connection if the first is lost.
    pub(super) async fn run<T, F>(
        &self,
        operation: impl Fn(MultiplexedConnection) -> F + Send,
    ) -> Result<T, OnlineError>
    where
        F: Future<Output = RedisResult<T>> + Send,
    {
        let mut again = true;
        loop {
            let (connection, generation) = self.connection().await?;
            let error = match operation(connection).await {
                Ok(value) => return Ok(value),
                Err(error) => error,
            };
            // A peer that did not answer in time may never do: the next call connects anew.
            let lost = error.is_io_error() || error.is_unrecoverable_error();
            if lost {
                self.forget(generation).await;
            }
            if !lost || error.is_timeout() || !again {
                return Err(self.failed(&error));
            }
            again = false;
        }
    }

    /// The connection, which is made if there is none. Those who wait while another makes it share
    /// what comes of it, so that a server that is down costs a request one timeout at most.
    async fn connection(&self) -> Result<(MultiplexedConnection, u64), OnlineError> {
        let attempts = self.attempts.load(Ordering::Acquire);
        let mut current = self.current.lock().await;
        if let Some(connection) = &current.connection {
            return Ok((connection.clone(), current.generation));
        }
        if let Some(failure) = &current.failure
            && self.attempts.load(Ordering::Acquire) != attempts
        {
            return Err(self.failed(failure));
        }
        let made = self
            .client
            .get_multiplexed_async_connection_with_config(&self.config)
            .await;
        self.attempts.fetch_add(1, Ordering::Release);
        match made {
            Ok(connection) => {
                current.failure = None;
                current.generation += 1;
                current.connection = Some(connection.clone());
                Ok((connection, current.generation))
            }
            Err(error) => {
                let failed = self.failed(&error);
                current.failure = Some(error);
                Err(failed)
            }
        }
    }

    /// Lets go of a connection, unless another has replaced it.
    async fn forget(&self, generation: u64) {
        let mut current = self.current.lock().await;
        if current.generation == generation {
            current.connection = None;
        }
    }

    fn failed(&self, error: &RedisError) -> OnlineError {
        let store = self.address.clone();
        let reason = error.to_string();
        let kind = error.kind();
        // Redis has no kind of its own for "OOM command not allowed when used memory > maxmemory".
        if error.code() == Some("OOM") || reason.contains("OOM command not allowed") {
            return OnlineError::Full { store, reason };
        }
        match kind {
            ErrorKind::Io | ErrorKind::ClusterConnectionNotFound => {
                let reason = if error.is_timeout() {
                    "it did not answer in time".to_owned()
                } else {
                    reason
                };
                OnlineError::Unavailable { store, reason }
            }
            ErrorKind::Server(
                ServerErrorKind::BusyLoading
                | ServerErrorKind::MasterDown
                | ServerErrorKind::ClusterDown
                | ServerErrorKind::TryAgain
                | ServerErrorKind::ReadOnly,
            ) => OnlineError::Unavailable { store, reason },
            _ => OnlineError::Refused { store, reason },
        }
    }
}
