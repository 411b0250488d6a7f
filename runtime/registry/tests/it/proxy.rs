//! What stands between a client and a server, and may answer in its place.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// What becomes of a request.
pub(crate) enum Fate {
    /// The server answers.
    Passed,
    /// The server does what it is asked for, and this is the answer: status and body.
    Lost(&'static str, &'static str),
    /// The server does not get to see it, and this is the answer.
    Refused(&'static str, &'static str),
}

/// A proxy that ends with the test's process.
pub(crate) struct Proxy {
    address: SocketAddr,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Proxy {
    /// Stands before the server at `endpoint`; `fate` is asked for each request, by its head.
    pub(crate) fn before(
        endpoint: &str,
        fate: impl Fn(&str) -> Fate + Send + Sync + 'static,
    ) -> Self {
        let server = endpoint.strip_prefix("http://").unwrap().to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let proxy = Self {
            address: listener.local_addr().unwrap(),
            requests: Arc::default(),
        };
        let (requests, fate) = (Arc::clone(&proxy.requests), Arc::new(fate));
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let (server, requests) = (server.clone(), Arc::clone(&requests));
                let fate = Arc::clone(&fate);
                // A client that hangs up is none of this thread's business.
                std::thread::spawn(move || serve(&client?, &server, &requests, &*fate));
            }
        });
        proxy
    }

    pub(crate) fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Method and path of the requests so far, which are forgotten.
    pub(crate) fn requests(&self) -> Vec<String> {
        std::mem::take(&mut self.requests.lock().unwrap())
    }
}

fn serve(
    client: &TcpStream,
    server: &str,
    requests: &Mutex<Vec<String>>,
    fate: &dyn Fn(&str) -> Fate,
) -> std::io::Result<()> {
    let mut reader = BufReader::new(client);
    loop {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if reader.read_line(&mut head)? == 0 {
                return Ok(());
            }
        }
        let lower = head.to_ascii_lowercase();
        let length = lower.split("content-length: ").nth(1);
        let length = length.and_then(|rest| rest.split("\r\n").next()?.parse().ok());
        let mut body = vec![0; length.unwrap_or(0)];
        reader.read_exact(&mut body)?;
        let words: Vec<&str> = head.split(' ').take(2).collect();
        requests.lock().unwrap().push(words.join(" "));
        let fate = fate(&head);
        let answer = match &fate {
            Fate::Refused(..) => Vec::new(),
            _ => forward(server, &head, &body)?,
        };
        match fate {
            Fate::Passed => {
                (&mut &*client).write_all(&answer)?;
                // The server's answer says that it closes the connection.
                return Ok(());
            }
            Fate::Lost(status, body) | Fate::Refused(status, body) => write!(
                &mut &*client,
                "HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            )?,
        }
    }
}

/// The server's whole answer.
fn forward(server: &str, head: &str, body: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut server = TcpStream::connect(server)?;
    let (request, headers) = head.split_once("\r\n").unwrap_or((head, "\r\n"));
    write!(server, "{request}\r\nConnection: close\r\n{headers}")?;
    server.write_all(body)?;
    let mut answer = Vec::new();
    server.read_to_end(&mut answer)?;
    Ok(answer)
}
