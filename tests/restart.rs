//! Ends under load, and what is left of it: after SIGKILL the nodes come back to a server on the same ports by
//! themselves, and until a clean stop whatever was answered OK is so.

#[path = "support/mod.rs"]
mod support;

use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use support::clients::{Nsqd, ask, connect, exchange, get, introduce, read_once, request};
use support::{Ends, PATIENCE, Server};

const NODES: usize = 50;

/// nsqd's heartbeat, much faster.
const HEARTBEAT: Duration = Duration::from_millis(20);

/// What an nsqd does for its lookupd, with errors instead of panics: the server is killed under it.
struct Node {
    name: String,
    topic: String,
}

impl Node {
    fn new(number: usize) -> Self {
        Self { name: format!("node-{number}"), topic: format!("topic-{number}") }
    }

    /// Connects and says all it has to say, as nsqd does whenever it has connected.
    fn introduce(&self, address: SocketAddr) -> std::io::Result<TcpStream> {
        let mut stream = introduce(address, &self.name, 0)?;
        ask(&mut stream, format!("REGISTER {}\n", self.topic).as_bytes())?;
        ask(&mut stream, b"REGISTER shared channel\n")?;
        Ok(stream)
    }

    /// Heartbeats until it is told to end; whenever the connection breaks it makes another with the next one.
    fn live(&self, address: SocketAddr, over: &AtomicBool) {
        let mut connection = None;
        while !over.load(Ordering::Relaxed) {
            connection = match connection.take() {
                None => self.introduce(address).ok(),
                Some(mut stream) => ask(&mut stream, b"PING\n").ok().map(|_| stream),
            };
            thread::sleep(HEARTBEAT);
        }
    }
}

/// Waits until each node is listed for its own topic and for the shared one, with nobody twice.
fn all_are_listed(http: SocketAddr, nodes: &[Node]) {
    let begun = Instant::now();
    let mut client = connect(http);
    let mut is_listed = |topic: &str, count: usize| {
        get(&mut client, &format!("/lookup?topic={topic}")).matches("\"broadcast_address\"").count() == count
    };
    while !(is_listed("shared", nodes.len()) && nodes.iter().all(|node| is_listed(&node.topic, 1))) {
        assert!(begun.elapsed() < PATIENCE, "not all nodes are back");
        thread::sleep(HEARTBEAT);
    }
}

/// The ports of a server that was.
fn same_ports(server: &Server) -> [String; 3] {
    [format!("-tcp-address={}", server.tcp), format!("-http-address={}", server.http), "-workers=2".into()]
}

#[test]
fn nodes_come_back_to_a_server_that_was_killed() {
    let nodes: Vec<_> = (0..NODES).map(Node::new).collect();
    let mut server = Server::start(&["-workers=2"]);
    let (over, tcp) = (AtomicBool::new(false), server.tcp);
    thread::scope(|scope| {
        let _over = Ends(&over);
        for node in &nodes {
            scope.spawn(|| node.live(tcp, &over));
        }
        all_are_listed(server.http, &nodes);
        for _ in 0..3 {
            server.signal(Signal::KILL);
            assert!(server.wait_for_exit(PATIENCE).is_some_and(|status| !status.success()));
            server = Server::start(&same_ports(&server));
            all_are_listed(server.http, &nodes);
        }
    });
    assert!(server.stop().success());
}

/// Each node registers one topic after the other and looks up each one that was answered OK. SIGTERM comes in the
/// middle: the server may be gone then, but what it has promised is never missing.
#[test]
fn a_clean_stop_keeps_what_was_promised() {
    for _ in 0..3 {
        let mut server = Server::start(&["-workers=2"]);
        let (checked, tcp, http) = (AtomicUsize::new(0), server.tcp, server.http);
        thread::scope(|scope| {
            let nodes: Vec<_> = (0..8)
                .map(|node| {
                    scope.spawn({
                        let checked = &checked;
                        move || promised(node, tcp, http, checked)
                    })
                })
                .collect();
            let begun = Instant::now();
            while checked.load(Ordering::Relaxed) < 500 {
                assert!(begun.elapsed() < PATIENCE, "no load");
                thread::sleep(Duration::from_millis(1));
            }
            server.signal(Signal::TERM);
            for node in nodes {
                node.join().expect("what was promised is so");
            }
        });
        assert!(server.wait_for_exit(PATIENCE).is_some_and(|status| status.success()), "{}", server.log());
    }
}

fn promised(node: usize, tcp: SocketAddr, http: SocketAddr, checked: &AtomicUsize) {
    let mut producer = Nsqd::identified(tcp, "promised", 1);
    let mut client = connect(http);
    for number in 0.. {
        let topic = format!("topic-{node}-{number}");
        let Ok(reply) = ask(&mut producer.0, format!("REGISTER {topic}\n").as_bytes()) else { return };
        assert_eq!(reply, b"OK");
        let lookup = request("GET", &format!("/lookup?topic={topic}"));
        let Ok(answer) = exchange(&mut client, &lookup) else { return };
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{topic}: {answer}");
        checked.fetch_add(1, Ordering::Relaxed);
        if !answer.contains("\"promised\"") {
            // Another worker has ended the producer's connection, with which the producer goes.
            assert_eq!(read_once(&mut producer.0, &mut [0]).expect("a FIN"), 0, "{topic}: {answer}");
            return;
        }
    }
}
