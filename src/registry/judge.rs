//! Whether one more topic or channel is within the limits.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::Totals;
use super::names::Name;
use super::producer::{Producer, Registered};
use super::writer::{Head, Writer};
use crate::limits::{Limit, Limits};

impl Writer<'_> {
    /// Whether a registration by the producer, or by nobody, would keep to the limits, after all that this
    /// batch has changed so far. What exists already, or is registered already, always does. Returns what the
    /// producer has registered.
    ///
    /// # Errors
    /// The limit that it would exceed; that is a limit of channels only where the topic keeps to the limits.
    pub fn judge(
        &self,
        limits: &Limits,
        producer: Option<&Arc<Producer>>,
        topic: Name,
        channel: Option<Name>,
    ) -> Result<Registered, Limit> {
        let state = self.head.snapshot.topic(topic.as_bytes()).map(|topic| topic.state());
        let place = |channel: Name| state.as_ref().and_then(|state| state.channel(channel.as_bytes()).ok());
        let is_new = channel.is_some_and(|channel| place(channel).is_none());
        let joins =
            |channel| producer.is_some_and(|by| !state.as_ref().is_some_and(|state| state.has(by.id(), channel)));
        let own = producer.map(|producer| producer.registered()).unwrap_or_default();
        for (adds, count, limit) in [
            (state.is_none(), self.head.snapshot.topics_count(), Limit::Topics),
            (joins(None), own.topics, Limit::TopicsPerProducer),
            (is_new, self.head.snapshot.channels, Limit::Channels),
            (channel.is_some() && joins(channel), own.channels, Limit::ChannelsPerProducer),
        ] {
            if adds && count >= limits.size(limit) {
                return Err(limit);
            }
        }
        Ok(own)
    }
}

impl Totals {
    /// Stores only what has changed: all workers read it.
    pub(super) fn update(&self, Head { snapshot, unused, .. }: &Head) {
        for (total, now) in [
            (&self.producers, snapshot.producers.len()),
            (&self.topics, snapshot.topics_count()),
            (&self.channels, snapshot.channels),
        ] {
            if total.load(Relaxed) != now {
                total.store(now, Relaxed);
            }
        }
        let next_expiry = unused.next_expiry().nanos();
        if self.next_expiry.load(Relaxed) != next_expiry {
            self.next_expiry.store(next_expiry, Relaxed);
        }
    }
}
