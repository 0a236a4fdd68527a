//! A producer: one nsqd, which is one identified connection.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::names::{ProducerId, Source, TopicId};
use super::tag::Tag;
use super::visibility::Lifetimes;
use crate::clock::Timestamp;
use crate::json;

/// What an nsqd says of itself in IDENTIFY.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerInfo {
    pub hostname: Box<str>,
    pub broadcast_address: Box<str>,
    pub tcp_port: i64,
    pub http_port: i64,
    pub version: Box<str>,
    pub topology_zone: Box<str>,
    pub topology_region: Box<str>,
}

/// A number of topics and of channels, in all or of one producer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Registered {
    pub topics: usize,
    pub channels: usize,
}

/// An identified nsqd. All snapshots share it: a PING reaches them without a new one. In C's order, so that what a
/// lookup reads of each producer is one cache line.
#[derive(Debug)]
#[repr(C)]
pub struct Producer {
    id: ProducerId,
    /// Nanoseconds of a [`Timestamp`].
    last_update: AtomicI64,
    /// See [`Producer::object`].
    object: Box<[u8]>,
    /// See [`Producer::newer`]; [`NONE`] where there is none.
    newer: AtomicU64,
    /// The end of the grace of one that was restored; `MAX` for every other.
    expected_until: Timestamp,
    /// Of the object.
    tag: Tag,
    /// The topics that it registered, each once, in no order. No lookup reads them. (For 500 topics a tree took
    /// longer, and twice the memory; a copy for each batch a third of the time of a commit.)
    topics: Mutex<Vec<TopicId>>,
    /// Whether it was ever tombstoned in some topic: for most, none needs to be asked.
    pub(super) was_tombstoned: AtomicBool,
    /// See [`Producer::is_hidden`].
    hidden: AtomicBool,
    /// How many channels it registered. The writer's alone.
    pub(super) channels: AtomicUsize,
    /// What it has taken over.
    inheritance: OnceLock<Inheritance>,
    /// Nanoseconds of the [`Timestamp`] since which it is active without a pause.
    active_since: AtomicI64,
    /// `host:port` of the connection, whatever the body said.
    remote_address: Box<str>,
    info: PeerInfo,
}

/// Registrations from before a restart that an nsqd has taken over and not made again yet. They are listed as its own, under an id
/// of their own, by which the end of the grace finds those that it has not made again.
#[derive(Debug)]
pub(super) struct Inheritance {
    pub(super) id: ProducerId,
    /// The producer that was restored, with the topics in which the id may be.
    pub(super) from: Arc<Producer>,
}

/// The bits of no producer's id.
const NONE: u64 = u64::MAX;

impl Producer {
    pub fn new(id: ProducerId, remote_address: String, info: PeerInfo, now: Timestamp) -> Self {
        let object = object(&remote_address, &info).into_boxed_slice();
        let (tag, last_update) = (Tag::of(&object), AtomicI64::new(now.nanos()));
        Self {
            id,
            remote_address: remote_address.into_boxed_str(),
            info,
            object,
            tag,
            last_update,
            newer: AtomicU64::new(NONE),
            expected_until: Timestamp::MAX,
            topics: Mutex::default(),
            channels: AtomicUsize::new(0),
            inheritance: OnceLock::new(),
            active_since: AtomicI64::new(now.nanos()),
            was_tombstoned: AtomicBool::new(false),
            hidden: AtomicBool::new(false),
        }
    }

    /// One from before a restart, which is listed until the grace is over.
    pub(super) fn restored(
        id: ProducerId,
        remote_address: &str,
        info: PeerInfo,
        last_update: Timestamp,
        grace_end: Timestamp,
    ) -> Self {
        Self { expected_until: grace_end, ..Self::new(id, remote_address.to_owned(), info, last_update) }
    }

    /// The same without topics, which has lost the nsqd that had taken it over.
    pub(super) fn restored_again(&self, id: ProducerId, heir: &Self) -> Self {
        let (info, seen) = (self.info.clone(), heir.last_update());
        let again = Self::restored(id, &self.remote_address, info, seen, self.expected_until);
        again.channels.store(self.channels.load(Ordering::Relaxed), Ordering::Relaxed);
        again.was_tombstoned.store(heir.was_tombstoned.load(Ordering::Relaxed), Ordering::Relaxed);
        again
    }

    pub fn id(&self) -> ProducerId {
        self.id
    }

    /// A newer producer of the same node, if this is not the newest. That one may be gone by now; there is a newer one then, too.
    pub fn newer(&self) -> Option<ProducerId> {
        let newer = self.newer.load(Ordering::Relaxed);
        (newer != NONE).then(|| ProducerId::from_bits(newer))
    }

    pub(super) fn set_newer(&self, newer: Option<ProducerId>) {
        self.newer.store(newer.map_or(NONE, ProducerId::to_bits), Ordering::Relaxed);
    }

    pub(super) fn inheritance(&self) -> Option<&Inheritance> {
        self.inheritance.get()
    }

    /// # Panics
    /// When it has taken over before: it identifies once.
    pub(super) fn inherit(&self, inheritance: Inheritance) {
        self.inheritance.set(inheritance).expect("an nsqd takes over when it identifies");
    }

    /// Whether it is from before a restart, and its nsqd not back.
    pub fn is_restored(&self) -> bool {
        self.id.source() == Source::Restored
    }

    /// Whether it is of another server.
    pub fn is_remote(&self) -> bool {
        self.id.source() == Source::Remote
    }

    /// Whether it is not listed, whatever its nsqd sends: another entry stands for its node, or its server says that it is silent.
    pub fn is_hidden(&self) -> bool {
        self.hidden.load(Ordering::Relaxed)
    }

    pub(super) fn set_hidden(&self, is_hidden: bool) {
        self.hidden.store(is_hidden, Ordering::Relaxed);
    }

    /// The producer under whose id something is registered: this, or that from which it was inherited.
    pub(super) fn registered_as(&self, id: ProducerId) -> &Self {
        match self.inheritance() {
            Some(Inheritance { id: inherited, from }) if *inherited == id => from,
            _ => self,
        }
    }

    /// The ids under which topics and channels may list it: its own, and that of what it has inherited.
    pub(super) fn ids(&self) -> impl Iterator<Item = ProducerId> {
        [self.id].into_iter().chain(self.inheritance().map(|inheritance| inheritance.id))
    }

    /// Whether an id in a topic or channel is listed as this producer.
    pub(super) fn is(&self, id: ProducerId) -> bool {
        self.id == id || self.inheritance().is_some_and(|inheritance| inheritance.id == id)
    }

    /// The last moment at which it is listed without another sign of life than its last, which was seen at this time.
    pub fn listed_until(&self, seen: Timestamp, lifetimes: &Lifetimes) -> Timestamp {
        if self.is_hidden() {
            return Timestamp::MIN;
        }
        if self.is_remote() {
            return Timestamp::MAX;
        }
        let Lifetimes { inactive_producer_timeout: inactive, supersede_silent, .. } = *lifetimes;
        let is_superseded = !supersede_silent.is_zero() && self.newer().is_some();
        let silence: Duration = if is_superseded { inactive.min(supersede_silent) } else { inactive };
        seen.after(silence).min(self.expected_until)
    }

    pub fn info(&self) -> &PeerInfo {
        &self.info
    }

    pub fn remote_address(&self) -> &str {
        &self.remote_address
    }

    /// Notes a sign of life and returns the one before. No lock, nothing published: relaxed is enough, as a
    /// reader that sees the older time answers what was true a moment ago.
    pub fn touch(&self, now: Timestamp) -> Timestamp {
        Timestamp::from_nanos(self.last_update.swap(now.nanos(), Ordering::Relaxed))
    }

    pub fn last_update(&self) -> Timestamp {
        Timestamp::from_nanos(self.last_update.load(Ordering::Relaxed))
    }

    /// Notes that it is active again after a silence.
    pub fn is_back(&self, now: Timestamp) {
        self.active_since.store(now.nanos(), Ordering::Relaxed);
    }

    /// Since when it is active without a pause, if it is: since its IDENTIFY, or the end of its last silence.
    pub fn active_since(&self) -> Timestamp {
        Timestamp::from_nanos(self.active_since.load(Ordering::Relaxed))
    }

    /// Whether a topic may have a tombstone of it.
    pub fn may_be_tombstoned(&self) -> bool {
        self.was_tombstoned.load(Ordering::Relaxed)
    }

    /// How much it has registered itself. Exact under the writer lock.
    pub fn registered(&self) -> Registered {
        Registered { topics: self.topics().len(), channels: self.channels.load(Ordering::Relaxed) }
    }

    /// The topics that it registered. The writer waits for whoever holds them, so keep them for one copy at most.
    ///
    /// # Panics
    /// When a thread panicked with the lock: what it left cannot be trusted.
    pub(super) fn topics(&self) -> MutexGuard<'_, Vec<TopicId>> {
        self.topics.lock().expect("no holder has panicked")
    }

    /// Its JSON object in a response to `/lookup`, rendered once; without the closing brace it begins the one in `/nodes`.
    pub fn object(&self) -> &[u8] {
        &self.object
    }

    /// That of its object.
    pub fn tag(&self) -> Tag {
        self.tag
    }

    /// Whether `/topic/tombstone` means this producer: `broadcast_address:http_port`, compared byte for byte but
    /// for brackets around the address. nsqadmin puts them around an IPv6 address, where stock takes none.
    pub(super) fn is_node(&self, node: &[u8]) -> bool {
        let Some(colon) = memchr::memrchr(b':', node) else { return false };
        let (host, port) = (&node[..colon], &node[colon + 1..]);
        port == self.info.http_port.to_string().as_bytes()
            && without_brackets(host) == without_brackets(self.info.broadcast_address.as_bytes())
    }

    /// What `/topic/tombstone` calls it, for the log.
    pub fn node(&self) -> String {
        format!("{}:{}", self.info.broadcast_address, self.info.http_port)
    }
}

/// An operator may have given an nsqd its address with brackets, to which nsqadmin adds another pair.
fn without_brackets(mut host: &[u8]) -> &[u8] {
    while let [b'[', inner @ .., b']'] = host {
        host = inner;
    }
    host
}

fn object(remote_address: &str, info: &PeerInfo) -> Vec<u8> {
    let mut out = Vec::with_capacity(256);
    out.extend_from_slice(b"{\"remote_address\":");
    json::string(&mut out, remote_address);
    out.extend_from_slice(b",\"hostname\":");
    json::string(&mut out, &info.hostname);
    out.extend_from_slice(b",\"broadcast_address\":");
    json::string(&mut out, &info.broadcast_address);
    json::field(&mut out, "tcp_port", info.tcp_port);
    json::field(&mut out, "http_port", info.http_port);
    out.extend_from_slice(b",\"version\":");
    json::string(&mut out, &info.version);
    out.extend_from_slice(b",\"topology_zone\":");
    json::string(&mut out, &info.topology_zone);
    out.extend_from_slice(b",\"topology_region\":");
    json::string(&mut out, &info.topology_region);
    out.push(b'}');
    out
}

#[cfg(test)]
mod tests {
    use super::super::names::Source;
    use super::*;

    fn producer() -> Producer {
        called("<b>")
    }

    fn called(broadcast_address: &str) -> Producer {
        let info = PeerInfo {
            broadcast_address: broadcast_address.into(),
            tcp_port: -1,
            http_port: 4151,
            version: "1.3.0".into(),
            ..PeerInfo::default()
        };
        Producer::new(ProducerId::new(Source::Worker(0), 0, 0), "1.2.3.4:5".into(), info, Timestamp::from_nanos(7))
    }

    #[test]
    fn objects_have_stocks_field_order_and_escapes() {
        let expected = r#"{"remote_address":"1.2.3.4:5","hostname":"","broadcast_address":"\u003cb\u003e","tcp_port":-1,"http_port":4151,"version":"1.3.0","topology_zone":"","topology_region":""}"#;
        assert_eq!(str::from_utf8(producer().object()).expect("UTF-8"), expected);
    }

    #[test]
    fn a_node_is_its_broadcast_address_and_http_port() {
        let producer = producer();
        assert!(producer.is_node(b"<b>:4151"));
        for other in ["<b>", "<b>:", "<b>:4150", "<B>:4151", "<b>:04151", "<b>:4151 ", ""] {
            assert!(!producer.is_node(other.as_bytes()), "{other}");
        }
    }

    /// What nsqadmin sends is Go's `net.JoinHostPort` of what the nsqd said; what stock takes has no brackets of its
    /// own.
    #[test]
    fn an_ipv6_node_is_found_with_and_without_brackets() {
        for (address, nodes) in [
            ("2001:db8::1", ["2001:db8::1:4151", "[2001:db8::1]:4151"]),
            ("[2001:db8::1]", ["[2001:db8::1]:4151", "[[2001:db8::1]]:4151"]),
            ("[2001:db8::1]", ["2001:db8::1:4151", "[2001:db8::1]:4151"]),
            ("fe80::1%eth0", ["fe80::1%eth0:4151", "[fe80::1%eth0]:4151"]),
            ("::", [":::4151", "[::]:4151"]),
        ] {
            for node in nodes {
                assert!(called(address).is_node(node.as_bytes()), "{address} is {node}");
            }
        }
        let producer = called("2001:db8::1");
        for other in [
            "[2001:db8::1]",
            "[2001:db8::1:4151",
            "2001:db8::1]:4151",
            "[2001:db8::1]:4150",
            "[2001:db8::1]4151",
            "[]:4151",
        ] {
            assert!(!producer.is_node(other.as_bytes()), "{other}");
        }
    }

    #[test]
    fn touching_returns_the_time_before() {
        let producer = producer();
        assert_eq!(producer.touch(Timestamp::from_nanos(9)), Timestamp::from_nanos(7));
        assert_eq!(producer.last_update(), Timestamp::from_nanos(9));
    }
}
