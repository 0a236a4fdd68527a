//! Nobody waits behind a big answer: one worker answers lookups while it produces `/nodes` or `/debug` of many
//! megabytes for another connection, and while a reader of such a body has stopped reading.
//!
//! Shown without a clock: lookups are answered while the big answer, asked for before them, is provably not all
//! there yet. A worker that made or sent it in one piece could not answer even the first of them.

#[path = "support/mod.rs"]
mod support;

use std::net::TcpStream;

use support::Server;
use support::clients::{Nsqd, connect, get, read_some, send_get, wait_for_answer};

/// Lookups that must be answered meanwhile.
const LOOKUPS: usize = 50;

/// Longer than what two sockets' buffers hold, so that an answer of that size is in production for as long as its
/// reader leaves bytes in them.
const BIG: usize = 40 << 20;

/// A server on one worker, with producers that make its big answers [`BIG`] or longer.
struct Scene {
    server: Server,
    _producers: Vec<Nsqd>,
}

impl Scene {
    fn new() -> Self {
        let server = Server::start(&["-workers=1"]);
        let producers = (0..BIG >> 20).map(|number| {
            let mut producer = Nsqd::identified(server.tcp, &format!("node-{number}"), 1 << 20);
            // `/debug` shows all of a producer for each registration.
            producer.register(&format!("big-{number}"));
            producer
        });
        let mut producers: Vec<_> = producers.collect();
        let mut small = Nsqd::identified(server.tcp, "small", 1);
        small.register("small");
        producers.push(small);
        Self { server, _producers: producers }
    }
}

/// Lookups one after the other, each answered.
fn look_up(client: &mut TcpStream) {
    for _ in 0..LOOKUPS {
        let answer = get(client, "/lookup?topic=small");
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.contains("\"small\""), "{answer}");
    }
}

/// The reader of the big answer takes a piece, then the other client has its lookups, over and over.
fn served_beside(target: &str) {
    let scene = Scene::new();
    let mut client = connect(scene.server.http);
    // Its first answer, so that accepting it is not what is waited for.
    look_up(&mut client);
    let mut reader = connect(scene.server.http);
    send_get(&mut reader, target);
    let (mut read, mut turns) = (0, 0);
    while read < BIG - (8 << 20) {
        // So much is still to be produced or sent, and lookups are answered.
        look_up(&mut client);
        let upto = read + (4 << 20);
        while read < upto {
            read += read_some(&mut reader);
        }
        turns += 1;
    }
    assert!(turns >= 8);
    assert!(scene.server.stop().success());
}

#[test]
fn nodes_are_being_produced() {
    served_beside("/nodes");
}

#[test]
fn debug_is_being_produced() {
    served_beside("/debug");
}

/// A body that is rendered once and shared by all who ask for it.
#[test]
fn a_large_lookup_is_being_sent() {
    let scene = Scene::new();
    let _producers: Vec<_> = (0..BIG >> 20)
        .map(|number| {
            let mut producer = Nsqd::identified(scene.server.tcp, &format!("twin-{number}"), 1 << 20);
            producer.register("large");
            producer
        })
        .collect();
    let mut client = connect(scene.server.http);
    let mut stalled = connect(scene.server.http);
    send_get(&mut stalled, "/lookup?topic=large");
    wait_for_answer(&stalled);
    look_up(&mut client);
}

/// Many have asked for all there is, and read nothing of it.
#[test]
fn readers_have_stopped_reading() {
    let scene = Scene::new();
    let mut client = connect(scene.server.http);
    let stalled: Vec<_> = (0..50)
        .flat_map(|_| ["/nodes", "/debug"])
        .map(|target| {
            let mut stalled = connect(scene.server.http);
            send_get(&mut stalled, target);
            stalled
        })
        .collect();
    for reader in &stalled {
        wait_for_answer(reader);
        look_up(&mut client);
    }
    assert!(scene.server.stop().success());
}
