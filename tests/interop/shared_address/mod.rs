//! Everybody has one address: HAProxy's, in front of three instances that share what they know through etcd. Which of them has the
//! connection of an nsqd, and which of them a consumer asks, is no matter, and none of them is missed.

mod balancer;
mod lookups;
mod moving;
mod scene;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use minreq::Method;
use serde_json::json;

use self::lookups::Lookups;
use self::scene::{NAMES, Record, Scene};
use crate::cluster::{Lookupd, Nsqadmin, Nsqd, closed_port, set};
use crate::daemon::Daemon;
use crate::programs::{Client, Watcher};
use crate::support::Ends;
use crate::wait;

/// An nsqd whose instance has died comes back through another with its second heartbeat: the first finds out, and 15 s are between
/// two.
const COMES_BACK_WITHIN: Duration = Duration::from_secs(45);

/// How long an instance that has died is taken for alive.
const LEASE: Duration = Duration::from_secs(20);

/// For how long its nsqds are listed then.
const GRACE: Duration = Duration::from_secs(60);

/// More messages than there are.
const ENDLESS: usize = 1_000_000;

/// Messages of each nsqd reach the consumers of each library, whichever instances they have been led to.
#[test]
fn everyone_finds_everyone() {
    let Some(scene) = Scene::start() else {
        return;
    };
    let nsqds = scene.nsqds::<3>("orders");
    let all = nsqds.each_ref();
    let homes = scene.await_settled(&all);
    assert_eq!(homes.into_values().collect::<BTreeSet<_>>(), set(&NAMES), "HAProxy spreads them");

    let consumers = [Client::GoNsq, Client::Pynsq].map(|client| {
        let channel = format!("{client:?}");
        Daemon::start(&mut scene.programs.consumer(client, "orders", &channel, 3, &[scene.balancer.http]))
    });
    for instance in &scene.instances {
        instance.await_nodes(&all);
        instance.await_channels("orders", &["GoNsq", "Pynsq"]);
    }
    for nsqd in all {
        for channel in ["GoNsq", "Pynsq"] {
            wait::until_eq("consumers", &Some(1), || nsqd.consumers("orders", channel));
        }
    }
    for (nsqd, body) in nsqds.iter().zip(["a", "b", "c"]) {
        nsqd.publish("orders", &[body]);
    }
    for consumer in consumers {
        assert_eq!(consumer.finish(), ["a", "b", "c"]);
    }
}

/// nsqadmin shows what all instances know, and what it changes is changed on all of them.
#[test]
fn nsqadmin_changes_all_instances() {
    let Some(scene) = Scene::start() else {
        return;
    };
    let nsqds = scene.nsqds::<3>("orders");
    let all = nsqds.each_ref();
    for nsqd in all {
        nsqd.create_topic("invoices");
    }
    for instance in &scene.instances {
        instance.await_producers("invoices", &all);
    }
    let admin = Nsqadmin::start_with(&scene.programs, &[format!("-lookupd-http-address={}", scene.balancer.http)]);
    let address = scene.balancer.http.to_string();
    for page in ["/", "/nodes", "/lookup"] {
        assert!(admin.page(page).contains(&address), "{page}");
    }
    // As often as there are instances, and more.
    for _ in 0..6 {
        assert_eq!(admin.get("/api/topics")["topics"], json!(["invoices", "orders"]));
        let nodes = admin.get("/api/nodes");
        let nodes = nodes["nodes"].as_array().expect("an array");
        let ports: BTreeSet<_> = nodes.iter().map(|node| node["http_port"].as_u64().expect("a port")).collect();
        assert_eq!(ports, all.iter().map(|nsqd| nsqd.http.port().into()).collect());
        for node in nodes {
            assert_eq!(node["topics"].as_array().map(Vec::len), Some(2), "{node}");
        }
    }

    admin.act(Method::Delete, "/api/topics/invoices", &json!({}));
    for instance in &scene.instances {
        wait::until_eq("the topics", &set(&["orders"]), || instance.topics());
        instance.await_producers("invoices", &[]);
        instance.await_nodes(&all);
    }
    admin.act(Method::Post, "/api/topics", &json!({"topic": "refunds", "channel": "archive"}));
    for instance in &scene.instances {
        wait::until_eq("the topics", &set(&["orders", "refunds"]), || instance.topics());
        instance.await_channels("refunds", &["archive"]);
    }

    // nsqadmin cannot reach this one to delete the topic there: what keeps it out is the tombstone.
    let port = closed_port();
    let buried = scene.nsqd_with(&[&format!("-broadcast-http-port={port}")]);
    buried.create_topic("orders");
    let with_buried = [&nsqds[0], &nsqds[1], &nsqds[2], &buried];
    for instance in &scene.instances {
        instance.await_producers("orders", &with_buried);
    }
    admin.try_act(Method::Delete, &format!("/api/nodes/127.0.0.1:{port}"), &json!({"topic": "orders"}));
    for instance in &scene.instances {
        instance.await_producers("orders", &all);
        instance.await_nodes(&with_buried);
        let nodes = instance.nodes();
        let node = nodes.iter().find(|node| node["http_port"] == port).expect("awaited above");
        assert_eq!(node["tombstones"], json!([true]), "{node}");
    }
}

/// Instances are removed and added while messages flow, at last so fast that all nsqds are those of instances that have gone: no
/// lookup fails or lacks an nsqd, and no consumer loses a message or a connection.
#[test]
fn instances_come_and_go_unnoticed() {
    let Some(mut scene) = Scene::start() else {
        return;
    };
    let nsqds = scene.nsqds::<3>("orders");
    let all = nsqds.each_ref();
    let channels = ["GoNsq", "Pynsq"];
    let address = scene.balancer.http;
    let consumers = [Client::GoNsq, Client::Pynsq].map(|client| {
        let channel = format!("{client:?}");
        Daemon::start(&mut scene.programs.consumer(client, "orders", &channel, ENDLESS, &[address]))
    });
    for nsqd in all {
        for channel in channels {
            wait::until_eq("consumers", &Some(1), || nsqd.consumers("orders", channel));
        }
    }
    let connections = || all.map(|nsqd| channels.map(|channel| nsqd.connections("orders", channel)));
    let before = connections();

    let lookups = Lookups::start(&[address], "orders", &all);
    let (is_over, published) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        let end = Ends(&is_over);
        scope.spawn(|| publish(all, &is_over, &published));

        scene.remove("three", &["one", "two"]);
        scene.add("three");
        scene.balancer.await_up(&NAMES);
        // Where three's nsqds have not come back yet, they are nobody's: three has read of them.
        scene.remove("one", &["two", "three"]);
        scene.remove("two", &["three"]);
        let begun = Instant::now();
        let homes = scene.await_settled(&all);
        println!("all nsqds have come back {:.1?} after the last but one instance was removed", begun.elapsed());
        assert!(homes.values().all(|name| name == "three"), "{homes:?}");
        scene.add("two");
        scene.add("one");
        scene.balancer.await_up(&NAMES);
        // The instance that has all of them goes too.
        scene.remove("three", &["one", "two"]);
        scene.await_settled(&all);
        drop(end);
    });
    let seen = lookups.end();

    let published = published.load(Relaxed);
    println!("{published} messages, {} lookups", seen.lookups);
    let bodies: Vec<_> = (0..published).map(body).collect();
    for consumer in &consumers {
        assert_eq!(consumer.printed(published), bodies);
    }
    assert_eq!(connections(), before);
}

/// Publishes at each nsqd in turn.
fn publish(nsqds: [&Nsqd; 3], is_over: &AtomicBool, published: &AtomicUsize) {
    for nsqd in nsqds.into_iter().cycle() {
        if is_over.load(Relaxed) {
            return;
        }
        nsqd.publish("orders", &[&body(published.load(Relaxed))]);
        published.fetch_add(1, Relaxed);
        thread::sleep(Duration::from_millis(20));
    }
}

fn body(number: usize) -> String {
    format!("{number:06}")
}

/// The nsqds of a killed instance are listed by the others until they come back through one of them.
#[test]
fn killed_instance_is_not_missed() {
    let Some(mut scene) = Scene::start() else {
        return;
    };
    let nsqds = scene.nsqds::<3>("orders");
    let all = nsqds.each_ref();
    let victim = scene.await_settled(&all)[&nsqds[0].tcp].clone();
    let incarnation = incarnation_of(&scene, &victim);
    let servers: Vec<_> = scene.others(&victim).map(|other| other.http).chain([scene.balancer.http]).collect();
    let lookups = Lookups::start(&servers, "orders", &all);

    scene.kill(&victim);
    let killed = Instant::now();
    let returns = wait::until_within(COMES_BACK_WITHIN, "its nsqds are at other instances", || {
        let records = scene.records().into_iter();
        let others: BTreeSet<_> =
            records.filter(|record| record.incarnation != incarnation).map(|record| record.nsqd).collect();
        if others.len() == all.len() { Ok(killed.elapsed()) } else { Err(format!("{others:?}")) }
    });
    let orphans_gone = wait::until("its records are gone", || {
        let mut records = scene.records();
        records.retain(|record| record.incarnation == incarnation);
        if records.is_empty() { Ok(killed.elapsed()) } else { Err(format!("{records:?}")) }
    });
    let seen = lookups.end();
    println!(
        "back after {returns:.1?}, records of the killed instance gone after {orphans_gone:.1?}, {} lookups",
        seen.lookups
    );
    scene.await_settled(&all);
    for other in scene.others(&victim) {
        other.await_nodes(&all);
    }
}

/// An nsqd that dies with its instance is listed for as long as it might come back, and then it is not. One that lives comes back,
/// and stays.
#[test]
fn nsqd_that_dies_with_its_instance_is_forgotten() {
    let Some(mut scene) = Scene::start() else {
        return;
    };
    // One more than there are instances: one has two.
    let nsqds = scene.nsqds::<4>("orders");
    let homes = scene.await_settled(&nsqds.each_ref());
    let is_alone = |nsqd: &SocketAddr| homes.iter().all(|(other, home)| other == nsqd || *home != homes[nsqd]);
    let dies = *homes.keys().find(|nsqd| !is_alone(nsqd)).expect("four nsqds at three instances");
    let victim = homes[&dies].clone();
    let incarnation = incarnation_of(&scene, &victim);
    let (dying, living): (Vec<_>, Vec<_>) = nsqds.into_iter().partition(|nsqd| nsqd.tcp == dies);
    let living: Vec<_> = living.iter().collect();
    let servers: Vec<_> = scene.others(&victim).map(|other| other.http).chain([scene.balancer.http]).collect();
    let lookups = Lookups::start(&servers, "orders", &living);

    scene.kill(&victim);
    let killed = Instant::now();
    drop(dying);
    let mut last_alive = killed;
    wait::until_within(LEASE + Duration::from_secs(5), "its lease is over", || {
        let asked = Instant::now();
        if !scene.alive().contains_key(&incarnation) {
            return Ok(());
        }
        last_alive = asked;
        Err("alive".to_owned())
    });
    let lease_over = killed.elapsed();
    for other in scene.others(&victim) {
        assert!(other.producers("orders").contains(&dies), "it is listed when the lease is over");
    }
    wait::until_within(
        (LEASE + GRACE + Duration::from_secs(30)).saturating_sub(lease_over),
        "it is not listed",
        || {
            let lists = |other: &&Lookupd| other.producers("orders").contains(&dies);
            let count = scene.others(&victim).filter(lists).count();
            if count == 0 { Ok(()) } else { Err(format!("{count} list it")) }
        },
    );
    let forgotten = killed.elapsed();
    wait::until("its record is gone", || {
        let records = scene.records();
        let is_there = |record: &Record| record.nsqd == dies || record.incarnation == incarnation;
        if records.iter().any(is_there) { Err(format!("{records:?}")) } else { Ok(()) }
    });
    let seen = lookups.end();
    println!("lease over after {lease_over:.1?}, forgotten after {forgotten:.1?}, {} lookups", seen.lookups);
    let listed_for = seen.listed[&dies].duration_since(last_alive);
    assert!(listed_for >= GRACE, "listed for {listed_for:?} since its instance was last alive");
    for other in scene.others(&victim) {
        other.await_nodes(&living);
    }
}

fn incarnation_of(scene: &Scene, name: &str) -> String {
    let alive = scene.alive();
    let (incarnation, _) = alive.iter().find(|(_, known)| *known == name).expect("it lives");
    incarnation.clone()
}

/// Consumers that `contrib`'s clients keep connected follow a stream through the one address. Instances are killed until only one
/// is left: the consumers lose no connection, and find an nsqd that starts after that.
#[test]
fn watching_consumers_outlive_instances() {
    let Some(mut scene) = Scene::start() else {
        return;
    };
    let [first] = scene.nsqds::<1>("orders");
    let consumers = [Watcher::Go, Watcher::Python].map(|watcher| {
        Daemon::start(&mut scene.programs.watching_consumer(watcher, &[], "orders", &[scene.balancer.http]))
    });
    for consumer in &consumers {
        consumer.wait_for_log(&[": watching"]);
    }
    let connected = |nsqd: &Nsqd| {
        wait::until("both consumers are connected", || {
            let connections = nsqd.connections("orders", "archive");
            if connections.len() == consumers.len() { Ok(connections) } else { Err(format!("{connections:?}")) }
        })
    };
    let before = connected(&first);

    let mut later = Vec::new();
    for name in ["one", "two"] {
        scene.kill(name);
        let nsqd = scene.nsqd();
        nsqd.create_topic("orders");
        let begun = Instant::now();
        connected(&nsqd);
        println!("both have found an nsqd {:.1?} after the loss of instance {name}", begun.elapsed());
        later.push(nsqd);
    }
    let all: Vec<_> = later.iter().chain([&first]).collect();
    scene.await_settled(&all);
    assert_eq!(connected(&first), before);
}
