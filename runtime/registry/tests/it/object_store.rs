//! A registry in an object store, against a server that speaks the protocol of S3.

use std::net::TcpListener;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use unskew_registry::{Registry, RegistryError, StoreOptions, StoreProblem};
use unskew_test_s3::S3Server;

use crate::lab::{COMPONENT, Lab, grow, project, state_file};
use crate::proxy::{Fate, Proxy};

/// What reaches the server, by way of a proxy if there is one.
fn options(server: &S3Server, more: &[(&str, &str)]) -> StoreOptions {
    let mut options: StoreOptions = server.environment().into_iter().collect();
    for (option, value) in more {
        options.insert((*option).to_owned(), (*value).to_owned());
    }
    options
}

fn open(url: &str, options: &StoreOptions) -> Registry {
    Registry::open(Path::new("/"), url, options).unwrap()
}

/// What the three ways to use a registry say.
async fn errors(registry: &Registry) -> [RegistryError; 3] {
    [
        registry.current().await.unwrap_err(),
        registry.newest().await.unwrap_err(),
        registry
            .commit(None, &project("a"), &[COMPONENT])
            .await
            .unwrap_err(),
    ]
}

/// What is wrong with a store; panics if it is something else.
fn problem(error: &RegistryError) -> &StoreProblem {
    match error {
        RegistryError::Object { problem, .. } | RegistryError::Place { problem, .. } => problem,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn several_registries_lie_in_one_bucket() {
    let server = S3Server::start();
    let options = options(&server, &[]);
    // A whole bucket; a folder; one whose name begins like another's, and one within another.
    let names = ["", "a", "a/", "ab", "a/b c", "a/states"];
    for name in names {
        let registry = open(&server.url(name), &options);
        let base = registry.current().await.unwrap();
        let state = registry.commit(base.as_ref(), &project("p"), &[]).await;
        assert_eq!(state.unwrap().number, if name == "a/" { 2 } else { 1 });
    }
    for name in names {
        let registry = open(&server.url(name), &options);
        let newest = if name.starts_with("a") && name.len() < 3 && name != "ab" {
            2
        } else {
            1
        };
        assert_eq!(registry.newest().await.unwrap(), Some(newest), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_place_is_told() {
    let none = StoreOptions::new();
    for (url, expected) in [
        ("hdfs://a/b", "s3://, s3a://, gs://, az://"),
        ("s3://", "names no bucket"),
        ("s3://a//b", "empty part"),
        ("az://c/x", "Account must be specified"),
    ] {
        let error = Registry::open(Path::new("/"), url, &none).unwrap_err();
        let message = error.to_string();
        assert!(
            message.contains(expected) && message.contains(url),
            "{message}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_that_is_missing_is_named() {
    let server = S3Server::start();
    let registry = open("s3://no-such-bucket/a", &options(&server, &[]));
    for error in errors(&registry).await {
        let is_missing = matches!(problem(&error), StoreProblem::NoSuchBucket { .. });
        assert!(is_missing, "{error}");
        let message = error.to_string();
        assert!(message.contains("`no-such-bucket`"), "{message}");
        assert!(message.contains("s3://no-such-bucket/a/"), "{message}");
    }
    let digest = unskew_core::digest::Digest::of(&COMPONENT);
    let error = registry.component(&digest).await.unwrap_err();
    let is_missing = matches!(problem(&error), StoreProblem::NoSuchBucket { .. });
    assert!(is_missing, "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_not_known_is_refused() {
    let server = S3Server::start();
    let registry = open(&server.url("r"), &options(&server, &[]));
    registry.commit(None, &project("a"), &[]).await.unwrap();
    server.require_credentials();
    let mut errors = Vec::from(errors(&registry).await);
    errors.push(registry.newest_after(1).await.unwrap_err());
    for error in errors {
        let is_denied = matches!(problem(&error), StoreProblem::Denied { .. });
        assert!(is_denied, "{error}");
        let message = error.to_string();
        for part in [&*server.url("r"), "AWS_SECRET_ACCESS_KEY"] {
            assert!(message.contains(part), "{message}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_gone_is_told() {
    let mut server = S3Server::start();
    let registry = open(&server.url("r"), &options(&server, &[]));
    registry.commit(None, &project("a"), &[]).await.unwrap();
    server.stop();
    let mut errors = Vec::from(errors(&registry).await);
    errors.push(registry.newest_after(1).await.unwrap_err());
    for error in errors {
        let is_gone = matches!(problem(&error), StoreProblem::Unreachable { .. });
        assert!(is_gone, "{error}");
        let message = error.to_string();
        for part in [
            "bucket `history`",
            server.endpoint(),
            "onnection refused",
            "AWS_ENDPOINT_URL",
        ] {
            assert!(message.contains(part), "{message}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_silent_is_told() {
    // It takes connections, as far as the system does that for it, and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", silent.local_addr().unwrap());
    let server = S3Server::start();
    let more = [("AWS_ENDPOINT_URL", &*endpoint), ("timeout", "200ms")];
    let registry = open(&server.url("r"), &options(&server, &more));
    for error in errors(&registry).await {
        let is_gone = matches!(problem(&error), StoreProblem::Unreachable { .. });
        assert!(is_gone, "{error}");
        assert!(error.to_string().contains(&endpoint), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_takes_no_notice_of_conditions_is_refused() {
    let lab = Lab::bucket(S3Server::start_without_conditions());
    let registry = lab.registry();
    let commit = registry.commit(None, &project("a"), &[]).await;
    let error = commit.unwrap_err();
    let is_refused = matches!(error, RegistryError::NoConditionalPut { .. });
    assert!(is_refused, "{error}");
    let message = error.to_string();
    for part in [&*lab.place, "overwrites", "If-None-Match"] {
        assert!(message.contains(part), "{message}");
    }
    assert_eq!(registry.current().await.unwrap(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_refuses_conditions_is_refused() {
    let server = S3Server::start();
    const NOT_IMPLEMENTED: &str = "<Error><Code>NotImplemented</Code><Message>A header you provided \
                                   implies functionality that is not there.</Message></Error>";
    let proxy = Proxy::before(server.endpoint(), |head| {
        match head.to_ascii_lowercase().contains("if-none-match") {
            true => Fate::Refused("501 Not Implemented", NOT_IMPLEMENTED),
            false => Fate::Passed,
        }
    });
    let endpoint = proxy.endpoint();
    for more in [
        [("AWS_ENDPOINT_URL", &*endpoint)],
        // Somebody says so.
        [("AWS_CONDITIONAL_PUT", "disabled")],
    ] {
        let registry = open(&server.url("r"), &options(&server, &more));
        let commit = registry.commit(None, &project("a"), &[]).await;
        let error = commit.unwrap_err();
        let is_refused = matches!(error, RegistryError::NoConditionalPut { .. });
        assert!(is_refused, "{error}");
        assert_eq!(registry.current().await.unwrap(), None);
    }
}

/// The client asks again, and is refused for what it wrote itself.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_is_lost_makes_no_conflict() {
    let server = S3Server::start();
    let puts = AtomicUsize::new(0);
    let proxy = Proxy::before(server.endpoint(), move |head| {
        let is_state = head.starts_with("PUT ") && head.contains("/states/");
        match is_state && puts.fetch_add(1, Ordering::Relaxed) == 0 {
            true => Fate::Lost("503 Service Unavailable", ""),
            false => Fate::Passed,
        }
    });
    let endpoint = proxy.endpoint();
    let more = [("AWS_ENDPOINT_URL", &*endpoint)];
    let registry = open(&server.url("r"), &options(&server, &more));
    let state = registry.commit(None, &project("a"), &[]).await.unwrap();
    let puts = proxy.requests();
    let puts = puts
        .iter()
        .filter(|it| it.contains("PUT") && it.contains("/states/"));
    assert_eq!(puts.count(), 2);
    assert_eq!(registry.current().await.unwrap(), Some(state));
    // Another with the same definitions is another.
    let commit = registry.commit(None, &project("a"), &[]).await;
    let error = commit.unwrap_err();
    assert!(
        matches!(error, RegistryError::Conflict { number: 1 }),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn whether_there_is_something_newer_is_two_small_requests() {
    let server = S3Server::start();
    let direct = open(&server.url("r"), &options(&server, &[]));
    grow(&direct, 12).await.unwrap();
    let proxy = Proxy::before(server.endpoint(), |_| Fate::Passed);
    let endpoint = proxy.endpoint();
    let more = [("AWS_ENDPOINT_URL", &*endpoint)];
    let registry = open(&server.url("r"), &options(&server, &more));
    assert_eq!(registry.newest_after(12).await.unwrap(), 12);
    let asked = [13, 12].map(|number| format!("HEAD /history/r/{}", state_file(number)));
    assert_eq!(proxy.requests(), asked);
    assert_eq!(registry.newest_after(10).await.unwrap(), 12);
    let requests = proxy.requests();
    assert_eq!(requests.len(), 3, "{requests:?}");
    // The state before is read by its name.
    registry.before(12).await.unwrap();
    let asked = format!("GET /history/r/{}", state_file(11));
    assert_eq!(proxy.requests(), [asked]);
}
