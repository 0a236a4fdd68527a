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

impl Saved {
    /// Makes it that of a later moment, at which nothing else had changed: tombstones are older, and names are forgotten sooner. How
    /// silent producers were is another matter, as a PING changes nothing else.
    pub fn age(&mut self, by: Duration) {
        for topic in &mut self.topics {
            for (_, age) in &mut topic.tombstones {
                *age = age.saturating_add(by);
            }
            let channels = topic.channels.iter_mut().map(|channel| &mut channel.expiry);
            for expiry in channels.chain([&mut topic.expiry]) {
                if let SavedExpiry::After(rest) = expiry {
                    *rest = rest.saturating_sub(by);
                }
            }
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tombstones_and_expiries_age_while_nothing_changes() {
        let seconds = Duration::from_secs;
        let saved = |age, topic, channel| {
            let producers = SavedProducers::All;
            let channel = SavedChannel { name: Name::new(b"c").unwrap(), expiry: channel, producers };
            let (producers, tombstones) = (vec![0], vec![(0, seconds(age))]);
            let topic = SavedTopic {
                name: Name::new(b"t").unwrap(),
                is_listed: true,
                expiry: topic,
                producers,
                tombstones,
                channels: vec![channel],
            };
            Saved { producers: vec![], topics: vec![topic] }
        };
        let after = |rest| SavedExpiry::After(seconds(rest));
        for (mut was, is) in [
            (saved(1, SavedExpiry::Kept, after(30)), saved(11, SavedExpiry::Kept, after(20))),
            (saved(0, after(7), SavedExpiry::None), saved(10, after(0), SavedExpiry::None)),
        ] {
            was.age(seconds(10));
            assert_eq!(was, is);
        }
    }
}
