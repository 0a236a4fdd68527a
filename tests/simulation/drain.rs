//! SIGTERM: who is owed nothing is closed after a grace in which a request is still answered, and nobody is waited for.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use ringlookupd::clock::Timestamp;
use ringlookupd::io::Service;
use ringlookupd::limits::DRAIN_GRACE;
use ringlookupd::worker::Worker;

use crate::fault_profile::FaultProfile;
use crate::kernel::Kernel;
use crate::link::{Link, ServerEnd};
use crate::world;

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
    fn connect(&mut self, service: Service, sent: &[u8]) -> usize {
        let mut link = Link::new(service, vec![0, sent.len()], 1 << 20);
        link.upload.extend(sent);
        self.links.push(link);
        let (number, port) = (self.links.len() - 1, u16::try_from(self.links.len()).expect("few"));
        assert!(self.kernel.connect(service, number, SocketAddr::from((Ipv4Addr::LOCALHOST, port))));
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
        scene.connect(Service::V1, b"  V1PING\n"),
        scene.connect(Service::Http, b""),
        scene.connect(Service::V1, b""),
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
    let (http, nsqd) = (scene.connect(Service::Http, b""), scene.connect(Service::V1, b"  V1"));
    scene.run(SOME_TURNS);
    scene.kernel.stop();
    let queued = scene.connect(Service::Http, b"GET /ping HTTP/1.1\r\nHost: queued\r\n\r\n");
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

#[test]
fn nobody_gets_in_after_the_stop() {
    let mut scene = Scene::new();
    scene.connect(Service::V1, b"  V1");
    scene.run(SOME_TURNS);
    scene.kernel.stop();
    scene.run(SOME_TURNS);
    let peer = SocketAddr::from((Ipv4Addr::LOCALHOST, 99));
    for service in Service::ALL {
        assert!(!scene.kernel.connect(service, 0, peer), "refused");
    }
}
