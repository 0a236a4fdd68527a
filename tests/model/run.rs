//! Does the steps to a registry and to the model, and compares whatever can be seen.

use std::collections::HashMap;
use std::iter::Peekable;
use std::sync::Arc;
use std::time::Duration;

use ringlookupd::api::{self, Stream};
use ringlookupd::clock::Timestamp;
use ringlookupd::registry::{
    Change, ChannelNames, Deleted, Forgotten, Lifetimes, Name, Outcome, PeerInfo, Producer, ProducerId, Reader,
    Registry, Restore, Saved, SavedProducers, Shown, Source, Tag, Visibility, Writer,
};
use serde_json::Value;

use crate::answers::{canonical, parse, parse_held, read};
use crate::model::{Model, Moment, Peer, Serial};
use crate::restarts::Counts;
use crate::steps::{Advance, Profile, Question, READERS, Run, Step};

/// # Panics
/// When the registry and the model differ.
pub fn run(run: &Run) {
    let registry = Arc::new(Registry::new(run.lifetimes));
    let mut pair = Pair {
        pages: api::Cache::default(),
        readers: (0..READERS).map(|_| registry.reader()).collect(),
        registry,
        slots: vec![None; run.profile.slots],
        in_batch: false,
        has_ranked: false,
        counts_tombstones: true,
        head: Model::default(),
        published: Model::default(),
        lifetimes: run.lifetimes,
        published_lifetimes: run.lifetimes,
        peers: Vec::new(),
        now: Timestamp::from_nanos(1_700_000_000_000_000_000),
        held: Vec::new(),
        tags: Tags::default(),
        run,
    };
    let mut steps = run.steps.iter().copied().peekable();
    while let Some(step) = steps.peek() {
        if step.is_change() {
            let registry = Arc::clone(&pair.registry);
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
    registry: Arc<Registry>,
    pages: api::Cache,
    readers: Vec<Reader>,
    /// Who is connected.
    slots: Vec<Option<(Serial, Arc<Producer>)>>,
    /// A batch is open: the head has changes that are not published.
    in_batch: bool,
    /// Somebody has come or gone in the batch: who is superseded by whom is seen before it is published.
    has_ranked: bool,
    /// Until the lifetime of tombstones has been raised: expired ones may not be counted again.
    counts_tombstones: bool,
    head: Model,
    published: Model,
    /// Those of the head, and of what is published.
    lifetimes: Lifetimes,
    published_lifetimes: Lifetimes,
    peers: Vec<Peer>,
    now: Timestamp,
    held: Vec<OpenStream>,
    tags: Tags,
}

/// The tags of all bodies so far.
#[derive(Default)]
struct Tags {
    bodies: HashMap<(Question, Tag), Vec<u8>>,
    last: HashMap<Question, (Tag, Vec<u8>)>,
}

impl Tags {
    /// Equal tags mean equal bytes, always; and a tag stays as long as the bytes do.
    fn check(&mut self, question: Question, tag: Tag, body: &[u8]) {
        let known = self.bodies.entry((question, tag)).or_insert_with(|| body.to_vec());
        assert!(known == body, "{question:?}: two bodies have the tag {tag}");
        if let Some((last, same)) = self.last.insert(question, (tag, body.to_vec())) {
            // The tag of the list of topics is of its revision: one that is as it was before has another.
            let is_list = question == Question::Topics;
            assert!(
                same != body || last == tag || is_list,
                "{question:?}: one body has the tags {last} and {tag}"
            );
        }
    }
}

/// A stream that was begun. What changes while it is held it may show or not, but it stays one document.
struct OpenStream {
    question: Question,
    stream: Stream,
    begun: Vec<u8>,
}

impl Pair<'_> {
    /// All steps to the next that publishes, or to a restart.
    fn batch(&mut self, steps: &mut Peekable<impl Iterator<Item = Step>>, writer: &mut Writer<'_>) {
        self.in_batch = true;
        while let Some(step) = steps.next_if(|step| !matches!(step, Step::Restart { .. })) {
            match step {
                Step::Publish => break,
                Step::Identify { slot, node } => self.identify(slot, node, writer),
                Step::EndGrace { most } => self.end_grace(most, writer),
                step if step.is_change() => self.change(step, writer),
                step => self.step(step),
            }
            self.head.note_unused(self.now, self.lifetimes);
        }
    }

    fn publish(&mut self) {
        self.in_batch = false;
        self.has_ranked = false;
        self.published = self.head.clone();
        self.published_lifetimes = self.lifetimes;
        let is_due = self.head.next_expiry().is_some_and(|at| at <= self.now);
        assert_eq!(self.registry.has_unused(self.now), is_due);
        assert_eq!(self.registry.is_grace_over(self.now), self.head.is_grace_over(self.now));
    }

    /// A step that changes nothing in the registry.
    fn step(&mut self, step: Step) {
        match step {
            Step::Touch { slot } => self.touch(slot),
            Step::Advance(by) => self.now = self.now.max(self.target(by)),
            Step::Ask { reader, question } => self.ask(reader, question),
            Step::AskAll { reader } => {
                self.run.profile.questions().for_each(|question| self.ask(reader, question));
                self.compare_counts();
            }
            Step::Hold { question } => self.hold(question),
            Step::Refresh { reader } => {
                self.readers[reader].release();
                self.readers[reader].age();
            }
            Step::Restart { gone, clock, grace, lifetimes } => {
                self.restart(gone, clock, grace, lifetimes.unwrap_or(self.lifetimes));
            }
            // The batch was empty.
            Step::Publish => {}
            _ => unreachable!("{step:?} is a change"),
        }
    }

    /// Does a change to both.
    fn change(&mut self, step: Step, writer: &mut Writer<'_>) {
        if let Some((change, expected)) = self.expected_outcome(step) {
            let outcome = writer.apply(&change, self.now);
            let outcome = match outcome {
                // Which names are lost is for the log, and tested there.
                Outcome::Unregistered { changed, channels } => {
                    if matches!(step, Step::Unregister { channel: None, .. }) {
                        assert_eq!(channels.names.len() + channels.more, changed.channels, "{step:?}");
                    }
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
                self.has_ranked = true;
                self.give_back(serial);
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
                let (topic, node) = (self.topic(topic), format!("{}:4151", self.node(node).0));
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
            Step::EndGraceOfOne => {
                let at = Moment { peers: &self.peers, lifetimes: self.lifetimes, now };
                (Change::EndGrace { most: 1 }, Outcome::GraceEnded(self.head.end_grace(false, &at)))
            }
            Step::SetLifetimes(lifetimes) => {
                self.counts_tombstones &= lifetimes.tombstone_lifetime <= self.lifetimes.tombstone_lifetime;
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
        let (broadcast_address, tcp_port) = self.node(node);
        let info = PeerInfo {
            hostname: "h".repeat(self.run.profile.hostname_bytes).into(),
            broadcast_address: broadcast_address.into(),
            tcp_port,
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
        let outcome = writer.apply(&Change::Identify(Arc::clone(&producer)), self.now);
        // Behind all that are expected.
        let order = (1 + slot % 2, slot / 2);
        self.peers.push(Peer { remote_address, info, last_update: self.now, order, expected_until: None });
        let at = Moment { peers: &self.peers, lifetimes: self.lifetimes, now: self.now };
        assert_eq!(outcome, Outcome::Identified(self.head.identify(serial, &at)));
        self.slots[slot] = Some((serial, producer));
        self.has_ranked = true;
    }

    /// A producer is about to leave. Another is expected in its place when it has inherited something.
    fn give_back(&mut self, serial: Serial) {
        if let Some(&before) = self.head.heirs.get(&serial) {
            let again = Peer { last_update: self.peers[serial].last_update, ..self.peers[before].clone() };
            self.head.give_back(serial, self.peers.len());
            self.peers.push(again);
        }
    }

    fn end_grace(&mut self, most: usize, writer: &mut Writer<'_>) {
        if !self.head.is_grace_over(self.now) {
            assert_eq!(writer.apply(&Change::EndGrace { most }, self.now), Outcome::GraceEnded(None));
            return;
        }
        let ended = loop {
            match writer.apply(&Change::EndGrace { most }, self.now) {
                Outcome::GraceEnded(None) => {}
                ended => break ended,
            }
        };
        let at = Moment { peers: &self.peers, lifetimes: self.lifetimes, now: self.now };
        assert_eq!(ended, Outcome::GraceEnded(self.head.end_grace(true, &at)));
    }

    fn restart(&mut self, gone: Duration, clock: i64, grace: Duration, lifetimes: Lifetimes) {
        self.finish_held();
        let saved = save(&self.registry, self.now);
        let expected = self.head.saved(&self.moment(self.lifetimes));
        assert_eq!(by_name(&saved), expected);

        self.now = Timestamp::from_nanos(self.now.after(gone).nanos() + clock);
        let grace_end = self.now.after(grace);
        self.lifetimes = lifetimes;
        self.registry = Arc::new(Registry::new(lifetimes));
        self.pages = api::Cache::default();
        // Another process has another key.
        self.tags = Tags::default();
        self.readers = (0..READERS).map(|_| self.registry.reader()).collect();
        self.slots.fill(None);
        self.counts_tombstones = true;
        let restore = Change::Restore(Box::new(Restore { saved, gone, grace_end }));
        let outcome = self.registry.commit(|writer| writer.apply(&restore, self.now));

        self.head = Model::restored(&expected, gone, self.now, grace_end, &mut self.peers);
        self.head.note_unused(self.now, self.lifetimes);
        self.publish();
        let Counts { producers, registered, .. } = self.compare_counts();
        assert_eq!(outcome, Outcome::Restored { producers, registered });
        let again = self.head.saved(&self.moment(self.lifetimes));
        assert_eq!(by_name(&save(&self.registry, self.now)), again, "saved again");
    }

    /// Compares what is published.
    fn compare_counts(&self) -> Counts {
        let expected = self.published.counts(&self.moment(self.published_lifetimes));
        let registry = &self.registry;
        let counts = Counts {
            producers: registry.producers(),
            expected: registry.expected(),
            registered: registry.registered(),
            without_producers: registry.without_producers(),
            tombstones: if self.counts_tombstones { registry.tombstones(self.now) } else { expected.tombstones },
        };
        assert_eq!(counts, expected);
        counts
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
                let seen = self.slots[slot].as_ref().map(|(_, producer)| producer.last_update());
                let seen = seen.or_else(|| self.expected_in(slot));
                (seen.map(|seen| seen.after(self.lifetimes.inactive_producer_timeout)), past)
            }
            Advance::ToSuperseded { slot, past } => {
                let producer = self.slots[slot].as_ref();
                let timeout = self.lifetimes.supersede_silent;
                (producer.map(|(_, producer)| producer.last_update().after(timeout)), past)
            }
            Advance::ToGraceEnd { past } => (self.head.grace.map(|grace| grace.until), past),
            Advance::ToTombstoneEnd { topic, past } => {
                (self.head.next_tombstone_end(&self.topic(topic), &self.moment(self.lifetimes)), past)
            }
            Advance::ToExpiry { past } => (self.head.next_expiry(), past),
        };
        // The end of a lifetime that has none is no time to go to.
        end.filter(|&end| end < Timestamp::MAX).map_or(self.now, |end| Timestamp::from_nanos(end.nanos() + past))
    }

    /// The last sign of life of an expected producer.
    fn expected_in(&self, slot: usize) -> Option<Timestamp> {
        let node = self.node(slot % self.run.profile.nodes).0;
        let expected = self.head.expected_like(&node, &self.moment(self.lifetimes))?;
        Some(self.peers[expected].last_update)
    }

    fn ask(&mut self, reader: usize, question: Question) {
        let body = self.body(reader, question);
        let is_early = matches!(question, Question::Nodes | Question::LookupAll)
            || self.has_ranked && matches!(question, Question::Lookup { .. });
        if self.in_batch && is_early {
            // What a producer has registered, and who is superseded, is seen before the batch is published, and must not be
            // believed later.
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
            self.held.push(OpenStream { question, stream, begun });
        }
    }

    fn finish_held(&mut self) {
        for OpenStream { question, stream, begun } in self.held.drain(..) {
            let body = read(stream, begun);
            match question {
                Question::Debug => parse_held(body),
                _ => drop(parse(body)),
            }
        }
    }

    fn body(&mut self, reader: usize, question: Question) -> Option<Vec<u8>> {
        let (topic, now) = (self.topic_of(question), self.now);
        match question {
            Question::Lookup { .. } => {
                self.readers[reader].prefetch([topic.as_bytes(), b"nobody's"].into_iter());
                let found = self.readers[reader].lookup(topic.as_bytes(), now)?;
                let (body, tag) = (found.pieces().concat(), found.tag());
                self.tags.check(question, tag, &body);
                // Who is superseded is seen before the batch is published, though not in a response that is cached.
                if !self.has_ranked {
                    self.check_shown(&topic, tag, &body);
                }
                Some(body)
            }
            Question::Channels { .. } => {
                let mut out = Vec::new();
                let topic = self.readers[reader].snapshot().topic(topic.as_bytes());
                api::channels(topic.map(|topic| &**topic), &mut out);
                Some(out)
            }
            _ => {
                let mut stream = self.stream(question)?;
                let tag = stream.tag();
                let body = read(stream, Vec::new());
                if let Some(tag) = tag {
                    self.tags.check(question, tag, &body);
                }
                Some(body)
            }
        }
    }

    /// What those who watch the topic, or filter it, are shown has the same body and tag.
    fn check_shown(&self, topic: &str, tag: Tag, body: &[u8]) {
        let snapshot = self.registry.snapshot();
        let topic = snapshot.topic(topic.as_bytes()).expect("it has a lookup");
        let mut visibility = Visibility::new(snapshot.lifetimes(), self.now);
        let shown = Shown::of(topic, &snapshot, &mut visibility, None);
        let mut rendered = Vec::new();
        assert_eq!(shown.render(topic, true, &mut rendered), tag);
        assert!(shown.tag(topic) == tag && rendered == body);
    }

    fn stream(&self, question: Question) -> Option<Stream> {
        let (registry, now) = (&self.registry, self.now);
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

    /// A broadcast address, and a TCP port. The last two nodes differ in the port alone.
    fn node(&self, index: usize) -> (String, i64) {
        match self.run.profile.nodes {
            nodes if index + 1 == nodes => (format!("node-{}", index - 1), 4250),
            _ => (format!("node-{index}"), 4150),
        }
    }

    fn moment(&self, lifetimes: Lifetimes) -> Moment<'_> {
        Moment { peers: &self.peers, lifetimes, now: self.now }
    }
}

fn name(text: &str) -> Name {
    Name::new(text.as_bytes()).expect("a valid name")
}

fn save(registry: &Registry, now: Timestamp) -> Saved {
    let snapshot = registry.snapshot();
    let saving = snapshot.save(now);
    let saved = Saved { producers: saving.producers().collect(), topics: saving.topics().collect() };
    assert_eq!(saving.counts(), (saved.producers.len(), saved.topics.len()));
    assert!(saving.silences().eq(saved.producers.iter().map(|producer| producer.silence)));
    saved
}

/// The same with topics by name, and with the numbers of all channels' producers.
fn by_name(saved: &Saved) -> Saved {
    let mut saved = saved.clone();
    saved.topics.sort_by(|topic, other| topic.name.as_str().cmp(other.name.as_str()));
    for topic in &mut saved.topics {
        for channel in &mut topic.channels {
            if channel.producers == SavedProducers::All {
                channel.producers = SavedProducers::Some(topic.producers.clone());
            }
        }
    }
    saved
}
