//! `unskew serve`, for as long as the demo needs it.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result, bail};

use crate::process::typed;

/// A running server, killed when it is dropped: at the end, and on every error before.
pub(crate) struct Server {
    child: Child,
    url: String,
}

impl Server {
    /// Starts a server, and waits until it says on which address it listens.
    ///
    /// # Errors
    /// It cannot be started, or it ends.
    pub(crate) fn start(command: &mut Command) -> Result<Self> {
        let typed = typed(command);
        println!("$ {typed} &");
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("`{typed}` cannot be started"))?;
        let output = child.stdout.take();
        let mut server = Self {
            child,
            url: String::new(),
        };
        let mut lines = BufReader::new(output.context("its output is a pipe")?).lines();
        for line in lines.by_ref() {
            let line = line?;
            println!("{line}");
            if let Some(url) = url(&line) {
                server.url = url.to_owned();
                break;
            }
        }
        if server.url.is_empty() {
            let status = server.child.wait()?;
            bail!("`{typed}` ended before it listened ({status})");
        }
        // What else it prints is read and shown, or a full pipe would stop it.
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                println!("serve: {line}");
            }
        });
        Ok(server)
    }

    /// Its URL, such as `http://127.0.0.1:6566`.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Its process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The URL in a line of text.
fn url(line: &str) -> Option<&str> {
    let start = line.find("http://")?;
    let url = &line[start..];
    let end = url.find(|c: char| c.is_whitespace() || "\"'`,;)".contains(c));
    Some(url[..end.unwrap_or(url.len())].trim_end_matches(['.', '/']))
}

#[cfg(test)]
mod tests {
    use super::url;

    #[test]
    fn the_url_is_found_in_what_the_server_says() {
        for line in [
            "listening on http://127.0.0.1:6566",
            r#"{"url": "http://127.0.0.1:6566/"}"#,
            "http://127.0.0.1:6566. Ctrl-C ends it",
        ] {
            assert_eq!(url(line), Some("http://127.0.0.1:6566"), "{line}");
        }
        assert_eq!(url("starting"), None);
    }
}
