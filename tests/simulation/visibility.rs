//! What a turn has answered OK is there for every other worker as soon as the turn is over, and what it has seen
//! leave is not: no further turn of the worker that did it is needed.

use std::net::{Ipv4Addr, SocketAddr};

use ringlookupd::clock::Timestamp;
use ringlookupd::listen::Protocol;
use ringlookupd::worker::Worker;

use crate::fault_profile::FaultProfile;
use crate::kernel::Kernel;
use crate::link::{ClientEnd, Link};
use crate::world;

/// A worker with one client.
struct Side {
    worker: Worker,
    kernel: Kernel,
    links: [Link; 1],
}

impl Side {
    fn new(worker: Worker, protocol: Protocol) -> Self {
        let mut kernel = Kernel::new(1, FaultProfile::KIND, None);
        kernel.connect(protocol, 0, SocketAddr::from((Ipv4Addr::LOCALHOST, 1)));
        Self { worker, kernel, links: [Link::new(protocol, vec![0], 1 << 20)] }
    }

    fn turn(&mut self, now: Timestamp) {
        self.kernel.turn(&mut self.worker, &mut self.links, now);
    }

    /// Says something, and lets the worker take turns until it has answered.
    fn ask(&mut self, bytes: &[u8], now: Timestamp) -> Vec<u8> {
        self.links[0].upload.extend(bytes);
        while self.links[0].download.is_empty() {
            self.turn(now);
        }
        self.links[0].download.drain(..).collect()
    }
}

#[test]
fn a_turn_is_visible_to_others_when_it_is_over() {
    let (workers, now) = world::workers(2);
    let [first, second] = <[Worker; 2]>::try_from(workers).ok().expect("two");
    let (mut nsqd, mut client) = (Side::new(first, Protocol::V1), Side::new(second, Protocol::Http));
    let mut lookup = |topic: &str| {
        let request = format!("GET /lookup?topic={topic} HTTP/1.1\r\nHost: h\r\n\r\n");
        String::from_utf8(client.ask(request.as_bytes(), now)).expect("JSON")
    };
    let body = br#"{"broadcast_address":"here","tcp_port":1,"http_port":2,"version":"1"}"#;
    let len = u32::try_from(body.len()).expect("short").to_be_bytes();
    nsqd.ask(&[b"  V1IDENTIFY\n", &len[..], body].concat(), now);
    assert!(lookup("t").contains("404"));
    nsqd.ask(b"REGISTER t\n", now);
    assert!(lookup("t").contains("here"));
    nsqd.ask(b"UNREGISTER t\n", now);
    assert!(!lookup("t").contains("here"));
    nsqd.ask(b"REGISTER t c\nPING\nREGISTER u\n", now);
    assert!(lookup("t").contains("here") && lookup("u").contains("here"));
    nsqd.links[0].client = ClientEnd::Finished;
    while !nsqd.links[0].gone {
        nsqd.turn(now);
    }
    assert!(!lookup("t").contains("here") && !lookup("u").contains("here"));
}
