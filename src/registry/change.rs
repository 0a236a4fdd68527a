//! The one stream of changes: whatever changes the registry is a [`Change`], whoever asks for it, and has one
//! [`Outcome`], which is what the consumers of the stream get.

use std::sync::Arc;
use std::time::Duration;

use super::contents::ChannelNames;
use super::inheritance::Missing;
use super::names::Name;
use super::prefetch::prefetch_changes;
use super::producer::{Producer, Registered};
use super::restored::Restore;
use super::unused::Forgotten;
use super::visibility::Lifetimes;
use super::writer::Writer;
use crate::clock::Timestamp;
use crate::limits::{CHANGES_PREFETCHED_MIN, CHANGES_PREFETCHED_TOPICS_MIN};

/// A change to the registry.
#[derive(Debug)]
pub enum Change {
    /// An nsqd comes: a producer without topics, but for those that it inherits from before a restart.
    Identify(Arc<Producer>),
    /// The producer is added to the topic and the channel, and both are made when they are new.
    Register { producer: Arc<Producer>, topic: Name, channel: Option<Name> },
    /// The producer is removed from the topic and all its channels, or from the one channel. An ephemeral topic or
    /// channel goes with its last producer, or when it had none to begin with (stock).
    Unregister { producer: Arc<Producer>, topic: Name, channel: Option<Name> },
    /// The producer leaves, in proportion to what it registered. Topics and channels stay, ephemeral ones too (stock),
    /// until [`Change::Forget`].
    Disconnect(Arc<Producer>),
    /// Makes a topic, or a channel and its topic, which stays without producers. One that exists is not forgotten any more.
    Create { topic: Name, channel: Option<Name> },
    /// Makes a topic, or a channel alone, that was created an ordinary name: without producers it is forgotten like any other.
    Release { topic: Name, channel: Option<Name> },
    /// Deletes the topic and its channels, or the one channel, taking them from their producers.
    Delete { topic: Name, channel: Option<Name> },
    /// Tombstones every producer of the topic that calls itself `node` (`broadcast_address:http_port`), anew when it was
    /// already.
    Tombstone { topic: Name, node: Box<[u8]> },
    /// Forgets names that have had no producer for long enough, so many of them and the channels of their topics, as if
    /// each had been deleted.
    Forget { most: usize },
    /// Sets how long producers, tombstones and unused names are kept.
    SetLifetimes(Lifetimes),
    /// Makes an empty registry what was saved.
    Restore(Box<Restore>),
    /// Hides a producer, or lists it again.
    Hide { producer: Arc<Producer>, is_hidden: bool },
    /// Removes what was restored and has not come back within the grace, that of so many topics at a time.
    EndGrace { most: usize },
}

/// What a change has done.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    Identified(Identified),
    Registered(Changed),
    Unregistered {
        changed: Changed,
        /// Those that the producer has lost with the topic.
        channels: ChannelNames,
    },
    Disconnected {
        topics: usize,
    },
    Created,
    Released,
    Deleted(Deleted),
    Tombstoned {
        producers: usize,
    },
    Forgotten(Forgotten),
    LifetimesSet,
    Hidden,
    Restored {
        producers: usize,
        registered: Registered,
    },
    /// What was removed in all; `None` when there is more.
    GraceEnded(Option<Missing>),
}

/// Who has identified.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Identified {
    /// It was expected back since a restart.
    pub is_expected: bool,
    /// The newest other connection of the same node.
    pub older: Option<Older>,
}

/// An older connection of a node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Older {
    pub remote_address: Box<str>,
    /// The time since its last PING.
    pub silence: Duration,
}

/// What a REGISTER or UNREGISTER changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Changed {
    /// The producer was added to or removed from the topic.
    pub topic: bool,
    /// How many channels of the topic the producer was added to or removed from.
    pub channels: usize,
}

/// What was deleted.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Deleted {
    /// It was there.
    pub existed: bool,
    /// It was a channel, or a topic that was listed, and not one whose channels alone were left.
    pub was_listed: bool,
    /// The channels of a topic that went with it.
    pub channels: ChannelNames,
    /// Producers that had registered it and are active: they do not know that it is gone.
    pub active_producers: usize,
}

impl Change {
    /// The topic that it names.
    fn topic(&self) -> Option<&Name> {
        match self {
            Self::Register { topic, .. }
            | Self::Unregister { topic, .. }
            | Self::Create { topic, .. }
            | Self::Release { topic, .. }
            | Self::Delete { topic, .. }
            | Self::Tombstone { topic, .. } => Some(topic),
            Self::Identify(_)
            | Self::Disconnect(_)
            | Self::Forget { .. }
            | Self::SetLifetimes(_)
            | Self::Restore(_)
            | Self::Hide { .. }
            | Self::EndGrace { .. } => None,
        }
    }
}

impl Writer<'_> {
    /// Makes the changes of a batch, one after the other, and returns their outcomes in the same order.
    pub fn apply_all(&mut self, batch: &[Change], now: Timestamp) -> Vec<Outcome> {
        let snapshot = self.snapshot();
        if batch.len() >= CHANGES_PREFETCHED_MIN && snapshot.counts().1.topics >= CHANGES_PREFETCHED_TOPICS_MIN {
            let topics = batch.iter().filter_map(Change::topic);
            let hashes: Vec<_> = topics.map(|topic| snapshot.hash(topic.as_bytes())).collect();
            prefetch_changes(snapshot, &hashes);
        }
        batch.iter().map(|change| self.apply(change, now)).collect()
    }

    /// Makes one change. It is visible when the commit is over, together with the others of its batch.
    ///
    /// # Panics
    /// When a producer identifies twice or disconnects without having identified, and when something is restored into a registry
    /// that is not empty.
    pub fn apply(&mut self, change: &Change, now: Timestamp) -> Outcome {
        if let Some(recorder) = &self.head.recorder {
            recorder.record(change, self.snapshot());
        }
        match change {
            Change::Identify(producer) => Outcome::Identified(self.identify(producer, now)),
            Change::Register { producer, topic, channel } => {
                Outcome::Registered(self.register(producer, *topic, *channel))
            }
            Change::Unregister { producer, topic, channel } => {
                let found = self.snapshot().topic(topic.as_bytes()).filter(|_| channel.is_none());
                let channels = found.map(|topic| ChannelNames::of(topic, Some(producer))).unwrap_or_default();
                Outcome::Unregistered { changed: self.unregister(producer, *topic, *channel, now), channels }
            }
            Change::Disconnect(producer) => Outcome::Disconnected { topics: self.disconnect(producer, now) },
            Change::Create { topic, channel } => {
                self.create_topic(*topic);
                if let Some(channel) = channel {
                    self.create_channel(*topic, *channel);
                }
                Outcome::Created
            }
            Change::Release { topic, channel } => {
                self.release(*topic, *channel, now);
                Outcome::Released
            }
            Change::Delete { topic, channel } => Outcome::Deleted(self.delete(*topic, *channel, now)),
            Change::Tombstone { topic, node } => {
                Outcome::Tombstoned { producers: self.tombstone(*topic, node, now) }
            }
            Change::Forget { most } => Outcome::Forgotten(self.forget_unused(now, *most)),
            Change::SetLifetimes(lifetimes) => {
                self.set_lifetimes(*lifetimes);
                Outcome::LifetimesSet
            }
            Change::Restore(restore) => {
                let (producers, registered) = self.restore(restore, now);
                Outcome::Restored { producers, registered }
            }
            Change::Hide { producer, is_hidden } => {
                self.hide(producer, *is_hidden);
                Outcome::Hidden
            }
            Change::EndGrace { most } => Outcome::GraceEnded(self.end_grace(now, *most)),
        }
    }

    fn delete(&mut self, topic: Name, channel: Option<Name>, now: Timestamp) -> Deleted {
        let Some(found) = self.snapshot().topic(topic.as_bytes()) else { return Deleted::default() };
        let active_producers = self.active_producers(found, channel, now);
        let (was_listed, channels) = (found.listed, ChannelNames::of(found, None));
        match channel {
            None => {
                self.delete_topic(topic);
                Deleted { existed: true, was_listed, channels, active_producers }
            }
            Some(channel) => {
                let existed = self.delete_channel(topic, channel);
                Deleted { existed, was_listed: existed, channels: ChannelNames::default(), active_producers }
            }
        }
    }
}
