//! A lookupd may die: its twin answers for it, and it learns everything anew when it comes back.

use std::collections::BTreeMap;

use ringlookupd::io::Backend;

use crate::cluster::{Lookupd, Nsqd, set};
use crate::daemon::Daemon;
use crate::load::Load;
use crate::programs::{Client, Programs};
use crate::wait;

on_both_drivers!(
    consumers_outlive_one_of_two_lookupds,
    restarted_lookupd_gets_its_nsqd_back,
    heartbeats_bring_all_back_to_a_lookupd_killed_under_load
);

/// Consumers of every library ask two lookupd. One of them is killed; an nsqd that starts only afterwards can be
/// found through the other alone. The consumers find it there, and so do consumers that start after the loss.
fn consumers_outlive_one_of_two_lookupds(backend: Backend) {
    let Some(programs) = Programs::find() else {
        return;
    };
    let mut lost = Lookupd::start(backend);
    let kept = Lookupd::start(backend);
    let lookupds = [lost.http, kept.http];
    let consume = |client, channel: &str, count| {
        Daemon::start(&mut programs.consumer(client, "orders", channel, count, &lookupds))
    };

    let old = Nsqd::start(&programs, &[&lost, &kept]);
    old.create_topic("orders");
    lost.await_producers("orders", &[&old]);
    kept.await_producers("orders", &[&old]);
    let consumers = Client::ALL.map(|client| consume(client, &format!("{client:?}"), 4));
    kept.await_channels("orders", &["GoNsq", "Nsqjs", "Pynsq"]);
    old.publish("orders", &["a", "b"]);
    for consumer in &consumers {
        assert_eq!(consumer.printed(2), ["a", "b"]);
    }

    lost.kill();
    let new = Nsqd::start(&programs, &[&lost, &kept]);
    kept.await_nodes(&[&old, &new]);
    old.publish("orders", &["c"]);
    new.publish("orders", &["d"]);
    for consumer in consumers {
        assert_eq!(consumer.finish(), ["a", "b", "c", "d"]);
    }

    for client in Client::ALL {
        let channel = format!("late_{client:?}");
        new.create_channel("orders", &channel);
        new.publish("orders", &["late"]);
        assert_eq!(consume(client, &channel, 1).finish(), ["late"]);
    }
}

/// A lookupd is killed and starts again, with nothing, on the ports that it had. nsqd notices when it next has
/// something to say, connects anew with the command after that, and then registers all it has.
fn restarted_lookupd_gets_its_nsqd_back(backend: Backend) {
    let Some(programs) = Programs::find() else {
        return;
    };
    let lookupd = Lookupd::start(backend);
    let nsqd = Nsqd::start(&programs, &[&lookupd]);
    nsqd.create_topic("orders");
    nsqd.create_channel("orders", "archive");
    lookupd.await_channels("orders", &["archive"]);

    let lookupd = lookupd.restart();
    // Two commands, so that the test need not wait for two heartbeats.
    nsqd.create_topic("first");
    nsqd.create_topic("second");
    lookupd.await_nodes(&[&nsqd]);
    for topic in ["first", "orders", "second"] {
        lookupd.await_producers(topic, &[&nsqd]);
    }
    lookupd.await_channels("orders", &["archive"]);
}

/// SIGKILL comes while others look up, register and unregister, and the nsqd have nothing to say to the lookupd that
/// starts after it but their heartbeats: the first that fails ends the old connection, the next makes a new one and
/// registers everything. nsqd has no flag for the 15 s between two.
fn heartbeats_bring_all_back_to_a_lookupd_killed_under_load(backend: Backend) {
    let Some(programs) = Programs::find() else {
        return;
    };
    // At debug level the load would write a line for each lookup.
    let lookupd = Lookupd::start_with(backend, &["-log-level=info".to_owned()]);
    let nsqds = [(); 3].map(|()| Nsqd::start(&programs, &[&lookupd]));
    for (nsqd, own) in nsqds.iter().zip(OWN) {
        for topic in ["orders", own] {
            nsqd.create_topic(topic);
            nsqd.create_channel(topic, "archive");
            nsqd.create_channel(topic, own);
        }
    }
    await_all(&lookupd, &nsqds);

    let load = Load::start(lookupd.tcp, lookupd.http, "orders");
    load.await_answers();
    let lookupd = lookupd.restart();
    await_all(&lookupd, &nsqds);
    load.await_answers();
    load.end();
    lookupd.await_nodes(&nsqds.each_ref());
}

/// A name for each nsqd.
const OWN: [&str; 3] = ["first", "second", "third"];

/// Waits until `/nodes` and `/lookup` have each nsqd with all of its topics and channels. Other nodes may be there.
fn await_all(lookupd: &Lookupd, nsqds: &[Nsqd; 3]) {
    let all = nsqds.iter().map(|nsqd| nsqd.tcp);
    let nodes: BTreeMap<_, _> = all.clone().zip(OWN.map(|own| set(&["orders", own]))).collect();
    let own = all.clone().zip(OWN).map(|(nsqd, own)| (own, ([nsqd].into(), set(&["archive", own]))));
    let orders = ("orders", (all.collect(), set(&[&["archive"], &OWN[..]].concat())));
    let topics: BTreeMap<_, _> = own.chain([orders]).collect();
    wait::until_eq("all nodes, topics and channels", &(nodes, topics.clone()), || {
        let mut nodes = lookupd.node_topics();
        nodes.retain(|node, _| nsqds.iter().any(|nsqd| nsqd.tcp == *node));
        (nodes, topics.keys().map(|&topic| (topic, lookupd.lookup(topic))).collect())
    });
}
