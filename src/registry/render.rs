//! The answers as JSON. Those that grow with the registry are cursors, which go on where the page before ended.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use arc_swap::Guard;
use bytes::Bytes;

use super::freshness::{Judge, Lifetimes};
use super::json;
use super::lookup::{CLOSING, Part, Parts, runs};
use super::names::ProducerId;
use super::producer::Producer;
use super::snapshot::{Channel, Snapshot, Topic, TopicState};
use crate::clock::Timestamp;
use crate::limits::PAGE_BYTES;

/// What stands in an answer to `/lookup` before the producers.
fn lookup_opening(state: &TopicState, out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"channels\":");
    channel_names(&state.channels, out);
    out.extend_from_slice(b",\"producers\":[");
}

/// `/lookup` of one topic: its channels and visible producers.
pub(super) fn lookup(state: &TopicState, snapshot: &Snapshot, judge: &mut Judge, out: &mut Vec<u8>) {
    lookup_opening(state, out);
    // The first comma takes the bracket's place.
    let bracket = out.len() - 1;
    out.truncate(bracket);
    write_objects(state.producers.as_slice(), state, snapshot, judge, out);
    match out.get_mut(bracket) {
        Some(comma) => *comma = b'[',
        None => out.push(b'['),
    }
    out.extend_from_slice(CLOSING);
}

/// The same in parts, with what is still true of the `parts` of an older answer. `scratch` is space to render in: what
/// comes of it is as large as it must be, without having grown.
pub(super) fn lookup_parts(
    state: &TopicState,
    snapshot: &Snapshot,
    lifetimes: Lifetimes,
    now: Timestamp,
    parts: &[Arc<Part>],
    scratch: &mut Vec<u8>,
) -> Parts {
    scratch.clear();
    lookup_opening(state, scratch);
    let opening = Bytes::copy_from_slice(scratch);
    let mut render = |run: &[ProducerId]| {
        let mut judge = Judge::new(lifetimes, now);
        scratch.clear();
        write_objects(run, state, snapshot, &mut judge, scratch);
        let (objects, tombstones) = (judge.rendered(Bytes::copy_from_slice(scratch)), state.tombstones.clone());
        Arc::new(Part { producers: run.into(), tombstones, objects })
    };
    let mut producers = state.producers.as_slice();
    let mut new = Vec::with_capacity(parts.len() + 1);
    for part in parts {
        let last = part.producers.last().expect("a run is of one at least");
        let (run, after) = producers.split_at(producers.partition_point(|id| id <= last));
        producers = after;
        if part.is_true(run, state.tombstones.as_ref(), now) {
            new.push(Arc::clone(part));
        } else {
            new.extend(runs(run).map(&mut render));
        }
    }
    new.extend(runs(producers).map(&mut render));
    Parts { opening, parts: new }
}

/// The fragments, rendered once for each producer, of those that are visible, a comma before each.
fn write_objects(
    run: &[ProducerId],
    state: &TopicState,
    snapshot: &Snapshot,
    judge: &mut Judge,
    out: &mut Vec<u8>,
) {
    for producer in snapshot.present(run) {
        if judge.is_active(producer) && !judge.is_tombstoned(state.tombstoned_at(producer.id())) {
            out.push(b',');
            out.extend_from_slice(producer.fragment());
        }
    }
}

/// The channels of one topic as an array.
pub(super) fn channel_names(channels: &[Channel], out: &mut Vec<u8>) {
    json::array(out, channels, |out, channel| json::name(out, channel.name.as_bytes()));
}

/// Whether the topic's tombstones hide the producer, asking the topic only when there can be one.
fn is_tombstoned(topic: &Topic, producer: &Producer, judge: &mut Judge) -> bool {
    producer.was_tombstoned.load(Ordering::Relaxed)
        && judge.is_tombstoned(topic.state().tombstoned_at(producer.id()))
}

/// A JSON document in the making.
pub(super) enum Document {
    /// `/topics`: every listed topic.
    Topics(Cursor<usize>),
    /// `/nodes`: every active producer with its topics.
    Nodes(Cursor<ProducerId>),
    /// `/channels?topic=*`: every channel of every topic, as often as it occurs (stock).
    AllChannels(Cursor<usize>),
    /// `/lookup?topic=*`: every channel of every topic, then each producer that `/lookup` of one of its
    /// topics would list. (Stock judges a tombstone by whichever topic its map yields first.)
    LookupAll(Cursor<usize>, Cursor<ProducerId>),
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
                registrations.render(snapshot, out)
                    || debug_clients(registrations.topics.comma, clients, snapshot, out)
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
}

impl Cursor<usize> {
    fn next_slot(&self) -> usize {
        self.last.map_or(0, |slot| slot + 1)
    }
}

fn is_full(page: &[u8]) -> bool {
    page.len() >= PAGE_BYTES
}

fn end(out: &mut Vec<u8>, text: &str) -> bool {
    out.extend_from_slice(text.as_bytes());
    false
}

fn topics(cursor: &mut Cursor<usize>, snapshot: &Snapshot, out: &mut Vec<u8>) -> bool {
    cursor.open(out, "{\"topics\":[");
    for (slot, topic) in snapshot.topics.from(cursor.next_slot()) {
        if is_full(out) {
            return true;
        }
        cursor.last = Some(slot);
        if topic.state().listed {
            cursor.element(out);
            json::name(out, topic.name.as_bytes());
        }
    }
    end(out, "]}")
}

fn channels(cursor: &mut Cursor<usize>, snapshot: &Snapshot, out: &mut Vec<u8>) -> bool {
    for (slot, topic) in snapshot.topics.from(cursor.next_slot()) {
        if is_full(out) {
            return true;
        }
        cursor.last = Some(slot);
        for channel in &*topic.state().channels {
            cursor.element(out);
            json::name(out, channel.name.as_bytes());
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
    for producer in snapshot.producers.after(cursor.last) {
        if is_full(out) {
            return true;
        }
        cursor.last = Some(producer.id());
        let topics = producer.topics().clone();
        let mut present = topics.iter().filter_map(|&topic| snapshot.topic_at(topic));
        if judge.is_active(producer) && present.any(|topic| !is_tombstoned(topic, producer, judge)) {
            cursor.element(out);
            out.extend_from_slice(producer.fragment());
        }
    }
    end(out, "]}")
}

fn nodes(cursor: &mut Cursor<ProducerId>, snapshot: &Snapshot, judge: &mut Judge, out: &mut Vec<u8>) -> bool {
    cursor.open(out, "{\"producers\":[");
    let mut topics = Vec::new();
    for producer in snapshot.producers.after(cursor.last) {
        if is_full(out) {
            return true;
        }
        cursor.last = Some(producer.id());
        if judge.is_active(producer) {
            cursor.element(out);
            write_node(producer, snapshot, judge, &mut topics, out);
        }
    }
    end(out, "]}")
}

/// The fragment of `/lookup` with two more fields, whose elements belong together one by one. `topics` is
/// scratch space, so that one walk over the producer's topics fills both.
fn write_node(
    producer: &Arc<Producer>,
    snapshot: &Snapshot,
    judge: &mut Judge,
    topics: &mut Vec<u8>,
    out: &mut Vec<u8>,
) {
    let open = producer.fragment().strip_suffix(b"}").expect("a fragment is an object");
    out.extend_from_slice(open);
    out.extend_from_slice(b",\"tombstones\":");
    topics.clear();
    let mut separator = b'[';
    let registered = producer.topics().clone();
    let present = registered.iter().filter_map(|&topic| snapshot.topic_at(topic));
    json::array(out, present, |out, topic| {
        json::boolean(out, is_tombstoned(topic, producer, judge));
        topics.push(separator);
        separator = b',';
        json::name(topics, topic.name.as_bytes());
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
#[derive(Default)]
pub(super) struct DebugCursor {
    topics: Cursor<usize>,
    /// The topic that is being written, as it was when that began, and the registration that is next: the
    /// topic's own, then each channel's.
    topic: Option<(Arc<Topic>, Arc<TopicState>, usize)>,
    /// The rest of a registration that is being written.
    producers: std::vec::IntoIter<Arc<Producer>>,
}

impl DebugCursor {
    fn render(&mut self, snapshot: &Snapshot, out: &mut Vec<u8>) -> bool {
        loop {
            if self.write_producers(out) {
                return true;
            }
            if self.begin_registration(snapshot, out) {
                continue;
            }
            let Some((slot, topic)) = snapshot.topics.from(self.topics.next_slot()).next() else { return false };
            self.topics.last = Some(slot);
            self.topic = Some((Arc::clone(topic), Guard::into_inner(topic.state()), 0));
        }
    }

    /// Writes what is left of the registration that has begun; true when the page is full before its end.
    fn write_producers(&mut self, out: &mut Vec<u8>) -> bool {
        while let Some(producer) = self.producers.as_slice().first() {
            if is_full(out) {
                return true;
            }
            let (_, state, next) = self.topic.as_ref().expect("a registration is a topic's");
            let is_topic = *next == 1;
            producer.write_debug(state.tombstoned_at(producer.id()).filter(|_| is_topic), out);
            self.producers.next();
            out.push(if self.producers.as_slice().is_empty() { b']' } else { b',' });
        }
        false
    }

    /// Begins the next registration of the topic that has producers; false when there is none.
    fn begin_registration(&mut self, snapshot: &Snapshot, out: &mut Vec<u8>) -> bool {
        let Some((topic, state, next)) = &mut self.topic else { return false };
        while *next <= state.channels.len() {
            let (category, channel, ids): (&[u8], &[u8], _) = match *next {
                0 => (b"topic", b"", &state.producers),
                nth => (b"channel", state.channels[nth - 1].name.as_bytes(), &state.channels[nth - 1].producers),
            };
            *next += 1;
            let producers: Vec<_> = snapshot.present(ids.as_slice()).cloned().collect();
            if !producers.is_empty() {
                out.push(if self.topics.comma { b',' } else { b'{' });
                self.topics.comma = true;
                json::name(out, &[category, topic.name.as_bytes(), channel].join(&b':'));
                out.extend_from_slice(b":[");
                self.producers = producers.into_iter();
                return true;
            }
        }
        self.topic = None;
        false
    }
}

fn debug_clients(
    after_registrations: bool,
    cursor: &mut Cursor<ProducerId>,
    snapshot: &Snapshot,
    out: &mut Vec<u8>,
) -> bool {
    if snapshot.producers.is_empty() {
        return end(out, "{}");
    }
    cursor.open(out, if after_registrations { ",\"client::\":[" } else { "{\"client::\":[" });
    for producer in snapshot.producers.after(cursor.last) {
        if is_full(out) {
            return true;
        }
        cursor.last = Some(producer.id());
        cursor.element(out);
        producer.write_debug(None, out);
    }
    end(out, "]}")
}
