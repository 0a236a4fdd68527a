//! One client's connection: requests in, answers out, in order.

use std::net::SocketAddr;
use std::time::Instant;

use super::answer::{ApiError, BODY_TOO_LARGE, INVALID_REQUEST, METHOD_NOT_ALLOWED, NOT_FOUND, Status};
use super::body::{BodyDecoder, BodyState};
use super::handlers;
use super::head::{Body, Expect, Head, Persistence};
use super::parse::{HeadScan, Parsed, parse_head};
use super::response::{Kind, Responder};
use super::routes::{Route, route};
use crate::limits::{HTTP_BODY_BYTES_MAX, HTTP_UNREAD_BODY_BYTES_MAX};
use crate::log::Level;
use crate::output::Output;
use crate::turn::{Advance, Turn};

/// The protocol's state on one connection.
pub struct Session {
    state: State,
    peer: SocketAddr,
}

enum State {
    Head(HeadScan),
    /// The answer waits for the end of the request's body.
    Body(Box<Pending>),
}

/// A request whose body is on its way. Its head is kept as it came and read again when the answer is due:
/// requests with bodies are rare, and the others keep nothing.
struct Pending {
    head: Vec<u8>,
    decoder: BodyDecoder,
    /// Stock reads the body before it answers, so a broken body is an error; otherwise the body only has to
    /// be out of the way of the next request.
    wanted: bool,
}

impl Session {
    pub fn new(peer: SocketAddr) -> Self {
        Self { state: State::Head(HeadScan::first()), peer }
    }

    /// Whether the peer owes the rest of a request, `rest` being what is there of its head.
    pub fn is_mid_input(&self, rest: &[u8]) -> bool {
        !rest.is_empty() || matches!(self.state, State::Body(_))
    }

    /// Takes what is complete of `input` and stages the answers.
    pub fn advance(&mut self, input: &[u8], turn: &mut Turn, output: &mut Output) -> Advance {
        let mut used = 0;
        while output.has_room() {
            let rest = &input[used..];
            let step = match &mut self.state {
                State::Head(scan) => match parse_head(rest, scan) {
                    Parsed::NeedMore => break,
                    Parsed::Refused(refusal) => {
                        output.staged().extend_from_slice(refusal.response().as_bytes());
                        return Advance { used: input.len(), close: true };
                    }
                    Parsed::Request { head, used } => {
                        let keep = self.begin(&head, &rest[..used], turn, output);
                        Advance { used, close: !keep }
                    }
                },
                State::Body(_) if rest.is_empty() => break,
                State::Body(_) => self.go_on(rest, turn, output),
            };
            used += step.used;
            if step.close {
                return Advance { used: input.len(), close: true };
            }
        }
        Advance { used, close: false }
    }

    /// The peer will send no more, and `rest` is what it left unfinished.
    pub fn finish(&mut self, rest: &[u8], turn: &mut Turn, output: &mut Output) {
        match &self.state {
            State::Head(scan) => {
                if let Some(refusal) = scan.refusal_at_eof(rest) {
                    output.staged().extend_from_slice(refusal.response().as_bytes());
                }
            }
            State::Body(_) => {
                self.end_body(Err(INVALID_REQUEST), turn, output);
            }
        }
    }

    /// Answers a request, or puts it aside until its body is over. False when the connection is to close.
    fn begin(&mut self, head: &Head<'_>, text: &[u8], turn: &mut Turn, output: &mut Output) -> bool {
        self.state = State::Head(HeadScan::after(head.method));
        if head.expect == Expect::Unknown {
            return respond(head, true, turn, output).whole(Status::ExpectationFailed, Kind::None, b"");
        }
        if head.body == Body::None {
            return self.answer(head, false, turn, output);
        }
        let wanted = match route(head.method, &head.url) {
            Route::Endpoint(endpoint) => handlers::reads_body(endpoint, head.url.query),
            _ => false,
        };
        if wanted && head.expect == Expect::Continue {
            output.staged().extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
        }
        let too_long = matches!(head.body, Body::Length(length) if length >= HTTP_UNREAD_BODY_BYTES_MAX);
        let unwelcome = too_long || head.expect == Expect::Continue || head.persistence == Persistence::Close;
        if !wanted && unwelcome {
            return self.answer(head, true, turn, output);
        }
        // The line ends that may stand before a request that follows a POST are not the head's.
        let newlines = text.iter().take_while(|byte| b"\r\n".contains(byte)).count();
        let decoder = BodyDecoder::new(head.body);
        self.state = State::Body(Box::new(Pending { head: text[newlines..].to_vec(), decoder, wanted }));
        true
    }

    fn go_on(&mut self, input: &[u8], turn: &mut Turn, output: &mut Output) -> Advance {
        let State::Body(pending) = &mut self.state else { unreachable!("called for a body") };
        let progress = pending.decoder.consume(input);
        let limit = if pending.wanted { HTTP_BODY_BYTES_MAX } else { HTTP_UNREAD_BODY_BYTES_MAX };
        let outcome = match progress.state {
            BodyState::More | BodyState::Done if pending.decoder.received() > limit => Err(BODY_TOO_LARGE),
            BodyState::More => return Advance { used: progress.used, close: false },
            BodyState::Done => Ok(()),
            BodyState::Malformed => Err(INVALID_REQUEST),
        };
        Advance { used: progress.used, close: !self.end_body(outcome, turn, output) }
    }

    /// Answers the request that was put aside. False when the connection is to close.
    fn end_body(&mut self, body: Result<(), ApiError>, turn: &mut Turn, output: &mut Output) -> bool {
        let State::Body(pending) = std::mem::replace(&mut self.state, State::Head(HeadScan::first())) else {
            unreachable!("called for a body")
        };
        let Parsed::Request { head, .. } = parse_head(&pending.head, &mut HeadScan::first()) else {
            unreachable!("it was parsed before")
        };
        self.state = State::Head(HeadScan::after(head.method));
        match body {
            Err(error) if pending.wanted => respond(&head, true, turn, output).error(error, None),
            body => self.answer(&head, body.is_err(), turn, output),
        }
    }

    fn answer(&self, head: &Head<'_>, close: bool, turn: &mut Turn, output: &mut Output) -> bool {
        let begun = turn.log.enabled(Level::Debug).then(Instant::now);
        let (status, keep) = match route(head.method, &head.url) {
            Route::Endpoint(endpoint) => {
                let answer = handlers::call(endpoint, head.url.query, turn);
                (answer.status(), respond(head, close, turn, output).answer(answer, &turn.server))
            }
            Route::Redirect { status, location, body } => {
                let (status, kind) = match status {
                    301 => (Status::MovedPermanently, Kind::Html),
                    _ => (Status::TemporaryRedirect, Kind::None),
                };
                let location = Some(("Location", location.as_slice()));
                (status, respond(head, close, turn, output).with_header(status, kind, location, &body))
            }
            Route::Options { allow } => {
                let allow = allow.map(|allow| ("Allow", allow.as_bytes()));
                (Status::Ok, respond(head, close, turn, output).with_header(Status::Ok, Kind::None, allow, b""))
            }
            Route::MethodNotAllowed { allow } => (
                Status::MethodNotAllowed,
                respond(head, close, turn, output).error(METHOD_NOT_ALLOWED, Some(allow)),
            ),
            Route::NotFound => (Status::NotFound, respond(head, close, turn, output).error(NOT_FOUND, None)),
        };
        if let Some(begun) = begun {
            let (code, method, peer) = (status.code(), head.method, self.peer);
            let (target, took) = (String::from_utf8_lossy(head.target), begun.elapsed());
            turn.log.debug(format_args!("{code} {method} {target} ({peer}) {took:?}"));
        }
        keep
    }
}

fn respond<'a>(request: &'a Head<'a>, close: bool, turn: &'a Turn, output: &'a mut Output) -> Responder<'a> {
    Responder { request, close, date: &turn.date, output }
}
