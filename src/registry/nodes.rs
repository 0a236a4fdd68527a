//! Which producers are of one node: an nsqd that connects again may have an older connection whose end has not been noticed yet.
//!
//! Two producers of one node stay two, as in stock, as long as both PING. An older one that falls silent is not listed any more
//! after [`Lifetimes::supersede_silent`](super::Lifetimes): whoever shows a producer asks whether there is a newer one.

use std::collections::HashMap;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use super::names::ProducerId;
use super::producer::Producer;
use super::writer::Writer;

/// The producers of each node.
#[derive(Default)]
pub(super) struct Nodes(HashMap<Node, Producers>);

/// The producers of one node.
#[derive(Default)]
struct Producers {
    /// The one from before a restart, whose nsqd is not back.
    restored: Option<Arc<Producer>>,
    /// Oldest first. A client may make many of them.
    connected: Vec<Arc<Producer>>,
}

/// A node, by one of its producers: a broadcast address with the ports of both protocols.
struct Node(Arc<Producer>);

impl Node {
    fn key(&self) -> (&str, i64, i64) {
        let info = self.0.info();
        (&info.broadcast_address, info.tcp_port, info.http_port)
    }
}

impl PartialEq for Node {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for Node {}

impl Hash for Node {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.key().hash(state);
    }
}

impl Nodes {
    /// Adds the newest producer of its node.
    pub(super) fn add(&mut self, producer: &Arc<Producer>) {
        let node = self.0.entry(Node(Arc::clone(producer))).or_default();
        if producer.is_restored() {
            node.restored = Some(Arc::clone(producer));
        } else {
            node.connected.push(Arc::clone(producer));
        }
    }

    /// What was restored of a producer's node.
    pub(super) fn restored(&self, producer: &Arc<Producer>) -> Option<Arc<Producer>> {
        self.0.get(&Node(Arc::clone(producer)))?.restored.clone()
    }

    /// The newest connected producer of a producer's node.
    fn newest(&self, producer: &Arc<Producer>) -> Option<Arc<Producer>> {
        self.0.get(&Node(Arc::clone(producer)))?.connected.last().cloned()
    }

    /// Removes a producer from those of its node.
    pub(super) fn remove(&mut self, producer: &Arc<Producer>) {
        // The key holds a producer, which may be this one.
        let Some(mut node) = self.0.remove(&Node(Arc::clone(producer))) else { return };
        node.restored = node.restored.filter(|restored| !Arc::ptr_eq(restored, producer));
        node.connected.retain(|other| !Arc::ptr_eq(other, producer));
        if let Some(any) = node.restored.as_ref().or(node.connected.first()) {
            self.0.insert(Node(Arc::clone(any)), node);
        }
    }
}

impl Writer<'_> {
    /// A producer joins its node as the newest, and the one before is not the newest any more, which is returned. What shows that
    /// one is rendered anew. Restored producers do not count: they are listed until the grace is over.
    pub(super) fn join_node(&mut self, producer: &Arc<Producer>) -> Option<Arc<Producer>> {
        let older = self.head.nodes.newest(producer);
        self.head.nodes.add(producer);
        if let Some(older) = &older {
            self.set_newer(older, Some(producer.id()));
        }
        older
    }

    /// A producer leaves its node. If it was the newest, the one before is now.
    pub(super) fn leave_node(&mut self, producer: &Arc<Producer>) {
        self.head.nodes.remove(producer);
        if producer.newer().is_none()
            && let Some(newest) = self.head.nodes.newest(producer)
        {
            self.set_newer(&newest, None);
        }
    }

    /// The producer from before a restart that is of the same node, if its nsqd is not back.
    pub fn restored_of(&self, producer: &Arc<Producer>) -> Option<Arc<Producer>> {
        self.head.nodes.restored(producer)
    }

    /// Hides a producer, or lists it again.
    pub(super) fn hide(&mut self, producer: &Producer, is_hidden: bool) {
        if producer.is_hidden() != is_hidden {
            producer.set_hidden(is_hidden);
            self.render_anew(producer);
        }
    }

    fn set_newer(&mut self, producer: &Producer, newer: Option<ProducerId>) {
        producer.set_newer(newer);
        if !self.snapshot().lifetimes().supersede_silent.is_zero() {
            self.render_anew(producer);
        }
    }

    /// Makes invalid what was rendered of the topics that list a producer, and of nodes.
    fn render_anew(&mut self, producer: &Producer) {
        let topics: Vec<_> = self.snapshot().topics_of(producer).map(|topic| topic.id).collect();
        for topic in topics {
            self.head.versions.change(topic, |topic| topic.rankings = topic.rankings.wrapping_add(1));
        }
        self.changed.nodes = true;
    }
}
