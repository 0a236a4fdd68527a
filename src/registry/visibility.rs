//! Which producers a response shows at one moment, and for how long the response holds.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::producer::Producer;
use super::snapshot::Snapshot;
use super::topic::Topic;
use crate::clock::Timestamp;

/// How long producers and tombstones are believed (stock's two options of these names), and how long names without
/// producers are kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Lifetimes {
    /// A producer silent for longer is not listed.
    pub inactive_producer_timeout: Duration,
    /// A tombstoned producer is hidden for so long.
    pub tombstone_lifetime: Duration,
    /// An ephemeral topic or channel is forgotten so long after its last producer has gone; zero is never.
    pub forget_ephemeral_after: Duration,
    /// The same for every other topic or channel.
    pub forget_unused_after: Duration,
    /// A producer silent for longer is not listed when there is a newer one of the same node; zero is never.
    pub supersede_silent: Duration,
}

impl Lifetimes {
    /// The last moment at which a producer is listed that gives no other sign of life (stock: it is inactive when
    /// `now - last_update > timeout`).
    pub fn listed_until(&self, last_update: Timestamp) -> Timestamp {
        last_update.after(self.inactive_producer_timeout)
    }
}

/// Something rendered, valid until a commit replaces what it was rendered from or time makes it false.
///
/// A producer in a response becomes inactive after the timeout; its PINGs only move that moment later. An inactive one
/// comes back with its next PING, so its `last_update` is compared at each read: a PING needs no lock, no commit and no
/// list of what to invalidate, and in a cluster that is well there are no inactive producers to compare.
pub struct Rendered<T> {
    content: T,
    /// The last moment at which it is valid whatever is committed.
    until: Timestamp,
    /// Producers that it does not show, each with its last update.
    inactive: Vec<(Arc<Producer>, Timestamp)>,
}

impl<T> Rendered<T> {
    /// What was rendered.
    pub fn content(&self) -> &T {
        &self.content
    }

    /// Whether rendering would make the same at this moment, unless something was committed since.
    pub fn is_fresh(&self, now: Timestamp) -> bool {
        now <= self.until && self.inactive.iter().all(|(producer, seen)| producer.last_update() == *seen)
    }
}

/// Decides which producers a response shows, and notes for how long that holds.
pub struct Visibility {
    lifetimes: Lifetimes,
    now: Timestamp,
    until: Timestamp,
    inactive: Vec<(Arc<Producer>, Timestamp)>,
}

impl Visibility {
    /// That of one moment.
    pub fn new(lifetimes: Lifetimes, now: Timestamp) -> Self {
        Self { lifetimes, now, until: Timestamp::MAX, inactive: Vec::new() }
    }

    /// Whether the producer has given a sign of life recently enough.
    pub fn is_active(&mut self, producer: &Arc<Producer>) -> bool {
        let seen = producer.last_update();
        let until = producer.listed_until(seen, &self.lifetimes);
        let active = self.now <= until;
        if active {
            self.until = self.until.min(until);
        } else if !producer.is_hidden() {
            // A hidden one comes back with a commit.
            self.inactive.push((Arc::clone(producer), seen));
        }
        active
    }

    /// Whether the topic's tombstones hide the producer.
    pub fn is_tombstoned(&mut self, topic: &Topic, producer: &Producer) -> bool {
        // The topic is asked only when there can be a tombstone.
        if !producer.was_tombstoned.load(Ordering::Relaxed) {
            return false;
        }
        let Some(at) = topic.tombstone_of(producer) else { return false };
        // Stock: `now - tombstoned_at < lifetime` is tombstoned.
        let until = at.after(self.lifetimes.tombstone_lifetime);
        let tombstoned = self.now < until;
        if tombstoned {
            let last_moment = Timestamp::from_nanos(until.nanos() - 1);
            self.until = self.until.min(last_moment);
        }
        tombstoned
    }

    /// How many producers of the topic a response shows. For a response that is not kept: for how long it holds is not
    /// noted.
    pub fn count(&self, topic: &Topic, snapshot: &Snapshot) -> usize {
        let is_tombstoned = |producer: &Producer| {
            let until = |at: Timestamp| at.after(self.lifetimes.tombstone_lifetime);
            producer.was_tombstoned.load(Ordering::Relaxed)
                && topic.tombstone_of(producer).is_some_and(|at| self.now < until(at))
        };
        let active = snapshot
            .present(topic.producers())
            .filter(|producer| self.now <= producer.listed_until(producer.last_update(), &self.lifetimes));
        active.filter(|producer| !is_tombstoned(producer)).count()
    }

    /// What was rendered with these decisions.
    pub fn rendered<T>(self, content: T) -> Rendered<T> {
        Rendered { content, until: self.until, inactive: self.inactive }
    }
}
