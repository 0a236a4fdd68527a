//! One client's connection: requests in, responses out, in order.

use std::net::SocketAddr;
use std::time::Instant;

use super::access::{Denial, audit};
use super::body::{BodyDecoder, BodyState};
use super::handlers;
use super::head::{Body, Expect, Head, Persistence, Refusal};
use super::parse::{HeadLimits, HeadReader, Parsed};
use super::response::{Exchange, Kind, Responder, plain_at_tls, refused, unasked};
use super::routes::{Route, endpoint_at, route};
use super::status::{
    ApiError, BODY_TOO_LARGE, HANDED_OVER, INVALID_REQUEST, METHOD_NOT_ALLOWED, NOT_FOUND, REQUEST_TIMEOUT,
    Status, TOO_MANY_CONNECTIONS,
};
use crate::access::{Class, Client, Decision};
use crate::context::{Advance, Stage, WorkerContext};
use crate::endpoint::Endpoint;
use crate::limits::{
    CONFIG_VALUE_BYTES_MAX, HTTP_OPTIONS_BODY_BYTES_MAX, HTTP_UNREAD_BODY_BYTES_MAX, Limit, Limits,
};
use crate::listen::{Protocol, Service};
use crate::log::Level;
use crate::output::Output;
use crate::transport;
use crate::v1::parse::MAGIC;

/// The protocol's state on one connection.
pub struct Session {
    state: State,
    /// In a box, as it is the larger part, and most connections are of nsqds.
    heads: Box<HeadReader>,
    service: Service,
    peer: SocketAddr,
    client: Client,
}

enum State {
    Head,
    /// The response waits for the end of the request's body.
    Body(Box<Pending>),
}

/// A request whose body is on its way. Its head is kept as it came and read again when the response is due:
/// requests with bodies are rare, and the others keep nothing.
struct Pending {
    head: Vec<u8>,
    decoder: BodyDecoder,
    reader: Reader,
}

/// Who reads the body before the response in stock.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Reader {
    /// The endpoint: a broken body is an error.
    Endpoint,
    /// Go itself, which answers `OPTIONS *` whatever the body was.
    Go,
    /// Nobody: the body only has to be out of the way of the next request.
    Nobody,
}

impl Reader {
    fn of(head: &Head<'_>) -> Self {
        match route(head.method, &head.url) {
            Route::Endpoint(endpoint) if handlers::reads_body(endpoint, head) => Self::Endpoint,
            Route::Options { allow: None } => Self::Go,
            _ => Self::Nobody,
        }
    }

    /// A longer body ends the connection.
    fn bytes_max(self, limits: &Limits) -> u64 {
        match self {
            Self::Endpoint => limits.value(Limit::RequestBodySize),
            Self::Go => HTTP_OPTIONS_BODY_BYTES_MAX,
            Self::Nobody => HTTP_UNREAD_BODY_BYTES_MAX,
        }
    }
}

impl Session {
    pub fn new(service: Service, peer: SocketAddr) -> Self {
        Self { state: State::Head, heads: Box::default(), service, peer, client: Client::default() }
    }

    pub fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// The client has shown a certificate with this name, if any.
    pub fn is_named(&mut self, name: Option<String>) {
        self.client.is_named(name);
    }

    /// What runs while nothing comes, `rest` being what is there of a request's head.
    pub fn awaited(&self, rest: &[u8]) -> Limit {
        if rest.is_empty() && matches!(self.state, State::Head) {
            Limit::IdleTimeout
        } else {
            Limit::RequestTimeout
        }
    }

    /// Tells the client of a limit that it has met by being there, or by not going on. Between requests nothing
    /// is said (Go's server likewise): it would be the response to the request that may be on its way.
    pub fn refuse_over(&self, limit: Limit, context: &WorkerContext, output: &mut Output) {
        context.exceeded(limit, self.peer);
        match limit {
            Limit::IdleTimeout => {}
            Limit::RequestTimeout => unasked(REQUEST_TIMEOUT, context, output),
            _ => unasked(TOO_MANY_CONNECTIONS, context, output),
        }
    }

    /// Tells a client that speaks without the TLS of this port, in the words of Go's server.
    pub fn refuse_plain(&self, context: &WorkerContext, output: &mut Output) {
        context.wrong_port(self.service, Service::Http, self.peer);
        plain_at_tls(context, output);
    }

    /// Takes what is complete of `input`, as far as the iteration and the output have room, and stages the responses.
    pub fn advance(&mut self, input: &[u8], context: &mut WorkerContext, output: &mut Output) -> Advance {
        let mut used = 0;
        let limits = HeadLimits::of(&context.limits);
        while output.has_room() && !context.batch.is_full() {
            let rest = &input[used..];
            if rest.is_empty() {
                break;
            }
            let step = match &mut self.state {
                State::Head => match self.heads.read(rest, limits) {
                    Parsed::NeedMore => break,
                    Parsed::Refused(refusal) => {
                        self.refuse(refusal, rest, context, output);
                        return Advance { used: input.len(), close: true };
                    }
                    Parsed::Request { head, used } => {
                        // The server stops: only what is here already is answered.
                        let close = context.stage > Stage::Serving && used == rest.len();
                        let keep = self.begin(&head, &rest[..used], close, context, output);
                        Advance { used, close: !keep }
                    }
                },
                State::Body(_) => self.go_on(rest, context, output),
            };
            used += step.used;
            if step.close {
                return Advance { used: input.len(), close: true };
            }
        }
        Advance { used, close: false }
    }

    /// The peer will send no more, and `rest` is what it left unfinished.
    pub fn finish(&mut self, rest: &[u8], context: &mut WorkerContext, output: &mut Output) {
        match &self.state {
            State::Head => {
                if let Some(refusal) = self.heads.refusal_at_eof(rest) {
                    self.refuse(refusal, rest, context, output);
                }
            }
            State::Body(_) => {
                self.end_body(Err(INVALID_REQUEST), true, context, output);
            }
        }
    }

    /// Responds to `input`, which is no request.
    fn refuse(&self, refusal: Refusal, input: &[u8], context: &WorkerContext, output: &mut Output) {
        let is_tls = self.service.is_tls();
        if input.starts_with(MAGIC) {
            context.wrong_port(self.service, Service::of(Protocol::V1, is_tls), self.peer);
        } else if !is_tls && transport::begins_tls(input) {
            context.wrong_port(self.service, Service::Https, self.peer);
        }
        if let Some(limit) = refusal.limit() {
            context.exceeded(limit, self.peer);
        }
        refused(refusal, context, output);
    }

    /// Answers a request, or puts it aside until its body is over. False when the connection is to close.
    fn begin(
        &mut self,
        head: &Head<'_>,
        text: &[u8],
        close: bool,
        context: &mut WorkerContext,
        output: &mut Output,
    ) -> bool {
        self.heads.next(head.method);
        if head.expect == Expect::Unknown {
            let closing = Some(("Connection", &b"close"[..]));
            return respond(head, true, context, output).with_header(
                Status::ExpectationFailed,
                Kind::None,
                closing,
                b"",
            );
        }
        if head.body == Body::None {
            return self.respond(head, b"", close, context, output);
        }
        let reader = Reader::of(head);
        let length = if let Body::Length(length) = head.body { length } else { 0 };
        if reader == Reader::Endpoint && length > reader.bytes_max(&context.limits) {
            return self.refuse_body(head, context, output);
        }
        if reader != Reader::Nobody && head.expect == Expect::Continue {
            output.staged().extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
        }
        let too_long = length >= HTTP_UNREAD_BODY_BYTES_MAX;
        let unwelcome = too_long || head.expect == Expect::Continue || head.persistence == Persistence::Close;
        if reader == Reader::Nobody && unwelcome {
            return self.respond(head, b"", true, context, output);
        }
        // The line ends that may stand before a request that follows a POST are not the head's.
        let newlines = text.iter().take_while(|byte| b"\r\n".contains(byte)).count();
        // One byte more, which tells a value that is too long.
        let kept = if handlers::takes_body(head) { CONFIG_VALUE_BYTES_MAX + 1 } else { 0 };
        let decoder = BodyDecoder::keeping(head.body, kept);
        self.state = State::Body(Box::new(Pending { head: text[newlines..].to_vec(), decoder, reader }));
        true
    }

    fn go_on(&mut self, input: &[u8], context: &mut WorkerContext, output: &mut Output) -> Advance {
        let State::Body(pending) = &mut self.state else { unreachable!("called for a body") };
        let progress = pending.decoder.consume(input);
        let too_long = pending.decoder.received() > pending.reader.bytes_max(&context.limits);
        let outcome = match progress.state {
            BodyState::More | BodyState::Complete if too_long => Err(BODY_TOO_LARGE),
            BodyState::More => return Advance { used: progress.used, close: false },
            BodyState::Complete => Ok(()),
            BodyState::Malformed => Err(INVALID_REQUEST),
        };
        let close = context.stage > Stage::Serving && progress.used == input.len();
        Advance { used: progress.used, close: !self.end_body(outcome, close, context, output) }
    }

    /// Answers the request that was put aside. False when the connection is to close.
    fn end_body(
        &mut self,
        body: Result<(), ApiError>,
        close: bool,
        context: &mut WorkerContext,
        output: &mut Output,
    ) -> bool {
        let State::Body(pending) = std::mem::replace(&mut self.state, State::Head) else {
            unreachable!("called for a body")
        };
        let Parsed::Request { head, .. } =
            HeadReader::default().read(&pending.head, HeadLimits::of(&context.limits))
        else {
            unreachable!("it was parsed before")
        };
        match body {
            Err(BODY_TOO_LARGE) if pending.reader == Reader::Endpoint => self.refuse_body(&head, context, output),
            Err(error) if pending.reader == Reader::Endpoint => {
                respond(&head, true, context, output).error(error, None)
            }
            body => self.respond(&head, pending.decoder.kept(), close || body.is_err(), context, output),
        }
    }

    fn refuse_body(&self, head: &Head<'_>, context: &mut WorkerContext, output: &mut Output) -> bool {
        context.exceeded(Limit::RequestBodySize, self.peer);
        respond(head, true, context, output).error(BODY_TOO_LARGE, None)
    }

    fn respond(
        &mut self,
        head: &Head<'_>,
        body: &[u8],
        close: bool,
        context: &mut WorkerContext,
        output: &mut Output,
    ) -> bool {
        let begun = context.log.enabled(Level::Debug).then(Instant::now);
        let (status, keep) = match route(head.method, &head.url) {
            Route::Endpoint(endpoint) => {
                let exchange = Exchange { request: head, endpoint: Some(endpoint), close, body, output };
                self.call(endpoint, exchange, context)
            }
            Route::Redirect { status, location, body } => {
                let (status, kind) = match status {
                    301 => (Status::MovedPermanently, Kind::Html),
                    _ => (Status::TemporaryRedirect, Kind::None),
                };
                let location = Some(("Location", location.as_slice()));
                (status, respond(head, close, context, output).with_header(status, kind, location, &body))
            }
            Route::Options { allow } => {
                // Go's handler of `OPTIONS *` sets the length.
                let set = allow.map_or(("Content-Length", &b"0"[..]), |allow| ("Allow", allow.as_bytes()));
                (
                    Status::Ok,
                    respond(head, close, context, output).with_header(Status::Ok, Kind::None, Some(set), b""),
                )
            }
            Route::MethodNotAllowed { allow } => (
                Status::MethodNotAllowed,
                respond(head, close, context, output).error(METHOD_NOT_ALLOWED, Some(allow)),
            ),
            Route::NotFound => (Status::NotFound, respond(head, close, context, output).error(NOT_FOUND, None)),
        };
        if let Some(begun) = begun {
            let (code, method, peer) = (status.code(), head.method, self.peer);
            let (target, took) = (String::from_utf8_lossy(head.target), begun.elapsed());
            context.log.client(&peer).debug(format_args!("{code} {method} {target} ({peer}) {took:?}"));
        }
        keep
    }

    /// Has an endpoint respond, if the client may use it.
    fn call(&mut self, endpoint: Endpoint, exchange: Exchange<'_>, context: &mut WorkerContext) -> (Status, bool) {
        let (request, peer) = (exchange.request, self.peer);
        let class = endpoint.class(request.method);
        let decision = self.client.decide(class, (peer.ip(), request.token), &context.access);
        if let Some(denial) = Denial::of(&decision, self.service, context.server.https_port) {
            return denial.respond(exchange, peer, context);
        }
        // What it changed here would be lost.
        let (status, keep) = if context.stage == Stage::HandedOver && class == Class::Admin {
            (HANDED_OVER.0, exchange.responder(&context.response_head, &context.counters).error(HANDED_OVER, None))
        } else {
            handlers::call(endpoint, exchange, peer, context)
        };
        if class == Class::Admin
            && let Decision::Allowed(who) = decision
        {
            audit(request, who.as_deref(), peer, status, context);
        }
        (status, keep)
    }
}

fn respond<'a>(
    request: &'a Head<'a>,
    close: bool,
    context: &'a WorkerContext,
    output: &'a mut Output,
) -> Responder<'a> {
    let endpoint = endpoint_at(&request.url.path);
    Exchange { request, endpoint, close, body: b"", output }.responder(&context.response_head, &context.counters)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::clock::Timestamp;
    use crate::context::ServerInfo;
    use crate::log::{Log, LogOptions};
    use crate::registry::{Lifetimes, Registry};

    /// All that a client of a server with many topics is sent, and whether its connection stays open.
    fn responses(requests: &str) -> (String, bool) {
        let minute = std::time::Duration::from_secs(60);
        let limits = Limits::default();
        let lifetimes = Lifetimes { inactive_producer_timeout: minute, ..Lifetimes::default() };
        let registry = Arc::new(Registry::new(lifetimes));
        let server = Arc::<ServerInfo>::default();
        let (log, writer) =
            Log::start(LogOptions { level: Level::Fatal, ..LogOptions::default() }).expect("a thread");
        let mut context =
            WorkerContext::new(registry, server, limits, Arc::default(), log, Timestamp::from_nanos(1));
        for topic in 0..300 {
            let topic = crate::registry::Name::new(format!("topic{topic}").as_bytes()).expect("a valid name");
            context.create(topic, None).expect("within the limits");
        }
        context.commit();
        let mut session = Session::new(Service::Http, "127.0.0.1:1".parse().expect("an address"));
        let (mut output, mut sent) = (Output::new(limits.size(Limit::OutputSize)), Vec::new());
        let mut rest = requests.as_bytes();
        loop {
            let Advance { used, close } = session.advance(rest, &mut context, &mut output);
            rest = &rest[used..];
            let before = sent.len();
            while let Some(buffer) = output.next_buffer() {
                sent.extend_from_slice(buffer.rest());
            }
            if close || (used == 0 && sent.len() == before) {
                drop(context);
                writer.close();
                return (String::from_utf8(sent).expect("UTF-8"), !close);
            }
        }
    }

    fn assert_response(request: &str, status: &str, connection: Option<&str>) {
        let (text, open) = responses(request);
        assert!(text.starts_with(status), "{request}: {text}");
        let said = text.lines().find_map(|line| line.strip_prefix("Connection: "));
        assert_eq!((said, open), (connection, connection == Some("keep-alive")), "{request}");
    }

    /// Names, order and values, as a network trace of stock shows them.
    #[test]
    fn heads_are_stocks_byte_for_byte() {
        const DATE: &str = "Date: Thu, 01 Jan 1970 00:00:00 GMT\r\n";
        const JSON: &str =
            "Content-Type: application/json; charset=utf-8\r\nX-Nsq-Content-Type: nsq; version=1.0\r\n";
        for (request, expected) in [
            (
                "GET /ping HTTP/1.1",
                format!("200 OK\r\n{DATE}Content-Length: 2\r\nContent-Type: text/plain; charset=utf-8\r\n\r\nOK"),
            ),
            (
                "PUT /ping HTTP/1.1",
                format!(
                    "405 Method Not Allowed\r\nAllow: GET, OPTIONS\r\n{JSON}{DATE}Content-Length: 32\r\n\r\n\
                     {{\"message\":\"METHOD_NOT_ALLOWED\"}}"
                ),
            ),
            (
                "HEAD /topic/create?topic=t HTTP/1.1",
                format!(
                    "405 Method Not Allowed\r\nAllow: OPTIONS, POST\r\n{JSON}{DATE}Content-Length: 32\r\n\r\n"
                ),
            ),
            (
                "GET /ping/ HTTP/1.1",
                format!(
                    "301 Moved Permanently\r\nContent-Type: text/html; charset=utf-8\r\nLocation: /ping\r\n{DATE}\
                     Content-Length: 40\r\n\r\n<a href=\"/ping\">Moved Permanently</a>.\n\n"
                ),
            ),
            (
                "POST /topic/create?topic=t HTTP/1.1",
                format!("200 OK\r\nX-Nsq-Content-Type: nsq; version=1.0\r\n{DATE}Content-Length: 0\r\n\r\n"),
            ),
            (
                "OPTIONS /ping HTTP/1.1\r\nConnection: close",
                format!("200 OK\r\nAllow: GET, OPTIONS\r\n{DATE}Content-Length: 0\r\nConnection: close\r\n\r\n"),
            ),
            ("OPTIONS * HTTP/1.1", format!("200 OK\r\nContent-Length: 0\r\n{DATE}\r\n")),
            (
                "HEAD /ping HTTP/1.1\r\nExpect: x",
                format!("417 Expectation Failed\r\nConnection: close\r\n{DATE}\r\n"),
            ),
        ] {
            let (text, _) = responses(&format!("{request}\r\nHost: h\r\n\r\n"));
            assert_eq!(text, format!("HTTP/1.1 {expected}"), "{request}");
        }
    }

    #[test]
    fn a_long_response_ends_an_http_1_0_connection() {
        let asking = |path| format!("GET {path} HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
        assert_response(&asking("/ping"), "HTTP/1.0 200", Some("keep-alive"));
        assert_response(&asking("/topics"), "HTTP/1.0 200", None);
    }

    #[test]
    fn http_1_0_is_told_of_a_close_as_go_tells_it() {
        assert_response("GET /ping HTTP/1.0\r\nExpect: x\r\n\r\n", "HTTP/1.0 417", Some("close"));
        let body = "GET /ping HTTP/1.0\r\nContent-Length: 300000\r\n";
        assert_response(&format!("{body}Connection: keep-alive\r\n\r\n"), "HTTP/1.0 200", Some("close"));
        assert_response(&format!("{body}\r\n"), "HTTP/1.0 200", None);
    }

    #[test]
    fn the_body_of_options_star_is_read_up_to_a_limit() {
        let request = |expect: &str, length: usize| {
            let body = "x".repeat(length);
            format!("OPTIONS * HTTP/1.1\r\nHost: h\r\n{expect}Content-Length: {length}\r\n\r\n{body}")
        };
        let (text, open) = responses(&request("Expect: 100-continue\r\n", 4096));
        assert!(text.starts_with("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n"), "{text}");
        assert!(open && !text.contains("Connection: "), "{text}");
        assert_response(&request("", 4097), "HTTP/1.1 200", Some("close"));
    }
}
