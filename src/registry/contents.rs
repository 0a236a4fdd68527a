//! What a change is about to remove, for its outcome: asked before the change, under the writer lock.

use smol_str::SmolStr;

use super::names::Name;
use super::producer::Producer;
use super::topic::{Channel, Topic};
use super::writer::Writer;
use crate::clock::Timestamp;
use crate::limits::CHANNELS_LOGGED_MAX;

/// The names of some channels of a topic, in order: as many as one command may log.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ChannelNames {
    pub names: Vec<SmolStr>,
    /// How many channels there are beyond those.
    pub more: usize,
}

impl ChannelNames {
    /// The channels of the topic; with a producer, those that it has registered.
    pub(super) fn of(topic: &Topic, registered_by: Option<&Producer>) -> Self {
        let has = |channel: &Channel, producer: &Producer| producer.ids().any(|id| channel.producers.contains(id));
        let is_meant = |channel: &&Channel| registered_by.is_none_or(|producer| has(channel, producer));
        let mut channels = topic.channels.iter().filter(is_meant);
        let names = channels.by_ref().take(CHANNELS_LOGGED_MAX).map(|channel| channel.name.clone()).collect();
        Self { names, more: channels.count() }
    }
}

impl Writer<'_> {
    /// How many producers have registered the topic, or the channel, and are active.
    pub(super) fn active_producers(&self, topic: &Topic, channel: Option<Name>, now: Timestamp) -> usize {
        let producers = match channel.map(|channel| topic.channel(channel.as_bytes())) {
            None => topic.producers(),
            Some(Ok(at)) => topic.channels[at].producers(),
            Some(Err(_)) => return 0,
        };
        let lifetimes = self.snapshot().lifetimes();
        let present = self.snapshot().present(producers);
        present.filter(|producer| now <= producer.listed_until(producer.last_update(), &lifetimes)).count()
    }
}
