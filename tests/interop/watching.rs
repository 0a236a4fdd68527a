//! Consumers that `contrib/watch-go` and `contrib/watch-py` keep connected learn of a new nsqd at once, and end connected
//! to exactly what is alive, whatever happens to nsqd and to lookups. Beside stock they poll.

use std::net::SocketAddr;
use std::time::Instant;

use ringlookupd::io::Backend;
use socket2::{Domain, Socket, Type};

use crate::cluster::{Lookupd, Nsqd};
use crate::cut::Passage;
use crate::daemon::Daemon;
use crate::programs::{self, Programs, Watcher};
use crate::support::clients::{self, identify_with};
use crate::wait;

on_both_drivers!(
    go_nsq_gets_the_first_message_of_a_new_topic,
    pynsq_gets_the_first_message_of_a_new_topic,
    go_nsq_ends_connected_to_what_is_alive,
    pynsq_ends_connected_to_what_is_alive,
    go_nsq_polls_stock_until_it_is_replaced,
    pynsq_polls_stock_until_it_is_replaced
);

/// What the clients log when they follow a stream, and when they poll.
const WATCHES: &str = ": watching";
const POLLS: &str = "; polling instead";

fn go_nsq_gets_the_first_message_of_a_new_topic(backend: Backend) {
    gets_the_first_message_of_a_new_topic(backend, Watcher::Go);
}

fn pynsq_gets_the_first_message_of_a_new_topic(backend: Backend) {
    gets_the_first_message_of_a_new_topic(backend, Watcher::Python);
}

/// Both consumers are there before their topics. One has /watch, the other asks every two seconds.
fn gets_the_first_message_of_a_new_topic(backend: Backend, watcher: Watcher) {
    let Some(programs) = Programs::find() else {
        return;
    };
    let lookupd = Lookupd::start(backend);
    let nsqd = Nsqd::start(&programs, &[&lookupd]);
    let consume = |watch: &str, topic| {
        let flags = [format!("-watch={watch}"), "-poll=2".to_owned()];
        Daemon::start(&mut programs.watching_consumer(watcher, &flags, topic, &[lookupd.http]))
    };
    let (watching, polling) = (consume("true", "watched"), consume("false", "polled"));
    watching.wait_for_log(&[WATCHES, POLLS]);
    lookupd.server.wait_for_log("404 GET /lookup?topic=polled");

    let first_message = |consumer: &Daemon, topic| {
        let begun = Instant::now();
        nsqd.publish(topic, &["first"]);
        assert_eq!(consumer.printed(1), ["first"]);
        begun.elapsed().as_millis()
    };
    let (with, without) = (first_message(&watching, "watched"), first_message(&polling, "polled"));
    println!(
        "{watcher:?}: first message of a new topic after {with} ms with contrib's client, {without} ms without"
    );
}

fn go_nsq_ends_connected_to_what_is_alive(backend: Backend) {
    ends_connected_to_what_is_alive(backend, Watcher::Go);
}

fn pynsq_ends_connected_to_what_is_alive(backend: Backend) {
    ends_connected_to_what_is_alive(backend, Watcher::Python);
}

fn ends_connected_to_what_is_alive(backend: Backend, watcher: Watcher) {
    let Some(programs) = Programs::find() else {
        return;
    };
    let first = Lookupd::start(backend);
    let second = Lookupd::start(backend);
    let passages = [&first, &second].map(|lookupd| Passage::to(lookupd.http));
    let both = [first.tcp, second.tcp];
    let start = |args: &[&str]| {
        let nsqd = Nsqd::start_at(&programs, &both, args);
        nsqd.create_topic("orders");
        nsqd
    };
    let [kept, killed, deleted] = [(); 3].map(|()| start(&[]));
    // Nothing listens where this producer says, and nobody else gets the port.
    let reserved = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    reserved.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).expect("a free port");
    let dead = reserved.local_addr().ok().and_then(|address| address.as_socket()).expect("a bound port");
    let _producers = [&first, &second].map(|lookupd| register(lookupd, dead));
    let through = passages.each_ref().map(|passage| passage.address);
    let consumer = Daemon::start(&mut programs.watching_consumer(watcher, &[], "orders", &through));
    for nsqd in [&kept, &killed, &deleted] {
        await_consumers(nsqd, 1);
    }
    consumer.wait_for_log(&[&format!("{dead}")]);

    // The streams are cut, and then mended, while an nsqd is killed and another starts.
    passages.iter().for_each(Passage::cut);
    drop(killed);
    let new = start(&[]);
    passages.iter().for_each(Passage::mend);
    await_consumers(&new, 1);

    // One of two lookups restarts, and knows nothing; an nsqd that registers there alone is found nevertheless.
    let first = first.restart();
    let elsewhere = Nsqd::start(&programs, &[&first]);
    elsewhere.create_topic("orders");
    await_consumers(&elsewhere, 1);
    for nsqd in [&kept, &deleted, &new] {
        // It notices by one command that its connection has ended, and connects with the next.
        nsqd.create_topic("one-more");
        nsqd.create_topic("another");
    }
    wait::until("the first lookup knows all again", || {
        let producers = first.producers("orders");
        let missing = [&kept, &deleted, &new].into_iter().any(|nsqd| !producers.contains(&nsqd.tcp));
        if missing { Err(format!("{producers:?}")) } else { Ok(()) }
    });

    // Whoever connects to an nsqd makes the topic there: a deleted one stays deleted.
    deleted.delete_topic("orders");
    for lookupd in [&first, &second] {
        wait::until_eq("it is unregistered", &false, || lookupd.producers("orders").contains(&deleted.tcp));
    }
    drop(reserved);
    let revived = start(&[&format!("-tcp-address={dead}")]);

    let alive = [(&kept, "kept"), (&new, "new"), (&elsewhere, "elsewhere"), (&revived, "revived")];
    for (nsqd, body) in alive {
        await_consumers(nsqd, 1);
        nsqd.publish("orders", &[body]);
    }
    assert_eq!(consumer.printed(4), ["elsewhere", "kept", "new", "revived"]);
    for (nsqd, _) in alive {
        await_consumers(nsqd, 1);
    }
    if deleted.consumers("orders", "archive").is_some() {
        consumer.fail(&format!("has made the topic again at {}", deleted.tcp));
    }
}

fn go_nsq_polls_stock_until_it_is_replaced(backend: Backend) {
    polls_stock_until_it_is_replaced(backend, Watcher::Go);
}

fn pynsq_polls_stock_until_it_is_replaced(backend: Backend) {
    polls_stock_until_it_is_replaced(backend, Watcher::Python);
}

fn polls_stock_until_it_is_replaced(backend: Backend, watcher: Watcher) {
    let Some(programs) = Programs::find() else {
        return;
    };
    let stock = Lookupd::start_program((programs.path("nsqlookupd"), Vec::new()), &[]);
    let consumer = Daemon::start(&mut programs.watching_consumer(watcher, &[], "orders", &[stock.http]));
    consumer.wait_for_log(&[POLLS]);
    let before = Nsqd::start(&programs, &[&stock]);
    before.publish("orders", &["before"]);
    assert_eq!(consumer.printed(1), ["before"]);

    let server = programs::lookupd(backend);
    let is_ours = server.0.ends_with("ringlookupd");
    let lookupd = stock.replace_by(server);
    if is_ours {
        consumer.wait_for_log(&[WATCHES]);
    }
    let after = Nsqd::start(&programs, &[&lookupd]);
    after.publish("orders", &["after"]);
    assert_eq!(consumer.printed(2), ["after", "before"]);
    before.publish("orders", &["still"]);
    assert_eq!(consumer.printed(3), ["after", "before", "still"]);
}

/// A producer of orders, for as long as its connection is there.
fn register(lookupd: &Lookupd, nsqd: SocketAddr) -> clients::Nsqd {
    let (host, port) = (nsqd.ip(), nsqd.port());
    let mut producer = clients::Nsqd::connect(lookupd.tcp);
    let reply = producer.ask(&identify_with(format!(
        r#"{{"broadcast_address":"{host}","hostname":"h","tcp_port":{port},"http_port":{port},"version":"1"}}"#
    )));
    assert!(reply.starts_with(b"{"), "{}", reply.escape_ascii());
    producer.register("orders");
    producer
}

fn await_consumers(nsqd: &Nsqd, count: u64) {
    let what = format!("the consumers at {}", nsqd.tcp);
    wait::until_eq(&what, &Some(count), || nsqd.consumers("orders", "archive"));
}
