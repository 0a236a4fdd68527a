//! What producers have registered, as the cluster asks the registry for it.

use std::collections::HashSet;
use std::sync::Arc;

use super::keys::TopicOrChannel;
use super::record::Registrations;
use crate::registry::{Change, Name, Producer, Snapshot};

/// All that a producer has registered.
pub fn registrations(snapshot: &Snapshot, producer: &Producer) -> Registrations {
    let topics = snapshot.registered_by(producer);
    topics.map(|(topic, channels)| (Name::from(topic), channels.map(Name::from).collect())).collect()
}

/// Whether a producer has registered everything that another has.
pub fn covers(producer: &Producer, other: &Producer, snapshot: &Snapshot) -> bool {
    let names = |of| {
        let mut names = HashSet::new();
        for (topic, channels) in snapshot.registered_by(of) {
            names.insert((topic.name(), None));
            names.extend(channels.map(|channel| (topic.name(), Some(channel.name()))));
        }
        names
    };
    names(producer).is_superset(&names(other))
}

/// Whether a topic is listed, and has the channel.
pub fn is_listed(TopicOrChannel { topic, channel }: &TopicOrChannel, snapshot: &Snapshot) -> bool {
    let found = snapshot.topic(topic.as_bytes()).filter(|topic| topic.is_listed());
    found.is_some_and(|found| {
        channel.is_none_or(|channel| found.channels().iter().any(|its| its.name() == channel.as_str()))
    })
}

/// Whether a producer has registered a name.
pub fn has_producers(TopicOrChannel { topic, channel }: &TopicOrChannel, snapshot: &Snapshot) -> bool {
    snapshot.producers_of(topic.as_bytes()).any(|producer| {
        let mut topics = snapshot.registered_by(producer);
        let found = topics.find(|(its, _)| its.name() == topic.as_str());
        found.is_some_and(|(_, mut channels)| {
            channel.is_none_or(|channel| channels.any(|its| its.name() == channel.as_str()))
        })
    })
}

/// The changes that make the registrations of a producer these, as far as their topics are meant.
pub fn difference(
    producer: &Arc<Producer>,
    wanted: &Registrations,
    is_meant: impl Fn(&Name) -> bool,
    snapshot: &Snapshot,
) -> Vec<Change> {
    let mut changes = Vec::new();
    let mut found = HashSet::new();
    let unregister = |topic, channel| Change::Unregister { producer: Arc::clone(producer), topic, channel };
    let register = |topic, channel| Change::Register { producer: Arc::clone(producer), topic, channel };
    for (topic, channels) in snapshot.registered_by(producer) {
        let topic = Name::from(topic);
        if !is_meant(&topic) {
            continue;
        }
        let Some(wanted) = wanted.get(&topic) else {
            changes.push(unregister(topic, None));
            continue;
        };
        found.insert(topic);
        let has: HashSet<_> = channels.map(Name::from).collect();
        let wanted: HashSet<_> = wanted.iter().copied().collect();
        changes.extend(has.difference(&wanted).map(|&channel| unregister(topic, Some(channel))));
        changes.extend(wanted.difference(&has).map(|&channel| register(topic, Some(channel))));
    }
    for (&topic, channels) in wanted.iter().filter(|(topic, _)| is_meant(topic) && !found.contains(*topic)) {
        if channels.is_empty() {
            changes.push(register(topic, None));
        }
        changes.extend(channels.iter().map(|&channel| register(topic, Some(channel))));
    }
    changes
}
