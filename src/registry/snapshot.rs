//! What readers see: who exists, in one immutable snapshot, and what each has, in a cell of its own.
//!
//! A [`Snapshot`] finds topics and producers. Its tables are persistent, and a commit that adds or
//! removes one copies the path to it and publishes a new snapshot. What a topic has is its [`TopicState`],
//! immutable too and replaced as a whole, and what a producer registered is a set in the [`Producer`]: a
//! REGISTER of a topic that exists replaces these two and copies no path. (With everything in the tables it
//! took three to four times as long at a million registrations: each copied leaf counts references to topics
//! that lie all over the memory.)
//!
//! A state has a number, which an answer that was rendered from it keeps: so whoever finds the answer compares two
//! numbers and does not touch the state, which at a million registrations would be one cache miss more.
//!
//! Topics are numbered, so that what a producer registered is found without a search: `/nodes` of a million
//! registrations and the end of all producers at once were three times and 1.5 times slower by way of a tree.
//!
//! A reader may so see a state that is newer than its snapshot. Two rules make that harmless: a producer is
//! published before any state lists it, so who loads the snapshot after the state finds it there; and no two
//! producers have the same id, so one that is not there is one that has left.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::{ArcSwap, ArcSwapOption, Guard};
use bytes::Bytes;
use smol_str::SmolStr;

use super::freshness::Rendered;
use super::index::Index;
use super::lookup::{KeptAnswer, Tombstones};
use super::names::{Name, ProducerId, TopicId};
use super::producer::Producer;
use super::producers::Producers;
use super::table::Table;
use super::unused::Expiry;
use crate::clock::Timestamp;

/// A large answer, page by page.
pub(super) type Pages = Rendered<Vec<Bytes>>;

/// How much of a name's hash is used. Few bits in unit tests, so that they meet names whose hashes are equal.
const HASH_BITS: u32 = if cfg!(test) { 3 } else { u32::BITS };

/// The registry at one moment.
#[derive(Clone, Default)]
pub struct Snapshot {
    /// By [`TopicId::slot`]; empty where a topic was deleted and none has taken its place.
    pub(super) topics: Table<Topic>,
    /// The topics' slots, by the hashes of their names.
    index: Index,
    pub(super) producers: Producers,
    /// Seeded at random, the same for all snapshots of a registry: nobody can choose names that collide.
    hasher: RandomState,
    /// How many of `topics` are listed.
    pub(super) listed: usize,
    /// How many channels the topics have together, in the writer's head alone: a new channel publishes nothing.
    pub(super) channels: usize,
    /// Rendered `/topics`; a commit that changes the set of listed topics begins a new slot.
    pub(super) topics_answer: Arc<ArcSwapOption<Pages>>,
    /// Rendered `/nodes`; a commit that changes a producer's topics or tombstones begins a new slot.
    pub(super) nodes_answer: Arc<ArcSwapOption<Pages>>,
}

impl Snapshot {
    /// The topic of this name, listed or not.
    pub(super) fn topic(&self, name: &[u8]) -> Option<&Arc<Topic>> {
        self.topic_of(self.hash(name), name)
    }

    /// The same for a name whose hash is known.
    pub(super) fn topic_of(&self, hash: u32, name: &[u8]) -> Option<&Arc<Topic>> {
        let mut found = self.slots_of(hash).filter_map(|slot| self.topics.get(slot as usize));
        found.find(|topic| topic.name.as_bytes() == name)
    }

    /// Where the topics are whose names have this hash.
    pub(super) fn slots_of(&self, hash: u32) -> impl Iterator<Item = u32> {
        self.index.find(hash)
    }

    /// The topic of this id; `None` when it is not there any more, or not yet.
    pub(super) fn topic_at(&self, id: TopicId) -> Option<&Arc<Topic>> {
        self.topics.get(id.slot() as usize).filter(|topic| topic.id == id)
    }

    /// How many topics there are, listed or not.
    pub(super) fn topics_count(&self) -> usize {
        self.index.len()
    }

    /// Adds a topic whose name is not there.
    pub(super) fn insert_topic(&mut self, topic: Arc<Topic>) {
        let slot = topic.id.slot();
        self.index.insert(self.hash(topic.name.as_bytes()), slot);
        self.topics.set(slot as usize, Some(topic));
    }

    /// Removes a topic that is there.
    pub(super) fn remove_topic(&mut self, topic: &Topic) {
        let slot = topic.id.slot();
        self.index.remove(self.hash(topic.name.as_bytes()), slot);
        self.topics.set(slot as usize, None);
    }

    /// The producers of `ids` that have not left.
    pub(super) fn present<'a>(&'a self, ids: &'a [ProducerId]) -> impl Iterator<Item = &'a Arc<Producer>> {
        ids.iter().filter_map(|&id| self.producers.get(id))
    }

    /// The same in all snapshots of a registry.
    pub(super) fn hash(&self, name: &[u8]) -> u32 {
        // Without the length that `hash_one` puts before it, which tells apart what is no whole key.
        let mut hasher = self.hasher.build_hasher();
        hasher.write(name);
        // The upper bits of a hash, no more than there are.
        (hasher.finish() >> (u64::BITS - HASH_BITS)) as u32
    }
}

/// A topic, from its creation to its deletion.
pub(super) struct Topic {
    pub(super) id: TopicId,
    pub(super) name: SmolStr,
    /// How often the state was replaced.
    version: AtomicU64,
    /// An answer to `/lookup` that was worth keeping, right or not any more.
    pub(super) answer: ArcSwapOption<KeptAnswer>,
    state: ArcSwap<TopicState>,
}

impl Topic {
    pub(super) fn new(id: TopicId, name: &str) -> Self {
        Self {
            id,
            name: name.into(),
            version: AtomicU64::new(0),
            answer: ArcSwapOption::empty(),
            state: ArcSwap::default(),
        }
    }

    /// The number of a state that is at most as new as any that is loaded from now on: what is rendered from the
    /// latter may be believed as long as this does not change.
    pub(super) fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    pub(super) fn state(&self) -> Guard<Arc<TopicState>> {
        self.state.load()
    }

    /// Replaces what the topic has, under the writer lock, and returns what it had. Of the answer only parts are of
    /// use any more.
    pub(super) fn replace(&self, state: TopicState) -> Arc<TopicState> {
        let before = self.state.swap(Arc::new(state));
        self.version.fetch_add(1, Ordering::Release);
        if self.answer.load().as_ref().is_some_and(|kept| kept.answer.parts().is_empty()) {
            self.answer.store(None);
        }
        before
    }
}

/// What a topic has. Whoever produces a channel produces its topic too: REGISTER adds to both, and whatever
/// takes a producer from the topic takes it from the channels.
#[derive(Clone, Default)]
pub(super) struct TopicState {
    /// False for what is left when an ephemeral topic goes and its channels stay (stock keeps those).
    pub(super) listed: bool,
    pub(super) producers: Ids,
    pub(super) channels: Arc<[Channel]>,
    pub(super) expiry: Expiry,
    /// When each tombstoned producer was, by id. Stock keeps a tombstone until the producer unregisters.
    pub(super) tombstones: Option<Arc<Tombstones>>,
}

impl TopicState {
    pub(super) fn tombstoned_at(&self, id: ProducerId) -> Option<Timestamp> {
        let tombstones = self.tombstones.as_ref()?;
        let at = tombstones.binary_search_by_key(&id, |&(id, _)| id).ok()?;
        Some(tombstones[at].1)
    }

    pub(super) fn channel(&self, name: &[u8]) -> Result<usize, usize> {
        self.channels.binary_search_by(|channel| channel.name.as_bytes().cmp(name))
    }

    /// Whether the producer has registered the topic, and the channel if there is one.
    pub(super) fn has(&self, id: ProducerId, channel: Option<Name>) -> bool {
        let has_channel = |channel: Name| {
            self.channel(channel.as_bytes()).is_ok_and(|at| self.channels[at].producers.contains(id))
        };
        self.producers.contains(id) && channel.is_none_or(has_channel)
    }

    pub(super) fn channel_or_new(&mut self, name: Name) -> usize {
        self.channel(name.as_bytes()).unwrap_or_else(|at| {
            let (before, after) = self.channels.split_at(at);
            let new = Channel { name: name.as_str().into(), producers: Ids::default(), expiry: Expiry::default() };
            self.channels = before.iter().chain([&new]).chain(after).cloned().collect();
            at
        })
    }

    /// Adds a producer of the topic to the channel, and returns the channel; `None` when it had it already.
    pub(super) fn join_channel(&mut self, name: Name, id: ProducerId) -> Option<&mut Channel> {
        let at = self.channel_or_new(name);
        if self.channels[at].producers.contains(id) {
            return None;
        }
        let channel = &mut Arc::make_mut(&mut self.channels)[at];
        // Most channels have every producer of their topic. They share its array: a tenth of all memory.
        if self.producers.is_other_with(&channel.producers, id) {
            channel.producers = self.producers.clone();
        } else {
            channel.producers.insert(id);
        }
        Some(channel)
    }

    /// Takes the producer out altogether; returns how many channels it had. `unused` is told of the topic (`None`) and of
    /// each channel that has lost its last producer.
    pub(super) fn leave(
        &mut self,
        id: ProducerId,
        mut unused: impl FnMut(&mut Expiry, Option<&SmolStr>),
    ) -> usize {
        let before = self.producers.clone();
        if self.producers.remove(id) && self.producers.is_empty() {
            unused(&mut self.expiry, None);
        }
        if self.tombstoned_at(id).is_some()
            && let Some(tombstones) = &mut self.tombstones
        {
            Arc::make_mut(tombstones).retain(|&(other, _)| other != id);
        }
        if !self.channels.iter().any(|channel| channel.producers.contains(id)) {
            return 0;
        }
        let mut left = 0;
        for channel in Arc::make_mut(&mut self.channels) {
            if channel.producers.shares(&before) {
                channel.producers = self.producers.clone();
            } else if !channel.producers.remove(id) {
                continue;
            }
            left += 1;
            if channel.producers.is_empty() {
                unused(&mut channel.expiry, Some(&channel.name));
            }
        }
        left
    }

    pub(super) fn remove_channel(&mut self, at: usize) {
        let (before, after) = (&self.channels[..at], &self.channels[at + 1..]);
        self.channels = before.iter().chain(after).cloned().collect();
    }
}

#[derive(Clone)]
pub(super) struct Channel {
    pub(super) name: SmolStr,
    pub(super) producers: Ids,
    pub(super) expiry: Expiry,
}

/// A sorted set of producers, copied when changed: a `memcpy`, without a reference count for each.
#[derive(Clone, Default)]
pub(super) struct Ids(Arc<[ProducerId]>);

impl Ids {
    /// False when it was there already.
    pub(super) fn insert(&mut self, id: ProducerId) -> bool {
        let Err(at) = self.0.binary_search(&id) else { return false };
        let (before, after) = self.0.split_at(at);
        self.0 = before.iter().chain([&id]).chain(after).copied().collect();
        true
    }

    /// False when it was not there.
    pub(super) fn remove(&mut self, id: ProducerId) -> bool {
        let Ok(at) = self.0.binary_search(&id) else { return false };
        let (before, after) = (&self.0[..at], &self.0[at + 1..]);
        // An empty array of its own would be an allocation for each topic that nobody produces.
        self.0 = if self.0.len() == 1 { Arc::default() } else { before.iter().chain(after).copied().collect() };
        true
    }

    /// Whether this is `other` and `id`, which `other` has not.
    fn is_other_with(&self, other: &Self, id: ProducerId) -> bool {
        let Ok(at) = self.0.binary_search(&id) else { return false };
        self.0.len() == other.0.len() + 1 && self.0[..at] == other.0[..at] && self.0[at + 1..] == other.0[at..]
    }

    /// Whether this and `other` are one in memory.
    fn shares(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    pub(super) fn contains(&self, id: ProducerId) -> bool {
        self.0.binary_search(&id).is_ok()
    }

    pub(super) fn as_slice(&self) -> &[ProducerId] {
        &self.0
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
