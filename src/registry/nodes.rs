//! Which producers are of one node: an nsqd that connects again may have an older connection whose end has not been noticed yet.
//!
//! Two producers of one node stay two, as in stock, as long as both PING. An older one that falls silent is not listed any more
//! after [`Lifetimes::supersede_silent`](super::Lifetimes): whoever shows a producer asks whether there is a newer one.

use std::collections::HashMap;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use super::producer::Producer;
use super::writer::Writer;

/// The producers of each node, oldest first.
#[derive(Default)]
pub(super) struct Nodes(HashMap<Node, Vec<Arc<Producer>>>);

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
    /// Adds the newest producer of its node, and returns those that it had before.
    pub(super) fn add(&mut self, producer: &Arc<Producer>) -> Vec<Arc<Producer>> {
        let all = self.0.entry(Node(Arc::clone(producer))).or_default();
        let before = all.clone();
        all.push(Arc::clone(producer));
        before
    }

    /// The producers of the same node as this one.
    fn of(&self, producer: &Arc<Producer>) -> &[Arc<Producer>] {
        self.0.get(&Node(Arc::clone(producer))).map_or(&[], Vec::as_slice)
    }

    /// Removes a producer from those of its node.
    pub(super) fn remove(&mut self, producer: &Arc<Producer>) {
        // The key holds a producer, which may be this one.
        let Some(mut all) = self.0.remove(&Node(Arc::clone(producer))) else { return };
        all.retain(|other| !Arc::ptr_eq(other, producer));
        if let Some(first) = all.first() {
            self.0.insert(Node(Arc::clone(first)), all);
        }
    }
}

impl Writer<'_> {
    /// Notes which producer is the newest of a node that one has joined or left. What shows a producer for which that is a change
    /// is rendered anew. Restored producers do not count: they are listed until the grace is over.
    pub(super) fn rank(&mut self, producer: &Arc<Producer>) {
        let producers = self.head.nodes.of(producer).iter().filter(|producer| !producer.is_restored());
        let producers: Vec<_> = producers.cloned().collect();
        let Some((newest, older)) = producers.split_last() else { return };
        let counts = !self.snapshot().lifetimes().supersede_silent.is_zero();
        let newer = older.iter().map(|producer| (producer, Some(newest.id())));
        for (producer, newer) in newer.chain([(newest, None)]) {
            if producer.set_newer(newer) && counts {
                self.render_anew(producer);
            }
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
