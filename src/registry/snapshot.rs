//! What readers see: the whole registry as of one commit, immutable.
//!
//! Topics are numbered, so that what a producer registered is found without a search: `/nodes` of a million
//! registrations and the end of all producers at once were three times and 1.5 times slower by way of a tree.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Arc;

use super::index::Index;
use super::names::{ProducerId, TopicId};
use super::producer::{Inheritance, Producer, Registered};
use super::producers::Producers;
use super::table::Table;
use super::tombstones::TombstoneTimes;
use super::topic::{Channel, Topic};
use super::visibility::Lifetimes;
use crate::clock::Timestamp;

/// How much of a name's hash is used. Few bits in unit tests, so that they meet names whose hashes are equal.
const HASH_BITS: u32 = if cfg!(test) { 3 } else { u32::BITS };

/// The registry at one moment.
#[derive(Clone, Default)]
pub struct Snapshot {
    /// By [`TopicId::slot`]; empty where a topic was deleted and none has taken its place.
    pub(super) topics: Table<Topic>,
    /// What a commit changes less often than topics.
    pub(super) rest: Rest,
}

/// A snapshot without its topics: small, so that it is copied as a whole.
#[derive(Clone, Default)]
pub(super) struct Rest {
    /// The topics' slots, by the hashes of their names.
    index: Index,
    pub(super) producers: Producers,
    /// Seeded at random, the same for all snapshots of a registry: nobody can choose names that collide.
    pub(super) hasher: RandomState,
    /// How many of the topics are listed.
    pub(super) listed: usize,
    /// How many channels the topics have together.
    pub(super) channels: usize,
    /// How many of the producers are restored, and their nsqd not back.
    pub(super) expected: usize,
    /// How many topics, listed or not, and how many channels have no producer.
    pub(super) without_producers: Registered,
    pub(super) tombstones: TombstoneTimes,
    /// See [`Snapshot::revision`].
    pub(super) revision: u64,
    /// See [`Snapshot::topics_revision`].
    pub(super) topics_revision: u64,
    /// See [`Snapshot::nodes_revision`].
    pub(super) nodes_revision: u64,
    /// See [`Snapshot::lifetimes`].
    pub(super) lifetimes: Lifetimes,
    /// The revision that last changed the lifetimes: what was rendered under others is not valid.
    pub(super) lifetimes_revision: u64,
}

impl Snapshot {
    /// The number of the commit that published it; each has a higher one than those before.
    pub fn revision(&self) -> u64 {
        self.rest.revision
    }

    /// The revision that last changed which topics are listed.
    pub fn topics_revision(&self) -> u64 {
        self.rest.topics_revision
    }

    /// The revision that last changed which producers there are, what topics they have registered, or tombstones.
    pub fn nodes_revision(&self) -> u64 {
        self.rest.nodes_revision
    }

    /// How long producers, tombstones and unused names are kept.
    pub fn lifetimes(&self) -> Lifetimes {
        self.rest.lifetimes
    }

    /// How many topics are listed.
    pub fn listed_topics(&self) -> usize {
        self.rest.listed
    }

    /// How many tombstones hide a producer at this moment.
    pub fn tombstones(&self, now: Timestamp) -> usize {
        self.rest.tombstones.count(now, self.lifetimes().tombstone_lifetime)
    }

    /// The topic of this name, listed or not.
    pub fn topic(&self, name: &[u8]) -> Option<&Arc<Topic>> {
        self.topic_of(self.hash(name), name)
    }

    /// The topics, listed or not, from this place on, each with its place. A topic keeps its place until it is
    /// deleted, so that a walk can go on in a newer snapshot behind the place where it stopped.
    pub fn topics(&self, from: usize) -> impl Iterator<Item = (usize, &Arc<Topic>)> {
        self.topics.from(from)
    }

    /// The producers in the order of their ids, from behind `last` on.
    pub fn producers(&self, last: Option<ProducerId>) -> impl Iterator<Item = &Arc<Producer>> {
        self.rest.producers.after(last)
    }

    /// The producer of this id; `None` when it has left.
    pub fn producer(&self, id: ProducerId) -> Option<&Arc<Producer>> {
        self.rest.producers.get(id)
    }

    /// The topics that the producer has registered, each once. They may be those of a later commit.
    pub fn topics_of(&self, producer: &Producer) -> impl Iterator<Item = &Arc<Topic>> {
        let has_inherited = producer.inheritance().is_some();
        let own = self.topics_listing(producer, producer.id(), has_inherited);
        let inherited =
            producer.inheritance().map(|Inheritance { id, from }| self.topics_listing(from, *id, true));
        own.chain(inherited.into_iter().flatten())
    }

    /// The topics that the producer has registered, each with those of its channels that it has.
    pub fn registered_by<'a>(
        &'a self,
        producer: &'a Producer,
    ) -> impl Iterator<Item = (&'a Topic, impl Iterator<Item = &'a Channel>)> {
        self.topics_of(producer).map(|topic| {
            let is_in = |channel: &&Channel| producer.ids().any(|id| channel.producers.contains(id));
            (&**topic, topic.channels().iter().filter(is_in))
        })
    }

    /// The producers of the topic of this name, active or not; none where there is no such topic.
    pub fn producers_of(&self, name: &[u8]) -> impl Iterator<Item = &Arc<Producer>> {
        self.topic(name).into_iter().flat_map(|topic| self.present(topic.producers()))
    }

    /// The topics of a producer; with `check`, those that list this id in this snapshot, as a later commit may have made own
    /// what is inherited here.
    fn topics_listing(
        &self,
        producer: &Producer,
        id: ProducerId,
        check: bool,
    ) -> impl Iterator<Item = &Arc<Topic>> {
        let ids = producer.topics().clone();
        let topics = ids.into_iter().filter_map(|topic| self.topic_at(topic));
        topics.filter(move |topic| !check || topic.producers.contains(id))
    }

    /// The same for a name whose hash is known.
    pub(super) fn topic_of(&self, hash: u32, name: &[u8]) -> Option<&Arc<Topic>> {
        let mut found = self.slots_of(hash).filter_map(|slot| self.topics.get(slot as usize));
        found.find(|topic| topic.name.as_bytes() == name)
    }

    /// Where the topics are whose names have this hash.
    pub(super) fn slots_of(&self, hash: u32) -> impl Iterator<Item = u32> {
        self.rest.index.find(hash)
    }

    /// The topic of this id; `None` when it is not there any more, or not yet.
    pub(super) fn topic_at(&self, id: TopicId) -> Option<&Arc<Topic>> {
        self.topics.get(id.slot() as usize).filter(|topic| topic.id == id)
    }

    /// How many producers, topics (listed or not) and channels there are.
    pub(super) fn counts(&self) -> (usize, Registered) {
        let Rest { producers, index, channels, .. } = &self.rest;
        (producers.len(), Registered { topics: index.len(), channels: *channels })
    }

    /// Adds the topic's slot to the index.
    pub(super) fn index(&mut self, topic: &Topic) {
        let hash = self.hash(topic.name.as_bytes());
        self.rest.index.insert(hash, topic.id.slot());
    }

    /// Takes the topic's slot from the index.
    pub(super) fn unindex(&mut self, topic: &Topic) {
        let hash = self.hash(topic.name.as_bytes());
        self.rest.index.remove(hash, topic.id.slot());
    }

    /// The producers of `ids` that have not left.
    pub(super) fn present<'a>(&'a self, ids: &'a [ProducerId]) -> impl Iterator<Item = &'a Arc<Producer>> {
        ids.iter().filter_map(|&id| self.producer(id))
    }

    pub(super) fn hash(&self, name: &[u8]) -> u32 {
        hash(&self.rest.hasher, name)
    }
}

/// The hash of a name, the same in all snapshots of a registry.
// As the only function that hashes it has the hasher's code inline, which is 4 ns of a cached lookup's 20.
#[inline(never)]
pub(super) fn hash(hasher: &RandomState, name: &[u8]) -> u32 {
    // Without the length that `hash_one` puts before it, which tells apart what is no whole key.
    let mut hasher = hasher.build_hasher();
    hasher.write(name);
    // The upper bits, no more than there are.
    (hasher.finish() >> (u64::BITS - HASH_BITS)) as u32
}
