//! Clients are reset in the middle of a message, one after the other. With no timeout to end what is left of them, their
//! connections go all the same: the ring may lose the end of a receive, and looks for it.

use std::io::Write;
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use ringlookupd::io::Backend;
use socket2::SockRef;

use crate::both_drivers::flag;
use crate::support::observed::Observed;
use crate::support::{PATIENCE, Server};

on_both_drivers!(nothing_is_left_of_clients_that_are_reset);

const RESETS: usize = 5000;

fn nothing_is_left_of_clients_that_are_reset(backend: Backend) {
    let timeouts = ["handshake", "identify", "request", "idle"].map(|name| format!("-{name}-timeout=0"));
    let server = Server::start(&[&timeouts[..], &["-workers=1".to_owned(), flag(backend)]].concat());
    let process = Observed(server.pid());
    let before = process.descriptors();
    for (address, message) in [(server.tcp, &b"  V1REGISTER t"[..]), (server.http, b"GET /ping HT")] {
        for _ in 0..RESETS {
            let mut client = TcpStream::connect(address).expect("it listens");
            SockRef::from(&client).set_linger(Some(Duration::ZERO)).expect("a socket");
            client.write_all(message).expect("a new connection");
        }
    }
    let begun = Instant::now();
    while process.descriptors() != before {
        assert!(begun.elapsed() < PATIENCE, "{} connections are left", process.descriptors() - before);
        thread::sleep(Duration::from_millis(10));
    }
    assert!(server.stop().success());
}
