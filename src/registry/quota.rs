//! Whether one more topic or channel is within the limits.

use super::names::Name;
use super::producer::{Producer, Registered};
use super::writer::Writer;
use crate::limits::{Limit, Limits};

impl Writer<'_> {
    /// Whether a registration by the producer, or by nobody, would keep to the limits, after all that this
    /// batch has changed so far. What exists already, or is registered already, always does. Returns what the
    /// producer has registered.
    ///
    /// # Errors
    /// The limit that it would exceed; that is a limit of channels only where the topic keeps to the limits.
    pub fn check_quota(
        &self,
        limits: &Limits,
        producer: Option<&Producer>,
        topic: Name,
        channel: Option<Name>,
    ) -> Result<Registered, Limit> {
        let all = self.snapshot().counts().1;
        let found = self.snapshot().topic(topic.as_bytes());
        let is_new = |channel: Name| found.is_none_or(|topic| topic.channel(channel.as_bytes()).is_err());
        let joins = |channel| producer.is_some_and(|by| !found.is_some_and(|topic| topic.has(by.id(), channel)));
        let own = producer.map(Producer::registered).unwrap_or_default();
        for (adds, count, limit) in [
            (found.is_none(), all.topics, Limit::Topics),
            (joins(None), own.topics, Limit::TopicsPerProducer),
            (channel.is_some_and(is_new), all.channels, Limit::Channels),
            (channel.is_some() && joins(channel), own.channels, Limit::ChannelsPerProducer),
        ] {
            if adds && count >= limits.size(limit) {
                return Err(limit);
            }
        }
        Ok(own)
    }
}
