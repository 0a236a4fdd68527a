//! Changing the registry: one writer at a time, one new snapshot for a whole batch of changes.

use std::mem;
use std::sync::atomic::Ordering;
use std::sync::{Arc, MutexGuard};

use arc_swap::ArcSwap;

use super::Totals;
use super::names::{Name, ProducerId, TopicId, is_ephemeral};
use super::producer::Producer;
use super::snapshot::{Channel, Snapshot, Topic, TopicState};
use super::unused::{Expiry, Unused};
use crate::clock::Timestamp;

/// What a REGISTER or UNREGISTER changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Changed {
    /// The producer was added to or removed from the topic.
    pub topic: bool,
    /// How many channels of the topic the producer was added to or removed from.
    pub channels: usize,
}

/// The writer lock, held over a batch. All of it is visible after [`Writer::publish`], which must end it, and
/// parts of it may be before.
#[must_use]
pub struct Writer<'a> {
    pub(super) head: MutexGuard<'a, Head>,
    pub(super) published: &'a ArcSwap<Snapshot>,
    pub(super) totals: &'a Totals,
    pub(super) changes: Changes,
}

/// What the writer lock guards.
pub(super) struct Head {
    /// In the making.
    pub(super) snapshot: Snapshot,
    /// Ids for topics to come: those of deleted ones, each followed by the next at its place.
    free: Vec<TopicId>,
    pub(super) unused: Unused,
}

impl Head {
    pub(super) fn new(unused: Unused) -> Self {
        Self { snapshot: Snapshot::default(), free: Vec::new(), unused }
    }
}

/// What a batch has changed so far.
#[derive(Default)]
pub(super) struct Changes {
    /// Which topics or producers there are.
    index: bool,
    /// What `/topics` answers.
    topics: bool,
    /// What `/nodes` answers.
    nodes: bool,
}

impl Writer<'_> {
    /// Adds a producer without topics. It is published at once, before any topic can list it.
    ///
    /// # Panics
    /// When the id is taken: a connection identifies once.
    pub fn identify(&mut self, producer: Arc<Producer>) {
        self.head.snapshot.producers.insert(producer);
        self.changes.index = true;
        self.changes.nodes = true;
        self.publish_snapshot();
    }

    /// Removes the producer from all it registered, in proportion to what it registered, and returns the
    /// number of topics. Topics and channels stay, ephemeral ones too (stock's disconnect), until
    /// [`Writer::forget_unused`].
    ///
    /// # Panics
    /// When the producer is not there.
    pub fn disconnect(&mut self, producer: &Arc<Producer>, now: Timestamp) -> usize {
        let id = producer.id();
        self.head.snapshot.producers.remove(id);
        self.changes.index = true;
        self.changes.nodes = true;
        let topics = mem::take(&mut *producer.topics());
        let Head { snapshot, unused, .. } = &mut *self.head;
        for &topic in &topics {
            let topic = snapshot.topic_at(topic).expect("a topic is there as long as its producers");
            leave(topic, id, unused, now);
        }
        topics.len()
    }

    /// Adds the producer to the topic and the channel, making both when they are new.
    pub fn register(&mut self, producer: &Arc<Producer>, topic: Name, channel: Option<Name>) -> Changed {
        let topic = self.topic_or_new(topic);
        let state = topic.state();
        // What nsqd has registered before it may register again: that copies nothing.
        if state.listed && state.has(producer.id(), channel) {
            return Changed::default();
        }
        self.list(&state);
        let is_new = |channel: Name| state.channel(channel.as_bytes()).is_err();
        self.head.snapshot.channels += usize::from(channel.is_some_and(is_new));
        let unused = &mut self.head.unused;
        let changed = change(&topic, |state| {
            state.listed = true;
            let joins = state.producers.insert(producer.id());
            unused.use_again(&mut state.expiry, topic.id, None);
            let joined = channel.and_then(|channel| state.join_channel(channel, producer.id()));
            let channels = usize::from(joined.is_some());
            if let Some(channel) = joined {
                unused.use_again(&mut channel.expiry, topic.id, Some(&channel.name));
            }
            Changed { topic: joins, channels }
        });
        if changed.topic {
            producer.topics().push(topic.id);
            self.changes.nodes = true;
        }
        producer.channels.fetch_add(changed.channels, Ordering::Relaxed);
        changed
    }

    /// Removes the producer from the topic and all its channels, or from the one channel. An ephemeral topic
    /// or channel goes with its last producer, or when it had none to begin with (stock).
    pub fn unregister(
        &mut self,
        producer: &Arc<Producer>,
        topic: Name,
        channel: Option<Name>,
        now: Timestamp,
    ) -> Changed {
        let Some(topic) = self.head.snapshot.topic(topic.as_bytes()).cloned() else { return Changed::default() };
        match channel {
            Some(channel) => self.unregister_channel(producer, &topic, channel, now),
            None => self.unregister_topic(producer, &topic, now),
        }
    }

    fn unregister_channel(
        &mut self,
        producer: &Producer,
        topic: &Topic,
        channel: Name,
        now: Timestamp,
    ) -> Changed {
        let id = producer.id();
        let state = topic.state();
        let Ok(at) = state.channel(channel.as_bytes()) else { return Changed::default() };
        let had = state.channels[at].producers.contains(id);
        let others = state.channels[at].producers.as_slice().len() - usize::from(had);
        if others == 0 && is_ephemeral(channel.as_bytes()) {
            self.remove_channel(topic, at);
        } else if had {
            let unused = &mut self.head.unused;
            change(topic, |state| {
                let channel = &mut Arc::make_mut(&mut state.channels)[at];
                channel.producers.remove(id);
                if others == 0 {
                    unused.add(&mut channel.expiry, topic, Some(&channel.name), now);
                }
            });
            producer.channels.fetch_sub(1, Ordering::Relaxed);
        }
        Changed { topic: false, channels: usize::from(had) }
    }

    fn unregister_topic(&mut self, producer: &Arc<Producer>, topic: &Topic, now: Timestamp) -> Changed {
        let id = producer.id();
        let mut changed = Changed { topic: topic.state().producers.contains(id), channels: 0 };
        if changed.topic {
            changed.channels = leave(topic, id, &mut self.head.unused, now);
            producer.channels.fetch_sub(changed.channels, Ordering::Relaxed);
            self.take_topic(producer, topic.id);
        }
        let state = topic.state();
        if state.producers.is_empty() && is_ephemeral(topic.name.as_bytes()) {
            self.unlist(&state);
            self.head.unused.remove(state.expiry, topic.id, None);
            change(topic, |state| (state.listed, state.expiry) = (false, Expiry::default()));
            self.forget_if_empty(topic);
        }
        changed
    }

    /// Makes a topic that nobody need produce, or sees to it that one that exists is not forgotten.
    pub fn create_topic(&mut self, topic: Name) {
        let topic = self.topic_or_new(topic);
        let state = topic.state();
        if state.listed && state.expiry == Expiry::KEPT {
            return;
        }
        self.list(&state);
        let unused = &mut self.head.unused;
        change(&topic, |state| {
            state.listed = true;
            unused.keep(&mut state.expiry, topic.id, None);
        });
    }

    /// The same for a channel, and its topic with it.
    pub fn create_channel(&mut self, topic: Name, channel: Name) {
        self.create_topic(topic);
        let topic = self.topic_or_new(topic);
        let state = topic.state();
        let place = state.channel(channel.as_bytes());
        if place.is_ok_and(|at| state.channels[at].expiry == Expiry::KEPT) {
            return;
        }
        self.head.snapshot.channels += usize::from(place.is_err());
        let unused = &mut self.head.unused;
        change(&topic, |state| {
            let at = state.channel_or_new(channel);
            let channel = &mut Arc::make_mut(&mut state.channels)[at];
            unused.keep(&mut channel.expiry, topic.id, Some(&channel.name));
        });
    }

    /// Deletes the topic and its channels, taking them from their producers. False when it was not there.
    pub fn delete_topic(&mut self, topic: &[u8]) -> bool {
        let Some(topic) = self.head.snapshot.topic(topic).cloned() else { return false };
        let state = topic.replace(TopicState::default());
        let producers: Vec<_> = self.head.snapshot.present(state.producers.as_slice()).cloned().collect();
        for producer in producers {
            self.take_topic(&producer, topic.id);
        }
        for channel in &*state.channels {
            self.forget_channel(topic.id, channel);
        }
        self.head.unused.remove(state.expiry, topic.id, None);
        self.unlist(&state);
        self.forget_if_empty(&topic);
        true
    }

    /// Deletes the channel, taking it from its producers. False when it was not there.
    pub fn delete_channel(&mut self, topic: Name, channel: Name) -> bool {
        let Some(topic) = self.head.snapshot.topic(topic.as_bytes()).cloned() else { return false };
        let Ok(at) = topic.state().channel(channel.as_bytes()) else { return false };
        self.remove_channel(&topic, at);
        true
    }

    /// Tombstones every producer of the topic that calls itself `node` (`broadcast_address:http_port`), anew
    /// when it was already, and returns their number.
    pub fn tombstone(&mut self, topic: &[u8], node: &[u8], now: Timestamp) -> usize {
        let Some(topic) = self.head.snapshot.topic(topic) else { return 0 };
        let state = topic.state();
        let mut hit = Vec::new();
        for producer in
            self.head.snapshot.present(state.producers.as_slice()).filter(|producer| producer.is_node(node))
        {
            producer.was_tombstoned.store(true, Ordering::Relaxed);
            hit.push(producer.id());
        }
        if hit.is_empty() {
            return 0;
        }
        let before = state.tombstones.iter().flat_map(|tombstones| tombstones.iter());
        let kept = before.filter(|(id, _)| hit.binary_search(id).is_err());
        let mut tombstones: Vec<_> = kept.copied().chain(hit.iter().map(|&id| (id, now))).collect();
        tombstones.sort_unstable_by_key(|&(id, _)| id);
        self.changes.nodes = true;
        change(topic, |state| state.tombstones = Some(Arc::new(tombstones)));
        hit.len()
    }

    /// Makes the whole batch visible. One that changed neither which topics and producers there are nor what
    /// the large answers say publishes no snapshot.
    pub fn publish(mut self) {
        self.publish_snapshot();
    }

    fn publish_snapshot(&mut self) {
        // The flags stay set: a reader may meanwhile cache what it sees of the rest of the batch.
        let Changes { index, topics, nodes, .. } = self.changes;
        if topics {
            self.head.snapshot.topics_answer = Arc::default();
        }
        if nodes {
            self.head.snapshot.nodes_answer = Arc::default();
        }
        if index || topics || nodes {
            self.published.store(Arc::new(self.head.snapshot.clone()));
        }
        self.totals.update(&self.head);
    }

    /// Takes a topic from those of a producer.
    fn take_topic(&mut self, producer: &Producer, topic: TopicId) {
        let mut topics = producer.topics();
        if let Some(at) = topics.iter().position(|&id| id == topic) {
            topics.swap_remove(at);
            self.changes.nodes = true;
        }
    }

    fn topic_or_new(&mut self, name: Name) -> Arc<Topic> {
        if let Some(found) = self.head.snapshot.topic(name.as_bytes()) {
            return Arc::clone(found);
        }
        self.changes.index = true;
        let Head { snapshot, free, .. } = &mut *self.head;
        let id = free.pop().unwrap_or_else(|| TopicId::first_of(snapshot.topics.len()));
        let topic = Arc::new(Topic::new(id, name.as_str()));
        snapshot.insert_topic(Arc::clone(&topic));
        topic
    }

    /// Counts a topic that is about to be listed, unless `before` is already.
    fn list(&mut self, before: &TopicState) {
        if !before.listed {
            self.head.snapshot.listed += 1;
            self.changes.topics = true;
        }
    }

    fn unlist(&mut self, before: &TopicState) {
        if before.listed {
            self.head.snapshot.listed -= 1;
            self.changes.topics = true;
        }
    }

    fn remove_channel(&mut self, topic: &Topic, at: usize) {
        self.forget_channel(topic.id, &topic.state().channels[at]);
        change(topic, |state| state.remove_channel(at));
        self.forget_if_empty(topic);
    }

    /// Counts a channel off, in all and with each of its producers.
    pub(super) fn forget_channel(&mut self, topic: TopicId, channel: &Channel) {
        self.head.unused.remove(channel.expiry, topic, Some(&channel.name));
        self.head.snapshot.channels -= 1;
        for producer in self.head.snapshot.present(channel.producers.as_slice()) {
            producer.channels.fetch_sub(1, Ordering::Relaxed);
        }
    }

    pub(super) fn forget_if_empty(&mut self, topic: &Topic) {
        let state = topic.state();
        if !state.listed && state.channels.is_empty() {
            self.changes.index = true;
            self.head.snapshot.remove_topic(topic);
            self.head.free.push(topic.id.next());
        }
    }
}

/// Takes a producer from a topic and from all its channels; returns how many channels it had.
fn leave(topic: &Topic, id: ProducerId, unused: &mut Unused, now: Timestamp) -> usize {
    change(topic, |state| state.leave(id, |expiry, channel| unused.add(expiry, topic, channel, now)))
}

/// Replaces what a topic has.
pub(super) fn change<T>(topic: &Topic, how: impl FnOnce(&mut TopicState) -> T) -> T {
    let mut state = TopicState::clone(&topic.state());
    let result = how(&mut state);
    topic.replace(state);
    result
}
