//! What the model in `tests/model` cannot see: what is shared, kept and let go of.

use std::time::Duration;

use bytes::Bytes;
use serde_json::Value;

use super::*;
use crate::limits::{Limit, Limits, PAGE_BYTES, PAGES_CACHED_BYTES_MAX};

const START: Timestamp = Timestamp::from_nanos(1_700_000_000_000_000_000);
const TIMEOUT: Duration = Duration::from_secs(5 * 60);
const TOMBSTONE: Duration = Duration::from_secs(45);

fn registry() -> Registry {
    let (inactive_producer_timeout, tombstone_lifetime) = (TIMEOUT, TOMBSTONE);
    Registry::new(Lifetimes { inactive_producer_timeout, tombstone_lifetime, ..Lifetimes::default() })
}

fn name(text: &str) -> Name {
    Name::new(text.as_bytes()).expect("a valid name")
}

fn id(slot: u32) -> ProducerId {
    ProducerId::new(0, slot, 0)
}

/// A producer that registered the topics, and whose host has a name so long.
fn connect(registry: &Registry, slot: u32, hostname_bytes: usize, topics: &[&str]) -> Arc<Producer> {
    let info = PeerInfo {
        hostname: "h".repeat(hostname_bytes).into(),
        broadcast_address: "b".into(),
        http_port: 4151,
        ..PeerInfo::default()
    };
    let producer = Arc::new(Producer::new(id(slot), format!("127.0.0.1:{slot}"), info, START));
    let mut writer = registry.write();
    writer.identify(Arc::clone(&producer));
    for topic in topics {
        writer.register(&producer, name(topic), None);
    }
    writer.publish();
    producer
}

fn pages(mut stream: Stream) -> Vec<Bytes> {
    let pages: Vec<_> = std::iter::from_fn(|| stream.next_page()).collect();
    assert!(stream.is_finished() && pages.iter().all(|page| !page.is_empty()));
    pages
}

fn are_same(some: &[Bytes], other: &[Bytes]) -> bool {
    some.len() == other.len() && some.iter().zip(other).all(|(page, other)| page.as_ptr() == other.as_ptr())
}

/// The pieces of an answer.
fn ask(reader: &mut Reader, topic: &str, now: Timestamp) -> Vec<Bytes> {
    let lookup = reader.lookup(topic.as_bytes(), now).expect("the topic is listed");
    reader.body(&lookup).pieces()
}

/// Asks twice, because only then the answer is left for others.
fn lookup(reader: &mut Reader, topic: &str, now: Timestamp) -> Bytes {
    let [first, second] = [ask(reader, topic, now), ask(reader, topic, now)];
    assert_eq!(first, second);
    let [answer] = &second[..] else { panic!("it has few producers") };
    answer.clone()
}

#[test]
fn an_answer_is_left_for_other_readers_when_it_is_asked_for_again() {
    let registry = registry();
    connect(&registry, 0, 8, &["t"]);
    let [mut one, mut other] = [registry.reader(), registry.reader()];
    let first = ask(&mut one, "t", START);
    let left = ask(&mut one, "t", START);
    assert!(left == first && !are_same(&left, &first), "nobody had asked for it before");
    let again = [ask(&mut one, "t", START), ask(&mut other, "t", START), ask(&mut other, "t", START)];
    assert!(again.iter().all(|again| are_same(again, &left)));
}

#[test]
fn a_reader_lets_go_of_what_it_remembers() {
    let registry = registry();
    let producer = connect(&registry, 0, 8, &["t"]);
    let mut reader = registry.reader();
    lookup(&mut reader, "t", START);
    let remembered =
        |reader: &Reader| reader.recent.iter().find_map(|recent| Some(Arc::clone(&recent.held.as_ref()?.answer)));
    let before = remembered(&reader).map(|answer| Arc::downgrade(&answer)).expect("asked for twice");
    assert_eq!(before.strong_count(), 2, "the reader's, and the topic's");
    let mut writer = registry.write();
    writer.unregister(&producer, name("t"), None, START);
    writer.publish();
    for _ in 0..LOOKUPS_AGING {
        reader.refresh();
    }
    assert_eq!(before.strong_count(), 0);
    assert_eq!(ask(&mut reader, "t", START).concat(), br#"{"channels":[],"producers":[]}"#);

    connect(&registry, 1, LOOKUP_REMEMBERED_BYTES_MAX, &["u"]);
    lookup(&mut reader, "u", START);
    let of_u = |held: &Held| held.topic.name == "u";
    let is_remembered = reader.recent.iter().any(|recent| recent.held.as_ref().is_some_and(of_u));
    assert!(!is_remembered && reader.last.is_some(), "too large");
}

#[test]
fn debug_goes_on_where_its_page_ended() {
    for topics in [&[][..], &["t"], &["t", "u"]] {
        let registry = registry();
        for slot in 0..5 {
            connect(&registry, slot, PAGE_BYTES / 2, topics);
        }
        let pages = pages(registry.reader().debug(START));
        assert!(pages.len() > 1);
        let answer: Value = serde_json::from_slice(&pages.concat()).expect("JSON");
        let registrations = answer.as_object().expect("an object");
        assert_eq!(registrations.len(), topics.len() + 1);
        assert!(registrations.values().all(|producers| producers.as_array().is_some_and(|all| all.len() == 5)));
    }
}

#[test]
fn an_empty_debug_is_an_empty_object() {
    assert_eq!(pages(registry().reader().debug(START)), ["{}"]);
}

#[test]
fn a_stream_is_rendered_once_for_all_readers() {
    let registry = registry();
    for slot in 0..4 {
        connect(&registry, slot, PAGE_BYTES, &["t"]);
    }
    let mut reader = registry.reader();
    let stream = reader.nodes(START);
    assert_eq!(stream.known_len(), None);
    let first = pages(stream);
    assert_eq!(first.len(), 4);
    let kept = registry.reader().nodes(START.after(TIMEOUT));
    assert_eq!(kept.known_len(), Some(first.concat().len()));
    assert!(are_same(&pages(kept), &first));

    let mut writer = registry.write();
    writer.create_topic(name("u"));
    writer.publish();
    assert!(are_same(&pages(reader.nodes(START)), &first), "no node has the new topic");
    assert_eq!(pages(reader.nodes(START.after(TIMEOUT + Duration::from_nanos(1)))), [r#"{"producers":[]}"#]);
}

#[test]
fn a_stream_keeps_to_its_snapshot_and_its_pages_out_of_the_next() {
    let registry = registry();
    let first = connect(&registry, 0, PAGE_BYTES, &["t"]);
    let second = connect(&registry, 1, PAGE_BYTES, &["t"]);
    let mut reader = registry.reader();
    let mut stream = reader.nodes(START);
    let begun = stream.next_page().expect("a page");

    let mut writer = registry.write();
    writer.disconnect(&first, START);
    writer.disconnect(&second, START);
    writer.publish();
    let rest = pages(stream).concat();
    let answer: Value = serde_json::from_slice(&[&begun[..], &rest].concat()).expect("JSON");
    assert_eq!(answer["producers"].as_array().map(Vec::len), Some(2));
    assert_eq!(pages(reader.nodes(START)), [r#"{"producers":[]}"#]);
}

#[test]
fn a_stream_past_its_cap_is_not_kept() {
    let registry = registry();
    for slot in 0..4 {
        connect(&registry, slot, PAGES_CACHED_BYTES_MAX / 4, &[]);
    }
    let mut reader = registry.reader();
    let first = pages(reader.nodes(START));
    assert!(reader.nodes(START).known_len().is_none());
    assert!(pages(reader.nodes(START)) == first);
    assert!(reader.snapshot.load().nodes_answer.load().is_none());
}

#[test]
fn a_lookup_is_rendered_anew_when_its_topic_changed_only() {
    let registry = registry();
    connect(&registry, 0, 8, &["t", "u"]);
    let (mut reader, mut other) = (registry.reader(), registry.reader());
    let first = lookup(&mut reader, "t", START);
    assert_eq!(lookup(&mut other, "t", START).as_ptr(), first.as_ptr());
    connect(&registry, 1, 8, &["u"]);
    assert_eq!(lookup(&mut reader, "t", START).as_ptr(), first.as_ptr());
    connect(&registry, 2, 8, &["t"]);
    assert!(lookup(&mut reader, "t", START).len() > first.len());
}

#[test]
fn a_lookup_is_kept_until_time_or_a_ping_makes_it_false() {
    let registry = registry();
    let producer = connect(&registry, 0, 8, &["t"]);
    let (mut reader, nano) = (registry.reader(), Duration::from_nanos(1));
    let first = lookup(&mut reader, "t", START);
    producer.touch(START.after(nano));
    let last_moment = START.after(TIMEOUT);
    assert_eq!(lookup(&mut reader, "t", last_moment).as_ptr(), first.as_ptr());
    let again = lookup(&mut reader, "t", last_moment.after(nano));
    assert!(again == first && again.as_ptr() != first.as_ptr(), "what the ping moved is known when it is asked");

    let lapsed = lookup(&mut reader, "t", last_moment.after(2 * nano));
    assert_eq!(lapsed, r#"{"channels":[],"producers":[]}"#);
    assert_eq!(lookup(&mut reader, "t", Timestamp::MAX).as_ptr(), lapsed.as_ptr());
    producer.touch(Timestamp::MAX);
    assert_eq!(lookup(&mut reader, "t", Timestamp::MAX), first);

    let mut writer = registry.write();
    assert_eq!(writer.tombstone(b"t", b"b:4151", START), 1);
    writer.publish();
    let hidden = lookup(&mut reader, "t", START);
    let end = START.after(TOMBSTONE);
    let last_moment = Timestamp::from_nanos(end.nanos() - 1);
    assert_eq!(lookup(&mut reader, "t", last_moment).as_ptr(), hidden.as_ptr());
    assert_eq!(lookup(&mut reader, "t", end), first);
}

/// The pieces of the answer to `/lookup`, asked for until it is kept.
fn pieces(reader: &mut Reader, now: Timestamp) -> Vec<Bytes> {
    let [first, second] = [ask(reader, "t", now), ask(reader, "t", now)];
    assert_eq!(first.concat(), second.concat());
    second
}

#[test]
fn a_change_renders_one_part_of_a_large_answer() {
    let registry = registry();
    let producers: Vec<_> = (0..2000).map(|slot| connect(&registry, slot, 8, &["t"])).collect();
    let mut reader = registry.reader();
    let before = pieces(&mut reader, START);
    let mut writer = registry.write();
    writer.unregister(&producers[1000], name("t"), None, START);
    writer.publish();
    let after = pieces(&mut reader, START);
    let is_kept = |piece: &&Bytes| before.iter().any(|old| old.as_ptr() == piece.as_ptr());
    let rendered: Vec<_> = after.iter().filter(|piece| !is_kept(piece)).collect();
    assert!(after.len() > 5 && rendered.len() == 2, "the opening, and the part with the change");

    let mut writer = registry.write();
    assert_eq!(writer.tombstone(b"t", b"b:4151", START), 1999);
    writer.publish();
    assert_eq!(pieces(&mut reader, START).concat(), br#"{"channels":[],"producers":[]}"#);
}

/// A producer that comes and goes makes the answer larger again and again.
#[test]
fn a_large_answer_that_changes_is_counted_once() {
    let registry = registry();
    let producers: Vec<_> = (0..2000).map(|slot| connect(&registry, slot, 200, &["t"])).collect();
    let mut reader = registry.reader();
    let mut change = |how: &dyn Fn(&mut Writer<'_>)| {
        let mut writer = registry.write();
        how(&mut writer);
        writer.publish();
        let lookup = reader.lookup(b"t", START).expect("listed");
        let answer = reader.body(&lookup);
        assert_eq!(answer.body_len(), answer.pieces().concat().len());
        reader.cached_bytes
    };
    let mut cycle = || {
        change(&|writer| _ = writer.unregister(&producers[1], name("t"), None, START));
        change(&|writer| _ = writer.register(&producers[1], name("t"), None))
    };
    cycle();
    let before = cycle();
    assert!(before > 2000 * 200, "{before}");
    for _ in 0..100 {
        cycle();
    }
    assert!(cycle() < before + before / 4);
}

#[test]
fn a_large_answer_is_right_after_any_changes() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut rng = fastrand::Rng::with_seed(seed);
    let registry = registry();
    let producers: Vec<_> = (0..1500).map(|slot| connect(&registry, slot, 8, &["t"])).collect();
    let (mut registered, mut now) = (vec![true; producers.len()], START);
    let mut reader = registry.reader();
    for _ in 0..300 {
        let at = rng.usize(..producers.len());
        match rng.u8(..20) {
            0 => now = now.after(TIMEOUT / 3),
            1 => {
                for producer in rng.choose_multiple(&producers, 1000) {
                    producer.touch(now);
                }
            }
            2 => drop(producers[at].touch(now)),
            _ => {
                // Neighbours together: runs must be able to vanish.
                let mut writer = registry.write();
                for at in at..(at + rng.usize(1..400)).min(producers.len()) {
                    if registered[at] {
                        writer.unregister(&producers[at], name("t"), None, now);
                    } else {
                        writer.register(&producers[at], name("t"), None);
                    }
                    registered[at] = !registered[at];
                }
                writer.publish();
            }
        }
        let answer: Value = serde_json::from_slice(&pieces(&mut reader, now).concat()).expect("JSON");
        let listed = answer["producers"].as_array().expect("an array");
        let listed: Vec<_> = listed.iter().map(|producer| producer["remote_address"].as_str()).collect();
        let visible = producers
            .iter()
            .zip(&registered)
            .filter(|(producer, registered)| **registered && now <= producer.last_update().after(TIMEOUT));
        let visible: Vec<_> = visible.map(|(producer, _)| Some(producer.remote_address())).collect();
        assert_eq!(listed, visible);
    }
}

#[test]
fn a_reader_lets_go_of_old_lookups() {
    let registry = registry();
    let topics = ["t", "u", "v", "w", "x"];
    connect(&registry, 0, LOOKUP_CACHE_BYTES / 4, &topics);
    let mut reader = registry.reader();
    for topic in topics {
        lookup(&mut reader, topic, START);
        assert!(reader.cached_bytes <= LOOKUP_CACHE_BYTES);
    }
    let snapshot = Arc::clone(reader.snapshot.load());
    let kept = topics.map(|topic| snapshot.topic(topic.as_bytes()).expect("there").answer.load().is_some());
    assert_eq!(kept, [false, false, true, true, true]);
    assert_eq!(reader.cached.len(), 3);
    assert_eq!(lookup(&mut reader, "t", START), lookup(&mut reader, "x", START));
}

#[test]
fn a_batch_that_changes_nothing_publishes_nothing() {
    let registry = registry();
    let producer = connect(&registry, 0, 8, &["t"]);
    let before = registry.published.load_full();
    let mut writer = registry.write();
    writer.create_topic(name("t"));
    writer.register(&producer, name("t"), None);
    writer.unregister(&producer, name("t"), Some(name("c")), START);
    writer.unregister(&producer, name("u"), None, START);
    writer.delete_topic(b"u");
    writer.delete_channel(name("t"), name("c"));
    writer.tombstone(b"t", b"b:1", START);
    writer.publish();
    assert!(Arc::ptr_eq(&registry.published.load(), &before));
}

#[test]
fn unchanged_topics_are_shared() {
    let registry = registry();
    connect(&registry, 0, 8, &["t", "u"]);
    let before = registry.published.load_full();
    let mut writer = registry.write();
    writer.delete_topic(b"t");
    writer.create_channel(name("v"), name("c"));
    writer.publish();
    let after = registry.published.load_full();
    let topic = |snapshot: &Snapshot, name: &[u8]| Arc::clone(snapshot.topic(name).expect("there"));
    assert!(Arc::ptr_eq(&topic(&before, b"u"), &topic(&after, b"u")));
    assert!(after.topic(b"t").is_none() && before.topic(b"v").is_none());
}

#[test]
fn an_ephemeral_topic_leaves_with_its_last_channel() {
    let registry = registry();
    let producer = connect(&registry, 0, 8, &[]);
    let mut writer = registry.write();
    let topic = name("t#ephemeral");
    writer.register(&producer, topic, Some(name("c")));
    writer.unregister(&producer, topic, None, START);
    writer.publish();
    let snapshot = registry.published.load_full();
    assert!(snapshot.topic(topic.as_bytes()).is_some_and(|topic| !topic.state().listed));

    let mut writer = registry.write();
    assert!(writer.delete_channel(topic, name("c")));
    writer.publish();
    let snapshot = registry.published.load_full();
    assert!(snapshot.topic(topic.as_bytes()).is_none() && snapshot.topics.from(0).next().is_none());
}

/// In unit tests hashes are a few bits long, so a hundred topics share each of them.
#[test]
fn names_of_one_hash_are_told_apart() {
    let registry = registry();
    let producer = connect(&registry, 0, 8, &[]);
    let topic = |number: usize| name(&format!("topic_{number}"));
    let mut reader = registry.reader();
    for round in 0..3 {
        let mut writer = registry.write();
        for number in 0..100 {
            writer.register(&producer, topic(number), None);
        }
        for number in (round..100).step_by(3) {
            assert!(writer.delete_topic(topic(number).as_bytes()));
        }
        writer.publish();
        for number in 0..100 {
            let there = reader.lookup(topic(number).as_bytes(), START).is_some();
            assert_eq!(there, number % 3 != round, "topic {number} in round {round}");
        }
        let snapshot = registry.published.load();
        assert_eq!(snapshot.topics.from(0).count(), snapshot.listed);
        assert!(snapshot.topics.len() <= 100, "places are used again");
    }
}

/// What the writer counts as it goes is what a recount finds.
#[test]
fn counts_are_right_after_any_changes() {
    let (registry, mut rng) = (registry(), fastrand::Rng::with_seed(1));
    let producers: Vec<_> = (0..4).map(|slot| connect(&registry, slot, 1, &[])).collect();
    let topics = ["t", "u", "v#ephemeral"].map(name);
    let channels = ["c", "d", "e#ephemeral"].map(name);
    for step in 0..5000 {
        let producer = rng.choice(&producers).expect("some");
        let (topic, channel) = (*rng.choice(&topics).expect("some"), *rng.choice(&channels).expect("some"));
        let some_channel = rng.bool().then_some(channel);
        let mut writer = registry.write();
        match rng.u8(..10) {
            0 => drop(writer.delete_topic(topic.as_bytes())),
            1 => drop(writer.delete_channel(topic, channel)),
            2 => writer.create_channel(topic, channel),
            3..6 => drop(writer.unregister(producer, topic, some_channel, START)),
            _ => drop(writer.register(producer, topic, some_channel)),
        }
        writer.publish();
        let head = registry.head.lock().expect("no writer has panicked");
        let states: Vec<_> =
            head.snapshot.topics.from(0).map(|(_, topic)| Guard::into_inner(topic.state())).collect();
        let all: Vec<_> = states.iter().flat_map(|state| state.channels.iter()).collect();
        let counted = Registered { topics: states.len(), channels: all.len() };
        assert_eq!(registry.registered(), counted, "step {step}");
        for producer in &producers {
            let id = producer.id();
            let topics = states.iter().filter(|state| state.producers.contains(id)).count();
            let channels = all.iter().filter(|channel| channel.producers.contains(id)).count();
            assert_eq!(producer.registered(), Registered { topics, channels }, "step {step}");
        }
    }
    assert_eq!(registry.producers(), producers.len());
}

#[test]
fn a_limit_is_met_by_what_is_new_alone() {
    let registry = registry();
    let (greedy, other) = (connect(&registry, 0, 1, &["t"]), connect(&registry, 1, 1, &["u"]));
    let judge = |limit, value, producer, topic, channel: Option<&str>| {
        let mut limits = Limits::default();
        limits.set(limit, value);
        registry.write().judge(&limits, producer, name(topic), channel.map(name))
    };
    let (no_channels, mine) = (Registered { topics: 1, channels: 0 }, Some(&greedy));
    assert_eq!(judge(Limit::Topics, 2, mine, "v", None), Err(Limit::Topics));
    assert_eq!(judge(Limit::Topics, 2, mine, "u", None), Ok(no_channels));
    assert_eq!(judge(Limit::Topics, 3, mine, "v", None), Ok(no_channels));
    assert_eq!(judge(Limit::TopicsPerProducer, 1, mine, "u", None), Err(Limit::TopicsPerProducer));
    assert_eq!(judge(Limit::TopicsPerProducer, 1, mine, "t", Some("c")), Ok(no_channels));
    assert_eq!(judge(Limit::TopicsPerProducer, 1, None, "v", None), Ok(Registered::default()));
    let mut writer = registry.write();
    writer.register(&other, name("u"), Some(name("c")));
    writer.publish();
    assert_eq!(judge(Limit::Channels, 1, mine, "u", Some("d")), Err(Limit::Channels));
    assert_eq!(judge(Limit::Channels, 1, mine, "u", Some("c")), Ok(no_channels));
    let others = judge(Limit::ChannelsPerProducer, 1, Some(&other), "u", Some("d"));
    assert_eq!(others, Err(Limit::ChannelsPerProducer));
    assert!(judge(Limit::ChannelsPerProducer, 1, Some(&other), "u", Some("c")).is_ok());
    assert!(judge(Limit::ChannelsPerProducer, 1, Some(&other), "v", None).is_ok());
}
