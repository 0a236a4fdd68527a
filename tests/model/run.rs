//! Does the steps to a registry and to the model, and compares whatever can be seen.

use std::sync::Arc;

use bytes::Bytes;
use ringlookupd::clock::Timestamp;
use ringlookupd::registry::{Name, PeerInfo, Producer, ProducerId, Reader, Registry, Stream, Writer};
use serde_json::{Map, Value};

use crate::model::{Model, Moment, Peer, Serial};
use crate::steps::{Advance, Profile, Question, READERS, Run, Step};

/// # Panics
/// When the registry and the model differ.
pub fn run(run: &Run) {
    let registry = Registry::new(run.lifetimes);
    let mut pair = Pair {
        registry: &registry,
        writer: None,
        readers: (0..READERS).map(|_| registry.reader()).collect(),
        slots: vec![None; run.profile.slots],
        head: Model::default(),
        published: Model::default(),
        peers: Vec::new(),
        now: Timestamp::from_nanos(1_700_000_000_000_000_000),
        held: Vec::new(),
        run,
    };
    for &step in &run.steps {
        pair.step(step);
    }
    pair.finish_held();
}

/// The registry and the model, side by side.
struct Pair<'a> {
    run: &'a Run,
    registry: &'a Registry,
    /// Some from the first change of a batch until it is published.
    writer: Option<Writer<'a>>,
    readers: Vec<Reader>,
    /// Who is connected.
    slots: Vec<Option<(Serial, Arc<Producer>)>>,
    /// With the changes that are not published yet.
    head: Model,
    published: Model,
    peers: Vec<Peer>,
    now: Timestamp,
    held: Vec<Held>,
}

/// A stream that was begun. What changes while it is held it may show or not, but it stays one document.
struct Held {
    stream: Stream,
    begun: Vec<u8>,
}

impl<'a> Pair<'a> {
    fn step(&mut self, step: Step) {
        self.take(step);
        self.head.note_unused(self.now);
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Identify { slot, node } => self.identify(slot, node),
            Step::Disconnect { slot } => {
                if let Some((serial, producer)) = self.slots[slot].take() {
                    let now = self.now;
                    let topics = self.writer().disconnect(&producer, now);
                    assert_eq!(topics, self.head.disconnect(serial), "{step:?}");
                }
            }
            Step::Register { slot, topic, channel } => {
                if let Some((serial, producer)) = self.slots[slot].clone() {
                    let (topic, channel) = (self.topic(topic), channel.map(Profile::channel));
                    let changed = self.writer().register(&producer, name(&topic), channel.as_deref().map(name));
                    assert_eq!(changed, self.head.register(serial, &topic, channel.as_deref()), "{step:?}");
                }
            }
            Step::Unregister { slot, topic, channel } => {
                if let Some((serial, producer)) = self.slots[slot].clone() {
                    let (topic, channel) = (self.topic(topic), channel.map(Profile::channel));
                    let (channel_name, now) = (channel.as_deref().map(name), self.now);
                    let changed = self.writer().unregister(&producer, name(&topic), channel_name, now);
                    assert_eq!(changed, self.head.unregister(serial, &topic, channel.as_deref()), "{step:?}");
                }
            }
            Step::Forget => {
                let now = self.now;
                let forgotten = self.writer().forget_unused(now, usize::MAX);
                assert_eq!(forgotten.count, self.head.forget_unused(now, self.run.lifetimes), "{step:?}");
            }
            Step::Touch { slot } => self.touch(slot),
            Step::Advance(by) => self.now = self.now.max(self.target(by)),
            Step::Publish => self.publish(),
            Step::Ask { reader, question } => self.ask(reader, question),
            Step::AskAll { reader } => {
                self.run.profile.questions().for_each(|question| self.ask(reader, question));
            }
            Step::Hold { reader, question } => self.hold(reader, question),
            Step::Refresh { reader } => self.readers[reader].refresh(),
            _ => self.request(step),
        }
    }

    /// The changes that come over HTTP.
    fn request(&mut self, step: Step) {
        match step {
            Step::CreateTopic { topic } => {
                let topic = self.topic(topic);
                self.writer().create_topic(name(&topic));
                self.head.create_topic(&topic);
            }
            Step::CreateChannel { topic, channel } => {
                let (topic, channel) = (self.topic(topic), Profile::channel(channel));
                self.writer().create_channel(name(&topic), name(&channel));
                self.head.create_channel(&topic, &channel);
            }
            Step::DeleteTopic { topic } => {
                let topic = self.topic(topic);
                let deleted = self.writer().delete_topic(topic.as_bytes());
                assert_eq!(deleted, self.head.delete_topic(&topic), "{step:?}");
            }
            Step::DeleteChannel { topic, channel } => {
                let (topic, channel) = (self.topic(topic), Profile::channel(channel));
                let deleted = self.writer().delete_channel(name(&topic), name(&channel));
                assert_eq!(deleted, self.head.delete_channel(&topic, &channel), "{step:?}");
            }
            Step::Tombstone { topic, node } => {
                let (topic, node, now) =
                    (self.topic(topic), format!("{}:4151", broadcast_address(node)), self.now);
                let hit = self.writer().tombstone(topic.as_bytes(), node.as_bytes(), now);
                let at = Moment { peers: &self.peers, lifetimes: self.run.lifetimes, now };
                assert_eq!(hit, self.head.tombstone(&topic, &node, &at), "{step:?}");
            }
            _ => unreachable!("{step:?} is no request"),
        }
    }

    fn identify(&mut self, slot: usize, node: usize) {
        if self.slots[slot].is_some() {
            return;
        }
        let serial = self.peers.len();
        let remote_address = format!("127.0.0.1:{serial}");
        let info = PeerInfo {
            hostname: "h".repeat(self.run.profile.hostname_bytes).into(),
            broadcast_address: broadcast_address(node).into(),
            tcp_port: 4150,
            http_port: 4151,
            version: "1.3.0".into(),
            topology_zone: "z".into(),
            topology_region: "r".into(),
        };
        // Two workers, so that ids of producers do not rise in the order of their slots.
        let slot_id = u32::try_from(slot).expect("slots are few");
        let id = ProducerId::new(slot_id % 2, slot_id / 2, u32::try_from(serial).expect("few producers"));
        let producer = Arc::new(Producer::new(id, remote_address.clone(), info.clone(), self.now));
        self.writer().identify(Arc::clone(&producer));
        self.peers.push(Peer { remote_address, info, last_update: self.now });
        self.head.identify(serial);
        self.slots[slot] = Some((serial, producer));
    }

    fn touch(&mut self, slot: usize) {
        if let Some((serial, producer)) = self.slots[slot].clone() {
            assert_eq!(producer.touch(self.now), self.peers[serial].last_update);
            self.peers[serial].last_update = self.now;
        }
    }

    fn target(&self, by: Advance) -> Timestamp {
        let (end, past) = match by {
            Advance::By(wait) => (Some(self.now.after(wait)), 0),
            Advance::ToTimeout { slot, past } => {
                let producer = self.slots[slot].as_ref();
                let timeout = self.run.lifetimes.inactive_producer_timeout;
                (producer.map(|(_, producer)| producer.last_update().after(timeout)), past)
            }
            Advance::ToTombstoneEnd { topic, past } => {
                (self.head.next_tombstone_end(&self.topic(topic), &self.moment()), past)
            }
            Advance::ToExpiry { past } => (self.head.next_expiry(self.run.lifetimes), past),
        };
        // The end of a lifetime that has none is no time to go to.
        end.filter(|&end| end < Timestamp::MAX).map_or(self.now, |end| Timestamp::from_nanos(end.nanos() + past))
    }

    fn publish(&mut self) {
        if let Some(writer) = self.writer.take() {
            writer.publish();
            self.published = self.head.clone();
            let is_due = self.head.next_expiry(self.run.lifetimes).is_some_and(|at| at <= self.now);
            assert_eq!(self.registry.has_unused(self.now), is_due);
        }
    }

    fn ask(&mut self, reader: usize, question: Question) {
        let body = self.body(reader, question);
        if self.writer.is_some() {
            // A batch is seen in parts before it is published; what is seen then must not be believed later.
            body.as_deref().map(parse);
            return;
        }
        let expected = canonical(self.expected(question));
        let answer = body.as_deref().map_or(Value::Null, parse);
        assert!(answer == expected, "{question:?} is answered {answer}, not {expected}");
        for again in [(reader + 1) % READERS, reader] {
            assert!(self.body(again, question) == body, "{question:?} is answered otherwise, asked again");
        }
    }

    fn hold(&mut self, reader: usize, question: Question) {
        if let Some(mut stream) = self.stream(reader, question) {
            let begun = stream.next_page().expect("an answer has a page").to_vec();
            self.held.push(Held { stream, begun });
        }
    }

    fn finish_held(&mut self) {
        for Held { stream, begun } in self.held.drain(..) {
            parse(read(stream, begun));
        }
    }

    fn body(&mut self, reader: usize, question: Question) -> Option<Vec<u8>> {
        let (topic, now) = (self.topic_of(question), self.now);
        match question {
            Question::Lookup { .. } => {
                self.readers[reader].prefetch([topic.as_bytes(), b"nobody's"].into_iter());
                let lookup = self.readers[reader].lookup(topic.as_bytes(), now)?;
                Some(self.readers[reader].body(&lookup).pieces().concat())
            }
            Question::Channels { .. } => {
                let mut out = Vec::new();
                self.readers[reader].channels(topic.as_bytes(), &mut out);
                Some(out)
            }
            _ => self.stream(reader, question).map(|stream| read(stream, Vec::new())),
        }
    }

    fn stream(&mut self, reader: usize, question: Question) -> Option<Stream> {
        let (reader, now) = (&mut self.readers[reader], self.now);
        match question {
            Question::LookupAll => reader.lookup_all(now),
            Question::AllChannels => Some(reader.all_channels(now)),
            Question::Topics => Some(reader.topics(now)),
            Question::Nodes => Some(reader.nodes(now)),
            Question::Debug => Some(reader.debug(now)),
            Question::Lookup { .. } | Question::Channels { .. } => unreachable!("{question:?} is no stream"),
        }
    }

    fn expected(&self, question: Question) -> Value {
        let (topic, at) = (self.topic_of(question), self.moment());
        match question {
            Question::Lookup { .. } | Question::LookupAll => self.published.lookup(&topic, &at),
            Question::Channels { .. } | Question::AllChannels => self.published.channels(&topic),
            Question::Topics => self.published.topics(),
            Question::Nodes => self.published.nodes(&at),
            Question::Debug => self.published.debug(&at),
        }
    }

    fn topic_of(&self, question: Question) -> String {
        match question {
            Question::Lookup { topic } | Question::Channels { topic } => self.topic(topic),
            _ => "*".into(),
        }
    }

    fn topic(&self, index: usize) -> String {
        self.run.profile.topic(index)
    }

    fn moment(&self) -> Moment<'_> {
        Moment { peers: &self.peers, lifetimes: self.run.lifetimes, now: self.now }
    }

    fn writer(&mut self) -> &mut Writer<'a> {
        self.writer.get_or_insert_with(|| self.registry.write())
    }
}

fn name(text: &str) -> Name {
    Name::new(text.as_bytes()).expect("a valid name")
}

fn broadcast_address(node: usize) -> String {
    format!("node-{node}")
}

/// Reads a stream to its end, behind what was read of it before, checking what it says of itself.
pub fn read(mut stream: Stream, mut body: Vec<u8>) -> Vec<u8> {
    let known = stream.known_len();
    while let Some(page) = stream.next_page() {
        assert!(!page.is_empty(), "a page is empty");
        body.extend_from_slice(&page);
    }
    assert!(stream.is_finished());
    assert_eq!(stream.next_page(), None::<Bytes>);
    assert!(known.is_none_or(|known| known == body.len()));
    body
}

/// Reads an answer, in which no key may stand twice, nor a space between tokens: nothing in it wants escaping,
/// so either would make it longer than it is written again.
fn parse(body: impl AsRef<[u8]>) -> Value {
    let body = body.as_ref();
    let value: Value = serde_json::from_slice(body).expect("an answer is JSON");
    assert_eq!(value.to_string().len(), body.len(), "an answer is compact and without duplicates");
    canonical(value)
}

/// The same for answers that differ only in the order of arrays: stock's order is its map's, which is random.
fn canonical(value: Value) -> Value {
    match value {
        Value::Array(items) => {
            let mut items: Vec<_> = items.into_iter().map(canonical).collect();
            items.sort_by(|a, b| sort_key(a).cmp(sort_key(b)));
            Value::Array(items)
        }
        Value::Object(mut fields) => {
            if let Some(Value::Array(tombstones)) = fields.remove("tombstones") {
                let topics = fields.remove("topics").expect("tombstones belong to topics");
                fields.insert("topics".into(), aligned(&topics, tombstones));
            }
            fields.into_iter().map(|(key, value)| (key, canonical(value))).collect()
        }
        other => other,
    }
}

/// The two arrays of a node as one object.
fn aligned(topics: &Value, tombstones: Vec<Value>) -> Value {
    let topics = topics.as_array().expect("topics are an array");
    assert_eq!(topics.len(), tombstones.len(), "a tombstone for each topic");
    let names = topics.iter().map(|topic| topic.as_str().expect("a topic is a string").to_owned());
    let pairs: Map<_, _> = names.zip(tombstones).collect();
    assert_eq!(pairs.len(), topics.len(), "a topic stands once in a node");
    Value::Object(pairs)
}

fn sort_key(item: &Value) -> &str {
    let key = item.as_str().or_else(|| item["remote_address"].as_str()).or_else(|| item["id"].as_str());
    key.expect("arrays are of names or producers")
}
