//! Does the steps to a registry and to the model, and compares whatever can be seen.

use std::sync::Arc;

use bytes::Bytes;
use ringlookupd::api::{self, Stream};
use ringlookupd::clock::Timestamp;
use ringlookupd::registry::{
    Change, ChannelNames, Deleted, Forgotten, Lifetimes, Name, Outcome, PeerInfo, Producer, ProducerId, Reader,
    Registry, Source, Writer,
};
use serde_json::{Map, Value};

use crate::model::{Model, Moment, Peer, Serial};
use crate::steps::{Advance, Profile, Question, READERS, Run, Step};

/// # Panics
/// When the registry and the model differ.
pub fn run(run: &Run) {
    let registry = Arc::new(Registry::new(run.lifetimes));
    let mut pair = Pair {
        registry: &registry,
        pages: api::Cache::default(),
        readers: (0..READERS).map(|_| registry.reader()).collect(),
        slots: vec![None; run.profile.slots],
        in_batch: false,
        head: Model::default(),
        published: Model::default(),
        lifetimes: run.lifetimes,
        published_lifetimes: run.lifetimes,
        peers: Vec::new(),
        now: Timestamp::from_nanos(1_700_000_000_000_000_000),
        held: Vec::new(),
        run,
    };
    let mut steps = run.steps.iter().copied().peekable();
    while let Some(step) = steps.peek() {
        if step.is_change() {
            registry.commit(|writer| pair.batch(&mut steps, writer));
            pair.publish();
        } else if let Some(step) = steps.next() {
            pair.step(step);
        }
    }
    pair.finish_held();
}

/// The registry and the model, side by side.
struct Pair<'a> {
    run: &'a Run,
    registry: &'a Arc<Registry>,
    pages: api::Cache,
    readers: Vec<Reader>,
    /// Who is connected.
    slots: Vec<Option<(Serial, Arc<Producer>)>>,
    /// A batch is open: the head has changes that are not published.
    in_batch: bool,
    head: Model,
    published: Model,
    /// Those of the head, and of what is published.
    lifetimes: Lifetimes,
    published_lifetimes: Lifetimes,
    peers: Vec<Peer>,
    now: Timestamp,
    held: Vec<OpenStream>,
}

/// A stream that was begun. What changes while it is held it may show or not, but it stays one document.
struct OpenStream {
    stream: Stream,
    begun: Vec<u8>,
}

impl Pair<'_> {
    /// All steps to the next that publishes.
    fn batch(&mut self, steps: &mut impl Iterator<Item = Step>, writer: &mut Writer<'_>) {
        self.in_batch = true;
        for step in steps.take_while(|step| !matches!(step, Step::Publish)) {
            if step.is_change() {
                self.change(step, writer);
                self.head.note_unused(self.now);
            } else {
                self.step(step);
            }
        }
    }

    fn publish(&mut self) {
        self.in_batch = false;
        self.published = self.head.clone();
        self.published_lifetimes = self.lifetimes;
        let is_due = self.head.next_expiry(self.lifetimes).is_some_and(|at| at <= self.now);
        assert_eq!(self.registry.has_unused(self.now), is_due);
    }

    /// A step that changes nothing in the registry.
    fn step(&mut self, step: Step) {
        match step {
            Step::Touch { slot } => self.touch(slot),
            Step::Advance(by) => self.now = self.now.max(self.target(by)),
            Step::Ask { reader, question } => self.ask(reader, question),
            Step::AskAll { reader } => {
                self.run.profile.questions().for_each(|question| self.ask(reader, question));
            }
            Step::Hold { question } => self.hold(question),
            Step::Refresh { reader } => {
                self.readers[reader].release();
                self.readers[reader].age();
            }
            // The batch was empty.
            Step::Publish => {}
            _ => unreachable!("{step:?} is a change"),
        }
        self.head.note_unused(self.now);
    }

    /// Does a change to both.
    fn change(&mut self, step: Step, writer: &mut Writer<'_>) {
        if let Step::Identify { slot, node } = step {
            return self.identify(slot, node, writer);
        }
        if let Some((change, expected)) = self.expected_outcome(step) {
            let outcome = writer.apply(&change, self.now);
            let outcome = match outcome {
                // Which names are lost is for the log, and tested there.
                Outcome::Unregistered { changed, .. } => {
                    Outcome::Unregistered { changed, channels: ChannelNames::default() }
                }
                Outcome::Deleted(Deleted { existed, .. }) => {
                    Outcome::Deleted(Deleted { existed, ..Deleted::default() })
                }
                Outcome::Forgotten(Forgotten { count, .. }) => {
                    Outcome::Forgotten(Forgotten { count, names: Vec::new() })
                }
                other => other,
            };
            assert_eq!(outcome, expected, "{step:?}");
        }
    }

    /// A change, and what the model says that it does; `None` where the step means nothing.
    fn expected_outcome(&mut self, step: Step) -> Option<(Change, Outcome)> {
        let now = self.now;
        Some(match step {
            Step::Disconnect { slot } => {
                let (serial, producer) = self.slots[slot].take()?;
                (Change::Disconnect(producer), Outcome::Disconnected { topics: self.head.disconnect(serial) })
            }
            Step::Register { slot, topic, channel } => {
                let (serial, producer) = self.slots[slot].clone()?;
                let (topic, channel) = (self.topic(topic), channel.map(Profile::channel));
                let changed = self.head.register(serial, &topic, channel.as_deref());
                let (topic, channel) = (name(&topic), channel.as_deref().map(name));
                (Change::Register { producer, topic, channel }, Outcome::Registered(changed))
            }
            Step::Unregister { slot, topic, channel } => {
                let (serial, producer) = self.slots[slot].clone()?;
                let (topic, channel) = (self.topic(topic), channel.map(Profile::channel));
                let changed = self.head.unregister(serial, &topic, channel.as_deref());
                let (topic, channel) = (name(&topic), channel.as_deref().map(name));
                let outcome = Outcome::Unregistered { changed, channels: ChannelNames::default() };
                (Change::Unregister { producer, topic, channel }, outcome)
            }
            Step::CreateTopic { topic } => {
                let topic = self.topic(topic);
                self.head.create_topic(&topic);
                (Change::Create { topic: name(&topic), channel: None }, Outcome::Created)
            }
            Step::CreateChannel { topic, channel } => {
                let (topic, channel) = (self.topic(topic), Profile::channel(channel));
                self.head.create_channel(&topic, &channel);
                (Change::Create { topic: name(&topic), channel: Some(name(&channel)) }, Outcome::Created)
            }
            Step::Release { topic, channel } => {
                let (topic, channel) = (self.topic(topic), channel.map(Profile::channel));
                self.head.release(&topic, channel.as_deref());
                let (topic, channel) = (name(&topic), channel.as_deref().map(name));
                (Change::Release { topic, channel }, Outcome::Released)
            }
            Step::DeleteTopic { topic } => {
                let topic = self.topic(topic);
                let existed = self.head.delete_topic(&topic);
                let outcome = Outcome::Deleted(Deleted { existed, ..Deleted::default() });
                (Change::Delete { topic: name(&topic), channel: None }, outcome)
            }
            Step::DeleteChannel { topic, channel } => {
                let (topic, channel) = (self.topic(topic), Profile::channel(channel));
                let existed = self.head.delete_channel(&topic, &channel);
                let outcome = Outcome::Deleted(Deleted { existed, ..Deleted::default() });
                (Change::Delete { topic: name(&topic), channel: Some(name(&channel)) }, outcome)
            }
            Step::Tombstone { topic, node } => {
                let (topic, node) = (self.topic(topic), format!("{}:4151", broadcast_address(node)));
                let at = Moment { peers: &self.peers, lifetimes: self.lifetimes, now };
                let producers = self.head.tombstone(&topic, &node, &at);
                let (topic, node) = (name(&topic), node.into_bytes().into());
                (Change::Tombstone { topic, node }, Outcome::Tombstoned { producers })
            }
            Step::Forget => {
                let count = self.head.forget_unused(now, self.lifetimes);
                let outcome = Outcome::Forgotten(Forgotten { count, names: Vec::new() });
                (Change::Forget { most: usize::MAX }, outcome)
            }
            Step::SetLifetimes { inactive_producer_timeout, tombstone_lifetime } => {
                let lifetimes = Lifetimes { inactive_producer_timeout, tombstone_lifetime, ..self.lifetimes };
                self.lifetimes = lifetimes;
                (Change::SetLifetimes(lifetimes), Outcome::LifetimesSet)
            }
            _ => unreachable!("{step:?} is no change"),
        })
    }

    fn identify(&mut self, slot: usize, node: usize, writer: &mut Writer<'_>) {
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
        let generation = u32::try_from(serial).expect("few producers");
        let id = ProducerId::new(Source::Worker(slot_id % 2), slot_id / 2, generation);
        let producer = Arc::new(Producer::new(id, remote_address.clone(), info.clone(), self.now));
        writer.apply(&Change::Identify(Arc::clone(&producer)), self.now);
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
                let timeout = self.lifetimes.inactive_producer_timeout;
                (producer.map(|(_, producer)| producer.last_update().after(timeout)), past)
            }
            Advance::ToTombstoneEnd { topic, past } => {
                (self.head.next_tombstone_end(&self.topic(topic), &self.moment(self.lifetimes)), past)
            }
            Advance::ToExpiry { past } => (self.head.next_expiry(self.lifetimes), past),
        };
        // The end of a lifetime that has none is no time to go to.
        end.filter(|&end| end < Timestamp::MAX).map_or(self.now, |end| Timestamp::from_nanos(end.nanos() + past))
    }

    fn ask(&mut self, reader: usize, question: Question) {
        let body = self.body(reader, question);
        if self.in_batch && matches!(question, Question::Nodes | Question::LookupAll) {
            // What a producer has registered is seen before the batch is published, and must not be believed later.
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

    fn hold(&mut self, question: Question) {
        if let Some(mut stream) = self.stream(question) {
            let begun = stream.next_page().expect("an answer has a page").to_vec();
            self.held.push(OpenStream { stream, begun });
        }
    }

    fn finish_held(&mut self) {
        for OpenStream { stream, begun } in self.held.drain(..) {
            parse(read(stream, begun));
        }
    }

    fn body(&mut self, reader: usize, question: Question) -> Option<Vec<u8>> {
        let (topic, now) = (self.topic_of(question), self.now);
        match question {
            Question::Lookup { .. } => {
                self.readers[reader].prefetch([topic.as_bytes(), b"nobody's"].into_iter());
                Some(self.readers[reader].lookup(topic.as_bytes(), now)?.pieces().concat())
            }
            Question::Channels { .. } => {
                let mut out = Vec::new();
                let topic = self.readers[reader].snapshot().topic(topic.as_bytes());
                api::channels(topic.map(|topic| &**topic), &mut out);
                Some(out)
            }
            _ => self.stream(question).map(|stream| read(stream, Vec::new())),
        }
    }

    fn stream(&self, question: Question) -> Option<Stream> {
        let (registry, now) = (self.registry, self.now);
        match question {
            Question::LookupAll => api::lookup_all(registry, now),
            Question::AllChannels => Some(api::all_channels(registry, now)),
            Question::Topics => Some(api::topics(registry, &self.pages, now)),
            Question::Nodes => Some(api::nodes(registry, &self.pages, now)),
            Question::Debug => Some(api::debug(registry, now)),
            Question::Lookup { .. } | Question::Channels { .. } => unreachable!("{question:?} is no stream"),
        }
    }

    fn expected(&self, question: Question) -> Value {
        let (topic, at) = (self.topic_of(question), self.moment(self.published_lifetimes));
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

    fn moment(&self, lifetimes: Lifetimes) -> Moment<'_> {
        Moment { peers: &self.peers, lifetimes, now: self.now }
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
