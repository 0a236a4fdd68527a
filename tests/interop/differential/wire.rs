//! A client's connection to one server: bytes out, raw replies in.

use std::collections::VecDeque;
use std::fmt::{self, Display, Formatter};
use std::io::{self, ErrorKind, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use socket2::{Domain, Socket, Type};

use crate::support::clients::http::{header, response_len, split};
use crate::support::clients::{read_once, reset};

/// How long a reply that is due may take.
const WAIT: Duration = Duration::from_secs(10);

/// What a server did, as its client saw it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Reply {
    /// A frame of the V1 protocol, its length included.
    Frame(Vec<u8>),
    /// An HTTP response: interim responses, head and body.
    Response(Vec<u8>),
    /// The server closed the connection by FIN, after bytes that are neither.
    End(Vec<u8>),
    /// By RST.
    Reset(Vec<u8>),
    /// Nothing more came within [`WAIT`] after such bytes.
    Silence(Vec<u8>),
}

impl Reply {
    pub fn is_end(&self) -> bool {
        matches!(self, Self::End(_) | Self::Reset(_))
    }
}

impl Display for Reply {
    fn fmt(&self, out: &mut Formatter<'_>) -> fmt::Result {
        let (kind, bytes) = match self {
            Self::Frame(bytes) => ("frame", bytes),
            Self::Response(bytes) => ("response", bytes),
            Self::End(bytes) => ("end", bytes),
            Self::Reset(bytes) => ("reset", bytes),
            Self::Silence(bytes) => ("silence", bytes),
        };
        write!(out, "{kind} \"{}\"", bytes.escape_ascii())
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Protocol {
    V1,
    Http,
}

pub struct Connection {
    protocol: Protocol,
    stream: TcpStream,
    buffer: Vec<u8>,
    /// How the server has closed: by FIN, which is an unexpected end of file, or by RST.
    ended: Option<ErrorKind>,
    /// Whether each request that is not answered yet was HEAD, whose response has no body.
    heads: VecDeque<bool>,
}

impl Connection {
    /// Connects from `local`, which other connections to other servers may share.
    pub fn open(protocol: Protocol, local: SocketAddr, server: SocketAddr) -> io::Result<Self> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        socket.bind(&local.into())?;
        socket.connect(&server.into())?;
        socket.set_tcp_nodelay(true)?;
        let stream = TcpStream::from(socket);
        stream.set_read_timeout(Some(WAIT))?;
        stream.set_write_timeout(Some(WAIT))?;
        Ok(Self { protocol, stream, buffer: Vec::new(), ended: None, heads: VecDeque::new() })
    }

    /// Errors are not reported here: a server that has closed is noticed when its reply is read.
    pub fn send(&mut self, pieces: &[Vec<u8>], heads: &[bool]) {
        self.heads.extend(heads);
        let _ = pieces.iter().try_for_each(|piece| self.stream.write_all(piece));
    }

    /// Ends what the client sends; the server may still reply.
    pub fn finish(&mut self) {
        let _ = self.stream.shutdown(Shutdown::Write);
    }

    /// Closes by RST, as the kernel of a client that crashed does.
    pub fn reset(self) {
        reset(self.stream);
    }

    /// Reads `count` replies, and the end of the connection if the server closes it or says that it will.
    pub fn replies(&mut self, count: usize) -> Vec<Reply> {
        let mut replies = Vec::new();
        loop {
            let is_last = replies.last().is_some_and(closes);
            if replies.len() >= count && !is_last {
                return replies;
            }
            if let Some(reply) = self.take() {
                replies.push(reply);
                continue;
            }
            match self.fill() {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    replies.push(Reply::Silence(std::mem::take(&mut self.buffer)));
                    return replies;
                }
                Err(error) if self.ended.is_none() => self.ended = Some(error.kind()),
                Err(_) => {
                    let rest = std::mem::take(&mut self.buffer);
                    let by_fin = self.ended == Some(ErrorKind::UnexpectedEof);
                    replies.push(if by_fin { Reply::End(rest) } else { Reply::Reset(rest) });
                    return replies;
                }
            }
        }
    }

    fn fill(&mut self) -> io::Result<()> {
        let mut bytes = [0; 16 << 10];
        let len = if self.ended.is_some() { 0 } else { read_once(&mut self.stream, &mut bytes)? };
        self.buffer.extend(&bytes[..len]);
        if len == 0 { Err(ErrorKind::UnexpectedEof.into()) } else { Ok(()) }
    }

    /// Takes a whole reply out of the buffer.
    fn take(&mut self) -> Option<Reply> {
        match self.protocol {
            Protocol::V1 => {
                let prefix = *self.buffer.first_chunk::<4>()?;
                let len = 4 + u32::from_be_bytes(prefix) as usize;
                (len <= self.buffer.len()).then(|| Reply::Frame(self.buffer.drain(..len).collect()))
            }
            Protocol::Http => {
                let head = self.heads.front().copied().unwrap_or(false);
                let len = response_len(&self.buffer, head, self.ended.is_some())?;
                self.heads.pop_front();
                Some(Reply::Response(self.buffer.drain(..len).collect()))
            }
        }
    }
}

/// Whether the server says that it closes after this reply. Each error of the V1 protocol is fatal.
fn closes(reply: &Reply) -> bool {
    let bytes = match reply {
        Reply::Frame(bytes) => return bytes[4..].starts_with(b"E_"),
        Reply::Response(bytes) => bytes,
        Reply::End(_) | Reply::Reset(_) | Reply::Silence(_) => return true,
    };
    let (head, _) = split(bytes);
    match header(head, "Connection") {
        Some(value) => value.eq_ignore_ascii_case(b"close"),
        None => head.starts_with(b"HTTP/1.0"),
    }
}
