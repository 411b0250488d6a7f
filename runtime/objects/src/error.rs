//! What can go wrong with an object store, and what a user can do about it.

use object_store::Error;
use object_store::client::{HttpError, HttpErrorKind};
use unskew_core::text::list;
use unskew_core::view::STORE_SCHEMES;

/// Why an object store cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreProblem {
    /// A URL of something else.
    #[error(
        "there is no object store `{scheme}://`; write a path, or a URL that begins with {}",
        list(STORE_SCHEMES.map(|scheme| format!("{scheme}://")))
    )]
    UnknownScheme {
        /// What stands before the `://`.
        scheme: String,
    },
    /// A URL that ends too early.
    #[error("it names no bucket; a URL is SCHEME://BUCKET/PATH")]
    NoBucket,
    /// A path that no object has.
    #[error("what follows the bucket is no key: {reason}")]
    InvalidKey {
        /// What is wrong with it.
        reason: String,
    },
    /// An option that no store has.
    #[error(
        "there is no option `{option}` of object stores; options are called like the variables of \
         the environment, such as aws_region, google_service_account, azure_storage_account_name"
    )]
    UnknownOption {
        /// Its name.
        option: String,
    },
    /// Options or variables of the environment that are missing or contradict each other.
    #[error("the object store cannot be set up: {reason}")]
    Setup {
        /// What the library says.
        reason: String,
    },
    /// Nobody answers.
    #[error(
        "nobody answers for bucket `{bucket}`{}: {reason}; where the bucket is asked for is set by \
         {variable}", at(endpoint.as_ref())
    )]
    Unreachable {
        /// The bucket.
        bucket: String,
        /// Where it was asked for: scheme, host and port, where the client tells them.
        endpoint: Option<String>,
        /// What the network says.
        reason: String,
        /// The variables of the environment that lead elsewhere.
        variable: &'static str,
    },
    /// There is no such bucket, or container.
    #[error("there is no bucket `{bucket}`, or it belongs to another account, region or endpoint")]
    NoSuchBucket {
        /// The bucket.
        bucket: String,
    },
    /// The store knows who asks, and refuses; or it does not know.
    #[error("access is denied: {reason}; credentials come from {wanted}")]
    Denied {
        /// What the store says.
        reason: String,
        /// Where credentials come from.
        wanted: &'static str,
    },
    /// There are no credentials to ask with.
    #[error(
        "there are no credentials, and the machine gets none from a cloud that it runs in; set \
         {wanted}"
    )]
    NoCredentials {
        /// Where credentials come from.
        wanted: &'static str,
    },
    /// An endpoint without TLS, which nobody allowed.
    #[error("the endpoint has no TLS (http://); set {option}=true to allow that")]
    NoTls {
        /// The variable of the environment that allows it.
        option: &'static str,
    },
    /// The store fails.
    #[error("the object store does not answer as it should: {reason}")]
    Failed {
        /// What the store says.
        reason: String,
    },
}

/// Parts of the URLs at which a machine in a cloud gets credentials of its own: what is asked when
/// nothing else gives any.
const METADATA: [&str; 5] = [
    "/latest/api/token",
    "/latest/meta-data",
    "/computeMetadata/",
    "metadata.google.internal",
    "/metadata/identity",
];

/// Whether an error says that an object is not there, and not its bucket.
///
/// The answer to a HEAD has no body that could tell the two apart: it counts as that of an object.
pub fn is_absent(error: &Error) -> bool {
    const NO_BUCKET: [&str; 2] = [
        "<Code>NoSuchBucket</Code>",
        "<Code>ContainerNotFound</Code>",
    ];
    let says_bucket = |text: &String| NO_BUCKET.iter().any(|code| text.contains(code));
    matches!(error, Error::NotFound { .. }) && !chain(error).iter().any(says_bucket)
}

/// What an error that came up at `url` means.
pub fn problem(url: &str, error: &Error) -> StoreProblem {
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    let bucket = rest.split('/').next().unwrap_or_default();
    let chain = chain(error);
    let reason = cause(error);
    if chain
        .iter()
        .any(|text| METADATA.iter().any(|part| text.contains(part)))
    {
        let wanted = credentials(scheme);
        return StoreProblem::NoCredentials { wanted };
    }
    let status = match error {
        Error::NotFound { .. } => Some(404),
        Error::Unauthenticated { .. } => Some(401),
        Error::PermissionDenied { .. } => Some(403),
        // What a listing comes to is not told apart.
        _ => chain.iter().find_map(|text| status(text)),
    };
    let wanted = credentials(scheme);
    match status {
        Some(404) => StoreProblem::NoSuchBucket {
            bucket: bucket.to_owned(),
        },
        Some(401 | 403) => StoreProblem::Denied { reason, wanted },
        _ if chain.iter().any(|text| text.contains(NO_TLS)) => StoreProblem::NoTls {
            option: match scheme {
                "gs" => "GOOGLE_ALLOW_HTTP",
                "s3" | "s3a" => "AWS_ALLOW_HTTP",
                _ => "AZURE_ALLOW_HTTP",
            },
        },
        _ if is_of_the_network(error) => StoreProblem::Unreachable {
            bucket: bucket.to_owned(),
            endpoint: endpoint(&chain),
            reason,
            variable: match scheme {
                "gs" => "GOOGLE_BASE_URL",
                "s3" | "s3a" => "AWS_ENDPOINT_URL and AWS_REGION",
                _ => "AZURE_STORAGE_ENDPOINT and AZURE_STORAGE_ACCOUNT_NAME",
            },
        },
        _ => StoreProblem::Failed { reason },
    }
}

/// Whether no answer came, or none in time.
fn is_of_the_network(error: &Error) -> bool {
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        if let Some(error) = error.downcast_ref::<HttpError>() {
            return !matches!(error.kind(), HttpErrorKind::Decode | HttpErrorKind::Unknown);
        }
        source = error.source();
    }
    false
}

/// Scheme, host and port of the request that failed, as the client's error names it.
fn endpoint(chain: &[String]) -> Option<String> {
    let request = |text: &String| {
        let (_, rest) = text.split_once("Error performing ")?;
        let url = rest.split_whitespace().find(|word| word.contains("://"))?;
        let (scheme, rest) = url.split_once("://")?;
        let host = rest.split(['/', '?', '#']).next()?;
        Some(format!("{scheme}://{host}"))
    };
    chain.iter().find_map(request)
}

fn at(endpoint: Option<&String>) -> String {
    endpoint.map_or_else(String::new, |endpoint| format!(" at {endpoint}"))
}

/// What the client says of an endpoint without TLS.
const NO_TLS: &str = "URL scheme is not allowed";

/// The HTTP status that the text of an error names.
fn status(text: &str) -> Option<u16> {
    let (_, rest) = text.split_once("status code: ")?;
    rest.get(..3)?.parse().ok()
}

/// The variables that give credentials.
fn credentials(scheme: &str) -> &'static str {
    match scheme {
        "s3" | "s3a" => {
            "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (with AWS_SESSION_TOKEN, if they are \
             temporary), or AWS_WEB_IDENTITY_TOKEN_FILE and AWS_ROLE_ARN; or AWS_SKIP_SIGNATURE=true \
             for a public bucket"
        }
        "gs" => {
            "GOOGLE_SERVICE_ACCOUNT or GOOGLE_APPLICATION_CREDENTIALS (each the path of a JSON \
             file); or GOOGLE_SKIP_SIGNATURE=true for a public bucket"
        }
        _ => {
            "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY, AZURE_STORAGE_SAS_TOKEN, or \
             AZURE_CLIENT_ID, AZURE_CLIENT_SECRET and AZURE_TENANT_ID; or \
             AZURE_SKIP_SIGNATURE=true for a public container"
        }
    }
}

/// What an error of a store comes down to: what the server says, or else the innermost error.
pub(crate) fn cause(error: &Error) -> String {
    let chain = chain(error);
    if let Some(answer) = chain.iter().find_map(|text| said(text)) {
        return answer;
    }
    // An answer without a body ends in a colon.
    let innermost = chain
        .last()
        .map_or("", |text| text.trim_end_matches([':', ' ']));
    match innermost.char_indices().nth(LONGEST_CAUSE) {
        Some((end, _)) => format!("{}…", &innermost[..end]),
        None => innermost.to_owned(),
    }
}

/// The longest text of an unknown kind that a message carries, in characters: a proxy may answer
/// with a page of HTML.
const LONGEST_CAUSE: usize = 300;

/// The texts of an error and of what caused it, the innermost last.
fn chain(error: &Error) -> Vec<String> {
    let mut texts = vec![error.to_string()];
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        texts.push(error.to_string());
        source = error.source();
    }
    texts
}

/// Code and message of an answer in XML, which all three stores give.
fn said(answer: &str) -> Option<String> {
    let element = |name: &str| {
        let (_, rest) = answer.split_once(&format!("<{name}>"))?;
        let (text, _) = rest.split_once(&format!("</{name}>"))?;
        Some(text.trim().to_owned())
    };
    let code = element("Code")?;
    Some(match element("Message") {
        Some(message) => format!("{code}: {message}"),
        None => code,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_of_a_server_is_what_a_message_says() {
        let answer = "<?xml?><Error><Code>SlowDown</Code><Message>Please.</Message></Error>";
        let of = |text: &str| Error::Generic {
            store: "S3",
            source: text.to_owned().into(),
        };
        assert_eq!(cause(&of(answer)), "SlowDown: Please.");
        assert_eq!(
            cause(&of("status code: 403 Forbidden: ")),
            "status code: 403 Forbidden"
        );
        assert_eq!(
            cause(&of(&"ü".repeat(1_000))).chars().count(),
            LONGEST_CAUSE + 1
        );
    }
}
