//! An nsqd and an HTTP client, as small as these tests need them.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};

use super::PATIENCE;

pub const OK: &[u8] = b"\0\0\0\x02OK";

/// Makes a system call again that a signal has interrupted. On a socket with a timeout the kernel does not do that by
/// itself, not even after SIGSTOP and SIGCONT and where no handler ran (signal(7)); `read_exact` and `write_all` do.
pub fn uninterrupted<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

/// Reads once.
#[expect(clippy::disallowed_methods, reason = "it is made again")]
pub fn read_once(stream: &mut impl Read, piece: &mut [u8]) -> io::Result<usize> {
    uninterrupted(|| stream.read(piece))
}

/// Waits for the first byte of an answer, and leaves it where it is.
#[expect(clippy::disallowed_methods, reason = "it is made again")]
pub fn wait_for_answer(stream: &TcpStream) {
    uninterrupted(|| stream.peek(&mut [0])).expect("an answer begins");
}

/// A connection that waits for an answer for [`PATIENCE`] at most.
pub fn connect(address: SocketAddr) -> TcpStream {
    try_connect(address).expect("the server listens")
}

/// The same to a server that may be gone.
pub fn try_connect(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// A producer's connection.
pub struct Nsqd(pub TcpStream);

impl Nsqd {
    pub fn connect(address: SocketAddr) -> Self {
        let mut stream = connect(address);
        stream.write_all(b"  V1").expect("a new connection");
        Self(stream)
    }

    /// A producer that calls itself `name`, in so many bytes.
    pub fn identified(address: SocketAddr, name: &str, padding: usize) -> Self {
        let mut nsqd = Self::connect(address);
        let reply = nsqd.ask(&identify(name, padding));
        assert!(reply.starts_with(b"{"), "{}", reply.escape_ascii());
        nsqd
    }

    /// Sends a command and returns the reply to it.
    pub fn ask(&mut self, command: &[u8]) -> Vec<u8> {
        ask(&mut self.0, command).expect("a reply")
    }

    pub fn register(&mut self, topic: &str) {
        assert_eq!(self.ask(format!("REGISTER {topic}\n").as_bytes()), b"OK");
    }
}

/// What a producer that calls itself `name` says first behind its magic, with so many bytes of a hostname.
pub fn identify(name: &str, padding: usize) -> Vec<u8> {
    let padding = "h".repeat(padding);
    let body = format!(
        r#"{{"broadcast_address":"{name}","hostname":"{padding}","tcp_port":1,"http_port":2,"version":"1"}}"#
    );
    let len = u32::try_from(body.len()).expect("some megabytes").to_be_bytes();
    [b"IDENTIFY\n", &len[..], body.as_bytes()].concat()
}

/// Sends a command of nsqd to a server that may go away, and returns the reply to it.
pub fn ask(stream: &mut TcpStream, command: &[u8]) -> io::Result<Vec<u8>> {
    stream.write_all(command)?;
    let mut len = [0; 4];
    stream.read_exact(&mut len)?;
    let mut reply = vec![0; u32::from_be_bytes(len) as usize];
    stream.read_exact(&mut reply)?;
    Ok(reply)
}

/// Asks who has a topic. `None` from a server that is gone before it has given all of the answer.
pub fn look_up(client: &mut TcpStream, topic: &str) -> Option<String> {
    let answer = try_get(client, &format!("/lookup?topic={topic}")).ok()?;
    Some(String::from_utf8(answer).expect("JSON"))
}

/// Asks a server that may go away, on a connection that stays open; the answer must have a length.
pub fn try_get(stream: &mut (impl Read + Write), target: &str) -> io::Result<Vec<u8>> {
    stream.write_all(format!("GET {target} HTTP/1.1\r\nHost: h\r\n\r\n").as_bytes())?;
    let (mut answer, mut piece) = (Vec::new(), [0; 4096]);
    while missing(&answer) != Some(0) {
        let len = read_once(stream, &mut piece)?;
        if len == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        answer.extend(&piece[..len]);
    }
    Ok(answer)
}

/// A producer that makes the answer to `/nodes` a megabyte long.
pub fn bulky(address: SocketAddr) -> Nsqd {
    Nsqd::identified(address, "bulky", 1 << 20)
}

pub fn send_get(stream: &mut TcpStream, target: &str) {
    let request = format!("GET {target} HTTP/1.1\r\nHost: h\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("the server reads");
}

/// Asks on a connection that stays open; the answer must have a length.
pub fn get(stream: &mut TcpStream, target: &str) -> String {
    send_get(stream, target);
    read_answer(stream)
}

/// Reads one answer, which must have a length, and nothing behind it.
pub fn read_answer(stream: &mut TcpStream) -> String {
    let (mut answer, mut wanted) = (Vec::new(), 1);
    while wanted > 0 {
        let from = answer.len();
        answer.resize(from + wanted, 0);
        let len = read_once(stream, &mut answer[from..]).expect("an answer");
        assert!(len > 0, "cut short: {}", answer.escape_ascii());
        answer.truncate(from + len);
        // A byte at a time until the length is known: what is behind the answer is the next one's.
        wanted = missing(&answer).unwrap_or(1);
    }
    String::from_utf8(answer).expect("JSON")
}

/// Reads to the server's FIN.
pub fn read_to_end(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut all = Vec::new();
    stream.read_to_end(&mut all).map(|_| all)
}

/// How many bytes an answer lacks; `None` while nobody can tell. A proxy may write names of headers in lower case.
pub fn missing(answer: &[u8]) -> Option<usize> {
    let head_len = memchr::memmem::find(answer, b"\r\n\r\n")? + 4;
    let head = str::from_utf8(&answer[..head_len]).expect("ASCII").to_lowercase();
    let (_, after) = head.split_once("content-length: ")?;
    let len: usize = after.lines().next()?.parse().expect("a number");
    (head_len + len).checked_sub(answer.len())
}

/// Reads a piece of something long and returns its length.
pub fn read_some(stream: &mut TcpStream) -> usize {
    let mut piece = [0; 16 << 10];
    let len = read_once(stream, &mut piece).expect("more of it");
    assert!(len > 0, "cut short");
    len
}
