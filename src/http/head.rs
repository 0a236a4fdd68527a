//! What a request head says.

use super::target::Url;
use crate::limits::Limit;

/// A request head that can be acted on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head<'a> {
    /// The method, a token in its own case.
    pub method: &'a str,
    /// The request target, as received.
    pub target: &'a [u8],
    /// The same, parsed.
    pub url: Url<'a>,
    /// The version to answer with.
    pub version: Version,
    /// What becomes of the connection after the response.
    pub persistence: Persistence,
    /// The body that follows the head.
    pub body: Body,
    /// What the client waits for before it sends the body.
    pub expect: Expect,
    /// What the client would rather have.
    pub accepts: Accepts,
    /// Headers whose values matter as they are.
    pub values: Values<'a>,
}

/// The values of headers that are kept; `None` for one that is not there, is repeated, or is folded.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Values<'a> {
    /// What stands behind `Bearer` in `Authorization`.
    pub token: Option<&'a [u8]>,
    pub if_none_match: Option<&'a [u8]>,
    pub last_event_id: Option<&'a [u8]>,
}

impl<'a> Values<'a> {
    /// Each value, changed alike.
    pub(super) fn map<T>(self, how: impl Fn(&'a [u8]) -> Option<T>) -> [Option<T>; 3] {
        [self.token, self.if_none_match, self.last_event_id].map(|value| value.and_then(&how))
    }
}

impl Head<'_> {
    /// Whether a body follows the response's headers. The response to HEAD has those of GET, and ends there.
    pub fn wants_body(&self) -> bool {
        self.method != "HEAD"
    }
}

/// What the `Accept` headers say.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Accepts {
    /// The client asks for metrics in the format OpenMetrics.
    pub openmetrics: bool,
    /// The client is a browser that is to show a page.
    pub html: bool,
}

/// HTTP version; 1.2 to 1.9 count as 1.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    Http10,
    Http11,
}

/// What becomes of the connection after the response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Persistence {
    /// HTTP/1.1 without `close`: it stays open and nothing is said about it.
    KeepAlive,
    /// HTTP/1.0 that asked for it: it stays open and the response says `Connection: keep-alive`, if
    /// the response has a `Content-Length`. A `close` beside the `keep-alive` changes nothing.
    KeepAlive10,
    /// It closes. The response says `Connection: close`, but not to HTTP/1.0.
    Close,
}

/// The body that follows a head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Body {
    /// None, or an empty one.
    None,
    /// `Content-Length` bytes, at least 1 and at most `i64::MAX`.
    Length(u64),
    /// `Transfer-Encoding: chunked`.
    Chunked,
}

/// What a client waits for before it sends the body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    /// Nothing.
    None,
    /// `HTTP/1.1 100 Continue`, which stock sends when the body is first read; if it never is, the
    /// connection closes.
    Continue,
    /// Something unknown: answered, whatever the path, with an empty 417 that says `Connection:
    /// close` (also to HTTP/1.0), `Content-Length: 0` (except to HEAD) and has no `Content-Type`,
    /// and closes.
    Unknown,
}

/// A request that is answered without looking at its path. The connection closes after the response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    BadRequest,
    MissingHost,
    MalformedHost,
    InvalidHeaderName,
    HeadTooLarge,
    TooManyHeaders,
    UnsupportedTransferEncoding,
    UnsupportedVersion,
}

impl Refusal {
    /// The limit that was met, if it was one.
    #[must_use]
    pub fn limit(self) -> Option<Limit> {
        match self {
            Self::HeadTooLarge => Some(Limit::RequestHeadSize),
            Self::TooManyHeaders => Some(Limit::RequestHeaders),
            _ => None,
        }
    }

    /// The whole response, which is the same for every version and method and has neither `Date` nor
    /// `Content-Length`.
    #[must_use]
    pub fn response(self) -> &'static str {
        macro_rules! response {
            ($status:literal) => {
                response!($status, $status)
            };
            ($status:literal, $body:literal) => {
                concat!(
                    "HTTP/1.1 ",
                    $status,
                    "\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n\r\n",
                    $body
                )
            };
        }
        match self {
            Self::BadRequest => response!("400 Bad Request"),
            Self::MissingHost => response!("400 Bad Request: missing required Host header"),
            Self::MalformedHost => response!("400 Bad Request: malformed Host header"),
            Self::InvalidHeaderName => response!("400 Bad Request: invalid header name"),
            Self::HeadTooLarge | Self::TooManyHeaders => response!("431 Request Header Fields Too Large"),
            Self::UnsupportedTransferEncoding => {
                response!("501 Not Implemented", "Unsupported transfer encoding")
            }
            Self::UnsupportedVersion => {
                response!("505 HTTP Version Not Supported: unsupported protocol version")
            }
        }
    }
}
