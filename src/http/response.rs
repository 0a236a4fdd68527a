//! Responses, and how they become bytes.

use std::io::Write as _;

use super::head::{Head, Persistence, Refusal, Version};
use super::status::{ApiError, Status};
use crate::api::Stream;
use crate::context::WorkerContext;
use crate::endpoint::Endpoint;
use crate::limits::{RETRY_AFTER, SHARED_BODY_BYTES_MIN};
use crate::metrics::{Counters, Format};
use crate::output::{Framing, Output};
use crate::registry::{Applied, LookupBody, Tag};
use crate::response_head::{JSON_HEADERS, NO_CACHE, ResponseHead};

/// What the body is (stock's two headers of that kind).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    Json,
    /// A response of the V1 API without a body.
    Empty,
    /// A body whose type stock leaves to Go to find out, which says it behind the length.
    Text,
    Metrics(Format),
    Html,
    /// Server-sent events, which nobody on the way is to keep, compress or gather.
    Events,
    /// A file of the page, with its headers; its tag comes with one more.
    File(&'static str),
    /// Not the API's: neither header.
    None,
}

impl Kind {
    fn headers(self) -> &'static str {
        match self {
            Self::Json => JSON_HEADERS,
            Self::Empty => "X-Nsq-Content-Type: nsq; version=1.0\r\n",
            Self::Metrics(Format::Text) => "Content-Type: text/plain; version=0.0.4; charset=utf-8\r\n",
            Self::Metrics(Format::OpenMetrics) => {
                "Content-Type: application/openmetrics-text; version=1.0.0; charset=utf-8\r\n"
            }
            Self::Events => {
                "Content-Type: text/event-stream\r\nCache-Control: no-cache, no-transform\r\nX-Accel-Buffering: no\r\n"
            }
            Self::Html => "Content-Type: text/html; charset=utf-8\r\n",
            Self::File(headers) => headers,
            Self::Text | Self::None => "",
        }
    }
}

/// How the client learns where the body ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Length {
    Known(usize),
    /// By chunks, or by closing the connection of a client that cannot read chunks.
    Unknown,
    /// There is none, as the status says.
    NoBody,
}

/// Go's server writes a length above a body that fits its buffer, and keeps an HTTP/1.0 connection only then
/// (`bufferBeforeChunkingSize` in net/http).
const GO_BUFFER_BYTES: usize = 2048;

/// Room for a head, most of the time.
const HEAD_BYTES: usize = 256;

/// What an endpoint responds, before it is bytes.
pub enum Response {
    /// 200 without a body.
    Empty,
    Pong,
    /// The same, with more to say.
    Remark(&'static str),
    Info,
    Json(Vec<u8>),
    /// A text whose type stock leaves to Go to find out.
    Text(String),
    Metrics(Format, String),
    MetricsStream(Format, Stream),
    Stream(Stream),
    Error(ApiError),
    /// An error with the reason for it.
    Refusal(ApiError, &'static str),
}

impl Response {
    pub fn status(&self) -> Status {
        match self {
            Self::Error(ApiError(status, _)) | Self::Refusal(ApiError(status, _), _) => *status,
            _ => Status::Ok,
        }
    }
}

/// A request that is owed one response.
pub struct Exchange<'a> {
    pub request: &'a Head<'a>,
    /// What its path leads to.
    pub endpoint: Option<Endpoint>,
    /// The connection closes after the response, whatever the client would like.
    pub close: bool,
    /// The request's body, for an endpoint that takes one; see [`super::handlers::takes_body`].
    pub body: &'a [u8],
    pub output: &'a mut Output,
}

impl<'a> Exchange<'a> {
    pub fn responder(self, response_head: &'a ResponseHead, counters: &'a Counters) -> Responder<'a> {
        let Self { request, endpoint, close, output, .. } = self;
        Responder { request, endpoint, close, tag: None, filtered: None, response_head, counters, output }
    }
}

/// Writes the one response to a request.
pub struct Responder<'a> {
    request: &'a Head<'a>,
    endpoint: Option<Endpoint>,
    close: bool,
    tag: Option<Tag>,
    filtered: Option<Applied>,
    response_head: &'a ResponseHead,
    counters: &'a Counters,
    output: &'a mut Output,
}

impl Responder<'_> {
    /// With the tag of what it shows, if it has one.
    pub fn tagged(self, tag: Option<Tag>) -> Self {
        Self { tag, ..self }
    }

    /// With what of the client's filter was applied, if it has one.
    pub fn filtered(self, filtered: Option<Applied>) -> Self {
        Self { filtered, ..self }
    }

    /// The client has what it would get.
    pub fn not_modified(mut self) -> bool {
        self.head(Status::NotModified, Kind::None, None, Length::NoBody)
    }

    /// An endpoint's response. Like the others, returns whether the connection stays open.
    pub fn respond(self, response: Response, context: &WorkerContext) -> bool {
        match response {
            Response::Empty => self.whole(Status::Ok, Kind::Empty, b""),
            Response::Pong => self.whole(Status::Ok, Kind::Text, b"OK"),
            Response::Remark(text) => self.whole(Status::Ok, Kind::Text, text.as_bytes()),
            Response::Info => self.whole(Status::Ok, Kind::Json, &context.server.info),
            Response::Text(text) => self.whole(Status::Ok, Kind::Text, text.as_bytes()),
            Response::Json(body) => self.whole(Status::Ok, Kind::Json, &body),
            Response::Metrics(format, text) => self.whole(Status::Ok, Kind::Metrics(format), text.as_bytes()),
            Response::Error(error) => self.error(error, None),
            Response::Refusal(ApiError(status, message), reason) => {
                let body = format!("{{\"message\":\"{message}\",\"reason\":\"{reason}\"}}");
                self.whole(status, Kind::Json, body.as_bytes())
            }
            Response::MetricsStream(format, stream) => self.stream(Kind::Metrics(format), stream),
            Response::Stream(stream) => self.stream(Kind::Json, stream),
        }
    }

    /// A body that may be in pieces. A short one is copied behind its head.
    pub fn lookup(mut self, body: LookupBody<'_>) -> bool {
        if let Some(body) = body.whole().filter(|body| body.len() < SHARED_BODY_BYTES_MIN) {
            return self.whole(Status::Ok, Kind::Json, body);
        }
        let keep = self.head(Status::Ok, Kind::Json, None, Length::Known(body.len()));
        if self.request.wants_body() {
            self.output.share(body.pieces());
        }
        keep
    }

    /// A body that is all there, and short.
    pub fn whole(self, status: Status, kind: Kind, body: &[u8]) -> bool {
        self.with_header(status, kind, None, body)
    }

    /// The same with one header more.
    pub fn with_header(mut self, status: Status, kind: Kind, extra: Option<(&str, &[u8])>, body: &[u8]) -> bool {
        let keep = self.head(status, kind, extra, Length::Known(body.len()));
        if self.request.wants_body() {
            self.output.staged().extend_from_slice(body);
        }
        keep
    }

    /// An error of the API, with the methods that the path takes when it is one of method.
    pub fn error(self, ApiError(status, message): ApiError, allow: Option<&str>) -> bool {
        let body = [b"{\"message\":\"", message.as_bytes(), b"\"}"].concat();
        self.with_header(status, Kind::Json, allow.map(|allow| ("Allow", allow.as_bytes())), &body)
    }

    /// An error that says when to try again.
    pub fn retry_after(self, ApiError(status, message): ApiError) -> bool {
        let body = format!("{{\"message\":\"{message}\"}}");
        let seconds = RETRY_AFTER.as_secs().to_string();
        self.with_header(status, Kind::Json, Some(("Retry-After", seconds.as_bytes())), body.as_bytes())
    }

    /// The head of a stream of events, which ends with the connection.
    pub fn event_stream(mut self) -> bool {
        self.head(Status::Ok, Kind::Events, None, Length::Unknown)
    }

    /// A body of any size. One that fits a page is answered like every other.
    pub fn stream(mut self, kind: Kind, mut stream: Stream) -> bool {
        if let Some(length) = stream.known_len() {
            let keep = self.head(Status::Ok, kind, None, Length::Known(length));
            if self.request.wants_body() {
                self.output.stream(stream, Framing::Plain);
            }
            return keep;
        }
        let page = stream.next_page().expect("a document has a page");
        if stream.is_finished() {
            return self.whole(Status::Ok, kind, &page);
        }
        let keep = self.head(Status::Ok, kind, None, Length::Unknown);
        if self.request.wants_body() {
            let framing = if self.request.version == Version::Http11 { Framing::Chunked } else { Framing::Plain };
            framing.append(&page, false, self.output.staged());
            self.output.stream(stream, framing);
        }
        keep
    }

    /// Appends everything above the body and returns whether the connection stays open after it.
    fn head(&mut self, status: Status, kind: Kind, extra: Option<(&str, &[u8])>, length: Length) -> bool {
        let http11 = self.request.version == Version::Http11;
        let framed = match length {
            Length::Known(length) => http11 || length <= GO_BUFFER_BYTES,
            Length::Unknown => http11,
            Length::NoBody => true,
        };
        let keep = framed && !self.close && self.request.persistence != Persistence::Close;
        let out = begin(status.code(), self.endpoint, self.counters, self.output);
        // One growth for the whole response, and not one for each line.
        out.reserve(HEAD_BYTES);
        if http11 && status == Status::Ok && kind == Kind::Json && extra.is_none() {
            let head = self.response_head;
            out.extend_from_slice(if self.tag.is_some() { head.ok_json_tagged() } else { head.ok_json() });
        } else {
            out.extend_from_slice(if http11 { b"HTTP/1.1 " } else { b"HTTP/1.0 " });
            out.extend_from_slice(status.line().as_bytes());
            // Go sorts what a handler has set by name. No kind has a header before Content-Type.
            let (before, after) = match extra {
                Some((name, _)) if name < "Content-Type" => (extra, None),
                _ => (None, extra),
            };
            header(out, before);
            out.extend_from_slice(kind.headers().as_bytes());
            header(out, after);
            out.extend_from_slice(self.response_head.date().as_bytes());
            if self.tag.is_some() {
                out.extend_from_slice(NO_CACHE.as_bytes());
            }
        }
        if let Some(applied) = self.filtered {
            header(out, Some(("X-Ringlookupd-Filter", applied.text().as_bytes())));
        }
        if let Some(tag) = self.tag {
            out.extend_from_slice(b"ETag: \"");
            out.extend_from_slice(&tag.text());
            out.extend_from_slice(b"\"\r\n");
        }
        // Go adds no header that a handler has set, and says nothing of a body that is empty for HEAD.
        let is_set = |name| extra.is_some_and(|(set, _)| set == name);
        if let Length::Known(length) = length
            && (length > 0 || self.request.wants_body())
            && !is_set("Content-Length")
        {
            out.extend_from_slice(b"Content-Length: ");
            out.extend_from_slice(itoa::Buffer::new().format(length).as_bytes());
            out.extend_from_slice(b"\r\n");
        }
        if kind == Kind::Text {
            out.extend_from_slice(b"Content-Type: text/plain; charset=utf-8\r\n");
        }
        match self.request.persistence {
            Persistence::KeepAlive10 if keep => out.extend_from_slice(b"Connection: keep-alive\r\n"),
            _ if is_set("Connection") => {}
            // HTTP/1.0 closes by default. Go says so where the client asked for the opposite and its body is in
            // the way.
            persistence
                if !keep && (http11 || (self.close && framed && persistence == Persistence::KeepAlive10)) =>
            {
                out.extend_from_slice(b"Connection: close\r\n");
            }
            _ => {}
        }
        if length == Length::Unknown && http11 {
            out.extend_from_slice(b"Transfer-Encoding: chunked\r\n");
        }
        out.extend_from_slice(b"\r\n");
        keep
    }
}

/// Counts a response with this status and returns where to write it. Every response but the interim `100 Continue`
/// begins here, so each is counted once.
#[inline]
fn begin<'a>(
    code: &str,
    endpoint: Option<Endpoint>,
    counters: &Counters,
    output: &'a mut Output,
) -> &'a mut Vec<u8> {
    counters.requests.count(endpoint, code);
    output.staged()
}

/// Stages an error that ends the connection and answers no request, or not a whole one.
pub fn unasked(ApiError(status, message): ApiError, context: &WorkerContext, output: &mut Output) {
    let (line, headers, date) = (status.line(), Kind::Json.headers(), context.response_head.date());
    let body = format!("{{\"message\":\"{message}\"}}");
    let length = body.len();
    write!(
        begin(status.code(), None, &context.counters, output),
        "HTTP/1.1 {line}{headers}{date}Content-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    )
    .expect("a Vec takes every write");
}

/// Stages Go's response to HTTP on a port for HTTPS (`tlsRecordHeaderLooksLikeHTTP` in net/http).
pub fn plain_at_tls(context: &WorkerContext, output: &mut Output) {
    let response = "HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n";
    begin("400", None, &context.counters, output).extend_from_slice(response.as_bytes());
}

/// Stages the response to a head that is no request.
pub fn refused(refusal: Refusal, context: &WorkerContext, output: &mut Output) {
    let response = refusal.response();
    let code = &response["HTTP/1.1 ".len()..][..3];
    begin(code, None, &context.counters, output).extend_from_slice(response.as_bytes());
}

#[inline]
fn header(out: &mut Vec<u8>, header: Option<(&str, &[u8])>) {
    let Some((name, value)) = header else { return };
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests;
