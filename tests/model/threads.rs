//! One thread writes, others read. Each publish raises a counter that every answer shows, and keeps two topics
//! alike, so a reader can tell whether it looks at one snapshot, and at one no older than it saw before.

use std::collections::{BTreeSet, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::thread;
use std::time::Duration;

use ringlookupd::clock::Timestamp;
use ringlookupd::registry::{Lifetimes, Name, PeerInfo, Producer, ProducerId, Reader, Registry};
use serde_json::Value;

use crate::run::read;

const PUBLISHES: u64 = 5000;
const PRODUCERS: usize = 20;
const NOW: Timestamp = Timestamp::from_nanos(1);
/// Topics whose producers and channels are the same in every snapshot.
const TWINS: [&str; 2] = ["left", "right"];

#[test]
fn readers_see_whole_snapshots_in_their_order() {
    let lifetimes = Lifetimes {
        inactive_producer_timeout: Duration::from_mins(5),
        tombstone_lifetime: Duration::from_secs(45),
    };
    let registry = Registry::new(lifetimes);
    let mut connected = VecDeque::new();
    publish(&registry, 0, &mut connected);
    thread::scope(|scope| {
        // Gone when the writer is done, or has panicked.
        let published = Arc::new(AtomicU64::new(0));
        for first_question in 0..3 {
            let (registry, published) = (&registry, Arc::downgrade(&published));
            scope.spawn(move || observe(&mut registry.reader(), &published, first_question));
        }
        for counter in 1..=PUBLISHES {
            publish(&registry, counter, &mut connected);
            published.store(counter, Ordering::Release);
        }
    });
}

/// Moves the counter in a topic's name, in a channel's name and to a new producer, in one batch.
fn publish(registry: &Registry, counter: u64, connected: &mut VecDeque<ProducerId>) {
    let mut writer = registry.write();
    writer.create_topic(counter_name(counter));
    if let Some(before) = counter.checked_sub(1) {
        writer.delete_topic(counter_name(before).as_bytes());
    }
    let id = if connected.len() < PRODUCERS {
        ProducerId::new(0, u32::try_from(counter).expect("few producers"))
    } else {
        // Whoever leaves leaves his slot to the next.
        let id = connected.pop_front().expect("some are connected");
        writer.disconnect(id);
        id
    };
    let info = PeerInfo { hostname: counter.to_string(), ..PeerInfo::default() };
    writer.identify(Arc::new(Producer::new(id, counter.to_string(), info, NOW)));
    connected.push_back(id);
    for topic in TWINS.map(|topic| Name::new(topic.as_bytes()).expect("a valid name")) {
        writer.register(id, topic, Some(counter_name(counter)));
        if let Some(before) = counter.checked_sub(1) {
            writer.delete_channel(topic, counter_name(before));
        }
    }
    writer.publish();
}

fn counter_name(counter: u64) -> Name {
    Name::new(format!("counter-{counter}").as_bytes()).expect("a valid name")
}

/// Asks one question after the other, each of which must show a counter no lower than the last.
fn observe(reader: &mut Reader, published: &Weak<AtomicU64>, first_question: usize) {
    let questions = [from_topics, from_nodes, from_debug, from_lookup, from_lookup_all];
    let mut last = 0;
    for question in questions.iter().cycle().skip(first_question) {
        let Some(at_least) = published.upgrade().map(|published| published.load(Ordering::Acquire)) else { break };
        let seen = question(reader);
        assert!(seen >= last.max(at_least), "{seen} was seen after {last}, and {at_least} was published");
        last = seen;
    }
    assert_eq!(questions.map(|question| question(reader)), [PUBLISHES; 5]);
}

fn from_topics(reader: &mut Reader) -> u64 {
    let answer = parse(&read(reader.topics(NOW), Vec::new()));
    let topics: BTreeSet<_> = strings(&answer["topics"]).collect();
    assert!(topics.len() == 3 && TWINS.iter().all(|topic| topics.contains(topic)), "{topics:?}");
    counter(topics.into_iter())
}

fn from_nodes(reader: &mut Reader) -> u64 {
    let answer = parse(&read(reader.nodes(NOW), Vec::new()));
    for node in elements(&answer["producers"]) {
        assert!(strings(&node["topics"]).collect::<BTreeSet<_>>() == TWINS.into(), "{node}");
    }
    newest(&answer["producers"])
}

fn from_debug(reader: &mut Reader) -> u64 {
    let answer = parse(&read(reader.debug(NOW), Vec::new()));
    let [left, right] = TWINS.map(|topic| &answer[format!("topic:{topic}:")]);
    assert!(left == right && *left == answer["client::"], "{answer}");
    newest(left)
}

fn from_lookup(reader: &mut Reader) -> u64 {
    let [left, right] = TWINS.map(|topic| {
        let answer = reader.lookup(topic.as_bytes(), NOW).expect("the topic is listed");
        let answer = parse(answer.bytes());
        let counter = counter(strings(&answer["channels"]));
        assert_eq!(newest(&answer["producers"]), counter, "{answer}");
        counter
    });
    assert!(left <= right, "the second question was answered from an older snapshot");
    right
}

fn from_lookup_all(reader: &mut Reader) -> u64 {
    let answer = parse(&read(reader.lookup_all(NOW).expect("a topic is listed"), Vec::new()));
    let channels: Vec<_> = strings(&answer["channels"]).collect();
    assert!(channels.len() == 2 && channels[0] == channels[1], "{channels:?}");
    let counter = counter(channels.into_iter());
    assert_eq!(newest(&answer["producers"]), counter, "{answer}");
    counter
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

fn counter<'a>(mut names: impl Iterator<Item = &'a str>) -> u64 {
    let digits = names.find_map(|name| name.strip_prefix("counter-")).expect("a name has the counter");
    digits.parse().expect("a number")
}

/// The counter at which the youngest producer came.
fn newest(producers: &Value) -> u64 {
    let hostname = |producer: &Value| producer["hostname"].as_str().and_then(|text| text.parse().ok());
    elements(producers).map(|producer| hostname(producer).expect("a number")).max().expect("a producer")
}
