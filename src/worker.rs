//! The worker: events in, requests out, the same over io_uring, epoll and a simulation.
//!
//! An iteration handles all events, commits the batch of changes, and only then requests the sends, one for each
//! connection. So no response leaves before what it promises is visible to every lookup.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use crate::admission::Admitted;
use crate::cause::Cause;
use crate::clock::Timestamp;
use crate::connection::{Connection, Phase, Receive, Session, Slots};
use crate::context::WorkerContext;
use crate::drain::Drain;
use crate::http;
use crate::io::{Event, ReceiveEnd, Request, SendBuffer, Service, Socket, Token};
use crate::limits::{
    ACCEPT_BACKOFF, CONNECTIONS_MAX, EXPIRY_DELAY_MAX, LINGER, LOOKUPS_PREFETCHED_MIN, Limit,
    SPARE_BUFFER_BYTES_MAX, SPARE_BUFFERS_MAX, TICK,
};
use crate::listening::{Listening, Wanted};
use crate::output::Output;
use crate::registry::{ProducerId, Source};

/// One event loop's state, without its ring.
pub struct Worker {
    number: u32,
    context: WorkerContext,
    slots: Slots,
    listening: Listening,
    requests: Vec<Request>,
    /// Connections that may have something to send at the end of the turn.
    dirty: Vec<Token>,
    spare: Vec<Vec<u8>>,
    next_tick: Timestamp,
    /// No deadline is earlier: until then none is looked at.
    next_deadline: Timestamp,
    /// What had arrived by then has been received and acted on. Deadlines are compared with this time and not with the
    /// present one: a client that has acted in time is never late because the server was.
    received_until: Timestamp,
    /// The server stops.
    drain: Option<Drain>,
}

impl Worker {
    /// A worker that will accept with its first requests.
    pub fn new(number: u32, context: WorkerContext) -> Self {
        let now = context.now;
        Self {
            number,
            context,
            slots: Slots::default(),
            listening: Listening::new(now),
            requests: Vec::new(),
            dirty: Vec::new(),
            spare: Vec::new(),
            next_tick: now,
            next_deadline: Timestamp::MAX,
            received_until: now,
            drain: None,
        }
    }

    /// Begins a turn.
    pub fn begin_turn(&mut self, now: Timestamp) {
        self.context.now = now;
    }

    /// Looks ahead at what the events of this turn will show, if that is worth it.
    pub fn look_ahead<'a>(&mut self, received: impl Iterator<Item = &'a [u8]>) {
        if self.context.reader.take_misses() >= LOOKUPS_PREFETCHED_MIN {
            self.context.reader.prefetch(received.filter_map(http::asked_topic));
        }
    }

    /// Takes what happened. What it leads to is asked for at the end of the turn.
    ///
    /// # Panics
    /// When the event answers what was not asked: completions and slots are out of step.
    pub fn handle(&mut self, event: Event<'_>) {
        match event {
            Event::Accepted { service, socket, peer, armed } => self.accepted(service, socket, peer, armed),
            Event::AcceptEnded { service, error } => self.accept_ended(service, error),
            Event::Received { token, bytes, armed } => self.received(token, bytes, armed),
            Event::ReceiveEnded { token, end } => self.receive_ended(token, &end),
            Event::Sent { token, buffer, sent } => self.sent(token, buffer, sent),
            Event::ListenerClosed(service) => self.listening.closed(service),
            Event::Closed { token } => {
                let connection = self.slots.remove(token);
                assert_eq!(connection.phase, Phase::Closing, "closed when asked to");
                self.context.counters.closed[connection.session.service() as usize].increment();
            }
            Event::Stop => self.begin_drain(),
        }
    }

    /// Whether the turn should end, and what else has happened wait for the next.
    pub fn is_full(&self) -> bool {
        self.context.is_full()
    }

    /// Commits, then asks for everything that the turn led to. `wall` tells the time of day, which is wanted
    /// once a tick. Returns whether a tick has passed.
    pub fn end_turn(&mut self, wall: impl FnOnce() -> SystemTime) -> bool {
        let ticks = self.context.now >= self.next_tick;
        if ticks {
            self.next_tick = self.context.now.after(TICK);
            self.context.tick(wall());
            if self.received_until > self.next_deadline {
                self.expire();
            }
            if self.received_until > self.context.next_silence {
                self.notice_silence();
            }
        }
        // The next turn begins with all that has arrived until now, unless this one has left some of it.
        let (now, last) = (self.context.now, self.received_until);
        if !self.context.is_full() || now.since(last) > EXPIRY_DELAY_MAX {
            self.received_until = now;
        }
        self.request_accepts();
        self.advance_drain();
        self.context.commit();
        while let Some(token) = self.dirty.pop() {
            self.progress(token);
        }
        if self.drain.as_ref().is_some_and(|drain| drain.is_over(self.context.now)) {
            for token in self.slots.tokens(|_| true) {
                self.context.exceeded(Limit::DrainTimeout, self.slots.get(token).session.peer());
            }
        }
        ticks
    }

    /// What is asked of the kernel.
    pub fn requests(&mut self) -> impl Iterator<Item = Request> {
        self.requests.drain(..)
    }

    /// How long the worker may sleep if nothing happens.
    pub fn timeout(&self) -> Duration {
        let grace_end = self.drain.as_ref().and_then(Drain::grace_end);
        let next = [self.listening.next_accept(self.context.now), grace_end];
        next.into_iter().flatten().fold(self.next_tick, Timestamp::min).since(self.context.now).min(TICK)
    }

    /// Whether a drain is over.
    pub fn is_finished(&self) -> bool {
        self.drain.as_ref().is_some_and(|drain| {
            (self.listening.are_closed() && self.slots.is_empty()) || drain.is_over(self.context.now)
        })
    }

    /// How many connections there are.
    pub fn connections(&self) -> usize {
        self.slots.len()
    }

    fn accepted(&mut self, service: Service, socket: Socket, peer: SocketAddr, armed: bool) {
        if !armed {
            self.accept_ended(service, None);
        }
        // A listener for every interface is an IPv6 socket; stock shows the IPv4 peers as such.
        let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
        self.context.counters.accepted[service as usize].increment();
        if service == Service::V1 {
            self.context.log.info(format_args!("TCP: new client({peer})"));
        }
        let next = self.slots.next();
        let id = ProducerId::new(Source::Worker(self.number), next.slot, next.generation);
        let session = Session::new(service, id, peer);
        let (admitted, permit) = self.context.shared.admission.enter(peer.ip(), &self.context.limits);
        let output = Output::new(self.context.limits.size(Limit::OutputSize));
        let token = self.slots.insert(Connection::new(session, permit, output));
        self.requests.push(Request::Open { token, socket });
        match admitted {
            Admitted::Welcome => {
                self.await_input(token);
                self.receive(token);
            }
            Admitted::Refused(limit) => self.refuse_over(token, limit),
            Admitted::Dropped(limit) => {
                self.context.exceeded(limit, peer);
                self.shut_down(token, Cause::Over(limit));
            }
        }
    }

    fn accept_ended(&mut self, service: Service, error: Option<io::Error>) {
        let mut until = self.context.now;
        if let Some(error) = error {
            until = until.after(ACCEPT_BACKOFF);
            self.context.counters.accept_failures[service as usize].increment();
            if let Some(times) = self.context.shared.metrics.accept_failures_to_tell(self.context.now) {
                self.context.log.warn(format_args!(
                    "temporary Accept() failure - {error} (times since the last such line: {times})"
                ));
            }
        }
        self.listening.accept_ended(service, until);
    }

    /// Keeps accepting while there is room, and not otherwise.
    fn request_accepts(&mut self) {
        let wanted = match &self.drain {
            Some(_) => Wanted::Close,
            None if self.slots.len() < CONNECTIONS_MAX as usize => Wanted::Accept,
            None => Wanted::Pause,
        };
        self.listening.request(wanted, self.context.now, &mut self.requests);
    }

    fn received(&mut self, token: Token, bytes: &[u8], armed: bool) {
        let connection = self.slots.get(token);
        if !armed {
            connection.receive = Receive::Idle;
        }
        self.take_input(token, bytes);
    }

    fn receive_ended(&mut self, token: Token, end: &ReceiveEnd) {
        let connection = self.slots.get(token);
        match end {
            ReceiveEnd::NoBuffers => {
                connection.receive = Receive::Idle;
                self.context.counters.no_buffers.increment();
            }
            ReceiveEnd::Stopped => connection.receive = Receive::Idle,
            ReceiveEnd::Eof => {
                connection.receive = Receive::Eof;
                return self.take_input(token, &[]);
            }
            ReceiveEnd::Failed(error) => {
                connection.receive = Receive::Eof;
                // The second where the peer's network says that it is gone.
                if matches!(error.kind(), io::ErrorKind::TimedOut | io::ErrorKind::HostUnreachable) {
                    self.context.exceeded(Limit::DeadPeerTimeout, connection.session.peer());
                }
                self.shut_down(token, Cause::Receive(error));
            }
        }
        self.mark(token);
    }

    fn sent(&mut self, token: Token, mut buffer: SendBuffer, sent: io::Result<usize>) {
        let connection = self.slots.get(token);
        connection.sending = false;
        match sent {
            Ok(sent) => buffer.advance(sent),
            Err(error) => self.shut_down(token, Cause::Send(&error)),
        }
        let connection = self.slots.get(token);
        if !buffer.rest().is_empty() && connection.phase != Phase::ShutDown {
            return self.send(token, buffer);
        }
        if let Some(buffer) = buffer.into_owned() {
            self.keep_spare(buffer);
        }
        let connection = self.slots.get(token);
        if connection.input.is_empty() && connection.receive != Receive::Eof {
            self.await_input(token);
            self.mark(token);
        } else {
            // Room for more replies: what waited for it goes on.
            self.take_input(token, &[]);
        }
    }

    fn take_input(&mut self, token: Token, bytes: &[u8]) {
        let connection = self.slots.get(token);
        if connection.phase == Phase::Open {
            connection.output.lend(|| self.spare.pop().unwrap_or_default());
            connection.take_input(bytes, &mut self.context);
            if let Some(buffer) = connection.output.reclaim() {
                self.keep_spare(buffer);
            }
            self.await_input(token);
        }
        self.mark(token);
    }

    /// Sets the time that the peer has for what it owes. While it has something to read, another clock runs.
    fn await_input(&mut self, token: Token) {
        let connection = self.slots.get(token);
        if !connection.is_waiting() {
            return;
        }
        let awaited = connection.session.awaited(&connection.input);
        // These count from the accept and from the first byte: another byte that completes nothing does not move
        // them.
        let from_its_begin = matches!(awaited, Some(Limit::HandshakeTimeout | Limit::RequestTimeout));
        if !(from_its_begin && connection.awaited == awaited) {
            connection.awaited = awaited;
            let patience = awaited.map_or(Duration::MAX, |limit| self.context.limits.time(limit));
            self.expect_within(token, patience);
        }
    }

    fn expect_within(&mut self, token: Token, patience: Duration) {
        let deadline = self.context.now.after(patience);
        self.slots.get(token).deadline = deadline;
        self.next_deadline = self.next_deadline.min(deadline);
    }

    fn mark(&mut self, token: Token) {
        let connection = self.slots.get(token);
        if !connection.dirty {
            connection.dirty = true;
            self.dirty.push(token);
        }
    }

    /// Asks for whatever a connection needs next.
    fn progress(&mut self, token: Token) {
        let connection = self.slots.get(token);
        connection.dirty = false;
        if connection.output.is_full() && !connection.input.is_empty() && connection.receive == Receive::Armed {
            self.context.exceeded(Limit::OutputSize, connection.session.peer());
        }
        if !connection.sending
            && matches!(connection.phase, Phase::Open | Phase::Flushing)
            && let Some(buffer) = connection.output.next_buffer()
        {
            self.send(token, buffer);
        }
        let is_finishing = self.drain.as_ref().is_some_and(Drain::is_finishing);
        let connection = self.slots.get(token);
        match connection.phase {
            Phase::Open if is_finishing && connection.is_waiting() => self.shut_down(token, Cause::Shutdown),
            Phase::Open if connection.is_behind() => self.stop_receiving(token),
            Phase::Open | Phase::Lingering => self.receive(token),
            Phase::Flushing => {
                if !connection.sending && connection.output.is_empty() {
                    self.linger(token);
                } else {
                    self.receive(token);
                }
            }
            Phase::ShutDown | Phase::Closing => {}
        }
        let connection = self.slots.get(token);
        let over = match connection.phase {
            Phase::Lingering => connection.receive == Receive::Eof,
            Phase::ShutDown => true,
            Phase::Open | Phase::Flushing | Phase::Closing => false,
        };
        if over && connection.is_quiet() {
            connection.phase = Phase::Closing;
            self.requests.push(Request::Close { token });
        }
    }

    fn send(&mut self, token: Token, buffer: SendBuffer) {
        let connection = self.slots.get(token);
        connection.sending = true;
        connection.awaited = Some(Limit::OutputTimeout);
        self.requests.push(Request::Send { token, buffer });
        self.expect_within(token, self.context.limits.time(Limit::OutputTimeout));
    }

    fn receive(&mut self, token: Token) {
        let connection = self.slots.get(token);
        if connection.receive == Receive::Idle {
            connection.receive = Receive::Armed;
            self.requests.push(Request::Receive { token });
        }
    }

    /// Backpressure: no more is read than was asked about.
    fn stop_receiving(&mut self, token: Token) {
        let connection = self.slots.get(token);
        if connection.receive == Receive::Armed {
            connection.receive = Receive::Stopping;
            self.requests.push(Request::StopReceive { token });
            self.context.counters.receives_stopped.increment();
        }
    }

    /// Ends the protocol with an error that says why; the connection ends when that is sent.
    fn refuse_over(&mut self, token: Token, limit: Limit) {
        self.slots.get(token).refuse_over(limit, &mut self.context);
        self.mark(token);
    }

    fn linger(&mut self, token: Token) {
        self.expect_within(token, LINGER);
        let connection = self.slots.get(token);
        connection.phase = Phase::Lingering;
        connection.awaited = None;
        if connection.receive == Receive::Eof {
            return;
        }
        self.requests.push(Request::ShutdownWrite { token });
        self.receive(token);
    }

    /// Ends both directions of a connection at once: its peer is gone or out of time, or is owed nothing.
    fn shut_down(&mut self, token: Token, cause: Cause<'_>) {
        let connection = self.slots.get(token);
        if matches!(connection.phase, Phase::ShutDown | Phase::Closing) {
            return;
        }
        connection.flush(cause, &mut self.context);
        connection.phase = Phase::ShutDown;
        connection.deadline = Timestamp::MAX;
        self.requests.push(Request::ShutdownBoth { token });
        self.mark(token);
    }

    /// Ends what is out of time, and finds out when that is to be looked for again.
    fn expire(&mut self) {
        let until = self.received_until;
        let overdue = self.slots.tokens(|connection| connection.deadline < until);
        self.next_deadline = self.slots.earliest_deadline(until);
        for token in overdue {
            let connection = self.slots.get(token);
            match connection.awaited {
                Some(limit) if connection.is_waiting() => self.refuse_over(token, limit),
                Some(limit) => {
                    self.context.exceeded(limit, connection.session.peer());
                    self.shut_down(token, Cause::Over(limit));
                }
                // Its protocol is over already.
                None => self.shut_down(token, Cause::Eof),
            }
        }
    }

    /// Looks for producers that have fallen silent, and finds out when the next one may.
    fn notice_silence(&mut self) {
        self.context.next_silence = Timestamp::MAX;
        for connection in self.slots.iter_mut() {
            connection.session.notice_silence(self.received_until, &mut self.context);
        }
    }

    fn begin_drain(&mut self) {
        self.context.is_draining = true;
        let (now, timeout) = (self.context.now, self.context.limits.time(Limit::DrainTimeout));
        self.drain.get_or_insert_with(|| Drain::new(now, timeout));
    }

    fn advance_drain(&mut self) {
        let (now, closed, full) = (self.context.now, self.listening.are_closed(), self.context.is_full());
        if self.drain.as_mut().is_some_and(|drain| drain.advance(now, closed, !full)) {
            for token in self.slots.tokens(Connection::is_waiting) {
                self.shut_down(token, Cause::Shutdown);
            }
        }
    }

    fn keep_spare(&mut self, mut buffer: Vec<u8>) {
        if self.spare.len() < SPARE_BUFFERS_MAX && buffer.capacity() <= SPARE_BUFFER_BYTES_MAX {
            buffer.clear();
            self.spare.push(buffer);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::context::ServerInfo;
    use crate::limits::Limits;
    use crate::log::Log;
    use crate::registry::{Lifetimes, Registry};

    fn worker(now: Timestamp) -> Worker {
        let lifetimes = Lifetimes { inactive_producer_timeout: TICK, ..Lifetimes::default() };
        let (registry, server) = (Arc::new(Registry::new(lifetimes)), Arc::<ServerInfo>::default());
        let context =
            WorkerContext::new(registry, server, Limits::default(), Arc::default(), Log::disabled(), now);
        Worker::new(0, context)
    }

    /// Each listener rests for as long as it should, whatever the other does.
    #[test]
    fn a_listener_is_armed_again_when_its_rest_is_over() {
        let start = Timestamp::from_nanos(1);
        let mut worker = worker(start);
        let mut turn = |after: Duration, failing: Option<Service>| {
            worker.begin_turn(start.after(after));
            if let Some(service) = failing {
                let error = Some(io::ErrorKind::Other.into());
                worker.handle(Event::AcceptEnded { service, error });
            }
            worker.end_turn(|| SystemTime::UNIX_EPOCH);
            (format!("{:?}", worker.requests().collect::<Vec<_>>()), worker.timeout())
        };
        let half = ACCEPT_BACKOFF / 2;
        assert_eq!(turn(Duration::ZERO, None), ("[Accept(V1), Accept(Http)]".into(), TICK));
        assert_eq!(turn(Duration::ZERO, Some(Service::V1)), ("[]".into(), ACCEPT_BACKOFF));
        assert_eq!(turn(half, Some(Service::Http)), ("[]".into(), half));
        assert_eq!(turn(2 * half, None), ("[Accept(V1)]".into(), half));
        assert_eq!(turn(3 * half, None), ("[Accept(Http)]".into(), TICK.saturating_sub(3 * half)));
    }
}
