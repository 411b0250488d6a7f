//! How connections are made.

use std::io;
use std::path::Path;
use std::time::Duration;

use futures::future::select_ok;
use redis::aio::MultiplexedConnection;
use redis::io::tcp::{TcpSettings, socket2::TcpKeepalive};
use redis::{
    AsyncConnectionConfig, Client, ClientTlsConfig, ConnectionAddr, ErrorKind, IntoConnectionInfo,
    ProtocolVersion, RedisConnectionInfo, RedisError, RedisResult, TlsCertificates,
};

use super::address::{Address, Credentials, Knobs, Place, Tls, Verify};
use crate::error::OnlineError;

/// How long a connection may be idle before it is looked at whether its peer is still there.
const KEEPALIVE: Duration = Duration::from_secs(30);

/// How many calls may wait to be written to a connection. Those beyond wait for a place, which
/// costs each a turn of the scheduler.
const QUEUE: usize = 1024;

/// Everything about a connection but where it leads.
#[derive(Clone)]
pub(super) struct Dialer {
    redis: RedisConnectionInfo,
    tls: Option<(TlsCertificates, Verify)>,
    config: AsyncConnectionConfig,
    /// How long a connection may take.
    connect: Duration,
}

impl Dialer {
    /// How `address` wants connections to be made; its files are read.
    pub(super) fn new(address: &Address) -> Result<Self, OnlineError> {
        let tls = match &address.tls {
            Some(tls) => Some((certificates(tls)?, tls.verify)),
            None => None,
        };
        let dialer = Self {
            redis: info(&address.credentials, address.database, address.resp3),
            tls,
            config: config(&address.knobs),
            connect: address.knobs.connect,
        };
        // What is wrong with the files is said now and not at the first call.
        for place in &address.places {
            dialer.client(place).map_err(|error| settings(&error))?;
        }
        Ok(dialer)
    }

    /// For the sentinels of the same address.
    pub(super) fn for_sentinels(&self, address: &Address) -> Self {
        Self {
            redis: info(&address.sentinel_credentials, 0, address.resp3),
            ..self.clone()
        }
    }

    /// What connects to the server at `place`.
    pub(super) fn client(&self, place: &Place) -> RedisResult<Client> {
        let mut certificates = None;
        let addr = match (place, &self.tls) {
            (Place::Unix(path), _) => ConnectionAddr::Unix(path.clone()),
            (Place::Tcp { host, port }, None) => ConnectionAddr::Tcp(host.clone(), *port),
            (Place::Tcp { host, port }, Some((files, verify))) => {
                certificates = Some((files.clone(), *verify));
                ConnectionAddr::TcpTls {
                    host: host.clone(),
                    port: *port,
                    insecure: *verify == Verify::Nothing,
                    tls_params: None,
                }
            }
        };
        let tcp = TcpSettings::default()
            .set_nodelay(true)
            .set_keepalive(TcpKeepalive::new().with_time(KEEPALIVE));
        let info = addr
            .into_connection_info()?
            .set_redis_settings(self.redis.clone())
            .set_tcp_settings(tcp);
        let Some((files, verify)) = certificates else {
            return Client::open(info);
        };
        let client = Client::build_with_tls(info, files)?;
        if verify != Verify::AnyName {
            return Ok(client);
        }
        let info = client.get_connection_info().clone();
        let mut addr = info.addr().clone();
        addr.set_danger_accept_invalid_hostnames(true);
        Client::open(info.set_addr(addr))
    }

    /// A connection to the server of `client`.
    pub(super) async fn connect(&self, client: &Client) -> RedisResult<MultiplexedConnection> {
        client
            .get_multiplexed_async_connection_with_config(&self.config)
            .await
    }
}

/// Whom to connect to.
pub(super) enum Target {
    /// A server.
    Server(Client),
    /// The master that sentinels name.
    Master {
        service: String,
        sentinels: Vec<Client>,
        ask: Dialer,
    },
}

impl Target {
    /// A connection, by way of `dialer`.
    pub(super) async fn dial(&self, dialer: &Dialer) -> RedisResult<MultiplexedConnection> {
        match self {
            Self::Server(client) => dialer.connect(client).await,
            // All are asked at once, and the first that leads to a master counts: some may be down,
            // and one that has not heard of a failover yet leads to no master.
            Self::Master {
                service,
                sentinels,
                ask,
            } => {
                let ways = sentinels
                    .iter()
                    .map(|sentinel| Box::pin(master(service, sentinel, ask, dialer)));
                // A connection to the sentinel, and one to the master.
                let dialed = tokio::time::timeout(2 * dialer.connect, select_ok(ways)).await;
                let silent = || RedisError::from(io::Error::from(io::ErrorKind::TimedOut));
                dialed
                    .map_err(|_| silent())?
                    .map(|(connection, _)| connection)
            }
        }
    }

    /// Whether another connection may lead to another server.
    pub(super) const fn may_move(&self) -> bool {
        matches!(self, Self::Master { .. })
    }
}

/// A connection to the master that a sentinel names.
async fn master(
    service: &str,
    sentinel: &Client,
    ask: &Dialer,
    dialer: &Dialer,
) -> RedisResult<MultiplexedConnection> {
    let mut connection = ask.connect(sentinel).await?;
    let named: Option<(String, u16)> = redis::cmd("SENTINEL")
        .arg("GET-MASTER-ADDR-BY-NAME")
        .arg(service)
        .query_async(&mut connection)
        .await?;
    let Some((host, port)) = named else {
        return Err(RedisError::from((
            ErrorKind::MasterNameNotFoundBySentinel,
            "the sentinels know no master of that name",
            service.to_owned(),
        )));
    };
    let client = dialer.client(&Place::Tcp { host, port })?;
    let mut connection = dialer.connect(&client).await?;
    let role: redis::Value = redis::cmd("ROLE").query_async(&mut connection).await?;
    let is_master = matches!(&role, redis::Value::Array(parts) if matches!(
        parts.first(),
        Some(redis::Value::BulkString(name)) if name == b"master"
    ));
    if is_master {
        return Ok(connection);
    }
    Err(RedisError::from((
        ErrorKind::Io,
        "the server that a sentinel names is not the master yet, or no longer",
    )))
}

fn info(credentials: &Credentials, database: i64, resp3: bool) -> RedisConnectionInfo {
    let mut info = RedisConnectionInfo::default().set_db(database);
    if resp3 {
        info = info.set_protocol(ProtocolVersion::RESP3);
    }
    if let Some(user) = &credentials.user {
        info = info.set_username(user);
    }
    if let Some(password) = &credentials.password {
        info = info.set_password(password);
    }
    info
}

fn config(knobs: &Knobs) -> AsyncConnectionConfig {
    AsyncConnectionConfig::new()
        .set_connection_timeout(Some(knobs.connect))
        .set_response_timeout(Some(knobs.response))
        .set_pipeline_buffer_size(QUEUE)
}

fn certificates(tls: &Tls) -> Result<TlsCertificates, OnlineError> {
    // The client of Redis takes the process's provider, and panics if there is none and the
    // features of rustls do not say which. One that is set already is left alone.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let read = |name: &str, path: &Path| {
        std::fs::read(path).map_err(|error| {
            let path = path.display();
            OnlineError::Settings(format!(
                "the file {path} of `{name}` cannot be read: {error}"
            ))
        })
    };
    let client_tls = match (&tls.certificate, &tls.key) {
        (Some(certificate), Some(key)) => Some(ClientTlsConfig {
            client_cert: read("ssl_certfile", certificate)?,
            client_key: read("ssl_keyfile", key)?,
        }),
        _ => None,
    };
    let root_cert = match &tls.authorities {
        None => None,
        Some(path) => {
            let pem = read("ssl_ca_certs", path)?;
            let text = String::from_utf8_lossy(&pem);
            if !text.contains("-----BEGIN CERTIFICATE-----") {
                return Err(OnlineError::Settings(format!(
                    "the file {} of `ssl_ca_certs` holds no certificate in PEM form",
                    path.display()
                )));
            }
            Some(pem)
        }
    };
    Ok(TlsCertificates {
        client_tls,
        root_cert,
    })
}

fn settings(error: &RedisError) -> OnlineError {
    OnlineError::Settings(format!("the connection to Redis: {error}"))
}
