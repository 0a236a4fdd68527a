//! HTTP requests, and responses in each of their framings.

use std::borrow::Cow;
use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;

use memchr::memmem::find;

use super::{read_once, try_connect};

pub fn request(method: &str, target: &str) -> String {
    format!("{method} {target} HTTP/1.1\r\nHost: h\r\n\r\n")
}

/// A request of a client that keeps no connections: all that the server sends until it closes.
pub fn get_alone(address: SocketAddr, target: &str) -> io::Result<String> {
    let mut stream = try_connect(address)?;
    write!(stream, "GET {target} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")?;
    let mut response = String::new();
    stream.read_to_string(&mut response)?;
    Ok(response)
}

pub fn send_get(stream: &mut impl Write, target: &str) {
    stream.write_all(request("GET", target).as_bytes()).expect("the server reads");
}

/// Sends a request on a connection that stays open, and reads the response to it, which must have a length.
pub fn get(stream: &mut (impl Read + Write), target: &str) -> String {
    exchange(stream, &request("GET", target)).expect("a response")
}

/// Does the same with POST.
pub fn post(stream: &mut (impl Read + Write), target: &str) -> String {
    exchange(stream, &request("POST", target)).expect("a response")
}

/// Does the same with any request, to a server that may go away.
pub fn exchange(stream: &mut (impl Read + Write), request: &str) -> io::Result<String> {
    stream.write_all(request.as_bytes())?;
    try_read_answer(stream)
}

/// Reads one response, which must have a length, and nothing behind it.
pub fn read_answer(stream: &mut impl Read) -> String {
    try_read_answer(stream).expect("a response")
}

pub fn try_read_answer(stream: &mut impl Read) -> io::Result<String> {
    let (mut response, mut wanted) = (Vec::new(), 1);
    while wanted > 0 {
        let from = response.len();
        response.resize(from + wanted, 0);
        let len = read_once(stream, &mut response[from..])?;
        response.truncate(from + len);
        if len == 0 {
            let why = format!("cut short: {}", response.escape_ascii());
            return Err(io::Error::new(ErrorKind::UnexpectedEof, why));
        }
        // A byte at a time until the length is known: what is behind the response is the next one's.
        wanted = missing(&response).unwrap_or(1);
    }
    // What a response before it has had too much.
    if !response.starts_with(b"HTTP/1.") {
        return Err(io::Error::new(ErrorKind::InvalidData, response.escape_ascii().to_string()));
    }
    Ok(String::from_utf8(response).expect("UTF-8"))
}

/// How many bytes a response with a length lacks; `None` while its head is not whole.
fn missing(response: &[u8]) -> Option<usize> {
    let (head, body) = split(response);
    let len: usize = str::from_utf8(header(head, "Content-Length")?).ok()?.parse().ok()?;
    len.checked_sub(body.len())
}

/// The length of the response that `bytes` begin with; `None` if it is not whole.
pub fn response_len(bytes: &[u8], head_only: bool, ended: bool) -> Option<usize> {
    let head_len = find(bytes, b"\r\n\r\n")? + 4;
    let (head, body) = bytes.split_at(head_len);
    if is_interim(head) {
        return Some(head_len + response_len(body, head_only, ended)?);
    }
    let body_len = if head_only {
        0
    } else if header(head, "Transfer-Encoding").is_some() {
        chunks(body)?.1
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

/// What the chunks of a body with an empty trailer hold, and its length; `None` if it is not whole.
fn chunks(body: &[u8]) -> Option<(Vec<&[u8]>, usize)> {
    let (mut chunks, mut at) = (Vec::new(), 0);
    loop {
        let from = at + find(&body[at..], b"\r\n")? + 2;
        let size = usize::from_str_radix(str::from_utf8(&body[at..from - 2]).ok()?, 16).ok()?;
        at = from + size + 2;
        if at > body.len() {
            return None;
        }
        chunks.push(&body[from..from + size]);
        if size == 0 {
            return Some((chunks, at));
        }
    }
}

/// Splits a response into the heads that it has, and its body without the chunks that it may have come in.
pub fn content(response: &[u8]) -> (&[u8], Cow<'_, [u8]>) {
    let (head, body) = split(response);
    let chunks = header(head, "Transfer-Encoding").and_then(|_| chunks(body));
    let whole = chunks.filter(|(_, len)| *len == body.len());
    (head, whole.map_or(body.into(), |(chunks, _)| chunks.concat().into()))
}

/// Splits a response into the heads that it has and all that is behind them; no head while none is whole.
pub fn split(response: &[u8]) -> (&[u8], &[u8]) {
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
