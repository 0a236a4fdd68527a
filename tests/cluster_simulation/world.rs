//! Instances, nsqds that connect to them, and the way to etcd in between.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use ringlookupd::clock::Timestamp;
use ringlookupd::cluster::Status;
use ringlookupd::cluster::keys::Keys;
use ringlookupd::cluster::member::{Member, Settings};
use ringlookupd::cluster::notes::Notes;
use ringlookupd::cluster::record::Instance;
use ringlookupd::cluster::store::{Failure, Incoming, Lane, Request, Revision, Store, Watched};
use ringlookupd::log::Log;
use ringlookupd::registry::{
    Change, Lifetimes, Name, PeerInfo, Producer, ProducerId, Registry, Source, Visibility,
};

use super::etcd::Etcd;

/// What an instance has asked and not been answered, and its watch.
#[derive(Default)]
pub struct Wire {
    asked: Vec<(Lane, Request)>,
    answers: VecDeque<Incoming>,
    watch: Option<Watch>,
}

struct Watch {
    number: u64,
    from: Revision,
    has_begun: bool,
}

/// The end of an instance.
pub struct Line(Rc<RefCell<Wire>>);

impl Store for Line {
    fn ask(&mut self, lane: Lane, request: Request) {
        let mut wire = self.0.borrow_mut();
        assert!(wire.asked.iter().all(|(other, _)| *other != lane), "one request is under way on a lane");
        wire.asked.push((lane, request));
    }

    fn watch(&mut self, number: u64, _prefix: &str, from: Revision) {
        self.0.borrow_mut().watch = Some(Watch { number, from, has_begun: false });
    }

    fn stop_watch(&mut self) {
        self.0.borrow_mut().watch = None;
    }
}

/// Topics, each with its channels.
pub type Topics = BTreeMap<String, BTreeSet<String>>;

/// An nsqd: what it registers at each connection.
pub struct Nsqd {
    pub name: String,
    pub topics: Topics,
    /// The instance that it is connected to, and its connection there.
    pub at: Option<(usize, Arc<Producer>)>,
    /// When etcd last had a record of it, of an instance that it took for alive.
    vouched_at: Duration,
}

/// An instance.
pub struct Node {
    pub registry: Arc<Registry>,
    pub member: Member<Line>,
    wire: Rc<RefCell<Wire>>,
    pub incarnation: String,
    /// Its clock differs from that of the world.
    offset: Duration,
    /// It lists what it knew for as long as it is cut off.
    keeps_all: bool,
    /// It does not reach etcd.
    pub is_cut: bool,
    slots: u32,
}

pub struct World {
    pub rng: Rng,
    pub etcd: Etcd,
    pub now: Duration,
    pub nodes: Vec<Option<Node>>,
    pub nsqds: Vec<Nsqd>,
    started: u64,
    /// The nsqd of each record, by the part of the key that names its connection.
    connections: BTreeMap<String, usize>,
    /// Which nsqd each instance, by its start, has to list at every moment.
    expected: BTreeSet<(usize, String)>,
}

/// The nsqds of a dead instance, and records that etcd has lost, are listed for at least this time.
const GRACE: Duration = Duration::from_secs(59);
/// The same, where another instance may not have seen yet that they are there again.
const GRACE_BEHIND: Duration = Duration::from_secs(30);

pub fn name(text: &str) -> Name {
    Name::new(text.as_bytes()).expect("a valid name")
}

impl World {
    pub fn new(seed: u64, instances: usize, nsqds: usize) -> Self {
        let mut world = Self {
            rng: Rng::with_seed(seed),
            etcd: Etcd::new(),
            now: Duration::from_secs(1_700_000_000),
            nodes: Vec::new(),
            nsqds: Vec::new(),
            started: 0,
            connections: BTreeMap::new(),
            expected: BTreeSet::new(),
        };
        for _ in 0..instances {
            let node = world.start();
            world.nodes.push(Some(node));
        }
        for nth in 0..nsqds {
            let topics = Topics::new();
            world.nsqds.push(Nsqd { name: format!("nsqd{nth}"), topics, at: None, vouched_at: Duration::ZERO });
        }
        world
    }

    pub fn start(&mut self) -> Node {
        self.started += 1;
        let lifetimes = Lifetimes {
            // So long that nobody is silent: PINGs are the workers' matter.
            inactive_producer_timeout: Duration::from_secs(100_000_000),
            tombstone_lifetime: Duration::from_secs(45),
            ..Lifetimes::default()
        };
        let registry = Arc::new(Registry::new(lifetimes));
        let wire = Rc::<RefCell<Wire>>::default();
        let incarnation = format!("i{}", self.started);
        let offset = Duration::from_secs(3600 * (self.started % 3));
        // One of them forgets the others' producers soon when it is cut off.
        let stale = if self.started % 3 == 1 { Duration::from_secs(30) } else { Duration::ZERO };
        let settings = Settings {
            incarnation: incarnation.as_str().into(),
            instance: Instance { name: incarnation.as_str().into(), version: "0".into() },
            keys: Keys::new("test"),
            stale,
            is_kept: Box::new(|_| false),
        };
        let (notes, status) = (Arc::<Notes>::default(), Arc::<Status>::default());
        let now = timestamp(self.now + offset);
        let member = Member::new(
            Line(Rc::clone(&wire)),
            Arc::clone(&registry),
            notes,
            status,
            Log::disabled(),
            settings,
            now,
        );
        let keeps_all = stale.is_zero();
        Node { registry, member, wire, incarnation, offset, keeps_all, is_cut: false, slots: 0 }
    }

    pub fn living(&self) -> Vec<usize> {
        (0..self.nodes.len()).filter(|&at| self.nodes[at].is_some()).collect()
    }

    /// Makes a change at an instance, as a worker does.
    pub fn change(&mut self, at: usize, change: &Change) {
        let node = self.nodes[at].as_ref().expect("it lives");
        let now = timestamp(self.now + node.offset);
        node.registry.commit(|writer| writer.apply(change, now));
    }

    /// An nsqd connects to an instance, and registers all that it has.
    pub fn connect(&mut self, nsqd: usize, at: usize) {
        let node = self.nodes[at].as_mut().expect("it lives");
        node.slots += 1;
        let id = ProducerId::new(Source::Worker(0), node.slots, 0);
        let name = self.nsqds[nsqd].name.clone();
        let info = PeerInfo {
            broadcast_address: name.as_str().into(),
            tcp_port: 4150,
            http_port: 4151,
            ..PeerInfo::default()
        };
        let now = timestamp(self.now + node.offset);
        let producer =
            Arc::new(Producer::new(id, format!("{name}:{}:{}", node.incarnation, node.slots), info, now));
        self.connections.insert(format!("{}/{:x}", node.incarnation, id.to_bits()), nsqd);
        self.change(at, &Change::Identify(Arc::clone(&producer)));
        for (topic, channels) in self.nsqds[nsqd].topics.clone() {
            self.register(at, &producer, &topic, channels.iter().map(String::as_str));
        }
        self.nsqds[nsqd].at = Some((at, producer));
    }

    pub fn register<'a>(
        &mut self,
        at: usize,
        producer: &Arc<Producer>,
        topic: &str,
        channels: impl Iterator<Item = &'a str>,
    ) {
        let all = [None].into_iter().chain(channels.map(Some));
        for channel in all {
            let change = Change::Register {
                producer: Arc::clone(producer),
                topic: name(topic),
                channel: channel.map(name),
            };
            self.change(at, &change);
        }
    }

    pub fn disconnect(&mut self, nsqd: usize) {
        if let Some((at, producer)) = self.nsqds[nsqd].at.take()
            && self.nodes[at].is_some()
        {
            self.change(at, &Change::Disconnect(producer));
        }
        self.expected.retain(|(expected, _)| *expected != nsqd);
    }

    /// An instance is gone at once. Its nsqds notice.
    pub fn kill(&mut self, at: usize) {
        self.nodes[at] = None;
        for nsqd in &mut self.nsqds {
            if nsqd.at.as_ref().is_some_and(|(its, _)| *its == at) {
                nsqd.at = None;
            }
        }
    }

    /// Something happens on the way to etcd or back, or an instance does what is due. `is_calm` is without losses.
    ///
    /// # Panics
    /// If the instance does not list an nsqd any more that is connected.
    pub fn happen(&mut self, is_calm: bool) {
        let at = self.happen_somewhere(is_calm);
        self.check_listed(at);
    }

    fn happen_somewhere(&mut self, is_calm: bool) -> usize {
        let living = self.living();
        let at = living[self.rng.usize(..living.len())];
        let Self { rng, etcd, now, nodes, .. } = self;
        let node = nodes[at].as_mut().expect("it lives");
        let local = timestamp(*now + node.offset);
        let mut wire = node.wire.borrow_mut();
        match rng.u32(..4) {
            0 => {
                let count = wire.asked.len();
                if count > 0 {
                    let (lane, request) = wire.asked.remove(rng.usize(..count));
                    let is_lost = !is_calm && rng.u32(..20) == 0;
                    let answer = if node.is_cut {
                        Err(Failure::Unreachable("cut".into()))
                    } else if is_lost && rng.bool() {
                        Err(Failure::TimedOut)
                    } else {
                        let answer = etcd.ask(&request, *now);
                        if is_lost { Err(Failure::TimedOut) } else { answer }
                    };
                    wire.answers.push_back(Incoming::Answer(lane, answer));
                }
            }
            1 => {
                if let Some(incoming) = wire.answers.pop_front() {
                    drop(wire);
                    node.member.handle(incoming, local);
                }
            }
            2 => {
                if let Some(incoming) = watched(&mut wire, etcd, node.is_cut, !is_calm, rng) {
                    drop(wire);
                    node.member.handle(incoming, local);
                }
            }
            _ => {
                drop(wire);
                node.member.step(local);
            }
        }
        at
    }

    /// An nsqd that was listed stays so while it is connected to an instance that etcd takes for alive, and for the grace after that.
    fn check_listed(&mut self, at: usize) {
        let node = self.nodes[at].as_ref().expect("it lives");
        if !node.keeps_all {
            return;
        }
        let listed = self.producers(at);
        for (nth, nsqd) in self.nsqds.iter().enumerate() {
            let pair = (nth, node.incarnation.clone());
            let address = listed.get(&nsqd.name);
            let is_current = |address: &String| {
                nsqd.at.as_ref().is_some_and(|(_, producer)| producer.remote_address() == address)
            };
            if address.is_some_and(is_current) && nsqd.vouched_at == self.now {
                self.expected.insert(pair);
            } else if address.is_none() && self.expected.contains(&pair) {
                assert!(
                    self.now.saturating_sub(nsqd.vouched_at) >= GRACE,
                    "{} is not listed at {} any more, and was vouched for {:?} ago",
                    nsqd.name,
                    node.incarnation,
                    self.now.saturating_sub(nsqd.vouched_at)
                );
                self.expected.remove(&pair);
            }
        }
    }

    /// Notes for which nsqds etcd has a record of an instance that is alive.
    fn vouch(&mut self) {
        let Self { etcd, nsqds, expected, connections, now, .. } = self;
        for key in etcd.keys() {
            let Some(connection) = key.strip_prefix("test/v1/p/").and_then(|rest| rest.strip_suffix("/0")) else {
                continue;
            };
            let (incarnation, _) = connection.split_once('/').expect("an instance's record");
            let nth = connections[connection];
            if nsqds[nth].vouched_at == *now || !etcd.has(&format!("test/v1/i/{incarnation}")) {
                continue;
            }
            if now.saturating_sub(nsqds[nth].vouched_at) >= GRACE_BEHIND {
                expected.retain(|(expected, _)| *expected != nth);
            }
            nsqds[nth].vouched_at = *now;
        }
    }

    /// etcd loses its data, and its connections with them.
    pub fn wipe(&mut self) {
        self.etcd.wipe();
        for node in self.nodes.iter().flatten() {
            let mut wire = node.wire.borrow_mut();
            if let Some(Watch { number, .. }) = wire.watch.take() {
                wire.answers
                    .push_back(Incoming::Watched(number, Watched::Failed(Failure::Unreachable("reset".into()))));
            }
        }
    }

    pub fn pass(&mut self, time: Duration) {
        self.vouch();
        self.now += time;
        self.etcd.pass(self.now);
        self.vouch();
    }

    /// The address of the connection by which an instance lists each nsqd.
    fn producers(&self, at: usize) -> BTreeMap<String, String> {
        let node = self.nodes[at].as_ref().expect("it lives");
        let snapshot = node.registry.snapshot();
        let mut visibility = Visibility::new(snapshot.lifetimes(), timestamp(self.now + node.offset));
        let listed = snapshot.producers(None).filter(|producer| visibility.is_active(producer));
        listed
            .map(|producer| (producer.info().broadcast_address.to_string(), producer.remote_address().to_owned()))
            .collect()
    }

    /// What an instance lists: each node with its topics and channels.
    pub fn listed(&self, at: usize) -> BTreeMap<String, Topics> {
        let node = self.nodes[at].as_ref().expect("it lives");
        let snapshot = node.registry.snapshot();
        let mut visibility = Visibility::new(snapshot.lifetimes(), timestamp(self.now + node.offset));
        let mut listed = BTreeMap::new();
        for producer in snapshot.producers(None).filter(|producer| visibility.is_active(producer)) {
            let topics = snapshot.registered_by(producer).map(|(topic, channels)| {
                (topic.name().to_owned(), channels.map(|channel| channel.name().to_owned()).collect())
            });
            let before = listed.insert(producer.info().broadcast_address.to_string(), topics.collect::<Topics>());
            assert!(
                before.is_none(),
                "{} is listed twice at {}",
                producer.info().broadcast_address,
                node.incarnation
            );
        }
        listed
    }

    /// The topics that an instance lists, with or without producers.
    pub fn topics(&self, at: usize) -> BTreeSet<String> {
        let snapshot = self.nodes[at].as_ref().expect("it lives").registry.snapshot();
        snapshot
            .topics(0)
            .filter(|(_, topic)| topic.is_listed())
            .map(|(_, topic)| topic.name().to_owned())
            .collect()
    }

    pub fn is_settled(&self) -> bool {
        let settled = |node: &Node| node.member.is_settled() && node.member.revision() == self.etcd.revision;
        self.nodes.iter().flatten().all(settled)
    }
}

fn timestamp(at: Duration) -> Timestamp {
    Timestamp::from_nanos(i64::try_from(at.as_nanos()).expect("a time of these centuries"))
}

/// The next thing that a watch reports.
fn watched(wire: &mut Wire, etcd: &Etcd, is_cut: bool, may_fail: bool, rng: &mut Rng) -> Option<Incoming> {
    let watch = wire.watch.as_mut()?;
    if is_cut {
        return None;
    }
    let number = watch.number;
    let (watched, ends) = if may_fail && rng.u32(..200) == 0 {
        (Watched::Failed(Failure::Unreachable("reset".into())), true)
    } else if !watch.has_begun {
        watch.has_begun = true;
        match etcd.watch(watch.from) {
            Ok(begun) => (begun, false),
            Err(compacted) => (compacted, true),
        }
    } else {
        match etcd.changes(watch.from, rng.usize(1..4)) {
            Ok(None) => return None,
            Ok(Some((changed, next))) => {
                watch.from = next;
                (changed, false)
            }
            Err(compacted) => (compacted, true),
        }
    };
    if ends {
        wire.watch = None;
    }
    Some(Incoming::Watched(number, watched))
}
