//! Attacks by connecting.

use std::io::{Read, Write};
use std::net::TcpStream;

use rustix::process::Signal;

use crate::beside::{Driver, behind_shell};
use crate::peers::{identify, reset, said, self_description, wait_until};
use crate::support::Server;
use crate::support::clients::{Nsqd, OK, bulky, connect, get, send_get};

/// Connections that have not finished their magic. That SIGTERM works beside them is shown after every attack; they
/// are the one thing that keeps it from stock.
pub fn sigterm(driver: Driver) {
    driver.beside(|scene| ["", " ", "  V"].map(|begun| said(scene.server.tcp, begun.as_bytes())));
}

/// RST, wherever a connection is.
pub fn resets(driver: Driver) {
    let description = self_description("reset");
    let registered = [&b"  V1"[..], &identify(description.as_bytes()), b"REGISTER resets\n"].concat();
    driver.beside(|scene| {
        let _bulky = bulky(scene.server.tcp);
        let before = scene.observed().descriptors();
        for round in 0..300 {
            for talk in [&b""[..], b"  V", &registered[..registered.len() - 3], &registered] {
                reset(said(scene.server.tcp, talk));
            }
            let mut producer = said(scene.server.tcp, &registered);
            producer.read_exact(&mut [0]).expect("a reply");
            reset(producer);
            let mut client = connect(scene.server.http);
            send_get(&mut client, ["/nodes", "/ping"][round % 2]);
            if round % 3 == 0 {
                client.read_exact(&mut [0]).expect("an answer begins");
            }
            reset(client);
        }
        wait_until("all are closed", || scene.observed().descriptors() == before);
        let answer = get(&mut connect(scene.server.http), "/lookup?topic=resets");
        assert!(answer.ends_with("\"producers\":[]}"), "{answer}");
    });
}

pub fn connect_and_leave(driver: Driver) {
    driver.beside(|scene| {
        let before = scene.observed().descriptors();
        for _ in 0..2000 {
            for address in [scene.server.tcp, scene.server.http] {
                reset(connect(address));
                drop(connect(address));
            }
        }
        wait_until("all are closed", || scene.observed().descriptors() == before);
        scene.stayed_below(32);
    });
}

/// More clients than descriptors: those that were first are served all the time, and the others when those leave.
pub fn descriptors(driver: Driver) {
    const LIMIT: usize = 256;
    const CLIENTS: usize = 400;
    let server = Server::start_command(&mut behind_shell(&format!("ulimit -n {LIMIT}"), driver.flags()));
    driver.beside_on(server, |scene| {
        let room = LIMIT - scene.observed().descriptors();
        let mut waiting: Vec<_> = (0..CLIENTS).map(|_| said(scene.server.tcp, b"  V1PING\n")).collect();
        let mut first = take_served(&mut waiting, room);
        scene.server.wait_for_log("temporary Accept() failure");
        for _ in 0..10 {
            ping(&mut first);
            scene.answered(50);
        }
        while !waiting.is_empty() {
            drop(first);
            let next = waiting.len().min(room);
            first = take_served(&mut waiting, next);
            ping(&mut first);
        }
        drop(first);
        wait_until("all are closed", || scene.observed().descriptors() == LIMIT - room);
    });
}

fn ping(streams: &mut [TcpStream]) {
    for stream in streams {
        stream.set_nonblocking(false).expect("a socket");
        stream.write_all(b"PING\n").expect("it is served");
        stream.read_exact(&mut [0; OK.len()]).expect("it is served");
    }
}

/// Of the clients that have asked, takes `count` that are answered.
fn take_served(waiting: &mut Vec<TcpStream>, count: usize) -> Vec<TcpStream> {
    let mut served = Vec::new();
    for stream in waiting.iter() {
        stream.set_nonblocking(true).expect("a socket");
    }
    wait_until("clients are served", || {
        let answered = |stream: &mut TcpStream| stream.read(&mut [0; OK.len()]).is_ok_and(|len| len == OK.len());
        served.extend(waiting.extract_if(.., answered));
        served.len() == count
    });
    served
}

/// More arrives at once than the ring's receive buffers hold: the server is stopped while all of it is sent.
pub fn receive_buffers(driver: Driver) {
    const PINGS: usize = 2000;
    driver.beside(|scene| {
        let mut clients: Vec<_> = (0..1000).map(|_| Nsqd::connect(scene.server.tcp)).collect();
        for client in &mut clients {
            assert_eq!(client.ask(b"PING\n"), b"OK");
        }
        scene.server.signal(Signal::STOP);
        for client in &mut clients {
            client.0.write_all(&b"PING\n".repeat(PINGS)).expect("the sockets hold it");
        }
        scene.server.signal(Signal::CONT);
        let mut replies = vec![0; PINGS * OK.len()];
        for client in &mut clients {
            client.0.read_exact(&mut replies).expect("each is answered");
            assert!(replies.chunks(OK.len()).all(|reply| reply == OK));
        }
        clients
    });
}
