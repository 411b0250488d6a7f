//! `GET /openapi.json`, and the page at `/docs`, whose files are part of the program.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use axum::body::Body;
use axum::extract::Path;
use axum::http::{HeaderName, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use utoipa::openapi::path::{Operation, PathItem};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{self, ContentBuilder, Ref, RefOr, ResponseBuilder, response};
use utoipa::{IntoResponses, Modify, OpenApi};
use utoipa_swagger_ui::Config;

use crate::error::{Problem, ProblemBody, json};
use crate::guard::{Need, Right, need};
use crate::object::shortened;

/// All paths of the HTTP port.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "Unskew",
        description = "A feature store that answers with the same features a training set has."
    ),
    paths(
        super::online::online,
        super::delete::delete,
        super::status::health,
        super::status::ready,
        super::status::reload,
        super::feast_docs::get_online_features,
        super::feast_docs::push,
        super::feast_docs::write_to_online_store,
        super::metrics::metrics,
        openapi,
        docs,
        file,
    ),
    components(schemas(ProblemBody)),
    tags(
        (name = "features", description = "Features of entities"),
        (name = "feast", description = "What Feast's clients ask"),
        (name = "operation", description = "What runs the server asks"),
    ),
    modifiers(&TokensNeeded)
)]
struct Api;

/// What the way to show a token is called.
const BEARER: &str = "bearer";

/// Says of each path which token it needs.
struct TokensNeeded;

impl Modify for TokensNeeded {
    fn modify(&self, document: &mut openapi::OpenApi) {
        let bearer = HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .description(Some(
                "A token with the right that a path names. A server that was started without \
                 tokens asks for none.",
            ));
        document
            .components
            .get_or_insert_default()
            .add_security_scheme(BEARER, SecurityScheme::Http(bearer.build()));
        for (path, item) in &mut document.paths.paths {
            for (method, operation) in operations(item) {
                operation.security = Some(security(need(&method, path)));
            }
        }
    }
}

/// The operations of a path, of the methods that the server has.
fn operations(item: &mut PathItem) -> impl Iterator<Item = (Method, &mut Operation)> {
    let all = [
        (Method::GET, &mut item.get),
        (Method::POST, &mut item.post),
        (Method::DELETE, &mut item.delete),
    ];
    let there = all.into_iter();
    there.filter_map(|(method, operation)| Some((method, operation.as_mut()?)))
}

/// What `need` is in the words of OpenAPI: any one of these will do; of none, nothing is needed.
fn security(need: Need) -> Vec<SecurityRequirement> {
    let token = |right: Right| SecurityRequirement::new(BEARER, [right.to_string()]);
    match need {
        Need::Nothing => Vec::new(),
        Need::Token(right) => vec![token(right)],
        // A setting gives it to anybody.
        Need::Metrics => vec![token(Right::Read), SecurityRequirement::default()],
    }
}

/// The document, written once.
static DOCUMENT: LazyLock<Result<String, String>> =
    LazyLock::new(|| Api::openapi().to_json().map_err(|error| error.to_string()));

/// The methods and paths, for a message that says what there is.
static PATHS: LazyLock<String> = LazyLock::new(|| {
    let mut paths = Api::openapi().paths.paths;
    let whole = paths.iter_mut().filter(|(path, _)| !path.contains('{'));
    let mut named: Vec<String> = whole
        .flat_map(|(path, item)| {
            operations(item).map(move |(method, _)| format!("{method} {path}"))
        })
        .collect();
    named.sort_by_key(|named| named.split_once(' ').map(|(_, path)| path.to_owned()));
    named.join(", ")
});

/// The methods and paths that there are, such as `GET /health, POST /online`.
pub(crate) fn paths() -> &'static str {
    &PATHS
}

/// What the page is told: where the document lies, as seen from the page, wherever a proxy puts the
/// two; and to ask no other host whether the document is valid.
static CONFIG: LazyLock<Arc<Config<'static>>> = LazyLock::new(|| {
    let config = Config::new(["../openapi.json"]).validator_url("none");
    Arc::new(config.use_base_layout().try_it_out_enabled(true))
});

/// A browser that knows it loads nothing from elsewhere, whatever a file says.
const POLICY: &str = "default-src 'self'; img-src 'self' data:; style-src 'self' 'unsafe-inline'; \
                      frame-ancestors 'none'";

/// Every answer that is not what was asked for: the statuses that `error.rs` gives out.
pub(super) struct Problems;

impl IntoResponses for Problems {
    fn responses() -> BTreeMap<String, RefOr<response::Response>> {
        const STATUSES: [(StatusCode, &str); 14] = [
            (StatusCode::BAD_REQUEST, "The request is not valid"),
            (
                StatusCode::UNAUTHORIZED,
                "There is no token, or none that is valid",
            ),
            (
                StatusCode::FORBIDDEN,
                "The token has not the right that this needs",
            ),
            (
                StatusCode::NOT_FOUND,
                "There is no such feature service, or path",
            ),
            (
                StatusCode::METHOD_NOT_ALLOWED,
                "The path has no such method",
            ),
            (
                StatusCode::REQUEST_TIMEOUT,
                "The body did not arrive in time",
            ),
            (
                StatusCode::CONFLICT,
                "Another plan is served than the one demanded",
            ),
            (
                StatusCode::PAYLOAD_TOO_LARGE,
                "The body, or the answer, is too large",
            ),
            (
                StatusCode::UNPROCESSABLE_ENTITY,
                "A transformation failed for a row",
            ),
            (
                StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
                "The headers are too large",
            ),
            (StatusCode::INTERNAL_SERVER_ERROR, "A fault of the server"),
            (
                StatusCode::BAD_GATEWAY,
                "The newest state of the registry cannot be served",
            ),
            (
                StatusCode::SERVICE_UNAVAILABLE,
                "Overloaded, not ready, or the online store is down",
            ),
            (StatusCode::GATEWAY_TIMEOUT, "There was no answer in time"),
        ];
        let response = |description: &str| {
            let schema = Ref::from_schema_name("Problem");
            let content = ContentBuilder::new().schema(Some(schema)).build();
            ResponseBuilder::new()
                .description(description)
                .content("application/json", content)
                .build()
        };
        STATUSES
            .map(|(status, what)| (status.as_str().to_owned(), RefOr::T(response(what))))
            .into()
    }
}

/// This document.
#[utoipa::path(
    get,
    path = "/openapi.json",
    tag = "operation",
    responses(
        (status = 200, description = "The paths of this server, as OpenAPI 3.1", body = Object),
        Problems
    )
)]
pub(super) async fn openapi() -> Result<Response, Problem> {
    match &*DOCUMENT {
        Ok(document) => Ok(json(StatusCode::OK, document.as_str())),
        Err(error) => Err(Problem::Internal(error.clone())),
    }
}

/// A page that shows this document, and asks the server from a form.
#[utoipa::path(
    get,
    path = "/docs",
    tag = "operation",
    responses((status = 308, description = "To `docs/`, from where the page finds its files"))
)]
pub(super) async fn docs() -> Response {
    // Relative, so that it is right behind a proxy that takes away a prefix.
    (
        StatusCode::PERMANENT_REDIRECT,
        [(header::LOCATION, "docs/")],
    )
        .into_response()
}

/// The page itself.
pub(super) async fn page() -> Result<Response, Problem> {
    served("index.html")
}

/// A file of the page.
#[utoipa::path(
    get,
    path = "/docs/{file}",
    tag = "operation",
    params(("file" = String, Path, description = "Its name; none: the page itself")),
    responses((status = 200, description = "The file"), Problems)
)]
pub(super) async fn file(Path(file): Path<String>) -> Result<Response, Problem> {
    served(&file)
}

fn served(file: &str) -> Result<Response, Problem> {
    let found = utoipa_swagger_ui::serve(file, Arc::clone(&CONFIG))
        .map_err(|error| Problem::Internal(error.to_string()))?;
    let Some(found) = found else {
        return Err(Problem::NoPath(format!("/docs/{}", shortened(file))));
    };
    let content_type = HeaderValue::from_str(&found.content_type)
        .map_err(|error| Problem::Internal(error.to_string()))?;
    let mut response = Response::new(Body::from(found.bytes.into_owned()));
    let headers: [(HeaderName, HeaderValue); 4] = [
        (header::CONTENT_TYPE, content_type),
        (
            header::CONTENT_SECURITY_POLICY,
            HeaderValue::from_static(POLICY),
        ),
        (
            header::X_CONTENT_TYPE_OPTIONS,
            HeaderValue::from_static("nosniff"),
        ),
        (
            header::CACHE_CONTROL,
            HeaderValue::from_static("public, max-age=3600"),
        ),
    ];
    response.headers_mut().extend(headers);
    Ok(response)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::{Value, json};

    use crate::guard::{NewToken, Right, TokenEntry, Tokens};
    use crate::settings::Settings;
    use crate::testing::Store;
    use crate::watch::tests::{Server, filled};

    /// The values of `name="…"` in a page.
    fn attributes<'a>(page: &'a str, name: &str) -> Vec<&'a str> {
        let begin = format!("{name}=\"");
        let values = page.split(begin.as_str()).skip(1);
        values.map(|rest| rest.split('"').next().unwrap()).collect()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn the_page_needs_nothing_but_this_server() {
        let store = Store::new();
        let server = Server::start(filled(&store, Settings::default()).await.0).await;
        let moved = server.get("/docs").await;
        assert_eq!(
            (moved.status, &moved.headers["location"] == "docs/"),
            (308, true)
        );
        let page = server.get("/docs/").await;
        assert_eq!(page.status, 200);
        assert_eq!(page.headers["content-type"], "text/html");
        let policy = page.headers["content-security-policy"].to_str().unwrap();
        assert!(
            policy.starts_with("default-src 'self';") && !policy.contains("http"),
            "{policy}"
        );
        let page = page.text();
        let mut assets = attributes(&page, "src");
        assets.extend(attributes(&page, "href"));
        assert!(assets.len() >= 5, "{page}");
        for asset in assets {
            assert!(!asset.contains("//"), "{asset} leaves the server");
            let name = asset.trim_start_matches("./");
            let found = server.get(&format!("/docs/{name}")).await;
            assert_eq!(found.status, 200, "{asset}");
            if name.ends_with(".css") {
                let text = found.text();
                let urls = text.split("url(").skip(1);
                for url in urls.map(|rest| rest.trim_start_matches(['"', '\''])) {
                    assert!(
                        url.starts_with("data:"),
                        "{}",
                        url.split(')').next().unwrap()
                    );
                }
                assert!(!text.contains("@import"));
            }
        }
        let told = server.get("/docs/swagger-initializer.js").await.text();
        assert!(told.contains(r#""url": "../openapi.json""#), "{told}");
        assert!(told.contains(r#""validatorUrl": "none""#), "{told}");
        assert!(!told.contains("http"), "{told}");
        assert_eq!(server.get("/docs/nothing.js").await.status, 404);
        assert_eq!(server.get("/docs/..%2f..%2fCargo.toml").await.status, 404);
        server.end().await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_is_documented_is_there_and_what_goes_wrong_is_documented() {
        let store = Store::new();
        let server = Server::start(filled(&store, Settings::default()).await.0).await;
        let answered = server.get("/openapi.json").await;
        assert_eq!(answered.headers["content-type"], "application/json");
        let document: Value = serde_json::from_slice(&answered.body).unwrap();
        assert!(document["openapi"].as_str().unwrap().starts_with("3."));
        let paths = document["paths"].as_object().unwrap();
        for path in [
            "/online",
            "/get-online-features",
            "/push",
            "/write-to-online-store",
            "/health",
            "/ready",
            "/metrics",
            "/admin/reload",
            "/openapi.json",
            "/docs",
        ] {
            assert!(paths.contains_key(path), "{path}");
        }
        for (path, item) in paths {
            let asked = path.replace("{file}", "index.html");
            for (method, operation) in item.as_object().unwrap() {
                let answered = match method.as_str() {
                    "get" => server.get(&asked).await,
                    "post" => server.ask(&asked, &[], Some("no JSON".to_owned())).await,
                    "delete" => {
                        let body = Some("no JSON".to_owned());
                        server.send("DELETE", &asked, &[], body).await
                    }
                    other => panic!("{other} {path}"),
                };
                assert!(!matches!(answered.status, 404 | 405), "{method} {path}");
                let documented = &operation["responses"][answered.status.to_string()];
                assert!(
                    documented.is_object(),
                    "{method} {path}: {}",
                    answered.status
                );
                assert!(operation["summary"].is_string(), "{method} {path}");
            }
        }
        // Every reference leads somewhere.
        let text = answered.text();
        let references = text.split(r##""$ref":"#"##).skip(1);
        let mut count = 0;
        for reference in references.map(|rest| rest.split('"').next().unwrap()) {
            assert!(document.pointer(reference).is_some(), "{reference}");
            count += 1;
        }
        assert!(count > 10);
        let problem = server.get("/nothing").await;
        let body: Value = serde_json::from_slice(&problem.body).unwrap();
        let schema = &document["components"]["schemas"]["Problem"]["properties"];
        assert!(schema["error"].is_object() && body["error"].is_object());
        let message = body["error"]["message"].as_str().unwrap();
        assert!(
            message.contains("GET /metrics") && message.contains("POST /online"),
            "{message}"
        );
        server.end().await;
    }

    /// Asks without a token or with this one, and gives the status.
    async fn status(server: &Server, method: &str, path: &str, token: Option<&str>) -> u16 {
        let shown = token.map(|token| format!("Bearer {token}"));
        let headers: Vec<_> = shown
            .iter()
            .map(|it| ("authorization", it.as_str()))
            .collect();
        let path = path.replace("{file}", "index.html");
        let body = (method != "get").then(|| "no JSON".to_owned());
        let method = method.to_uppercase();
        server.send(&method, &path, &headers, body).await.status
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn the_document_names_the_right_that_each_path_needs() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("tokens.json");
        let mut tokens = Tokens::default();
        let texts = Right::ALL.map(|right| {
            let token = NewToken::generate().unwrap();
            let entry = TokenEntry {
                name: right.to_string(),
                hash: token.hash(),
                rights: BTreeSet::from([right]),
                project: None,
                expires: None,
            };
            tokens.add(entry).unwrap();
            (right.to_string(), token.text().to_owned())
        });
        tokens.write(&file).unwrap();
        let settings = Settings {
            tokens: Some(file),
            ..Settings::default()
        };
        let store = Store::new();
        let server = Server::start(filled(&store, settings).await.0).await;
        let document: Value =
            serde_json::from_slice(&server.get("/openapi.json").await.body).unwrap();
        let scheme = &document["components"]["securitySchemes"]["bearer"];
        assert_eq!(
            (&scheme["type"], &scheme["scheme"]),
            (&json!("http"), &json!("bearer"))
        );

        let mut guarded = 0;
        for (path, item) in document["paths"].as_object().unwrap() {
            for (method, operation) in item.as_object().unwrap() {
                let named = operation["security"].as_array().unwrap();
                let open = status(&server, method, path, None).await;
                assert_eq!(open == 401, !named.is_empty(), "{method} {path}: {open}");
                for (right, token) in &texts {
                    let answered = status(&server, method, path, Some(token)).await;
                    let will_do = named.is_empty() || named.contains(&json!({"bearer": [right]}));
                    assert_eq!(
                        answered != 403,
                        will_do,
                        "{method} {path} {right}: {answered}"
                    );
                }
                guarded += usize::from(!named.is_empty());
            }
        }
        assert!(guarded >= 7, "{guarded}");
        let metrics = &document["paths"]["/metrics"]["get"]["security"];
        assert_eq!(metrics, &json!([{"bearer": ["read"]}, {}]));
        server.end().await;
    }
}
