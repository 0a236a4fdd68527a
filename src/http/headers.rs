//! What the headers of a request say, as far as it matters to a server that only frames and
//! answers.
//!
//! Each header is validated as it is read, so nothing of it needs to be kept, but for a token.

use super::accept;
use super::head::{Accepts, Body, Expect, Refusal, Values};
use super::target::cut;

/// What the headers of one request say.
#[derive(Default)]
pub(super) struct Headers<'a> {
    pub(super) count: usize,
    pub(super) invalid_name: bool,
    bad_trailer: bool,
    pub(super) host: SingleHeader,
    transfer_encoding: SingleHeader,
    content_length: ContentLength,
    pub(super) connection: Option<Connection>,
    pub(super) expect: Option<Expect>,
    pub(super) accepts: Accepts,
    authorization: SingleValue<'a>,
    if_none_match: SingleValue<'a>,
    last_event_id: SingleValue<'a>,
}

/// A header whose value is kept.
#[derive(Default, Clone, Copy)]
enum SingleValue<'a> {
    #[default]
    Absent,
    Value(&'a [u8]),
    /// Not what it should be, folded, or repeated.
    Unusable,
}

/// A header that must not be repeated.
#[derive(Default, Clone, Copy, PartialEq, Eq)]
pub(super) enum SingleHeader {
    #[default]
    Absent,
    Valid,
    Invalid,
    Repeated,
}

#[derive(Default, Clone, Copy, PartialEq, Eq)]
enum ContentLength {
    #[default]
    Absent,
    /// Repeats must be the same text: the same number in as many digits.
    Valid {
        length: u64,
        digits: usize,
    },
    Invalid,
}

#[derive(Clone, Copy)]
pub(super) struct Connection {
    pub(super) close: bool,
    pub(super) keep_alive_10: bool,
}

impl<'a> Headers<'a> {
    /// Takes a header line of the head, which has a colon.
    pub(super) fn add_line(&mut self, line: &'a [u8]) -> Result<(), Refusal> {
        let (name, value) = self.check_line(line)?;
        self.add(name, value);
        Ok(())
    }

    /// Takes a header line that was several in the head.
    pub(super) fn add_unfolded(&mut self, line: &[u8]) -> Result<(), Refusal> {
        let (name, value) = self.check_line(line)?;
        self.add_kept(name, value, None);
        Ok(())
    }

    fn check_line<'l>(&mut self, line: &'l [u8]) -> Result<(&'l [u8], &'l [u8]), Refusal> {
        let (name, value) = cut(line, b':');
        let name_ok = !name.is_empty() && name.iter().all(|&b| is_field_name_byte(b));
        if !name_ok || !value.iter().all(|&b| is_field_value_byte(b)) {
            return Err(Refusal::BadRequest);
        }
        // Stock looks for a space in a name only after everything else.
        self.invalid_name |= name.contains(&b' ');
        Ok((name, trim_start(value)))
    }

    /// Takes a header whose name and value hold no forbidden bytes, the value without space around
    /// it.
    pub(super) fn add(&mut self, name: &[u8], value: &'a [u8]) {
        self.add_kept(name, value, Some(value));
    }

    /// The value also as it is in the head, if it is there in one piece.
    #[inline]
    fn add_kept(&mut self, name: &[u8], value: &[u8], kept: Option<&'a [u8]>) {
        self.count += 1;
        let is = |known: &[u8]| name.eq_ignore_ascii_case(known);
        match name.len() {
            4 if is(b"host") => self.host.add(value.iter().all(|&b| is_host_byte(b))),
            6 if is(b"accept") => {
                self.accepts.openmetrics |= accept::openmetrics(value);
                self.accepts.html |= accept::html(value);
            }
            6 if is(b"expect") => {
                self.expect.get_or_insert_with(|| Expect::of(value));
            }
            7 if is(b"trailer") => self.bad_trailer |= elements(value).any(is_bad_trailer),
            10 if is(b"connection") => self.add_connection(value),
            13 if is(b"authorization") => self.authorization.add(kept.and_then(bearer_token)),
            13 if is(b"if-none-match") => self.if_none_match.add(kept),
            13 if is(b"last-event-id") => self.last_event_id.add(kept),
            14 if is(b"content-length") => self.content_length.add(value),
            17 if is(b"transfer-encoding") => self.transfer_encoding.add(value.eq_ignore_ascii_case(b"chunked")),
            _ => {}
        }
    }

    /// Stock looks for `close` as a list element in every such header, and, with `keep-alive`, as a
    /// word in the first.
    fn add_connection(&mut self, value: &[u8]) {
        match &mut self.connection {
            Some(connection) => {
                connection.close |= elements(value).any(|e| e.eq_ignore_ascii_case(b"close"));
            }
            first => {
                *first = Some(Connection {
                    close: has_word(value, b"close"),
                    keep_alive_10: has_word(value, b"keep-alive"),
                });
            }
        }
    }

    /// The values that are kept.
    pub(super) fn values(&self) -> Values<'a> {
        Values {
            token: self.authorization.get(),
            if_none_match: self.if_none_match.get(),
            last_event_id: self.last_event_id.get(),
        }
    }

    /// The body that these headers announce in a request of this version; stock: `readTransfer`.
    pub(super) fn body(&self, version: (u8, u8)) -> Result<Body, Refusal> {
        // HTTP/1.0 knows no transfer encodings; Go takes a version of 0.0 for "not set" and for
        // 1.1.
        let encoding = match self.transfer_encoding {
            _ if version < (1, 1) && version != (0, 0) => SingleHeader::Absent,
            encoding => encoding,
        };
        let chunked = match encoding {
            SingleHeader::Absent => false,
            SingleHeader::Valid => true,
            SingleHeader::Invalid | SingleHeader::Repeated => return Err(Refusal::UnsupportedTransferEncoding),
        };
        match self.content_length {
            ContentLength::Invalid => Err(Refusal::BadRequest),
            _ if chunked && self.bad_trailer => Err(Refusal::BadRequest),
            _ if chunked => Ok(Body::Chunked),
            ContentLength::Valid { length, .. } if length > 0 => Ok(Body::Length(length)),
            ContentLength::Valid { .. } | ContentLength::Absent => Ok(Body::None),
        }
    }
}

impl<'a> SingleValue<'a> {
    fn add(&mut self, value: Option<&'a [u8]>) {
        *self = match self {
            Self::Absent => value.map_or(Self::Unusable, Self::Value),
            _ => Self::Unusable,
        };
    }

    fn get(self) -> Option<&'a [u8]> {
        match self {
            Self::Value(value) => Some(value),
            Self::Absent | Self::Unusable => None,
        }
    }
}

/// The token of an `Authorization` header (RFC 6750, 2.1). Its form is not checked here: `Bearer a b` holds a token that is in
/// no file.
fn bearer_token(value: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = value.split_at_checked("Bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"Bearer ").then(|| trim(token)).filter(|token| !token.is_empty())
}

impl SingleHeader {
    fn add(&mut self, valid: bool) {
        *self = match self {
            Self::Absent if valid => Self::Valid,
            Self::Absent => Self::Invalid,
            _ => Self::Repeated,
        };
    }
}

impl ContentLength {
    fn add(&mut self, value: &[u8]) {
        let text = value.trim_ascii();
        let length = str::from_utf8(text)
            .ok()
            .filter(|text| text.bytes().all(|b| b.is_ascii_digit()))
            .and_then(|text| text.parse().ok())
            .filter(|&length| i64::try_from(length).is_ok());
        let added = match length {
            Some(length) => Self::Valid { length, digits: text.len() },
            None => Self::Invalid,
        };
        *self = if *self == Self::Absent || *self == added { added } else { Self::Invalid };
    }
}

impl Expect {
    fn of(value: &[u8]) -> Self {
        if has_word(value, b"100-continue") {
            Self::Continue
        } else if value.is_empty() {
            Self::None
        } else {
            Self::Unknown
        }
    }
}

/// A `Trailer` header must not announce what frames the message.
fn is_bad_trailer(name: &[u8]) -> bool {
    [&b"transfer-encoding"[..], b"trailer", b"content-length"].iter().any(|bad| name.eq_ignore_ascii_case(bad))
}

/// The elements of a comma-separated list.
pub(super) fn elements(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|&b| b == b',').map(trim)
}

/// Whether a word stands between spaces, tabs and commas; stock: `hasToken`.
fn has_word(value: &[u8], word: &[u8]) -> bool {
    value.split(|b| b" \t,".contains(b)).any(|found| found.eq_ignore_ascii_case(word))
}

fn trim_start(mut text: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] = text {
        text = rest;
    }
    text
}

pub(super) fn trim(text: &[u8]) -> &[u8] {
    let mut text = trim_start(text);
    while let [rest @ .., b' ' | b'\t'] = text {
        text = rest;
    }
    text
}

/// Bytes of a kind, looked up instead of compared one by one.
struct ByteSet([bool; 256]);

impl ByteSet {
    /// Letters, digits and `others`.
    const fn alphanumeric_and(others: &[u8]) -> Self {
        let mut set = [false; 256];
        let mut byte = 0;
        while byte < u8::MAX {
            set[byte as usize] = byte.is_ascii_alphanumeric();
            byte += 1;
        }
        let mut at = 0;
        while at < others.len() {
            set[others[at] as usize] = true;
            at += 1;
        }
        Self(set)
    }

    fn has(&self, byte: u8) -> bool {
        self.0[usize::from(byte)]
    }
}

/// RFC 9110, 5.6.2.
pub(super) fn is_token_byte(byte: u8) -> bool {
    static TOKEN: ByteSet = ByteSet::alphanumeric_and(b"!#$%&'*+-.^_`|~");
    TOKEN.has(byte)
}

/// What Go's `textproto` lets pass in the name of a header or trailer: also a space.
pub(super) fn is_field_name_byte(byte: u8) -> bool {
    byte == b' ' || is_token_byte(byte)
}

/// What may stand in the value of a header or trailer.
pub(super) fn is_field_value_byte(byte: u8) -> bool {
    byte == b'\t' || !byte.is_ascii_control()
}

/// Stock: `httpguts.ValidHostHeader`.
fn is_host_byte(byte: u8) -> bool {
    static HOST: ByteSet = ByteSet::alphanumeric_and(b"!$%&()*+,-.:;=[]'_~");
    HOST.has(byte)
}
