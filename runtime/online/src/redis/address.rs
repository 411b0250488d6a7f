//! From the text that names a Redis to the servers that it names and how to speak to them.
//!
//! ```text
//! redis://[[USER]:PASSWORD@]HOST[:PORT][/DATABASE][?OPTION=VALUE&…]
//! redis+cluster://[…@]HOST[:PORT],HOST[:PORT],…
//! redis+sentinel://[…@]HOST[:PORT],HOST[:PORT],…/SERVICE[/DATABASE]
//! redis+unix://[…@]/PATH[?db=DATABASE]          or unix://
//! HOST[:PORT],HOST[:PORT],…[,OPTION=VALUE,…]    as Feast writes it
//! ```
//!
//! With `rediss` in place of `redis` it is TLS. The options are redis-py's where it has them.
//! Nothing of a text that is refused is repeated: any part of it might be a password.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use percent_encoding::percent_decode_str;

use crate::error::OnlineError;

/// What a text names.
#[derive(Clone)]
pub(super) struct Address {
    pub(super) topology: Topology,
    /// The servers that the text lists: the one, some of the cluster, or the sentinels.
    pub(super) places: Vec<Place>,
    pub(super) tls: Option<Tls>,
    pub(super) credentials: Credentials,
    /// For the sentinels themselves.
    pub(super) sentinel_credentials: Credentials,
    pub(super) database: i64,
    pub(super) resp3: bool,
    pub(super) knobs: Knobs,
}

/// What the servers are to each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Topology {
    /// One server.
    Standalone,
    /// A cluster.
    Cluster,
    /// The master that the sentinels name.
    Sentinel { service: String },
}

/// Where a server listens.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Place {
    Tcp { host: String, port: u16 },
    Unix(PathBuf),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
            Self::Unix(path) => path.display().fmt(f),
        }
    }
}

/// Who is it that connects.
#[derive(Clone, Default)]
pub(super) struct Credentials {
    pub(super) user: Option<String>,
    pub(super) password: Option<String>,
}

/// How TLS verifies, and by which files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Tls {
    /// A file of certificates to trust in place of the system's.
    pub(super) authorities: Option<PathBuf>,
    /// The files of this client's certificate and of its key.
    pub(super) certificate: Option<PathBuf>,
    pub(super) key: Option<PathBuf>,
    pub(super) verify: Verify,
}

/// What of a server's certificate is verified.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Verify {
    #[default]
    Everything,
    /// Whatever name it was issued for will do.
    AnyName,
    /// Anybody may answer.
    Nothing,
}

/// What may be set, with what is taken otherwise.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Knobs {
    /// Connections to each server.
    pub(super) connections: usize,
    /// How long to wait for a connection.
    pub(super) connect: Duration,
    /// How long to wait for an answer.
    pub(super) response: Duration,
    /// After how many failures in a row the circuit opens.
    pub(super) failures: u32,
}

impl Default for Knobs {
    fn default() -> Self {
        Self {
            connections: 1,
            connect: Duration::from_secs(1),
            response: Duration::from_secs(2),
            failures: 3,
        }
    }
}

const PORT: u16 = 6379;
const SENTINEL_PORT: u16 = 26379;

const FORMS: &str = "write redis://[[USER]:PASSWORD@]HOST[:PORT][/DATABASE], \
    redis+cluster://HOST:PORT,HOST:PORT, redis+sentinel://HOST:PORT,HOST:PORT/SERVICE[/DATABASE], \
    redis+unix:///PATH, with rediss instead of redis for TLS, \
    or HOST:PORT,HOST:PORT,password=PASSWORD,ssl=true";

const OPTIONS: &str = "options are connections, db, failures, password, protocol, \
    sentinel_password, sentinel_username, socket_connect_timeout, socket_timeout, ssl_ca_certs, \
    ssl_certfile, ssl_cert_reqs, ssl_check_hostname, ssl_keyfile, username, and without a scheme \
    also redis_type, sentinel_master, ssl";

impl Address {
    /// Reads a text.
    ///
    /// # Errors
    /// It is of none of the forms.
    pub(super) fn parse(text: &str) -> Result<Self, OnlineError> {
        let parsed = match text.split_once("://") {
            Some((scheme, rest)) => of_url(scheme, rest),
            None => of_list(text),
        };
        let checked = parsed.and_then(Draft::address);
        checked.map_err(|what| OnlineError::Settings(format!("{what}; {FORMS}")))
    }

    /// The servers, for a person.
    pub(super) fn shown(&self) -> String {
        let places = unskew_core::text::list(&self.places);
        match &self.topology {
            Topology::Sentinel { service } => format!("{service} of the sentinels {places}"),
            Topology::Standalone | Topology::Cluster => places,
        }
    }
}

type Read<T> = Result<T, String>;

/// An address that is being read.
struct Draft {
    address: Address,
    /// `redis_type` and `sentinel_master` of a list without a scheme.
    kind: Option<String>,
    master: Option<String>,
    /// Options of TLS, which want TLS.
    secure: Tls,
    secured: bool,
}

impl Draft {
    fn new(topology: Topology, tls: bool) -> Self {
        Self {
            address: Address {
                topology,
                places: Vec::new(),
                tls: tls.then(Tls::default),
                credentials: Credentials::default(),
                sentinel_credentials: Credentials::default(),
                database: 0,
                resp3: false,
                knobs: Knobs::default(),
            },
            kind: None,
            master: None,
            secure: Tls::default(),
            secured: false,
        }
    }

    fn option(&mut self, name: &str, value: &str) -> Read<()> {
        let address = &mut self.address;
        let text = || Some(value.to_owned());
        let path = || Some(PathBuf::from(value));
        match name {
            "db" => address.database = database(value)?,
            "username" | "user" => address.credentials.user = text(),
            "password" | "pass" => address.credentials.password = text(),
            "sentinel_username" => address.sentinel_credentials.user = text(),
            "sentinel_password" => address.sentinel_credentials.password = text(),
            "protocol" => {
                address.resp3 = match value {
                    "2" | "resp2" => false,
                    "3" | "resp3" => true,
                    _ => return Err("`protocol` is 2 or 3".to_owned()),
                }
            }
            "connections" => address.knobs.connections = count(name, value, 64)? as usize,
            "failures" => address.knobs.failures = count(name, value, 1000)?,
            "socket_timeout" => address.knobs.response = seconds(name, value)?,
            "socket_connect_timeout" => address.knobs.connect = seconds(name, value)?,
            "ssl" => {
                let tls = flag(name, value)?;
                address.tls = tls.then(Tls::default);
            }
            "redis_type" => self.kind = text(),
            "sentinel_master" => self.master = text(),
            _ => {
                self.secured = true;
                match name {
                    "ssl_ca_certs" => self.secure.authorities = path(),
                    "ssl_certfile" => self.secure.certificate = path(),
                    "ssl_keyfile" => self.secure.key = path(),
                    "ssl_cert_reqs" => match value.to_ascii_lowercase().as_str() {
                        "none" => self.secure.verify = Verify::Nothing,
                        "required" => {}
                        _ => return Err("`ssl_cert_reqs` is required or none".to_owned()),
                    },
                    "ssl_check_hostname" => {
                        if !flag(name, value)? && self.secure.verify == Verify::Everything {
                            self.secure.verify = Verify::AnyName;
                        }
                    }
                    _ => return Err(format!("an option is unknown; {OPTIONS}")),
                }
            }
        }
        Ok(())
    }

    /// The address, if everything in it fits together.
    fn address(self) -> Read<Address> {
        let mut address = self.address;
        if self.secured {
            if address.tls.is_none() {
                return Err("an option that begins with ssl_ wants TLS".to_owned());
            }
            if self.secure.certificate.is_some() != self.secure.key.is_some() {
                return Err("`ssl_certfile` and `ssl_keyfile` come together".to_owned());
            }
            address.tls = Some(self.secure);
        }
        if address.places.is_empty() {
            return Err("no server is named".to_owned());
        }
        if address.topology == Topology::Standalone && address.places.len() > 1 {
            return Err("several servers are a cluster or sentinels".to_owned());
        }
        if address.topology == Topology::Cluster && address.database != 0 {
            return Err("a cluster has the database 0 alone".to_owned());
        }
        if address.credentials.user.is_some() && address.credentials.password.is_none() {
            return Err("a user wants a password".to_owned());
        }
        Ok(address)
    }
}

fn of_url(scheme: &str, rest: &str) -> Read<Draft> {
    let scheme = scheme.to_ascii_lowercase();
    let (name, kind) = scheme.split_once('+').unwrap_or((&scheme, ""));
    let tls = matches!(name, "rediss" | "valkeys");
    let (rest, fragment) = split(rest, '#');
    let (rest, query) = split(rest, '?');
    let mut draft = match (name, kind) {
        ("unix", "") | ("redis" | "valkey", "unix") => {
            let (user, path) = match rest.split_once('@') {
                // An `@` may be in the path.
                Some((user, path)) if !user.contains('/') => (Some(user), path),
                _ => (None, rest),
            };
            let mut draft = Draft::new(Topology::Standalone, false);
            draft.address.credentials = credentials(user.unwrap_or_default())?;
            if !path.starts_with('/') {
                return Err("the path of a socket begins with /".to_owned());
            }
            let path = PathBuf::from(decoded(path)?);
            draft.address.places.push(Place::Unix(path));
            draft
        }
        ("redis" | "rediss" | "valkey" | "valkeys", "" | "cluster" | "sentinel") => {
            let (user, rest) = rest.rsplit_once('@').unwrap_or(("", rest));
            let (hosts, path) = split(rest, '/');
            let mut path = path.trim_end_matches('/').split('/');
            let (topology, port) = match kind {
                "cluster" => (Topology::Cluster, PORT),
                "sentinel" => {
                    let service = decoded(path.next().unwrap_or_default())?;
                    if service.is_empty() {
                        return Err("the sentinels are to be asked for a service".to_owned());
                    }
                    (Topology::Sentinel { service }, SENTINEL_PORT)
                }
                _ => (Topology::Standalone, PORT),
            };
            let mut draft = Draft::new(topology, tls);
            draft.address.credentials = credentials(user)?;
            draft.address.places = places(hosts.split(','), port)?;
            match path.next() {
                None | Some("") => {}
                Some(number) => draft.address.database = database(number)?,
            }
            if path.next().is_some() {
                return Err("its path has too many parts".to_owned());
            }
            draft
        }
        _ => return Err("its scheme is not that of a Redis".to_owned()),
    };
    for option in query.split('&').filter(|option| !option.is_empty()) {
        let (name, value) = split(option, '=');
        if matches!(name, "ssl" | "redis_type" | "sentinel_master") {
            return Err(format!("the scheme says what `{name}` would"));
        }
        draft.option(name, &decoded(value)?)?;
    }
    match fragment {
        "" => {}
        "insecure" if tls => draft.option("ssl_cert_reqs", "none")?,
        _ => return Err("a fragment other than #insecure has no meaning".to_owned()),
    }
    Ok(draft)
}

/// Reads `HOST:PORT,HOST:PORT,OPTION=VALUE,…`, in which nothing is percent-encoded.
fn of_list(text: &str) -> Read<Draft> {
    let mut draft = Draft::new(Topology::Standalone, false);
    let mut hosts = Vec::new();
    for part in text.split(',').map(str::trim) {
        match part.split_once('=') {
            Some((name, value)) => draft.option(name, value)?,
            // It may be any text; what has no port is rather a secret than a host.
            None if part.contains(':') => hosts.push(part),
            None => return Err("a part is neither HOST:PORT nor OPTION=VALUE".to_owned()),
        }
    }
    let port = match (draft.kind.as_deref(), draft.master.take()) {
        (None | Some("redis"), None) => PORT,
        (Some("redis_cluster"), None) => {
            draft.address.topology = Topology::Cluster;
            PORT
        }
        (None | Some("redis_sentinel"), Some(service)) if !service.is_empty() => {
            draft.address.topology = Topology::Sentinel { service };
            SENTINEL_PORT
        }
        _ => {
            return Err(
                "`redis_type` is redis, redis_cluster, or redis_sentinel with a `sentinel_master`"
                    .to_owned(),
            );
        }
    };
    draft.address.places = places(hosts.into_iter(), port)?;
    Ok(draft)
}

fn split(text: &str, at: char) -> (&str, &str) {
    text.split_once(at).unwrap_or((text, ""))
}

fn decoded(text: &str) -> Read<String> {
    match percent_decode_str(text).decode_utf8() {
        Ok(text) => Ok(text.into_owned()),
        Err(_) => Err("what is percent-encoded in it is no UTF-8".to_owned()),
    }
}

fn credentials(text: &str) -> Read<Credentials> {
    if text.is_empty() {
        return Ok(Credentials::default());
    }
    let Some((user, password)) = text.split_once(':') else {
        return Err("what stands before `@` is USER:PASSWORD or :PASSWORD".to_owned());
    };
    let some = |text: &str| decoded(text).map(|text| (!text.is_empty()).then_some(text));
    Ok(Credentials {
        user: some(user)?,
        password: some(password)?,
    })
}

fn places<'a>(hosts: impl Iterator<Item = &'a str>, default: u16) -> Read<Vec<Place>> {
    hosts.map(|host| place(host, default)).collect()
}

fn place(text: &str, default: u16) -> Read<Place> {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((host, "")) => (host, None),
            Some((host, port)) => (host, port.strip_prefix(':')),
            None => ("", None),
        },
        None => match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    let valid = |byte: u8| byte.is_ascii_alphanumeric() || b".-_:%".contains(&byte);
    if host.is_empty() || !host.bytes().all(valid) {
        return Err("a server is not named as HOST:PORT".to_owned());
    }
    let port = match port {
        None => default,
        Some(port) => match port.parse() {
            Ok(port) if port > 0 => port,
            _ => return Err("a port is not a number from 1 to 65535".to_owned()),
        },
    };
    Ok(Place::Tcp {
        host: host.to_owned(),
        port,
    })
}

fn database(text: &str) -> Read<i64> {
    match text.parse::<u32>() {
        Ok(number) => Ok(i64::from(number)),
        Err(_) => Err("the database is not a number".to_owned()),
    }
}

fn count(name: &str, value: &str, most: u32) -> Read<u32> {
    match value.parse() {
        Ok(number) if (1..=most).contains(&number) => Ok(number),
        _ => Err(format!("`{name}` is a number from 1 to {most}")),
    }
}

fn seconds(name: &str, value: &str) -> Read<Duration> {
    match value.parse::<f64>() {
        Ok(seconds) if (0.001..=3600.0).contains(&seconds) => Ok(Duration::from_secs_f64(seconds)),
        _ => Err(format!("`{name}` is in seconds, from 0.001 to 3600")),
    }
}

fn flag(name: &str, value: &str) -> Read<bool> {
    match value.to_ascii_lowercase().as_str() {
        "true" | "1" | "yes" => Ok(true),
        "false" | "0" | "no" => Ok(false),
        _ => Err(format!("`{name}` is true or false")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Address {
        Address::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    #[test]
    fn each_form_names_what_it_says() {
        let cluster = Topology::Cluster;
        let sentinel = || Topology::Sentinel {
            service: "main".to_owned(),
        };
        let cases = [
            ("redis://h", Topology::Standalone, "h:6379", false, 0),
            ("REDIS://h:1/3", Topology::Standalone, "h:1", false, 3),
            (
                "valkey://[::1]:1/",
                Topology::Standalone,
                "[::1]:1",
                false,
                0,
            ),
            ("rediss://h", Topology::Standalone, "h:6379", true, 0),
            (
                "unix:///run/a@b.sock?db=2",
                Topology::Standalone,
                "/run/a@b.sock",
                false,
                2,
            ),
            (
                "redis+unix:///run/a",
                Topology::Standalone,
                "/run/a",
                false,
                0,
            ),
            (
                "redis+cluster://a:1,b,c:3/",
                cluster.clone(),
                "a:1, b:6379, c:3",
                false,
                0,
            ),
            ("rediss+cluster://a", cluster.clone(), "a:6379", true, 0),
            (
                "redis+sentinel://a,b:2/main",
                sentinel(),
                "main of the sentinels a:26379, b:2",
                false,
                0,
            ),
            (
                "rediss+sentinel://a/main/7",
                sentinel(),
                "main of the sentinels a:26379",
                true,
                7,
            ),
            ("h:1,db=4", Topology::Standalone, "h:1", false, 4),
            ("h:1,ssl=true", Topology::Standalone, "h:1", true, 0),
            (
                "h:1,ssl=false,redis_type=redis",
                Topology::Standalone,
                "h:1",
                false,
                0,
            ),
            (
                "a:1, b:2,redis_type=redis_cluster",
                cluster,
                "a:1, b:2",
                false,
                0,
            ),
            (
                "a:1,redis_type=redis_sentinel,sentinel_master=main",
                sentinel(),
                "main of the sentinels a:1",
                false,
                0,
            ),
        ];
        for (text, topology, shown, tls, database) in cases {
            let address = parse(text);
            assert_eq!(address.topology, topology, "{text}");
            assert_eq!(address.shown(), shown, "{text}");
            assert_eq!(address.tls.is_some(), tls, "{text}");
            assert_eq!(address.database, database, "{text}");
        }
    }

    #[test]
    fn credentials_are_read_from_each_form() {
        for (text, user, password) in [
            ("redis://me:s%40cret@h", Some("me"), "s@cret"),
            ("redis://:a/b@c@h", None, "a/b@c"),
            ("redis+cluster://me:secret@a,b", Some("me"), "secret"),
            ("redis+sentinel://:secret@a/main", None, "secret"),
            ("redis+unix://me:secret@/run/a", Some("me"), "secret"),
            ("unix:///run/a?username=me&password=s%26", Some("me"), "s&"),
            (
                "redis://h?username=me&password=secret",
                Some("me"),
                "secret",
            ),
            ("h:1,username=me,password=a=b%40", Some("me"), "a=b%40"),
        ] {
            let credentials = parse(text).credentials;
            assert_eq!(credentials.user.as_deref(), user, "{text}");
            assert_eq!(credentials.password.as_deref(), Some(password), "{text}");
        }
        let address = parse("redis+sentinel://a/main?sentinel_username=u&sentinel_password=p");
        assert_eq!(address.sentinel_credentials.user.as_deref(), Some("u"));
        assert!(address.credentials.password.is_none());
    }

    #[test]
    fn options_are_those_of_redis_py() {
        let address = parse(
            "rediss://h?ssl_ca_certs=/ca.pem&ssl_certfile=/c.pem&ssl_keyfile=/k%20.pem\
             &ssl_check_hostname=false&socket_timeout=0.5&socket_connect_timeout=2\
             &connections=3&failures=9&protocol=3",
        );
        assert_eq!(
            address.tls,
            Some(Tls {
                authorities: Some("/ca.pem".into()),
                certificate: Some("/c.pem".into()),
                key: Some("/k .pem".into()),
                verify: Verify::AnyName,
            })
        );
        let knobs = Knobs {
            connections: 3,
            connect: Duration::from_secs(2),
            response: Duration::from_millis(500),
            failures: 9,
        };
        assert_eq!((address.knobs, address.resp3), (knobs, true));
        for text in ["rediss://h#insecure", "h:1,ssl=true,ssl_cert_reqs=none"] {
            assert_eq!(parse(text).tls.unwrap().verify, Verify::Nothing, "{text}");
        }
    }

    #[test]
    fn what_is_none_of_the_forms_is_refused_without_being_shown() {
        for text in [
            "",
            "hunter2",
            "http://:hunter2@h",
            "redis://:hunter2@",
            "redis://hunter2@h",
            "redis://:hunter2@h:99999999",
            "redis://:hunter2@h:0",
            "redis://:hunter2@h/hunter2",
            "redis://:hunter2@h/-1",
            "redis://:hunter2@a,b",
            "redis://:hunter2@h/0/1",
            "redis://:hunter2@h h",
            "redis://:hunter2@[::1",
            "redis://hunter2:@h",
            "redis://:%ffhunter2@h",
            "redis://:hunter2?x@h",
            "redis://:hunter2#x@h",
            "redis://h?ssl_ca_certs=hunter2",
            "redis://h?ssl=true",
            "redis://h?connections=0",
            "redis://h?failures=hunter2",
            "redis://h?socket_timeout=hunter2",
            "redis://h?protocol=hunter2",
            "rediss://h?ssl_certfile=hunter2",
            "rediss://h?ssl_cert_reqs=hunter2",
            "rediss://h?ssl_check_hostname=hunter2",
            "rediss://h#hunter2",
            "redis+unix://hunter2",
            "rediss+unix:///hunter2",
            "redis+cluster://:hunter2@a/1",
            "redis+sentinel://:hunter2@a",
            "redis+sentinel://:hunter2@a/main/hunter2",
            "h:1,password=a,hunter2",
            "h:1,redis_type=hunter2",
            "h:1,redis_type=redis_sentinel",
            "h:1,redis_type=redis_cluster,sentinel_master=hunter2",
            "h:1,hunter2=1",
            "a:1,b:2,password=hunter2",
        ] {
            let error = match Address::parse(text) {
                Ok(_) => panic!("{text}"),
                Err(error) => error,
            };
            assert!(matches!(error, OnlineError::Settings(_)), "{text}: {error}");
            let shown = format!("{error} {error:?}");
            assert!(!shown.contains("hunter2"), "{shown}");
            assert!(shown.contains("redis+cluster://"), "{shown}");
        }
    }
}
