//! The first document: what the server is, what is wrong, and what has happened of late.

use std::time::Duration;

use super::cached::Found;
use super::documents::all_nodes;
use super::journal::Entry;
use super::nodes::{Node, Nodes, State, is_on_this_host};
use super::object::Object;
use crate::clock::Timestamp;
use crate::context::WorkerContext;
use crate::limits::{Limit, UI_ROWS_MAX, UI_WARNING_NODES};
use crate::readiness::NotReady;
use crate::registry::{Lifetimes, Registered};

/// A limit that was exceeded longer ago is no warning any more.
const EXCEEDED_OF_LATE: Duration = Duration::from_secs(60 * 60);
/// A limit of names of which only one in so many is not taken is a warning.
const NEARLY_FULL: usize = 10;

pub(super) fn write(context: &WorkerContext, object: &mut Object<'_>) {
    let Found { value, is_current } = all_nodes(context);
    let nodes = value.unwrap_or_default();
    let counts = Counts::of(&nodes, &context.registry.lifetimes(), context.now);
    object.boolean("current", is_current);
    write_server(context, object);
    write_counts(context, &counts, object);
    object.object("warnings", |object| write_warnings(context, &counts, object));
    write_journal(&context.shared.ui.journal.latest(None, UI_ROWS_MAX), object);
}

fn write_server(context: &WorkerContext, object: &mut Object<'_>) {
    let options = context.shared.options.load();
    object.object("server", |object| {
        object.text("version", env!("CARGO_PKG_VERSION"));
        object.text("name", &options.broadcast_address);
        object.text("backend", context.server.backend);
        #[expect(clippy::cast_possible_truncation, reason = "milliseconds of this century")]
        object.number("started", (context.shared.metrics.started() * 1000.0) as i64);
        object.text("nsqadmin", options.nsqadmin_url.as_str());
    });
    let lifetimes = context.registry.lifetimes();
    for (key, time) in [
        ("inactive_after", lifetimes.inactive_producer_timeout),
        ("tombstone_lifetime", lifetimes.tombstone_lifetime),
        ("supersede_after", lifetimes.supersede_silent),
    ] {
        object.number(key, i64::try_from(time.as_millis()).unwrap_or(i64::MAX));
    }
    object.text(
        "ready",
        match context.shared.readiness.check(context.now) {
            Ok(()) => "yes",
            Err(NotReady::Starting) => "starting",
            Err(NotReady::WarmingUp) => "warming_up",
            Err(NotReady::Stopping) => "stopping",
        },
    );
    if let Some(left) = context.shared.readiness.warm_up_left(context.now) {
        object.time("ready_at", context.now.after(left));
    }
    let cluster = &context.shared.cluster;
    if cluster.is_on() {
        let figures = cluster.figures();
        object.object("cluster", |object| {
            object.boolean("alone", cluster.is_alone());
            object.boolean("connected", figures.is_connected);
            object.boolean("writable", figures.is_writable);
            object.count("instances", figures.instances);
            object.count("orphans", figures.orphans);
        });
    }
}

/// Nodes by what is to be said of them.
#[derive(Default)]
struct Counts<'a> {
    active: usize,
    expected: usize,
    remote: usize,
    superseded: usize,
    silent: Named<'a>,
    doubled: Named<'a>,
    loopback: Named<'a>,
}

/// The first few of several nodes.
#[derive(Default)]
struct Named<'a> {
    first: Vec<&'a Node>,
    count: usize,
}

impl<'a> Named<'a> {
    fn add(&mut self, node: &'a Node) {
        self.count += 1;
        if self.first.len() < UI_WARNING_NODES {
            self.first.push(node);
        }
    }

    fn write(&self, key: &str, object: &mut Object<'_>) {
        if self.count == 0 {
            return;
        }
        object.object(key, |object| {
            object.count("count", self.count);
            object.objects("nodes", &self.first, |object, node| {
                let info = node.producer.info();
                object.text("address", &info.broadcast_address);
                object.number("tcp_port", info.tcp_port);
                object.text("client", node.producer.remote_address());
            });
        });
    }
}

impl<'a> Counts<'a> {
    fn of(nodes: &'a Nodes, lifetimes: &Lifetimes, now: Timestamp) -> Self {
        let mut counts = Self::default();
        // Of a node that has several producers those that are listed, if they are more than one.
        let mut listed: Vec<&Node> = Vec::new();
        // On one host a loopback address is right.
        let is_one_host = nodes.all.iter().all(|node| is_on_this_host(&node.producer));
        for node in &nodes.all {
            match State::of(&node.producer, lifetimes, now).0 {
                State::Active => counts.active += 1,
                State::Expected => counts.expected += 1,
                State::Remote => counts.remote += 1,
                State::Superseded | State::Hidden => counts.superseded += 1,
                State::Silent => counts.silent.add(node),
            }
            if node.is_loopback && !is_one_host {
                counts.loopback.add(node);
            }
            if node.is_doubled && State::of(&node.producer, lifetimes, now).0 == State::Active {
                let is_same = listed.last().is_some_and(|last| is_same_node(last, node));
                match (is_same, listed.len()) {
                    (false, _) => listed = vec![node],
                    (true, length) => {
                        if length == 1 {
                            counts.doubled.add(listed[0]);
                        }
                        counts.doubled.add(node);
                        listed.push(node);
                    }
                }
            }
        }
        counts
    }
}

fn is_same_node(a: &Node, b: &Node) -> bool {
    let (a, b) = (a.producer.info(), b.producer.info());
    a.broadcast_address == b.broadcast_address && a.tcp_port == b.tcp_port
}

fn write_counts(context: &WorkerContext, counts: &Counts<'_>, object: &mut Object<'_>) {
    let registry = &context.registry;
    let Registered { topics, channels } = registry.registered();
    let unused = registry.without_producers();
    object.object("counts", |object| {
        for (key, count) in [
            ("nodes", registry.producers()),
            ("active", counts.active),
            ("silent", counts.silent.count),
            ("superseded", counts.superseded),
            ("expected", counts.expected),
            ("remote", counts.remote),
            ("topics", topics),
            ("channels", channels),
            ("unused_topics", unused.topics),
            ("unused_channels", unused.channels),
            ("tombstones", registry.tombstones(context.now)),
        ] {
            object.count(key, count);
        }
    });
}

fn write_warnings(context: &WorkerContext, counts: &Counts<'_>, object: &mut Object<'_>) {
    counts.doubled.write("doubled", object);
    counts.silent.write("silent", object);
    counts.loopback.write("loopback", object);
    let Registered { topics, channels } = context.registry.registered();
    let full = [(Limit::Topics, topics), (Limit::Channels, channels)].into_iter().filter(|&(limit, count)| {
        let most = context.limits.size(limit);
        most != usize::MAX && count >= most - most / NEARLY_FULL
    });
    object.objects("full", full, |object, (limit, count)| {
        object.text("limit", limit.name());
        object.count("count", count);
        object.number("most", context.limits.value(limit));
    });
    let exceeded = context.shared.ui.journal.limits_exceeded();
    let exceeded = exceeded.filter(|&(_, at)| context.now.since(at) < EXCEEDED_OF_LATE);
    object.objects("exceeded", exceeded, |object, (limit, at)| {
        object.text("limit", limit.name());
        object.time("at", at);
        object.number("times", context.shared.metrics.exceeded(limit));
    });
}

/// Joins and departures.
pub(super) fn write_journal(entries: &[Entry], object: &mut Object<'_>) {
    object.objects("journal", entries, |object, Entry { number, at, kind, node, about, reason }| {
        object.number("number", *number);
        object.time("at", *at);
        object.text("kind", kind.name());
        object.text("node", node);
        object.text("about", about);
        object.text("reason", reason);
    });
}
