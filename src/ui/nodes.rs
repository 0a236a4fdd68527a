//! The producers in the order of their nodes, and what is to be seen of each.

use std::net::IpAddr;
use std::sync::Arc;

use super::object::Object;
use super::search::Lines;
use crate::clock::Timestamp;
use crate::limits::UI_LOOKED_AT;
use crate::registry::{Lifetimes, PeerInfo, Producer, Registered, Registry, Snapshot};

/// All producers, by broadcast address and port.
#[derive(Default)]
pub(super) struct Nodes {
    pub(super) all: Vec<Node>,
    /// What is searched of each.
    lines: Lines,
}

pub(super) struct Node {
    pub(super) producer: Arc<Producer>,
    /// Another producer has the same broadcast address and port.
    pub(super) is_doubled: bool,
    /// Its broadcast address leads whoever uses it to his own host.
    pub(super) is_loopback: bool,
}

/// Whether a producer is listed, and why not.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum State {
    Silent,
    /// An older connection of a node, which is silent.
    Superseded,
    /// From before a restart, and not back.
    Expected,
    Active,
    /// Listed, by way of another instance.
    Remote,
    /// Of another instance, and not listed: silent, or connected anew elsewhere.
    Hidden,
}

impl State {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Silent => "silent",
            Self::Superseded => "superseded",
            Self::Expected => "expected",
            Self::Active => "active",
            Self::Remote => "remote",
            Self::Hidden => "hidden",
        }
    }

    /// That of a producer, and since when.
    pub(super) fn of(producer: &Producer, lifetimes: &Lifetimes, now: Timestamp) -> (Self, Timestamp) {
        let last = producer.last_update();
        if producer.is_remote() {
            return (if producer.is_hidden() { Self::Hidden } else { Self::Remote }, last);
        }
        if producer.is_hidden() {
            return (Self::Superseded, last);
        }
        let until = producer.listed_until(last, lifetimes);
        if now <= until {
            let state = if producer.is_restored() { Self::Expected } else { Self::Active };
            return (state, producer.active_since());
        }
        let is_inactive = now > lifetimes.listed_until(last);
        (if is_inactive { Self::Silent } else { Self::Superseded }, until)
    }
}

impl Nodes {
    pub(super) fn make(registry: &Registry) -> Self {
        let snapshot = registry.snapshot();
        let mut producers: Vec<_> = snapshot.producers(None).cloned().collect();
        drop(snapshot);
        producers.sort_by(|a, b| key(a).cmp(&key(b)).then_with(|| a.id().cmp(&b.id())));
        let is_same = |at: usize, other: Option<usize>| {
            let other = other.and_then(|other| producers.get(other));
            other.is_some_and(|other| key(other) == key(&producers[at]))
        };
        let doubled = (0..producers.len()).map(|at| is_same(at, at.checked_sub(1)) || is_same(at, Some(at + 1)));
        let doubled: Vec<_> = doubled.collect();
        let mut nodes = Self::default();
        for (producer, is_doubled) in producers.into_iter().zip(doubled) {
            let PeerInfo {
                broadcast_address, tcp_port, hostname, version, topology_zone, topology_region, ..
            } = producer.info();
            let node = format!("{broadcast_address}:{tcp_port}");
            let client = producer.remote_address();
            let words: [&str; 6] = [&node, hostname, client, version, topology_zone, topology_region];
            nodes.lines.push(words.map(str::as_bytes));
            let is_loopback = leads_to_itself(broadcast_address);
            nodes.all.push(Node { producer, is_doubled, is_loopback });
        }
        nodes
    }

    /// The nodes that contain a text in what is searched of them.
    pub(super) fn containing(&self, text: &[u8]) -> impl Iterator<Item = &Node> {
        self.lines.containing(text).into_iter().map(|node| &self.all[node])
    }

    /// The producers of a node, by `broadcast_address:tcp_port`.
    pub(super) fn named<'a>(&'a self, node: &'a str) -> impl Iterator<Item = &'a Node> {
        let is_it = move |address: &str, port: i64| {
            let rest = node.strip_prefix(address).and_then(|rest| rest.strip_prefix(':'));
            rest.is_some_and(|rest| rest.parse() == Ok(port))
        };
        self.all
            .iter()
            .filter(move |node| is_it(&node.producer.info().broadcast_address, node.producer.info().tcp_port))
    }
}

fn key(producer: &Producer) -> (&str, i64) {
    (&producer.info().broadcast_address, producer.info().tcp_port)
}

/// Whether an address means the host itself, wherever it is used.
fn leads_to_itself(address: &str) -> bool {
    let bare = address.trim_matches(['[', ']']);
    match bare.parse::<IpAddr>() {
        Ok(address) => {
            let address = address.to_canonical();
            address.is_loopback() || address.is_unspecified()
        }
        Err(_) => bare.is_empty() || bare.eq_ignore_ascii_case("localhost") || bare.ends_with(".localhost"),
    }
}

/// Whether a client connects from the host that the server runs on.
pub(super) fn is_on_this_host(producer: &Producer) -> bool {
    let client = producer.remote_address().parse::<std::net::SocketAddr>();
    client.is_ok_and(|client| client.ip().to_canonical().is_loopback())
}

/// What a list shows of nodes.
pub(super) struct Shown<'a> {
    pub(super) snapshot: &'a Snapshot,
    pub(super) lifetimes: Lifetimes,
    pub(super) now: Timestamp,
    /// How many topics may still be looked at.
    budget: usize,
    /// How many tombstones hide a producer, of all nodes.
    in_force: usize,
}

impl<'a> Shown<'a> {
    pub(super) fn new(snapshot: &'a Snapshot, now: Timestamp) -> Self {
        let in_force = snapshot.tombstones(now);
        Self { snapshot, lifetimes: snapshot.lifetimes(), now, budget: UI_LOOKED_AT, in_force }
    }

    pub(super) fn write(&mut self, node: &Node, reconnects: u32, object: &mut Object<'_>) {
        let producer = &node.producer;
        let info = producer.info();
        object.text("address", &info.broadcast_address);
        object.number("tcp_port", info.tcp_port);
        object.number("http_port", info.http_port);
        object.text("hostname", &info.hostname);
        object.text("version", &info.version);
        object.text("zone", &info.topology_zone);
        object.text("region", &info.topology_region);
        self.write_state(producer, object);
        object.boolean("doubled", node.is_doubled);
        object.boolean("loopback", node.is_loopback);
        object.number("reconnects", reconnects);
        let Registered { topics, channels } = producer.registered();
        object.count("topics", topics);
        object.count("channels", channels);
        self.write_tombstones(producer, object);
    }

    /// The connection, and whether it is listed.
    pub(super) fn write_state(&self, producer: &Producer, object: &mut Object<'_>) {
        let (state, since) = State::of(producer, &self.lifetimes, self.now);
        let last = producer.last_update();
        object.text("client", producer.remote_address());
        object.text("state", state.name());
        object.time("since", since);
        object.time("last_ping", last);
        // Of some it does not depend on time.
        let is_timed = !producer.is_remote() && !producer.is_hidden();
        object.time("listed_until", if is_timed { producer.listed_until(last, &self.lifetimes) } else { last });
    }

    /// How many tombstones hide it, and when the first of them ends. `all_tombstones` is false when not all of its topics were
    /// looked at, and there may be more.
    fn write_tombstones(&mut self, producer: &Producer, object: &mut Object<'_>) {
        let (mut ends, mut is_all) = (Vec::new(), true);
        if producer.may_be_tombstoned() {
            for topic in self.snapshot.topics_of(producer) {
                let Some(budget) = self.budget.checked_sub(1) else {
                    is_all = self.in_force == 0;
                    break;
                };
                self.budget = budget;
                let at = topic.tombstone_of(producer);
                ends.extend(
                    at.map(|at| at.after(self.lifetimes.tombstone_lifetime)).filter(|&end| end > self.now),
                );
            }
        }
        object.count("tombstones", ends.len());
        object.boolean("all_tombstones", is_all);
        if let Some(end) = ends.into_iter().min() {
            object.time("tombstoned_until", end);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_that_lead_to_whoever_uses_them_are_known() {
        for (address, expected) in [
            ("127.0.0.1", true),
            ("127.9.9.9", true),
            ("::1", true),
            ("[::1]", true),
            ("::ffff:127.0.0.1", true),
            ("0.0.0.0", true),
            ("localhost", true),
            ("LocalHost", true),
            ("", true),
            ("10.0.0.1", false),
            ("localhost.example", false),
            ("nsqd-1", false),
        ] {
            assert_eq!(leads_to_itself(address), expected, "{address}");
        }
    }
}
