//! How long what was rendered stays true.

use std::sync::Arc;
use std::time::Duration;

use super::producer::Producer;
use crate::clock::Timestamp;

/// How long producers and tombstones are believed (stock's two options of these names), and how long names without
/// producers are kept.
#[derive(Clone, Copy, Debug, Default)]
pub struct Lifetimes {
    /// A producer silent for longer is not listed.
    pub inactive_producer_timeout: Duration,
    /// A tombstoned producer is hidden for so long.
    pub tombstone_lifetime: Duration,
    /// An ephemeral topic or channel is forgotten so long after its last producer has gone; zero is never.
    pub forget_ephemeral_after: Duration,
    /// The same for every other topic or channel.
    pub forget_unused_after: Duration,
}

impl Lifetimes {
    /// The last moment at which a producer is listed that gives no other sign of life (stock: it is inactive when
    /// `now - last_update > timeout`).
    pub fn listed_until(&self, last_update: Timestamp) -> Timestamp {
        last_update.after(self.inactive_producer_timeout)
    }
}

/// Something rendered, true until a commit replaces what it was rendered from or time makes it false.
pub struct Rendered<T> {
    pub(super) content: T,
    freshness: Freshness,
}

impl<T> Rendered<T> {
    pub(super) fn is_fresh(&self, now: Timestamp) -> bool {
        self.freshness.holds(now)
    }
}

/// When something rendered stops being true although nothing was committed.
///
/// A producer that was listed leaves after the timeout; its PINGs only move that moment later. One that was
/// not listed comes back with its next PING, so its `last_update` is compared on each read: a PING needs no
/// lock, no commit and no list of what to invalidate, and there are no lapsed producers to compare in a
/// cluster that is well.
#[derive(Debug)]
struct Freshness {
    until: Timestamp,
    lapsed: Vec<(Arc<Producer>, Timestamp)>,
}

impl Freshness {
    fn holds(&self, now: Timestamp) -> bool {
        now <= self.until && self.lapsed.iter().all(|(producer, seen)| producer.last_update() == *seen)
    }
}

/// Judges producers at one moment, noting for how long the judgement holds.
pub(super) struct Judge {
    lifetimes: Lifetimes,
    now: Timestamp,
    freshness: Freshness,
}

impl Judge {
    pub(super) fn new(lifetimes: Lifetimes, now: Timestamp) -> Self {
        Self { lifetimes, now, freshness: Freshness { until: Timestamp::MAX, lapsed: Vec::new() } }
    }

    pub(super) fn is_active(&mut self, producer: &Arc<Producer>) -> bool {
        let seen = producer.last_update();
        let until = self.lifetimes.listed_until(seen);
        let active = self.now <= until;
        if active {
            self.freshness.until = self.freshness.until.min(until);
        } else {
            self.freshness.lapsed.push((Arc::clone(producer), seen));
        }
        active
    }

    /// Stock: `now - tombstoned_at < lifetime` is tombstoned.
    pub(super) fn is_tombstoned(&mut self, tombstoned_at: Option<Timestamp>) -> bool {
        let Some(at) = tombstoned_at else { return false };
        let until = at.after(self.lifetimes.tombstone_lifetime);
        let tombstoned = self.now < until;
        if tombstoned {
            let last_moment = Timestamp::from_nanos(until.nanos() - 1);
            self.freshness.until = self.freshness.until.min(last_moment);
        }
        tombstoned
    }

    /// What was rendered with these judgements.
    pub(super) fn rendered<T>(self, content: T) -> Rendered<T> {
        Rendered { content, freshness: self.freshness }
    }
}
