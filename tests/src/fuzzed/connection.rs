//! A client of HTTP/1.1 that keeps its connection, and sends what it is given.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// Longer than the server takes to give up.
const TIMEOUT: Duration = Duration::from_secs(60);

/// The requests of one client, one after the other.
pub(super) struct Connection {
    address: SocketAddr,
    open: Option<BufReader<TcpStream>>,
}

/// What the server answered.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: Vec<u8>,
}

impl Connection {
    pub(super) fn to(address: SocketAddr) -> Self {
        Self {
            address,
            open: None,
        }
    }

    /// Asks, over a new connection where the server has closed the last.
    pub(super) fn ask(&mut self, method: &str, path: &str, body: &[u8]) -> Answer {
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
             content-length: {}\r\n\r\n",
            body.len()
        );
        let request = [head.as_bytes(), body].concat();
        if let Some(kept) = self.open.take()
            && let Ok(answer) = self.answer(kept, &request)
        {
            return answer;
        }
        let opened = TcpStream::connect(self.address).unwrap();
        opened.set_nodelay(true).unwrap();
        opened.set_read_timeout(Some(TIMEOUT)).unwrap();
        self.answer(BufReader::new(opened), &request)
            .expect("the server answers")
    }

    fn answer(&mut self, mut stream: BufReader<TcpStream>, request: &[u8]) -> io::Result<Answer> {
        stream.get_mut().write_all(request)?;
        let mut line = String::new();
        stream.read_line(&mut line)?;
        let status = line.split(' ').nth(1).and_then(|word| word.parse().ok());
        let status = status.ok_or(io::ErrorKind::UnexpectedEof)?;
        let (mut length, mut is_kept) = (None, true);
        loop {
            line.clear();
            stream.read_line(&mut line)?;
            let Some((name, value)) = line.trim_end().split_once(": ") else {
                break;
            };
            match name.to_ascii_lowercase().as_str() {
                "content-length" => length = value.parse().ok(),
                "connection" => is_kept = value != "close",
                _ => {}
            }
        }
        let mut body = vec![0; length.expect("the server knows how long its answers are")];
        stream.read_exact(&mut body)?;
        self.open = is_kept.then_some(stream);
        Ok(Answer { status, body })
    }
}
