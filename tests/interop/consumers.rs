//! Messages find their way: whoever publishes them, a consumer that knows nothing but lookupd receives them.

use std::io::{self, Write};

use ringlookupd::io::Backend;

use crate::cluster::{Lookupd, Nsqd};
use crate::daemon::Daemon;
use crate::programs::{Client, Programs};
use crate::wait;

on_both_drivers!(
    nsq_tail_receives_what_to_nsq_publishes,
    go_nsq_finds_its_topic,
    pynsq_finds_its_topic,
    nsqjs_finds_its_topic
);

/// `to_nsq` publishes to one nsqd, `nsq_tail` finds it through lookupd, and lookupd learns of the tail's channel.
fn nsq_tail_receives_what_to_nsq_publishes(backend: Backend) {
    let Some(programs) = Programs::find() else {
        return;
    };
    let lookupd = Lookupd::start(backend);
    let nsqd = Nsqd::start(&programs, &[&lookupd]);
    let to_nsq = |lines: &str| {
        let (stdin, mut input) = io::pipe().expect("a pipe");
        input.write_all(lines.as_bytes()).expect("a pipe holds this much");
        drop(input);
        Daemon::start(
            programs
                .command("to_nsq")
                .args(["-topic=orders", "-nsqd-tcp-address", &nsqd.tcp.to_string()])
                .stdin(stdin),
        )
        .finish();
    };

    to_nsq("before\n");
    let tail = Daemon::start(
        programs
            .command("nsq_tail")
            .args(["-topic=orders", "-channel=tail", "-n=3"])
            .args(["-lookupd-http-address", &lookupd.http.to_string()]),
    );
    assert_eq!(tail.printed(1), ["before"]);
    lookupd.await_channels("orders", &["tail"]);
    to_nsq("after\nafterwards\n");
    assert_eq!(tail.finish(), ["after", "afterwards", "before"]);
}

fn go_nsq_finds_its_topic(backend: Backend) {
    finds_its_topic(backend, Client::GoNsq);
}

fn pynsq_finds_its_topic(backend: Backend) {
    finds_its_topic(backend, Client::Pynsq);
}

fn nsqjs_finds_its_topic(backend: Backend) {
    finds_its_topic(backend, Client::Nsqjs);
}

/// The consumer is there first and is told that its topic is unknown. Then two nsqd get messages for it: it finds
/// both, receives everything and finishes it.
fn finds_its_topic(backend: Backend, client: Client) {
    let Some(programs) = Programs::find() else {
        return;
    };
    let lookupd = Lookupd::start(backend);
    let nsqds = [Nsqd::start(&programs, &[&lookupd]), Nsqd::start(&programs, &[&lookupd])];
    let consumer = Daemon::start(&mut programs.consumer(client, "orders", "work", 4, &[lookupd.http]));
    lookupd.server.wait_for_log("404 GET /lookup?topic=orders");

    nsqds[0].publish("orders", &["a", "b"]);
    nsqds[1].publish("orders", &["c", "d"]);
    assert_eq!(consumer.finish(), ["a", "b", "c", "d"]);
    for nsqd in &nsqds {
        wait::until_eq("unfinished messages", &Some(0), || nsqd.unfinished("orders", "work"));
    }
}
