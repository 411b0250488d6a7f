//! One request over HTTP, for a machine that may have no curl.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

/// How long a server may take to answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// Posts JSON to `url`, and gives the body of the answer.
///
/// # Errors
/// Nobody answers, or the answer is not `200 OK`.
pub(crate) fn post(url: &str, path: &str, json: &str) -> Result<String> {
    let authority = url
        .strip_prefix("http://")
        .with_context(|| format!("`{url}` is no http:// URL"))?;
    let mut stream =
        TcpStream::connect(authority).with_context(|| format!("{url} does not answer"))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    // HTTP/1.0: the server closes the connection after the whole body, without chunks.
    write!(
        stream,
        "POST {path} HTTP/1.0\r\nhost: {authority}\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n{json}",
        json.len()
    )?;
    let mut answer = String::new();
    stream
        .read_to_string(&mut answer)
        .with_context(|| format!("{url} stopped answering"))?;
    let (head, body) = answer
        .split_once("\r\n\r\n")
        .context("the answer is no HTTP")?;
    let status = head.lines().next().unwrap_or_default();
    if status.split(' ').nth(1) != Some("200") {
        bail!("{url}{path} answered {status}: {body}");
    }
    Ok(body.to_owned())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::io::{BufRead as _, BufReader, Write as _};
    use std::net::TcpListener;

    use super::post;

    /// What `post` makes of an answer.
    fn answered(answer: &'static str) -> anyhow::Result<String> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let server = std::thread::spawn(move || {
            let (stream, _) = listener.accept().unwrap();
            let mut request = BufReader::new(&stream);
            let mut line = String::new();
            while request.read_line(&mut line).unwrap() > 2 {
                line.clear();
            }
            let mut body = [0; 2];
            std::io::Read::read_exact(&mut request, &mut body).unwrap();
            assert_eq!(&body, b"{}");
            (&stream).write_all(answer.as_bytes()).unwrap();
        });
        let body = post(&url, "/online", "{}");
        server.join().unwrap();
        body
    }

    #[test]
    fn the_body_of_an_answer_is_given() {
        let body = answered("HTTP/1.0 200 OK\r\ncontent-length: 4\r\n\r\n{\"a\"").unwrap();
        assert_eq!(body, "{\"a\"");
    }

    #[test]
    fn another_status_is_an_error_that_shows_the_body() {
        let error = answered("HTTP/1.0 503 Service Unavailable\r\n\r\nthe store is down");
        let error = error.unwrap_err().to_string();
        assert!(
            error.contains("503") && error.contains("the store is down"),
            "{error}"
        );
    }

    #[test]
    fn what_is_no_http_is_an_error() {
        assert!(answered("hello").is_err());
    }
}
