//! One node is one entry: which of the producers that call themselves alike is listed.
//!
//! An nsqd that has connected to another instance is known twice until its old connection ends, or until the instance is known to
//! be dead that had it. Each instance decides by what all of them know, so that all list the same.
//!
//! nsqd registers one name after another when it has connected. Until its new producer has all that the listed one of its node has,
//! that one stays listed, so that no lookup lacks the node meanwhile; but not for longer than [`CLUSTER_HANDOVER`], as something
//! may have been deleted at the nsqd since.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::registered::covers;
use super::store::Revision;
use crate::clock::Timestamp;
use crate::limits::{CLUSTER_CONFLICT_AFTER, CLUSTER_HANDOVER};
use crate::registry::{Change, Producer, ProducerId, Snapshot, Writer};

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

/// The producers of one node.
#[derive(Default)]
struct Group {
    entries: Vec<Entry>,
    /// Which of them is listed, unless it is silent.
    listed: Option<ProducerId>,
}

/// The producers of each node, but for those from before a restart.
#[derive(Default)]
pub struct Nodes {
    all: HashMap<Node, Group>,
    /// Those with more than one.
    crowded: HashSet<Node>,
    /// Those of which a better one is to be listed, once it has registered what the listed one has.
    handing_over: HashSet<Node>,
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

impl Entry {
    /// Its instance says that its nsqd is silent. Own ones are not listed then anyway.
    fn is_silent(&self) -> bool {
        self.producer.is_remote() && !self.standing.is_active
    }
}

impl Group {
    fn listed(&self) -> Option<&Entry> {
        let listed = self.listed?;
        self.entries.iter().find(|entry| entry.producer.id() == listed)
    }

    /// Which is to be listed, and whether it is there only until the best is ready. One of them may be new here.
    fn choose(&self, new: Option<ProducerId>, snapshot: &Snapshot, now: Timestamp) -> Option<(&Entry, bool)> {
        let by_standing = |entry: &&Entry| (entry.standing, entry.producer.id());
        let best = self.entries.iter().max_by_key(by_standing)?;
        let is_best = |entry: &Entry| entry.producer.id() == best.producer.id();
        if now.since(best.since) >= CLUSTER_HANDOVER {
            return Some((best, false));
        }
        let has_more = |entry: &&Entry| {
            !is_best(entry) && !entry.is_silent() && !covers(&best.producer, &entry.producer, snapshot)
        };
        let others = self.entries.iter().filter(|entry| !is_best(entry));
        let instead = match self.listed() {
            Some(listed) if !is_best(listed) => Some(listed).filter(has_more),
            // Read after the best, in an order that means nothing, as at the start. What is listed is not taken back otherwise.
            Some(_) => others.filter(|entry| Some(entry.producer.id()) == new).find(has_more),
            None => others.filter(has_more).max_by_key(by_standing),
        };
        Some(instead.map_or((best, false), |entry| (entry, true)))
    }
}

impl Nodes {
    /// A producer is there, with this standing.
    pub fn set(&mut self, producer: &Arc<Producer>, standing: Standing, writer: &mut Writer<'_>, now: Timestamp) {
        let node = node(producer);
        let Group { entries, .. } = self.all.entry(node.clone()).or_default();
        let new = match entries.iter_mut().find(|entry| entry.producer.id() == producer.id()) {
            Some(entry) if entry.standing == standing => return,
            Some(entry) => {
                entry.standing = standing;
                None
            }
            None => {
                entries.push(Entry { producer: Arc::clone(producer), standing, since: now });
                Some(producer.id())
            }
        };
        self.decide(&node, producer, new, writer, now);
    }

    /// A producer is there no more.
    pub fn remove(&mut self, producer: &Arc<Producer>, writer: &mut Writer<'_>, now: Timestamp) {
        let node = node(producer);
        if let Some(Group { entries, .. }) = self.all.get_mut(&node) {
            entries.retain(|entry| entry.producer.id() != producer.id());
        }
        self.warned.retain(|(a, b)| *a != producer.id() && *b != producer.id());
        self.decide(&node, producer, None, writer, now);
    }

    /// A producer may have registered by now what the one has that is listed in its place.
    pub fn has_registered(&mut self, producer: &Arc<Producer>, writer: &mut Writer<'_>, now: Timestamp) {
        if self.handing_over.is_empty() {
            return;
        }
        let node = node(producer);
        if self.handing_over.contains(&node) {
            self.decide(&node, producer, None, writer, now);
        }
    }

    /// Lists the producers for which others have been listed long enough. To be called now and then.
    pub fn hand_over(&mut self, writer: &mut Writer<'_>, now: Timestamp) {
        let is_over =
            |group: &&Group| group.entries.iter().all(|entry| now.since(entry.since) >= CLUSTER_HANDOVER);
        let groups = self.handing_over.iter().filter_map(|node| Some((node, self.all.get(node).filter(is_over)?)));
        let first =
            groups.filter_map(|(node, group)| Some((node.clone(), Arc::clone(&group.entries.first()?.producer))));
        for (node, any) in first.collect::<Vec<_>>() {
            self.decide(&node, &any, None, writer, now);
        }
    }

    fn decide(
        &mut self,
        node: &Node,
        any: &Arc<Producer>,
        new: Option<ProducerId>,
        writer: &mut Writer<'_>,
        now: Timestamp,
    ) {
        let Some(group) = self.all.get_mut(node) else { return };
        let chosen = group.choose(new, writer.snapshot(), now);
        let is_handing_over = chosen.is_some_and(|(_, is_until)| is_until);
        group.listed = chosen.map(|(entry, _)| entry.producer.id());
        let mut hide = Vec::new();
        for entry in &group.entries {
            let is_hidden = Some(entry.producer.id()) != group.listed || entry.is_silent();
            hide.push((Arc::clone(&entry.producer), is_hidden));
        }
        hide.extend(writer.restored_of(any).map(|restored| (restored, group.listed.is_some())));
        let (count, is_empty) = (group.entries.len(), group.entries.is_empty());
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
        if is_handing_over {
            self.handing_over.insert(node.clone());
        } else {
            self.handing_over.remove(node);
        }
        if is_empty {
            self.all.remove(node);
        }
    }

    /// The producer that lives and is listed in the place of this one.
    pub fn taken_over_by(&self, producer: &Producer) -> Option<&Producer> {
        let listed = self.all.get(&node(producer))?.listed()?;
        (listed.standing.is_live && listed.producer.id() != producer.id()).then_some(&*listed.producer)
    }

    /// Whether all producers of a node, as `/topic/tombstone` names it, were known to etcd before this revision, so that a tombstone of
    /// then is theirs.
    pub fn were_there(&self, node: &str, revision: Revision) -> bool {
        let entries = self.all.values().flat_map(|group| &group.entries);
        let mut of_node = entries.filter(|entry| entry.producer.node() == node).peekable();
        of_node.peek().is_some() && of_node.all(|entry| entry.standing.created < revision)
    }

    /// How many producers are hidden, as another stands for their node.
    pub fn shadowed(&self) -> usize {
        self.crowded.iter().filter_map(|node| self.all.get(node)).map(|group| group.entries.len() - 1).sum()
    }

    /// Nodes that two nsqds call themselves, each pair once.
    pub fn conflicts(&mut self, now: Timestamp) -> Vec<Conflict> {
        let mut conflicts = Vec::new();
        for Group { entries, .. } in self.crowded.iter().filter_map(|node| self.all.get(node)) {
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::registry::{Lifetimes, Name, PeerInfo, Registry, Source};

    fn producer(source: Source) -> Arc<Producer> {
        producer_in(source, 0)
    }

    fn producer_in(source: Source, slot: u32) -> Arc<Producer> {
        let info = PeerInfo { broadcast_address: "n".into(), tcp_port: 1, http_port: 2, ..PeerInfo::default() };
        Arc::new(Producer::new(ProducerId::new(source, slot, 0), "a:1".into(), info, at(0)))
    }

    fn at(seconds: u64) -> Timestamp {
        Timestamp::MIN.after(Duration::from_secs(seconds))
    }

    /// An orphan with two topics, and a producer of its node that has just connected.
    fn orphan_and_new(writer: &mut Writer<'_>) -> (Nodes, Arc<Producer>, Arc<Producer>) {
        let (mut nodes, orphan, new) = (Nodes::default(), producer(Source::Remote), producer(Source::Worker(0)));
        writer.apply(&Change::Identify(Arc::clone(&orphan)), at(0));
        for topic in ["orders", "invoices"] {
            register(&orphan, topic, writer);
        }
        nodes.set(&orphan, Standing { is_live: false, is_active: true, created: 1 }, writer, at(0));
        writer.apply(&Change::Identify(Arc::clone(&new)), at(20));
        let standing = Standing { is_live: true, is_active: true, created: Revision::MAX };
        nodes.set(&new, standing, writer, at(20));
        (nodes, orphan, new)
    }

    fn register(producer: &Arc<Producer>, topic: &str, writer: &mut Writer<'_>) {
        let (producer, topic) = (Arc::clone(producer), Name::new(topic.as_bytes()).unwrap());
        writer.apply(&Change::Register { producer, topic, channel: None }, at(20));
    }

    /// Another producer of that node.
    fn remote(slot: u32, writer: &mut Writer<'_>) -> Arc<Producer> {
        let producer = producer_in(Source::Remote, slot);
        writer.apply(&Change::Identify(Arc::clone(&producer)), at(20));
        producer
    }

    fn identified(registry: &Registry, source: Source, slot: u32) -> Arc<Producer> {
        let info = PeerInfo { broadcast_address: "n".into(), tcp_port: 4150, ..PeerInfo::default() };
        let producer = Arc::new(Producer::new(ProducerId::new(source, slot, 0), format!("n:{slot}"), info, at(0)));
        registry.commit(|writer| writer.apply(&Change::Identify(Arc::clone(&producer)), at(0)));
        producer
    }

    fn standing(is_live: bool, is_active: bool, created: Revision) -> Standing {
        Standing { is_live, is_active, created }
    }

    #[test]
    fn one_of_a_node_is_listed_the_living_before_orphans_and_then_the_newest() {
        let registry = Registry::new(Lifetimes::default());
        let [own, remote, orphan] = [(Source::Worker(0), 0), (Source::Remote, 0), (Source::Remote, 1)]
            .map(|(source, slot)| identified(&registry, source, slot));
        let mut nodes = Nodes::default();
        let mut set = |producer: &Arc<Producer>, standing| {
            registry.commit(|writer| nodes.set(producer, standing, writer, at(0)));
            [&own, &remote, &orphan].map(|producer| producer.is_hidden())
        };
        assert_eq!(set(&orphan, standing(false, true, 9)), [false, false, false]);
        assert_eq!(set(&remote, standing(true, true, 5)), [false, false, true]);
        // Its record is not in etcd yet: it is the last to have connected.
        assert_eq!(set(&own, standing(true, true, Revision::MAX)), [false, true, true]);
        assert_eq!(set(&own, standing(true, true, 4)), [true, false, true]);
        assert_eq!(set(&remote, standing(true, false, 5)), [false, true, true], "silent ones come after");
        assert_eq!(nodes.shadowed(), 2);
        registry.commit(|writer| nodes.remove(&own, writer, at(0)));
        assert_eq!(
            [&remote, &orphan].map(|producer| producer.is_hidden()),
            [true, true],
            "a silent one is not listed"
        );
        assert_eq!(nodes.taken_over_by(&orphan).map(Producer::id), Some(remote.id()));
        assert!(nodes.taken_over_by(&remote).is_none());
    }

    #[test]
    fn two_nsqds_of_one_address_are_warned_of_once_and_not_while_one_may_be_the_other() {
        let registry = Registry::new(Lifetimes::default());
        let [one, two] = [0, 1].map(|slot| identified(&registry, Source::Worker(0), slot));
        let mut nodes = Nodes::default();
        registry.commit(|writer| {
            nodes.set(&one, standing(true, true, 1), writer, at(0));
            nodes.set(&two, standing(true, true, 2), writer, at(0));
        });
        let later = at(0).after(CLUSTER_CONFLICT_AFTER);
        assert!(nodes.conflicts(later.before(Duration::from_secs(1))).is_empty());
        let conflicts = nodes.conflicts(later);
        assert_eq!(conflicts.len(), 1);
        assert_eq!((conflicts[0].listed.id(), conflicts[0].hidden.id()), (two.id(), one.id()));
        assert!(nodes.conflicts(later).is_empty());
    }

    #[test]
    fn the_old_is_listed_until_the_new_has_registered_everything() {
        Registry::new(Lifetimes::default()).commit(|writer| {
            let (mut nodes, orphan, new) = orphan_and_new(writer);
            for topic in ["orders", "more", "invoices"] {
                assert_eq!((orphan.is_hidden(), new.is_hidden()), (false, true), "before {topic}");
                assert!(nodes.taken_over_by(&orphan).is_none());
                register(&new, topic, writer);
                nodes.has_registered(&new, writer, at(20));
            }
            assert_eq!((orphan.is_hidden(), new.is_hidden()), (true, false));
            assert_eq!(nodes.taken_over_by(&orphan).map(Producer::id), Some(new.id()));
        });
    }

    #[test]
    fn the_new_is_listed_at_last_if_it_registers_less() {
        Registry::new(Lifetimes::default()).commit(|writer| {
            let (mut nodes, orphan, new) = orphan_and_new(writer);
            register(&new, "orders", writer);
            let over = at(20).after(CLUSTER_HANDOVER);
            nodes.hand_over(writer, over.before(Duration::from_nanos(1)));
            assert_eq!((orphan.is_hidden(), new.is_hidden()), (false, true));
            nodes.hand_over(writer, over);
            assert_eq!((orphan.is_hidden(), new.is_hidden()), (true, false));
        });
    }

    /// A server that starts reads both, the new one perhaps first, and before it has registered anything.
    #[test]
    fn the_order_in_which_both_are_read_is_no_matter() {
        for order in [[0, 1], [1, 0]] {
            Registry::new(Lifetimes::default()).commit(|writer| {
                let (mut nodes, producers) = (Nodes::default(), [0, 1].map(|slot| remote(slot, writer)));
                register(&producers[0], "orders", writer);
                for nth in order {
                    nodes.set(&producers[nth], standing(nth == 1, true, 1), writer, at(20));
                }
                let [orphan, new] = producers;
                assert_eq!((orphan.is_hidden(), new.is_hidden()), (false, true), "{order:?}");
                register(&new, "orders", writer);
                nodes.has_registered(&new, writer, at(21));
                assert_eq!((orphan.is_hidden(), new.is_hidden()), (true, false), "{order:?}");
                // What the orphan has more from now on is no reason to list it again.
                register(&orphan, "more", writer);
                nodes.set(&orphan, standing(false, true, 2), writer, at(22));
                assert_eq!((orphan.is_hidden(), new.is_hidden()), (true, false), "{order:?}");
            });
        }
    }

    /// It has moved on before it had registered everything there.
    #[test]
    fn an_orphan_is_listed_again_when_the_one_in_its_place_goes_before_another_is_ready() {
        Registry::new(Lifetimes::default()).commit(|writer| {
            let (mut nodes, orphan, new) = orphan_and_new(writer);
            for topic in ["orders", "invoices"] {
                register(&new, topic, writer);
            }
            nodes.has_registered(&new, writer, at(20));
            assert_eq!((orphan.is_hidden(), new.is_hidden()), (true, false));
            let newest = remote(1, writer);
            nodes.set(&newest, standing(true, true, 7), writer, at(21));
            nodes.remove(&new, writer, at(21));
            assert_eq!((orphan.is_hidden(), newest.is_hidden()), (false, true));
        });
    }

    #[test]
    fn the_new_is_listed_at_once_when_the_old_is_gone() {
        Registry::new(Lifetimes::default()).commit(|writer| {
            let (mut nodes, orphan, new) = orphan_and_new(writer);
            nodes.remove(&orphan, writer, at(20));
            assert!(!new.is_hidden());
        });
    }
}
