//! Independent instances become a cluster behind one address, and independent again, by the steps of `docs/cluster.md`. Nothing has
//! to stop for it.

use std::net::SocketAddr;

use super::lookups::Lookups;
use super::scene::{NAMES, Scene};
use super::{COMES_BACK_WITHIN, ENDLESS};
use crate::cluster::Nsqd;
use crate::daemon::Daemon;
use crate::programs::Client;
use crate::wait;

#[test]
fn independent_instances_become_a_cluster_and_back() {
    let Some(mut scene) = Scene::independent() else {
        return;
    };
    let nsqds = [(); 2].map(|()| Nsqd::start(&scene.programs, &scene.instances.each_ref()));
    let all = nsqds.each_ref();
    for nsqd in all {
        nsqd.create_topic("orders");
    }
    for instance in &scene.instances {
        instance.await_producers("orders", &all);
    }
    let each = scene.instances.each_ref().map(|instance| instance.http);
    let consumer = start_consumer(&scene, "each", &each, all);
    let connections = || all.map(|nsqd| nsqd.connections("orders", "each"));
    let before = connections();

    for name in NAMES {
        restart(&mut scene, name, true, all);
        for instance in &scene.instances {
            // Once, by however many instances it is known.
            wait::until_eq("nodes", &all.len(), || instance.nodes().len());
        }
    }
    await_registrations(&scene, NAMES.len() * all.len());

    // Consumers and nsqds get the one address.
    let through_one = Lookups::start(&[scene.balancer.http], "orders", &all);
    let late_consumer = start_consumer(&scene, "one", &[scene.balancer.http], all);
    let direct = scene.instances.each_ref().map(|instance| instance.tcp);
    let both = [&direct[..], &[scene.balancer.tcp]].concat();
    let give = |addresses: &[SocketAddr], connections| {
        for nsqd in all {
            nsqd.use_addresses(addresses);
        }
        await_registrations(&scene, connections * all.len());
    };
    // nsqd ends the connections that it is to do without, and makes the others after that.
    give(&both, 4);
    give(&[scene.balancer.tcp], 1);
    scene.await_settled(&all);
    nsqds[0].publish("orders", &["a", "b"]);
    for consumer in [&consumer, &late_consumer] {
        assert_eq!(consumer.printed(2), ["a", "b"]);
    }

    // And back.
    give(&both, 4);
    give(&direct, 3);
    through_one.end();
    for name in NAMES {
        restart(&mut scene, name, false, all);
    }
    scene.clear_etcd();
    for instance in &scene.instances {
        instance.await_nodes(&all);
        instance.await_channels("orders", &["each", "one"]);
    }
    nsqds[1].publish("orders", &["c"]);
    for consumer in [&consumer, &late_consumer] {
        assert_eq!(consumer.printed(3), ["a", "b", "c"]);
    }
    assert_eq!(connections(), before, "no consumer has lost a connection");
}

/// Restarts an instance as a part of the cluster, or alone, until all nsqds are connected to it. The others list them meanwhile.
fn restart(scene: &mut Scene, name: &'static str, joins: bool, nsqds: [&Nsqd; 2]) {
    let others: Vec<_> = scene.others(name).map(|other| other.http).collect();
    let lookups = Lookups::start(&others, "orders", &nsqds);
    let left: Vec<_> = NAMES.into_iter().filter(|other| *other != name).collect();
    scene.remove(name, &left);
    if joins {
        scene.add(name);
    } else {
        scene.add_alone(name);
    }
    for nsqd in nsqds {
        // An nsqd notices by one command that its connection has ended, and connects again with the next. So the test need not
        // wait for two heartbeats.
        for nth in [1, 2] {
            nsqd.create_topic(&format!("{name}-{joins}-{nth}"));
        }
    }
    scene.balancer.await_up(&NAMES);
    let position = NAMES.iter().position(|known| *known == name).expect("one of the three");
    scene.instances[position].await_producers("orders", &nsqds);
    lookups.end();
}

/// Waits until etcd has the topic registered by so many connections of nsqds, all to instances that live.
fn await_registrations(scene: &Scene, count: usize) {
    wait::until_within(COMES_BACK_WITHIN, "registrations", || {
        let (alive, records) = (scene.alive(), scene.records());
        let is_alive = records.iter().all(|record| alive.contains_key(&record.incarnation));
        let is = scene.registrations("orders");
        if is == count && is_alive {
            Ok(())
        } else {
            Err(format!("{is} and not {count}: {records:?} of {alive:?}"))
        }
    });
}

/// Starts a consumer with a channel of its own, and waits until it is connected to each nsqd.
fn start_consumer(scene: &Scene, channel: &str, lookupds: &[SocketAddr], nsqds: [&Nsqd; 2]) -> Daemon {
    let consumer =
        Daemon::start(&mut scene.programs.consumer(Client::GoNsq, "orders", channel, ENDLESS, lookupds));
    for nsqd in nsqds {
        wait::until_eq("consumers", &Some(1), || nsqd.consumers("orders", channel));
    }
    consumer
}
