//! Stock's registry: one plain map, walked whole for each question (nsqlookupd's `registration_db.go`, with
//! what `lookup_protocol_v1.go` and `http.go` do to it), and what stock does not have: names that are forgotten, and older
//! connections that are superseded. What outlives a restart is in `restarts`.

use std::collections::{BTreeMap, BTreeSet};

use ringlookupd::clock::Timestamp;
use ringlookupd::registry::{Changed, Identified, Lifetimes, Missing, Older, PeerInfo, Registered};
use serde_json::{Value, json};

/// The how-manieth producer to identify, which is its place among the [`Moment`]'s peers.
pub type Serial = usize;

/// What is registered, and by whom.
#[derive(Clone, Default)]
pub struct Model {
    pub registrations: BTreeMap<Registration, BTreeMap<Serial, Element>>,
    /// What stock does not know: topics and channels that were created and not released, and when others that have no
    /// producer are forgotten, if ever.
    pub kept: BTreeSet<Registration>,
    pub unused: BTreeMap<Registration, Option<Timestamp>>,
    pub grace: Option<Grace>,
    /// Producers that have taken over, each with the expected producer that it was.
    pub heirs: BTreeMap<Serial, Serial>,
}

/// What a registration holds of a producer.
#[derive(Clone, Copy, Default)]
pub struct Element {
    pub tombstoned_at: Option<Timestamp>,
    /// It is from before a restart, and the producer has not made it again.
    pub is_inherited: bool,
}

/// The time in which producers are expected back.
#[derive(Clone, Copy)]
pub struct Grace {
    pub until: Timestamp,
    /// What its end has removed so far.
    pub missing: Missing,
}

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Registration {
    pub category: &'static str,
    pub key: String,
    pub subkey: String,
}

impl Registration {
    pub fn client() -> Self {
        Self { category: "client", key: String::new(), subkey: String::new() }
    }

    pub fn topic(topic: &str) -> Self {
        Self { category: "topic", key: topic.into(), subkey: String::new() }
    }

    pub fn channel(topic: &str, channel: &str) -> Self {
        Self { category: "channel", key: topic.into(), subkey: channel.into() }
    }

    /// When it is forgotten that has had no producer since then, if ever.
    fn expiry(&self, since: Timestamp, lifetimes: Lifetimes) -> Option<Timestamp> {
        let is_ephemeral = [&self.key, &self.subkey].iter().any(|name| name.ends_with("#ephemeral"));
        let after = if is_ephemeral { lifetimes.forget_ephemeral_after } else { lifetimes.forget_unused_after };
        Some(since.after(after)).filter(|&at| !after.is_zero() && at < Timestamp::MAX)
    }

    fn is_match(&self, category: &str, key: &str, subkey: &str) -> bool {
        self.category == category && (key == "*" || self.key == key) && (subkey == "*" || self.subkey == subkey)
    }
}

/// A producer that identified, or one that is expected back. It stays after its end, for those who still look at the past.
#[derive(Clone)]
pub struct Peer {
    pub remote_address: String,
    pub info: PeerInfo,
    pub last_update: Timestamp,
    /// Where it stands among all when they are saved: its source, then its place there. Expected ones come first.
    pub order: (usize, usize),
    /// The end of the grace, of one that is expected.
    pub expected_until: Option<Timestamp>,
}

impl Peer {
    pub fn is_expected(&self) -> bool {
        self.expected_until.is_some()
    }

    pub fn is_same_node(&self, other: &Self) -> bool {
        let node = |info: &PeerInfo| (info.broadcast_address.clone(), info.tcp_port, info.http_port);
        node(&self.info) == node(&other.info)
    }
}

/// What an answer depends on beside the registrations.
#[derive(Clone, Copy)]
pub struct Moment<'a> {
    pub peers: &'a [Peer],
    pub lifetimes: Lifetimes,
    pub now: Timestamp,
}

impl Moment<'_> {
    pub fn is_tombstoned(&self, element: Element) -> bool {
        element.tombstoned_at.is_some_and(|at| self.age(at) < self.lifetimes.tombstone_lifetime.as_nanos())
    }

    fn age(&self, at: Timestamp) -> u128 {
        u128::try_from(self.now.nanos() - at.nanos()).expect("time goes forward")
    }
}

/// The changes, as the commands and requests of these names make them.
impl Model {
    pub fn identify(&mut self, producer: Serial, at: &Moment) -> Identified {
        let of_node = |&other: &Serial| at.peers[other].is_same_node(&at.peers[producer]);
        let (expected, others): (Vec<_>, Vec<_>) =
            self.clients().filter(of_node).partition(|&other| at.peers[other].is_expected());
        self.add(Registration::client(), producer);
        if let Some(&expected) = expected.first() {
            self.take_over(producer, expected);
        }
        let older = others.last().map(|&older| Older {
            remote_address: at.peers[older].remote_address.clone().into(),
            silence: at.now.since(at.peers[older].last_update),
        });
        Identified { is_expected: !expected.is_empty(), older }
    }

    pub fn disconnect(&mut self, producer: Serial) -> usize {
        let mut topics = 0;
        for (registration, producers) in &mut self.registrations {
            let removed = producers.remove(&producer).is_some();
            topics += usize::from(removed && registration.category == "topic");
        }
        topics
    }

    /// Who is there, connected or expected.
    pub fn clients(&self) -> impl Iterator<Item = Serial> {
        self.registrations.get(&Registration::client()).into_iter().flat_map(BTreeMap::keys).copied()
    }

    pub fn register(&mut self, producer: Serial, topic: &str, channel: Option<&str>) -> Changed {
        let channels =
            channel.map_or(0, |channel| usize::from(self.add(Registration::channel(topic, channel), producer)));
        Changed { topic: self.add(Registration::topic(topic), producer), channels }
    }

    pub fn unregister(&mut self, producer: Serial, topic: &str, channel: Option<&str>) -> Changed {
        if let Some(channel) = channel {
            let removed = self.remove(&Registration::channel(topic, channel), producer);
            return Changed { topic: false, channels: usize::from(removed) };
        }
        let mut channels = 0;
        for (registration, producers) in &mut self.registrations {
            if registration.is_match("channel", topic, "*") {
                channels += usize::from(producers.remove(&producer).is_some());
            }
        }
        Changed { topic: self.remove(&Registration::topic(topic), producer), channels }
    }

    pub fn create_topic(&mut self, topic: &str) {
        self.create(Registration::topic(topic));
    }

    pub fn create_channel(&mut self, topic: &str, channel: &str) {
        self.create(Registration::channel(topic, channel));
        self.create_topic(topic);
    }

    fn create(&mut self, registration: Registration) {
        self.registrations.entry(registration.clone()).or_default();
        self.kept.insert(registration);
    }

    pub fn release(&mut self, topic: &str, channel: Option<&str>) {
        let channel = channel.map(|channel| Registration::channel(topic, channel));
        self.kept.remove(&channel.unwrap_or_else(|| Registration::topic(topic)));
    }

    pub fn delete_topic(&mut self, topic: &str) -> bool {
        let before = self.registrations.len();
        self.registrations.retain(|registration, _| {
            !registration.is_match("channel", topic, "*") && !registration.is_match("topic", topic, "")
        });
        self.registrations.len() < before
    }

    pub fn delete_channel(&mut self, topic: &str, channel: &str) -> bool {
        self.registrations.remove(&Registration::channel(topic, channel)).is_some()
    }

    pub fn tombstone(&mut self, topic: &str, node: &str, at: &Moment) -> usize {
        let Some(producers) = self.registrations.get_mut(&Registration::topic(topic)) else { return 0 };
        let mut hit = 0;
        for (&producer, element) in producers {
            let info = &at.peers[producer].info;
            if format!("{}:{}", info.broadcast_address, info.http_port) == node {
                element.tombstoned_at = Some(at.now);
                hit += 1;
            }
        }
        hit
    }

    /// True as well where it was inherited.
    fn add(&mut self, registration: Registration, producer: Serial) -> bool {
        let producers = self.registrations.entry(registration).or_default();
        let is_own = producers.get(&producer).is_some_and(|element| !element.is_inherited);
        producers.entry(producer).or_default().is_inherited = false;
        !is_own
    }

    /// An ephemeral registration goes with its last producer, or when it had none.
    fn remove(&mut self, registration: &Registration, producer: Serial) -> bool {
        let Some(producers) = self.registrations.get_mut(registration) else { return false };
        let removed = producers.remove(&producer).is_some();
        let name = if registration.category == "topic" { &registration.key } else { &registration.subkey };
        if producers.is_empty() && name.ends_with("#ephemeral") {
            self.registrations.remove(registration);
        }
        removed
    }
}

/// How names are forgotten, which stock does not do.
impl Model {
    /// To be called after each change.
    pub fn note_unused(&mut self, now: Timestamp, lifetimes: Lifetimes) {
        let Self { registrations, kept, unused, .. } = self;
        kept.retain(|registration| registrations.contains_key(registration));
        let is_unused = |registration: &Registration| {
            let has_none = registrations.get(registration).is_some_and(BTreeMap::is_empty);
            has_none && registration.category != "client" && !kept.contains(registration)
        };
        unused.retain(|registration, _| is_unused(registration));
        for registration in registrations.keys().filter(|registration| is_unused(registration)) {
            unused.entry(registration.clone()).or_insert_with(|| registration.expiry(now, lifetimes));
        }
    }

    /// Forgets what is due, topics with their channels, and returns how many they were.
    pub fn forget_unused(&mut self, now: Timestamp, lifetimes: Lifetimes) -> Registered {
        let due = |(registration, &expiry): (&Registration, &Option<Timestamp>)| {
            expiry.filter(|&at| at <= now).map(|_| registration.clone())
        };
        let (topics, channels): (Vec<_>, Vec<_>) =
            self.unused.iter().filter_map(due).partition(|registration| registration.category == "topic");
        let mut count = Registered::default();
        for topic in topics {
            if self.kept.iter().any(|kept| kept.is_match("channel", &topic.key, "*")) {
                let expiry = topic.expiry(now, lifetimes);
                self.unused.insert(topic, expiry);
                continue;
            }
            count.topics += 1;
            count.channels += self.find("channel", &topic.key, "*").count();
            self.delete_topic(&topic.key);
        }
        for channel in channels {
            count.channels += usize::from(self.delete_channel(&channel.key, &channel.subkey));
        }
        count
    }

    /// When the next name is due.
    pub fn next_expiry(&self) -> Option<Timestamp> {
        self.unused.values().copied().flatten().min()
    }
}

/// The answers. Where stock takes `*`, so do these.
impl Model {
    /// Whether a producer is listed: it, or its restored registrations, are not silent for too long.
    fn is_active(&self, producer: Serial, at: &Moment) -> bool {
        let (peer, lifetimes) = (&at.peers[producer], at.lifetimes);
        let is_newer = |other: Serial| {
            let other_peer = &at.peers[other];
            other > producer && !other_peer.is_expected() && other_peer.is_same_node(peer)
        };
        let is_superseded =
            !lifetimes.supersede_silent.is_zero() && !peer.is_expected() && self.clients().any(is_newer);
        let inactive = lifetimes.inactive_producer_timeout;
        let silence = if is_superseded { inactive.min(lifetimes.supersede_silent) } else { inactive };
        at.age(peer.last_update) <= silence.as_nanos() && peer.expected_until.is_none_or(|until| at.now <= until)
    }

    /// Null for a topic that is not there.
    pub fn lookup(&self, topic: &str, at: &Moment) -> Value {
        if self.find("topic", topic, "").next().is_none() {
            return Value::Null;
        }
        let visible = |&(_, element): &(Serial, _)| !at.is_tombstoned(element);
        let mut producers: Vec<Serial> = self
            .find("topic", topic, "")
            .flat_map(|(_, producers)| producers.iter().map(|(&producer, &element)| (producer, element)))
            .filter(visible)
            .map(|(producer, _)| producer)
            .filter(|&producer| self.is_active(producer, at))
            .collect();
        producers.sort_unstable();
        producers.dedup();
        let producers: Vec<_> = producers.into_iter().map(|producer| peer(&at.peers[producer])).collect();
        json!({ "channels": self.channel_names(topic), "producers": producers })
    }

    pub fn channels(&self, topic: &str) -> Value {
        json!({ "channels": self.channel_names(topic) })
    }

    pub fn topics(&self) -> Value {
        let topics: Vec<_> = self.find("topic", "*", "").map(|(registration, _)| &registration.key).collect();
        json!({ "topics": topics })
    }

    pub fn nodes(&self, at: &Moment) -> Value {
        let nodes: Vec<_> = self
            .clients()
            .filter(|&producer| self.is_active(producer, at))
            .map(|producer| {
                let (topics, tombstones): (Vec<_>, Vec<_>) = self
                    .find("topic", "*", "")
                    .filter_map(|(topic, producers)| Some((&topic.key, *producers.get(&producer)?)))
                    .map(|(topic, element)| (topic, at.is_tombstoned(element)))
                    .unzip();
                let mut node = peer(&at.peers[producer]);
                node["topics"] = json!(topics);
                node["tombstones"] = json!(tombstones);
                node
            })
            .collect();
        json!({ "producers": nodes })
    }

    pub fn debug(&self, at: &Moment) -> Value {
        self.registrations
            .iter()
            .filter(|(_, producers)| !producers.is_empty())
            .map(|(Registration { category, key, subkey }, producers)| {
                let producers: Vec<_> = producers
                    .iter()
                    .map(|(&producer, element)| debug_producer(&at.peers[producer], element.tombstoned_at))
                    .collect();
                (format!("{category}:{key}:{subkey}"), Value::Array(producers))
            })
            .collect()
    }

    /// The earliest end, after now, of a tombstone in this topic.
    pub fn next_tombstone_end(&self, topic: &str, at: &Moment) -> Option<Timestamp> {
        let producers = self.registrations.get(&Registration::topic(topic))?;
        let tombstones = producers.values().filter_map(|element| element.tombstoned_at);
        let ends = tombstones.map(|tombstone| tombstone.after(at.lifetimes.tombstone_lifetime));
        ends.filter(|&end| end > at.now).min()
    }

    fn channel_names(&self, topic: &str) -> Value {
        self.find("channel", topic, "*").map(|(registration, _)| registration.subkey.as_str()).collect()
    }

    pub fn find<'a>(
        &'a self,
        category: &'a str,
        key: &'a str,
        subkey: &'a str,
    ) -> impl Iterator<Item = (&'a Registration, &'a BTreeMap<Serial, Element>)> {
        self.registrations.iter().filter(move |(registration, _)| registration.is_match(category, key, subkey))
    }
}

fn peer(peer: &Peer) -> Value {
    let info = &peer.info;
    json!({
        "remote_address": peer.remote_address,
        "hostname": info.hostname,
        "broadcast_address": info.broadcast_address,
        "tcp_port": info.tcp_port,
        "http_port": info.http_port,
        "version": info.version,
        "topology_zone": info.topology_zone,
        "topology_region": info.topology_region,
    })
}

fn debug_producer(peer: &Peer, tombstoned_at: Option<Timestamp>) -> Value {
    let info = &peer.info;
    json!({
        "id": peer.remote_address,
        "hostname": info.hostname,
        "broadcast_address": info.broadcast_address,
        "tcp_port": info.tcp_port,
        "http_port": info.http_port,
        "version": info.version,
        "last_update": peer.last_update.nanos(),
        "tombstoned": tombstoned_at.is_some(),
        // The zero of Go's time.Time, in nanoseconds as far as they fit.
        "tombstoned_at": tombstoned_at.map_or(-6_795_364_578_871_345_152, Timestamp::nanos),
        "topology_zone": info.topology_zone,
        "topology_region": info.topology_region,
    })
}
