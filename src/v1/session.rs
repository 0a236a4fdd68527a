//! One nsqd's connection: from the magic to the disconnect.

use std::net::SocketAddr;
use std::sync::Arc;

use super::error::Error;
use super::identify::peer_info;
use super::parse::{self, Command, MAGIC, Words};
use crate::io::Service;
use crate::limits::Limit;
use crate::output::Output;
use crate::registry::{Name, Producer, ProducerId, Registered};
use crate::turn::{Advance, Mutation, Turn};

/// The protocol's state on one connection.
pub struct Session {
    state: State,
    /// Who this connection is, once identified.
    producer: Option<Arc<Producer>>,
    /// Who it will be.
    id: ProducerId,
    peer: SocketAddr,
    /// At least what it has registered: the last exact number, and what each REGISTER since may have added.
    registered: Registered,
}

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
    pub fn new(id: ProducerId, peer: SocketAddr) -> Self {
        Self { state: State::Magic, producer: None, id, peer, registered: Registered::default() }
    }

    pub fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// What runs while nothing comes, `rest` being what is there of what the peer has begun.
    pub fn awaited(&self, rest: &[u8]) -> Option<Limit> {
        match self.state {
            State::Magic => Some(Limit::HandshakeTimeout),
            State::Line { .. } if rest.is_empty() => match self.producer {
                // Its silence is judged by the inactivity timeout, as in stock.
                Some(_) => None,
                None => Some(Limit::IdentifyTimeout),
            },
            State::Line { .. } | State::BodySize | State::Body { .. } => Some(Limit::RequestTimeout),
        }
    }

    /// Tells the client of a limit that it has met by being there, or by not going on.
    pub fn refuse_over(&mut self, limit: Limit, turn: &Turn, output: &mut Output) {
        self.refuse(Error::Over(limit), turn, output.staged());
    }

    /// Takes what is complete of `input`, as far as the turn and the output have room, and stages the replies.
    pub fn advance(&mut self, input: &[u8], turn: &mut Turn, output: &mut Output) -> Advance {
        let mut used = 0;
        while output.has_room() && !turn.is_full() {
            match self.step(&input[used..], turn, output.staged()) {
                Ok(Some(taken)) => used += taken,
                Ok(None) => break,
                Err(error) => {
                    self.refuse(error, turn, output.staged());
                    return Advance { used: input.len(), close: true };
                }
            }
        }
        Advance { used, close: false }
    }

    /// The peer will send no more, and `rest` is what it left unfinished.
    pub fn finish(&mut self, rest: &[u8], turn: &mut Turn, output: &mut Output) {
        match self.state {
            // A health check, mostly. Stock logs an error.
            State::Magic if rest.is_empty() => {
                turn.log.debug(format_args!("failed to read protocol version - EOF"));
            }
            State::Magic => turn.log.error(format_args!("failed to read protocol version - unexpected EOF")),
            State::Line { .. } => {}
            State::BodySize => self.refuse(Error::NoBodySize, turn, output.staged()),
            State::Body { .. } => self.refuse(Error::NoBody, turn, output.staged()),
        }
    }

    /// The connection ends, for whatever reason: its producer leaves the registry.
    pub fn end(&mut self, turn: &mut Turn) {
        if self.state != State::Magic {
            turn.log.info(format_args!("PROTOCOL(V1): [{}] exiting ioloop", self.peer));
        }
        if let Some(producer) = self.producer.take() {
            turn.mutate(Mutation::Disconnect(producer));
        }
    }

    /// Takes one item off the front of `input`; `None` when it is not all there.
    fn step<'a>(
        &mut self,
        input: &'a [u8],
        turn: &mut Turn,
        out: &mut Vec<u8>,
    ) -> Result<Option<usize>, Error<'a>> {
        match &mut self.state {
            State::Magic => {
                let Some(magic) = input.first_chunk::<4>() else { return Ok(None) };
                let (peer, shown) = (self.peer, String::from_utf8_lossy(magic));
                turn.log.info(format_args!("CLIENT({peer}): desired protocol magic '{shown}'"));
                if magic != MAGIC {
                    turn.log.error(format_args!("client({peer}) bad protocol magic '{shown}'"));
                    if parse::begins_http(*magic) {
                        turn.wrong_port(Service::V1, peer);
                    }
                    return Err(Error::BadProtocol);
                }
                self.state = State::Line { scanned: 0 };
                Ok(Some(MAGIC.len()))
            }
            State::Line { scanned } => {
                let Some(end) = parse::line_end(input, scanned) else {
                    let too_long = input.len() > turn.limits.size(Limit::CommandSize);
                    return if too_long { Err(Error::LineTooLong) } else { Ok(None) };
                };
                if end - 1 > turn.limits.size(Limit::CommandSize) {
                    return Err(Error::LineTooLong);
                }
                self.execute(parse::command(&input[..end]), turn, out)?;
                Ok(Some(end))
            }
            State::BodySize => {
                let Some(&size) = input.first_chunk() else { return Ok(None) };
                let size = i32::from_be_bytes(size);
                let body = usize::try_from(size).map_err(|_| Error::BadBodySize(size))?;
                if body > turn.limits.size(Limit::IdentifySize) {
                    return Err(Error::BodyTooLong(size));
                }
                self.state = State::Body { size: body };
                Ok(Some(size_of::<i32>()))
            }
            &mut State::Body { size } => {
                let Some(body) = input.get(..size) else { return Ok(None) };
                self.state = State::Line { scanned: 0 };
                self.identify(body, turn)?;
                frame(out, |out| out.extend_from_slice(&turn.server.identify_reply));
                Ok(Some(size))
            }
        }
    }

    fn execute<'a>(&mut self, command: Command<'a>, turn: &mut Turn, out: &mut Vec<u8>) -> Result<(), Error<'a>> {
        match command {
            Command::Ping => {
                turn.counters.pings.increment();
                self.ping(turn);
            }
            Command::Identify => {
                if self.producer.is_some() {
                    return Err(Error::IdentifiedAlready);
                }
                self.state = State::BodySize;
                return Ok(());
            }
            Command::Register(words) => {
                turn.counters.registers.increment();
                let (producer, topic, channel) = self.registration("REGISTER", words)?;
                self.stay_within_limits(&producer, topic, channel, turn)?;
                turn.mutate(Mutation::Register { producer, topic, channel });
            }
            Command::Unregister(words) => {
                turn.counters.unregisters.increment();
                let (producer, topic, channel) = self.registration("UNREGISTER", words)?;
                turn.mutate(Mutation::Unregister { producer, topic, channel });
            }
            Command::Unknown(word) => return Err(Error::UnknownCommand(word)),
        }
        frame(out, |out| out.extend_from_slice(b"OK"));
        Ok(())
    }

    /// A PING before IDENTIFY is answered and means nothing (stock).
    fn ping(&self, turn: &Turn) {
        if let Some(producer) = &self.producer {
            let before = producer.touch(turn.now);
            let (client, ago) = (producer.remote_address(), turn.now.since(before));
            turn.log.debug(format_args!("CLIENT({client}): pinged (last ping {ago:?})"));
        }
    }

    fn identify(&mut self, body: &[u8], turn: &mut Turn) -> Result<(), Error<'static>> {
        turn.counters.identifies.increment();
        let info = peer_info(body)?;
        turn.log.info(format_args!(
            "CLIENT({}): IDENTIFY Address:{} TCP:{} HTTP:{} Version:{}",
            self.peer, info.broadcast_address, info.tcp_port, info.http_port, info.version
        ));
        let producer = Arc::new(Producer::new(self.id, self.peer.to_string(), info, turn.now));
        turn.mutate(Mutation::Identify(Arc::clone(&producer)));
        self.producer = Some(producer);
        Ok(())
    }

    /// Who registers what, judged in stock's order.
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

    /// Far from the limits a REGISTER goes to the batch without a look at the registry. Near them it is judged by
    /// exact numbers, which take a commit.
    fn stay_within_limits(
        &mut self,
        producer: &Arc<Producer>,
        topic: Name,
        channel: Option<Name>,
        turn: &mut Turn,
    ) -> Result<(), Error<'static>> {
        let Registered { topics, channels } = self.registered;
        let near = topics >= turn.limits.size(Limit::TopicsPerProducer)
            || channels >= turn.limits.size(Limit::ChannelsPerProducer)
            || !turn.has_room();
        if near {
            self.registered = turn.judge(producer, topic, channel).map_err(Error::Over)?;
        }
        self.registered.topics += 1;
        self.registered.channels += usize::from(channel.is_some());
        Ok(())
    }

    fn refuse(&self, error: Error<'_>, turn: &Turn, out: &mut Vec<u8>) {
        turn.counters.command_errors.increment();
        frame(out, |out| {
            let from = out.len();
            error.write(out);
            if let Some(limit) = error.limit() {
                return turn.strike(limit, self.peer);
            }
            let (text, detail) = (String::from_utf8_lossy(&out[from..]), error.detail());
            turn.log.error(format_args!("[{}] - {text}{detail}", self.peer));
        });
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
