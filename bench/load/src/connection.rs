//! One kept-alive HTTP/1.1 connection with at most one request on its way.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};

/// How long a connection may take to come about.
const CONNECT: Duration = Duration::from_secs(5);
const HEADERS: usize = 64;

/// A connection to the server.
///
/// Its socket blocks: what is written is less than a send buffer, and it is read only when epoll
/// says that there is something.
pub struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
    filled: usize,
    /// The head of the answer that is being read: it is parsed once.
    head: Option<Head>,
}

#[derive(Clone, Copy)]
struct Head {
    status: u16,
    length: usize,
    body: usize,
    closes: bool,
}

/// An answer.
pub struct Answer<'a> {
    /// The HTTP status.
    pub status: u16,
    /// The body.
    pub body: &'a [u8],
    /// Whether the server closes the connection after it.
    pub closes: bool,
}

impl Connection {
    /// Connects.
    pub fn open(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&address, CONNECT)?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            buffer: vec![0; 64 << 10],
            filled: 0,
            head: None,
        })
    }

    /// The socket.
    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// Sends a request.
    pub fn send(&mut self, request: &[u8]) -> io::Result<()> {
        (self.filled, self.head) = (0, None);
        self.stream.write_all(request)
    }

    /// Reads what is there; `true` if the answer is complete.
    pub fn read(&mut self) -> anyhow::Result<bool> {
        if self.filled == self.buffer.len() {
            self.buffer.resize(self.buffer.len() * 2, 0);
        }
        let count = self.stream.read(&mut self.buffer[self.filled..])?;
        ensure!(count > 0, "the server closed the connection");
        self.filled += count;
        if self.head.is_none() {
            self.head = parse(&self.buffer[..self.filled])?;
        }
        Ok(self
            .head
            .is_some_and(|head| self.filled >= head.body + head.length))
    }

    /// The answer, once it is complete.
    pub fn answer(&self) -> Option<Answer<'_>> {
        let head = self.head?;
        Some(Answer {
            status: head.status,
            body: self.buffer.get(head.body..head.body + head.length)?,
            closes: head.closes,
        })
    }
}

/// The head of an answer, if it is complete.
fn parse(bytes: &[u8]) -> anyhow::Result<Option<Head>> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS];
    let mut response = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(body) = response.parse(bytes)? else {
        return Ok(None);
    };
    let status = response.code.context("an answer without a status")?;
    let (mut length, mut closes) = (None, false);
    for header in response.headers.iter() {
        if header.name.eq_ignore_ascii_case("content-length") {
            length = Some(std::str::from_utf8(header.value)?.trim().parse()?);
        } else if header.name.eq_ignore_ascii_case("connection") {
            closes = header.value.eq_ignore_ascii_case(b"close");
        } else if header.name.eq_ignore_ascii_case("transfer-encoding") {
            bail!("the answer comes in chunks, which none of the servers here does");
        }
    }
    Ok(Some(Head {
        status,
        length: length.context("an answer without a length")?,
        body,
        closes,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_parsed_when_it_is_complete() {
        let head =
            "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 12\r\nConnection: close\r\n\r\n";
        for end in 0..head.len() {
            assert!(parse(&head.as_bytes()[..end]).unwrap().is_none());
        }
        let parsed = parse(head.as_bytes()).unwrap().unwrap();
        assert_eq!((parsed.status, parsed.length), (503, 12));
        assert_eq!((parsed.body, parsed.closes), (head.len(), true));
        assert!(parse(b"HTTP/1.1 200 OK\r\n\r\n").is_err());
    }
}
