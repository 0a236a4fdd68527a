//! A client's connection to one server: bytes out, raw replies in.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::fmt::{self, Display, Formatter};
use std::io::{self, ErrorKind, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

use memchr::memmem::find;
use socket2::{Domain, SockRef, Socket, Type};

use crate::support::clients::read_once;

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
        let _ = SockRef::from(&self.stream).set_linger(Some(Duration::ZERO));
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

/// The length of the response that `bytes` begin with; `None` if it is not whole.
fn response_len(bytes: &[u8], head_only: bool, ended: bool) -> Option<usize> {
    let head_len = find(bytes, b"\r\n\r\n")? + 4;
    let (head, body) = bytes.split_at(head_len);
    if is_interim(head) {
        return Some(head_len + response_len(body, head_only, ended)?);
    }
    let body_len = if head_only {
        0
    } else if header(head, "Transfer-Encoding").is_some() {
        chunked_len(body)?
    } else if let Some(length) = header(head, "Content-Length") {
        str::from_utf8(length).ok()?.parse().ok()?
    } else if ended {
        body.len()
    } else {
        return None;
    };
    (body_len <= body.len()).then_some(head_len + body_len)
}

/// Whether it is the head of a 100 Continue or the like, which another head follows.
fn is_interim(head: &[u8]) -> bool {
    head.get(b"HTTP/1.1 ".len()) == Some(&b'1')
}

/// The length of a chunked body whose trailer is empty.
fn chunked_len(body: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        let digits = find(&body[at..], b"\r\n")?;
        let size = usize::from_str_radix(str::from_utf8(&body[at..at + digits]).ok()?, 16).ok()?;
        at += digits + 2 + size + 2;
        if at > body.len() {
            return None;
        }
        if size == 0 {
            return Some(at);
        }
    }
}

/// Splits a response into the heads that it has, and its body without the chunks that it may have come in.
pub fn content(response: &[u8]) -> (&[u8], Cow<'_, [u8]>) {
    let (head, body) = split(response);
    let unchunked = header(head, "Transfer-Encoding").and_then(|_| unchunk(body));
    (head, unchunked.map_or(body.into(), Cow::from))
}

fn unchunk(body: &[u8]) -> Option<Vec<u8>> {
    let (mut content, mut rest) = (Vec::new(), body);
    loop {
        let digits = find(rest, b"\r\n")?;
        let size = usize::from_str_radix(str::from_utf8(&rest[..digits]).ok()?, 16).ok()?;
        content.extend(rest.get(digits + 2..digits + 2 + size)?);
        rest = rest.get(digits + 2 + size + 2..)?;
        if size == 0 {
            return rest.is_empty().then_some(content);
        }
    }
}

fn split(response: &[u8]) -> (&[u8], &[u8]) {
    let mut len = 0;
    while let Some(end) = find(&response[len..], b"\r\n\r\n") {
        let from = len;
        len += end + 4;
        if !is_interim(&response[from..]) {
            break;
        }
    }
    response.split_at(len)
}

/// The value of a header of a head as Go writes it.
pub fn header<'a>(head: &'a [u8], name: &str) -> Option<&'a [u8]> {
    head.split(|&byte| byte == b'\n').find_map(|line| {
        let (found, value) = line.split_at_checked(name.len())?;
        let value = value.strip_prefix(b":")?;
        found.eq_ignore_ascii_case(name.as_bytes()).then(|| value.trim_ascii())
    })
}
