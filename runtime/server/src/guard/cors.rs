//! Which pages may ask from a browser.

use std::time::Duration;

use axum::http::{HeaderName, HeaderValue, Method, Uri, header};
use tower_http::cors::{AllowOrigin, CorsLayer};

use crate::guard::GuardError;

/// How long a browser remembers what it may ask.
const REMEMBERED: Duration = Duration::from_secs(600);

/// Lets pages of these origins ask; `None`: pages of none may.
///
/// # Errors
/// One is no origin.
pub(super) fn layer(origins: &[String]) -> Result<Option<CorsLayer>, GuardError> {
    if origins.is_empty() {
        return Ok(None);
    }
    let origins = origins.iter().map(|text| {
        let wrong = || GuardError::Origin(text.clone());
        let value = HeaderValue::from_str(text).map_err(|_| wrong())?;
        if is_origin(text) {
            Ok(value)
        } else {
            Err(wrong())
        }
    });
    let origins = origins.collect::<Result<Vec<_>, _>>()?;
    let request_id = HeaderName::from_static("x-request-id");
    let trace = HeaderName::from_static("traceparent");
    Ok(Some(
        CorsLayer::new()
            .allow_origin(AllowOrigin::list(origins))
            .allow_methods([Method::GET, Method::POST, Method::DELETE])
            .allow_headers([
                header::AUTHORIZATION,
                header::CONTENT_TYPE,
                request_id.clone(),
                trace,
            ])
            .expose_headers([header::RETRY_AFTER, request_id])
            .max_age(REMEMBERED),
    ))
}

/// Whether it is what browsers send: a scheme, a host in small letters, a port if there is one.
fn is_origin(text: &str) -> bool {
    let Ok(uri) = text.parse::<Uri>() else {
        return false;
    };
    let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
        return false;
    };
    matches!(scheme, "http" | "https")
        && text == format!("{scheme}://{authority}")
        && !text.contains('@')
        && !text.chars().any(|char| char.is_ascii_uppercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_written_as_browsers_send_them() {
        for text in [
            "https://app.example",
            "http://localhost:3000",
            "http://[::1]:80",
        ] {
            assert!(matches!(layer(&[text.to_owned()]), Ok(Some(_))), "{text}");
        }
        for text in [
            "*",
            "",
            "null",
            "app.example",
            "https://app.example/",
            "https://App.example",
            "https://me@app.example",
            "ftp://app.example",
        ] {
            let error = layer(&[text.to_owned()]).unwrap_err().to_string();
            assert!(error.contains(&format!("`{text}`")), "{error}");
        }
        assert!(matches!(layer(&[]), Ok(None)));
    }
}
