//! What of the model outlives a restart, who is expected back, and what becomes of that.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ringlookupd::clock::Timestamp;
use ringlookupd::registry::{
    Missing, Name, Registered, Saved, SavedChannel, SavedExpiry, SavedProducer, SavedProducers, SavedTopic,
};

use crate::model::{Element, Grace, Model, Moment, Peer, Registration, Serial};

/// What can be counted.
#[derive(PartialEq, Eq, Debug)]
pub struct Counts {
    pub producers: usize,
    pub expected: usize,
    pub registered: Registered,
    pub without_producers: Registered,
    pub tombstones: usize,
}

/// Saved and restored.
impl Model {
    /// Topics by name, each channel with its producers' numbers.
    pub fn saved(&self, at: &Moment) -> Saved {
        let mut order: Vec<_> = self.clients().collect();
        order.sort_by_key(|&producer| at.peers[producer].order);
        let numbers: BTreeMap<Serial, u32> = order.iter().copied().zip(0..).collect();
        let producer = |&producer: &Serial| {
            let Peer { remote_address, info, last_update, .. } = &at.peers[producer];
            let silence = at.now.since(*last_update);
            SavedProducer { info: info.clone(), remote_address: remote_address.as_str().into(), silence }
        };
        let topics = self.topic_names().into_iter();
        Saved {
            producers: order.iter().map(producer).collect(),
            topics: topics.map(|topic| self.saved_topic(topic, &numbers, at)).collect(),
        }
    }

    fn saved_topic(&self, topic: &str, numbers: &BTreeMap<Serial, u32>, at: &Moment) -> SavedTopic {
        let numbers_of = |registration: &Registration| {
            let producers = self.registrations.get(registration).into_iter().flat_map(BTreeMap::keys);
            let mut all: Vec<u32> = producers.map(|producer| numbers[producer]).collect();
            all.sort_unstable();
            all
        };
        let registration = Registration::topic(topic);
        let elements = self.registrations.get(&registration);
        let channels = self.find("channel", topic, "*").map(|(registration, _)| SavedChannel {
            name: name(&registration.subkey),
            expiry: self.saved_expiry(registration, at),
            producers: SavedProducers::Some(numbers_of(registration)),
        });
        // The registry lists what is inherited among the restored.
        let place = |producer: &Serial, element: &Element| {
            let listed_as = if element.is_inherited { &self.heirs[producer] } else { producer };
            at.peers[*listed_as].order
        };
        let mut tombstones: Vec<_> = elements
            .into_iter()
            .flatten()
            .filter_map(|(producer, element)| {
                let age = at.now.since(element.tombstoned_at?);
                Some((place(producer, element), (numbers[producer], age)))
            })
            .collect();
        tombstones.sort_unstable();
        SavedTopic {
            name: name(topic),
            is_listed: elements.is_some(),
            expiry: self.saved_expiry(&registration, at),
            producers: numbers_of(&registration),
            tombstones: tombstones.into_iter().map(|(_, tombstone)| tombstone).collect(),
            channels: channels.collect(),
        }
    }

    fn saved_expiry(&self, registration: &Registration, at: &Moment) -> SavedExpiry {
        if self.kept.contains(registration) {
            return SavedExpiry::Kept;
        }
        let expiry = self.unused.get(registration).copied().flatten();
        expiry.map_or(SavedExpiry::None, |expiry| SavedExpiry::After(expiry.since(at.now)))
    }

    /// What was saved so long ago, with one producer of each node, which is added to all peers.
    pub fn restored(
        saved: &Saved,
        gone: Duration,
        now: Timestamp,
        grace_end: Timestamp,
        peers: &mut Vec<Peer>,
    ) -> Self {
        let first = peers.len();
        let mut numbers = Vec::new();
        for producer in &saved.producers {
            let peer = Peer {
                remote_address: producer.remote_address.to_string(),
                info: producer.info.clone(),
                last_update: now.before(producer.silence + gone),
                order: (0, peers.len() - first),
                expected_until: Some(grace_end),
            };
            let known = (first..peers.len()).find(|&known| peers[known].is_same_node(&peer));
            numbers.push(known.unwrap_or(peers.len()));
            match known {
                Some(known) => peers[known].last_update = peers[known].last_update.max(peer.last_update),
                None => peers.push(peer),
            }
        }
        let mut model = Self::default();
        model.enter(Registration::client(), &numbers);
        saved.topics.iter().for_each(|topic| model.restore_topic(topic, &numbers, gone, now));
        model.grace = (!numbers.is_empty()).then_some(Grace { until: grace_end, missing: Missing::default() });
        model
    }

    fn restore_topic(&mut self, saved: &SavedTopic, numbers: &[Serial], gone: Duration, now: Timestamp) {
        let serials = |of: &[u32]| of.iter().map(|&number| numbers[number as usize]).collect::<Vec<_>>();
        let topic = saved.name.as_str();
        if saved.is_listed {
            let registration = Registration::topic(topic);
            let elements = self.enter(registration.clone(), &serials(&saved.producers));
            for (number, age) in &saved.tombstones {
                let element = elements.get_mut(&numbers[*number as usize]).expect("it is a producer of the topic");
                element.tombstoned_at.get_or_insert(now.before(*age + gone));
            }
            self.restore_expiry(registration, saved.expiry, gone, now);
        }
        for channel in &saved.channels {
            let registration = Registration::channel(topic, channel.name.as_str());
            let SavedProducers::Some(producers) = &channel.producers else {
                unreachable!("the model saves numbers")
            };
            self.enter(registration.clone(), &serials(producers));
            self.restore_expiry(registration, channel.expiry, gone, now);
        }
    }

    fn restore_expiry(&mut self, registration: Registration, saved: SavedExpiry, gone: Duration, now: Timestamp) {
        match saved {
            SavedExpiry::None => {}
            SavedExpiry::Kept => drop(self.kept.insert(registration)),
            SavedExpiry::After(rest) => {
                self.unused.insert(registration, Some(now.after(rest.saturating_sub(gone))));
            }
        }
    }

    fn enter(&mut self, registration: Registration, producers: &[Serial]) -> &mut BTreeMap<Serial, Element> {
        let elements = self.registrations.entry(registration).or_default();
        elements.extend(producers.iter().map(|&producer| (producer, Element::default())));
        elements
    }
}

/// Expected back.
impl Model {
    /// What was expected is the producer's, but for its registration as a client.
    pub fn take_over(&mut self, producer: Serial, expected: Serial) {
        for (registration, producers) in &mut self.registrations {
            if let Some(element) = producers.remove(&expected)
                && registration.category != "client"
            {
                producers.insert(producer, Element { is_inherited: true, ..element });
            }
        }
        self.heirs.insert(producer, expected);
    }

    /// What a producer has inherited and not registered again becomes an expected producer's, but for the channels of a topic
    /// that it has: they go with the topic. Without any, nobody is expected. To be called before its disconnect.
    pub fn give_back(&mut self, producer: Serial, expected: Serial) {
        self.heirs.remove(&producer);
        let is_inherited = |elements: &BTreeMap<Serial, Element>| {
            elements.get(&producer).is_some_and(|element| element.is_inherited)
        };
        let inherited = self.find("topic", "*", "").filter(|(_, elements)| is_inherited(elements));
        let topics: BTreeSet<_> = inherited.map(|(registration, _)| registration.key.clone()).collect();
        for (registration, elements) in &mut self.registrations {
            if is_inherited(elements) && topics.contains(&registration.key) {
                let element = elements.remove(&producer).expect("it is inherited");
                elements.insert(expected, Element { is_inherited: false, ..element });
            }
        }
        if !topics.is_empty() {
            self.enter(Registration::client(), &[expected]);
        }
    }

    pub fn is_grace_over(&self, now: Timestamp) -> bool {
        self.grace.is_some_and(|grace| grace.until <= now)
    }

    /// Removes all that was restored and has not come back, or that of the first node; returns what is missing when nothing is
    /// left.
    pub fn end_grace(&mut self, all: bool, at: &Moment) -> Option<Missing> {
        let mut grace = self.grace.filter(|grace| grace.until <= at.now)?;
        loop {
            let heirs = self.heirs.iter().map(|(&heir, expected)| (at.peers[*expected].order, heir));
            let expected = self.expected(at).map(|expected| (at.peers[expected].order, expected));
            let Some((_, first)) = heirs.chain(expected).min() else {
                self.grace = None;
                return Some(grace.missing);
            };
            if self.heirs.remove(&first).is_some() {
                grace.missing.topics += self.drop_inherited(first);
            } else {
                grace.missing.producers += 1;
                self.disconnect(first);
            }
            self.grace = Some(grace);
            if !all {
                return None;
            }
        }
    }

    /// Returns of how many topics.
    fn drop_inherited(&mut self, producer: Serial) -> usize {
        let mut topics = BTreeSet::new();
        for (registration, elements) in &mut self.registrations {
            if elements.get(&producer).is_some_and(|element| element.is_inherited) {
                elements.remove(&producer);
                topics.insert(&registration.key);
            }
        }
        topics.len()
    }

    fn expected(&self, at: &Moment) -> impl Iterator<Item = Serial> {
        self.clients().filter(|&producer| at.peers[producer].is_expected())
    }

    /// The expected producer of a node like this one's.
    pub fn expected_like(&self, node: &str, at: &Moment) -> Option<Serial> {
        self.expected(at).find(|&producer| *at.peers[producer].info.broadcast_address == *node)
    }
}

/// Counted.
impl Model {
    pub fn counts(&self, at: &Moment) -> Counts {
        let is_empty =
            |registration: &Registration| self.registrations.get(registration).is_none_or(BTreeMap::is_empty);
        let topics = self.topic_names();
        let (mut channels, mut unused_channels) = (0, 0);
        for (_, elements) in self.find("channel", "*", "*") {
            channels += 1;
            unused_channels += usize::from(elements.is_empty());
        }
        let unused_topics = topics.iter().filter(|topic| is_empty(&Registration::topic(topic))).count();
        let elements = self.find("topic", "*", "").flat_map(|(_, elements)| elements.values());
        Counts {
            producers: self.clients().count(),
            expected: self.expected(at).count(),
            registered: Registered { topics: topics.len(), channels },
            without_producers: Registered { topics: unused_topics, channels: unused_channels },
            tombstones: elements.filter(|element| at.is_tombstoned(**element)).count(),
        }
    }

    /// Listed or not.
    fn topic_names(&self) -> BTreeSet<&str> {
        let names = self.registrations.keys().filter(|registration| registration.category != "client");
        names.map(|registration| registration.key.as_str()).collect()
    }
}

fn name(text: &str) -> Name {
    Name::new(text.as_bytes()).expect("a valid name")
}
