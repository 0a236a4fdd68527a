//! A cluster moves from nsqlookupd to ringlookupd and back, an instance at a time, as `docs/migrating.md` has it. No
//! configuration of nsqd, consumers or nsqadmin is changed.

use ringlookupd::io::Backend;

use crate::cluster::{Lookupd, Nsqadmin, Nsqd};
use crate::daemon::Daemon;
use crate::programs::{self, Client, Programs};
use crate::wait;

on_both_drivers!(an_instance_is_replaced_and_put_back);

fn an_instance_is_replaced_and_put_back(backend: Backend) {
    let Some(programs) = Programs::find() else {
        return;
    };
    let stock = || (programs.path("nsqlookupd"), Vec::new());
    let [kept, swapped] = [(); 2].map(|()| Lookupd::start_program(stock(), &[]));
    let nsqds = ["first", "second"].map(|topic| {
        let nsqd = Nsqd::start(&programs, &[&kept, &swapped]);
        nsqd.create_topic(topic);
        nsqd.create_topic("orders");
        nsqd.create_channel("orders", topic);
        nsqd
    });
    await_same(&kept, &swapped, &nsqds, "before");

    let swapped = swapped.replace_by(programs::lookupd(backend));
    await_same(&kept, &swapped, &nsqds, "after");
    let admin = Nsqadmin::start(&programs, &[&kept, &swapped]);
    let nodes = admin.get("/api/nodes");
    let nodes = nodes["nodes"].as_array().expect("an array");
    assert_eq!(nodes.len(), nsqds.len());
    for node in nodes {
        assert_eq!(node["remote_addresses"].as_array().map(Vec::len), Some(2), "{node}");
    }
    let consumer = programs.consumer(Client::GoNsq, "orders", "first", 1, &[swapped.http]);
    nsqds[0].publish("orders", &["a"]);
    assert_eq!(Daemon::start(&mut { consumer }).finish(), ["a"]);

    let swapped = swapped.replace_by(stock());
    await_same(&kept, &swapped, &nsqds, "back");
}

/// Waits until both instances have the same nodes with the same topics, and the same producers and channels of a topic.
fn await_same(kept: &Lookupd, swapped: &Lookupd, nsqds: &[Nsqd; 2], stage: &str) {
    for nsqd in nsqds {
        // An nsqd notices by one command that its connection has ended, and connects again with the next. So the test
        // need not wait for two heartbeats.
        nsqd.create_topic(&format!("{stage}-1"));
        nsqd.create_topic(&format!("{stage}-2"));
    }
    let all = |lookupd: &Lookupd| (lookupd.node_topics(), lookupd.topics(), lookupd.lookup("orders"));
    wait::until(&format!("the same, {stage}"), || {
        let (kept, swapped) = (all(kept), all(swapped));
        let complete = kept.0.len() == nsqds.len() && kept.2.1.len() == nsqds.len();
        if kept == swapped && complete { Ok(()) } else { Err(format!("{kept:?}\n{swapped:?}")) }
    });
}
