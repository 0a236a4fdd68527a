//! An nsqd that has more than the server allows: what is too much is refused, and everything else is found.

use std::collections::BTreeSet;

use ringlookupd::io::Backend;

use crate::cluster::{Lookupd, Nsqd, set};
use crate::programs::Programs;
use crate::wait;

on_both_drivers!(topics_too_many_cost_an_nsqd_nothing_else, a_channel_too_many_does_not_hide_its_topic);

/// nsqd has five topics and registers them all when it connects. It takes the errors for replies and goes on: at its next
/// heartbeat it still has the same connection, on which the three topics that fit are listed.
fn topics_too_many_cost_an_nsqd_nothing_else(backend: Backend) {
    let Some(programs) = Programs::find() else {
        return;
    };
    let lookupd = Lookupd::start_with(backend, &["-max-topics-per-producer=3".into()]);
    let nsqd = Nsqd::start(&programs, &[]);
    for topic in ["one", "two", "three", "four", "five"] {
        nsqd.create_topic(topic);
        nsqd.create_channel(topic, "channel");
    }
    nsqd.use_lookupds(&[&lookupd]);
    wait::until_eq("the topics of the node", &Some(3), || lookupd.node_topics().get(&nsqd.tcp).map(BTreeSet::len));
    lookupd.server.wait_for_log(") channel(channel) exceeded the limit -max-topics-per-producer (");
    let listed = lookupd.node_topics()[&nsqd.tcp].clone();
    let connection = |lookupd: &Lookupd| lookupd.nodes()[0]["remote_address"].clone();
    let first = connection(&lookupd);

    wait::until("a heartbeat", || {
        for topic in &listed {
            assert_eq!(lookupd.lookup(topic), ([nsqd.tcp].into(), set(&["channel"])), "{topic}");
        }
        assert_eq!(lookupd.node_topics()[&nsqd.tcp], listed);
        if lookupd.commands("PING") > 0 { Ok(()) } else { Err("none".to_owned()) }
    });
    // And one more topic on the same connection.
    nsqd.create_topic("six");
    wait::until("the refusal", || {
        let commands = lookupd.commands("REGISTER");
        if commands == 6 { Ok(()) } else { Err(commands.to_string()) }
    });
    assert_eq!(connection(&lookupd), first);
    assert_eq!(lookupd.node_topics()[&nsqd.tcp], listed);
}

/// When it connects, nsqd registers a topic that has channels only together with these.
fn a_channel_too_many_does_not_hide_its_topic(backend: Backend) {
    let Some(programs) = Programs::find() else {
        return;
    };
    let lookupd = Lookupd::start_with(backend, &["-max-channels-per-producer=1".into()]);
    let nsqd = Nsqd::start(&programs, &[]);
    for topic in ["orders", "returns"] {
        nsqd.create_topic(topic);
        nsqd.create_channel(topic, "billing");
    }
    nsqd.use_lookupds(&[&lookupd]);
    lookupd.await_producers("orders", &[&nsqd]);
    lookupd.await_producers("returns", &[&nsqd]);
    assert_eq!(lookupd.channels("orders").len() + lookupd.channels("returns").len(), 1);
}
