//! What is known at one instance is known at all of them.

use std::collections::{BTreeMap, BTreeSet};
use std::thread;

use rustix::process::Signal;

use crate::etcd::programs;
use crate::instances::{Instance, LATE, Node, SOON, address, keys, shared_etcd, tagged, two, until};
use crate::support::PATIENCE;

#[test]
fn what_is_registered_at_one_is_known_to_all() {
    let Some((_etcd, a, b)) = two("registered", &[]) else { return };
    let mut node = Node::new("x", &a, &["orders billing", "mail"]);
    let other = Node::new("y", &b, &["orders"]);
    for instance in [&a, &b] {
        instance.wait_for("orders", &["x", "y"]);
        instance.wait_for("mail", &["x"]);
        assert_eq!(instance.topics(), names(&["mail", "orders"]));
        assert_eq!(instance.channels("orders"), names(&["billing"]));
        let listed = instance.node("x").expect("it is listed");
        assert_eq!(listed["remote_address"], node.local_address());
        assert_eq!(listed["topics"].as_array().map(Vec::len), Some(2));
        assert_eq!((&listed["tcp_port"], &listed["http_port"]), (&1.into(), &2.into()));
        let debug = instance.json("/debug");
        assert!(debug.to_string().contains("\"x\""), "{debug}");
    }
    node.unregister("mail");
    b.wait_for("mail", &[]);
    node.unregister("orders billing");
    node.register("orders audit");
    b.wait_for_channel("orders", "audit", true);
    node.disconnect();
    for instance in [&a, &b] {
        instance.wait_for("orders", &["y"]);
        assert_eq!(instance.nodes(), names(&["y"]));
        let debug = instance.json("/debug");
        assert!(!debug.to_string().contains("\"x\""), "{debug}");
    }
    drop(other);
    a.wait_for("orders", &[]);
}

/// Only the instance that has the connection hears the PINGs.
#[test]
fn silence_hides_everywhere_and_a_ping_revives() {
    let flags = ["-inactive-producer-timeout=2s"];
    let Some((_etcd, a, b)) = two("silence", &flags) else { return };
    let mut node = Node::new("x", &a, &["t"]);
    b.wait_for("t", &["x"]);
    for instance in [&b, &a] {
        instance.wait_for("t", &[]);
        assert_eq!(instance.nodes(), names(&[]));
    }
    for instance in [&b, &a] {
        until("a PING has it listed again", SOON, || {
            node.ping();
            let listed = (instance.lookup("t"), instance.nodes());
            (listed == (names(&["x"]), names(&["x"])), listed)
        });
    }
    // It is listed for as long as it sends them.
    for _ in 0..40 {
        node.ping();
        assert_eq!((a.lookup("t"), b.lookup("t")), (names(&["x"]), names(&["x"])));
        thread::sleep(std::time::Duration::from_millis(100));
    }
}

#[test]
fn names_are_made_and_deleted_on_all() {
    let Some((etcd, a, b)) = two("names", &[]) else { return };
    let c = Instance::start(&address(&etcd, "names"), "c", &[]);
    a.post("/topic/create?topic=made");
    b.post("/channel/create?topic=other&channel=one");
    for instance in [&a, &b, &c] {
        instance.wait_for_topic("made", true);
        instance.wait_for_channel("other", "one", true);
    }
    // An instance that comes later knows them too.
    let d = Instance::start(&address(&etcd, "names"), "d", &[]);
    assert_eq!((d.topics(), d.channels("other")), (names(&["made", "other"]), names(&["one"])));
    let all = [&a, &b, &c, &d];
    a.post("/channel/delete?topic=other&channel=one");
    for instance in all {
        instance.wait_for_channel("other", "one", false);
    }
    c.post("/topic/delete?topic=made");
    d.post("/topic/delete?topic=other");
    for instance in all {
        instance.wait_for_topic("made", false);
        instance.wait_for_topic("other", false);
    }
    assert_eq!(keys(&etcd, "names", "t/"), Vec::<String>::new());
}

#[test]
fn a_deletion_holds_until_it_is_registered_again() {
    let Some((_etcd, a, b)) = two("deletion", &[]) else { return };
    let mut node = Node::new("x", &a, &["t c", "kept"]);
    let mut local = Node::new("y", &b, &["t"]);
    a.wait_for("t", &["x", "y"]);
    b.wait_for("t", &["x", "y"]);
    b.post("/topic/delete?topic=t");
    assert!(!b.topics().contains("t"), "it is deleted at once where it was asked for");
    a.wait_for_topic("t", false);
    // The record is written again with another topic, and the deleted one is not in it.
    node.register("later");
    b.wait_for("later", &["x"]);
    local.register("later");
    a.wait_for("later", &["x", "y"]);
    for instance in [&a, &b] {
        assert_eq!(instance.topics(), names(&["kept", "later"]), "{}", instance.name);
    }
    node.register("t c");
    for instance in [&a, &b] {
        instance.wait_for("t", &["x"]);
        assert_eq!(instance.channels("t"), names(&["c"]));
    }
    a.post("/channel/delete?topic=t&channel=c");
    b.wait_for_channel("t", "c", false);
    b.wait_for("t", &["x"]);
    node.register("t c");
    b.wait_for_channel("t", "c", true);
    // At once, again and again: what is registered last holds.
    for _ in 0..20 {
        a.post("/topic/delete?topic=t");
        node.register("t");
    }
    b.wait_for("t", &["x"]);
    for _ in 0..20 {
        b.post("/topic/delete?topic=kept");
        local.register("kept");
    }
    a.wait_for("kept", &["y"]);
    b.wait_for("kept", &["y"]);
}

#[test]
fn a_tombstone_holds_on_all() {
    let Some((etcd, a, b)) = two("tombstone", &["-tombstone-lifetime=1h"]) else { return };
    let _nodes = [Node::new("x", &a, &["t", "u"]), Node::new("y", &b, &["t"])];
    for instance in [&a, &b] {
        instance.wait_for("t", &["x", "y"]);
    }
    b.post("/topic/tombstone?topic=t&node=x:2");
    for instance in [&a, &b] {
        instance.wait_for("t", &["y"]);
        instance.wait_for("u", &["x"]);
    }
    a.post("/topic/tombstone?topic=t&node=y:2");
    b.wait_for("t", &[]);
    // An instance that comes later knows them too.
    let c = Instance::start(&address(&etcd, "tombstone"), "c", &["-tombstone-lifetime=1h"]);
    c.wait_for("t", &[]);
    c.wait_for("u", &["x"]);
}

#[test]
fn who_waits_at_one_learns_of_a_change_at_another() {
    let Some((_etcd, a, b)) = two("watching", &[]) else { return };
    let mut node = Node::new("x", &a, &["t"]);
    b.wait_for("t", &["x"]);
    let stream = b.watch("?topic=t");
    let wait_for = |event: &str| {
        let found = stream.wait_for(|text| text.contains(event).then_some(()));
        assert!(found.is_some(), "no {event}: {}", stream.text());
    };
    wait_for("event: snapshot");
    let (_, tag, _) = b.tagged("/lookup?topic=t", None);
    let (http, tag) = (b.server.http, tag.expect("a tag"));
    let waiting = thread::spawn(move || tagged(http, "/lookup?topic=t&wait=60s", Some(&tag)));
    // One that waits for what is not there yet.
    let (_, tag, _) = b.tagged("/topics", None);
    let tag = tag.expect("a tag");
    let waiting_for_topics = thread::spawn(move || tagged(http, "/topics?wait=60s", Some(&tag)));
    let mut other = Node::new("y", &a, &["t"]);
    wait_for("event: up");
    let (status, _, body) = waiting.join().expect("a response");
    assert!(status == 200 && body.contains("\"y\""), "{status} {body}");
    node.register("new");
    let (status, _, body) = waiting_for_topics.join().expect("a response");
    assert!(status == 200 && body.contains("\"new\""), "{status} {body}");
    other.disconnect();
    wait_for("event: down");
    a.post("/topic/tombstone?topic=t&node=x:2");
    wait_for("tombstoned");
    a.post("/topic/delete?topic=t");
    wait_for("\"deleted\"");
}

/// Whatever comes from the others, a tag stands for one content.
#[test]
fn tags_agree_with_what_is_listed() {
    let Some((_etcd, a, b)) = two("tags", &[]) else { return };
    let targets = ["/lookup?topic=t", "/topics", "/channels?topic=t", "/nodes"];
    let mut seen: BTreeMap<(&str, &str, String), String> = BTreeMap::new();
    let mut look = || {
        for instance in [&a, &b] {
            for target in targets {
                let (status, tag, body) = instance.tagged(target, None);
                let Some(tag) = tag.filter(|_| status == 200) else { continue };
                let before = seen.entry((instance.name, target, tag.clone())).or_insert_with(|| body.clone());
                assert_eq!(*before, body, "{target} at {} with {tag}", instance.name);
                let (again, now, body) = instance.tagged(target, Some(&tag));
                assert!(again == 304 || now != Some(tag), "{target}: {again} {body}");
            }
        }
    };
    let mut nodes = [Node::new("x", &a, &["t"]), Node::new("y", &b, &["t c"])];
    for round in 0..10 {
        look();
        nodes[0].register(&format!("t c{round}"));
        look();
        nodes[1].register(&format!("t{round}"));
        nodes[round % 2].disconnect();
        look();
        nodes[round % 2].connect(if round % 3 == 0 { &a } else { &b });
        a.post(&format!("/topic/delete?topic=t{round}"));
        look();
    }
    a.wait_for("t", &["x", "y"]);
    b.wait_for("t", &["x", "y"]);
    look();
}

#[test]
fn a_node_at_two_instances_is_one_and_the_newest_connection_counts() {
    let Some((_etcd, a, b)) = two("twice", &[]) else { return };
    let mut first = Node::new("x", &a, &["t", "old"]);
    b.wait_for("t", &["x"]);
    let mut second = Node::new("x", &b, &["t", "new"]);
    let listed_as = |address: &str| {
        for instance in [&a, &b] {
            until("the newest connection is listed", SOON, || {
                let node = instance.node("x");
                (node.as_ref().is_some_and(|node| node["remote_address"] == address), node)
            });
            instance.wait_for("t", &["x"]);
        }
    };
    listed_as(&second.local_address());
    a.wait_for("old", &[]);
    a.wait_for("new", &["x"]);
    second.disconnect();
    listed_as(&first.local_address());
    a.wait_for("new", &[]);
    b.wait_for("old", &["x"]);
    // To and fro, as behind a load balancer.
    for round in 0..10 {
        first.connect(if round % 2 == 0 { &b } else { &a });
    }
    listed_as(&first.local_address());
}

/// Its record has several parts.
#[test]
fn a_node_with_thousands_of_topics_is_whole() {
    let Some((etcd, a, b)) = two("parts", &[]) else { return };
    let all: Vec<_> = (0..5000).map(|nth| format!("topic_{nth:04} channel")).collect();
    let mut node = Node::new("x", &a, &all.iter().map(String::as_str).collect::<Vec<_>>());
    let topics =
        |instance: &Instance| instance.node("x").map_or(0, |node| node["topics"].as_array().map_or(0, Vec::len));
    let wait_for = |instance: &Instance, count: usize| {
        until("all topics are listed", SOON, || (topics(instance) == count, topics(instance)));
    };
    wait_for(&b, 5000);
    assert_eq!(keys(&etcd, "parts", "p/").len(), 3);
    assert_eq!(b.channels("topic_4999"), names(&["channel"]));
    b.post("/topic/delete?topic=topic_0000");
    wait_for(&a, 4999);
    let c = Instance::start(&address(&etcd, "parts"), "c", &[]);
    wait_for(&c, 4999);
    for nth in 1..4900 {
        node.unregister(&format!("topic_{nth:04}"));
    }
    for instance in [&b, &c] {
        wait_for(instance, 100);
        instance.wait_for("topic_4950", &["x"]);
        instance.wait_for("topic_0001", &[]);
    }
    assert_eq!(keys(&etcd, "parts", "p/").len(), 1);
    node.disconnect();
    b.wait_for("topic_4950", &[]);
    until("its record is gone", SOON, || {
        let left = keys(&etcd, "parts", "p/");
        (left.is_empty(), left)
    });
}

/// The nsqds of an instance that stops are not gone: they connect to another one.
#[test]
fn an_instance_that_stops_leaves_its_producers_listed() {
    let Some((etcd, mut a, b)) = two("stop", &[]) else { return };
    let mut nodes = [Node::new("x", &a, &["t"]), Node::new("y", &a, &["t"])];
    b.wait_for("t", &["x", "y"]);
    a.server.signal(Signal::TERM);
    until("it has left the cluster", SOON, || {
        assert_eq!(b.lookup("t"), names(&["x", "y"]));
        let instances = b.metric("instances");
        (instances == 1, instances)
    });
    assert!(a.server.wait_for_exit(PATIENCE).is_some_and(|status| status.success()), "{}", a.server.log());
    b.wait_for_metric("producers{kind=\"orphan\"}", 2);
    nodes[0].connect(&b);
    until("the record of the old connection is gone", SOON, || {
        assert_eq!(b.lookup("t"), names(&["x", "y"]));
        let left = keys(&etcd, "stop", "p/");
        (left.len() == 2, left)
    });
    assert_eq!(b.node("x").expect("it is listed")["remote_address"], nodes[0].local_address());
    nodes[1].connect(&b);
    let c = Instance::start(&address(&etcd, "stop"), "c", &[]);
    c.wait_for("t", &["x", "y"]);
}

/// Nobody says that it is gone but its lease; and what nobody takes over is gone after the grace.
#[test]
fn the_producers_of_an_instance_that_was_killed_are_listed_for_a_grace() {
    // Not the shared one: it is to end while this goes on.
    let Some(programs) = programs() else { return };
    let (etcd, mut a, b) = crate::instances::two_of(&programs, &[]);
    let mut nodes = [Node::new("x", &a, &["t"]), Node::new("y", &a, &["t"])];
    b.wait_for("t", &["x", "y"]);
    a.server.signal(Signal::KILL);
    assert!(a.server.wait_for_exit(PATIENCE).is_some());
    nodes[0].connect(&b);
    let newest = nodes[0].local_address();
    let is_listed = || b.node("x").is_some_and(|node| node["remote_address"] == newest);
    until("it is taken over", SOON, || (is_listed(), b.node("x")));
    until("its lease is over", LATE, || {
        assert_eq!(b.lookup("t"), names(&["x", "y"]));
        let instances = b.metric("instances");
        (instances == 1, instances)
    });
    let began = std::time::Instant::now();
    until("the record that was taken over is gone", SOON, || {
        assert_eq!(b.lookup("t"), names(&["x", "y"]));
        let left = keys(&etcd, "ringlookupd", "p/");
        (left.len() == 2, left)
    });
    // An instance that comes meanwhile lists it for a grace too, and not for two.
    let c = Instance::start(&etcd.address(), "c", &[]);
    c.wait_for("t", &["x", "y"]);
    b.wait_for_in("t", &["x"], LATE);
    assert!(began.elapsed().as_secs() >= 55, "it was listed for {:?}", began.elapsed());
    c.wait_for("t", &["x"]);
    until("nothing is left of it", SOON, || {
        let left = keys(&etcd, "ringlookupd", "p/");
        (left.len() == 1, left)
    });
    assert_eq!(b.nodes(), names(&["x"]));
}

#[test]
fn clusters_of_two_prefixes_do_not_see_each_other() {
    let Some(etcd) = shared_etcd() else { return };
    // One begins as the other does.
    let (one, two) = (address(&etcd, "sites/one"), address(&etcd, "sites/one-more"));
    let ones = ["a", "b"].map(|name| Instance::start(&one, name, &[]));
    let twos = ["c", "d"].map(|name| Instance::start(&two, name, &[]));
    let _nodes = [Node::new("x", &ones[0], &["t"]), Node::new("y", &twos[0], &["t"])];
    ones[1].wait_for("t", &["x"]);
    twos[1].wait_for("t", &["y"]);
    ones[1].post("/topic/delete?topic=t");
    ones[0].wait_for_topic("t", false);
    twos[1].post("/topic/create?topic=u");
    twos[0].wait_for_topic("u", true);
    for two in &twos {
        two.wait_for_metric("instances", 2);
        assert_eq!((two.lookup("t"), two.nodes()), (names(&["y"]), names(&["y"])));
    }
    for one in &ones {
        one.wait_for_metric("instances", 2);
        assert_eq!((one.topics(), one.nodes()), (names(&[]), names(&["x"])));
    }
}

pub fn names(all: &[&str]) -> BTreeSet<String> {
    all.iter().map(ToString::to_string).collect()
}
