use super::super::{Change, PeerInfo, Producer, ProducerId, Registry, Snapshot, Source};
use super::*;

const START: Timestamp = Timestamp::from_nanos(1_700_000_000_000_000_000);
const EPHEMERAL: Duration = Duration::from_secs(10);
const OTHER: Duration = Duration::from_secs(60);
const TOMBSTONE: Duration = Duration::from_secs(5);
const ALL: usize = usize::MAX;

fn registry() -> Registry {
    Registry::new(Lifetimes {
        forget_ephemeral_after: EPHEMERAL,
        forget_unused_after: OTHER,
        tombstone_lifetime: TOMBSTONE,
        ..Lifetimes::default()
    })
}

fn name(text: &str) -> Name {
    Name::new(text.as_bytes()).expect("a valid name")
}

fn create(writer: &mut Writer<'_>, topic: Name, channel: Option<Name>) {
    writer.apply(&Change::Create { topic, channel }, START);
}

/// A producer with these topics, each with its channels.
fn connect(registry: &Registry, slot: u32, names: &[(&str, &[&str])]) -> Arc<Producer> {
    let id = ProducerId::new(Source::Worker(0), slot, 0);
    let producer = Arc::new(Producer::new(id, String::new(), PeerInfo::default(), START));
    registry.commit(|writer| {
        writer.identify(&producer, START);
        for (topic, channels) in names {
            writer.register(&producer, name(topic), None);
            for channel in *channels {
                writer.register(&producer, name(topic), Some(name(channel)));
            }
        }
    });
    producer
}

fn forget(registry: &Registry, now: Timestamp) -> Registered {
    registry.commit(|writer| writer.forget_unused(now, ALL)).count
}

/// What is there, as `topic` and `topic/channel`.
fn names(registry: &Registry) -> Vec<String> {
    let snapshot = registry.snapshot();
    let mut names = Vec::new();
    for (_, topic) in snapshot.topics.from(0) {
        names.extend(topic.listed.then(|| topic.name.to_string()));
        names.extend(topic.channels.iter().map(|channel| format!("{}/{}", topic.name, channel.name)));
    }
    names.sort();
    names
}

#[test]
fn names_are_forgotten_when_their_last_producer_has_been_gone_for_long_enough() {
    let registry = registry();
    let some = connect(&registry, 0, &[("t", &["c", "c#ephemeral"]), ("u#ephemeral", &["c"])]);
    let other = connect(&registry, 1, &[("t", &["c"])]);
    registry.commit(|writer| writer.disconnect(&some, START));
    let moment_before = |after| Timestamp::from_nanos(START.after(after).nanos() - 1);
    assert!(!registry.has_unused(moment_before(EPHEMERAL)) && registry.has_unused(START.after(EPHEMERAL)));
    assert_eq!(forget(&registry, moment_before(EPHEMERAL)), Registered::default());
    // A topic takes its channels with it.
    assert_eq!(forget(&registry, START.after(EPHEMERAL)), Registered { topics: 1, channels: 2 });
    assert_eq!(names(&registry), ["t", "t/c"]);
    assert_eq!(registry.registered(), Registered { topics: 1, channels: 1 });

    assert_eq!(forget(&registry, Timestamp::MAX), Registered::default(), "it has a producer, silent or not");
    registry.commit(|writer| writer.unregister(&other, name("t"), None, START));
    assert_eq!(forget(&registry, moment_before(OTHER)), Registered::default());
    assert_eq!(forget(&registry, START.after(OTHER)), Registered { topics: 1, channels: 1 });
    assert!(names(&registry).is_empty() && !registry.has_unused(Timestamp::from_nanos(i64::MAX - 1)));
}

#[test]
fn a_name_that_is_registered_again_is_not_forgotten() {
    let registry = registry();
    let producer = connect(&registry, 0, &[("t", &["c#ephemeral"])]);
    registry.commit(|writer| writer.disconnect(&producer, START));
    let late = START.after(EPHEMERAL / 2);
    let producer = connect(&registry, 1, &[("t", &["c#ephemeral"])]);
    assert_eq!(forget(&registry, START.after(OTHER)), Registered::default());
    registry.commit(|writer| writer.disconnect(&producer, late));
    assert_eq!(forget(&registry, START.after(EPHEMERAL)), Registered::default(), "since the last time");
    assert_eq!(forget(&registry, late.after(EPHEMERAL)), Registered { topics: 0, channels: 1 });
}

#[test]
fn a_name_that_was_created_over_http_stays() {
    let registry = registry();
    let producer = connect(&registry, 0, &[("t", &["c#ephemeral"]), ("u#ephemeral", &[]), ("v", &[])]);
    registry.commit(|writer| writer.create_topic(name("u#ephemeral")));
    registry.commit(|writer| writer.disconnect(&producer, START));
    // While it has no producer is early enough.
    registry.commit(|writer| create(writer, name("t"), Some(name("c#ephemeral"))));
    registry.commit(|writer| writer.create_topic(name("w#ephemeral")));
    assert_eq!(forget(&registry, Timestamp::MAX), Registered { topics: 1, channels: 0 });
    assert_eq!(names(&registry), ["t", "t/c#ephemeral", "u#ephemeral", "w#ephemeral"]);

    // As in stock.
    let producer = connect(&registry, 1, &[("t", &["c#ephemeral"]), ("u#ephemeral", &[])]);
    registry.commit(|writer| {
        writer.unregister(&producer, name("t"), Some(name("c#ephemeral")), START);
        writer.unregister(&producer, name("u#ephemeral"), None, START);
        assert!(writer.delete_topic(name("w#ephemeral")));
    });
    assert_eq!(names(&registry), ["t"]);
    // What comes after is another name.
    let producer = connect(&registry, 2, &[("u#ephemeral", &[]), ("w#ephemeral", &[])]);
    registry.commit(|writer| writer.disconnect(&producer, START));
    assert_eq!(forget(&registry, START.after(EPHEMERAL)), Registered { topics: 2, channels: 0 });
}

#[test]
fn a_channel_that_was_created_over_http_keeps_its_topic() {
    let registry = registry();
    let topic = "t#ephemeral";
    registry.commit(|writer| create(writer, name(topic), Some(name("kept"))));
    let producer = connect(&registry, 0, &[(topic, &["c"])]);
    registry.commit(|writer| {
        // This unlists the topic, and leaves its channels.
        writer.unregister(&producer, name(topic), None, START);
        writer.register(&producer, name(topic), None);
        writer.disconnect(&producer, START);
    });
    let next = START.after(EPHEMERAL);
    assert_eq!(forget(&registry, next), Registered { topics: 0, channels: 1 });
    assert_eq!(names(&registry), ["t#ephemeral", "t#ephemeral/kept"]);
    registry.commit(|writer| assert!(writer.delete_channel(name(topic), name("kept"))));
    assert_eq!(forget(&registry, next.after(EPHEMERAL)), Registered { topics: 1, channels: 0 });
}

#[test]
fn a_name_that_is_released_is_forgotten_like_any_other() {
    let registry = registry();
    registry.commit(|writer| {
        create(writer, name("t"), Some(name("c")));
        create(writer, name("t"), Some(name("d")));
        create(writer, name("used"), Some(name("c")));
    });
    let producer = connect(&registry, 0, &[("used", &["c"])]);
    let release = |topic, channel: Option<&str>| {
        let (topic, channel) = (name(topic), channel.map(name));
        registry.commit(|writer| writer.apply(&Change::Release { topic, channel }, START));
    };
    for (topic, channel) in [("t", Some("c")), ("t", Some("none")), ("none", None), ("used", None)] {
        release(topic, channel);
    }
    assert_eq!(forget(&registry, START.after(OTHER)), Registered { topics: 0, channels: 1 });
    release("t", None);
    release("used", Some("c"));
    // The channel that is kept keeps its topic.
    assert_eq!(forget(&registry, START.after(OTHER)), Registered::default());
    assert_eq!(names(&registry), ["t", "t/d", "used", "used/c"]);
    release("t", Some("d"));
    registry.commit(|writer| writer.disconnect(&producer, START));
    assert_eq!(forget(&registry, START.after(2 * OTHER)), Registered { topics: 2, channels: 2 });
    assert!(names(&registry).is_empty());
}

#[test]
fn many_names_are_forgotten_a_batch_at_a_time() {
    let registry = registry();
    let channels: Vec<_> = (0..10).map(|nth| format!("c{nth}#ephemeral")).collect();
    let channels: Vec<_> = channels.iter().map(String::as_str).collect();
    let producer = connect(&registry, 0, &[("t", &channels)]);
    registry.commit(|writer| writer.disconnect(&producer, START));
    for left in [6, 2, 0] {
        assert!(registry.has_unused(START.after(EPHEMERAL)));
        let forgotten = registry.commit(|writer| writer.forget_unused(START.after(EPHEMERAL), 4));
        assert_eq!((registry.registered().channels, forgotten.names.len()), (left, forgotten.count.channels));
    }
    assert!(!registry.has_unused(START.after(EPHEMERAL)));
}

/// As its channel keeps it, and names are not forgotten any more when it is due.
#[test]
fn a_topic_that_is_kept_when_it_is_due_has_no_expiry_that_is_over() {
    let registry = registry();
    let producer = connect(&registry, 0, &[("t", &[])]);
    registry.commit(|writer| {
        writer.register(&producer, name("t"), Some(name("d")));
        writer.create_channel(name("t"), name("c"));
        writer.disconnect(&producer, START);
        writer.set_lifetimes(Lifetimes::default());
    });
    assert_eq!(forget(&registry, START.after(OTHER)), Registered { topics: 0, channels: 1 });
    assert_eq!(registry.snapshot().topic(b"t").map(|topic| topic.expiry), Some(Expiry::NONE));
}

#[test]
fn zero_is_never() {
    let registry = Registry::new(Lifetimes::default());
    let producer = connect(&registry, 0, &[("t", &["c"]), ("t#ephemeral", &["c#ephemeral"])]);
    registry.commit(|writer| writer.disconnect(&producer, START));
    assert_eq!(forget(&registry, Timestamp::MAX), Registered::default());
    assert_eq!(registry.registered(), Registered { topics: 2, channels: 2 });
}

#[test]
fn a_new_lifetime_is_for_names_that_become_unused_from_then_on() {
    let registry = registry();
    let (some, other) = (connect(&registry, 0, &[("t", &[])]), connect(&registry, 1, &[("u", &[])]));
    registry.commit(|writer| {
        writer.disconnect(&some, START);
        writer.set_lifetimes(Lifetimes { forget_unused_after: 2 * OTHER, ..Lifetimes::default() });
        writer.disconnect(&other, START);
    });
    assert_eq!(forget(&registry, START.after(OTHER)), Registered { topics: 1, channels: 0 });
    assert_eq!(names(&registry), ["u"]);
    assert_eq!(forget(&registry, START.after(2 * OTHER)), Registered { topics: 1, channels: 0 });
}

/// The topics and channels without producers, and the tombstones in force, found by a walk.
fn counted(snapshot: &Snapshot, now: Timestamp) -> (Registered, usize) {
    let (mut unused, mut tombstones) = (Registered::default(), 0);
    for (_, topic) in snapshot.topics.from(0) {
        unused.topics += usize::from(topic.producers.is_empty());
        unused.channels += topic.channels.iter().filter(|channel| channel.producers.is_empty()).count();
        let set = topic.tombstones.iter().flat_map(|tombstones| tombstones.iter());
        tombstones += set.filter(|(_, at)| now < at.after(TOMBSTONE)).count();
    }
    (unused, tombstones)
}

/// However names come and go: a name that is not kept waits if it has no producer, and only then, and nothing waits
/// that is not there. The counts are those of a walk.
#[test]
fn whatever_is_unused_waits_to_be_forgotten_once() {
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let (registry, mut random) = (registry(), fastrand::Rng::with_seed(seed));
    let (topics, channels) = (["t", "u", "v#ephemeral"].map(name), ["c", "d", "e#ephemeral"].map(name));
    let (mut now, mut generation) = (START, 0);
    let mut producers: Vec<_> = (0..3).map(|slot| connect(&registry, slot, &[])).collect();
    for step in 0..5000 {
        now = now.after(Duration::from_secs(random.u64(..3)));
        let (topic, channel) = (topics[random.usize(..3)], channels[random.usize(..3)]);
        let (some_channel, at) = (random.bool().then_some(channel), random.usize(..3));
        let producer = Arc::clone(&producers[at]);
        registry.commit(|writer| match random.u8(..23) {
            0 => drop(writer.delete_topic(topic)),
            1 => drop(writer.delete_channel(topic, channel)),
            2 => create(writer, topic, Some(channel)),
            3 => writer.create_topic(topic),
            22 => writer.release(topic, some_channel, now),
            4..6 => drop(writer.forget_unused(now, random.usize(..4))),
            6..8 => {
                generation += 1;
                writer.disconnect(&producer, now);
                let id = ProducerId::new(Source::Worker(1), u32::try_from(at).expect("few"), generation);
                producers[at] = Arc::new(Producer::new(id, String::new(), PeerInfo::default(), now));
                writer.identify(&producers[at], START);
            }
            8..12 => drop(writer.unregister(&producer, topic, some_channel, now)),
            12..14 => drop(writer.tombstone(topic, b":0", now)),
            _ => drop(writer.register(&producer, topic, some_channel)),
        });
        let counts = (registry.without_producers(), registry.tombstones(now));
        assert_eq!(counts, counted(&registry.snapshot(), now), "step {step}");
        let head = registry.head.lock().expect("no writer has panicked");
        let mut waiting = BTreeSet::new();
        let mut check = |expiry: Expiry, is_used: bool, key: Key| {
            if expiry != Expiry::KEPT {
                assert_eq!(expiry == Expiry::NONE, is_used, "step {step}");
                waiting.extend((!is_used).then_some((expiry.0, key)));
            }
        };
        for (_, topic) in head.versions.published().topics.from(0) {
            // One that is not listed goes with its last channel.
            check(topic.expiry, !topic.producers.is_empty() || !topic.listed, (topic.id, None));
            for channel in &*topic.channels {
                let key = (topic.id, Some(channel.name.clone()));
                check(channel.expiry, !channel.producers.is_empty(), key);
            }
        }
        assert_eq!(head.unused.by_expiry, waiting, "step {step}");
    }
}
