//! A topic: an immutable value. A commit replaces it as a whole.
//!
//! Name, version and all that the topic has are one allocation: a lookup that compares the name has the rest in the
//! processor's cache.

use std::sync::{Arc, OnceLock};

use arc_swap::Guard;
use smol_str::SmolStr;

use super::cache::{CachedResponse, ResponseCell};
use super::change::Changed;
use super::lookup::Tombstones;
use super::names::{Name, ProducerId, TopicId};
use super::producer::Producer;
use super::unused::{Expiry, Unused};
use crate::clock::Timestamp;

/// A topic as of one commit. Whoever produces a channel produces its topic too: REGISTER adds to both, and whatever
/// takes a producer from the topic takes it from the channels. In C's order: what finding a topic reads comes first.
#[derive(Clone)]
#[repr(C)]
pub struct Topic {
    pub(super) id: TopicId,
    pub(super) name: SmolStr,
    /// How often the topic was replaced. A cached response carries the version that it was rendered from.
    pub(super) version: u64,
    /// A response to `/lookup` that was worth keeping. From the first such response on all versions of the topic have
    /// the same cell, and nothing is cleared when the topic changes.
    pub(super) response: OnceLock<Arc<ResponseCell>>,
    /// False for what is left when an ephemeral topic goes and its channels stay (stock keeps those).
    pub(super) listed: bool,
    /// How often it has changed which of its producers are superseded.
    pub(super) rankings: u32,
    pub(super) producers: Ids,
    pub(super) channels: Arc<[Channel]>,
    pub(super) expiry: Expiry,
    /// When each tombstoned producer was, by id. Stock keeps a tombstone until the producer unregisters.
    pub(super) tombstones: Option<Arc<Tombstones>>,
}

impl Topic {
    /// A topic without producers or channels that is not listed yet.
    pub(super) fn new(id: TopicId, name: &str) -> Self {
        Self {
            id,
            name: name.into(),
            version: 0,
            response: OnceLock::new(),
            listed: false,
            rankings: 0,
            producers: Ids::default(),
            channels: Arc::default(),
            expiry: Expiry::default(),
            tombstones: None,
        }
    }

    /// No two topics have the same.
    pub fn id(&self) -> TopicId {
        self.id
    }

    /// A valid topic name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether the topic exists for clients, other than one whose channels alone are left.
    pub fn is_listed(&self) -> bool {
        self.listed
    }

    /// The producers that have registered the topic, active or not, by id.
    pub fn producers(&self) -> &[ProducerId] {
        self.producers.as_slice()
    }

    /// The channels by name.
    pub fn channels(&self) -> &[Channel] {
        &self.channels
    }

    /// The response that was kept, valid or not.
    pub(super) fn response(&self) -> Guard<Option<Arc<CachedResponse>>> {
        self.response.get().map_or_else(|| Guard::from_inner(None), |cell| cell.load())
    }

    /// When the producer was tombstoned for the topic, under its own id or that of what it has inherited; `None` when it was
    /// not.
    pub fn tombstone_of(&self, producer: &Producer) -> Option<Timestamp> {
        let inherited = || self.tombstoned_at(producer.inheritance()?.id);
        self.tombstoned_at(producer.id()).or_else(inherited)
    }

    pub(super) fn tombstoned_at(&self, id: ProducerId) -> Option<Timestamp> {
        let tombstones = self.tombstones.as_ref()?;
        let at = tombstones.binary_search_by_key(&id, |&(id, _)| id).ok()?;
        Some(tombstones[at].1)
    }

    pub(super) fn channel(&self, name: &[u8]) -> Result<usize, usize> {
        self.channels.binary_search_by(|channel| channel.name.as_bytes().cmp(name))
    }

    /// Whether the id is in the topic or in one of its channels.
    pub(super) fn lists(&self, id: ProducerId) -> bool {
        self.producers.contains(id) || self.channels.iter().any(|channel| channel.producers.contains(id))
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

    /// Takes the producer from the topic and from all its channels; returns how many channels it had.
    pub(super) fn remove_producer(&mut self, id: ProducerId, unused: &mut Unused, now: Timestamp) -> usize {
        let before = self.producers.clone();
        if self.producers.remove(id) && self.producers.is_empty() {
            unused.count.topics += 1;
            unused.add(&mut self.expiry, (self.id, &self.name), None, now);
        }
        if self.tombstoned_at(id).is_some()
            && let Some(tombstones) = &mut self.tombstones
        {
            Arc::make_mut(tombstones).retain(|&(other, _)| other != id);
        }
        if !self.channels.iter().any(|channel| channel.producers.contains(id)) {
            return 0;
        }
        let mut removed = 0;
        for channel in Arc::make_mut(&mut self.channels) {
            if channel.producers.shares(&before) {
                channel.producers = self.producers.clone();
            } else if !channel.producers.remove(id) {
                continue;
            }
            removed += 1;
            if channel.producers.is_empty() {
                unused.count.channels += 1;
                unused.add(&mut channel.expiry, (self.id, &self.name), Some(&channel.name), now);
            }
        }
        removed
    }

    /// Lists a producer under another id, in the topic and in those of its channels that are meant. Returns where it was.
    pub(super) fn rename(
        &mut self,
        from: ProducerId,
        to: ProducerId,
        is_meant: impl Fn(&Channel) -> bool,
    ) -> Changed {
        if self.tombstoned_at(from).is_some()
            && let Some(tombstones) = &mut self.tombstones
        {
            let tombstones = Arc::make_mut(tombstones);
            tombstones.iter_mut().filter(|(id, _)| *id == from).for_each(|(id, _)| *id = to);
            tombstones.sort_unstable_by_key(|&(id, _)| id);
        }
        let before = self.producers.clone();
        let mut changed = Changed { topic: self.producers.rename(from, to), channels: 0 };
        let is_in = |channel: &Channel| channel.producers.contains(from) && is_meant(channel);
        if !self.channels.iter().any(is_in) {
            return changed;
        }
        for channel in Arc::make_mut(&mut self.channels).iter_mut().filter(|channel| is_in(channel)) {
            if channel.producers.shares(&before) {
                channel.producers = self.producers.clone();
            } else {
                channel.producers.rename(from, to);
            }
            changed.channels += 1;
        }
        changed
    }

    pub(super) fn remove_channel(&mut self, at: usize) {
        let (before, after) = (&self.channels[..at], &self.channels[at + 1..]);
        self.channels = before.iter().chain(after).cloned().collect();
    }
}

/// A channel of a topic.
#[derive(Clone)]
pub struct Channel {
    pub(super) name: SmolStr,
    pub(super) producers: Ids,
    pub(super) expiry: Expiry,
}

impl From<&Topic> for Name {
    fn from(topic: &Topic) -> Self {
        valid(topic.name())
    }
}

impl From<&Channel> for Name {
    fn from(channel: &Channel) -> Self {
        valid(channel.name())
    }
}

fn valid(name: &str) -> Name {
    Name::new(name.as_bytes()).expect("the names of a registry are valid")
}

impl Channel {
    /// A valid channel name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The producers that have registered the channel, active or not, by id.
    pub fn producers(&self) -> &[ProducerId] {
        self.producers.as_slice()
    }
}

/// A sorted set of producers, copied when changed: a `memcpy`, without a reference count for each.
#[derive(Clone, Default)]
pub(super) struct Ids(Arc<[ProducerId]>);

impl Ids {
    /// In any order, and some more than once.
    pub(super) fn of(mut ids: Vec<ProducerId>) -> Self {
        if ids.is_empty() {
            return Self::default();
        }
        ids.sort_unstable();
        ids.dedup();
        Self(ids.into())
    }

    /// Those that are in `other`, too.
    pub(super) fn and(&self, other: &Self) -> Self {
        Self::of(self.0.iter().copied().filter(|&id| other.contains(id)).collect())
    }

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
        // An empty array of its own would be an allocation for each topic without producers.
        self.0 = if self.0.len() == 1 { Arc::default() } else { before.iter().chain(after).copied().collect() };
        true
    }

    /// Puts one id in the place of another. False when that was not there.
    fn rename(&mut self, from: ProducerId, to: ProducerId) -> bool {
        let Ok(at) = self.0.binary_search(&from) else { return false };
        let mut ids = self.0.to_vec();
        ids[at] = to;
        ids.sort_unstable();
        self.0 = ids.into();
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
