//! Registries of several sizes, in the shape of real clusters: every topic has one channel and ten producers, every
//! producer ten topics at least and five hundred at most.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use ringlookupd::clock::Timestamp;
use ringlookupd::registry::{
    Change, Changed, Lifetimes, Name, Outcome, PeerInfo, Producer, ProducerId, Registry, Source,
};

/// When everything happens: no producer lapses in the middle of a measurement.
pub const NOW: Timestamp = Timestamp::from_nanos(1_800_000_000_000_000_000);

/// Registrations, each of a topic with its channel: what one REGISTER sends.
pub const SIZES: [usize; 4] = [1_000, 10_000, 100_000, 1_000_000];

/// How many producers have the same topics.
const GROUP: usize = 10;

/// A prime, so that a group's topics lie all over the registry and none is met twice.
const STRIDE: usize = 7_919;

pub struct Population {
    pub registry: Arc<Registry>,
    pub topics: Vec<Name>,
    pub producers: Vec<Arc<Producer>>,
    groups: usize,
}

impl Population {
    /// The registry with so many registrations, one of [`SIZES`]: made by the first who asks and shared from then
    /// on. Whoever changes it leaves it as it was.
    pub fn of(registrations: usize) -> &'static Self {
        static SHARED: [OnceLock<Population>; SIZES.len()] = [const { OnceLock::new() }; SIZES.len()];
        let nth = SIZES.iter().position(|&size| size == registrations).expect("one of the sizes");
        SHARED[nth].get_or_init(|| Self::new(registrations))
    }

    /// A registry of its own.
    pub fn new(registrations: usize) -> Self {
        let topics: Vec<_> = (0..registrations / GROUP).map(topic).collect();
        let groups = (topics.len() / 500).max(10);
        let producers = (0..groups * GROUP).map(|nth| Arc::new(producer(0, nth))).collect();
        let population = Self { registry: Arc::new(empty()), topics, producers, groups };
        // Made in order, as by the first nsqd, so that the ids of a group's topics are no neighbours.
        let create = population.topics.iter().map(|&topic| Change::Create { topic, channel: None });
        let identify = population.producers.iter().map(|producer| Change::Identify(Arc::clone(producer)));
        let places = (0..population.topics.len()).flat_map(|at| (0..GROUP).map(move |nth| (at, nth)));
        let register = places
            .map(|(at, nth)| registration(population.member(population.group(at), nth), population.topic(at)));
        population.commit(&create.chain(identify).chain(register).collect::<Vec<_>>());
        population
    }

    /// The topic at a place of a walk that comes by every topic, group by group.
    fn topic(&self, at: usize) -> Name {
        self.topics[at * STRIDE % self.topics.len()]
    }

    fn group(&self, at: usize) -> usize {
        at / (self.topics.len() / self.groups)
    }

    fn member(&self, group: usize, nth: usize) -> &Arc<Producer> {
        &self.producers[group + self.groups * nth]
    }

    /// Different registrations that are not there, topic after topic. There are nine for each topic at least.
    pub fn missing(&self) -> impl Iterator<Item = (Arc<Producer>, Name)> + Clone {
        (0..self.topics.len() * (GROUP - 1)).map(|nth| {
            let at = nth % self.topics.len();
            let other_group = (self.group(at) + 1 + nth % (self.groups - 1)) % self.groups;
            (Arc::clone(self.member(other_group, nth % GROUP)), self.topic(at))
        })
    }

    /// One commit that adds the registrations.
    pub fn register(&self, registrations: &[(Arc<Producer>, Name)]) {
        let outcomes = self.commit(&registering(registrations));
        assert!(!outcomes.contains(&Outcome::Registered(Changed::default())), "it was missing");
    }

    /// One commit that takes the registrations back.
    pub fn unregister(&self, registrations: &[(Arc<Producer>, Name)]) {
        let unregister = |(producer, topic): &(Arc<Producer>, Name)| Change::Unregister {
            producer: Arc::clone(producer),
            topic: *topic,
            channel: None,
        };
        self.commit(&registrations.iter().map(unregister).collect::<Vec<_>>());
    }

    pub fn commit(&self, changes: &[Change]) -> Vec<Outcome> {
        self.registry.commit(|writer| writer.apply_all(changes, NOW))
    }
}

/// The changes that add the registrations.
pub fn registering(registrations: &[(Arc<Producer>, Name)]) -> Vec<Change> {
    registrations.iter().map(|(producer, topic)| registration(producer, *topic)).collect()
}

fn registration(producer: &Arc<Producer>, topic: Name) -> Change {
    Change::Register { producer: Arc::clone(producer), topic, channel: Some(channel()) }
}

pub fn empty() -> Registry {
    Registry::new(Lifetimes {
        inactive_producer_timeout: Duration::from_secs(5 * 60),
        tombstone_lifetime: Duration::from_secs(45),
        ..Lifetimes::default()
    })
}

pub fn topic(nth: usize) -> Name {
    Name::new(format!("topic-{nth:06}").as_bytes()).expect("valid")
}

pub fn channel() -> Name {
    Name::new(b"archive").expect("valid")
}

pub fn producer_id(worker: u32, nth: usize) -> ProducerId {
    ProducerId::new(Source::Worker(worker), nth.try_into().expect("below the limit of connections"), 0)
}

/// An nsqd that was heard of just now.
pub fn producer(worker: u32, nth: usize) -> Producer {
    let info = PeerInfo {
        hostname: format!("node-{nth}.example").into(),
        broadcast_address: format!("node-{nth}.example").into(),
        tcp_port: 4150,
        http_port: 4151,
        version: "1.3.0".into(),
        ..PeerInfo::default()
    };
    let peer = SocketAddr::from(([10, 0, 0, 1], 32_768 + u16::try_from(nth).expect("below 32,768")));
    Producer::new(producer_id(worker, nth), peer.to_string(), info, NOW)
}
