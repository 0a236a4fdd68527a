//! Attacks by connecting.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use rustix::process::Signal;

use crate::beside::{Driver, behind_shell};
use crate::peers::{self_description, wait_until};
use crate::support::Server;
use crate::support::clients::{Nsqd, OK, bulky, connect, get, identify_with, reset, said, send_get};

/// Connections that have not finished their magic. That SIGTERM works beside them is shown after every attack; they
/// are the one thing that keeps it from stock.
pub fn sigterm(driver: Driver) {
    driver.beside(|scene| ["", " ", "  V"].map(|begun| said(scene.server.tcp, begun.as_bytes())));
}

/// RST, wherever a connection is.
pub fn resets(driver: Driver) {
    let description = self_description("reset");
    let registered = [&b"  V1"[..], &identify_with(&description), b"REGISTER resets\n"].concat();
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

/// More clients than descriptors: those that were first are served all the time, the others are told that they are
/// too many, and there is room again when the first leave.
pub fn descriptors(driver: Driver) {
    const LIMIT: usize = 256;
    const CLIENTS: usize = 400;
    let server = Server::start_command(&mut behind_shell(&format!("ulimit -n {LIMIT}"), driver.flags()));
    Driver::beside_on(server, |scene| {
        let before = scene.observed().descriptors();
        let mut first: Vec<_> = (0..CLIENTS).filter_map(|_| served(scene.server.tcp)).collect();
        assert!((LIMIT / 2..LIMIT).contains(&first.len()), "{} are served", first.len());
        scene.server.wait_for_log("exceeded the limit -max-connections");
        for _ in 0..10 {
            for stream in &mut first {
                stream.write_all(b"PING\n").expect("it is served");
                stream.read_exact(&mut [0; OK.len()]).expect("it is served");
            }
            scene.answered(50);
        }
        drop(first);
        wait_until("there is room", || served(scene.server.tcp).is_some());
        wait_until("all are closed", || scene.observed().descriptors() == before);
    });
}

/// A client that is served; `None` when it is told that it is one too many.
fn served(address: SocketAddr) -> Option<TcpStream> {
    let mut stream = connect(address);
    // It may be closed before it has said anything.
    let _ = stream.write_all(b"  V1PING\n");
    let mut reply = [0; OK.len()];
    stream.read_exact(&mut reply).is_ok_and(|()| reply == OK).then_some(stream)
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
