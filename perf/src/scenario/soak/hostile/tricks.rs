//! What hostile peers send, a row each.

use rand::RngExt;
use rand::rngs::SmallRng;

/// What has no end is cut here, far above any limit of a line.
const ENDLESS: usize = 1 << 20;
/// Answers that nobody reads, many times a socket's buffers.
const DEAF_REQUESTS: usize = 500;
const JSON_DEPTH: usize = 20_000;

/// One way to misbehave.
pub struct Trick {
    pub is_http: bool,
    pub bytes: fn(&mut SmallRng) -> Vec<u8>,
    pub reading: Reading,
    pub ending: Ending,
}

/// How a peer goes about it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Reading {
    /// Reads whatever comes.
    All,
    Never,
    /// Reads, and sends one byte at a time.
    ByteByByte,
    /// Neither: connects many times and leaves.
    Flood,
}

/// How a connection ends.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    Close,
    /// Its own direction first, while it still listens.
    HalfClose,
    Reset,
}

use Ending::{Close, HalfClose, Reset};
use Reading::{All, ByteByByte, Flood, Never};

pub const TRICKS: &[Trick] = &[
    // Magic.
    v1(|random| b"  V"[..random.random_range(0..=3)].to_vec(), All, Close),
    v1(|_| b"  V9".to_vec(), All, Close),
    v1(|_| b"\x1b[2J\r\n".to_vec(), All, Close),
    v1(|_| b"GET /ping HTTP/1.1\r\nHost: a\r\n\r\n".to_vec(), All, Close),
    // Lengths of IDENTIFY: -1, the smallest, the largest, and one that is not kept.
    v1(|_| b"  V1IDENTIFY\n\xff\xff\xff\xff".to_vec(), All, Close),
    v1(|_| b"  V1IDENTIFY\n\x80\0\0\0".to_vec(), All, Close),
    v1(|_| b"  V1IDENTIFY\n\x7f\xff\xff\xff".to_vec(), All, Close),
    v1(|_| b"  V1IDENTIFY\n\0\0\0\x40{".to_vec(), All, HalfClose),
    // Bodies of IDENTIFY.
    v1(|_| identify(&[b'['; JSON_DEPTH]), All, Close),
    v1(|_| identify(format!("{{\"tcp_port\":{}}}", "9".repeat(JSON_DEPTH)).as_bytes()), All, Close),
    v1(|_| identify(&[b"{\"hostname\":\"".as_slice(), &[b'a'; ENDLESS]].concat()), All, Close),
    v1(garbage_identify, All, Reset),
    // Lines.
    v1(|_| [b"  V1".as_slice(), &[b'x'; ENDLESS]].concat(), All, Close),
    v1(|_| [b"  V1REGISTER ".as_slice(), &[b'\n'; ENDLESS / 64]].concat(), All, Reset),
    v1(|_| b"  V1REGISTER a\0b \xff\xfe\nREGISTER \x1b[31m\r\nUNREGISTER *\n".to_vec(), All, Close),
    v1(|_| b"  V1PING\nPING\nPING\nNOTHING\n".to_vec(), ByteByByte, Close),
    // Replies that are not taken, or are taken by nobody.
    v1(|_| [b"  V1".as_slice(), &b"PING\n".repeat(ENDLESS / 5)].concat(), Never, Close),
    v1(|_| [b"  V1".as_slice(), &b"PING\n".repeat(ENDLESS / 5)].concat(), All, Close),
    v1(|_| b"  V1PING\n".to_vec(), All, HalfClose),
    v1(|_| [b"  V1".as_slice(), &b"PING\n".repeat(1_000)].concat(), Never, Reset),
    v1(|_| Vec::new(), Flood, Close),
    v1(|_| Vec::new(), Flood, Reset),
    // Requests without an end.
    http(|_| b"GET /lookup?topic=".iter().chain(&[b'x'; ENDLESS]).copied().collect(), All, Close),
    http(|_| head(&format!("A: {}", "x".repeat(ENDLESS))), All, Close),
    http(|_| head(&"A: b\r\n".repeat(ENDLESS / 6)), All, Close),
    http(|_| [head("Content-Length: 1099511627776\r\n\r\n"), vec![b'x'; ENDLESS]].concat(), All, Close),
    http(|_| [chunked(), b"1\r\nx\r\n".repeat(ENDLESS / 6)].concat(), All, Reset),
    http(|_| b"GET /ping HT".to_vec(), All, Close),
    http(|_| head("Host: a\r\n\r\n"), ByteByByte, Close),
    http(|_| head("Host: a\r\n"), All, HalfClose),
    // Requests that two readers would read in two ways.
    http(|_| head("Content-Length: 1\r\nContent-Length: 2\r\n\r\nab"), All, Close),
    http(|_| head("Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"), All, Close),
    http(|_| [chunked(), b"ffffffffffffffffff\r\n".to_vec()].concat(), All, Close),
    http(|_| head("Content-Length: -1\r\n\r\n"), All, Close),
    http(|_| head("A: b\r\n c\r\n\r\n"), All, Close),
    http(|_| head("A\0: b\r\n\r\n"), All, Close),
    http(|_| b"GET /ping HTTP/1.1\nHost: a\rb: c\n\n".to_vec(), All, Close),
    http(garbage, All, Reset),
    // Answers that are not taken.
    http(|_| head("Host: a\r\n\r\n").repeat(DEAF_REQUESTS), Never, Close),
    http(|_| head("Host: a\r\n\r\n").repeat(DEAF_REQUESTS), Never, Reset),
    http(|_| head("Host: a\r\n\r\n").repeat(3), All, HalfClose),
    http(|_| Vec::new(), Flood, Close),
    http(|_| Vec::new(), Flood, Reset),
];

const fn v1(bytes: fn(&mut SmallRng) -> Vec<u8>, reading: Reading, ending: Ending) -> Trick {
    Trick { is_http: false, bytes, reading, ending }
}

const fn http(bytes: fn(&mut SmallRng) -> Vec<u8>, reading: Reading, ending: Ending) -> Trick {
    Trick { is_http: true, bytes, reading, ending }
}

/// A request for a large answer, which changes nothing; the fields end with an empty line, or not.
fn head(fields: &str) -> Vec<u8> {
    format!("GET /debug HTTP/1.1\r\n{fields}").into_bytes()
}

fn chunked() -> Vec<u8> {
    head("Transfer-Encoding: chunked\r\n\r\n")
}

fn identify(body: &[u8]) -> Vec<u8> {
    let size = u32::try_from(body.len()).expect("a body is a megabyte at most");
    [b"  V1IDENTIFY\n".as_slice(), &size.to_be_bytes(), body].concat()
}

fn garbage(random: &mut SmallRng) -> Vec<u8> {
    (0..random.random_range(1..4_096)).map(|_| random.random()).collect()
}

fn garbage_identify(random: &mut SmallRng) -> Vec<u8> {
    identify(&garbage(random))
}
