//! A producer: one nsqd, which is one identified connection.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard};

use serde::{Deserialize, Serialize};

use super::names::{ProducerId, TopicId};
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
    /// The topics that it registered, each once, in no order. No lookup reads them. (For 500 topics a tree took
    /// longer, and twice the memory; a copy for each batch a third of the time of a commit.)
    topics: Mutex<Vec<TopicId>>,
    /// Whether it was ever tombstoned in some topic: for most, none needs to be asked.
    pub(super) was_tombstoned: AtomicBool,
    /// How many channels it registered. The writer's alone.
    pub(super) channels: AtomicUsize,
    /// `host:port` of the connection, whatever the body said.
    remote_address: Box<str>,
    info: PeerInfo,
}

impl Producer {
    pub fn new(id: ProducerId, remote_address: String, info: PeerInfo, now: Timestamp) -> Self {
        let object = object(&remote_address, &info).into_boxed_slice();
        let last_update = AtomicI64::new(now.nanos());
        Self {
            id,
            remote_address: remote_address.into_boxed_str(),
            info,
            object,
            last_update,
            topics: Mutex::default(),
            channels: AtomicUsize::new(0),
            was_tombstoned: AtomicBool::new(false),
        }
    }

    pub fn id(&self) -> ProducerId {
        self.id
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

    /// What it has registered, under the writer lock.
    pub(super) fn registered(&self) -> Registered {
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
