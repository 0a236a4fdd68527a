//! An nsqd and an HTTP client, as small as these tests need them.

pub mod http;

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use socket2::SockRef;

#[allow(unused_imports, reason = "each test target uses a part of this module")]
pub use http::{exchange, get, get_alone, post, read_answer, request, send_get};

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

/// A connection that waits for a response for [`PATIENCE`] at most.
pub fn connect(address: SocketAddr) -> TcpStream {
    try_connect(address).expect("the server listens")
}

/// The same, to a server that may not be there.
pub fn try_connect(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// A connection that has sent something.
pub fn said(address: SocketAddr, bytes: &[u8]) -> TcpStream {
    let mut stream = connect(address);
    stream.write_all(bytes).expect("a new connection");
    stream
}

/// Ends a connection with RST instead of FIN.
pub fn reset(stream: TcpStream) {
    SockRef::from(&stream).set_linger(Some(Duration::ZERO)).expect("a socket");
    drop(stream);
}

/// A producer's connection.
pub struct Nsqd(pub TcpStream);

impl Nsqd {
    pub fn connect(address: SocketAddr) -> Self {
        Self(said(address, b"  V1"))
    }

    /// A producer that calls itself `name`, in so many bytes.
    pub fn identified(address: SocketAddr, name: &str, padding: usize) -> Self {
        Self(introduce(address, name, padding).expect("a reply"))
    }

    /// Sends a command and returns the reply to it.
    pub fn ask(&mut self, command: &[u8]) -> Vec<u8> {
        ask(&mut self.0, command).expect("a reply")
    }

    pub fn register(&mut self, topic: &str) {
        assert_eq!(self.ask(format!("REGISTER {topic}\n").as_bytes()), b"OK");
    }
}

/// What a producer that calls itself `name` sends first behind its magic, with so many bytes of a hostname.
pub fn identify(name: &str, padding: usize) -> Vec<u8> {
    let padding = "h".repeat(padding);
    identify_with(format!(
        r#"{{"broadcast_address":"{name}","hostname":"{padding}","tcp_port":1,"http_port":2,"version":"1"}}"#
    ))
}

/// IDENTIFY with any body.
pub fn identify_with(body: impl AsRef<[u8]>) -> Vec<u8> {
    [b"IDENTIFY\n", &framed(body)[..]].concat()
}

/// A response of V1, or the body of a command: its length, then itself.
pub fn framed(bytes: impl AsRef<[u8]>) -> Vec<u8> {
    let bytes = bytes.as_ref();
    let len = u32::try_from(bytes.len()).expect("some megabytes").to_be_bytes();
    [&len[..], bytes].concat()
}

/// The connection of a producer that calls itself `name`, to a server that may go away.
pub fn introduce(address: SocketAddr, name: &str, padding: usize) -> io::Result<TcpStream> {
    let mut stream = try_connect(address)?;
    let reply = ask(&mut stream, &[b"  V1", &identify(name, padding)[..]].concat())?;
    assert!(reply.starts_with(b"{"), "{}", reply.escape_ascii());
    Ok(stream)
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

/// A producer that makes the answer to `/nodes` a megabyte long.
pub fn bulky(address: SocketAddr) -> Nsqd {
    Nsqd::identified(address, "bulky", 1 << 20)
}

/// Reads to the server's FIN.
pub fn read_to_end(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut all = Vec::new();
    stream.read_to_end(&mut all).map(|_| all)
}

/// What the server sends until its FIN.
pub fn until_fin(mut stream: TcpStream) -> Vec<u8> {
    read_to_end(&mut stream).expect("a FIN, not a reset")
}

/// Reads a piece of something long and returns its length.
pub fn read_some(stream: &mut TcpStream) -> usize {
    let mut piece = [0; 16 << 10];
    let len = read_once(stream, &mut piece).expect("more of it");
    assert!(len > 0, "cut short");
    len
}
