//! A client connection: bytes out, frames and HTTP responses in.

use std::collections::HashMap;
use std::io::{self, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::thread;
use std::time::Duration;

use socket2::SockRef;

use crate::case::Write;
use crate::support::clients;

/// How long an answer that is due may take.
pub const WAIT: Duration = Duration::from_secs(5);

/// Longer frames are taken for garbage in the length.
const MAX_FRAME: usize = 1 << 24;

/// Why there is no (further) answer.
#[derive(Debug)]
pub enum ReadError {
    /// Nothing more arrived in time.
    Silent,
    /// The server closed the connection, by FIN or RST.
    Closed,
    /// What arrived is not an answer.
    Unreadable(String),
}

fn unreadable<T>(why: impl Into<String>) -> Result<T, ReadError> {
    Err(ReadError::Unreadable(why.into()))
}

/// A connection with what has arrived on it and is not read yet.
pub struct Peer {
    stream: TcpStream,
    /// Our end of the connection, by which the server knows us.
    pub address: SocketAddr,
    pub buffer: Vec<u8>,
}

/// An HTTP response whose transfer framing is undone.
pub struct Response {
    pub proto: String,
    pub status: u16,
    /// By name, as it came; a repeated header's values are joined by ", ".
    pub headers: HashMap<String, String>,
    pub body: Vec<u8>,
}

impl Peer {
    /// Connects to `server`.
    ///
    /// # Errors
    /// If the server cannot be reached.
    pub fn connect(server: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&server, WAIT)?;
        stream.set_nodelay(true)?;
        stream.set_write_timeout(Some(WAIT))?;
        Ok(Self { address: stream.local_addr()?, stream, buffer: Vec::new() })
    }

    /// Sends what a step says. A server that has hung up shows when its answer is read, so errors
    /// are not reported here.
    pub fn send(&mut self, write: &Write) {
        let size = write.chunk.unwrap_or(write.payload.len()).max(1);
        for chunk in write.payload.chunks(size) {
            if self.stream.write_all(chunk).is_err() {
                break;
            }
            thread::sleep(write.gap);
        }
        if write.shutdown {
            self.stream.shutdown(Shutdown::Write).ok();
        }
    }

    /// Closes with RST, as a crashed client's kernel does.
    pub fn reset(self) {
        SockRef::from(&self.stream).set_linger(Some(Duration::ZERO)).ok();
    }

    /// Reads once into the buffer.
    ///
    /// # Errors
    /// [`ReadError::Silent`] or [`ReadError::Closed`] if there is nothing to read.
    pub fn fill(&mut self, wait: Duration) -> Result<(), ReadError> {
        let mut bytes = [0; 8192];
        let set = self.stream.set_read_timeout(Some(wait));
        let read = set.and_then(|()| clients::read_once(&mut self.stream, &mut bytes));
        match read {
            Ok(0) => Err(ReadError::Closed),
            Ok(n) => {
                self.buffer.extend(&bytes[..n]);
                Ok(())
            }
            Err(err) if err.kind() == io::ErrorKind::WouldBlock => Err(ReadError::Silent),
            Err(_) => Err(ReadError::Closed),
        }
    }

    /// Reads one length-prefixed payload.
    ///
    /// # Errors
    /// If it does not arrive whole.
    pub fn frame(&mut self) -> Result<Vec<u8>, ReadError> {
        let prefix = self.take(4)?;
        let length = prefix.iter().fold(0, |length, &byte| length << 8 | usize::from(byte));
        if length > MAX_FRAME {
            return unreadable(format!("frame length {length}"));
        }
        self.take(length)
    }

    /// Reads one HTTP response, an interim one (1xx) too. The answer to HEAD has no body.
    ///
    /// # Errors
    /// If it does not arrive whole, or is no HTTP.
    pub fn response(&mut self, head: bool) -> Result<Response, ReadError> {
        let start = self.line()?;
        let mut words = start.split(' ');
        let (Some(proto), Some(Ok(status))) = (words.next(), words.next().map(str::parse)) else {
            return unreadable(format!("status line {start:?}"));
        };
        let headers = self.headers()?;
        let is = |name: &str, value: &str| headers.get(name).is_some_and(|it| it.to_lowercase().contains(value));
        let body = if head || matches!(status, 100..200 | 204 | 304) {
            Vec::new()
        } else if is("Transfer-Encoding", "chunked") {
            self.chunked()?
        } else if let Some(length) = headers.get("Content-Length") {
            let Ok(length) = length.parse() else {
                return unreadable(format!("Content-Length {length:?}"));
            };
            self.take(length)?
        } else {
            self.rest()?
        };
        Ok(Response { proto: proto.to_owned(), status, headers, body })
    }

    fn headers(&mut self) -> Result<HashMap<String, String>, ReadError> {
        let mut headers: HashMap<String, String> = HashMap::new();
        loop {
            let line = self.line()?;
            if line.is_empty() {
                return Ok(headers);
            }
            let (name, value) = line.split_once(':').unwrap_or((&line, ""));
            headers
                .entry(name.trim().to_owned())
                .and_modify(|values| *values = format!("{values}, {}", value.trim()))
                .or_insert_with(|| value.trim().to_owned());
        }
    }

    fn chunked(&mut self) -> Result<Vec<u8>, ReadError> {
        let mut body = Vec::new();
        loop {
            let line = self.line()?;
            let digits = line.split(';').next().unwrap_or_default().trim();
            match usize::from_str_radix(digits, 16) {
                Ok(0) => break,
                Ok(size) => body.extend(self.take(size)?),
                Err(_) => return unreadable(format!("chunk size {line:?}")),
            }
            self.take(b"\r\n".len())?;
        }
        self.headers()?;
        Ok(body)
    }

    fn take(&mut self, n: usize) -> Result<Vec<u8>, ReadError> {
        while self.buffer.len() < n {
            self.fill(WAIT)?;
        }
        Ok(self.buffer.drain(..n).collect())
    }

    /// One line without its end, as ISO 8859-1, in which every byte is a character.
    fn line(&mut self) -> Result<String, ReadError> {
        let end = loop {
            match self.buffer.iter().position(|&byte| byte == b'\n') {
                Some(end) => break end,
                None => self.fill(WAIT)?,
            }
        };
        let line: String = self.take(end + 1)?.into_iter().map(char::from).collect();
        Ok(line.trim_end_matches(['\r', '\n']).to_owned())
    }

    /// Everything until the server closes.
    fn rest(&mut self) -> Result<Vec<u8>, ReadError> {
        loop {
            match self.fill(WAIT) {
                Ok(()) => {}
                Err(ReadError::Closed) => return Ok(std::mem::take(&mut self.buffer)),
                Err(err) => return Err(err),
            }
        }
    }
}
