//! Connections whose client waits for the server: for the response to a request, or for events.

use super::head::{Head, Version};
use super::parse::{HeadLimits, HeadReader, Parsed};
use super::reads::{Called, Wait, Waited};
use super::response::Exchange;
use super::routes::{Page, Route, route};
use super::session::{Session, State, respond};
use super::status::TOO_MANY_WATCHES;
use crate::admission::Permit;
use crate::clock::Timestamp;
use crate::context::{Stage, WorkerContext};
use crate::limits::{Limit, TICK};
use crate::output::{Framing, Output};
use crate::spread::spread;
use crate::watch::{News, Resume, Watch};

/// A request that waits for a change. Its head is kept as it came and read again when it is asked whether to respond.
pub(super) struct Parked {
    head: Vec<u8>,
    wait: Wait,
    until: Timestamp,
    /// Given back when it ends.
    _permit: Permit,
}

impl Session {
    /// Whether the client waits for the server.
    pub fn is_parked(&self) -> bool {
        matches!(self.state, State::Parked(_) | State::Watching(_))
    }

    /// When a client that waits is to be looked at again if nothing happens; `MAX` for any other.
    pub fn wakes_at(&self) -> Timestamp {
        match &self.state {
            State::Parked(parked) => parked.until,
            State::Watching(watch) => watch.wakes_at(),
            State::Head | State::Body(_) => Timestamp::MAX,
        }
    }

    /// A request waits, unless too many do. False when the connection is to close.
    pub(super) fn park(
        &mut self,
        wait: Wait,
        (head, text): (&Head<'_>, &[u8]),
        close: bool,
        context: &mut WorkerContext,
        output: &mut Output,
    ) -> bool {
        let permit = match self.permit(context) {
            Ok(permit) => permit,
            Err(limit) => return self.too_many(limit, head, close, context, output),
        };
        // Up to a sixteenth early, so that waits that began together do not end together.
        let (earliest, latest) = (wait.most / 16 * 15, wait.most.saturating_sub(TICK));
        let share = spread(self.token, context.now);
        let until = context.now.after(earliest + latest.saturating_sub(earliest).mul_f64(share));
        // The line ends that may stand before a request that follows a POST are not the head's.
        let newlines = text.iter().take_while(|byte| b"\r\n".contains(byte)).count();
        let parked = Parked { head: text[newlines..].to_vec(), wait, until, _permit: permit };
        if let Some(subject) = wait.subject {
            context.watchers.park(subject, self.token);
        }
        self.state = State::Parked(Box::new(parked));
        // What has changed between the look and the wait is found by another look.
        self.respond_to_parked(context.stage > Stage::Serving, context, output)
    }

    fn permit(&self, context: &WorkerContext) -> Result<Permit, Limit> {
        context.shared.watches.0.take(self.peer.ip(), &context.limits)
    }

    fn too_many(
        &self,
        limit: Limit,
        head: &Head<'_>,
        close: bool,
        context: &mut WorkerContext,
        output: &mut Output,
    ) -> bool {
        context.exceeded(limit, self.peer);
        respond(head, close, context, output).retry_after(TOO_MANY_WATCHES)
    }

    /// Looks again whether a request that waits is to be responded to. False when the connection is to close.
    pub(super) fn respond_to_parked(
        &mut self,
        is_over: bool,
        context: &mut WorkerContext,
        output: &mut Output,
    ) -> bool {
        let State::Parked(parked) = std::mem::replace(&mut self.state, State::Head) else {
            unreachable!("called for a request that waits")
        };
        let mut heads = HeadReader::default();
        let Parsed::Request { head, .. } = heads.read(&parked.head, HeadLimits::of(&context.limits)) else {
            // A reload has made its head too large.
            self.unpark(&parked, context);
            return false;
        };
        let Route::Endpoint(endpoint) = route(head.method, &head.url, Page::Off) else {
            unreachable!("it was routed before")
        };
        let close = context.stage > Stage::Serving;
        let waited = Waited { seen: parked.wait.seen, is_over };
        let exchange = Exchange { request: &head, endpoint: Some(endpoint), close, body: b"", output };
        match self.call(endpoint, exchange, Some(waited), context) {
            Called::Responded(_, keep) => {
                self.unpark(&parked, context);
                keep
            }
            Called::Wait(_) | Called::Watch(_) => {
                self.state = State::Parked(parked);
                true
            }
        }
    }

    fn unpark(&self, parked: &Parked, context: &mut WorkerContext) {
        if let Some(subject) = parked.wait.subject {
            context.watchers.unpark(subject, self.token);
        }
    }

    /// Begins a stream of events, unless there are too many. False when the connection is to close.
    pub(super) fn watch(
        &mut self,
        resume: Resume,
        head: &Head<'_>,
        close: bool,
        context: &mut WorkerContext,
        output: &mut Output,
    ) -> bool {
        if !head.wants_body() {
            return respond(head, close, context, output).event_stream();
        }
        let permit = match self.permit(context) {
            Ok(permit) => permit,
            Err(limit) => return self.too_many(limit, head, close, context, output),
        };
        respond(head, true, context, output).event_stream();
        let framing = if head.version == Version::Http11 { Framing::Chunked } else { Framing::Plain };
        context.look_whether_settled();
        let times = (context.now, context.watch.age_max);
        let watch = Watch::begin(resume, (framing, self.token, permit), times, &mut context.watchers, output);
        self.state = State::Watching(Box::new(watch));
        true
    }

    /// Looks whether anything is due for a client that waits: its time is over, something has changed, it has read what it
    /// was sent, or the server stops. False when the connection is to close.
    pub fn wake(&mut self, context: &mut WorkerContext, output: &mut Output) -> bool {
        let is_stopping = context.stage > Stage::Serving;
        match &mut self.state {
            State::Parked(parked) => {
                let is_over = is_stopping || context.now >= parked.until;
                self.respond_to_parked(is_over, context, output)
            }
            State::Watching(watch) => watch.wake(context.now, is_stopping, &mut context.watchers, output),
            State::Head | State::Body(_) => true,
        }
    }

    /// Takes news for a client that watches.
    pub fn push(&mut self, news: &News, context: &mut WorkerContext, output: &mut Output) {
        if let State::Watching(watch) = &mut self.state {
            watch.push(news, context.now, &mut context.watchers, output);
        }
    }

    /// The connection ends: its client waits no more.
    pub fn end(&mut self, context: &mut WorkerContext) {
        match std::mem::replace(&mut self.state, State::Head) {
            State::Parked(parked) => self.unpark(&parked, context),
            State::Watching(watch) => watch.end(&mut context.watchers),
            State::Head | State::Body(_) => {}
        }
    }
}
