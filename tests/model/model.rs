//! Stock's registry: one plain map, walked whole for each question (nsqlookupd's `registration_db.go`, with
//! what `lookup_protocol_v1.go` and `http.go` do to it).

use std::collections::BTreeMap;

use ringlookupd::clock::Timestamp;
use ringlookupd::registry::{Changed, Lifetimes, PeerInfo};
use serde_json::{Value, json};

/// The how-manieth producer to identify, which is its place among the [`Moment`]'s peers.
pub type Serial = usize;

/// What is registered, and by whom. An element is the producer with its tombstone.
#[derive(Clone, Default)]
pub struct Model(BTreeMap<Registration, BTreeMap<Serial, Option<Timestamp>>>);

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Registration {
    category: &'static str,
    key: String,
    subkey: String,
}

impl Registration {
    fn client() -> Self {
        Self { category: "client", key: String::new(), subkey: String::new() }
    }

    fn topic(topic: &str) -> Self {
        Self { category: "topic", key: topic.into(), subkey: String::new() }
    }

    fn channel(topic: &str, channel: &str) -> Self {
        Self { category: "channel", key: topic.into(), subkey: channel.into() }
    }

    fn is_match(&self, category: &str, key: &str, subkey: &str) -> bool {
        self.category == category && (key == "*" || self.key == key) && (subkey == "*" || self.subkey == subkey)
    }
}

/// A producer that identified. It stays after its disconnect, for those who still look at the past.
pub struct Peer {
    pub remote_address: String,
    pub info: PeerInfo,
    pub last_update: Timestamp,
}

/// What an answer depends on beside the registrations.
#[derive(Clone, Copy)]
pub struct Moment<'a> {
    pub peers: &'a [Peer],
    pub lifetimes: Lifetimes,
    pub now: Timestamp,
}

impl Moment<'_> {
    fn is_active(&self, producer: Serial) -> bool {
        self.age(self.peers[producer].last_update) <= self.lifetimes.inactive_producer_timeout.as_nanos()
    }

    fn is_tombstoned(&self, tombstoned_at: Option<Timestamp>) -> bool {
        tombstoned_at.is_some_and(|at| self.age(at) < self.lifetimes.tombstone_lifetime.as_nanos())
    }

    fn age(&self, at: Timestamp) -> u128 {
        u128::try_from(self.now.nanos() - at.nanos()).expect("time goes forward")
    }
}

/// The changes, as the commands and requests of these names make them.
impl Model {
    pub fn identify(&mut self, producer: Serial) {
        self.add(Registration::client(), producer);
    }

    pub fn disconnect(&mut self, producer: Serial) -> usize {
        let mut topics = 0;
        for (registration, producers) in &mut self.0 {
            let removed = producers.remove(&producer).is_some();
            topics += usize::from(removed && registration.category == "topic");
        }
        topics
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
        for (registration, producers) in &mut self.0 {
            if registration.is_match("channel", topic, "*") {
                channels += usize::from(producers.remove(&producer).is_some());
            }
        }
        Changed { topic: self.remove(&Registration::topic(topic), producer), channels }
    }

    pub fn create_topic(&mut self, topic: &str) {
        self.0.entry(Registration::topic(topic)).or_default();
    }

    pub fn create_channel(&mut self, topic: &str, channel: &str) {
        self.0.entry(Registration::channel(topic, channel)).or_default();
        self.create_topic(topic);
    }

    pub fn delete_topic(&mut self, topic: &str) -> bool {
        let before = self.0.len();
        self.0.retain(|registration, _| {
            !registration.is_match("channel", topic, "*") && !registration.is_match("topic", topic, "")
        });
        self.0.len() < before
    }

    pub fn delete_channel(&mut self, topic: &str, channel: &str) -> bool {
        self.0.remove(&Registration::channel(topic, channel)).is_some()
    }

    pub fn tombstone(&mut self, topic: &str, node: &str, at: &Moment) -> usize {
        let Some(producers) = self.0.get_mut(&Registration::topic(topic)) else { return 0 };
        let mut hit = 0;
        for (&producer, tombstone) in producers {
            let info = &at.peers[producer].info;
            if format!("{}:{}", info.broadcast_address, info.http_port) == node {
                *tombstone = Some(at.now);
                hit += 1;
            }
        }
        hit
    }

    fn add(&mut self, registration: Registration, producer: Serial) -> bool {
        let producers = self.0.entry(registration).or_default();
        let is_new = !producers.contains_key(&producer);
        producers.entry(producer).or_insert(None);
        is_new
    }

    /// An ephemeral registration goes with its last producer, or when it had none.
    fn remove(&mut self, registration: &Registration, producer: Serial) -> bool {
        let Some(producers) = self.0.get_mut(registration) else { return false };
        let removed = producers.remove(&producer).is_some();
        let name = if registration.category == "topic" { &registration.key } else { &registration.subkey };
        if producers.is_empty() && name.ends_with("#ephemeral") {
            self.0.remove(registration);
        }
        removed
    }
}

/// The answers. Where stock takes `*`, so do these.
impl Model {
    /// Null for a topic that is not there.
    pub fn lookup(&self, topic: &str, at: &Moment) -> Value {
        if self.find("topic", topic, "").next().is_none() {
            return Value::Null;
        }
        let visible = |&(_, tombstone): &(Serial, _)| !at.is_tombstoned(tombstone);
        let mut producers: Vec<Serial> = self
            .find("topic", topic, "")
            .flat_map(|(_, producers)| producers.iter().map(|(&producer, &tombstone)| (producer, tombstone)))
            .filter(visible)
            .map(|(producer, _)| producer)
            .filter(|&producer| at.is_active(producer))
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
        let clients = self.0.get(&Registration::client()).into_iter().flat_map(BTreeMap::keys);
        let nodes: Vec<_> = clients
            .filter(|&&producer| at.is_active(producer))
            .map(|&producer| {
                let (topics, tombstones): (Vec<_>, Vec<_>) = self
                    .find("topic", "*", "")
                    .filter_map(|(topic, producers)| Some((&topic.key, *producers.get(&producer)?)))
                    .map(|(topic, tombstone)| (topic, at.is_tombstoned(tombstone)))
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
        self.0
            .iter()
            .filter(|(_, producers)| !producers.is_empty())
            .map(|(Registration { category, key, subkey }, producers)| {
                let producers: Vec<_> = producers
                    .iter()
                    .map(|(&producer, &tombstone)| debug_producer(&at.peers[producer], tombstone))
                    .collect();
                (format!("{category}:{key}:{subkey}"), Value::Array(producers))
            })
            .collect()
    }

    /// The earliest end, after now, of a tombstone in this topic.
    pub fn next_tombstone_end(&self, topic: &str, at: &Moment) -> Option<Timestamp> {
        let producers = self.0.get(&Registration::topic(topic))?;
        let ends = producers.values().flatten().map(|tombstone| tombstone.after(at.lifetimes.tombstone_lifetime));
        ends.filter(|&end| end > at.now).min()
    }

    fn channel_names(&self, topic: &str) -> Value {
        self.find("channel", topic, "*").map(|(registration, _)| registration.subkey.as_str()).collect()
    }

    fn find<'a>(
        &'a self,
        category: &'a str,
        key: &'a str,
        subkey: &'a str,
    ) -> impl Iterator<Item = (&'a Registration, &'a BTreeMap<Serial, Option<Timestamp>>)> {
        self.0.iter().filter(move |(registration, _)| registration.is_match(category, key, subkey))
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
