//! What nsqd says about itself reaches everybody who asks, and goes when nsqd goes.

use ringlookupd::io::Backend;

use crate::cluster::{Lookupd, Nsqd, names, set};
use crate::programs::Programs;
use crate::wait;

on_both_drivers!(
    nsqds_appear_in_nodes_and_lookup,
    new_topic_starts_with_the_channels_of_its_namesake,
    killed_nsqd_vanishes,
    heartbeat_brings_back_a_lapsed_nsqd
);

/// Two nsqd register. `/nodes` tells both apart with all that an operator needs, and `/lookup` names for each topic
/// those that have it.
fn nsqds_appear_in_nodes_and_lookup(backend: Backend) {
    let Some(programs) = Programs::find() else {
        return;
    };
    let lookupd = Lookupd::start(backend);
    let first = Nsqd::start(&programs, &[&lookupd]);
    let second = Nsqd::start(&programs, &[&lookupd]);
    lookupd.await_nodes(&[&first, &second]);

    first.create_topic("shared");
    second.create_topic("shared");
    second.create_channel("shared", "archive");
    second.create_topic("own");
    lookupd.await_producers("shared", &[&first, &second]);
    lookupd.await_producers("own", &[&second]);
    lookupd.await_channels("shared", &["archive"]);
    assert_eq!(lookupd.topics(), set(&["own", "shared"]));

    let nodes = lookupd.nodes();
    let node = nodes.iter().find(|node| node["tcp_port"] == second.tcp.port()).expect("awaited above");
    assert_eq!(node["http_port"], second.http.port(), "{node}");
    assert_eq!(node["version"], "1.3.0", "{node}");
    assert_eq!(names(&node["topics"]), set(&["own", "shared"]));
    assert_eq!(node["tombstones"], serde_json::json!([false, false]));
}

/// A topic that is new to an nsqd starts with the channels that lookupd knows, so that a message published before
/// its consumers have found this nsqd waits for them. nsqd asks at the address in the answer to its IDENTIFY.
fn new_topic_starts_with_the_channels_of_its_namesake(backend: Backend) {
    let Some(programs) = Programs::find() else {
        return;
    };
    let lookupd = Lookupd::start(backend);
    let first = Nsqd::start(&programs, &[&lookupd]);
    first.create_topic("orders");
    first.create_channel("orders", "archive");
    lookupd.await_channels("orders", &["archive"]);

    let second = Nsqd::start(&programs, &[&lookupd]);
    lookupd.await_asking(&second);
    second.publish("orders", &["one", "two"]);
    wait::until_eq("the channel's messages", &Some(2), || second.unfinished("orders", "archive"));
}

/// SIGKILL leaves an nsqd no time to unregister: the end of its connection must do.
fn killed_nsqd_vanishes(backend: Backend) {
    let Some(programs) = Programs::find() else {
        return;
    };
    let lookupd = Lookupd::start(backend);
    let killed = Nsqd::start(&programs, &[&lookupd]);
    let survivor = Nsqd::start(&programs, &[&lookupd]);
    for nsqd in [&killed, &survivor] {
        nsqd.create_topic("orders");
    }
    lookupd.await_producers("orders", &[&killed, &survivor]);

    drop(killed);
    lookupd.await_producers("orders", &[&survivor]);
    lookupd.await_nodes(&[&survivor]);
}

/// An nsqd that is silent for longer than the inactivity timeout leaves `/lookup` and `/nodes`, and the `PING` that
/// it sends every 15 s brings it back.
fn heartbeat_brings_back_a_lapsed_nsqd(backend: Backend) {
    let Some(programs) = Programs::find() else {
        return;
    };
    let lookupd = Lookupd::start_with(backend, &["-inactive-producer-timeout=2s".to_owned()]);
    let nsqd = Nsqd::start(&programs, &[&lookupd]);
    nsqd.create_topic("orders");
    lookupd.await_producers("orders", &[&nsqd]);

    lookupd.await_producers("orders", &[]);
    lookupd.await_nodes(&[]);
    lookupd.await_producers("orders", &[&nsqd]);
    lookupd.await_nodes(&[&nsqd]);
}
