//! One node is one entry: which of the producers that call themselves alike is listed.
//!
//! An nsqd that has connected to another instance is known twice until its old connection ends, or until the instance is known to
//! be dead that had it. Each instance decides by what all of them know, so that all list the same.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::store::Revision;
use crate::clock::Timestamp;
use crate::limits::CLUSTER_CONFLICT_AFTER;
use crate::registry::{Change, Producer, ProducerId, Writer};

/// A producer, as far as it matters which one of its node is listed. In the order of preference.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Standing {
    /// The instance lives that has its connection.
    pub is_live: bool,
    /// It has sent a PING lately.
    pub is_active: bool,
    /// Since when etcd has its record; the newest is the last to have connected. `MAX` before it has it.
    pub created: Revision,
}

/// Broadcast address, and the ports of both protocols.
type Node = (Box<str>, i64, i64);

struct Entry {
    producer: Arc<Producer>,
    standing: Standing,
    since: Timestamp,
}

/// The producers of each node, but for those from before a restart.
#[derive(Default)]
pub struct Nodes {
    all: HashMap<Node, Vec<Entry>>,
    /// Those with more than one.
    crowded: HashSet<Node>,
    /// Pairs that were warned of.
    warned: HashSet<(ProducerId, ProducerId)>,
}

/// Two producers of one node, both connected for so long that they are two nsqds.
pub struct Conflict {
    pub listed: Arc<Producer>,
    pub hidden: Arc<Producer>,
}

fn node(producer: &Producer) -> Node {
    let info = producer.info();
    (info.broadcast_address.clone(), info.tcp_port, info.http_port)
}

impl Nodes {
    /// A producer is there, with this standing.
    pub fn set(&mut self, producer: &Arc<Producer>, standing: Standing, writer: &mut Writer<'_>, now: Timestamp) {
        let node = node(producer);
        let entries = self.all.entry(node.clone()).or_default();
        match entries.iter_mut().find(|entry| entry.producer.id() == producer.id()) {
            Some(entry) if entry.standing == standing => return,
            Some(entry) => entry.standing = standing,
            None => entries.push(Entry { producer: Arc::clone(producer), standing, since: now }),
        }
        self.decide(&node, producer, writer, now);
    }

    /// A producer is there no more.
    pub fn remove(&mut self, producer: &Arc<Producer>, writer: &mut Writer<'_>, now: Timestamp) {
        let node = node(producer);
        if let Some(entries) = self.all.get_mut(&node) {
            entries.retain(|entry| entry.producer.id() != producer.id());
        }
        self.warned.retain(|(a, b)| *a != producer.id() && *b != producer.id());
        self.decide(&node, producer, writer, now);
    }

    fn decide(&mut self, node: &Node, any: &Arc<Producer>, writer: &mut Writer<'_>, now: Timestamp) {
        let entries = self.all.get(node).map_or(&[][..], |entries| entries);
        let best = entries
            .iter()
            .max_by_key(|entry| (entry.standing, entry.producer.id()))
            .map(|best| best.producer.id());
        let mut hide = Vec::new();
        for Entry { producer, standing, .. } in entries {
            let is_hidden = Some(producer.id()) != best || (producer.is_remote() && !standing.is_active);
            hide.push((Arc::clone(producer), is_hidden));
        }
        hide.extend(writer.restored_of(any).map(|restored| (restored, best.is_some())));
        let (count, is_empty) = (entries.len(), entries.is_empty());
        for (producer, is_hidden) in hide {
            if producer.is_hidden() != is_hidden {
                writer.apply(&Change::Hide { producer, is_hidden }, now);
            }
        }
        if count > 1 {
            self.crowded.insert(node.clone());
        } else {
            self.crowded.remove(node);
        }
        if is_empty {
            self.all.remove(node);
        }
    }

    /// Whether another producer that lives stands for the node of this one.
    pub fn is_taken_over(&self, producer: &Producer) -> bool {
        let others = self.all.get(&node(producer)).into_iter().flatten();
        others.filter(|entry| entry.producer.id() != producer.id()).any(|entry| entry.standing.is_live)
    }

    /// How many producers are hidden, as another stands for their node.
    pub fn shadowed(&self) -> usize {
        self.crowded.iter().filter_map(|node| self.all.get(node)).map(|entries| entries.len() - 1).sum()
    }

    /// Nodes that two nsqds call themselves, each pair once.
    pub fn conflicts(&mut self, now: Timestamp) -> Vec<Conflict> {
        let mut conflicts = Vec::new();
        for entries in self.crowded.iter().filter_map(|node| self.all.get(node)) {
            let is_two = |entry: &&Entry| {
                let Standing { is_live, is_active, .. } = entry.standing;
                is_live && is_active && now.since(entry.since) >= CLUSTER_CONFLICT_AFTER
            };
            let (hidden, listed): (Vec<_>, Vec<_>) =
                entries.iter().filter(is_two).partition(|entry| entry.producer.is_hidden());
            let (Some(listed), Some(hidden)) = (listed.first(), hidden.first()) else { continue };
            if self.warned.insert((listed.producer.id(), hidden.producer.id())) {
                let [listed, hidden] = [listed, hidden].map(|entry| Arc::clone(&entry.producer));
                conflicts.push(Conflict { listed, hidden });
            }
        }
        conflicts
    }
}
