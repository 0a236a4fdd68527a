//! What readers see: who exists, in one immutable snapshot, and what each has, in a cell of its own.
//!
//! A [`Snapshot`] finds topics and producers. Its maps are persistent B-trees (`imbl`), and a commit that adds or
//! removes one copies the path to it and publishes a new snapshot. What a topic has is its [`TopicState`],
//! immutable too and replaced as a whole, and what a producer registered is a set in the [`Producer`]: a
//! REGISTER of a topic that exists replaces these two and copies no path. (With everything in the trees it
//! took three to four times as long at a million registrations: each copied leaf counts sixteen references
//! to topics that lie all over the memory.)
//!
//! A reader may so see a state that is newer than its snapshot. Two rules make that harmless: a producer is
//! published before any state lists it, so who loads the snapshot after the state finds it there; and no two
//! producers have the same id, so one that is not there is one that has left.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use arc_swap::{ArcSwap, ArcSwapOption};
use bytes::Bytes;
use imbl::OrdMap;

use super::freshness::Rendered;
use super::names::{Name, ProducerId, TopicId};
use super::producer::Producer;
use crate::clock::Timestamp;

/// The body of `/lookup` for one topic.
pub(super) type LookupAnswer = Rendered<Bytes>;
/// A large answer, page by page.
pub(super) type Pages = Rendered<Vec<Bytes>>;

/// How much of a name's hash is used. Few bits in unit tests, so that they meet names whose hashes are equal.
const HASH_BITS: u32 = if cfg!(test) { 3 } else { u32::BITS };

/// The registry at one moment.
#[derive(Clone, Default)]
pub struct Snapshot {
    pub(super) topics: OrdMap<TopicId, Arc<Topic>>,
    pub(super) producers: OrdMap<ProducerId, Arc<Producer>>,
    /// Seeded at random, the same for all snapshots of a registry: nobody can choose names that collide.
    hasher: RandomState,
    /// The largest serial that a topic was ever given: zero until two names have the same hash.
    last_serial: u32,
    /// How many of `topics` are listed.
    pub(super) listed: usize,
    /// Rendered `/topics`; a commit that changes the set of listed topics begins a new slot.
    pub(super) topics_answer: Arc<ArcSwapOption<Pages>>,
    /// Rendered `/nodes`; a commit that changes a producer's topics or tombstones begins a new slot.
    pub(super) nodes_answer: Arc<ArcSwapOption<Pages>>,
}

impl Snapshot {
    /// The topic of this name, listed or not.
    pub(super) fn topic(&self, name: &[u8]) -> Option<&Arc<Topic>> {
        self.ids(name).find_map(|id| self.topics.get(&id).filter(|topic| *topic.name == *name))
    }

    /// An id for a topic that is not there.
    pub(super) fn new_id(&mut self, name: &[u8]) -> TopicId {
        let free = self.ids(name).find(|id| !self.topics.contains_key(id));
        free.unwrap_or_else(|| {
            self.last_serial += 1;
            TopicId { hash: self.hash(name), serial: self.last_serial }
        })
    }

    /// The producers of `ids` that have not left.
    pub(super) fn present<'a>(&'a self, ids: &'a Ids) -> impl Iterator<Item = &'a Arc<Producer>> {
        ids.as_slice().iter().filter_map(|id| self.producers.get(id))
    }

    /// Where a topic of this name may be.
    fn ids(&self, name: &[u8]) -> impl Iterator<Item = TopicId> + use<> {
        let hash = self.hash(name);
        (0..=self.last_serial).map(move |serial| TopicId { hash, serial })
    }

    fn hash(&self, name: &[u8]) -> u32 {
        // The upper bits of a hash, no more than there are.
        (self.hasher.hash_one(name) >> (u64::BITS - HASH_BITS)) as u32
    }
}

/// A topic, from its creation to its deletion.
pub(super) struct Topic {
    pub(super) id: TopicId,
    pub(super) name: Box<[u8]>,
    pub(super) state: ArcSwap<TopicState>,
}

impl Topic {
    pub(super) fn new(id: TopicId, name: &[u8]) -> Self {
        Self { id, name: name.into(), state: ArcSwap::default() }
    }
}

/// What a topic has. Whoever produces a channel produces its topic too: REGISTER adds to both, and whatever
/// takes a producer from the topic takes it from the channels.
#[derive(Default)]
pub(super) struct TopicState {
    /// False for what is left when an ephemeral topic goes and its channels stay (stock keeps those).
    pub(super) listed: bool,
    pub(super) producers: Ids,
    pub(super) channels: Arc<[Channel]>,
    /// When each tombstoned producer was, by id. Stock keeps a tombstone until the producer unregisters.
    pub(super) tombstones: Arc<[(ProducerId, Timestamp)]>,
    /// The answer to `/lookup`, rendered by the first reader who wants it.
    pub(super) lookup: ArcSwapOption<LookupAnswer>,
}

impl TopicState {
    pub(super) fn tombstoned_at(&self, id: ProducerId) -> Option<Timestamp> {
        let at = self.tombstones.binary_search_by_key(&id, |&(id, _)| id).ok()?;
        Some(self.tombstones[at].1)
    }

    pub(super) fn channel(&self, name: &[u8]) -> Result<usize, usize> {
        self.channels.binary_search_by(|channel| channel.name.as_ref().cmp(name))
    }

    /// Whether the producer has registered the topic, and the channel if there is one.
    pub(super) fn has(&self, id: ProducerId, channel: Option<Name>) -> bool {
        let has_channel = |channel: Name| {
            self.channel(channel.as_bytes()).is_ok_and(|at| self.channels[at].producers.contains(id))
        };
        self.producers.contains(id) && channel.is_none_or(has_channel)
    }

    pub(super) fn channel_or_new(&mut self, name: &[u8]) -> usize {
        self.channel(name).unwrap_or_else(|at| {
            let (before, after) = self.channels.split_at(at);
            let new = Channel { name: name.into(), producers: Ids::default() };
            self.channels = before.iter().chain([&new]).chain(after).cloned().collect();
            at
        })
    }

    /// False when the producer had the channel already.
    pub(super) fn join_channel(&mut self, name: &[u8], id: ProducerId) -> bool {
        let at = self.channel_or_new(name);
        !self.channels[at].producers.contains(id) && Arc::make_mut(&mut self.channels)[at].producers.insert(id)
    }

    /// Takes the producer out altogether; returns how many channels it had.
    pub(super) fn leave(&mut self, id: ProducerId) -> usize {
        self.producers.remove(id);
        if self.tombstoned_at(id).is_some() {
            self.tombstones = self.tombstones.iter().filter(|&&(other, _)| other != id).copied().collect();
        }
        if !self.channels.iter().any(|channel| channel.producers.contains(id)) {
            return 0;
        }
        let channels = Arc::make_mut(&mut self.channels).iter_mut();
        channels.filter_map(|channel| channel.producers.remove(id).then_some(())).count()
    }

    pub(super) fn remove_channel(&mut self, at: usize) {
        let (before, after) = (&self.channels[..at], &self.channels[at + 1..]);
        self.channels = before.iter().chain(after).cloned().collect();
    }
}

impl Clone for TopicState {
    /// For changing it: everything but the answer that the change makes wrong.
    fn clone(&self) -> Self {
        Self {
            listed: self.listed,
            producers: self.producers.clone(),
            channels: Arc::clone(&self.channels),
            tombstones: Arc::clone(&self.tombstones),
            lookup: ArcSwapOption::empty(),
        }
    }
}

#[derive(Clone)]
pub(super) struct Channel {
    pub(super) name: Arc<[u8]>,
    pub(super) producers: Ids,
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
