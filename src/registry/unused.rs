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
use super::saved::SavedExpiry;
use super::topic::{Channel, Topic};
use super::visibility::Lifetimes;
use super::writer::{Head, Writer};
use crate::clock::Timestamp;

/// When a topic or channel is forgotten. One word, as there is one for each channel.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(super) struct Expiry(Timestamp);

impl Expiry {
    /// As it is saved at this time.
    pub(super) fn saved(self, now: Timestamp) -> SavedExpiry {
        match self {
            Self::NONE => SavedExpiry::None,
            Self::KEPT => SavedExpiry::Kept,
            Self(at) => SavedExpiry::After(at.since(now)),
        }
    }

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
        if *expiry == Expiry::KEPT {
            return;
        }
        // One that was due, and is kept by a channel, has an expiry that is over.
        *expiry = Expiry::NONE;
        if !after.is_zero() && at < Timestamp::MAX {
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

    /// The name was restored, so long after its expiry was saved.
    pub(super) fn restore(
        &mut self,
        expiry: &mut Expiry,
        (topic, topic_name): (TopicId, &SmolStr),
        channel: Option<&SmolStr>,
        (saved, is_used): (SavedExpiry, bool),
        (gone, now): (Duration, Timestamp),
    ) {
        match saved {
            SavedExpiry::Kept => *expiry = Expiry::KEPT,
            _ if is_used => {}
            SavedExpiry::After(rest) => {
                *expiry = Expiry(now.after(rest.saturating_sub(gone)));
                self.by_expiry.insert((expiry.0, (topic, channel.cloned())));
            }
            SavedExpiry::None => self.add(expiry, (topic, topic_name), channel, now),
        }
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
mod tests;
