//! HTTP/1.1 as a consumer speaks it: GET requests, and answers whose end is always known.

use std::fmt::Display;
use std::net::SocketAddr;
use std::time::Duration;

use super::{Connection, Link, Malformed};
use crate::failure::{Failure, Result};

/// Far above what any nsqlookupd sends.
const HEAD_BYTES_MAX: usize = 64 << 10;
const FIELDS_MAX: usize = 64;
const CHUNK_BYTES_MAX: usize = 1 << 30;
/// The status of an answer to a request for what has changed, when nothing has.
pub const NOT_MODIFIED: u16 = 304;

/// A whole answer, its body without the framing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer<'a> {
    pub status: u16,
    pub body: &'a [u8],
}

/// What an answer says of its content: the digits of its ETag, which are the id of an event too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tag([u8; 16]);

impl Tag {
    /// Sixteen lower-case hex digits; any other text is no tag of this protocol.
    pub fn of(digits: &[u8]) -> Option<Self> {
        let is_digit = |byte: &u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        digits.try_into().ok().filter(|digits: &[u8; 16]| digits.iter().all(is_digit)).map(Self)
    }

    fn quoted(text: &[u8]) -> Option<Self> {
        Self::of(text.strip_prefix(b"\"")?.strip_suffix(b"\"")?)
    }
}

/// Finds answers in a stream of bytes that is given again, longer, until an answer is whole.
#[derive(Default)]
pub struct Decoder {
    /// The head of the answer, once that is there.
    head: Option<Head>,
    chunks: Chunks,
    /// Of the last answer.
    tag: Option<Tag>,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Head {
    pub status: u16,
    pub bytes: usize,
    pub framing: Framing,
    tag: Option<Tag>,
    pub is_event_stream: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    Length(usize),
    Chunked,
}

impl Decoder {
    /// The answer at the front of `input` and the bytes it took, or `None` when it is not all there.
    ///
    /// # Errors
    /// Whatever no HTTP/1.1 server may send, and an answer whose end cannot be known.
    pub fn decode<'a>(&'a mut self, input: &'a [u8]) -> Result<Option<(Answer<'a>, usize)>, Malformed> {
        if self.head.is_none() {
            self.head = head(input)?;
            self.chunks.restart();
        }
        let Some(head) = self.head else { return Ok(None) };
        let body = &input[head.bytes..];
        let (body, used) = match head.framing {
            Framing::Length(length) if length <= body.len() => (&body[..length], length),
            Framing::Chunked if self.chunks.advance(body)? => (self.chunks.body.as_slice(), self.chunks.used),
            Framing::Length(_) | Framing::Chunked => return Ok(None),
        };
        self.head = None;
        self.tag = head.tag;
        Ok(Some((Answer { status: head.status, body }, head.bytes + used)))
    }
}

/// Reads status and framing, or `None` when the head is not all there.
pub(super) fn head(input: &[u8]) -> Result<Option<Head>, Malformed> {
    let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
    let mut response = httparse::Response::new(&mut fields);
    let bytes = match response.parse(input) {
        Ok(httparse::Status::Complete(bytes)) => bytes,
        Ok(httparse::Status::Partial) if input.len() <= HEAD_BYTES_MAX => return Ok(None),
        Ok(httparse::Status::Partial) => return Err(Malformed("a head without an end".into())),
        Err(error) => return Err(Malformed(format!("no HTTP head ({error})"))),
    };
    let (mut length, mut chunked) = (None, false);
    let (mut tag, mut is_event_stream) = (None, false);
    for field in &*response.headers {
        if field.name.eq_ignore_ascii_case("Content-Length") {
            let value = decimal(field.value).ok_or_else(|| Malformed("Content-Length is no number".into()))?;
            if length.replace(value).is_some() {
                return Err(Malformed("two Content-Lengths".into()));
            }
        } else if field.name.eq_ignore_ascii_case("Transfer-Encoding") {
            if chunked || !field.value.eq_ignore_ascii_case(b"chunked") {
                return Err(Malformed("a Transfer-Encoding other than chunked".into()));
            }
            chunked = true;
        } else if field.name.eq_ignore_ascii_case("ETag") {
            tag = Tag::quoted(field.value);
        } else if field.name.eq_ignore_ascii_case("Content-Type") {
            is_event_stream = field.value == b"text/event-stream";
        }
    }
    let status = response.code.expect("a complete head has a status");
    let framing = match (length, chunked) {
        // What it says of a length is of the content that it does not send (RFC 9110, 15.4.5).
        _ if status == NOT_MODIFIED => Framing::Length(0),
        (Some(length), false) => Framing::Length(length),
        (None, true) => Framing::Chunked,
        (Some(_), true) => return Err(Malformed("both Content-Length and chunked (RFC 9112, 6.3)".into())),
        (None, false) => return Err(Malformed("neither Content-Length nor chunked".into())),
    };
    Ok(Some(Head { status, bytes, framing, tag, is_event_stream }))
}

/// Digits and nothing else; `str::parse` would take a sign.
fn decimal(text: &[u8]) -> Option<usize> {
    let text = str::from_utf8(text).ok()?;
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

/// The body of a chunked answer, as far as it is put together.
#[derive(Default)]
struct Chunks {
    body: Vec<u8>,
    /// The bytes of input that are in `body` or were framing.
    used: usize,
}

impl Chunks {
    fn restart(&mut self) {
        self.body.clear();
        self.used = 0;
    }

    /// Takes the whole chunks of `input`, which is given from the first chunk on each time; true with the last.
    fn advance(&mut self, input: &[u8]) -> Result<bool, Malformed> {
        while let Some((data, used)) = chunk(&input[self.used..])? {
            self.body.extend_from_slice(data);
            self.used += used;
            if data.is_empty() {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// The data of the first chunk and how long the chunk is with its framing (RFC 9112, 7.1). The last is the one
/// without data; nsqlookupd sends no trailers.
pub(super) fn chunk(input: &[u8]) -> Result<Option<(&[u8], usize)>, Malformed> {
    let bad = |what: &str| Malformed(format!("a chunk with {what}"));
    let (from, size) = match httparse::parse_chunk_size(input) {
        Ok(httparse::Status::Complete(found)) => found,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(_) => return Err(bad("a size that is none")),
    };
    let size = usize::try_from(size).ok().filter(|&size| size <= CHUNK_BYTES_MAX);
    let end = from + size.ok_or_else(|| bad("a size beyond reason"))?;
    match input.get(end..end + 2) {
        None => Ok(None),
        Some(b"\r\n") => Ok(Some((&input[from..end], end + 2))),
        Some(_) => Err(bad("no CRLF behind its data")),
    }
}

/// A consumer's connection.
pub struct Client {
    connection: Connection,
    decoder: Decoder,
    /// What follows the target in each request.
    rest: Vec<u8>,
}

impl Client {
    /// Connects; `patience` is how long an answer may then take.
    pub async fn open(address: SocketAddr, patience: Duration) -> Result<Self> {
        Self::with_fields(address, patience, "").await
    }

    /// Connects for one request, after which the server is to close.
    pub async fn open_for_one(address: SocketAddr, patience: Duration) -> Result<Self> {
        Self::with_fields(address, patience, "Connection: close\r\n").await
    }

    async fn with_fields(address: SocketAddr, patience: Duration, fields: &str) -> Result<Self> {
        let connection = Connection::open(address, patience).await?;
        let rest = format!(" HTTP/1.1\r\nHost: {address}\r\n{fields}\r\n").into_bytes();
        Ok(Self { connection, decoder: Decoder::default(), rest })
    }

    pub fn link(&self) -> Link {
        self.connection.link()
    }

    /// Collects a request for the target, which is to be escaped already.
    pub fn ask(&mut self, target: &str) {
        self.request("GET", target);
    }

    /// Collects a request for the target if it is not what the tag says any more.
    pub fn ask_unless(&mut self, target: &str, tag: Tag) {
        self.request("GET", target);
        let output = self.connection.output();
        // In front of the empty line.
        output.truncate(output.len() - b"\r\n".len());
        for part in [b"If-None-Match: \"".as_slice(), &tag.0, b"\"\r\n\r\n"] {
            output.extend_from_slice(part);
        }
    }

    /// The tag of the last answer, if it had one.
    pub fn tag(&self) -> Option<Tag> {
        self.decoder.tag
    }

    fn request(&mut self, method: &str, target: &str) {
        let output = self.connection.output();
        for part in [method, " ", target] {
            output.extend_from_slice(part.as_bytes());
        }
        output.extend_from_slice(&self.rest);
    }

    /// Sends what is collected and gives the next answer to `read`, whose error is what is wrong with it.
    ///
    /// # Errors
    /// A wrong answer to the request for `target`, in form or by the word of `read`.
    pub async fn answer<T>(
        &mut self,
        target: &str,
        read: impl FnMut(Answer<'_>) -> Result<T, String>,
    ) -> Result<T> {
        self.next(Question { method: "GET", target }, read).await
    }

    async fn next<T>(
        &mut self,
        question: Question<'_>,
        mut read: impl FnMut(Answer<'_>) -> Result<T, String>,
    ) -> Result<T> {
        loop {
            let unread = self.connection.unread();
            match self.decoder.decode(unread) {
                Ok(None) => self.connection.receive(question).await?,
                Ok(Some((answer, used))) => {
                    let value =
                        read(answer).map_err(|problem| Failure::wrong(question, problem, &unread[..used]))?;
                    self.connection.take(used);
                    return Ok(value);
                }
                Err(malformed) => return Err(Failure::wrong(question, malformed, unread)),
            }
        }
    }

    /// Asks for one target and gives the answer to `read`.
    ///
    /// # Errors
    /// As [`Self::answer`].
    pub async fn get<T>(&mut self, target: &str, read: impl FnMut(Answer<'_>) -> Result<T, String>) -> Result<T> {
        self.ask(target);
        self.answer(target, read).await
    }

    /// Has one target changed, by a POST without a body, and gives the answer to `read`.
    ///
    /// # Errors
    /// As [`Self::answer`].
    pub async fn post<T>(&mut self, target: &str, read: impl FnMut(Answer<'_>) -> Result<T, String>) -> Result<T> {
        // No Content-Length is needed: without one there is no body (RFC 9112, 6.3).
        self.request("POST", target);
        self.next(Question { method: "POST", target }, read).await
    }

    /// # Errors
    /// When something is there that nobody asked for, said of the last target asked for.
    pub fn is_quiet(&self, target: &str) -> Result<()> {
        match self.connection.unread() {
            [] => Ok(()),
            unread => {
                Err(Failure::wrong(Question { method: "GET", target }, "more follows than the answer", unread))
            }
        }
    }

    /// Waits for the server to close after [`Self::open_for_one`].
    ///
    /// # Errors
    /// A wrong answer if it sends more instead.
    pub async fn ends(mut self, target: &str) -> Result<()> {
        self.connection.ends(Question { method: "GET", target }).await
    }
}

#[derive(Clone, Copy)]
pub(super) struct Question<'a> {
    pub method: &'static str,
    pub target: &'a str,
}

impl Display for Question<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.method, self.target)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZED: &[u8] = b"HTTP/1.1 200 OK\r\nDate: now\r\ncontent-length: 5\r\n\r\nhello";
    const CHUNKED: &[u8] =
        b"HTTP/1.1 404 Not Found\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2;x=y\r\nlo\r\n0\r\n\r\n";

    const NOT_CHANGED: &[u8] =
        b"HTTP/1.1 304 Not Modified\r\nETag: \"9f86d081884c7d65\"\r\nContent-Length: 5\r\n\r\n";

    fn decode(input: &[u8]) -> Result<Option<usize>, Malformed> {
        Ok(Decoder::default().decode(input)?.map(|(_, used)| used))
    }

    #[test]
    fn an_answer_that_nothing_has_changed_has_no_body_and_its_tag_is_kept() {
        let mut decoder = Decoder::default();
        let stream = [NOT_CHANGED, SIZED].concat();
        let answer = Answer { status: NOT_MODIFIED, body: b"" };
        assert_eq!(decoder.decode(&stream), Ok(Some((answer, NOT_CHANGED.len()))));
        assert_eq!(decoder.tag, Tag::of(b"9f86d081884c7d65"));
        decoder.decode(SIZED).unwrap();
        assert_eq!(decoder.tag, None, "the next answer has none");
        for bad in ["", "9F86D081884C7D65", "9f86d081884c7d6", "9f86d081884c7d65a", "9f86d081884c7d6g"] {
            assert_eq!(Tag::of(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn an_answer_is_the_same_at_every_split_point() {
        for (whole, status) in [(SIZED, 200), (CHUNKED, 404)] {
            let stream = [whole, whole].concat();
            for split in 0..whole.len() {
                let mut decoder = Decoder::default();
                assert_eq!(decoder.decode(&stream[..split]), Ok(None), "split at {split}");
                let answer = Answer { status, body: b"hello" };
                assert_eq!(decoder.decode(&stream), Ok(Some((answer, whole.len()))), "split at {split}");
                let next = decoder.decode(&stream[whole.len()..]);
                assert_eq!(next, Ok(Some((answer, whole.len()))), "the decoder starts afresh");
            }
        }
    }

    #[test]
    fn every_byte_alone_is_enough() {
        for whole in [SIZED, CHUNKED] {
            let mut decoder = Decoder::default();
            for end in 0..whole.len() {
                assert_eq!(decoder.decode(&whole[..end]), Ok(None));
            }
            assert!(decoder.decode(whole).unwrap().is_some());
        }
    }

    #[test]
    fn what_no_server_may_send_is_malformed() {
        let heads: [(&[u8], &str); 9] = [
            (b"ICY 200 OK\r\n\r\n", "no HTTP head"),
            (b"HTTP/1.1 2x0 OK\r\n\r\n", "no HTTP head"),
            (b"HTTP/1.1 200 OK\r\n\r\n", "neither"),
            (b"HTTP/1.1 200 OK\r\nContent-Length: +5\r\n\r\n", "is no number"),
            (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n", "two"),
            (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", "both"),
            (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n", "other than chunked"),
            (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nhello\r\n", "a size that is none"),
            (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nhello\r\n", "no CRLF"),
        ];
        for (input, problem) in heads {
            let Err(Malformed(text)) = decode(input) else { panic!("{} passed", input.escape_ascii()) };
            assert!(text.contains(problem), "{text}");
        }
        let huge = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffff0\r\n";
        assert!(decode(huge).unwrap_err().0.contains("beyond reason"));
        let endless = [b"HTTP/1.1 200 OK\r\nA: ".as_slice(), &vec![b'x'; HEAD_BYTES_MAX]].concat();
        assert!(decode(&endless).unwrap_err().0.contains("without an end"));
    }
}
