//! What a change is about to remove, for the log: asked before the change, under the writer lock.

use smol_str::SmolStr;

use super::freshness::Lifetimes;
use super::names::Name;
use super::producer::Producer;
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

impl Writer<'_> {
    /// The channels of the topic; with a producer, those that it has registered.
    pub fn channels(&self, topic: &[u8], registered_by: Option<&Producer>) -> ChannelNames {
        let Some(topic) = self.head.snapshot.topic(topic) else { return ChannelNames::default() };
        let state = topic.state();
        let mut channels = state
            .channels
            .iter()
            .filter(|channel| registered_by.is_none_or(|producer| channel.producers.contains(producer.id())));
        let names = channels.by_ref().take(CHANNELS_LOGGED_MAX).map(|channel| channel.name.clone()).collect();
        ChannelNames { names, more: channels.count() }
    }

    /// Whether the topic is listed, other than one whose channels alone are left.
    pub fn is_listed(&self, topic: &[u8]) -> bool {
        self.head.snapshot.topic(topic).is_some_and(|topic| topic.state().listed)
    }

    /// How many producers have registered the topic, or the channel, and are not silent.
    pub fn live_producers(
        &self,
        topic: &[u8],
        channel: Option<Name>,
        lifetimes: Lifetimes,
        now: Timestamp,
    ) -> usize {
        let Some(topic) = self.head.snapshot.topic(topic) else { return 0 };
        let state = topic.state();
        let producers = match channel.map(|channel| state.channel(channel.as_bytes())) {
            None => &state.producers,
            Some(Ok(at)) => &state.channels[at].producers,
            Some(Err(_)) => return 0,
        };
        let present = self.head.snapshot.present(producers.as_slice());
        present.filter(|producer| now <= lifetimes.listed_until(producer.last_update())).count()
    }
}
