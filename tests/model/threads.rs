//! One thread writes, others read. Each batch raises a counter that every response shows, so a reader can tell
//! whether it sees what was published before it asked, and never less than it saw before. A document is rendered page by
//! page from the newest snapshot, so one that takes longer than several batches may miss what came and went meanwhile,
//! which here is the counter.

use std::collections::{BTreeSet, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::thread;
use std::time::Duration;

use ringlookupd::api;
use ringlookupd::clock::Timestamp;
use ringlookupd::registry::{Change, Lifetimes, Name, PeerInfo, Producer, ProducerId, Reader, Registry, Source};
use serde_json::Value;

use crate::answers::read;

const PUBLISHES: u64 = 5000;
const PRODUCERS: usize = 20;
/// Batches during an answer that is still compared: fewer than it takes for a producer to come and go.
const MISSED_MAX: u64 = 8;
const NOW: Timestamp = Timestamp::from_nanos(1);
/// Topics whose producers and channels are the same whenever a batch is published.
const TWINS: [&str; 2] = ["left", "right"];

#[test]
fn readers_see_what_was_published() {
    let lifetimes = Lifetimes {
        inactive_producer_timeout: Duration::from_secs(5 * 60),
        tombstone_lifetime: Duration::from_secs(45),
        ..Lifetimes::default()
    };
    let registry = Arc::new(Registry::new(lifetimes));
    let mut connected = VecDeque::new();
    publish(&registry, 0, &mut connected);
    thread::scope(|scope| {
        // Gone when the writer is done, or has panicked.
        let published = Arc::new(AtomicU64::new(0));
        for first_question in 0..3 {
            let (registry, published) = (&registry, Arc::downgrade(&published));
            scope.spawn(move || observe(&mut Observer::new(registry), &published, first_question));
        }
        for counter in 1..=PUBLISHES {
            publish(&registry, counter, &mut connected);
            published.store(counter, Ordering::Release);
        }
    });
}

/// Moves the counter in a topic's name, in a channel's name and to a new producer, in one batch.
fn publish(registry: &Registry, counter: u64, connected: &mut VecDeque<Arc<Producer>>) {
    let mut changes = vec![Change::Create { topic: counter_name(counter), channel: None }];
    // A topic stays for all responses that are compared: a document may have begun before it was there.
    if let Some(before) = counter.checked_sub(MISSED_MAX + 2) {
        changes.push(Change::Delete { topic: counter_name(before), channel: None });
    }
    if connected.len() == PRODUCERS {
        changes.push(Change::Disconnect(connected.pop_front().expect("some are connected")));
    }
    // Whoever leaves leaves his slot to the next.
    let number = u32::try_from(counter).expect("few producers");
    let id = ProducerId::new(Source::Worker(0), number % 20, number / 20);
    let info = PeerInfo { hostname: counter.to_string().into(), ..PeerInfo::default() };
    let producer = Arc::new(Producer::new(id, counter.to_string(), info, NOW));
    changes.push(Change::Identify(Arc::clone(&producer)));
    for topic in TWINS.map(|topic| Name::new(topic.as_bytes()).expect("a valid name")) {
        let channel = Some(counter_name(counter));
        changes.push(Change::Register { producer: Arc::clone(&producer), topic, channel });
        if let Some(before) = counter.checked_sub(1) {
            changes.push(Change::Delete { topic, channel: Some(counter_name(before)) });
        }
    }
    connected.push_back(producer);
    registry.commit(|writer| {
        for change in &changes {
            writer.apply(change, NOW);
        }
    });
}

fn counter_name(counter: u64) -> Name {
    Name::new(format!("counter-{counter}").as_bytes()).expect("a valid name")
}

struct Observer {
    registry: Arc<Registry>,
    reader: Reader,
    pages: api::Cache,
}

impl Observer {
    fn new(registry: &Arc<Registry>) -> Self {
        Self { registry: Arc::clone(registry), reader: registry.reader(), pages: api::Cache::default() }
    }
}

/// Asks one question after the other, each of which must show a counter no lower than it did before.
fn observe(observer: &mut Observer, published: &Weak<AtomicU64>, first_question: usize) {
    let questions = [from_topics, from_nodes, from_debug, from_lookup, from_lookup_all];
    let mut last = [0; 5];
    for number in (0..questions.len()).cycle().skip(first_question) {
        let batches = || published.upgrade().map(|published| published.load(Ordering::Acquire));
        let Some(at_least) = batches() else { break };
        let (seen, last) = (questions[number](observer), &mut last[number]);
        let is_slow = batches().is_some_and(|by_now| by_now - at_least > MISSED_MAX);
        let Some(seen) = seen.filter(|_| !is_slow) else { continue };
        assert!(seen >= (*last).max(at_least), "{seen} was seen after {last}, and {at_least} was published");
        *last = seen;
    }
    assert_eq!(questions.map(|question| question(observer)), [Some(PUBLISHES); 5]);
}

fn from_topics(observer: &mut Observer) -> Option<u64> {
    let answer = parse(&read(api::topics(&observer.registry, &observer.pages, NOW), Vec::new()));
    let topics: BTreeSet<_> = strings(&answer["topics"]).collect();
    assert!(TWINS.iter().all(|topic| topics.contains(topic)), "{topics:?}");
    counter(topics.into_iter())
}

fn from_nodes(observer: &mut Observer) -> Option<u64> {
    let answer = parse(&read(api::nodes(&observer.registry, &observer.pages, NOW), Vec::new()));
    for node in elements(&answer["producers"]) {
        assert!(strings(&node["topics"]).all(|topic| TWINS.contains(&topic)), "{node}");
    }
    newest(elements(&answer["producers"]).filter(|node| elements(&node["topics"]).count() == TWINS.len()))
}

fn from_debug(observer: &mut Observer) -> Option<u64> {
    let answer = parse(&read(api::debug(&observer.registry, NOW), Vec::new()));
    let [left, right] = TWINS.map(|topic| answer.get(format!("topic:{topic}:")));
    Some(newest(elements(left?))?.min(newest(elements(right?))?))
}

/// A batch is seen as a whole: two lookups, the second of which is not older, show the same or more.
fn from_lookup(observer: &mut Observer) -> Option<u64> {
    let [left, right] = TWINS.map(|topic| {
        let body = observer.reader.lookup(topic.as_bytes(), NOW).expect("the topic is listed");
        let answer = parse(&body.pieces().concat());
        let (channel, producer) =
            (counter(strings(&answer["channels"]))?, newest(elements(&answer["producers"]))?);
        assert_eq!(channel, producer, "{topic} is seen in parts");
        Some(channel)
    });
    assert!(left? <= right?, "{left:?} is newer than {right:?}");
    left
}

fn from_lookup_all(observer: &mut Observer) -> Option<u64> {
    let answer = parse(&read(api::lookup_all(&observer.registry, NOW).expect("a topic is listed"), Vec::new()));
    Some(counter(strings(&answer["channels"]))?.min(newest(elements(&answer["producers"]))?))
}

fn parse(body: &[u8]) -> Value {
    serde_json::from_slice(body).expect("an answer is JSON")
}

fn elements(array: &Value) -> impl Iterator<Item = &Value> {
    array.as_array().expect("an array").iter()
}

fn strings(array: &Value) -> impl Iterator<Item = &str> {
    elements(array).map(|item| item.as_str().expect("a string"))
}

/// The highest counter that a name has.
fn counter<'a>(names: impl Iterator<Item = &'a str>) -> Option<u64> {
    let counters = names.filter_map(|name| name.strip_prefix("counter-"));
    counters.map(|digits| digits.parse().expect("a number")).max()
}

/// The counter at which the youngest producer came.
fn newest<'a>(producers: impl Iterator<Item = &'a Value>) -> Option<u64> {
    let hostname = |producer: &Value| producer["hostname"].as_str().and_then(|text| text.parse().ok());
    producers.map(|producer| hostname(producer).expect("a number")).max()
}
