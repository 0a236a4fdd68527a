//! One nsqd's connection: from the magic to the disconnect.

use std::net::SocketAddr;
use std::sync::Arc;

use super::error::Error;
use super::identify::peer_info;
use super::parse::{self, Command, MAGIC, Words};
use crate::access::Reason;
use crate::cause::Cause;
use crate::clock::Timestamp;
use crate::context::{Advance, Stage, WorkerContext};
use crate::limits::Limit;
use crate::listen::{Protocol, Service};
use crate::output::Output;
use crate::registry::{Change, Lifetimes, Name, Producer, ProducerId, Registered};
use crate::transport;

/// The protocol's state on one connection.
pub struct Session {
    service: Service,
    state: State,
    /// Who this connection is, once identified.
    producer: Option<Arc<Producer>>,
    /// Who it will be.
    id: ProducerId,
    peer: SocketAddr,
    /// It is not listed because its last PING is too old, and the log says so.
    is_silent: bool,
    /// The newest other producer of its node when the log last said that there are two.
    other: Option<ProducerId>,
    /// The error that ended the protocol.
    refused: Option<Box<str>>,
    /// At least what it has registered: the last exact number, and what each REGISTER since may have added.
    registered: Registered,
}

/// What a client tries whose address is not allowed, for the log.
pub const CONNECTING: &str = "connect as nsqd";

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Magic,
    /// Between or in command lines; so many bytes of the next are known to hold no newline.
    Line {
        scanned: usize,
    },
    BodySize,
    Body {
        size: usize,
    },
}

impl Session {
    pub fn new(service: Service, id: ProducerId, peer: SocketAddr) -> Self {
        Self {
            service,
            state: State::Magic,
            producer: None,
            id,
            peer,
            is_silent: false,
            other: None,
            refused: None,
            registered: Registered::default(),
        }
    }

    pub fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// What runs while nothing comes, `rest` being what is there of what the peer has begun.
    pub fn awaited(&self, rest: &[u8]) -> Option<Limit> {
        match self.state {
            State::Magic => Some(Limit::HandshakeTimeout),
            State::Line { .. } if rest.is_empty() => match self.producer {
                // Only the inactivity timeout applies to its silence, as in stock.
                Some(_) => None,
                None => Some(Limit::IdentifyTimeout),
            },
            State::Line { .. } | State::BodySize | State::Body { .. } => Some(Limit::RequestTimeout),
        }
    }

    /// Tells the client of a limit that it has met by being there, or by not going on.
    pub fn refuse_over(&mut self, limit: Limit, context: &WorkerContext, output: &mut Output) {
        self.refuse(Error::Over(limit), context, output.staged());
    }

    /// Tells the client that its address may not connect.
    pub fn refuse_address(&mut self, context: &WorkerContext, output: &mut Output) {
        self.refuse(Error::Unauthorized, context, output.staged());
    }

    /// Takes what is complete of `input`, as far as the iteration and the output have room, and stages the replies.
    pub fn advance(&mut self, input: &[u8], context: &mut WorkerContext, output: &mut Output) -> Advance {
        let mut used = 0;
        while output.has_room() && !context.batch.is_full() {
            match self.step(&input[used..], context, output.staged()) {
                Ok(Some(taken)) => used += taken,
                Ok(None) => break,
                Err(error) => {
                    self.refuse(error, context, output.staged());
                    return Advance { used: input.len(), close: true };
                }
            }
        }
        Advance { used, close: false }
    }

    /// The peer will send no more, and `rest` is what it left unfinished.
    pub fn finish(&mut self, rest: &[u8], context: &mut WorkerContext, output: &mut Output) {
        match self.state {
            State::Magic | State::Line { .. } => {}
            State::BodySize => self.refuse(Error::NoBodySize { received: rest.len() }, context, output.staged()),
            State::Body { .. } => self.refuse(Error::NoBody { received: rest.len() }, context, output.staged()),
        }
    }

    /// The connection ends: its producer leaves the registry. `rest` is what the peer left unfinished. The log gives
    /// the cause, or the error that came before it.
    pub fn end(&mut self, cause: Cause<'_>, rest: &[u8], context: &mut WorkerContext) {
        let peer = self.peer;
        let log = context.log.client(&peer);
        let refused = self.refused.take();
        if self.state != State::Magic {
            log.info(format_args!("PROTOCOL(V1): [{peer}] exiting ioloop"));
        }
        match (self.state, &refused, cause) {
            // Mostly a health check. Stock logs an error.
            (State::Magic, None, Cause::Eof | Cause::Receive(_)) if rest.is_empty() => {
                log.debug(format_args!("failed to read protocol version - {cause}"));
            }
            (State::Magic, None, Cause::Eof) => {
                log.error(format_args!("failed to read protocol version - unexpected EOF"));
            }
            (State::Magic, None, Cause::Receive(_)) => {
                log.error(format_args!("failed to read protocol version - {cause}"));
            }
            // It was refused, or is one of those that end with the server.
            (State::Magic, ..) => {}
            (_, Some(error), _) => log.error(format_args!("client({peer}) - {error}")),
            (_, None, cause) => log.error(format_args!("client({peer}) - {cause}")),
        }
        if let Some(producer) = self.producer.take() {
            if std::mem::take(&mut self.is_silent) {
                context.counters.silences_over.increment();
            }
            if context.stage < Stage::LeavingProducers {
                if let Some(journal) = context.journal() {
                    match &refused {
                        Some(error) => journal.left(&producer, error, context.now),
                        None => journal.left(&producer, cause, context.now),
                    }
                }
                context.batch.add(Change::Disconnect(producer));
            }
        }
    }

    /// The last moment at which the producer is listed without another PING; `MAX` when it is silent already, and when
    /// there is none.
    pub fn listed_until(&self, lifetimes: &Lifetimes) -> Timestamp {
        let producer = self.producer.as_ref().filter(|_| !self.is_silent);
        producer.map_or(Timestamp::MAX, |producer| lifetimes.listed_until(producer.last_update()))
    }

    /// Logs that the producer has fallen silent, once until it is back. What had arrived by then has been acted on.
    pub fn notice_silence(&mut self, received_until: Timestamp, context: &mut WorkerContext) {
        let Some(producer) = self.producer.as_ref().filter(|_| !self.is_silent) else { return };
        let last = producer.last_update();
        if received_until <= context.lifetimes.listed_until(last) {
            return;
        }
        self.is_silent = true;
        context.counters.silences.increment();
        if let Some(journal) = context.journal() {
            journal.fell_silent(producer, received_until);
        }
        let (client, ago, node) = (producer.remote_address(), received_until.since(last), producer.node());
        context.log.client(&client).warn(format_args!(
            "client({client}) is silent: last PING {ago:.1?} ago, over -inactive-producer-timeout; \
             not listed until its next PING; node {node}"
        ));
    }

    /// Tells a client that speaks without the TLS of this port.
    pub fn refuse_plain(&mut self, context: &mut WorkerContext, output: &mut Output) {
        context.wrong_port(self.service, Service::Tcp, self.peer);
        self.refuse(Error::BadProtocol, context, output.staged());
    }

    /// Takes one item off the front of `input`; `None` when it is not all there. An error ends the connection.
    fn step<'a>(
        &mut self,
        input: &'a [u8],
        context: &mut WorkerContext,
        out: &mut Vec<u8>,
    ) -> Result<Option<usize>, Error<'a>> {
        match &mut self.state {
            State::Magic => {
                let Some(magic) = input.first_chunk::<4>() else { return Ok(None) };
                let (peer, text) = (self.peer, String::from_utf8_lossy(magic));
                let log = context.log.client(&peer);
                log.info(format_args!("CLIENT({peer}): desired protocol magic '{text}'"));
                if magic != MAGIC {
                    log.error(format_args!("client({peer}) bad protocol magic '{text}'"));
                    let is_tls = self.service.is_tls();
                    if parse::begins_http(*magic) {
                        context.wrong_port(self.service, Service::of(Protocol::Http, is_tls), peer);
                    } else if !is_tls && transport::begins_tls(magic) {
                        context.wrong_port(self.service, Service::TcpTls, peer);
                    }
                    return Err(Error::BadProtocol);
                }
                self.state = State::Line { scanned: 0 };
                Ok(Some(MAGIC.len()))
            }
            State::Line { scanned } => {
                let Some(end) = parse::line_end(input, scanned) else {
                    let too_long = input.len() > context.limits.size(Limit::CommandSize);
                    return if too_long { Err(Error::LineTooLong) } else { Ok(None) };
                };
                if end - 1 > context.limits.size(Limit::CommandSize) {
                    return Err(Error::LineTooLong);
                }
                match self.execute(parse::command(&input[..end]), context, out) {
                    Err(error) if !error.ends_connection() => self.refuse(error, context, out),
                    result => result?,
                }
                Ok(Some(end))
            }
            State::BodySize => {
                let Some(&size) = input.first_chunk() else { return Ok(None) };
                let size = i32::from_be_bytes(size);
                let body = usize::try_from(size).map_err(|_| Error::BadBodySize(size))?;
                if body > context.limits.size(Limit::IdentifySize) {
                    return Err(Error::BodyTooLong(size));
                }
                self.state = State::Body { size: body };
                Ok(Some(size_of::<i32>()))
            }
            &mut State::Body { size } => {
                let Some(body) = input.get(..size) else { return Ok(None) };
                self.state = State::Line { scanned: 0 };
                self.identify(body, context)?;
                frame(out, |out| out.extend_from_slice(&context.server.identify_reply));
                Ok(Some(size))
            }
        }
    }

    fn execute<'a>(
        &mut self,
        command: Command<'a>,
        context: &mut WorkerContext,
        out: &mut Vec<u8>,
    ) -> Result<(), Error<'a>> {
        match command {
            Command::Ping => {
                context.counters.pings.increment();
                self.ping(context);
            }
            Command::Identify => {
                if self.producer.is_some() {
                    return Err(Error::IdentifiedAlready);
                }
                self.state = State::BodySize;
                return Ok(());
            }
            Command::Register(words) => {
                context.counters.registers.increment();
                self.register(words, context)?;
            }
            Command::Unregister(words) => {
                context.counters.unregisters.increment();
                let (producer, topic, channel) = self.registration("UNREGISTER", words)?;
                context.batch.add(Change::Unregister { producer, topic, channel });
            }
            Command::Unknown(word) => return Err(Error::UnknownCommand(word)),
        }
        frame(out, |out| out.extend_from_slice(b"OK"));
        Ok(())
    }

    /// A PING before IDENTIFY is answered and means nothing (stock).
    fn ping(&mut self, context: &mut WorkerContext) {
        let Some(producer) = &self.producer else { return };
        let before = producer.touch(context.now);
        let (client, ago) = (producer.remote_address(), context.now.since(before));
        let newer = producer.newer().filter(|_| !context.lifetimes.supersede_silent.is_zero());
        if newer != self.other {
            self.other = newer;
            if let Some(newer) = newer {
                context.share_an_address(producer, newer);
            }
        }
        let log = context.log.client(&client);
        log.debug(format_args!("CLIENT({client}): pinged (last ping {ago:?})"));
        if self.is_silent {
            self.is_silent = false;
            producer.is_back(context.now);
            context.counters.silences_over.increment();
            if let Some(journal) = context.journal() {
                journal.is_back(producer, ago, context.now);
            }
            let node = producer.node();
            log.info(format_args!(
                "client({client}) is back: listed again after {ago:.1?} without a PING; node {node}"
            ));
        }
    }

    fn identify(&mut self, body: &[u8], context: &mut WorkerContext) -> Result<(), Error<'static>> {
        context.counters.identifies.increment();
        let info = peer_info(body)?;
        context.log.client(&self.peer).info(format_args!(
            "CLIENT({}): IDENTIFY Address:{} TCP:{} HTTP:{} Version:{}",
            self.peer, info.broadcast_address, info.tcp_port, info.http_port, info.version
        ));
        let producer = Arc::new(Producer::new(self.id, self.peer.to_string(), info, context.now));
        if let Some(journal) = context.journal() {
            journal.joined(&producer, context.now);
        }
        context.batch.add(Change::Identify(Arc::clone(&producer)));
        self.producer = Some(producer);
        Ok(())
    }

    /// The producer and the names of a registration, validated in stock's order.
    fn registration<'a>(
        &self,
        verb: &'static str,
        words: Option<Words<'a>>,
    ) -> Result<(Arc<Producer>, Name, Option<Name>), Error<'a>> {
        let producer = self.producer.as_ref().ok_or(Error::NotIdentified)?;
        let Words { topic, channel } = words.ok_or(Error::NoTopic(verb))?;
        let topic = Name::new(topic).ok_or(Error::BadTopic(verb, topic))?;
        let channel =
            channel.map(|channel| Name::new(channel).ok_or(Error::BadChannel(verb, channel))).transpose()?;
        Ok((Arc::clone(producer), topic, channel))
    }

    /// A topic over a limit is refused. With a channel over a limit the topic alone is registered: consumers find a
    /// producer by its topic, and when nsqd connects it registers a topic that has channels only together with these.
    fn register<'a>(&mut self, words: Option<Words<'a>>, context: &mut WorkerContext) -> Result<(), Error<'a>> {
        let (producer, topic, channel) = self.registration("REGISTER", words)?;
        let exceeded = self.limit_exceeded(&producer, topic, channel, context);
        if exceeded.is_none_or(Limit::is_of_channels) {
            let channel = channel.filter(|_| exceeded.is_none());
            self.registered.topics += 1;
            self.registered.channels += usize::from(channel.is_some());
            context.batch.add(Change::Register { producer, topic, channel });
        }
        match exceeded.zip(words) {
            Some((limit, words)) => Err(Error::RegisterOver(limit, words)),
            None => Ok(()),
        }
    }

    /// The limit that a REGISTER would exceed. Far from the limits the registry is not looked at. Near them it takes exact
    /// numbers, and so a commit.
    fn limit_exceeded(
        &mut self,
        producer: &Arc<Producer>,
        topic: Name,
        channel: Option<Name>,
        context: &mut WorkerContext,
    ) -> Option<Limit> {
        let Registered { topics, channels } = self.registered;
        let near = topics >= context.limits.size(Limit::TopicsPerProducer)
            || channels >= context.limits.size(Limit::ChannelsPerProducer)
            || !context.has_room();
        if near {
            match context.check_quota(producer, topic, channel) {
                Ok(registered) => self.registered = registered,
                Err(limit) => return Some(limit),
            }
        }
        None
    }

    fn refuse(&mut self, error: Error<'_>, context: &WorkerContext, out: &mut Vec<u8>) {
        context.counters.command_errors.increment();
        frame(out, |out| {
            let from = out.len();
            error.write(out);
            let text = String::from_utf8_lossy(&out[from..]);
            if error.ends_connection() {
                self.refused = Some(text.as_ref().into());
            }
            match (error, error.limit()) {
                (Error::RegisterOver(limit, words), _) => self.register_exceeded(limit, words, context),
                (_, Some(limit)) => context.exceeded(limit, self.peer),
                (Error::Unauthorized, _) => context.denied(Reason::Address, self.peer, CONNECTING),
                (_, None) => {
                    let (peer, detail) = (self.peer, error.detail());
                    context.log.client(&peer).error(format_args!("[{peer}] - {text}{detail}"));
                }
            }
        });
    }

    /// Says which nsqd it is, as its operator knows it, and which name it could not register.
    fn register_exceeded(&self, limit: Limit, Words { topic, channel }: Words<'_>, context: &WorkerContext) {
        let nsqd = self.producer.as_ref().map_or("", |producer| &producer.info().broadcast_address);
        let (peer, topic) = (self.peer, String::from_utf8_lossy(topic));
        let known = channel.map(String::from_utf8_lossy);
        let channel = known.as_deref().unwrap_or_default();
        let about = context.log.client(&peer).topic(&topic).channel(known.as_ref());
        context.exceeded_by(
            limit,
            format_args!("nsqd({nsqd}) client({peer}) REGISTER topic({topic}) channel({channel})"),
            about,
        );
    }
}

/// Appends a response frame: the payload behind its length in 4 bytes, big-endian.
fn frame(out: &mut Vec<u8>, payload: impl FnOnce(&mut Vec<u8>)) {
    let from = out.len();
    out.extend_from_slice(&[0; 4]);
    payload(out);
    let len = u32::try_from(out.len() - from - 4).expect("a reply is shorter than a line and a half");
    out[from..from + 4].copy_from_slice(&len.to_be_bytes());
}

#[cfg(test)]
mod tests;
