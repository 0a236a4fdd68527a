//! The answers as JSON. Those that grow with the registry are cursors, which go on where the page before ended.

use std::ops::Bound::{self, Excluded, Unbounded};
use std::sync::Arc;

use super::freshness::Judge;
use super::json;
use super::names::{ProducerId, TopicId};
use super::producer::Producer;
use super::snapshot::{Channel, Ids, Node, Snapshot, Topic};
use crate::limits::PAGE_BYTES;

/// `/lookup` of one topic: its channels and visible producers, from fragments rendered once for each.
pub(super) fn lookup(topic: &Topic, snapshot: &Snapshot, judge: &mut Judge) -> Vec<u8> {
    let ids = topic.producers.as_slice();
    let mut out = Vec::with_capacity(64 + 256 * ids.len());
    out.extend_from_slice(b"{\"channels\":");
    channel_names(&topic.channels, &mut out);
    out.extend_from_slice(b",\"producers\":");
    let visible =
        ids.iter().map(|&id| snapshot.producer(id)).filter(|producer| is_visible(topic, producer, judge));
    json::array(&mut out, visible, |out, producer| out.extend_from_slice(producer.fragment()));
    out.push(b'}');
    out
}

/// The channels of one topic as an array.
pub(super) fn channel_names(channels: &[Channel], out: &mut Vec<u8>) {
    json::array(out, channels, |out, channel| json::name(out, &channel.name));
}

/// Whether `/lookup` of the topic lists its producer.
fn is_visible(topic: &Topic, producer: &Arc<Producer>, judge: &mut Judge) -> bool {
    judge.is_active(producer) && !judge.is_tombstoned(topic.tombstoned_at(producer.id()))
}

/// A JSON document in the making.
pub(super) enum Document {
    /// `/topics`: every listed topic.
    Topics(Cursor<TopicId>),
    /// `/nodes`: every active producer with its topics.
    Nodes(Cursor<ProducerId>),
    /// `/channels?topic=*`: every channel of every topic, as often as it occurs (stock).
    AllChannels(Cursor<TopicId>),
    /// `/lookup?topic=*`: every channel of every topic, then each producer that `/lookup` of one of its
    /// topics would list. (Stock judges a tombstone by whichever topic its map yields first.)
    LookupAll(Cursor<TopicId>, Cursor<ProducerId>),
    /// `/debug`: every registration that has producers.
    Debug(DebugCursor, Cursor<ProducerId>),
}

impl Document {
    /// Appends about [`PAGE_BYTES`], at least something; false when the document has ended. A page ends only
    /// between two elements, of which the largest is one producer with its topics.
    pub(super) fn render(&mut self, snapshot: &Snapshot, judge: &mut Judge, out: &mut Vec<u8>) -> bool {
        match self {
            Self::Topics(cursor) => topics(cursor, snapshot, out),
            Self::Nodes(cursor) => nodes(cursor, snapshot, judge, out),
            Self::AllChannels(cursor) => {
                cursor.open(out, "{\"channels\":[");
                channels(cursor, snapshot, out) || end(out, "]}")
            }
            Self::LookupAll(topics, producers) => {
                topics.open(out, "{\"channels\":[");
                channels(topics, snapshot, out) || visible_anywhere(producers, snapshot, judge, out)
            }
            Self::Debug(registrations, clients) => {
                registrations.render(snapshot, out) || debug_clients(registrations.begun, clients, snapshot, out)
            }
        }
    }
}

/// Where a list is: the key of the last element that is out.
pub(super) struct Cursor<K> {
    last: Option<K>,
    opened: bool,
    comma: bool,
}

impl<K> Default for Cursor<K> {
    fn default() -> Self {
        Self { last: None, opened: false, comma: false }
    }
}

impl<K: Copy> Cursor<K> {
    /// Begins the list, once.
    fn open(&mut self, out: &mut Vec<u8>, text: &str) {
        if !self.opened {
            out.extend_from_slice(text.as_bytes());
            self.opened = true;
        }
    }

    /// Begins an element: a comma before every one but the first.
    fn element(&mut self, out: &mut Vec<u8>) {
        if self.comma {
            out.push(b',');
        }
        self.comma = true;
    }

    fn rest(&self) -> (Bound<K>, Bound<K>) {
        (self.last.map_or(Unbounded, Excluded), Unbounded)
    }
}

fn is_full(page: &[u8]) -> bool {
    page.len() >= PAGE_BYTES
}

fn end(out: &mut Vec<u8>, text: &str) -> bool {
    out.extend_from_slice(text.as_bytes());
    false
}

fn topics(cursor: &mut Cursor<TopicId>, snapshot: &Snapshot, out: &mut Vec<u8>) -> bool {
    cursor.open(out, "{\"topics\":[");
    for (&id, topic) in snapshot.topics.range(cursor.rest()) {
        if is_full(out) {
            return true;
        }
        cursor.last = Some(id);
        if topic.listed {
            cursor.element(out);
            json::name(out, topic.label.name());
        }
    }
    end(out, "]}")
}

fn channels(cursor: &mut Cursor<TopicId>, snapshot: &Snapshot, out: &mut Vec<u8>) -> bool {
    for (&id, topic) in snapshot.topics.range(cursor.rest()) {
        if is_full(out) {
            return true;
        }
        cursor.last = Some(id);
        for channel in &*topic.channels {
            cursor.element(out);
            json::name(out, &channel.name);
        }
    }
    false
}

fn visible_anywhere(
    cursor: &mut Cursor<ProducerId>,
    snapshot: &Snapshot,
    judge: &mut Judge,
    out: &mut Vec<u8>,
) -> bool {
    cursor.open(out, "],\"producers\":[");
    for (&id, node) in snapshot.nodes.range(cursor.rest()) {
        if is_full(out) {
            return true;
        }
        cursor.last = Some(id);
        let mut topics = node.topics.iter().map(|topic| &snapshot.topics[topic]);
        if topics.any(|topic| is_visible(topic, &node.producer, judge)) {
            cursor.element(out);
            out.extend_from_slice(node.producer.fragment());
        }
    }
    end(out, "]}")
}

fn nodes(cursor: &mut Cursor<ProducerId>, snapshot: &Snapshot, judge: &mut Judge, out: &mut Vec<u8>) -> bool {
    cursor.open(out, "{\"producers\":[");
    let mut topics = Vec::new();
    for (&id, node) in snapshot.nodes.range(cursor.rest()) {
        if is_full(out) {
            return true;
        }
        cursor.last = Some(id);
        if judge.is_active(&node.producer) {
            cursor.element(out);
            write_node(node, snapshot, judge, &mut topics, out);
        }
    }
    end(out, "]}")
}

/// The fragment of `/lookup` with two more fields, whose elements belong together one by one. `topics` is
/// scratch space, so that one walk over the producer's topics fills both.
fn write_node(node: &Node, snapshot: &Snapshot, judge: &mut Judge, topics: &mut Vec<u8>, out: &mut Vec<u8>) {
    let open = node.producer.fragment().strip_suffix(b"}").expect("a fragment is an object");
    out.extend_from_slice(open);
    out.extend_from_slice(b",\"tombstones\":");
    topics.clear();
    let mut separator = b'[';
    json::array(out, &node.topics, |out, id| {
        let topic = &snapshot.topics[id];
        json::boolean(out, judge.is_tombstoned(topic.tombstoned_at(node.producer.id())));
        topics.push(separator);
        separator = b',';
        json::name(topics, topic.label.name());
    });
    if topics.is_empty() {
        topics.push(b'[');
    }
    out.extend_from_slice(b",\"topics\":");
    out.extend_from_slice(topics);
    out.extend_from_slice(b"]}");
}

/// Where `/debug` is among the registrations of topics and channels: producer by producer, as one topic may
/// have thousands.
pub(super) struct DebugCursor {
    /// The topic, its registration and the producer to go on with; None when all are out.
    next: Option<(TopicId, usize, usize)>,
    begun: bool,
}

impl Default for DebugCursor {
    fn default() -> Self {
        Self { next: Some((TopicId(0), 0, 0)), begun: false }
    }
}

impl DebugCursor {
    fn render(&mut self, snapshot: &Snapshot, out: &mut Vec<u8>) -> bool {
        let Some((from, mut skip_lists, mut skip_producers)) = self.next else { return false };
        for (&id, topic) in snapshot.topics.range(from..) {
            for nth in std::mem::take(&mut skip_lists)..=topic.channels.len() {
                let producers = registration(topic, nth).as_slice();
                for at in std::mem::take(&mut skip_producers)..producers.len() {
                    if is_full(out) {
                        self.next = Some((id, nth, at));
                        return true;
                    }
                    if at == 0 {
                        self.begin_registration(topic, nth, out);
                    } else {
                        out.push(b',');
                    }
                    let producer = producers[at];
                    let tombstoned_at = topic.tombstoned_at(producer).filter(|_| nth == 0);
                    snapshot.producer(producer).write_debug(tombstoned_at, out);
                    if at + 1 == producers.len() {
                        out.push(b']');
                    }
                }
            }
        }
        self.next = None;
        false
    }

    fn begin_registration(&mut self, topic: &Topic, nth: usize, out: &mut Vec<u8>) {
        out.push(if self.begun { b',' } else { b'{' });
        self.begun = true;
        let (category, channel): (&[u8], &[u8]) = match nth {
            0 => (b"topic", b""),
            nth => (b"channel", &topic.channels[nth - 1].name),
        };
        let key = [category, topic.label.name(), channel].join(&b':');
        json::name(out, &key);
        out.extend_from_slice(b":[");
    }
}

/// The topic itself, then each of its channels.
fn registration(topic: &Topic, nth: usize) -> &Ids {
    match nth {
        0 => &topic.producers,
        nth => &topic.channels[nth - 1].producers,
    }
}

fn debug_clients(
    after_registrations: bool,
    cursor: &mut Cursor<ProducerId>,
    snapshot: &Snapshot,
    out: &mut Vec<u8>,
) -> bool {
    if snapshot.nodes.is_empty() {
        return end(out, "{}");
    }
    cursor.open(out, if after_registrations { ",\"client::\":[" } else { "{\"client::\":[" });
    for (&id, node) in snapshot.nodes.range(cursor.rest()) {
        if is_full(out) {
            return true;
        }
        cursor.last = Some(id);
        cursor.element(out);
        node.producer.write_debug(None, out);
    }
    end(out, "]}")
}
