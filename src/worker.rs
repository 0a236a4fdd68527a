//! The worker: events in, requests out. Plays the same against a ring and against a simulation.
//!
//! A turn takes all that has happened, event by event, then commits the batch of mutations, then asks for the
//! sends, one for each connection. So a reply never leaves before what it promises is visible to every lookup.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use crate::clock::Timestamp;
use crate::connection::{Connection, Phase, Receive, Session, Slots};
use crate::io::{Event, ReceiveEnd, Request, SendBuffer, Service, Socket, Token};
use crate::limits::{
    ACCEPT_BACKOFF, CONNECTIONS_MAX, DRAIN_MAX, HTTP_IDLE_MAX, LINGER, SPARE_BUFFER_BYTES_MAX, SPARE_BUFFERS_MAX,
    TICK, UNFINISHED_INPUT_MAX, UNREAD_OUTPUT_MAX,
};
use crate::registry::ProducerId;
use crate::turn::Turn;

/// One event loop's state, without its ring.
pub struct Worker {
    number: u32,
    turn: Turn,
    slots: Slots,
    accepting: [Accepting; Service::ALL.len()],
    requests: Vec<Request>,
    /// Connections that may have something to send at the end of the turn.
    dirty: Vec<Token>,
    spare: Vec<Vec<u8>>,
    next_tick: Timestamp,
    /// When a drain that was asked for ends, whatever is left.
    draining: Option<Timestamp>,
}

/// A listener's multishot accept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Accepting {
    Armed,
    /// Armed, and asked to stop.
    Stopping,
    /// To be armed again, not before this time.
    Resting {
        until: Timestamp,
    },
}

impl Worker {
    /// A worker that will accept with its first requests.
    pub fn new(number: u32, turn: Turn) -> Self {
        let now = turn.now;
        Self {
            number,
            turn,
            slots: Slots::default(),
            accepting: [Accepting::Resting { until: now }; 2],
            requests: Vec::new(),
            dirty: Vec::new(),
            spare: Vec::new(),
            next_tick: now,
            draining: None,
        }
    }

    /// Begins a turn.
    pub fn begin_turn(&mut self, now: Timestamp) {
        self.turn.now = now;
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
            Event::Sent { token, buffer, sent } => self.sent(token, buffer, sent.ok()),
            Event::Done { token } => {
                self.slots.get(token).undone -= 1;
                self.mark(token);
            }
            Event::Closed { token } => {
                let connection = self.slots.remove(token);
                assert_eq!(connection.phase, Phase::Closing, "closed when asked to");
            }
            Event::Stop => self.drain(),
        }
    }

    /// Whether the turn should end, and what else has happened wait for the next.
    pub fn is_full(&self) -> bool {
        self.turn.is_full()
    }

    /// Commits, then asks for everything that the turn led to. `wall` tells the time of day, which is wanted
    /// once a tick.
    pub fn end_turn(&mut self, wall: impl FnOnce() -> SystemTime) {
        if self.turn.now >= self.next_tick {
            self.next_tick = self.turn.now.after(TICK);
            self.turn.tick(wall());
            self.expire();
        }
        self.accept();
        self.turn.commit();
        while let Some(token) = self.dirty.pop() {
            self.push_on(token);
        }
    }

    /// What is asked of the kernel.
    pub fn requests(&mut self) -> impl Iterator<Item = Request> {
        self.requests.drain(..)
    }

    /// How long the worker may sleep if nothing happens.
    pub fn timeout(&self) -> Duration {
        self.next_tick.since(self.turn.now).min(TICK)
    }

    /// Whether a drain is over.
    pub fn is_finished(&self) -> bool {
        let stopped = self.accepting.iter().all(|accepting| matches!(accepting, Accepting::Resting { .. }));
        self.draining.is_some_and(|deadline| (stopped && self.slots.is_empty()) || self.turn.now >= deadline)
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
        if service == Service::V1 {
            self.turn.log.info(format_args!("TCP: new client({peer})"));
        }
        let place = self.slots.next();
        let id = ProducerId::new(self.number, place.slot, place.generation);
        let session = Session::new(service, id, peer);
        let token = self.slots.insert(Connection::new(socket, session, Timestamp::MAX));
        self.await_input(token);
        self.receive(token);
        if self.draining.is_some() {
            self.flush(token);
        }
    }

    fn accept_ended(&mut self, service: Service, error: Option<io::Error>) {
        let mut until = self.turn.now;
        if let Some(error) = error {
            until = until.after(ACCEPT_BACKOFF);
            self.next_tick = self.next_tick.min(until);
            self.turn.log.warn(format_args!("temporary Accept() failure - {error}"));
        }
        self.accepting[service as usize] = Accepting::Resting { until };
    }

    /// Keeps accepting while there is room, and not otherwise.
    fn accept(&mut self) {
        let wanted = self.draining.is_none() && self.slots.len() < CONNECTIONS_MAX as usize;
        for service in Service::ALL {
            let accepting = &mut self.accepting[service as usize];
            match *accepting {
                Accepting::Resting { until } if wanted && self.turn.now >= until => {
                    *accepting = Accepting::Armed;
                    self.requests.push(Request::Accept(service));
                }
                Accepting::Armed if !wanted => {
                    *accepting = Accepting::Stopping;
                    self.requests.push(Request::StopAccept(service));
                }
                _ => {}
            }
        }
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
            ReceiveEnd::NoBuffers | ReceiveEnd::Stopped => connection.receive = Receive::Idle,
            ReceiveEnd::Eof => {
                connection.receive = Receive::Eof;
                return self.take_input(token, &[]);
            }
            ReceiveEnd::Failed(_) => {
                connection.receive = Receive::Eof;
                self.abort(token);
            }
        }
        self.mark(token);
    }

    fn sent(&mut self, token: Token, mut buffer: SendBuffer, sent: Option<usize>) {
        let connection = self.slots.get(token);
        connection.sending = false;
        match sent {
            Some(sent) => buffer.advance(sent),
            None => self.abort(token),
        }
        let connection = self.slots.get(token);
        if !buffer.rest().is_empty() && connection.phase != Phase::Aborting {
            return self.send(token, buffer);
        }
        if let Some(buffer) = buffer.into_owned() {
            self.keep_spare(buffer);
        }
        // Room for more replies: what waited for it goes on.
        self.take_input(token, &[]);
    }

    fn take_input(&mut self, token: Token, bytes: &[u8]) {
        let connection = self.slots.get(token);
        if connection.phase == Phase::Open {
            connection.output.lend(|| self.spare.pop().unwrap_or_default());
            connection.take_input(bytes, &mut self.turn);
            if let Some(buffer) = connection.output.reclaim() {
                self.keep_spare(buffer);
            }
            self.await_input(token);
        }
        self.mark(token);
    }

    /// Sets the time that the peer has for what it owes.
    fn await_input(&mut self, token: Token) {
        let connection = self.slots.get(token);
        if connection.phase != Phase::Open || connection.sending {
            return;
        }
        let (now, mid_input) = (self.turn.now, connection.session.is_mid_input(&connection.input));
        connection.deadline = match connection.session.service() {
            // Counts from the first byte: another byte does not move it.
            _ if mid_input => connection.deadline.min(now.after(UNFINISHED_INPUT_MAX)),
            Service::Http => now.after(HTTP_IDLE_MAX),
            // nsqd's silence is judged by the inactivity timeout, as in stock.
            Service::V1 => Timestamp::MAX,
        };
    }

    fn mark(&mut self, token: Token) {
        let connection = self.slots.get(token);
        if !connection.dirty {
            connection.dirty = true;
            self.dirty.push(token);
        }
    }

    /// Asks for whatever a connection needs next.
    fn push_on(&mut self, token: Token) {
        let connection = self.slots.get(token);
        connection.dirty = false;
        if !connection.sending
            && matches!(connection.phase, Phase::Open | Phase::Flushing)
            && let Some(buffer) = connection.output.next_buffer()
        {
            self.send(token, buffer);
        }
        let connection = self.slots.get(token);
        match connection.phase {
            Phase::Open if !connection.output.has_room() && !connection.input.is_empty() => {
                self.stop_receiving(token);
            }
            Phase::Open | Phase::Lingering => self.receive(token),
            Phase::Flushing => {
                if !connection.sending && connection.output.is_empty() {
                    self.linger(token);
                } else {
                    self.receive(token);
                }
            }
            Phase::Aborting | Phase::Closing => {}
        }
        let connection = self.slots.get(token);
        let over = match connection.phase {
            Phase::Lingering => connection.receive == Receive::Eof,
            Phase::Aborting => true,
            Phase::Open | Phase::Flushing | Phase::Closing => false,
        };
        if over && connection.is_quiet() {
            connection.phase = Phase::Closing;
            self.requests.push(Request::Close { token, socket: connection.socket });
        }
    }

    fn send(&mut self, token: Token, buffer: SendBuffer) {
        let connection = self.slots.get(token);
        connection.sending = true;
        connection.deadline = self.turn.now.after(UNREAD_OUTPUT_MAX);
        self.requests.push(Request::Send { token, socket: connection.socket, buffer });
    }

    fn receive(&mut self, token: Token) {
        let connection = self.slots.get(token);
        if connection.receive == Receive::Idle {
            connection.receive = Receive::Armed;
            self.requests.push(Request::Receive { token, socket: connection.socket });
        }
    }

    /// Backpressure: no more is read than was asked about.
    fn stop_receiving(&mut self, token: Token) {
        let connection = self.slots.get(token);
        if connection.receive == Receive::Armed {
            connection.receive = Receive::Stopping;
            connection.undone += 1;
            self.requests.push(Request::StopReceive { token });
        }
    }

    /// No more input: what is staged is sent, then the connection ends.
    fn flush(&mut self, token: Token) {
        let connection = self.slots.get(token);
        connection.flush(&mut self.turn);
        self.mark(token);
    }

    fn linger(&mut self, token: Token) {
        let connection = self.slots.get(token);
        connection.phase = Phase::Lingering;
        connection.deadline = self.turn.now.after(LINGER);
        if connection.receive == Receive::Eof {
            return;
        }
        connection.undone += 1;
        self.requests.push(Request::Finish { token, socket: connection.socket });
        self.receive(token);
    }

    /// Ends a connection whose peer is gone or out of time.
    fn abort(&mut self, token: Token) {
        let connection = self.slots.get(token);
        if matches!(connection.phase, Phase::Aborting | Phase::Closing) {
            return;
        }
        connection.flush(&mut self.turn);
        connection.phase = Phase::Aborting;
        connection.deadline = Timestamp::MAX;
        connection.undone += 1;
        self.requests.push(Request::Abort { token, socket: connection.socket });
        self.mark(token);
    }

    fn expire(&mut self) {
        let now = self.turn.now;
        for token in self.slots.tokens(|connection| connection.deadline < now) {
            self.abort(token);
        }
    }

    fn drain(&mut self) {
        if self.draining.is_none() {
            self.draining = Some(self.turn.now.after(DRAIN_MAX));
            for token in self.slots.tokens(|connection| connection.phase == Phase::Open) {
                self.flush(token);
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
