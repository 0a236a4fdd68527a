//! What the model in `tests/model` cannot see: what is shared, cached and evicted.

use std::time::Duration;

use bytes::Bytes;
use serde_json::Value;

use super::*;
use crate::limits::{LOOKUP_CACHE_BYTES, LOOKUP_REMEMBERED_BYTES_MAX, LOOKUPS_AGING, Limit, Limits};

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
    ProducerId::new(Source::Worker(0), slot, 0)
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
    registry.commit(|writer| {
        writer.identify(&producer, START);
        for topic in topics {
            writer.register(&producer, name(topic), None);
        }
    });
    producer
}

fn are_same(some: &[Bytes], other: &[Bytes]) -> bool {
    some.len() == other.len() && some.iter().zip(other).all(|(page, other)| page.as_ptr() == other.as_ptr())
}

/// The pieces of a response.
fn ask(reader: &mut Reader, topic: &str, now: Timestamp) -> Vec<Bytes> {
    reader.lookup(topic.as_bytes(), now).expect("the topic is listed").pieces()
}

/// Asks twice, because only then the response is published.
fn lookup(reader: &mut Reader, topic: &str, now: Timestamp) -> Bytes {
    let [first, second] = [ask(reader, topic, now), ask(reader, topic, now)];
    assert_eq!(first, second);
    let [answer] = &second[..] else { panic!("it has few producers") };
    answer.clone()
}

#[test]
fn a_response_is_published_for_other_readers_when_it_is_asked_for_again() {
    let registry = registry();
    connect(&registry, 0, 8, &["t"]);
    let [mut one, mut other] = [registry.reader(), registry.reader()];
    let first = ask(&mut one, "t", START);
    let published = ask(&mut one, "t", START);
    assert!(published == first && !are_same(&published, &first), "nobody had asked for it before");
    let again = [ask(&mut one, "t", START), ask(&mut other, "t", START), ask(&mut other, "t", START)];
    assert!(again.iter().all(|again| are_same(again, &published)));
}

#[test]
fn hits_and_misses_are_counted() {
    let registry = registry();
    let producer = connect(&registry, 0, 8, &["t"]);
    let (mut one, mut other) = (registry.reader(), registry.reader());
    let used = |reader: &mut Reader| {
        let CacheUse { hits, misses } = reader.take_cache_use();
        (hits, misses)
    };
    lookup(&mut one, "t", START);
    assert_eq!(used(&mut one), (0, 2), "a response is kept from the second request on");
    lookup(&mut one, "t", START);
    ask(&mut other, "t", START);
    assert!(one.lookup(b"u", START).is_none());
    assert_eq!((used(&mut one), used(&mut other)), ((2, 0), (1, 0)));
    registry.commit(|writer| writer.register(&producer, name("u"), None));
    ask(&mut one, "t", START);
    assert_eq!(used(&mut one), (1, 0), "another topic has changed");
    registry.commit(|writer| writer.register(&producer, name("t"), Some(name("c"))));
    ask(&mut one, "t", START);
    assert_eq!(used(&mut one), (0, 1));
}

#[test]
fn cached_responses_age() {
    let registry = registry();
    let producer = connect(&registry, 0, 8, &["t"]);
    let mut reader = registry.reader();
    lookup(&mut reader, "t", START);
    let cached = |reader: &Reader| reader.caches().0.entries().map(|entry| Arc::downgrade(&entry.response)).next();
    let before = cached(&reader).expect("asked for twice");
    assert_eq!(before.strong_count(), 2, "the reader's, and the topic's");
    registry.commit(|writer| writer.delete_topic(name("t")));
    registry.commit(|writer| writer.register(&producer, name("t"), None));
    assert_eq!(before.strong_count(), 2, "the entry's, and its topic's, which is no more");
    reader.release();
    for _ in 0..LOOKUPS_AGING {
        reader.age();
    }
    assert_eq!(before.strong_count(), 0);

    connect(&registry, 1, LOOKUP_REMEMBERED_BYTES_MAX, &["u"]);
    lookup(&mut reader, "u", START);
    assert!(reader.caches().0.entries().all(|entry| entry.topic.name() != "u"), "too large");
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

    registry.commit(|writer| {
        assert_eq!(writer.tombstone(name("t"), b"b:4151", START), 1);
    });
    let hidden = lookup(&mut reader, "t", START);
    let end = START.after(TOMBSTONE);
    let last_moment = Timestamp::from_nanos(end.nanos() - 1);
    assert_eq!(lookup(&mut reader, "t", last_moment).as_ptr(), hidden.as_ptr());
    assert_eq!(lookup(&mut reader, "t", end), first);
}

/// The pieces of the response to `/lookup`, asked for until it is kept.
fn pieces(reader: &mut Reader, now: Timestamp) -> Vec<Bytes> {
    let [first, second] = [ask(reader, "t", now), ask(reader, "t", now)];
    assert_eq!(first.concat(), second.concat());
    second
}

#[test]
fn a_change_renders_one_part_of_a_large_response() {
    let registry = registry();
    let producers: Vec<_> = (0..2000).map(|slot| connect(&registry, slot, 8, &["t"])).collect();
    let mut reader = registry.reader();
    let before = pieces(&mut reader, START);
    registry.commit(|writer| {
        writer.unregister(&producers[1000], name("t"), None, START);
    });
    let after = pieces(&mut reader, START);
    let is_kept = |piece: &&Bytes| before.iter().any(|old| old.as_ptr() == piece.as_ptr());
    let rendered: Vec<_> = after.iter().filter(|piece| !is_kept(piece)).collect();
    assert!(after.len() > 5 && rendered.len() == 2, "the opening, and the part with the change");

    registry.commit(|writer| {
        assert_eq!(writer.tombstone(name("t"), b"b:4151", START), 1999);
    });
    assert_eq!(pieces(&mut reader, START).concat(), br#"{"channels":[],"producers":[]}"#);
}

/// A producer that comes and goes makes the response larger again and again.
#[test]
fn a_large_response_that_changes_is_counted_once() {
    let registry = registry();
    let producers: Vec<_> = (0..2000).map(|slot| connect(&registry, slot, 200, &["t"])).collect();
    let mut reader = registry.reader();
    let mut change = |how: &dyn Fn(&mut Writer<'_>)| {
        registry.commit(how);
        let body = reader.lookup(b"t", START).expect("listed");
        assert_eq!(body.len(), body.pieces().concat().len());
        reader.caches().1.counted().1
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
fn a_large_response_is_right_after_any_changes() {
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
                registry.commit(|writer| {
                    for at in at..(at + rng.usize(1..400)).min(producers.len()) {
                        if registered[at] {
                            writer.unregister(&producers[at], name("t"), None, now);
                        } else {
                            writer.register(&producers[at], name("t"), None);
                        }
                        registered[at] = !registered[at];
                    }
                });
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
fn the_oldest_responses_are_evicted() {
    let registry = registry();
    let topics = ["t", "u", "v", "w", "x"];
    connect(&registry, 0, LOOKUP_CACHE_BYTES / 4, &topics);
    let mut reader = registry.reader();
    for topic in topics {
        lookup(&mut reader, topic, START);
        assert!(reader.caches().1.counted().1 <= LOOKUP_CACHE_BYTES);
    }
    let snapshot = registry.snapshot();
    let kept = topics.map(|topic| snapshot.topic(topic.as_bytes()).expect("there").response().is_some());
    assert_eq!(kept, [false, false, true, true, true]);
    assert_eq!(reader.caches().1.counted().0, 3);
    assert_eq!(lookup(&mut reader, "t", START), lookup(&mut reader, "x", START));
}

#[test]
fn a_batch_that_changes_nothing_publishes_nothing() {
    let registry = registry();
    let producer = connect(&registry, 0, 8, &["t"]);
    registry.commit(|writer| writer.create_topic(name("t")));
    let before = Guard::into_inner(registry.snapshot());
    registry.commit(|writer| {
        writer.create_topic(name("t"));
        writer.register(&producer, name("t"), None);
        writer.unregister(&producer, name("t"), Some(name("c")), START);
        writer.unregister(&producer, name("u"), None, START);
        writer.delete_topic(name("u"));
        writer.delete_channel(name("t"), name("c"));
        writer.tombstone(name("t"), b"b:1", START);
    });
    assert!(Arc::ptr_eq(&registry.snapshot(), &before));
}

#[test]
fn unchanged_topics_are_shared() {
    let registry = registry();
    connect(&registry, 0, 8, &["t", "u"]);
    let before = Guard::into_inner(registry.snapshot());
    registry.commit(|writer| {
        writer.delete_topic(name("t"));
        writer.apply(&Change::Create { topic: name("v"), channel: Some(name("c")) }, START);
    });
    let after = Guard::into_inner(registry.snapshot());
    let topic = |snapshot: &Snapshot, name: &[u8]| Arc::clone(snapshot.topic(name).expect("there"));
    assert!(Arc::ptr_eq(&topic(&before, b"u"), &topic(&after, b"u")));
    assert!(after.topic(b"t").is_none() && before.topic(b"v").is_none());
}

#[test]
fn an_ephemeral_topic_leaves_with_its_last_channel() {
    let registry = registry();
    let producer = connect(&registry, 0, 8, &[]);
    let topic = name("t#ephemeral");
    registry.commit(|writer| {
        writer.register(&producer, topic, Some(name("c")));
        writer.unregister(&producer, topic, None, START);
    });
    let snapshot = Guard::into_inner(registry.snapshot());
    assert!(snapshot.topic(topic.as_bytes()).is_some_and(|topic| !topic.listed));

    registry.commit(|writer| {
        assert!(writer.delete_channel(topic, name("c")));
    });
    let snapshot = Guard::into_inner(registry.snapshot());
    assert!(snapshot.topic(topic.as_bytes()).is_none() && snapshot.topics.from(0).next().is_none());
}

/// All that a snapshot shows.
fn contents(snapshot: &Snapshot) -> Vec<String> {
    let topics = snapshot.topics(0).map(|(_, topic)| {
        let channels: Vec<_> =
            topic.channels().iter().map(|channel| (channel.name(), channel.producers())).collect();
        format!("{} {} {:?} {channels:?}", topic.name(), topic.is_listed(), topic.producers())
    });
    let producers = snapshot.producers(None).map(|producer| format!("{:?}", producer.id()));
    topics.chain(producers).chain([format!("{:?} {}", snapshot.counts(), snapshot.listed_topics())]).collect()
}

/// Whatever readers hold, and for how long: a snapshot never changes, and the newest has every commit.
#[test]
fn a_snapshot_that_is_held_does_not_change() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let (registry, mut rng) = (registry(), fastrand::Rng::with_seed(seed));
    let producers: Vec<_> = (0..8).map(|slot| connect(&registry, slot, 1, &[])).collect();
    // The same commits without anybody who holds anything.
    let other = self::registry();
    let others: Vec<_> = (0..8).map(|slot| connect(&other, slot, 1, &[])).collect();
    let mut held: Vec<(Arc<Snapshot>, Vec<String>)> = Vec::new();
    for _ in 0..2000 {
        let changes: Vec<_> = (0..rng.usize(0..4))
            .map(|_| {
                let channel = rng.bool().then(|| name(["c", "d#ephemeral"][rng.usize(..2)]));
                (rng.u8(..10), rng.usize(..8), name(&format!("t{}", rng.usize(..40))), channel)
            })
            .collect();
        for (registry, producers) in [(&registry, &producers), (&other, &others)] {
            registry.commit(|writer| {
                for &(kind, at, topic, channel) in &changes {
                    match kind {
                        0 => drop(writer.apply(&Change::Delete { topic, channel }, START)),
                        1 => drop(writer.apply(&Change::Create { topic, channel }, START)),
                        2..5 => drop(writer.unregister(&producers[at], topic, channel, START)),
                        _ => drop(writer.register(&producers[at], topic, channel)),
                    }
                }
            });
        }
        let newest = contents(&registry.snapshot());
        assert_eq!(newest, contents(&other.snapshot()));
        if rng.bool() {
            held.push((Guard::into_inner(registry.snapshot()), newest));
        }
        while held.len() > 5 || (!held.is_empty() && rng.u8(..4) == 0) {
            held.swap_remove(rng.usize(..held.len()));
        }
        registry.catch_up();
        for (snapshot, expected) in &held {
            assert_eq!(contents(snapshot), *expected);
        }
    }
}

#[test]
fn two_snapshots_take_turns_while_nobody_holds_one() {
    let registry = registry();
    let mut reader = registry.reader();
    let newest = |registry: &Registry| Arc::as_ptr(&registry.snapshot());
    let mut seen = Vec::new();
    for slot in 0..6 {
        connect(&registry, slot, 8, &["t"]);
        reader.snapshot();
        reader.release();
        seen.push(newest(&registry));
    }
    assert!(seen[0] != seen[1] && seen.chunks(2).all(|pair| pair == &seen[..2]));
    // Free memory of what a topic had before, once the reader is done with it.
    let before = Arc::downgrade(registry.snapshot().topic(b"t").expect("there"));
    let held = Guard::into_inner(registry.snapshot());
    connect(&registry, 6, 8, &["t"]);
    registry.catch_up();
    assert!(before.upgrade().is_some() && newest(&registry) != Arc::as_ptr(&held));
    drop(held);
    registry.catch_up();
    assert!(before.upgrade().is_none());
}

/// In unit tests hashes are a few bits long, so a hundred topics share each of them.
#[test]
fn names_of_one_hash_are_told_apart() {
    let registry = registry();
    let producer = connect(&registry, 0, 8, &[]);
    let topic = |number: usize| name(&format!("topic_{number}"));
    let mut reader = registry.reader();
    for round in 0..3 {
        registry.commit(|writer| {
            for number in 0..100 {
                writer.register(&producer, topic(number), None);
            }
            for number in (round..100).step_by(3) {
                assert!(writer.delete_topic(topic(number)));
            }
        });
        for number in 0..100 {
            let there = reader.lookup(topic(number).as_bytes(), START).is_some();
            assert_eq!(there, number % 3 != round, "topic {number} in round {round}");
        }
        let snapshot = registry.snapshot();
        assert_eq!(snapshot.topics.from(0).count(), snapshot.listed_topics());
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
        registry.commit(|writer| match rng.u8(..10) {
            0 => drop(writer.delete_topic(topic)),
            1 => drop(writer.delete_channel(topic, channel)),
            2 => drop(writer.apply(&Change::Create { topic, channel: Some(channel) }, START)),
            3..6 => drop(writer.unregister(producer, topic, some_channel, START)),
            _ => drop(writer.register(producer, topic, some_channel)),
        });
        let head = registry.head.lock().expect("no writer has panicked");
        let states: Vec<_> = head.versions.published().topics.from(0).map(|(_, topic)| topic).collect();
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
    let check = |limit, value, producer, topic, channel: Option<&str>| {
        let mut limits = Limits::default();
        limits.set(limit, value);
        registry.commit(|writer| writer.check_quota(&limits, producer, name(topic), channel.map(name)))
    };
    let (no_channels, mine) = (Registered { topics: 1, channels: 0 }, Some(&*greedy));
    assert_eq!(check(Limit::Topics, 2, mine, "v", None), Err(Limit::Topics));
    assert_eq!(check(Limit::Topics, 2, mine, "u", None), Ok(no_channels));
    assert_eq!(check(Limit::Topics, 3, mine, "v", None), Ok(no_channels));
    assert_eq!(check(Limit::TopicsPerProducer, 1, mine, "u", None), Err(Limit::TopicsPerProducer));
    assert_eq!(check(Limit::TopicsPerProducer, 1, mine, "t", Some("c")), Ok(no_channels));
    assert_eq!(check(Limit::TopicsPerProducer, 1, None, "v", None), Ok(Registered::default()));
    registry.commit(|writer| {
        writer.register(&other, name("u"), Some(name("c")));
    });
    assert_eq!(check(Limit::Channels, 1, mine, "u", Some("d")), Err(Limit::Channels));
    assert_eq!(check(Limit::Channels, 1, mine, "u", Some("c")), Ok(no_channels));
    let others = check(Limit::ChannelsPerProducer, 1, Some(&*other), "u", Some("d"));
    assert_eq!(others, Err(Limit::ChannelsPerProducer));
    assert!(check(Limit::ChannelsPerProducer, 1, Some(&*other), "u", Some("c")).is_ok());
    assert!(check(Limit::ChannelsPerProducer, 1, Some(&*other), "v", None).is_ok());
}

#[test]
fn producers_of_other_servers_do_not_age_and_hidden_ones_are_not_shown() {
    let registry = registry();
    let own = connect(&registry, 0, 1, &["t"]);
    let info = PeerInfo { broadcast_address: "other".into(), ..PeerInfo::default() };
    let remote = ProducerId::new(Source::Remote, 0, 0);
    let remote = Arc::new(Producer::new(remote, "127.0.0.2:1".into(), info, START));
    let register = Change::Register { producer: Arc::clone(&remote), topic: name("t"), channel: None };
    registry.commit(|writer| writer.apply_all(&[Change::Identify(Arc::clone(&remote)), register], START));
    let mut reader = registry.reader();
    let mut shown = |now| {
        let text: Value = serde_json::from_slice(&lookup(&mut reader, "t", now)).unwrap();
        let producers = text["producers"].as_array().unwrap().iter();
        producers.map(|producer| producer["broadcast_address"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(shown(START), ["other", "b"]);
    let late = START.after(2 * TIMEOUT);
    assert_eq!(shown(late), ["other"]);
    let hide = |producer: &Arc<Producer>, is_hidden| {
        let change = Change::Hide { producer: Arc::clone(producer), is_hidden };
        registry.commit(|writer| writer.apply(&change, late));
    };
    let revision = registry.snapshot().nodes_revision();
    hide(&remote, true);
    assert!(registry.snapshot().nodes_revision() > revision);
    assert!(shown(late).is_empty());
    own.touch(late);
    assert_eq!(shown(late), ["b"]);
    hide(&own, true);
    own.touch(late.after(TOMBSTONE));
    assert!(shown(late.after(TOMBSTONE)).is_empty(), "a PING does not list it");
    hide(&own, false);
    hide(&remote, false);
    assert_eq!(shown(late.after(TOMBSTONE)), ["other", "b"]);
    registry.commit(|writer| writer.apply(&Change::Disconnect(remote), late));
    assert_eq!(shown(late.after(TOMBSTONE)), ["b"]);
}
