//! Producers from before a restart, whose nsqd nodes are expected back.
//!
//! A restored producer has an id, topics and channels as every other. When an nsqd of the same node identifies, it *inherits* them:
//! the place of the restored producer holds the new one from then on, and topics and channels list it there under one more id. A
//! registration that the nsqd makes again gets its own id. When the grace is over, whatever is still listed under such an id was
//! not made again, and is removed as at a disconnect. So a takeover costs what a disconnect costs, in proportion to what was
//! registered, and a lookup knows nothing of it.

use std::mem;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::change::Changed;
use super::names::{Name, ProducerId, RESTORED, TopicId};
use super::producer::{Inheritance, Producer};
use super::topic::Channel;
use super::writer::Writer;
use crate::clock::Timestamp;

/// The time in which restored producers are expected back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Grace {
    until: Timestamp,
    /// What its end has removed so far.
    missing: Missing,
}

/// What the end of the grace has removed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Missing {
    /// Producers whose nsqd has not come back.
    pub producers: usize,
    /// Topics that an nsqd which has come back did not register again, in whole or in part.
    pub topics: usize,
}

impl Grace {
    pub(super) fn new(until: Timestamp) -> Self {
        Self { until, missing: Missing::default() }
    }

    pub(super) fn until(&self) -> Timestamp {
        self.until
    }
}

impl Writer<'_> {
    /// Lets a producer inherit what was restored of its node.
    pub(super) fn take_over(&mut self, producer: &Arc<Producer>, restored: &Arc<Producer>) {
        let place = restored.id();
        let inheritance = Inheritance { id: place.next(), from: Arc::clone(restored) };
        let id = inheritance.id;
        self.head.nodes.remove(restored);
        self.rename(&restored.topics(), place, id);
        if restored.was_tombstoned.load(Relaxed) {
            producer.was_tombstoned.store(true, Relaxed);
        }
        producer.inherit(inheritance);
        self.rest().producers.hand_over(place, Arc::clone(producer));
        self.rest().expected -= 1;
        self.changed.nodes = true;
    }

    /// What a producer has inherited is expected again: its connection is lost before it has made all registrations again. Of a
    /// topic that it has, the channels go with it. Nothing is expected again when it has inherited nothing, or made all of it
    /// again, and after the grace.
    pub(super) fn give_back(&mut self, producer: &Arc<Producer>) {
        let Some(inheritance) = producer.inheritance().filter(|inheritance| self.is_inherited(inheritance)) else {
            return;
        };
        let Inheritance { id, from } = inheritance;
        let topics = mem::take(&mut *from.topics());
        let is_inherited =
            |&topic: &TopicId| self.snapshot().topic_at(topic).is_some_and(|topic| topic.producers.contains(*id));
        let (inherited, own): (Vec<_>, Vec<_>) = topics.into_iter().partition(is_inherited);
        for topic in own {
            self.make_topic_own(producer, topic, |_| true);
        }
        if inherited.is_empty() {
            return self.rest().producers.clear(*id);
        }
        let restored = Arc::new(from.restored_again(id.next(), producer));
        self.rename(&inherited, *id, restored.id());
        *restored.topics() = inherited;
        self.head.nodes.add(&restored);
        self.rest().producers.take_back(restored);
        self.rest().expected += 1;
    }

    fn is_inherited(&self, inheritance: &Inheritance) -> bool {
        self.snapshot().producer(inheritance.id).is_some()
    }

    /// Lists what is registered under one id under another.
    fn rename(&mut self, topics: &[TopicId], from: ProducerId, to: ProducerId) {
        for &topic in topics {
            // One that was deleted meanwhile is in no snapshot.
            if self.snapshot().topic_at(topic).is_some() {
                self.head.versions.change(topic, |topic| topic.rename(from, to, |_| true));
            }
        }
    }

    /// Makes an inherited topic the producer's own, and those of its channels that are meant, if there are any. Returns what that is.
    pub(super) fn make_own(
        &mut self,
        producer: &Producer,
        name: Name,
        is_meant: impl Fn(&Channel) -> bool,
    ) -> Changed {
        // As for nearly all producers: they need no search.
        if producer.inheritance().is_none() {
            return Changed::default();
        }
        let topic = self.snapshot().topic(name.as_bytes()).map(|topic| topic.id);
        topic.map(|topic| self.make_topic_own(producer, topic, is_meant)).unwrap_or_default()
    }

    fn make_topic_own(
        &mut self,
        producer: &Producer,
        topic: TopicId,
        is_meant: impl Fn(&Channel) -> bool,
    ) -> Changed {
        let Some(Inheritance { id, from }) = producer.inheritance() else { return Changed::default() };
        let Some(found) = self.snapshot().topic_at(topic) else { return Changed::default() };
        let is_in = |channel: &Channel| channel.producers.contains(*id) && is_meant(channel);
        if !found.producers.contains(*id) && !found.channels.iter().any(is_in) {
            return Changed::default();
        }
        let changed = self.head.versions.change(topic, |topic| topic.rename(*id, producer.id(), is_meant));
        if changed.topic {
            producer.topics().push(topic);
            self.changed.nodes = true;
        }
        producer.channels.fetch_add(changed.channels, Relaxed);
        from.channels.fetch_sub(changed.channels, Relaxed);
        changed
    }

    /// Removes restored producers and inherited registrations after the grace, those of so many topics at a time. Returns what
    /// was removed in all, when nothing is left.
    pub(super) fn end_grace(&mut self, now: Timestamp, most: usize) -> Option<Missing> {
        let mut grace = self.head.grace.filter(|grace| grace.until <= now)?;
        // Each counts for one topic at least.
        let places = self.snapshot().rest.producers.places(RESTORED as usize).take(most);
        let mut holders = places.map(|(_, holder)| Arc::clone(holder)).collect::<Vec<_>>().into_iter();
        let mut topics = 0;
        while topics < most {
            let Some(holder) = holders.next() else {
                self.head.grace = None;
                return Some(grace.missing);
            };
            if let Some(Inheritance { id, from }) = holder.inheritance() {
                let inherited = mem::take(&mut *from.topics());
                grace.missing.topics += self.leave_topics(&inherited, *id, now);
                self.rest().producers.clear(*id);
                self.changed.nodes = true;
                topics += inherited.len() + 1;
            } else {
                grace.missing.producers += 1;
                self.rest().expected -= 1;
                topics += self.disconnect(&holder, now) + 1;
            }
        }
        self.head.grace = Some(grace);
        None
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::{Change, Lifetimes, Outcome, PeerInfo, Registry, Restore, Saved, Source, Visibility};
    use super::*;

    const START: Timestamp = Timestamp::from_nanos(1_700_000_000_000_000_000);
    const TIMEOUT: Duration = Duration::from_secs(300);
    const GRACE: Duration = Duration::from_secs(60);
    const SECOND: Duration = Duration::from_secs(1);

    fn lifetimes() -> Lifetimes {
        Lifetimes {
            inactive_producer_timeout: TIMEOUT,
            tombstone_lifetime: 45 * SECOND,
            forget_unused_after: 1000 * SECOND,
            supersede_silent: 30 * SECOND,
            ..Lifetimes::default()
        }
    }

    fn name(text: &str) -> Name {
        Name::new(text.as_bytes()).expect("a valid name")
    }

    fn identify(registry: &Registry, slot: u32, node: &str, now: Timestamp) -> Arc<Producer> {
        let info =
            PeerInfo { broadcast_address: node.into(), tcp_port: 4150, http_port: 4151, ..PeerInfo::default() };
        let id = ProducerId::new(Source::Worker(0), slot, 0);
        let producer = Arc::new(Producer::new(id, format!("{node}:{slot}"), info, now));
        registry.commit(|writer| writer.apply(&Change::Identify(Arc::clone(&producer)), now));
        producer
    }

    fn register(registry: &Registry, producer: &Arc<Producer>, topic: &str, channel: &str) {
        let (producer, channel) = (Arc::clone(producer), Some(channel).filter(|channel| !channel.is_empty()));
        let change = Change::Register { producer, topic: name(topic), channel: channel.map(name) };
        registry.commit(|writer| writer.apply(&change, START));
    }

    fn save(registry: &Registry, now: Timestamp) -> Saved {
        let snapshot = registry.snapshot();
        let saving = snapshot.save(now);
        let saved = Saved { producers: saving.producers().collect(), topics: saving.topics().collect() };
        assert_eq!(saving.counts(), (saved.producers.len(), saved.topics.len()));
        saved
    }

    fn restored(saved: Saved, gone: Duration, now: Timestamp) -> Registry {
        let registry = Registry::new(lifetimes());
        let restore = Change::Restore(Box::new(Restore { saved, gone, grace_end: now.after(GRACE) }));
        registry.commit(|writer| writer.apply(&restore, now));
        registry
    }

    /// The addresses that a lookup shows.
    fn lookup(registry: &Registry, topic: &str, now: Timestamp) -> Vec<String> {
        let snapshot = registry.snapshot();
        let topic = snapshot.topic(topic.as_bytes()).expect("the topic is there");
        let mut visibility = Visibility::new(snapshot.lifetimes(), now);
        let present = snapshot.present(topic.producers());
        let shown = present.filter(|by| visibility.is_active(by) && !visibility.is_tombstoned(topic, by));
        shown.map(|producer| producer.remote_address().to_owned()).collect()
    }

    /// What each producer has registered, as `/nodes` shows it.
    fn nodes(registry: &Registry) -> Vec<(String, Vec<String>)> {
        let snapshot = registry.snapshot();
        let node = |producer: &Arc<Producer>| {
            let mut topics: Vec<_> = snapshot.topics_of(producer).map(|topic| topic.name().to_owned()).collect();
            topics.sort();
            (producer.remote_address().to_owned(), topics)
        };
        snapshot.producers(None).map(node).collect()
    }

    fn end_grace(registry: &Registry, now: Timestamp, most: usize) -> Option<Missing> {
        match registry.commit(|writer| writer.apply(&Change::EndGrace { most }, now)) {
            Outcome::GraceEnded(missing) => missing,
            other => panic!("{other:?}"),
        }
    }

    /// Two nodes: `a` has t/c and u/c, `b` has t.
    fn two_nodes() -> Registry {
        let registry = Registry::new(lifetimes());
        let (a, b) = (identify(&registry, 0, "a", START), identify(&registry, 1, "b", START));
        register(&registry, &a, "t", "c");
        register(&registry, &a, "u", "c");
        register(&registry, &b, "t", "");
        registry
    }

    #[test]
    fn what_is_restored_is_what_was_saved() {
        let saved = save(&two_nodes(), START.after(SECOND));
        let again = save(&restored(saved.clone(), Duration::ZERO, START), START);
        assert_eq!(again, saved);
    }

    #[test]
    fn a_producer_is_listed_until_its_nsqd_has_registered_everything_again() {
        let registry = restored(save(&two_nodes(), START), SECOND, START);
        assert_eq!(lookup(&registry, "t", START), ["a:0", "b:1"]);
        let a = identify(&registry, 7, "a", START);
        assert_eq!(lookup(&registry, "t", START).len(), 2);
        assert_eq!(lookup(&registry, "u", START), ["a:7"]);
        assert_eq!((registry.producers(), registry.expected()), (2, 1));
        assert_eq!(
            nodes(&registry),
            [("b:1".into(), vec!["t".into()]), ("a:7".into(), vec!["t".into(), "u".into()])]
        );

        register(&registry, &a, "t", "c");
        assert_eq!(nodes(&registry)[1].1, ["t", "u"]);
        let end = START.after(GRACE);
        assert_eq!(lookup(&registry, "t", end).len(), 2);
        // At once, whatever has been removed by then.
        assert_eq!(lookup(&registry, "t", end.after(SECOND)), ["a:7"]);
        assert!(!registry.is_grace_over(START) && registry.is_grace_over(end));
        assert_eq!(end_grace(&registry, end, 1), None);
        assert_eq!(end_grace(&registry, end, 9), Some(Missing { producers: 1, topics: 1 }));
        assert_eq!(lookup(&registry, "u", end), [""; 0]);
        assert_eq!(nodes(&registry), [("a:7".into(), vec!["t".into()])]);
        assert_eq!((registry.producers(), registry.expected()), (1, 0));
        assert!(!registry.is_grace_over(Timestamp::from_nanos(i64::MAX - 1)));
        let counts = |producer: &Producer| producer.channels.load(Relaxed);
        assert_eq!((counts(&a), registry.without_producers().topics), (1, 1));
    }

    #[test]
    fn an_nsqd_whose_connection_is_lost_again_is_expected_again() {
        let registry = restored(save(&two_nodes(), START), SECOND, START);
        let a = identify(&registry, 7, "a", START);
        register(&registry, &a, "t", "c");
        registry.commit(|writer| writer.apply(&Change::Disconnect(a), START));
        assert_eq!(lookup(&registry, "t", START), ["b:1"], "what it had registered itself leaves with it");
        assert_eq!(lookup(&registry, "u", START), ["a:0"]);
        let a = identify(&registry, 8, "a", START);
        assert_eq!(lookup(&registry, "u", START), ["a:8"]);
        let unregister = Change::Unregister { producer: Arc::clone(&a), topic: name("u"), channel: None };
        registry.commit(|writer| writer.apply(&unregister, START));
        assert_eq!(lookup(&registry, "u", START), [""; 0]);
        assert_eq!(nodes(&registry)[1], ("a:8".into(), vec![]));
    }

    #[test]
    fn what_is_expected_again_is_what_was_not_registered_again() {
        let registry = restored(save(&two_nodes(), START), SECOND, START);
        let a = identify(&registry, 7, "a", START);
        register(&registry, &a, "t", "");
        let tombstone = Change::Tombstone { topic: name("u"), node: b"a:4151".as_slice().into() };
        let unregister =
            Change::Unregister { producer: Arc::clone(&a), topic: name("u"), channel: Some(name("c")) };
        registry.commit(|writer| {
            writer.apply(&tombstone, START);
            writer.apply(&unregister, START);
            writer.apply(&Change::Disconnect(Arc::clone(&a)), START);
        });
        let nodes = nodes(&registry);
        assert_eq!(nodes, [("a:0".into(), vec!["u".into()]), ("b:1".into(), vec!["t".into()])]);
        assert_eq!(lookup(&registry, "u", START), [""; 0], "the tombstone stays");
        assert_eq!(a.channels.load(Relaxed), 1, "as it had when it left");
        assert_eq!(registry.without_producers().channels, 2);
    }

    #[test]
    fn silence_and_tombstones_go_on_while_the_server_is_gone() {
        let registry = two_nodes();
        let tombstone = Change::Tombstone { topic: name("t"), node: b"a:4151".as_slice().into() };
        registry.commit(|writer| writer.apply(&tombstone, START));
        let later = START.after(20 * SECOND);
        let registry = restored(save(&registry, later), 20 * SECOND, later);
        assert_eq!(lookup(&registry, "t", later), ["b:1"]);
        let a = identify(&registry, 7, "a", later);
        register(&registry, &a, "t", "c");
        assert_eq!(lookup(&registry, "t", later), ["b:1"], "it is tombstoned under its own id");
        assert_eq!(registry.tombstones(later), 1);
        assert_eq!(lookup(&registry, "t", later.after(5 * SECOND)).len(), 2);
        assert_eq!(registry.tombstones(later.after(5 * SECOND)), 0);
        let registry = restored(save(&two_nodes(), START), TIMEOUT, START);
        assert_eq!(lookup(&registry, "t", START).len(), 2);
        assert_eq!(lookup(&registry, "t", Timestamp::from_nanos(START.nanos() + 1)), [""; 0]);
    }

    #[test]
    fn a_topic_that_is_deleted_is_inherited_by_nobody() {
        let registry = restored(save(&two_nodes(), START), SECOND, START);
        let a = identify(&registry, 7, "a", START);
        for (topic, channel) in [("t", Some("c")), ("u", None)] {
            let delete = Change::Delete { topic: name(topic), channel: channel.map(name) };
            registry.commit(|writer| writer.apply(&delete, START));
        }
        assert_eq!(nodes(&registry)[1], ("a:7".into(), vec!["t".into()]));
        register(&registry, &a, "u", "c");
        assert_eq!(nodes(&registry)[1].1, ["u", "t"].map(str::to_owned).into_iter().rev().collect::<Vec<_>>());
        assert_eq!(end_grace(&registry, START.after(GRACE), 9), Some(Missing { producers: 1, topics: 1 }));
        assert_eq!((a.channels.load(Relaxed), nodes(&registry).len()), (1, 1));
    }

    /// Of a node that has two connections the older is not listed once it is silent, and again when it PINGs, or when the newer
    /// is gone.
    #[test]
    fn a_silent_connection_is_superseded() {
        let registry = Registry::new(lifetimes());
        let older = identify(&registry, 0, "a", START);
        register(&registry, &older, "t", "");
        let mut reader = registry.reader();
        let ask = |reader: &mut super::super::Reader, now| {
            let body = reader.lookup(b"t", now).expect("the topic is listed").pieces().concat();
            String::from_utf8(body).expect("UTF-8").matches("remote_address").count()
        };
        assert_eq!(ask(&mut reader, START), 1);
        let newer = identify(&registry, 1, "a", START.after(SECOND));
        let silent = START.after(31 * SECOND);
        assert_eq!((ask(&mut reader, START.after(30 * SECOND)), ask(&mut reader, silent)), (1, 0));
        register(&registry, &newer, "t", "");
        assert_eq!(ask(&mut reader, silent), 1);
        older.touch(silent);
        assert_eq!(ask(&mut reader, silent), 2, "two that both PING stay two");
        let later = silent.after(31 * SECOND);
        assert_eq!(ask(&mut reader, later), 1);
        registry.commit(|writer| writer.apply(&Change::Disconnect(newer), later));
        assert_eq!(ask(&mut reader, later), 1);
        assert_eq!(lookup(&registry, "t", later), ["a:0"]);
    }
}
