//! One connection: where its bytes are and what the kernel is doing for it.

use std::mem;
use std::net::SocketAddr;

use crate::admission::Share;
use crate::cause::Cause;
use crate::clock::Timestamp;
use crate::context::{Advance, WorkerContext};
use crate::io::{SendBuffer, Token};
use crate::limits::{INPUT_BACKLOG_MAX, Limit};
use crate::listen::{Protocol, Service};
use crate::output::Output;
use crate::registry::{Lifetimes, ProducerId};
use crate::transport::{TlsError, Transport};
use crate::watch::News;
use crate::{http, v1};

/// A connection from accept to close.
pub struct Connection {
    pub service: Service,
    pub session: Session,
    pub permit: Share,
    pub transport: Transport,
    /// What arrived and is not done with: the beginning of something, or what waits for room in the output.
    pub input: Vec<u8>,
    pub output: Output,
    pub phase: Phase,
    pub receive: Receive,
    /// Input is waiting in the socket that there was no buffer for: it may be what the deadline is about.
    pub has_unread: bool,
    /// A send is under way.
    pub sending: bool,
    /// The iteration has already noted that there may be something to send.
    pub dirty: bool,
    /// Deadline for the peer's next action, and the limit that set it.
    pub deadline: Timestamp,
    pub awaited: Option<Limit>,
}

/// How far a connection is on its way to the end. It never goes back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Phase {
    /// Input is acted on.
    Open,
    /// Input is thrown away; the output is still to be sent.
    Flushing,
    /// FIN is sent. Until the peer's comes, what it still sends is thrown away, so that no reset overtakes
    /// the last reply.
    Lingering,
    /// Both directions are shut down; nothing is sent any more.
    ShutDown,
    /// The last request is under way.
    Closing,
}

/// The state of the multishot receive.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Receive {
    Armed,
    /// Armed, and asked to stop.
    Stopping,
    Idle,
    /// The peer sends no more.
    Eof,
}

/// The protocol on a connection.
pub enum Session {
    V1(v1::Session),
    Http(http::Session),
}

impl Session {
    pub fn new(service: Service, id: ProducerId, peer: SocketAddr, token: Token) -> Self {
        match service.protocol() {
            Protocol::V1 => Self::V1(v1::Session::new(service, id, peer)),
            Protocol::Http => Self::Http(http::Session::new(service, peer, token)),
        }
    }

    pub fn peer(&self) -> SocketAddr {
        match self {
            Self::V1(session) => session.peer(),
            Self::Http(session) => session.peer(),
        }
    }

    /// The limit on the time until more must come, `rest` being what is there already.
    pub fn awaited(&self, rest: &[u8]) -> Option<Limit> {
        match self {
            Self::V1(session) => session.awaited(rest),
            Self::Http(session) => session.awaited(rest),
        }
    }

    /// Tells a client that speaks the protocol without the TLS of its port.
    fn refuse_plain(&mut self, context: &mut WorkerContext, output: &mut Output) {
        match self {
            Self::V1(session) => session.refuse_plain(context, output),
            Self::Http(session) => session.refuse_plain(context, output),
        }
    }

    fn refuse_over(&mut self, limit: Limit, context: &WorkerContext, output: &mut Output) {
        match self {
            Self::V1(session) => session.refuse_over(limit, context, output),
            Self::Http(session) => session.refuse_over(limit, context, output),
        }
    }

    fn advance(&mut self, input: &[u8], context: &mut WorkerContext, output: &mut Output) -> Advance {
        match self {
            Self::V1(session) => session.advance(input, context, output),
            Self::Http(session) => session.advance(input, context, output),
        }
    }

    fn finish(&mut self, rest: &[u8], context: &mut WorkerContext, output: &mut Output) {
        match self {
            Self::V1(session) => session.finish(rest, context, output),
            Self::Http(session) => session.finish(rest, context, output),
        }
    }

    fn end(&mut self, cause: Cause<'_>, rest: &[u8], context: &mut WorkerContext) {
        match self {
            Self::V1(session) => session.end(cause, rest, context),
            Self::Http(session) => session.end(context),
        }
    }

    /// When the session is to be looked at if nothing happens: the last moment at which its producer is listed without another
    /// PING, or the time of a client that waits; `MAX` where there is neither.
    pub fn wakes_at(&self, lifetimes: &Lifetimes) -> Timestamp {
        match self {
            Self::V1(session) => session.listed_until(lifetimes),
            Self::Http(session) => session.wakes_at(),
        }
    }

    /// Whether its client waits for the server.
    pub fn is_parked(&self) -> bool {
        match self {
            Self::V1(_) => false,
            Self::Http(session) => session.is_parked(),
        }
    }

    /// Notices that the producer of this connection has fallen silent, if it has.
    pub fn notice_silence(&mut self, received_until: Timestamp, context: &mut WorkerContext) {
        match self {
            Self::V1(session) => session.notice_silence(received_until, context),
            Self::Http(_) => {}
        }
    }
}

impl Connection {
    pub fn new(service: Service, session: Session, permit: Share, transport: Transport, output: Output) -> Self {
        Self {
            service,
            session,
            permit,
            transport,
            input: Vec::new(),
            output,
            phase: Phase::Open,
            receive: Receive::Idle,
            has_unread: false,
            sending: false,
            dirty: false,
            deadline: Timestamp::MAX,
            awaited: None,
        }
    }

    /// Acts on input as far as there is room for the replies, reading `bytes` where they lie when nothing
    /// waits before them.
    pub fn take_input(&mut self, bytes: &[u8], context: &mut WorkerContext) {
        let was_handshaking = self.transport.is_handshaking();
        let mut scratch = mem::take(&mut context.scratch);
        match self.transport.receive(bytes, &mut scratch) {
            Ok(bytes) => {
                if was_handshaking
                    && !self.transport.is_handshaking()
                    && let Session::Http(session) = &mut self.session
                {
                    session.is_named(self.transport.peer_name());
                }
                self.take_plain(bytes, context);
            }
            Err(error) => self.end_transport(&error, context),
        }
        scratch.clear();
        context.scratch = scratch;
    }

    /// The transport cannot go on. What it has to say of that is still sent.
    fn end_transport(&mut self, error: &TlsError, context: &mut WorkerContext) {
        if *error == TlsError::Plain {
            self.transport = Transport::Plain;
            self.session.refuse_plain(context, &mut self.output);
        } else {
            context.tls_failed(self.service, self.session.peer(), error);
        }
        self.flush(Cause::Tls(error), context);
    }

    fn take_plain(&mut self, bytes: &[u8], context: &mut WorkerContext) {
        let advance = if self.input.is_empty() {
            let advance = self.session.advance(bytes, context, &mut self.output);
            self.input.extend_from_slice(&bytes[advance.used..]);
            advance
        } else {
            self.input.extend_from_slice(bytes);
            let advance = self.session.advance(&self.input, context, &mut self.output);
            self.input.drain(..advance.used);
            if self.input.is_empty() {
                self.input = Vec::new();
            }
            advance
        };
        // What is left because the iteration is full was preceded by a reply: it goes on when that is sent.
        let stopped = context.batch.is_full() || !self.output.has_room();
        context.batch.count_input(advance.used);
        if advance.close {
            self.flush(Cause::Eof, context);
        } else if (self.receive == Receive::Eof || self.transport.is_at_end()) && !stopped {
            // All that could be answered is: the rest stays unfinished for ever.
            self.session.finish(&self.input, context, &mut self.output);
            self.flush(Cause::Eof, context);
        }
    }

    /// Lets a client that waits have what is due for it.
    pub fn wake(&mut self, context: &mut WorkerContext) {
        if let Session::Http(session) = &mut self.session
            && !session.wake(context, &mut self.output)
        {
            self.flush(Cause::Eof, context);
        }
    }

    /// Takes news for a client that watches.
    pub fn push(&mut self, news: &News, context: &mut WorkerContext) {
        if let Session::Http(session) = &mut self.session {
            session.push(news, context, &mut self.output);
        }
    }

    /// What to send next; the rest waits until that is out.
    pub fn next_buffer(&mut self) -> Option<SendBuffer> {
        let is_ending = self.phase == Phase::Flushing;
        self.transport.next_buffer(&mut self.output, is_ending)
    }

    /// Ends the protocol with an error.
    pub fn refuse_over(&mut self, limit: Limit, context: &mut WorkerContext) {
        self.session.refuse_over(limit, context, &mut self.output);
        self.flush(Cause::Over(limit), context);
    }

    /// Ends the protocol of a client whose address may not connect.
    pub fn refuse_address(&mut self, context: &mut WorkerContext) {
        if let Session::V1(session) = &mut self.session {
            session.refuse_address(context, &mut self.output);
        }
        self.flush(Cause::Denied, context);
    }

    /// Stops acting on input; the protocol is over. A protocol that refused the client has its own cause.
    pub fn flush(&mut self, cause: Cause<'_>, context: &mut WorkerContext) {
        if self.phase == Phase::Open {
            self.phase = Phase::Flushing;
            self.session.end(cause, &self.input, context);
            self.input = Vec::new();
        }
    }

    /// Whether only the peer can go on: nothing is being sent, and nothing is to be sent.
    pub fn is_waiting(&self) -> bool {
        self.phase == Phase::Open && !self.sending && !self.has_output()
    }

    /// Whether something is to be sent.
    pub fn has_output(&self) -> bool {
        !self.output.is_empty() || self.transport.has_output()
    }

    /// The limit on the time until the peer goes on.
    pub fn awaited(&self) -> Option<Limit> {
        if self.transport.is_handshaking() {
            return Some(Limit::HandshakeTimeout);
        }
        self.session.awaited(&self.input)
    }

    /// Whether the peer should wait with more input until it has read replies, or its handshake has gone on.
    pub fn is_behind(&self) -> bool {
        if self.transport.held() > INPUT_BACKLOG_MAX {
            return true;
        }
        let answering = self.sending || !self.output.is_empty() || self.session.is_parked();
        let backlog = if self.output.has_room() { INPUT_BACKLOG_MAX } else { 0 };
        answering && self.input.len() > backlog
    }

    /// Whether nothing of this connection is with the kernel.
    pub fn is_quiet(&self) -> bool {
        !self.sending && matches!(self.receive, Receive::Idle | Receive::Eof)
    }
}

/// A worker's connections, by slot.
#[derive(Default)]
pub struct Slots {
    slots: Vec<Slot>,
    free: Vec<u32>,
}

#[derive(Default)]
struct Slot {
    generation: u32,
    connection: Option<Box<Connection>>,
}

impl Slots {
    /// How many connections there are.
    pub fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The token that the next connection gets.
    pub fn next(&self) -> Token {
        let slot =
            self.free.last().copied().unwrap_or_else(|| u32::try_from(self.slots.len()).unwrap_or(u32::MAX));
        let generation = self.slots.get(slot as usize).map_or(0, |slot| slot.generation);
        Token { slot, generation }
    }

    /// Puts a connection into [`Slots::next`].
    pub fn insert(&mut self, connection: Connection) -> Token {
        let token = self.next();
        if self.free.pop().is_none() {
            self.slots.push(Slot::default());
        }
        self.slots[token.slot as usize].connection = Some(Box::new(connection));
        token
    }

    /// The connection of a token; `None` when it is gone.
    pub fn find(&mut self, token: Token) -> Option<&mut Connection> {
        let slot = self.slots.get_mut(token.slot as usize).filter(|slot| slot.generation == token.generation)?;
        slot.connection.as_deref_mut()
    }

    /// # Panics
    /// When the token is not of a connection that is there: a completion came after the last.
    pub fn get(&mut self, token: Token) -> &mut Connection {
        let slot = &mut self.slots[token.slot as usize];
        assert_eq!(slot.generation, token.generation, "a slot is reused only after its last completion");
        slot.connection.as_mut().expect("a slot is empty only after its last completion")
    }

    /// Makes the slot free for another connection.
    ///
    /// # Panics
    /// As [`Slots::get`], and when something of the connection is still with the kernel.
    pub fn remove(&mut self, token: Token) -> Connection {
        assert!(self.get(token).is_quiet(), "a slot is free only after its last completion");
        let slot = &mut self.slots[token.slot as usize];
        slot.generation = (slot.generation + 1) % Token::GENERATIONS;
        self.free.push(token.slot);
        *slot.connection.take().expect("looked at above")
    }

    /// The token of the connection in a slot.
    ///
    /// # Panics
    /// When there is none.
    pub fn token(&self, slot: u32) -> Token {
        let Slot { generation, connection } = &self.slots[slot as usize];
        assert!(connection.is_some(), "the slot is taken");
        Token { slot, generation: *generation }
    }

    /// The tokens of the connections that match.
    pub fn tokens(&self, matches: impl Fn(&Connection) -> bool) -> Vec<Token> {
        let slots = self.slots.iter().zip(0..);
        let wanted =
            slots.filter(|(slot, _)| slot.connection.as_ref().is_some_and(|connection| matches(connection)));
        wanted.map(|(slot, number)| Token { slot: number, generation: slot.generation }).collect()
    }
}
