//! Changing the registry: one writer at a time, one new snapshot for a whole batch of changes.

use std::mem;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::change::{Changed, Identified, Older};
use super::inheritance::Grace;
use super::names::{Name, ProducerId, Source, TopicId, is_ephemeral};
use super::nodes::Nodes;
use super::observer::Recorder;
use super::prefetch::prefetch_topics;
use super::producer::Producer;
use super::snapshot::{Rest, Snapshot};
use super::topic::{Channel, Topic};
use super::unused::{Expiry, Unused};
use super::versions::Versions;
use super::visibility::Lifetimes;
use crate::clock::Timestamp;
use crate::limits::CHANGES_PREFETCHED_TOGETHER;

/// A batch of changes under the writer lock, visible to nobody until [`super::Registry::commit`] is over.
pub struct Writer<'a> {
    pub(super) head: &'a mut Head,
    pub(super) changed: Documents,
}

/// What the writer lock guards.
pub(super) struct Head {
    pub(super) versions: Versions,
    /// Ids for topics to come: those of deleted ones, each followed by the next at its place.
    free: Vec<TopicId>,
    pub(super) unused: Unused,
    pub(super) nodes: Nodes,
    /// While restored producers are expected back.
    pub(super) grace: Option<Grace>,
    pub(super) recorder: Option<Arc<dyn Recorder>>,
}

impl Head {
    pub(super) fn new(versions: Versions, unused: Unused) -> Self {
        Self { versions, free: Vec::new(), unused, nodes: Nodes::default(), grace: None, recorder: None }
    }
}

/// What a batch has changed so far, as the large documents see it.
#[derive(Default)]
pub(super) struct Documents {
    /// Which topics are listed.
    pub(super) topics: bool,
    /// Which producers there are, what they have registered, and tombstones.
    pub(super) nodes: bool,
    /// How long producers and tombstones count.
    pub(super) lifetimes: bool,
}

impl Writer<'_> {
    /// The registry with what the batch has changed so far.
    pub fn snapshot(&self) -> &Snapshot {
        self.head.versions.draft()
    }

    pub(super) fn rest(&mut self) -> &mut Rest {
        &mut self.head.versions.edit().rest
    }

    /// Sets how long producers and tombstones count from now on, and for how long names are kept that lose their last
    /// producer from now on.
    pub(super) fn set_lifetimes(&mut self, lifetimes: Lifetimes) {
        self.rest().lifetimes = lifetimes;
        self.head.unused.set_lifetimes(lifetimes);
        self.changed.lifetimes = true;
    }

    /// # Panics
    /// When the id is taken: a connection identifies once.
    pub(super) fn identify(&mut self, producer: &Arc<Producer>, now: Timestamp) -> Identified {
        self.rest().producers.insert(Arc::clone(producer));
        self.changed.nodes = true;
        if producer.is_remote() {
            // Who speaks for its node is not decided here.
            return Identified::default();
        }
        let restored = self.head.nodes.restored(producer);
        if let Some(restored) = &restored {
            self.take_over(producer, restored);
        }
        let older = self.join_node(producer);
        let older = older.map(|older| Older {
            remote_address: older.remote_address().into(),
            silence: now.since(older.last_update()),
        });
        Identified { is_expected: restored.is_some(), older }
    }

    /// Removes the producer from all it registered, and returns the number of topics.
    ///
    /// # Panics
    /// When the producer is not there.
    pub(super) fn disconnect(&mut self, producer: &Arc<Producer>, now: Timestamp) -> usize {
        self.give_back(producer);
        self.rest().producers.remove(producer.id());
        self.changed.nodes = true;
        if !producer.is_remote() {
            self.leave_node(producer);
        }
        let topics = mem::take(&mut *producer.topics());
        self.leave_topics(&topics, producer.id(), now);
        topics.len()
    }

    /// Removes a producer's id from topics and their channels; returns how many of the topics had it.
    pub(super) fn leave_topics(&mut self, topics: &[TopicId], id: ProducerId, now: Timestamp) -> usize {
        let mut left = 0;
        let Head { versions, unused, .. } = &mut *self.head;
        for ids in topics.chunks(CHANGES_PREFETCHED_TOGETHER) {
            let draft = versions.draft();
            prefetch_topics(ids.iter().filter_map(|&id| draft.topic_at(id)));
            for &topic in ids {
                let draft = versions.draft();
                // Inherited registrations may have been deleted, or made again under another id.
                if id.source() == Source::Restored && !draft.topic_at(topic).is_some_and(|topic| topic.lists(id)) {
                    continue;
                }
                left += 1;
                let tombstone = versions.change(topic, |topic| {
                    let tombstone = topic.tombstoned_at(id);
                    topic.remove_producer(id, unused, now);
                    tombstone
                });
                if let Some(at) = tombstone {
                    versions.edit().rest.tombstones.remove(at);
                }
            }
        }
        left
    }

    pub(super) fn register(&mut self, producer: &Producer, name: Name, channel: Option<Name>) -> Changed {
        let own = self.make_own(producer, name, |found| {
            channel.is_some_and(|channel| channel.as_bytes() == found.name.as_bytes())
        });
        let (id, found) = (producer.id(), self.snapshot().topic(name.as_bytes()));
        let topic = match found.filter(|topic| topic.listed) {
            // What nsqd has registered before it may register again: that copies nothing.
            Some(topic) if topic.has(id, channel) => return own,
            Some(topic) => topic.id,
            None => self.list_topic(name),
        };
        let Head { versions, unused, .. } = &mut *self.head;
        let (changed, is_new) = versions.change(topic, |topic| {
            let channels = topic.channels.len();
            let is_unused = topic.producers.is_empty();
            let joins = topic.producers.insert(id);
            unused.count.topics -= usize::from(is_unused);
            unused.use_again(&mut topic.expiry, topic.id, None);
            let topic_id = topic.id;
            let joined = channel.and_then(|channel| topic.join_channel(channel, id));
            let joins_channel = joined.is_some();
            let is_first = joined.as_ref().is_some_and(|channel| channel.producers().len() == 1);
            if let Some(channel) = joined {
                unused.use_again(&mut channel.expiry, topic_id, Some(&channel.name));
            }
            let changed = Changed { topic: joins, channels: usize::from(joins_channel) };
            let is_new = topic.channels.len() - channels;
            unused.count.channels -= usize::from(is_first) - is_new;
            (changed, is_new)
        });
        self.rest().channels += is_new;
        if changed.topic {
            producer.topics().push(topic);
            self.changed.nodes = true;
        }
        producer.channels.fetch_add(changed.channels, Ordering::Relaxed);
        Changed { topic: changed.topic || own.topic, channels: changed.channels + own.channels }
    }

    pub(super) fn unregister(
        &mut self,
        producer: &Producer,
        topic: Name,
        channel: Option<Name>,
        now: Timestamp,
    ) -> Changed {
        if channel.is_none() {
            self.make_own(producer, topic, |_| true);
        }
        let Some(topic) = self.snapshot().topic(topic.as_bytes()).cloned() else { return Changed::default() };
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
        let Ok(at) = topic.channel(channel.as_bytes()) else { return Changed::default() };
        let producers = &topic.channels[at].producers;
        let id = producer.ids().find(|&id| producers.contains(id));
        let others = producers.as_slice().len() - usize::from(id.is_some());
        if others == 0 && is_ephemeral(channel.as_bytes()) {
            self.remove_channel(topic, at);
        } else if let Some(id) = id {
            let Head { versions, unused, .. } = &mut *self.head;
            versions.change(topic.id, |topic| {
                let channel = &mut Arc::make_mut(&mut topic.channels)[at];
                channel.producers.remove(id);
                if others == 0 {
                    unused.count.channels += 1;
                    unused.add(&mut channel.expiry, (topic.id, &topic.name), Some(&channel.name), now);
                }
            });
            producer.registered_as(id).channels.fetch_sub(1, Ordering::Relaxed);
        }
        Changed { topic: false, channels: usize::from(id.is_some()) }
    }

    fn unregister_topic(&mut self, producer: &Producer, topic: &Topic, now: Timestamp) -> Changed {
        let id = producer.id();
        let mut changed = Changed { topic: topic.producers.contains(id), channels: 0 };
        let Head { versions, unused, .. } = &mut *self.head;
        if changed.topic {
            changed.channels = versions.change(topic.id, |topic| topic.remove_producer(id, unused, now));
            if let Some(at) = topic.tombstoned_at(id) {
                versions.edit().rest.tombstones.remove(at);
            }
            producer.channels.fetch_sub(changed.channels, Ordering::Relaxed);
        }
        let others = topic.producers().len() - usize::from(changed.topic);
        if others == 0 && is_ephemeral(topic.name.as_bytes()) {
            versions.change(topic.id, |topic| {
                unused.remove(mem::take(&mut topic.expiry), topic.id, None);
                topic.listed = false;
            });
            self.count_unlisted(topic);
            self.forget_if_empty(topic.id);
        }
        if changed.topic {
            self.take_topic(producer, topic.id);
        }
        changed
    }

    /// Makes a topic that nobody need produce, or sees to it that one that exists is not forgotten.
    pub(super) fn create_topic(&mut self, name: Name) {
        let topic = match self.snapshot().topic(name.as_bytes()).filter(|topic| topic.listed) {
            Some(topic) if topic.expiry == Expiry::KEPT => return,
            Some(topic) => topic.id,
            None => self.list_topic(name),
        };
        let Head { versions, unused, .. } = &mut *self.head;
        versions.change(topic, |topic| unused.keep(&mut topic.expiry, topic.id, None));
    }

    /// The same for a channel of a topic that exists.
    pub(super) fn create_channel(&mut self, topic: Name, channel: Name) {
        let topic = self.snapshot().topic(topic.as_bytes()).expect("the topic was created");
        let (id, place) = (topic.id, topic.channel(channel.as_bytes()));
        if place.is_ok_and(|at| topic.channels[at].expiry == Expiry::KEPT) {
            return;
        }
        let is_new = usize::from(place.is_err());
        self.rest().channels += is_new;
        let Head { versions, unused, .. } = &mut *self.head;
        unused.count.channels += is_new;
        versions.change(id, |topic| {
            let at = topic.channel_or_new(channel);
            let channel = &mut Arc::make_mut(&mut topic.channels)[at];
            unused.keep(&mut channel.expiry, id, Some(&channel.name));
        });
    }

    /// Deletes the topic and its channels, taking them from their producers. False when it was not there.
    pub(super) fn delete_topic(&mut self, name: Name) -> bool {
        let Some(topic) = self.snapshot().topic(name.as_bytes()).cloned() else { return false };
        let producers: Vec<_> = self.snapshot().present(topic.producers()).cloned().collect();
        for producer in producers {
            self.take_topic(&producer, topic.id);
        }
        for channel in topic.channels() {
            self.count_channel_off(topic.id, channel);
        }
        for (_, at) in topic.tombstones.iter().flat_map(|tombstones| tombstones.iter()) {
            self.rest().tombstones.remove(*at);
        }
        self.head.unused.remove(topic.expiry, topic.id, None);
        self.count_unlisted(&topic);
        self.remove_topic(topic.id);
        true
    }

    /// Deletes the channel, taking it from its producers. False when it was not there.
    pub(super) fn delete_channel(&mut self, topic: Name, channel: Name) -> bool {
        let Some(topic) = self.snapshot().topic(topic.as_bytes()).cloned() else { return false };
        let Ok(at) = topic.channel(channel.as_bytes()) else { return false };
        self.remove_channel(&topic, at);
        true
    }

    /// Tombstones every producer of the topic that calls itself `node`, and returns their number.
    pub(super) fn tombstone(&mut self, topic: Name, node: &[u8], now: Timestamp) -> usize {
        let Some(topic) = self.snapshot().topic(topic.as_bytes()) else { return 0 };
        let mut hit = Vec::new();
        for &id in topic.producers() {
            if let Some(producer) = self.snapshot().producer(id).filter(|producer| producer.is_node(node)) {
                producer.was_tombstoned.store(true, Ordering::Relaxed);
                hit.push(id);
            }
        }
        if hit.is_empty() {
            return 0;
        }
        let before = topic.tombstones.iter().flat_map(|tombstones| tombstones.iter());
        let (replaced, kept): (Vec<_>, Vec<_>) = before.partition(|(id, _)| hit.binary_search(id).is_ok());
        let mut tombstones: Vec<_> = kept.into_iter().chain(hit.iter().map(|&id| (id, now))).collect();
        tombstones.sort_unstable_by_key(|&(id, _)| id);
        let id = topic.id;
        self.changed.nodes = true;
        let lifetime = self.snapshot().lifetimes().tombstone_lifetime;
        let times = &mut self.rest().tombstones;
        for (_, at) in replaced {
            times.remove(at);
        }
        times.add(now, hit.len(), lifetime);
        self.head.versions.change(id, |topic| topic.tombstones = Some(Arc::new(tombstones)));
        hit.len()
    }

    /// Takes a topic from those of a producer.
    fn take_topic(&mut self, producer: &Producer, topic: TopicId) {
        let mut topics = producer.topics();
        // One that it has inherited is another's.
        let at = topics.iter().position(|&id| id == topic);
        if let Some(at) = at {
            topics.swap_remove(at);
        }
        self.changed.nodes |= at.is_some() || producer.inheritance().is_some();
    }

    /// Lists a topic that is not listed, and makes it when it is new.
    fn list_topic(&mut self, name: Name) -> TopicId {
        self.rest().listed += 1;
        self.changed.topics = true;
        let found = self.snapshot().topic(name.as_bytes()).map(|topic| topic.id);
        let Head { versions, free, unused, .. } = &mut *self.head;
        let id = found.unwrap_or_else(|| {
            unused.count.topics += 1;
            let id = free.pop().unwrap_or_else(|| TopicId::first_of(versions.draft().topics.len()));
            versions.insert(Topic::new(id, name.as_str()));
            id
        });
        versions.change(id, |topic| topic.listed = true);
        id
    }

    fn count_unlisted(&mut self, before: &Topic) {
        if before.listed {
            self.rest().listed -= 1;
            self.changed.topics = true;
        }
    }

    fn remove_channel(&mut self, topic: &Topic, at: usize) {
        self.count_channel_off(topic.id, &topic.channels[at]);
        self.head.versions.change(topic.id, |topic| topic.remove_channel(at));
        self.forget_if_empty(topic.id);
    }

    /// Counts a channel off, in all and with each of its producers.
    pub(super) fn count_channel_off(&mut self, topic: TopicId, channel: &Channel) {
        self.head.unused.remove(channel.expiry, topic, Some(&channel.name));
        self.head.unused.count.channels -= usize::from(channel.producers.is_empty());
        self.rest().channels -= 1;
        for &id in channel.producers() {
            if let Some(producer) = self.snapshot().producer(id) {
                producer.registered_as(id).channels.fetch_sub(1, Ordering::Relaxed);
            }
        }
    }

    /// Removes what an ephemeral topic has left when that is nothing.
    pub(super) fn forget_if_empty(&mut self, id: TopicId) {
        let topic = self.snapshot().topic_at(id);
        if topic.is_some_and(|topic| !topic.listed && topic.channels.is_empty()) {
            self.remove_topic(id);
        }
    }

    fn remove_topic(&mut self, id: TopicId) {
        let topic = self.head.versions.remove(id);
        self.head.unused.count.topics -= usize::from(topic.producers.is_empty());
        self.head.free.push(id.next());
    }
}
