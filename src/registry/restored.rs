//! Making a registry what was saved of another.
//!
//! Topics and channels are as they were. Producers are *expected*: they are listed until the grace is over, and what becomes of them
//! when their nsqd is back is in `inheritance`.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use super::inheritance::Grace;
use super::names::{ProducerId, Source, TopicId};
use super::producer::{Producer, Registered};
use super::saved::{Saved, SavedChannel, SavedProducer, SavedProducers, SavedTopic};
use super::topic::{Channel, Ids, Topic};
use super::unused::Expiry;
use super::writer::{Head, Writer};
use crate::clock::Timestamp;
use crate::limits::CONNECTIONS_MAX;

/// Something that was saved, and the times between then and the end of the grace.
#[derive(Clone, Debug)]
pub struct Restore {
    pub saved: Saved,
    /// How long ago it was saved.
    pub gone: Duration,
    /// Until when its producers are expected.
    pub grace_end: Timestamp,
}

/// A restore that is under way.
struct Restoring<'a> {
    /// By their numbers.
    producers: Vec<Arc<Producer>>,
    restore: &'a Restore,
    now: Timestamp,
}

impl Writer<'_> {
    /// Makes the registry what was saved, and returns how much that is.
    ///
    /// # Panics
    /// When the registry is not empty, or something names a producer that was not saved.
    pub(super) fn restore(&mut self, restore: &Restore, now: Timestamp) -> (usize, Registered) {
        let (producers, registered) = self.snapshot().counts();
        assert!(producers + registered.topics == 0, "what was saved is restored first");
        let restoring = Restoring { producers: self.restore_producers(restore, now), restore, now };
        for topic in &restore.saved.topics {
            self.restore_topic(topic, &restoring);
        }
        let (expected, registered) = self.snapshot().counts();
        self.head.grace = (expected > 0).then_some(Grace::new(restore.grace_end));
        self.rest().expected = expected;
        (expected, registered)
    }

    /// The producers by their numbers. Of a node there is one, even if several were saved.
    fn restore_producers(
        &mut self,
        Restore { saved, gone, grace_end }: &Restore,
        now: Timestamp,
    ) -> Vec<Arc<Producer>> {
        let mut nodes: HashMap<_, Arc<Producer>> = HashMap::new();
        let mut slots = 0..CONNECTIONS_MAX;
        let mut all = Vec::with_capacity(saved.producers.len());
        for SavedProducer { info, remote_address, silence } in &saved.producers {
            let node = (&*info.broadcast_address, info.tcp_port, info.http_port);
            let seen = now.before(silence.saturating_add(*gone));
            let producer = nodes.entry(node).or_insert_with(|| {
                let slot = slots.next().expect("as many as there can be connections");
                let id = ProducerId::new(Source::Restored, slot, 0);
                Arc::new(Producer::restored(id, remote_address, info.clone(), seen, *grace_end))
            });
            producer.touch(seen.max(producer.last_update()));
            all.push(Arc::clone(producer));
        }
        for producer in nodes.into_values() {
            self.head.nodes.add(&producer);
            self.rest().producers.insert(producer);
        }
        self.changed.nodes = true;
        all
    }

    fn restore_topic(&mut self, saved: &SavedTopic, restoring: &Restoring<'_>) {
        let id = TopicId::first_of(self.snapshot().topics.len());
        let mut topic = Topic::new(id, saved.name.as_str());
        topic.listed = saved.is_listed;
        topic.producers = restoring.ids(&saved.producers);
        for producer in self.snapshot().present(topic.producers()) {
            producer.topics().push(id);
        }
        self.restore_tombstones(&mut topic, &saved.tombstones, restoring);
        let (topics, listed, is_used) = (&mut self.head.unused, saved.is_listed, !topic.producers.is_empty());
        let (gone, now) = (restoring.restore.gone, restoring.now);
        topics.count.topics += usize::from(!is_used);
        topics.restore(
            &mut topic.expiry,
            (id, &topic.name),
            None,
            (saved.expiry, is_used || !listed),
            (gone, now),
        );
        topic.channels =
            saved.channels.iter().map(|channel| self.restore_channel(&topic, channel, restoring)).collect();
        self.rest().listed += usize::from(listed);
        self.rest().channels += topic.channels.len();
        self.changed.topics = true;
        self.head.versions.insert(topic);
    }

    fn restore_tombstones(&mut self, topic: &mut Topic, saved: &[(u32, Duration)], restoring: &Restoring<'_>) {
        let lifetime = self.snapshot().lifetimes().tombstone_lifetime;
        let mut tombstones: Vec<(ProducerId, Timestamp)> = Vec::new();
        for &(number, age) in saved {
            let producer = &restoring.producers[number as usize];
            let at = restoring.now.before(age.saturating_add(restoring.restore.gone));
            let is_known = tombstones.iter().any(|&(id, _)| id == producer.id());
            if topic.producers.contains(producer.id()) && !is_known {
                producer.was_tombstoned.store(true, Relaxed);
                tombstones.push((producer.id(), at));
                self.rest().tombstones.add(at, 1, lifetime);
            }
        }
        tombstones.sort_unstable_by_key(|&(id, _)| id);
        topic.tombstones = (!tombstones.is_empty()).then(|| Arc::new(tombstones));
    }

    fn restore_channel(&mut self, topic: &Topic, saved: &SavedChannel, restoring: &Restoring<'_>) -> Channel {
        let producers = match &saved.producers {
            SavedProducers::All => topic.producers.clone(),
            SavedProducers::Some(numbers) => restoring.ids(numbers).and(&topic.producers),
        };
        for producer in self.snapshot().present(producers.as_slice()) {
            producer.channels.fetch_add(1, Relaxed);
        }
        let mut channel = Channel { name: saved.name.as_str().into(), producers, expiry: Expiry::default() };
        let is_used = !channel.producers.is_empty();
        let Head { unused, .. } = &mut *self.head;
        unused.count.channels += usize::from(!is_used);
        let times = (restoring.restore.gone, restoring.now);
        let owner = (topic.id, &topic.name);
        unused.restore(&mut channel.expiry, owner, Some(&channel.name), (saved.expiry, is_used), times);
        channel
    }
}

impl Restoring<'_> {
    /// The ids of producers by their numbers.
    fn ids(&self, numbers: &[u32]) -> Ids {
        Ids::of(numbers.iter().map(|&number| self.producers[number as usize].id()).collect())
    }
}
