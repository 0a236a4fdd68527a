//! One client's connection: requests in, responses out, in order.

use std::net::SocketAddr;
use std::time::Instant;

use super::access::{Denial, audit};
use super::body::{BodyDecoder, BodyState};
use super::handlers;
use super::head::{Body, Expect, Head, Persistence, Refusal};
use super::parse::{HeadLimits, HeadReader, Parsed};
use super::reads::{Called, Waited};
use super::response::{Exchange, Kind, Responder, plain_at_tls, refused, unasked};
use super::routes::{Page, Route, endpoint_at, route};
use super::status::{
    ApiError, BODY_TOO_LARGE, HANDED_OVER, INVALID_REQUEST, METHOD_NOT_ALLOWED, NOT_FOUND, REQUEST_TIMEOUT,
    Status, TOO_MANY_CONNECTIONS,
};
use super::waiting::Parked;
use crate::access::{Class, Client, Decision};
use crate::context::{Advance, Stage, WorkerContext};
use crate::endpoint::Endpoint;
use crate::io::Token;
use crate::limits::{
    CONFIG_VALUE_BYTES_MAX, HTTP_OPTIONS_BODY_BYTES_MAX, HTTP_UNREAD_BODY_BYTES_MAX, Limit, Limits,
};
use crate::listen::{Protocol, Service};
use crate::log::Level;
use crate::output::Output;
use crate::transport;
use crate::v1::parse::MAGIC;
use crate::watch::Watch;

/// The protocol's state on one connection.
pub struct Session {
    pub(super) state: State,
    /// In a box, as it is the larger part, and most connections are of nsqds.
    heads: Box<HeadReader>,
    service: Service,
    pub(super) peer: SocketAddr,
    /// The connection's, by which it is woken.
    pub(super) token: Token,
    client: Client,
}

pub(super) enum State {
    Head,
    /// The response waits for the end of the request's body.
    Body(Box<Pending>),
    /// The response waits for a change of what it shows.
    Parked(Box<Parked>),
    /// The response is a stream of events.
    Watching(Box<Watch>),
}

/// A request whose body is on its way. Its head is kept as it came and read again when the response is due:
/// requests with bodies are rare, and the others keep nothing.
pub(super) struct Pending {
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
        // The page takes no body.
        match route(head.method, &head.url, Page::Off) {
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
    pub fn new(service: Service, peer: SocketAddr, token: Token) -> Self {
        Self { state: State::Head, heads: Box::default(), service, peer, token, client: Client::default() }
    }

    pub fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// The client has shown a certificate with this name, if any.
    pub fn is_named(&mut self, name: Option<String>) {
        self.client.is_named(name);
    }

    /// What runs while nothing comes, `rest` being what is there of a request's head; `None` where the client waits for the
    /// server.
    pub fn awaited(&self, rest: &[u8]) -> Option<Limit> {
        match self.state {
            State::Head if rest.is_empty() => Some(Limit::IdleTimeout),
            State::Head | State::Body(_) => Some(Limit::RequestTimeout),
            State::Parked(_) | State::Watching(_) => None,
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
                // What follows waits for the end of this.
                State::Parked(_) | State::Watching(_) => break,
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
            State::Parked(_) => _ = self.respond_to_parked(true, context, output),
            State::Watching(_) => {}
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
            return self.respond((head, text), b"", close, context, output);
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
            return self.respond((head, text), b"", true, context, output);
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
            body => {
                let close = close || body.is_err();
                self.respond((&head, &pending.head), pending.decoder.kept(), close, context, output)
            }
        }
    }

    fn refuse_body(&self, head: &Head<'_>, context: &mut WorkerContext, output: &mut Output) -> bool {
        context.exceeded(Limit::RequestBodySize, self.peer);
        respond(head, true, context, output).error(BODY_TOO_LARGE, None)
    }

    /// Responds to a request, whose head is this text, or finds that it waits. False when the connection is to close.
    fn respond(
        &mut self,
        (head, text): (&Head<'_>, &[u8]),
        body: &[u8],
        close: bool,
        context: &mut WorkerContext,
        output: &mut Output,
    ) -> bool {
        let begun = context.log.enabled(Level::Debug).then(Instant::now);
        let page = match (context.has_ui, head.accepts.html) {
            (false, _) => Page::Off,
            (true, false) => Page::On,
            (true, true) => Page::Wanted,
        };
        let (status, keep) = match route(head.method, &head.url, page) {
            Route::Endpoint(endpoint) => {
                let exchange = Exchange { request: head, endpoint: Some(endpoint), close, body, output };
                match self.call(endpoint, exchange, None, context) {
                    Called::Responded(status, keep) => (status, keep),
                    Called::Wait(wait) => return self.park(wait, (head, text), close, context, output),
                    Called::Watch(resume) => return self.watch(resume, head, close, context, output),
                }
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
    pub(super) fn call(
        &mut self,
        endpoint: Endpoint,
        exchange: Exchange<'_>,
        waited: Option<Waited>,
        context: &mut WorkerContext,
    ) -> Called {
        let (request, peer) = (exchange.request, self.peer);
        let class = endpoint.class(request.method);
        let decision = self.client.decide(class, (peer.ip(), request.values.token), &context.access);
        if let Some(denial) = Denial::of(&decision, self.service, context.server.https_port) {
            let (status, keep) = denial.respond(exchange, peer, context);
            return Called::Responded(status, keep);
        }
        // What it changed here would be lost.
        if class != Class::Admin {
            return handlers::call(endpoint, exchange, peer, waited, context);
        }
        let (status, keep) = if context.stage == Stage::HandedOver {
            (HANDED_OVER.0, exchange.responder(&context.response_head, &context.counters).error(HANDED_OVER, None))
        } else {
            handlers::change(endpoint, exchange, peer, context)
        };
        if let Decision::Allowed(who) = decision {
            audit(request, who.as_deref(), peer, status, context);
        }
        Called::Responded(status, keep)
    }
}

pub(super) fn respond<'a>(
    request: &'a Head<'a>,
    close: bool,
    context: &'a WorkerContext,
    output: &'a mut Output,
) -> Responder<'a> {
    let endpoint = endpoint_at(&request.url.path);
    Exchange { request, endpoint, close, body: b"", output }.responder(&context.response_head, &context.counters)
}

#[cfg(test)]
mod tests;
