//! Request heads, read as Go's `net/http` server reads them.
//!
//! A head that arrives whole, as nearly all do, is read by `httparse`, which finds its end on the way. For
//! one in pieces the [`HeadReader`] remembers where the search for its blank line stopped, so that a head
//! that comes byte by byte is still searched once, and read when it is whole. What `httparse` refuses, or has
//! more than `FAST_HEADERS` headers, is read again line by line, because stock takes more than `httparse`
//! does: folded header lines, HTTP/1.2 to 1.9, a target that is not UTF-8; and because it answers a space
//! before a colon with a text of its own. Whatever `httparse` accepts, the careful reading accepts with the
//! same result.
//!
//! A client that keeps its connection repeats its header lines to the byte. The reader remembers those of
//! the last request and what they said, and a request with the same has only its first line read: a third of
//! what reading go-nsq's head takes.
//!
//! One difference from stock: a malformed header line is refused when the head is complete, not
//! when the line is (a malformed request line is refused at once, as there).

use std::mem::MaybeUninit;
use std::ops::Range;

use memchr::{memchr, memchr_iter, memmem};

use super::head::{Accepts, Body, Expect, Head, Persistence, Refusal, Values, Version};
use super::headers::{Headers, SingleHeader, is_token_byte, trim};
use super::target::{Url, cut};
use crate::limits::{HTTP_KNOWN_FIELDS_BYTES_MAX, Limit, Limits};

/// Headers that `httparse` is given room for: 2 KiB of stack, and more than any client of
/// nsqlookupd sends.
const FAST_HEADERS: usize = 64;

/// Bytes that must be there before a request after the first is looked at; stock: `bufr.Peek(4)` in
/// `conn.serve`.
const PEEK: usize = 4;

/// Reads the heads of a connection's requests, one after the other.
#[derive(Default)]
pub struct HeadReader {
    scan: Scan,
    known: KnownFields,
}

/// How far the head of one request has been searched for its end.
#[derive(Default)]
struct Scan {
    /// Where the head starts, once that is known.
    start: Option<usize>,
    /// What the start depends on.
    before: Before,
    line_start: usize,
    searched: usize,
    request_line_passed: bool,
}

/// What stands before a head.
#[derive(Default, Clone, Copy, PartialEq, Eq)]
enum Before {
    #[default]
    Nothing,
    /// [`PEEK`] bytes must be there.
    Request,
    /// Of these, CR and LF are skipped, for clients that end a body with them (RFC 9112, 2.2).
    Post,
}

/// Header lines up to the blank one, and what they say of a request over HTTP/1.1. No lines: none are known.
#[derive(Default)]
struct KnownFields {
    lines: Vec<u8>,
    info: MessageInfo,
    /// Where in the lines the values are, in the order of [`Values::map`].
    places: [Option<Range<usize>>; 3],
}

/// The buffer through which Go's server reads a connection (`newBufioReader` in net/http).
const GO_READER_BYTES: usize = 4096;

impl HeadReader {
    /// Makes ready for the request that follows one with this method.
    pub fn next(&mut self, method: &str) {
        let before = if method == "POST" { Before::Post } else { Before::Request };
        self.scan = Scan { before, ..Scan::default() };
    }

    /// What to answer when the client has sent FIN and `partial` is all there is, none of it a
    /// complete head: nothing, unless a head has begun.
    #[must_use]
    pub fn refusal_at_eof(&self, partial: &[u8]) -> Option<Refusal> {
        let begun = &partial[self.scan.start_in(partial)?..];
        // Go reads the first line in pieces of its buffer's size, and a FIN between two is no error to it.
        let between_pieces = begun.len().is_multiple_of(GO_READER_BYTES) && memchr(b'\n', begun).is_none();
        (!between_pieces).then_some(Refusal::BadRequest)
    }

    /// Parses the head that `input` starts with. After [`Parsed::NeedMore`] it is called again with the same
    /// bytes and more behind them; before the next request [`HeadReader::next`] is.
    pub fn read<'a>(&mut self, input: &'a [u8], limits: HeadLimits) -> Parsed<'a> {
        let Some(start) = self.scan.begin(input) else {
            return Parsed::NeedMore;
        };
        let rest = &input[start..];
        // Nearly all are all there at the first look.
        if self.scan.searched == start {
            if let Some((line, len)) = self.known.find(rest)
                && start + len <= limits.bytes
            {
                return match line.url() {
                    Ok(url) => {
                        let head = line.head(url, self.known.info, self.known.values(&rest[..len]));
                        Parsed::Request { head, used: start + len }
                    }
                    Err(refusal) => Parsed::Refused(refusal),
                };
            }
            if let Some((line, headers, len)) = parse_fast(rest).filter(|(_, _, len)| start + len <= limits.bytes)
            {
                let validated = validate_head(&line, &headers, limits.headers);
                if let Ok((_, info)) = validated {
                    self.known.learn(&line, &rest[..len], info, headers.values());
                }
                let head = validated.map(|(url, info)| line.head(url, info, headers.values()));
                return parsed(head, start + len);
            }
        }
        match self.scan.find_end(input) {
            Some(used) if used <= limits.bytes => parsed(read_again(&input[start..used], limits), used),
            _ => check_unfinished(rest, start, &mut self.scan, limits.bytes),
        }
    }
}

fn parsed(head: Result<Head<'_>, Refusal>, used: usize) -> Parsed<'_> {
    match head {
        Ok(head) => Parsed::Request { head, used },
        Err(refusal) => Parsed::Refused(refusal),
    }
}

impl KnownFields {
    /// The request line of a head that has these header lines, and its length.
    #[inline]
    fn find<'a>(&self, input: &'a [u8]) -> Option<(RequestLine<'a>, usize)> {
        let first_line = memchr(b'\n', input)? + 1;
        if self.lines.is_empty() || !input[first_line..].starts_with(&self.lines) {
            return None;
        }
        let line = without_newline(&input[..first_line]);
        let line =
            RequestLine::usual(line).or_else(|| parse_request_line(line).ok().filter(RequestLine::is_usual))?;
        Some((line, first_line + self.lines.len()))
    }

    /// Too many lines, and what is no usual request's, are not remembered.
    fn learn(&mut self, line: &RequestLine<'_>, head: &[u8], info: MessageInfo, values: Values<'_>) {
        self.lines.clear();
        let lines = memchr(b'\n', head).map_or(&[][..], |newline| &head[newline + 1..]);
        if lines.len() <= HTTP_KNOWN_FIELDS_BYTES_MAX && line.is_usual() {
            (self.info, self.lines) = (info, lines.to_vec());
            // Wherever else the same bytes are, they are the same value.
            self.places = values.map(|value| memmem::find(lines, value).map(|from| from..from + value.len()));
        }
    }

    /// The values of a head that has these header lines.
    #[inline]
    fn values<'a>(&self, head: &'a [u8]) -> Values<'a> {
        let lines = &head[head.len() - self.lines.len()..];
        let [token, if_none_match, last_event_id] =
            self.places.each_ref().map(|place| place.clone().map(|place| &lines[place]));
        Values { token, if_none_match, last_event_id }
    }
}

/// A complete head that came in pieces, or that `httparse` does not take.
fn read_again(head: &[u8], limits: HeadLimits) -> Result<Head<'_>, Refusal> {
    let (line, headers) = match parse_fast(head) {
        Some((line, headers, _)) => (line, headers),
        None => parse_careful(head)?,
    };
    let (url, info) = validate_head(&line, &headers, limits.headers)?;
    Ok(line.head(url, info, headers.values()))
}

impl Scan {
    fn begin(&mut self, input: &[u8]) -> Option<usize> {
        let start = self.start_in(input)?;
        if self.start.replace(start).is_none() {
            (self.line_start, self.searched) = (start, start);
        }
        Some(start)
    }

    fn start_in(&self, input: &[u8]) -> Option<usize> {
        let skipped = || {
            if self.before == Before::Nothing {
                return Some(0);
            }
            let peek = input.get(..PEEK)?;
            let newlines = || peek.iter().take_while(|&b| b"\r\n".contains(b));
            Some(if self.before == Before::Post { newlines().count() } else { 0 })
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

/// How large a head may be.
#[derive(Debug, Clone, Copy)]
pub struct HeadLimits {
    /// Bytes, the blank line included.
    pub bytes: usize,
    /// Headers, repeated ones too.
    pub headers: usize,
}

impl HeadLimits {
    #[must_use]
    pub fn of(limits: &Limits) -> Self {
        Self { bytes: limits.size(Limit::RequestHeadSize), headers: limits.size(Limit::RequestHeaders) }
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

fn check_unfinished<'a>(partial: &[u8], start: usize, scan: &mut Scan, bytes_max: usize) -> Parsed<'a> {
    if !scan.request_line_passed
        && scan.line_start > start
        && let Some(end) = memchr(b'\n', partial).filter(|&end| end < bytes_max)
    {
        if let Err(refusal) = parse_request_line(without_cr(&partial[..end])).and_then(|line| line.url()) {
            return Parsed::Refused(refusal);
        }
        scan.request_line_passed = true;
    }
    if partial.len() >= bytes_max {
        return Parsed::Refused(Refusal::HeadTooLarge);
    }
    Parsed::NeedMore
}

/// What `httparse` makes of the head that `input` starts with, and its length; `None` also when it is not
/// all there.
fn parse_fast(input: &[u8]) -> Option<(RequestLine<'_>, Headers<'_>, usize)> {
    // Blank lines ahead of a request pass with httparse, not with stock.
    if matches!(input.first(), None | Some(b'\r' | b'\n')) {
        return None;
    }
    let mut headers = [const { MaybeUninit::uninit() }; FAST_HEADERS];
    let mut request = httparse::Request::new(&mut []);
    let Ok(httparse::Status::Complete(len)) = request.parse_with_uninit_headers(input, &mut headers) else {
        return None;
    };
    let line =
        RequestLine { method: request.method?, target: request.path?.as_bytes(), version: (1, request.version?) };
    let mut headers = Headers::default();
    for header in request.headers.iter() {
        headers.add(header.name.as_bytes(), header.value);
    }
    Some((line, headers, len))
}

/// Stock: `textproto.Reader.ReadMIMEHeader`.
fn parse_careful(head: &[u8]) -> Result<(RequestLine<'_>, Headers<'_>), Refusal> {
    let mut lines = head.split(|&b| b == b'\n').map(without_cr).peekable();
    let line = parse_request_line(lines.next().unwrap_or_default())?;
    let mut headers = Headers::default();
    let mut unfolded = Vec::new();
    while let Some(first) = lines.next().filter(|line| !line.is_empty()) {
        // Only a first header line can be seen here with a space ahead; others continue the line
        // above.
        if is_continuation(first) || memchr(b':', first).is_none() {
            return Err(Refusal::BadRequest);
        }
        if lines.peek().is_none_or(|next| !is_continuation(next)) {
            headers.add_line(trim(first))?;
            continue;
        }
        unfolded.clear();
        unfolded.extend(trim(first));
        while let Some(more) = lines.next_if(|line| is_continuation(line)) {
            unfolded.push(b' ');
            unfolded.extend(trim(more));
        }
        headers.add_unfolded(&unfolded)?;
    }
    Ok((line, headers))
}

struct RequestLine<'a> {
    method: &'a str,
    target: &'a [u8],
    version: (u8, u8),
}

/// What the header lines say of their request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct MessageInfo {
    persistence: Persistence,
    body: Body,
    expect: Expect,
    accepts: Accepts,
}

impl Default for MessageInfo {
    fn default() -> Self {
        let (persistence, body, expect) = (Persistence::KeepAlive, Body::None, Expect::None);
        Self { persistence, body, expect, accepts: Accepts::default() }
    }
}

impl<'a> RequestLine<'a> {
    /// One that begins and ends as most do, which saves looking for its words.
    #[inline]
    fn usual(line: &'a [u8]) -> Option<Self> {
        let target = line.strip_prefix(b"GET ")?.strip_suffix(b" HTTP/1.1")?;
        (!target.contains(&b' ')).then_some(Self { method: "GET", target, version: (1, 1) })
    }

    #[inline]
    fn url(&self) -> Result<Url<'a>, Refusal> {
        match Url::plain(self.target) {
            Some(url) => Ok(url),
            None => Url::parse(self.method, self.target).map_err(|_| Refusal::BadRequest),
        }
    }

    /// Whether header lines mean the same below this line as below most.
    fn is_usual(&self) -> bool {
        self.version == (1, 1) && self.method != "CONNECT"
    }

    #[inline]
    fn head(&self, url: Url<'a>, info: MessageInfo, values: Values<'a>) -> Head<'a> {
        let MessageInfo { persistence, body, expect, accepts } = info;
        let version = if self.version >= (1, 1) { Version::Http11 } else { Version::Http10 };
        let (method, target) = (self.method, self.target);
        Head { method, target, url, version, persistence, body, expect, accepts, values }
    }
}

fn parse_request_line(line: &[u8]) -> Result<RequestLine<'_>, Refusal> {
    let parse = || {
        let (method, rest) = cut(line, b' ');
        let (target, version) = cut(rest, b' ');
        let &[b'H', b'T', b'T', b'P', b'/', major, b'.', minor] = version else {
            return None;
        };
        if !is_token(method) {
            return None;
        }
        let digit = |b: u8| b.is_ascii_digit().then(|| b - b'0');
        Some(RequestLine { method: str::from_utf8(method).ok()?, target, version: (digit(major)?, digit(minor)?) })
    };
    parse().ok_or(Refusal::BadRequest)
}

/// Puts the findings together in stock's order: `readRequest`, `readTransfer`, then
/// `conn.readRequest`.
fn validate_head<'a>(
    line: &RequestLine<'a>,
    headers: &Headers<'_>,
    headers_max: usize,
) -> Result<(Url<'a>, MessageInfo), Refusal> {
    if headers.count > headers_max {
        return Err(Refusal::TooManyHeaders);
    }
    let url = line.url()?;
    if headers.host == SingleHeader::Repeated {
        return Err(Refusal::BadRequest);
    }
    let body = headers.body(line.version)?;

    // The preface of HTTP/2, which stock takes for a request, and closes if it is really one.
    let preface = line.method == "PRI" && line.target == b"*" && line.version == (2, 0);
    let upgrade = preface && headers.count == 0;
    if line.version.0 != 1 && !preface {
        return Err(Refusal::UnsupportedVersion);
    }
    let since_11 = line.version >= (1, 1);
    match headers.host {
        SingleHeader::Absent if since_11 && line.method != "CONNECT" && !upgrade => {
            return Err(Refusal::MissingHost);
        }
        SingleHeader::Invalid => return Err(Refusal::MalformedHost),
        _ => {}
    }
    if headers.invalid_name {
        return Err(Refusal::InvalidHeaderName);
    }
    let persistence = match headers.connection {
        Some(connection) if !since_11 && connection.keep_alive_10 => Persistence::KeepAlive10,
        Some(connection) if connection.close => Persistence::Close,
        _ if !since_11 || upgrade => Persistence::Close,
        _ => Persistence::KeepAlive,
    };
    let expect = match headers.expect {
        Some(Expect::Continue) if !since_11 || body == Body::None => Expect::None,
        expect => expect.unwrap_or(Expect::None),
    };
    Ok((url, MessageInfo { persistence, body, expect, accepts: headers.accepts }))
}

fn without_newline(line: &[u8]) -> &[u8] {
    without_cr(line.strip_suffix(b"\n").unwrap_or(line))
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
