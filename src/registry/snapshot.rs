//! The immutable registry that readers see: every lookup is answered from one `Snapshot`.
//!
//! Snapshots share structure. The maps are persistent B-trees and tries (`imbl`), so a commit copies the path
//! to what it changed and nothing else; a topic that did not change is the same `Arc` in both. Producers
//! stand in a topic as sorted arrays of ids: changing one is a `memcpy`, without a reference count for each.

use std::borrow::Borrow;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use imbl::{HashMap, OrdMap, OrdSet};

use super::freshness::Rendered;
use super::names::{ProducerId, TopicId};
use super::producer::Producer;
use crate::clock::Timestamp;

/// The body of `/lookup` for one topic.
pub(super) type LookupAnswer = Rendered<Bytes>;
/// A large answer, page by page.
pub(super) type Pages = Rendered<Vec<Bytes>>;

/// The registry at one moment.
#[derive(Clone, Default)]
pub struct Snapshot {
    pub(super) names: HashMap<Label, ()>,
    pub(super) topics: OrdMap<TopicId, Arc<Topic>>,
    pub(super) nodes: OrdMap<ProducerId, Node>,
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
        let (label, ()) = self.names.get_key_value(name)?;
        self.topics.get(&label.id())
    }

    pub(super) fn producer(&self, id: ProducerId) -> &Arc<Producer> {
        &self.nodes.get(&id).expect("a topic lists only producers of its own snapshot").producer
    }
}

/// A topic's name and id, one small allocation that the topic and the table of names share.
#[derive(Clone)]
pub(super) struct Label(Arc<(TopicId, Box<[u8]>)>);

impl Label {
    pub(super) fn new(id: TopicId, name: &[u8]) -> Self {
        Self(Arc::new((id, name.into())))
    }

    pub(super) fn id(&self) -> TopicId {
        self.0.0
    }

    pub(super) fn name(&self) -> &[u8] {
        &self.0.1
    }
}

impl Borrow<[u8]> for Label {
    fn borrow(&self) -> &[u8] {
        self.name()
    }
}

impl PartialEq for Label {
    fn eq(&self, other: &Self) -> bool {
        self.name() == other.name()
    }
}

impl Eq for Label {}

impl Hash for Label {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name().hash(state);
    }
}

/// A topic with its channels and producers. Whoever produces a channel produces its topic too: REGISTER
/// adds to both, and whatever takes a producer from the topic takes it from the channels.
pub(super) struct Topic {
    pub(super) label: Label,
    /// False for what is left when an ephemeral topic goes and its channels stay (stock keeps those).
    pub(super) listed: bool,
    pub(super) producers: Ids,
    pub(super) channels: Arc<[Channel]>,
    /// When each tombstoned producer was, by id. Stock keeps a tombstone until the producer unregisters.
    pub(super) tombstones: Arc<[(ProducerId, Timestamp)]>,
    /// The answer to `/lookup`, rendered by the first reader who wants it.
    pub(super) lookup: ArcSwapOption<LookupAnswer>,
}

impl Topic {
    pub(super) fn new(label: Label) -> Self {
        Self {
            label,
            listed: false,
            producers: Ids::default(),
            channels: Arc::default(),
            tombstones: Arc::default(),
            lookup: ArcSwapOption::empty(),
        }
    }

    pub(super) fn tombstoned_at(&self, id: ProducerId) -> Option<Timestamp> {
        let at = self.tombstones.binary_search_by_key(&id, |&(id, _)| id).ok()?;
        Some(self.tombstones[at].1)
    }

    pub(super) fn channel(&self, name: &[u8]) -> Result<usize, usize> {
        self.channels.binary_search_by(|channel| channel.name.as_ref().cmp(name))
    }
}

impl Clone for Topic {
    /// For changing it: everything but the answer that the change makes wrong.
    fn clone(&self) -> Self {
        Self {
            label: self.label.clone(),
            listed: self.listed,
            producers: self.producers.clone(),
            channels: self.channels.clone(),
            tombstones: self.tombstones.clone(),
            lookup: ArcSwapOption::empty(),
        }
    }
}

#[derive(Clone)]
pub(super) struct Channel {
    pub(super) name: Arc<[u8]>,
    pub(super) producers: Ids,
}

/// A producer with the topics it registered.
#[derive(Clone)]
pub(super) struct Node {
    pub(super) producer: Arc<Producer>,
    pub(super) topics: OrdSet<TopicId>,
}

/// A sorted set of producers, copied when changed.
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
