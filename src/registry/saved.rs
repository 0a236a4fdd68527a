//! What a registry holds, in a form that outlives it: for a file, and for the process that takes over. Producers are numbered, and
//! times are relative to the moment at which it was taken, so that they mean something to another clock.

use std::collections::HashMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::names::{Name, ProducerId, RESTORED};
use super::producer::{PeerInfo, Producer};
use super::snapshot::Snapshot;
use super::topic::{Channel, Topic};
use crate::clock::Timestamp;

/// All of it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Saved {
    pub producers: Vec<SavedProducer>,
    pub topics: Vec<SavedTopic>,
}

/// A producer, which topics and channels name by its number.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SavedProducer {
    pub info: PeerInfo,
    /// `host:port` of its connection.
    pub remote_address: Box<str>,
    /// The time since its last PING.
    pub silence: Duration,
}

/// A topic.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SavedTopic {
    pub name: Name,
    /// False where its channels alone are left.
    pub is_listed: bool,
    pub expiry: SavedExpiry,
    /// The numbers of its producers, in order.
    pub producers: Vec<u32>,
    /// Producers that are tombstoned, and for how long they have been.
    pub tombstones: Vec<(u32, Duration)>,
    /// By name.
    pub channels: Vec<SavedChannel>,
}

/// A channel of a topic.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SavedChannel {
    pub name: Name,
    pub expiry: SavedExpiry,
    pub producers: SavedProducers,
}

/// The producers of a channel.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum SavedProducers {
    /// Those of its topic, which is so for most channels.
    All,
    /// These numbers, in order.
    Some(Vec<u32>),
}

/// When a name is forgotten.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub enum SavedExpiry {
    /// It has a producer, or is not forgotten without one.
    #[default]
    None,
    /// It was created over HTTP: never.
    Kept,
    /// After this time.
    After(Duration),
}

/// A snapshot on its way out, record by record: it takes no memory in proportion to the registry.
pub struct Saving<'a> {
    snapshot: &'a Snapshot,
    /// The numbers of the producers.
    numbers: HashMap<ProducerId, u32>,
    now: Timestamp,
}

impl Snapshot {
    /// What is there at this time.
    #[must_use]
    pub fn save(&self, now: Timestamp) -> Saving<'_> {
        let mut numbers: HashMap<_, _> = (0..).zip(self.producers(None)).map(|(nth, by)| (by.id(), nth)).collect();
        // What was inherited is its heir's.
        for (_, producer) in self.rest.producers.places(RESTORED as usize) {
            if let (Some(inheritance), Some(&number)) = (producer.inheritance(), numbers.get(&producer.id())) {
                numbers.insert(inheritance.id, number);
            }
        }
        Saving { snapshot: self, numbers, now }
    }
}

impl Saving<'_> {
    /// How many producers and topics follow.
    #[must_use]
    pub fn counts(&self) -> (usize, usize) {
        let (producers, registered) = self.snapshot.counts();
        (producers, registered.topics)
    }

    /// In the order of their numbers.
    pub fn producers(&self) -> impl Iterator<Item = SavedProducer> {
        self.snapshot.producers(None).map(|producer| SavedProducer {
            info: producer.info().clone(),
            remote_address: producer.remote_address().into(),
            silence: self.silence(producer),
        })
    }

    /// The producers' silences, in the order of their numbers.
    pub fn silences(&self) -> impl Iterator<Item = Duration> {
        self.snapshot.producers(None).map(|producer| self.silence(producer))
    }

    fn silence(&self, producer: &Producer) -> Duration {
        // Another server hears it, as long as that does not say otherwise.
        if producer.is_remote() && !producer.is_hidden() {
            return Duration::ZERO;
        }
        self.now.since(producer.last_update())
    }

    pub fn topics(&self) -> impl Iterator<Item = SavedTopic> {
        self.snapshot.topics(0).map(|(_, topic)| SavedTopic {
            name: Name::from(&**topic),
            is_listed: topic.is_listed(),
            expiry: topic.expiry.saved(self.now),
            producers: self.numbers(topic.producers()),
            tombstones: self.tombstones(topic),
            channels: topic.channels().iter().map(|channel| self.channel(topic, channel)).collect(),
        })
    }

    fn channel(&self, topic: &Topic, channel: &Channel) -> SavedChannel {
        let producers = if channel.producers() == topic.producers() {
            SavedProducers::All
        } else {
            SavedProducers::Some(self.numbers(channel.producers()))
        };
        SavedChannel { name: Name::from(channel), expiry: channel.expiry.saved(self.now), producers }
    }

    fn tombstones(&self, topic: &Topic) -> Vec<(u32, Duration)> {
        let tombstones = topic.tombstones.iter().flat_map(|tombstones| tombstones.iter());
        tombstones.filter_map(|(id, at)| Some((*self.numbers.get(id)?, self.now.since(*at)))).collect()
    }

    /// In order, each once.
    fn numbers(&self, ids: &[ProducerId]) -> Vec<u32> {
        let mut numbers: Vec<_> = ids.iter().filter_map(|id| self.numbers.get(id).copied()).collect();
        numbers.sort_unstable();
        numbers.dedup();
        numbers
    }
}
