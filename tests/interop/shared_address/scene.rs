//! A real etcd, three instances that share what they know through it, and HAProxy in front of them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use ringlookupd::io::Backend;
use rustix::process::Signal;
use serde_json::Value;

use super::balancer::Balancer;
use crate::both_drivers::missing;
use crate::cluster::{Lookupd, Nsqd, addresses, tcp_addresses};
use crate::etcd::{self, Etcd};
use crate::programs::Programs;
use crate::wait;

/// The instances, as HAProxy and the others call them.
pub const NAMES: [&str; 3] = ["one", "two", "three"];

const PREFIX: &str = "interop";

/// Everybody but nsqds and consumers.
pub struct Scene {
    pub programs: Programs,
    pub balancer: Balancer,
    /// Declared before etcd, and so gone before it.
    pub instances: [Lookupd; 3],
    etcd: Etcd,
}

/// What etcd has of an nsqd.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Record {
    pub incarnation: String,
    pub nsqd: SocketAddr,
}

impl Scene {
    /// `None` where a program is not there; the test is then to return at once.
    pub fn start() -> Option<Self> {
        Self::start_as(|etcd, nth| start(Some(etcd), nth, &[]))
    }

    /// The same, but that the instances do not know each other.
    pub fn independent() -> Option<Self> {
        Self::start_as(|_, nth| start(None, nth, &[]))
    }

    fn start_as(start: impl Fn(&Etcd, usize) -> Lookupd) -> Option<Self> {
        let programs = Programs::find()?;
        let etcd = Etcd::start(&etcd::programs()?);
        let instances = [0, 1, 2].map(|nth| start(&etcd, nth));
        let balancer = Balancer::start(instances.each_ref())?;
        let scene = Self { programs, balancer, instances, etcd };
        scene.balancer.await_up(&NAMES);
        Some(scene)
    }

    /// An nsqd that knows HAProxy's address alone.
    pub fn nsqd(&self) -> Nsqd {
        self.nsqd_with(&[])
    }

    pub fn nsqd_with(&self, args: &[&str]) -> Nsqd {
        Nsqd::start_at(&self.programs, &[self.balancer.tcp], args)
    }

    /// So many of them, with this topic. Returns when every instance lists them.
    pub fn nsqds<const COUNT: usize>(&self, topic: &str) -> [Nsqd; COUNT] {
        let nsqds = [(); COUNT].map(|()| self.nsqd());
        for nsqd in &nsqds {
            nsqd.create_topic(topic);
        }
        for instance in &self.instances {
            instance.await_producers(topic, &nsqds.iter().collect::<Vec<_>>());
        }
        nsqds
    }

    /// Stops an instance as an operator does, once HAProxy sends nobody there any more.
    pub fn remove(&mut self, name: &str, left: &[&str]) {
        let instance = &mut self.instances[position(name)];
        instance.server.signal(Signal::TERM);
        self.balancer.await_up(left);
        let status = instance.server.wait_for_exit(wait::PATIENCE).expect("it ends");
        assert!(status.success(), "{name}: {status}; its log:\n{}", instance.server.log());
    }

    /// Starts an instance that was removed, on the ports that it had, as a part of the cluster.
    pub fn add(&mut self, name: &str) {
        self.instances[position(name)] = self.started_again(name, Some(&self.etcd));
    }

    /// The same, but alone.
    pub fn add_alone(&mut self, name: &str) {
        self.instances[position(name)] = self.started_again(name, None);
    }

    fn started_again(&self, name: &str, etcd: Option<&Etcd>) -> Lookupd {
        let nth = position(name);
        let Lookupd { tcp, http, .. } = self.instances[nth];
        start(etcd, nth, &[format!("-tcp-address={tcp}"), format!("-http-address={http}")])
    }

    /// Deletes all that instances have written to etcd.
    pub fn clear_etcd(&self) {
        self.etcd.ctl(&["del", "--prefix", &format!("{PREFIX}/v1/")]);
    }

    /// Ends an instance with SIGKILL.
    pub fn kill(&mut self, name: &str) {
        self.instances[position(name)].kill();
    }

    /// All instances but one.
    pub fn others(&self, name: &str) -> impl Iterator<Item = &Lookupd> {
        let own = position(name);
        self.instances.iter().enumerate().filter(move |(nth, _)| *nth != own).map(|(_, instance)| instance)
    }

    /// What etcd has of instances that live: the name of each by its incarnation.
    pub fn alive(&self) -> BTreeMap<String, String> {
        let pairs = self.pairs("i/").into_iter();
        pairs.map(|(key, value)| (key, value["name"].as_str().expect("a name").to_owned())).collect()
    }

    /// What etcd has of nsqds.
    pub fn records(&self) -> BTreeSet<Record> {
        let pairs = self.pairs("p/").into_iter();
        pairs
            .map(|(key, value)| Record {
                incarnation: key.split('/').next().expect("it has one").to_owned(),
                nsqd: *addresses(&Value::Array(vec![value["node"].clone()])).first().expect("an nsqd"),
            })
            .collect()
    }

    /// By how many connections of nsqds etcd has a topic registered: an nsqd may have several to one instance.
    pub fn registrations(&self, topic: &str) -> usize {
        self.pairs("p/").iter().filter(|(_, record)| record["topics"].get(topic).is_some()).count()
    }

    /// Waits until etcd has one record of each nsqd, of an instance that lives. Returns the name of the instance of each.
    pub fn await_settled(&self, nsqds: &[&Nsqd]) -> BTreeMap<SocketAddr, String> {
        wait::until_within(super::COMES_BACK_WITHIN, "each nsqd at one instance", || {
            let (alive, records) = (self.alive(), self.records());
            let homes: BTreeMap<_, _> = records
                .iter()
                .filter_map(|Record { incarnation, nsqd }| Some((*nsqd, alive.get(incarnation)?.clone())))
                .collect();
            let is_settled = records.len() == nsqds.len() && homes.keys().copied().eq(tcp_addresses(nsqds));
            if is_settled { Ok(homes) } else { Err(format!("{records:?} of {alive:?}")) }
        })
    }

    /// The keys behind a prefix, and their values.
    fn pairs(&self, kind: &str) -> Vec<(String, Value)> {
        let prefix = format!("{PREFIX}/v1/{kind}");
        let text = self.etcd.ctl(&["get", "--prefix", &prefix]);
        let lines: Vec<_> = text.lines().collect();
        let pairs = lines.chunks_exact(2).map(|pair| {
            let key = pair[0].strip_prefix(&prefix).expect("it was asked for").to_owned();
            (key, serde_json::from_str(pair[1]).expect("small values are JSON"))
        });
        pairs.collect()
    }
}

fn start(etcd: Option<&Etcd>, nth: usize, flags: &[String]) -> Lookupd {
    let backend = [Backend::Uring, Backend::Epoll, Backend::Uring][nth];
    let backend = if missing(backend).is_some() { Backend::Epoll } else { backend };
    // Longer than HAProxy's checks take.
    let mut own = vec!["-shutdown-delay=2s".to_owned(), "-log-level=info".to_owned()];
    if let Some(etcd) = etcd {
        own.push(format!("-cluster={}/{PREFIX}", etcd.address()));
        own.push(format!("-cluster-node={}", NAMES[nth]));
    } else {
        // Tests wait for nsqds themselves.
        own.push("-warm-up=1s".to_owned());
    }
    Lookupd::start_with(backend, &[own.as_slice(), flags].concat())
}

fn position(name: &str) -> usize {
    NAMES.iter().position(|known| *known == name).expect("one of the three")
}
