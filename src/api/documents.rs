//! The documents but `/debug`. Each is a cursor, which goes on where the page before ended.

use std::sync::Arc;

use crate::json;
use crate::limits::PAGE_BYTES;
use crate::registry::{Applied, Filter, Producer, ProducerId, Snapshot, Visibility};

pub(super) fn is_full(page: &[u8]) -> bool {
    page.len() >= PAGE_BYTES
}

/// Ends a document.
pub(super) fn end(out: &mut Vec<u8>, text: &str) -> bool {
    out.extend_from_slice(text.as_bytes());
    false
}

/// Where a list is: the key of the last element that was looked at.
pub(super) struct Cursor<K> {
    pub(super) last: Option<K>,
    opened: bool,
    pub(super) comma: bool,
}

impl<K> Default for Cursor<K> {
    fn default() -> Self {
        Self { last: None, opened: false, comma: false }
    }
}

impl<K: Copy> Cursor<K> {
    /// Begins the list, once.
    pub(super) fn open(&mut self, out: &mut Vec<u8>, text: &str) {
        if !self.opened {
            out.extend_from_slice(text.as_bytes());
            self.opened = true;
        }
    }

    pub(super) fn is_open(&self) -> bool {
        self.opened
    }

    /// Begins an element: a comma before every one but the first.
    pub(super) fn element(&mut self, out: &mut Vec<u8>) {
        if self.comma {
            out.push(b',');
        }
        self.comma = true;
    }
}

impl Cursor<usize> {
    pub(super) fn next_slot(&self) -> usize {
        self.last.map_or(0, |slot| slot + 1)
    }
}

#[derive(Default)]
pub(super) struct Topics(Cursor<usize>);

impl Topics {
    pub(super) fn render(&mut self, snapshot: &Snapshot, out: &mut Vec<u8>) -> bool {
        let Self(cursor) = self;
        cursor.open(out, "{\"topics\":[");
        for (slot, topic) in snapshot.topics(cursor.next_slot()) {
            if is_full(out) {
                return true;
            }
            cursor.last = Some(slot);
            if topic.is_listed() {
                cursor.element(out);
                json::name(out, topic.name());
            }
        }
        end(out, "]}")
    }
}

#[derive(Default)]
pub(super) struct AllChannels(Cursor<usize>);

impl AllChannels {
    pub(super) fn render(&mut self, snapshot: &Snapshot, out: &mut Vec<u8>) -> bool {
        self.0.open(out, "{\"channels\":[");
        channels(&mut self.0, snapshot, out) || end(out, "]}")
    }
}

fn channels(cursor: &mut Cursor<usize>, snapshot: &Snapshot, out: &mut Vec<u8>) -> bool {
    for (slot, topic) in snapshot.topics(cursor.next_slot()) {
        if is_full(out) {
            return true;
        }
        cursor.last = Some(slot);
        for channel in topic.channels() {
            cursor.element(out);
            json::name(out, channel.name());
        }
    }
    false
}

#[derive(Default)]
pub(super) struct LookupAll {
    topics: Cursor<usize>,
    producers: Cursor<ProducerId>,
}

impl LookupAll {
    pub(super) fn render(&mut self, snapshot: &Snapshot, visibility: &mut Visibility, out: &mut Vec<u8>) -> bool {
        self.topics.open(out, "{\"channels\":[");
        // A topic that is new when the producers have begun comes too late.
        (!self.producers.is_open() && channels(&mut self.topics, snapshot, out))
            || self.producers(snapshot, visibility, out)
    }

    fn producers(&mut self, snapshot: &Snapshot, visibility: &mut Visibility, out: &mut Vec<u8>) -> bool {
        let cursor = &mut self.producers;
        cursor.open(out, "],\"producers\":[");
        for producer in snapshot.producers(cursor.last) {
            if is_full(out) {
                return true;
            }
            cursor.last = Some(producer.id());
            let mut topics = snapshot.topics_of(producer);
            if visibility.is_active(producer) && topics.any(|topic| !visibility.is_tombstoned(topic, producer)) {
                cursor.element(out);
                out.extend_from_slice(producer.object());
            }
        }
        end(out, "]}")
    }
}

#[derive(Default)]
pub(super) struct Nodes {
    cursor: Cursor<ProducerId>,
    /// What a client asks for, and what of that is applied.
    filter: Option<(Filter, Applied)>,
    without_topics: bool,
    /// Space for the topics of one producer.
    topics: Vec<u8>,
}

impl Nodes {
    /// Those that a filter shows, with or without their topics.
    pub(super) fn some(filter: Option<(Filter, Applied)>, with_topics: bool) -> Self {
        Self { filter, without_topics: !with_topics, ..Self::default() }
    }

    pub(super) fn render(&mut self, snapshot: &Snapshot, visibility: &mut Visibility, out: &mut Vec<u8>) -> bool {
        let Self { cursor, filter, without_topics, topics } = self;
        let shows =
            |producer: &Producer| filter.as_ref().is_none_or(|(filter, applied)| filter.shows(*applied, producer));
        cursor.open(out, "{\"producers\":[");
        for producer in snapshot.producers(cursor.last) {
            if is_full(out) {
                return true;
            }
            cursor.last = Some(producer.id());
            if !visibility.is_active(producer) || !shows(producer) {
                continue;
            }
            cursor.element(out);
            if *without_topics {
                out.extend_from_slice(producer.object());
            } else {
                node(producer, snapshot, visibility, topics, out);
            }
        }
        end(out, "]}")
    }
}

/// The object of `/lookup` with two more fields, whose elements belong together one by one. One walk over the producer's
/// topics fills both.
fn node(
    producer: &Arc<Producer>,
    snapshot: &Snapshot,
    visibility: &mut Visibility,
    topics: &mut Vec<u8>,
    out: &mut Vec<u8>,
) {
    let open = producer.object().strip_suffix(b"}").expect("it is an object");
    out.extend_from_slice(open);
    out.extend_from_slice(b",\"tombstones\":");
    topics.clear();
    let mut separator = b'[';
    json::array(out, snapshot.topics_of(producer), |out, topic| {
        json::boolean(out, visibility.is_tombstoned(topic, producer));
        topics.push(separator);
        separator = b',';
        json::name(topics, topic.name());
    });
    if topics.is_empty() {
        topics.push(b'[');
    }
    out.extend_from_slice(b",\"topics\":");
    out.extend_from_slice(topics);
    out.extend_from_slice(b"]}");
}
