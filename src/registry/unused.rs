//! Names that no producer has, and when each of them is forgotten: what is dead must not fill the limits of topics and
//! channels, which the living need.
//!
//! A name becomes unused when its last producer disconnects or UNREGISTERs it. A producer whose connection is open but
//! silent still has its names. A name for which `/topic/create` or `/channel/create` was called stays until it is deleted, and one
//! of the topology file until it is taken out of there.

use std::collections::BTreeSet;
use std::fmt;
use std::mem;
use std::sync::Arc;
use std::time::Duration;

use smol_str::SmolStr;

use super::names::{Name, TopicId, is_ephemeral};
use super::producer::Registered;
use super::topic::{Channel, Topic};
use super::visibility::Lifetimes;
use super::writer::{Head, Writer};
use crate::clock::Timestamp;

/// When a topic or channel is forgotten. One word, as there is one for each channel.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) struct Expiry(Timestamp);

impl Expiry {
    /// Of a name that has a producer, or that is not forgotten without one.
    const NONE: Self = Self(Timestamp::from_nanos(0));
    /// Of a name that was created over HTTP or is in the topology file, with or without a producer.
    pub(super) const KEPT: Self = Self(Timestamp::MAX);
}

/// A topic, or one of its channels. A topic sorts before its channels.
type Key = (TopicId, Option<SmolStr>);

/// The unused names that will be forgotten: each once, and none that is used, kept or deleted.
pub(super) struct Unused {
    by_expiry: BTreeSet<(Timestamp, Key)>,
    ephemeral: Duration,
    other: Duration,
    /// All topics and channels that no producer has, whether they will be forgotten or not.
    pub(super) count: Registered,
}

impl Unused {
    pub(super) fn new(lifetimes: Lifetimes) -> Self {
        let Lifetimes { forget_ephemeral_after: ephemeral, forget_unused_after: other, .. } = lifetimes;
        Self { by_expiry: BTreeSet::new(), ephemeral, other, count: Registered::default() }
    }

    /// Sets for how long names are kept that become unused from now on; those that are unused already keep their expiry.
    pub(super) fn set_lifetimes(&mut self, lifetimes: Lifetimes) {
        (self.ephemeral, self.other) = (lifetimes.forget_ephemeral_after, lifetimes.forget_unused_after);
    }

    /// When the next name is to be forgotten.
    pub(super) fn next_expiry(&self) -> Timestamp {
        self.by_expiry.first().map_or(Timestamp::MAX, |&(at, _)| at)
    }

    /// The name has lost its last producer. A channel of an ephemeral topic is as short-lived as its topic.
    pub(super) fn add(
        &mut self,
        expiry: &mut Expiry,
        (topic, topic_name): (TopicId, &SmolStr),
        channel: Option<&SmolStr>,
        now: Timestamp,
    ) {
        let is_ephemeral = |name: &SmolStr| is_ephemeral(name.as_bytes());
        let short_lived = is_ephemeral(topic_name) || channel.is_some_and(is_ephemeral);
        let after = if short_lived { self.ephemeral } else { self.other };
        let at = now.after(after);
        if *expiry != Expiry::KEPT && !after.is_zero() && at < Timestamp::MAX {
            self.by_expiry.insert((at, (topic, channel.cloned())));
            *expiry = Expiry(at);
        }
    }

    /// A producer has registered the name.
    pub(super) fn use_again(&mut self, expiry: &mut Expiry, topic: TopicId, channel: Option<&SmolStr>) {
        if *expiry != Expiry::KEPT {
            self.remove(mem::take(expiry), topic, channel);
        }
    }

    /// The name was created.
    pub(super) fn keep(&mut self, expiry: &mut Expiry, topic: TopicId, channel: Option<&SmolStr>) {
        self.remove(mem::replace(expiry, Expiry::KEPT), topic, channel);
    }

    /// The name is kept no longer; without a producer it is unused from now on.
    fn release(
        &mut self,
        expiry: &mut Expiry,
        is_unused: bool,
        topic: (TopicId, &SmolStr),
        channel: Option<&SmolStr>,
        now: Timestamp,
    ) {
        *expiry = Expiry::NONE;
        if is_unused {
            self.add(expiry, topic, channel, now);
        }
    }

    /// The name is gone.
    pub(super) fn remove(&mut self, expiry: Expiry, topic: TopicId, channel: Option<&SmolStr>) {
        if expiry != Expiry::NONE && expiry != Expiry::KEPT {
            self.by_expiry.remove(&(expiry.0, (topic, channel.cloned())));
        }
    }

    /// Takes out names that are due, `most` at a time, and sorts them by their topics.
    fn take_due(&mut self, now: Timestamp, most: usize) -> Vec<Key> {
        let mut due = Vec::new();
        while due.len() < most && self.by_expiry.first().is_some_and(|&(at, _)| at <= now) {
            due.extend(self.by_expiry.pop_first().map(|(_, name)| name));
        }
        due.sort_unstable();
        due
    }
}

/// What was forgotten.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Forgotten {
    /// How many topics, and how many channels, those of the topics included.
    pub count: Registered,
    /// The topics, and the channels of other topics behind the names of these.
    pub names: Vec<(SmolStr, Option<SmolStr>)>,
}

/// For the log, which cuts a long line: the counts come first.
impl fmt::Display for Forgotten {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Registered { topics, channels } = self.count;
        write!(f, "forgetting topics:{topics} channels:{channels} without producers:")?;
        self.names.iter().try_for_each(|name| match name {
            (topic, None) => write!(f, " topic({topic})"),
            (topic, Some(channel)) => write!(f, " channel({channel}) of topic({topic})"),
        })
    }
}

impl Writer<'_> {
    /// Releases a name; one that is not there, or not kept, is as it was.
    pub(super) fn release(&mut self, topic: Name, channel: Option<Name>, now: Timestamp) {
        let Some(found) = self.snapshot().topic(topic.as_bytes()) else { return };
        let Ok(place) = channel.map(|channel| found.channel(channel.as_bytes())).transpose() else { return };
        if place.map_or(found.expiry, |at| found.channels[at].expiry) != Expiry::KEPT {
            return;
        }
        let (id, Head { versions, unused, .. }) = (found.id, &mut *self.head);
        versions.change(id, |topic| {
            let name = (id, &topic.name);
            match place {
                None => unused.release(&mut topic.expiry, topic.producers.is_empty(), name, None, now),
                Some(at) => {
                    let Channel { name: channel, producers, expiry } = &mut Arc::make_mut(&mut topic.channels)[at];
                    unused.release(expiry, producers.is_empty(), name, Some(channel), now);
                }
            }
        });
    }

    /// Forgets names that have been unused for long enough, `most` of them and the channels of their topics.
    ///
    /// # Panics
    /// Never: a name that is deleted is not due any more.
    pub(super) fn forget_unused(&mut self, now: Timestamp, most: usize) -> Forgotten {
        let mut forgotten = Forgotten::default();
        for names in self.head.unused.take_due(now, most).chunk_by(|(topic, _), (other, _)| topic == other) {
            let topic = self.snapshot().topic_at(names[0].0).cloned().expect("a topic that is due is there");
            if names[0].1.is_none() && self.forget_topic(&topic, now, &mut forgotten) {
                continue;
            }
            self.forget_channels(topic.id, names, &mut forgotten);
        }
        forgotten
    }

    /// False where a channel that is kept keeps the topic: then it is due again after as long.
    fn forget_topic(&mut self, topic: &Topic, now: Timestamp, forgotten: &mut Forgotten) -> bool {
        if topic.channels.iter().any(|channel| channel.expiry == Expiry::KEPT) {
            let Head { versions, unused, .. } = &mut *self.head;
            versions.change(topic.id, |topic| unused.add(&mut topic.expiry, (topic.id, &topic.name), None, now));
            return false;
        }
        self.delete_topic(Name::new(topic.name.as_bytes()).expect("the name of a topic is valid"));
        forgotten.count.topics += 1;
        forgotten.count.channels += topic.channels.len();
        forgotten.names.push((topic.name.clone(), None));
        true
    }

    /// All channels of a topic that are due leave by one copy of the others.
    fn forget_channels(&mut self, topic: TopicId, names: &[Key], forgotten: &mut Forgotten) {
        let is_due = |channel: &Channel| {
            names.binary_search_by(|(_, name)| name.as_deref().cmp(&Some(channel.name.as_str()))).is_ok()
        };
        let Some(found) = self.snapshot().topic_at(topic).cloned() else { return };
        for channel in found.channels.iter().filter(|channel| is_due(channel)) {
            self.count_channel_off(topic, channel);
            forgotten.count.channels += 1;
            forgotten.names.push((found.name.clone(), Some(channel.name.clone())));
        }
        self.head.versions.change(topic, |topic| {
            topic.channels = found.channels.iter().filter(|channel| !is_due(channel)).cloned().collect();
        });
        self.forget_if_empty(topic);
    }
}

#[cfg(test)]
mod tests {
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
            writer.identify(Arc::clone(&producer));
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
                    writer.identify(Arc::clone(&producers[at]));
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
}
