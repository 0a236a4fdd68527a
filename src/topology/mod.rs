//! Topics and channels that are known beforehand: a file names them, and they exist as long as it does.
//!
//! nsqd asks for the channels of a topic when it makes it, and makes them with it. So a message that is published before the
//! first consumer of a channel has come waits for it.
//!
//! The names are created as [`Change`]s like any other, and no client can delete them. Which names these are changes under the
//! writer lock, together with the registry, so that no deletion comes between the two.

mod file;

use arc_swap::ArcSwap;

pub use file::{TopologyError, load};

use crate::clock::Timestamp;
use crate::limits::{Limit, Limits};
use crate::log::Log;
use crate::registry::{Change, Name, Registered, Registry};

/// The names of a file.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Topology {
    /// By name.
    topics: Vec<Topic>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct Topic {
    name: Name,
    /// By name, each once.
    channels: Vec<Name>,
}

/// A topic, or a channel of it.
type Known = (Name, Option<Name>);

impl Topology {
    /// Whether the topic, or the channel of it, is one of the names.
    #[must_use]
    pub fn has(&self, topic: &Name, channel: Option<&Name>) -> bool {
        let place = self.topics.binary_search_by(|known| known.name.as_bytes().cmp(topic.as_bytes()));
        let Ok(at) = place else { return false };
        let channels = &self.topics[at].channels;
        channel.is_none_or(|channel| {
            channels.binary_search_by(|known| known.as_bytes().cmp(channel.as_bytes())).is_ok()
        })
    }

    /// Creates its names in the registry and releases those of the topology before that it lacks, by one commit, and says so
    /// in the log. Limits of topics and channels are for clients: they refuse nothing here, and a warning says that clients
    /// can register nothing new.
    ///
    /// # Panics
    /// As [`Registry::commit`].
    pub fn put_in_force(
        self,
        in_force: &ArcSwap<Self>,
        (registry, limits): (&Registry, &Limits),
        log: &Log,
        now: Timestamp,
    ) {
        let before = in_force.load_full();
        if self == *before {
            return;
        }
        let released: Vec<_> =
            before.names().filter(|(topic, channel)| !self.has(topic, channel.as_ref())).collect();
        let [known, gone] = [count(self.names()), count(released.iter().copied())];
        let created = self.names().map(|(topic, channel)| Change::Create { topic, channel });
        let released = released.iter().map(|&(topic, channel)| Change::Release { topic, channel });
        let changes: Vec<_> = created.chain(released).collect();
        registry.commit(|writer| {
            writer.apply_all(&changes, now);
            in_force.store(self.into());
        });
        log.info(format_args!(
            "topology file: topics:{} channels:{} always exist, topics:{} channels:{} no longer",
            known.topics, known.channels, gone.topics, gone.channels
        ));
        let Registered { topics, channels } = registry.registered();
        if topics > limits.size(Limit::Topics) || channels > limits.size(Limit::Channels) {
            log.warn(format_args!(
                "topics:{topics} channels:{channels} with those of -topology-file are more than -max-topics or \
                 -max-channels: clients can make no new ones; raise the limit"
            ));
        }
    }

    /// Every topic, each followed by its channels.
    fn names(&self) -> impl Iterator<Item = Known> {
        self.topics.iter().flat_map(|Topic { name, channels }| {
            let channels = channels.iter().map(|&channel| (*name, Some(channel)));
            [(*name, None)].into_iter().chain(channels)
        })
    }
}

fn count(names: impl Iterator<Item = Known>) -> Registered {
    let mut count = Registered::default();
    for (_, channel) in names {
        match channel {
            None => count.topics += 1,
            Some(_) => count.channels += 1,
        }
    }
    count
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::file::parse;
    use super::*;
    use crate::registry::{Lifetimes, Snapshot};

    const START: Timestamp = Timestamp::from_nanos(1_700_000_000_000_000_000);
    const UNUSED: Duration = Duration::from_secs(60);

    fn topology(topics: &str) -> Topology {
        parse(format!("[topics]\n{topics}").as_bytes()).expect("well-formed")
    }

    fn name(text: &str) -> Name {
        Name::new(text.as_bytes()).expect("a valid name")
    }

    #[test]
    fn a_channel_belongs_to_its_topic() {
        let topology = topology("orders = ['mail', 'billing']\nclicks = []\n");
        let has = |topic, channel: Option<&str>| topology.has(&name(topic), channel.map(name).as_ref());
        assert!(has("orders", None) && has("orders", Some("mail")) && has("orders", Some("billing")));
        assert!(has("clicks", None) && !has("clicks", Some("mail")));
        assert!(!has("mail", None) && !has("order", None) && !has("orders", Some("bill")));
    }

    fn names(snapshot: &Snapshot) -> Vec<String> {
        let find = |topic: &str| {
            let topic = snapshot.topic(topic.as_bytes())?;
            let channels = topic.channels().iter().map(|channel| format!("{}/{}", topic.name(), channel.name()));
            Some([topic.name().to_owned()].into_iter().chain(channels).collect::<Vec<_>>())
        };
        ["clicks", "made", "orders"].into_iter().filter_map(find).flatten().collect()
    }

    /// Names are there when the next commit is, and go when they have been unused for long enough since their release.
    #[test]
    fn a_topology_takes_the_place_of_the_one_before() {
        let registry = Registry::new(Lifetimes { forget_unused_after: UNUSED, ..Lifetimes::default() });
        let (in_force, limits, log) =
            (ArcSwap::from_pointee(Topology::default()), Limits::default(), Log::disabled());
        let put = |topology: Topology, now| topology.put_in_force(&in_force, (&registry, &limits), &log, now);
        put(topology("orders = ['mail', 'billing']\nclicks = ['ads']\n"), START);
        registry.commit(|writer| writer.apply(&Change::Create { topic: name("made"), channel: None }, START));
        let all = ["clicks", "clicks/ads", "made", "orders", "orders/billing", "orders/mail"];
        assert_eq!(names(&registry.snapshot()), all);
        let forget = |now| registry.commit(|writer| writer.apply(&Change::Forget { most: usize::MAX }, now));
        forget(START.after(2 * UNUSED));
        assert_eq!(names(&registry.snapshot()), all);

        let later = START.after(3 * UNUSED);
        put(topology("orders = ['archive', 'mail']\n"), later);
        assert!(!in_force.load().has(&name("clicks"), None));
        forget(Timestamp::from_nanos(later.after(UNUSED).nanos() - 1));
        assert_eq!(names(&registry.snapshot()).len(), all.len() + 1);
        forget(later.after(UNUSED));
        assert_eq!(names(&registry.snapshot()), ["made", "orders", "orders/archive", "orders/mail"]);

        put(Topology::default(), later);
        forget(later.after(UNUSED));
        assert_eq!(names(&registry.snapshot()), ["made"]);
    }

    #[test]
    fn limits_of_clients_refuse_nothing() {
        let (registry, mut limits) = (Registry::new(Lifetimes::default()), Limits::default());
        limits.set(Limit::Topics, 1);
        let in_force = ArcSwap::from_pointee(Topology::default());
        topology("a = []\nb = []\n").put_in_force(&in_force, (&registry, &limits), &Log::disabled(), START);
        assert_eq!(registry.registered(), Registered { topics: 2, channels: 0 });
    }
}
