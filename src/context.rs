//! What the sessions of a worker share: the time, the registry, the log, and the batch of changes for the next commit.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use crate::admission::Admission;
use crate::clock::Timestamp;
use crate::limits::{
    COMMIT_WEIGHT, DISCONNECT_WEIGHT, FORGOTTEN_TOGETHER, INPUT_BYTES_FOR_WEIGHT, ITERATION_WEIGHT_MAX, Limit,
    Limits,
};
use crate::listen::Protocol;
use crate::log::{Level, Log};
use crate::metrics::{Counters, Gauges, Metrics};
use crate::registry::{
    Changed, ChannelNames, Forgotten, Lifetimes, Name, Producer, Reader, Registered, Registry, Writer,
};
use crate::response_head::ResponseHead;

/// The state of a worker that is not one connection's.
pub struct WorkerContext {
    /// The time, read once an iteration of the loop.
    pub now: Timestamp,
    pub log: Log,
    pub reader: Reader,
    pub server: Arc<ServerInfo>,
    pub limits: Limits,
    pub lifetimes: Lifetimes,
    /// This worker's.
    pub counters: Arc<Counters>,
    pub shared: Arc<Shared>,
    pub response_head: ResponseHead,
    /// The server stops: an HTTP response says that its connection closes.
    pub is_draining: bool,
    registry: Arc<Registry>,
    batch: Vec<Mutation>,
    /// Work done in this iteration, in registrations.
    weight: u32,
}

/// The result of giving a session input.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Advance {
    /// Bytes that the session has consumed.
    pub used: usize,
    /// The connection is to be closed when its output is out.
    pub close: bool,
}

/// How the server describes itself.
#[derive(Default)]
pub struct ServerInfo {
    /// The answer to IDENTIFY.
    pub identify_reply: Vec<u8>,
    /// The answer to `/info`.
    pub info: Vec<u8>,
    /// Where clients of each [`Protocol`] connect, as the log shows it.
    pub addresses: [String; Protocol::ALL.len()],
}

/// The state that all workers share: permits for connections, and counters.
#[derive(Default)]
pub struct Shared {
    pub admission: Arc<Admission>,
    pub metrics: Metrics,
}

/// A change that waits for the worker's next commit, which applies the whole batch.
pub enum Mutation {
    Identify(Arc<Producer>),
    Register { producer: Arc<Producer>, topic: Name, channel: Option<Name> },
    Unregister { producer: Arc<Producer>, topic: Name, channel: Option<Name> },
    Disconnect(Arc<Producer>),
}

/// The result of a mutation, for the log.
enum Outcome {
    Identified,
    Registered(Changed),
    Unregistered {
        changed: Changed,
        /// Those that went with their topic.
        channels: ChannelNames,
    },
    Disconnected {
        topics: usize,
    },
}

impl WorkerContext {
    pub fn new(
        registry: Arc<Registry>,
        server: Arc<ServerInfo>,
        limits: Limits,
        shared: Arc<Shared>,
        log: Log,
        now: Timestamp,
    ) -> Self {
        Self {
            now,
            log,
            reader: registry.reader(),
            server,
            limits,
            lifetimes: registry.lifetimes(),
            counters: shared.metrics.worker(),
            shared,
            response_head: ResponseHead::new(SystemTime::UNIX_EPOCH),
            is_draining: false,
            registry,
            batch: Vec::new(),
            weight: 0,
        }
    }

    /// Counts that a client has exceeded a limit, and logs it once a minute at most.
    pub fn exceeded(&self, limit: Limit, client: impl fmt::Display) {
        self.exceeded_by(limit, format_args!("client({client})"));
    }

    /// As [`WorkerContext::exceeded`], with a description of the client and its request.
    pub fn exceeded_by(&self, limit: Limit, who: fmt::Arguments<'_>) {
        self.counters.exceeded[limit as usize].increment();
        if let Some(times) = self.shared.metrics.exceeded_to_log(limit, self.now) {
            let name = limit.name();
            self.log.warn(format_args!(
                "{who} exceeded the limit -{name} ({times} times since the last such line); see /metrics"
            ));
        }
    }

    /// Notes that a client of a port for `protocol` speaks the other one. The operator is told now and then
    /// which port is the right one.
    pub fn wrong_port(&self, protocol: Protocol, client: impl fmt::Display) {
        self.counters.wrong_ports[protocol as usize].increment();
        let Some(times) = self.shared.metrics.wrong_ports_to_tell(protocol, self.now) else { return };
        let (spoken, right) = match protocol {
            Protocol::V1 => ("HTTP", Protocol::Http),
            Protocol::Http => ("nsqd's protocol", Protocol::V1),
        };
        let (wrong, right) = (&self.server.addresses[protocol as usize], &self.server.addresses[right as usize]);
        self.log.warn(format_args!(
            "client({client}) speaks {spoken} to {wrong}: the right port is {right} (times since the last such line: {times})"
        ));
    }

    /// The text of `/metrics`.
    pub fn metrics(&self) -> String {
        let Registered { topics, channels } = self.registry.registered();
        let gauges = Gauges { producers: self.registry.producers(), topics, channels };
        self.shared.metrics.render(gauges, &self.log)
    }

    /// Whether the whole batch and one REGISTER more fit the limits of all topics and channels, whatever is new
    /// in them. What other workers have not committed yet is not known here, so that together they may exceed a
    /// limit by their batches.
    pub fn has_room(&self) -> bool {
        let Registered { topics, channels } = self.registry.registered();
        let batch = self.batch.len();
        topics + batch < self.limits.size(Limit::Topics) && channels + batch < self.limits.size(Limit::Channels)
    }

    /// Commits the batch and compares a REGISTER with the limits; for a REGISTER that may exceed one. Returns what the producer has registered.
    pub fn check_quota(
        &mut self,
        producer: &Arc<Producer>,
        topic: Name,
        channel: Option<Name>,
    ) -> Result<Registered, Limit> {
        let limits = self.limits;
        self.write(|writer| writer.judge(&limits, Some(producer), topic, channel))
    }

    /// Adds to the batch. The reply to it may be staged now: it leaves after the commit.
    pub fn mutate(&mut self, mutation: Mutation) {
        self.weight += mutation.weight();
        self.batch.push(mutation);
    }

    /// Counts input that was acted on.
    pub fn take(&mut self, bytes: usize) {
        let weight = u32::try_from(bytes / INPUT_BYTES_FOR_WEIGHT).unwrap_or(u32::MAX);
        self.weight = self.weight.saturating_add(weight);
    }

    /// Whether the iteration should end here: a longer one would keep other workers from committing, and this
    /// worker's other connections from their replies.
    pub fn is_full(&self) -> bool {
        self.weight >= ITERATION_WEIGHT_MAX
    }

    /// Makes the batch visible to all readers. The iteration is over.
    pub fn commit(&mut self) {
        if !self.batch.is_empty() {
            self.write(|_| ());
        }
        self.weight = 0;
    }

    /// Commits the batch with one more change, whose result is needed at once.
    pub fn write<T>(&mut self, change: impl FnOnce(&mut Writer<'_>) -> T) -> T {
        let mut writer = self.registry.write();
        self.weight += COMMIT_WEIGHT;
        let outcomes: Vec<_> = self.batch.iter().map(|mutation| mutation.apply(&mut writer, self.now)).collect();
        let result = change(&mut writer);
        writer.publish();
        for (mutation, outcome) in self.batch.drain(..).zip(outcomes) {
            mutation.log(outcome, &self.log);
        }
        result
    }

    /// For once in a while: keeps what is derived from time current.
    pub fn tick(&mut self, wall: SystemTime) {
        self.response_head = ResponseHead::new(wall);
        self.reader.refresh();
        if self.registry.has_unused(self.now) {
            self.forget_unused();
        }
    }

    /// Forgets some of the names that no producer has had for long enough; the rest wait for the next tick.
    fn forget_unused(&mut self) {
        let now = self.now;
        let forgotten = self.write(|writer| writer.forget_unused(now, FORGOTTEN_TOGETHER));
        // Nothing, when another worker was faster.
        if forgotten != Forgotten::default() {
            self.counters.forgotten_topics.add(forgotten.count.topics);
            self.counters.forgotten_channels.add(forgotten.count.channels);
            self.log.info(format_args!("DB: {forgotten}"));
        }
    }
}

impl Mutation {
    /// What it costs to commit, in registrations.
    fn weight(&self) -> u32 {
        match self {
            Self::Identify(_) | Self::Register { .. } | Self::Unregister { .. } => 1,
            Self::Disconnect(_) => DISCONNECT_WEIGHT,
        }
    }

    fn apply(&self, writer: &mut Writer<'_>, now: Timestamp) -> Outcome {
        match self {
            Self::Identify(producer) => {
                writer.identify(Arc::clone(producer));
                Outcome::Identified
            }
            Self::Register { producer, topic, channel } => {
                Outcome::Registered(writer.register(producer, *topic, *channel))
            }
            Self::Unregister { producer, topic, channel } => {
                let channels = match channel {
                    Some(_) => ChannelNames::default(),
                    None => writer.channels(topic.as_bytes(), Some(producer)),
                };
                Outcome::Unregistered { changed: writer.unregister(producer, *topic, *channel, now), channels }
            }
            Self::Disconnect(producer) => Outcome::Disconnected { topics: writer.disconnect(producer, now) },
        }
    }

    /// Stock's lines, but for the disconnect: one line with a count instead of one for each registration.
    fn log(&self, outcome: Outcome, log: &Log) {
        if !log.enabled(Level::Warn) {
            return;
        }
        let line = |client: &Producer, verb: &str, category: &str, topic: &Name, channel: &dyn fmt::Display| {
            let client = client.remote_address();
            log.info(format_args!("DB: client({client}) {verb} category:{category} key:{topic} subkey:{channel}"));
        };
        match (self, outcome) {
            (Self::Identify(producer), _) => {
                log.info(format_args!(
                    "DB: client({}) REGISTER category:client key: subkey:",
                    producer.remote_address()
                ));
            }
            (Self::Register { producer, topic, channel }, Outcome::Registered(changed)) => {
                if let Some(channel) = channel.filter(|_| changed.channels > 0) {
                    line(producer, "REGISTER", "channel", topic, &channel);
                }
                if changed.topic {
                    line(producer, "REGISTER", "topic", topic, &"");
                }
            }
            (
                Self::Unregister { producer, topic, channel: Some(channel) },
                Outcome::Unregistered { changed, .. },
            ) => {
                if changed.channels > 0 {
                    line(producer, "UNREGISTER", "channel", topic, channel);
                }
            }
            (Self::Unregister { producer, topic, channel: None }, Outcome::Unregistered { changed, channels }) => {
                // nsqd unregisters channels first.
                let unexpected = format!("client({}) unexpected UNREGISTER", producer.remote_address());
                for channel in channels.names {
                    log.warn(format_args!("{unexpected} category:channel key:{topic} subkey:{channel}"));
                }
                if channels.more > 0 {
                    let more = channels.more;
                    log.warn(format_args!("{unexpected} category:channel key:{topic}, {more} more channels"));
                }
                if changed.topic {
                    line(producer, "UNREGISTER", "topic", topic, &"");
                }
            }
            (Self::Disconnect(producer), Outcome::Disconnected { topics }) => {
                let client = producer.remote_address();
                log.info(format_args!("DB: client({client}) UNREGISTER category:client topics:{topics}"));
            }
            _ => unreachable!("an outcome is its mutation's"),
        }
    }
}
