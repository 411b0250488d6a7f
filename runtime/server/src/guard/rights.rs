//! Which right a path needs: the one place that says so.

use axum::http::Method;

use crate::guard::Right;

/// What a path needs of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    /// Nothing: anybody may ask.
    Nothing,
    /// A token with this right.
    Token(Right),
    /// `/metrics`: to read, unless a setting gives it to anybody.
    Metrics,
}

/// The paths, each as it is or, with `/*`, with all below it; the first that fits counts.
const TABLE: [(&str, Need); 17] = [
    ("/health", Need::Nothing),
    ("/ready", Need::Nothing),
    ("/docs/*", Need::Nothing),
    ("/openapi.json", Need::Nothing),
    ("/metrics", Need::Metrics),
    ("/online", Need::Token(Right::Read)),
    ("/get-online-features", Need::Token(Right::Read)),
    ("/push", Need::Token(Right::Write)),
    ("/write-to-online-store", Need::Token(Right::Write)),
    ("/admin/*", Need::Token(Right::Admin)),
    ("/feast.serving.ServingService/*", Need::Token(Right::Read)),
    (
        "/GrpcFeatureServer/GetOnlineFeatures",
        Need::Token(Right::Read),
    ),
    ("/GrpcFeatureServer/*", Need::Token(Right::Write)),
    ("/grpc.health.v1.Health/*", Need::Nothing),
    ("/grpc.reflection.v1.ServerReflection/*", Need::Nothing),
    ("/grpc.reflection.v1alpha.ServerReflection/*", Need::Nothing),
    // A path that is forgotten here is open to the fewest.
    ("/*", Need::Token(Right::Admin)),
];

/// What a request needs. Whatever deletes needs the right to write, and what is for admins theirs.
pub(crate) fn need(method: &Method, path: &str) -> Need {
    if method == Method::DELETE && !fits("/admin/*", path) {
        return Need::Token(Right::Write);
    }
    let found = TABLE.iter().find(|(pattern, _)| fits(pattern, path));
    found.map_or(Need::Token(Right::Admin), |(_, need)| *need)
}

fn fits(pattern: &str, path: &str) -> bool {
    match pattern.strip_suffix("/*") {
        Some(above) => path
            .strip_prefix(above)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/')),
        None => path == pattern,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_path_needs_what_it_can_do() {
        let (read, write) = (Need::Token(Right::Read), Need::Token(Right::Write));
        let admin = Need::Token(Right::Admin);
        for (method, path, expected) in [
            (Method::POST, "/online", read),
            (Method::DELETE, "/online", write),
            (Method::DELETE, "/views/customers", write),
            (Method::POST, "/get-online-features", read),
            (Method::POST, "/push", write),
            (Method::DELETE, "/push", write),
            (Method::POST, "/write-to-online-store", write),
            (Method::POST, "/admin/reload", admin),
            (Method::DELETE, "/admin/reload", admin),
            (Method::GET, "/admin", admin),
            (Method::GET, "/health", Need::Nothing),
            (Method::GET, "/ready", Need::Nothing),
            (Method::GET, "/docs", Need::Nothing),
            (Method::GET, "/docs/swagger-ui.css", Need::Nothing),
            (Method::GET, "/docsx", admin),
            (Method::GET, "/health/", admin),
            (Method::GET, "/metrics", Need::Metrics),
            (
                Method::POST,
                "/feast.serving.ServingService/GetOnlineFeatures",
                read,
            ),
            (Method::POST, "/GrpcFeatureServer/GetOnlineFeatures", read),
            (Method::POST, "/GrpcFeatureServer/Push", write),
            (Method::POST, "/grpc.health.v1.Health/Check", Need::Nothing),
            (Method::GET, "/", admin),
            (Method::POST, "//online", admin),
            (Method::POST, "*", admin),
        ] {
            assert_eq!(need(&method, path), expected, "{method} {path}");
        }
    }
}
