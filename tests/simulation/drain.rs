//! SIGTERM: who is owed nothing is closed after a grace in which a request is still answered, and nobody is waited for.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use ringlookupd::clock::Timestamp;
use ringlookupd::io::ListenerId;
use ringlookupd::limits::DRAIN_GRACE;
use ringlookupd::listen::Protocol;
use ringlookupd::worker::Worker;

use crate::fault_profile::FaultProfile;
use crate::kernel::{Kernel, listeners_of};
use crate::link::{ClientEnd, Link, ServerEnd};
use crate::world::{self, LISTENERS};

struct Scene {
    worker: Worker,
    kernel: Kernel,
    links: Vec<Link>,
    now: Timestamp,
}

impl Scene {
    fn new() -> Self {
        let (mut workers, now) = world::workers(1);
        let worker = workers.pop().expect("one");
        Self { worker, kernel: Kernel::new(1, FaultProfile::KIND, None), links: Vec::new(), now }
    }

    /// A client, and what it has sent.
    fn connect(&mut self, protocol: Protocol, sent: &[u8]) -> usize {
        self.connect_to(listeners_of(protocol).next().expect("each protocol has some"), protocol, sent)
    }

    fn connect_to(&mut self, listener: ListenerId, protocol: Protocol, sent: &[u8]) -> usize {
        let mut link = Link::new(protocol, vec![0, sent.len()], 1 << 20);
        link.upload.extend(sent);
        self.links.push(link);
        let (number, port) = (self.links.len() - 1, u16::try_from(self.links.len()).expect("few"));
        assert!(self.kernel.connect_to(listener, number, SocketAddr::from((Ipv4Addr::LOCALHOST, port))));
        number
    }

    fn run(&mut self, duration: Duration) {
        let end = self.now.after(duration);
        while self.now < end && !self.worker.is_finished() {
            self.now = self.now.after(Duration::from_millis(1));
            self.kernel.turn(&mut self.worker, &mut self.links, self.now);
        }
    }

    fn read(&mut self, link: usize) -> String {
        String::from_utf8(self.links[link].download.drain(..).collect()).expect("ASCII")
    }
}

const SOME_TURNS: Duration = Duration::from_millis(10);

#[test]
fn connections_that_are_owed_nothing_end_after_the_grace() {
    let mut scene = Scene::new();
    let clients = [
        scene.connect(Protocol::V1, b"  V1PING\n"),
        scene.connect(Protocol::Http, b""),
        scene.connect(Protocol::V1, b""),
    ];
    scene.run(SOME_TURNS);
    scene.kernel.stop();
    scene.run(DRAIN_GRACE / 2);
    assert!(clients.iter().all(|&client| scene.links[client].server == ServerEnd::Open));
    scene.run(DRAIN_GRACE / 2 + SOME_TURNS);
    assert!(scene.worker.is_finished());
    assert!(
        clients.iter().all(|&client| scene.links[client].server == ServerEnd::Closed && !scene.links[client].cut)
    );
}

#[test]
fn a_request_in_the_grace_is_answered_and_ends_its_connection() {
    let mut scene = Scene::new();
    let (http, nsqd) = (scene.connect(Protocol::Http, b""), scene.connect(Protocol::V1, b"  V1"));
    scene.run(SOME_TURNS);
    scene.kernel.stop();
    let queued = scene.connect(Protocol::Http, b"GET /ping HTTP/1.1\r\nHost: queued\r\n\r\n");
    scene.run(SOME_TURNS);
    let pipelined = b"GET /ping HTTP/1.1\r\nHost: h\r\n\r\nPOST /topic/create?topic=t HTTP/1.1\r\nHost: h\r\n\
        Content-Length: 1\r\n\r\nx";
    scene.links[http].upload.extend(pipelined);
    scene.links[nsqd].upload.extend(b"PING\n");
    scene.run(SOME_TURNS);
    for (client, answers) in [(http, 2), (queued, 1)] {
        let read = scene.read(client);
        assert_eq!(read.matches("HTTP/1.1 200 OK\r\n").count(), answers, "{read}");
        assert_eq!(read.matches("Connection: close\r\n").count(), 1, "the last one says so: {read}");
        assert_eq!(scene.links[client].server, ServerEnd::Finished);
    }
    assert_eq!(scene.read(nsqd), "\0\0\0\x02OK");
    assert_eq!(scene.links[nsqd].server, ServerEnd::Open);
    scene.run(DRAIN_GRACE);
    assert_eq!(scene.links[nsqd].server, ServerEnd::Closed);
}

/// Whichever of several listeners of its protocol a client connects to, it is served like any other, and what is in
/// the queue of any of them at the stop is served, too.
#[test]
fn every_listener_serves_and_closes() {
    let mut scene = Scene::new();
    let mut clients = Vec::new();
    for queued in [false, true] {
        for (listener, protocol) in ListenerId::all().zip(LISTENERS) {
            let (sent, reply) = match protocol {
                Protocol::V1 => (&b"  V1PING\n"[..], "\0\0\0\x02OK"),
                Protocol::Http => (&b"GET /ping HTTP/1.1\r\nHost: h\r\n\r\n"[..], "HTTP/1.1 200 OK\r\n"),
            };
            clients.push((scene.connect_to(listener, protocol, sent), reply));
        }
        if queued {
            scene.kernel.stop();
        }
        scene.run(SOME_TURNS);
    }
    for (client, reply) in clients {
        let read = scene.read(client);
        assert!(read.starts_with(reply), "{read}");
        scene.links[client].client = ClientEnd::Finished;
    }
    scene.run(DRAIN_GRACE + SOME_TURNS);
    assert!(scene.worker.is_finished());
}

#[test]
fn nobody_gets_in_after_the_stop() {
    let mut scene = Scene::new();
    scene.connect(Protocol::V1, b"  V1");
    scene.run(SOME_TURNS);
    scene.kernel.stop();
    scene.run(SOME_TURNS);
    let peer = SocketAddr::from((Ipv4Addr::LOCALHOST, 99));
    for listener in ListenerId::all().take(LISTENERS.len()) {
        assert!(!scene.kernel.connect_to(listener, 0, peer), "refused");
    }
}
