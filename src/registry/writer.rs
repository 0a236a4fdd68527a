//! Changing the registry: one writer at a time, one new snapshot for a whole batch of changes.

use std::sync::{Arc, MutexGuard};

use arc_swap::ArcSwap;
use imbl::OrdSet;

use super::names::{Name, ProducerId, TopicId, is_ephemeral};
use super::producer::Producer;
use super::snapshot::{Channel, Ids, Label, Node, Snapshot, Topic};
use crate::clock::Timestamp;

/// What the writer lock protects: the snapshot in the making.
#[derive(Default)]
pub(super) struct Head {
    snapshot: Snapshot,
    /// Ids of deleted topics, for reuse, so that the tree of topics stays dense.
    free: Vec<TopicId>,
    next: u32,
}

/// What a REGISTER or UNREGISTER changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Changed {
    /// The producer was added to or removed from the topic.
    pub topic: bool,
    /// How many channels of the topic the producer was added to or removed from.
    pub channels: usize,
}

/// The writer lock, held over a batch. Nothing is visible before [`Writer::publish`], which must end it.
#[must_use]
pub struct Writer<'a> {
    pub(super) head: MutexGuard<'a, Head>,
    pub(super) published: &'a ArcSwap<Snapshot>,
    pub(super) changed: bool,
    pub(super) topics_changed: bool,
    pub(super) nodes_changed: bool,
}

impl Writer<'_> {
    /// Adds a producer without topics.
    ///
    /// # Panics
    /// When the id is taken: a connection identifies once.
    pub fn identify(&mut self, producer: Arc<Producer>) {
        self.nodes_changed = true;
        let node = Node { topics: OrdSet::new(), producer };
        let before = self.head.snapshot.nodes.insert(node.producer.id(), node);
        assert!(before.is_none(), "a producer id is given once");
    }

    /// Removes the producer from all it registered, in proportion to what it registered, and returns the
    /// number of topics. Topics and channels stay, ephemeral ones too (stock's disconnect).
    ///
    /// # Panics
    /// When the producer is not there.
    pub fn disconnect(&mut self, id: ProducerId) -> usize {
        self.nodes_changed = true;
        let node = self.head.snapshot.nodes.remove(&id).expect("a producer disconnects once");
        for &topic in &node.topics {
            leave(self.topic_mut(topic), id);
        }
        node.topics.len()
    }

    /// Adds the producer to the topic and the channel, making both when they are new.
    pub fn register(&mut self, id: ProducerId, topic: Name, channel: Option<Name>) -> Changed {
        let mut changed = Changed::default();
        let topic = self.topic_or_new(topic);
        if let Some(channel) = channel {
            changed.channels = usize::from(self.join_channel(topic, channel, id));
        }
        if !self.head.snapshot.topics[&topic].producers.contains(id) {
            self.topic_mut(topic).producers.insert(id);
            self.node_mut(id).topics.insert(topic);
            changed.topic = true;
        }
        self.list(topic);
        changed
    }

    /// Removes the producer from the topic and all its channels, or from the one channel. An ephemeral topic
    /// or channel goes with its last producer, or when it had none to begin with (stock).
    pub fn unregister(&mut self, id: ProducerId, topic: Name, channel: Option<Name>) -> Changed {
        let mut changed = Changed::default();
        let Some(found) = self.head.snapshot.topic(topic.as_bytes()).cloned() else { return changed };
        let topic = found.label.id();
        if let Some(channel) = channel {
            let Ok(at) = found.channel(channel.as_bytes()) else { return changed };
            let mut left = found.channels[at].producers.clone();
            drop(found);
            if left.remove(id) {
                changed.channels = 1;
            }
            if left.is_empty() && is_ephemeral(channel.as_bytes()) {
                self.drop_channel(topic, at);
            } else if changed.channels > 0 {
                Arc::make_mut(&mut self.topic_mut(topic).channels)[at].producers = left;
            }
            return changed;
        }
        changed.topic = found.producers.contains(id);
        drop(found);
        if changed.topic {
            changed.channels = leave(self.topic_mut(topic), id);
            self.node_mut(id).topics.remove(&topic);
        }
        let topic_now = &self.head.snapshot.topics[&topic];
        if topic_now.producers.is_empty() && is_ephemeral(topic_now.label.name()) {
            self.unlist(topic);
        }
        changed
    }

    /// Makes a topic that nobody need produce.
    pub fn create_topic(&mut self, topic: Name) {
        let topic = self.topic_or_new(topic);
        self.list(topic);
    }

    /// Makes a channel, and its topic with it.
    pub fn create_channel(&mut self, topic: Name, channel: Name) {
        let topic = self.topic_or_new(topic);
        self.channel_or_new(topic, channel);
        self.list(topic);
    }

    /// Deletes the topic and its channels, taking them from their producers. False when it was not there.
    pub fn delete_topic(&mut self, topic: &[u8]) -> bool {
        let Some(found) = self.head.snapshot.topic(topic).cloned() else { return false };
        self.nodes_changed |= !found.producers.is_empty();
        for &id in found.producers.as_slice() {
            self.node_mut(id).topics.remove(&found.label.id());
        }
        self.forget(&found.label, found.listed);
        true
    }

    /// Deletes the channel, taking it from its producers. False when it was not there.
    pub fn delete_channel(&mut self, topic: Name, channel: Name) -> bool {
        let Some(found) = self.head.snapshot.topic(topic.as_bytes()) else { return false };
        let Ok(at) = found.channel(channel.as_bytes()) else { return false };
        let topic = found.label.id();
        self.drop_channel(topic, at);
        true
    }

    /// Tombstones every producer of the topic that calls itself `node` (`broadcast_address:http_port`), anew
    /// when it was already, and returns their number.
    pub fn tombstone(&mut self, topic: &[u8], node: &[u8], now: Timestamp) -> usize {
        let snapshot = &self.head.snapshot;
        let Some(found) = snapshot.topic(topic) else { return 0 };
        let ids = found.producers.as_slice();
        let hit: Vec<_> = ids.iter().copied().filter(|&id| snapshot.producer(id).is_node(node)).collect();
        if hit.is_empty() {
            return 0;
        }
        let kept = found.tombstones.iter().filter(|(id, _)| hit.binary_search(id).is_err());
        let mut tombstones: Vec<_> = kept.copied().chain(hit.iter().map(|&id| (id, now))).collect();
        tombstones.sort_unstable_by_key(|&(id, _)| id);
        let topic = found.label.id();
        self.nodes_changed = true;
        self.topic_mut(topic).tombstones = tombstones.into();
        hit.len()
    }

    /// Makes the batch visible to every reader at once. A batch that changed nothing publishes nothing.
    pub fn publish(mut self) {
        if self.topics_changed {
            self.head.snapshot.topics_answer = Arc::default();
        }
        if self.nodes_changed {
            self.head.snapshot.nodes_answer = Arc::default();
        }
        if self.changed || self.topics_changed || self.nodes_changed {
            self.published.store(Arc::new(self.head.snapshot.clone()));
        }
    }

    fn topic_mut(&mut self, id: TopicId) -> &mut Topic {
        self.changed = true;
        Arc::make_mut(self.head.snapshot.topics.get_mut(&id).expect("the topic is in the registry"))
    }

    /// For a change of its topics.
    fn node_mut(&mut self, id: ProducerId) -> &mut Node {
        self.nodes_changed = true;
        self.head.snapshot.nodes.get_mut(&id).expect("the producer is in the registry")
    }

    fn topic_or_new(&mut self, name: Name) -> TopicId {
        if let Some(found) = self.head.snapshot.topic(name.as_bytes()) {
            return found.label.id();
        }
        self.changed = true;
        let head = &mut *self.head;
        let id = head.free.pop().unwrap_or_else(|| {
            head.next += 1;
            TopicId(head.next)
        });
        let label = Label::new(id, name.as_bytes());
        head.snapshot.names.insert(label.clone(), ());
        head.snapshot.topics.insert(id, Arc::new(Topic::new(label)));
        id
    }

    fn channel_or_new(&mut self, topic: TopicId, name: Name) -> usize {
        match self.head.snapshot.topics[&topic].channel(name.as_bytes()) {
            Ok(at) => at,
            Err(at) => {
                let topic = self.topic_mut(topic);
                let (before, after) = topic.channels.split_at(at);
                let new = Channel { name: name.as_bytes().into(), producers: Ids::default() };
                topic.channels = before.iter().chain([&new]).chain(after).cloned().collect();
                at
            }
        }
    }

    fn join_channel(&mut self, topic: TopicId, name: Name, id: ProducerId) -> bool {
        let at = self.channel_or_new(topic, name);
        if self.head.snapshot.topics[&topic].channels[at].producers.contains(id) {
            return false;
        }
        Arc::make_mut(&mut self.topic_mut(topic).channels)[at].producers.insert(id)
    }

    fn drop_channel(&mut self, topic: TopicId, at: usize) {
        let topic_mut = self.topic_mut(topic);
        let (before, after) = (&topic_mut.channels[..at], &topic_mut.channels[at + 1..]);
        topic_mut.channels = before.iter().chain(after).cloned().collect();
        self.forget_if_empty(topic);
    }

    fn list(&mut self, topic: TopicId) {
        if !self.head.snapshot.topics[&topic].listed {
            self.topic_mut(topic).listed = true;
            self.head.snapshot.listed += 1;
            self.topics_changed = true;
        }
    }

    fn unlist(&mut self, topic: TopicId) {
        if self.head.snapshot.topics[&topic].listed {
            self.topic_mut(topic).listed = false;
            self.head.snapshot.listed -= 1;
            self.topics_changed = true;
        }
        self.forget_if_empty(topic);
    }

    fn forget_if_empty(&mut self, topic: TopicId) {
        let topic = &self.head.snapshot.topics[&topic];
        if !topic.listed && topic.channels.is_empty() {
            let label = topic.label.clone();
            self.forget(&label, false);
        }
    }

    fn forget(&mut self, label: &Label, listed: bool) {
        self.changed = true;
        self.topics_changed |= listed;
        let head = &mut *self.head;
        head.snapshot.listed -= usize::from(listed);
        head.snapshot.names.remove(label.name());
        head.snapshot.topics.remove(&label.id());
        head.free.push(label.id());
    }
}

/// Takes the producer from the topic, its channels and its tombstones; returns how many channels it had.
fn leave(topic: &mut Topic, id: ProducerId) -> usize {
    topic.producers.remove(id);
    if topic.tombstoned_at(id).is_some() {
        topic.tombstones = topic.tombstones.iter().filter(|&&(other, _)| other != id).copied().collect();
    }
    if !topic.channels.iter().any(|channel| channel.producers.contains(id)) {
        return 0;
    }
    Arc::make_mut(&mut topic.channels)
        .iter_mut()
        .filter_map(|channel| channel.producers.remove(id).then_some(()))
        .count()
}
