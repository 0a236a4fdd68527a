//! Request heads, judged as Go's `net/http` server judges them.
//!
//! A head is looked at when its blank line has arrived; [`HeadScan`] remembers where the search for
//! it stopped, so that a head that comes byte by byte is still searched once. `httparse` reads it.
//! What `httparse` refuses, or has more than `FAST_HEADERS` headers, is read again line by line,
//! because stock takes more than `httparse` does: folded header lines, HTTP/1.2 to 1.9, a target
//! that is not UTF-8; and because it answers a space before a colon with a text of its own.
//! Whatever `httparse` accepts, the careful reading accepts with the same result.
//!
//! One difference from stock: a malformed header line is refused when the head is complete, not
//! when the line is (a malformed request line is refused at once, as there).

use std::mem::MaybeUninit;

use memchr::{memchr, memchr_iter};

use super::fields::{Fields, Lone, is_token_byte, trim};
use super::head::{Body, Expect, Head, Persistence, Refusal, Version};
use super::target::Url;
use crate::limits::HTTP_HEAD_BYTES_MAX;

/// Headers that `httparse` is given room for: 2 KiB of stack, and more than any client of
/// nsqlookupd sends.
const FAST_HEADERS: usize = 64;

/// Bytes that must be there before a request after the first is looked at; stock: `bufr.Peek(4)` in
/// `conn.serve`.
const PEEK: usize = 4;

/// How far the head of one request has been searched for its end.
#[derive(Debug, Clone)]
pub struct HeadScan {
    /// Where the head starts, once that is known.
    start: Option<usize>,
    /// After a POST, up to [`PEEK`] CR and LF are skipped, for clients that end its body with them
    /// (RFC 9112, 2.2).
    after_post: bool,
    line_start: usize,
    searched: usize,
    request_line_passed: bool,
}

impl HeadScan {
    /// For the first request on a connection.
    #[must_use]
    pub fn first() -> Self {
        Self { start: Some(0), after_post: false, line_start: 0, searched: 0, request_line_passed: false }
    }

    /// For the request that follows one with this method.
    #[must_use]
    pub fn after(method: &str) -> Self {
        Self { start: None, after_post: method == "POST", ..Self::first() }
    }

    /// What to answer when the client has sent FIN and `partial` is all there is, none of it a
    /// complete head: nothing, unless a head has begun.
    #[must_use]
    pub fn refusal_at_eof(&self, partial: &[u8]) -> Option<Refusal> {
        let start = self.start_in(partial)?;
        (partial.len() > start).then_some(Refusal::BadRequest)
    }

    fn start_in(&self, input: &[u8]) -> Option<usize> {
        let skipped = || {
            let peek = input.get(..PEEK)?;
            let newlines = || peek.iter().take_while(|&b| b"\r\n".contains(b));
            Some(if self.after_post { newlines().count() } else { 0 })
        };
        self.start.or_else(skipped)
    }

    /// The end of the head: behind its blank line.
    fn find_end(&mut self, input: &[u8]) -> Option<usize> {
        let unsearched = self.searched;
        for newline in memchr_iter(b'\n', &input[unsearched..]) {
            let end = unsearched + newline;
            let line = &input[self.line_start..end];
            self.line_start = end + 1;
            if matches!(line, b"" | b"\r") {
                self.searched = end + 1;
                return Some(end + 1);
            }
        }
        self.searched = input.len();
        None
    }
}

/// What the bytes of a connection hold.
#[derive(Debug, PartialEq, Eq)]
pub enum Parsed<'a> {
    /// No complete head yet.
    NeedMore,
    /// A head.
    Request {
        /// The head.
        head: Head<'a>,
        /// Bytes of input up to the body or the next head.
        used: usize,
    },
    /// A refusal to answer with; nothing after it matters.
    Refused(Refusal),
}

/// Parses the head that `input` starts with. After [`Parsed::NeedMore`] it is called again with the
/// same bytes and more behind them, and the same `scan`; the next request needs
/// [`HeadScan::after`].
pub fn parse_head<'a>(input: &'a [u8], scan: &mut HeadScan) -> Parsed<'a> {
    let Some(start) = scan.start_in(input) else {
        return Parsed::NeedMore;
    };
    if scan.start.replace(start).is_none() {
        (scan.line_start, scan.searched) = (start, start);
    }
    match scan.find_end(input) {
        Some(used) if used <= HTTP_HEAD_BYTES_MAX => match parse_complete(&input[start..used]) {
            Ok(head) => Parsed::Request { head, used },
            Err(refusal) => Parsed::Refused(refusal),
        },
        _ => judge_unfinished(&input[start..], start, scan),
    }
}

fn judge_unfinished<'a>(partial: &[u8], start: usize, scan: &mut HeadScan) -> Parsed<'a> {
    if !scan.request_line_passed
        && scan.line_start > start
        && let Some(end) = memchr(b'\n', partial).filter(|&end| end < HTTP_HEAD_BYTES_MAX)
    {
        if let Err(refusal) = parse_request_line(without_cr(&partial[..end])).and_then(|line| line.url()) {
            return Parsed::Refused(refusal);
        }
        scan.request_line_passed = true;
    }
    if partial.len() >= HTTP_HEAD_BYTES_MAX {
        return Parsed::Refused(Refusal::HeadTooLarge);
    }
    Parsed::NeedMore
}

fn parse_complete(head: &[u8]) -> Result<Head<'_>, Refusal> {
    let (line, fields) = match parse_fast(head) {
        Some(parsed) => parsed,
        None => parse_careful(head)?,
    };
    judge(&line, &fields)
}

fn parse_fast(head: &[u8]) -> Option<(RequestLine<'_>, Fields)> {
    // Blank lines ahead of a request pass with httparse, not with stock.
    if matches!(head[0], b'\r' | b'\n') {
        return None;
    }
    let mut headers = [const { MaybeUninit::uninit() }; FAST_HEADERS];
    let mut request = httparse::Request::new(&mut []);
    request.parse_with_uninit_headers(head, &mut headers).ok().filter(httparse::Status::is_complete)?;
    let line =
        RequestLine { method: request.method?, target: request.path?.as_bytes(), version: (1, request.version?) };
    let mut fields = Fields::default();
    for header in request.headers.iter() {
        fields.add(header.name.as_bytes(), header.value);
    }
    Some((line, fields))
}

/// Stock: `textproto.Reader.ReadMIMEHeader`.
fn parse_careful(head: &[u8]) -> Result<(RequestLine<'_>, Fields), Refusal> {
    let mut lines = head.split(|&b| b == b'\n').map(without_cr).peekable();
    let line = parse_request_line(lines.next().unwrap_or_default())?;
    let mut fields = Fields::default();
    let mut unfolded = Vec::new();
    while let Some(first) = lines.next().filter(|line| !line.is_empty()) {
        // Only a first header line can be seen here with a space ahead; others continue the line
        // above.
        if is_continuation(first) || memchr(b':', first).is_none() {
            return Err(Refusal::BadRequest);
        }
        unfolded.clear();
        unfolded.extend(trim(first));
        while let Some(more) = lines.next_if(|line| is_continuation(line)) {
            unfolded.push(b' ');
            unfolded.extend(trim(more));
        }
        fields.add_line(&unfolded)?;
    }
    Ok((line, fields))
}

struct RequestLine<'a> {
    method: &'a str,
    target: &'a [u8],
    version: (u8, u8),
}

impl<'a> RequestLine<'a> {
    fn url(&self) -> Result<Url<'a>, Refusal> {
        Url::parse(self.method, self.target).map_err(|_| Refusal::BadRequest)
    }
}

fn parse_request_line(line: &[u8]) -> Result<RequestLine<'_>, Refusal> {
    let parse = || {
        let mut parts = line.splitn(3, |&b| b == b' ');
        let method = parts.next().filter(|method| is_token(method))?;
        let target = parts.next()?;
        let &[b'H', b'T', b'T', b'P', b'/', major, b'.', minor] = parts.next()? else {
            return None;
        };
        let digit = |b: u8| b.is_ascii_digit().then(|| b - b'0');
        Some(RequestLine { method: str::from_utf8(method).ok()?, target, version: (digit(major)?, digit(minor)?) })
    };
    parse().ok_or(Refusal::BadRequest)
}

/// Puts the findings together in stock's order: `readRequest`, `readTransfer`, then
/// `conn.readRequest`.
fn judge<'a>(line: &RequestLine<'a>, fields: &Fields) -> Result<Head<'a>, Refusal> {
    let url = line.url()?;
    if fields.host == Lone::Repeated {
        return Err(Refusal::BadRequest);
    }
    let body = fields.body(line.version)?;

    // The preface of HTTP/2, which stock takes for a request, and closes if it is really one.
    let preface = line.method == "PRI" && line.target == b"*" && line.version == (2, 0);
    let upgrade = preface && fields.count == 0;
    if line.version.0 != 1 && !preface {
        return Err(Refusal::UnsupportedVersion);
    }
    let since_11 = line.version >= (1, 1);
    match fields.host {
        Lone::Absent if since_11 && line.method != "CONNECT" && !upgrade => {
            return Err(Refusal::MissingHost);
        }
        Lone::Invalid => return Err(Refusal::MalformedHost),
        _ => {}
    }
    if fields.invalid_name {
        return Err(Refusal::InvalidHeaderName);
    }
    let persistence = match fields.connection {
        Some(connection) if !since_11 && connection.keep_alive_10 => Persistence::KeepAlive10,
        Some(connection) if connection.close => Persistence::Close,
        _ if !since_11 || upgrade => Persistence::Close,
        _ => Persistence::KeepAlive,
    };
    let expect = match fields.expect {
        Some(Expect::Continue) if !since_11 || body == Body::None => Expect::None,
        expect => expect.unwrap_or(Expect::None),
    };
    Ok(Head {
        method: line.method,
        target: line.target,
        url,
        version: if since_11 { Version::Http11 } else { Version::Http10 },
        persistence,
        body,
        expect,
    })
}

fn without_cr(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\r").unwrap_or(line)
}

fn is_continuation(line: &[u8]) -> bool {
    matches!(line, [b' ' | b'\t', ..])
}

fn is_token(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(|&b| is_token_byte(b))
}

#[cfg(test)]
mod tests;
