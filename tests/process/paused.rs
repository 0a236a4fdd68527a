//! The process stands still for longer than its timeouts (SIGSTOP, a paused container, a restored snapshot) while its
//! clients act in time. What they did waits in the sockets, so nobody may be told that it was late.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use ringlookupd::io::Backend;
use rustix::process::Signal;

use crate::both_drivers::flag;
use crate::support::Server;
use crate::support::clients::{Nsqd, OK, bulky, connect, get, read_answer, read_once, read_to_end, send_get};

on_both_drivers!(nobody_is_late_when_the_server_was);

const TIMEOUT: &str = "2s";
/// Longer than that, whatever a worker's tick adds.
const STANDSTILL: Duration = Duration::from_secs(4);

const NSQDS: usize = 50;
const CLIENTS: usize = 20;

fn nobody_is_late_when_the_server_was(backend: Backend) {
    let timeouts =
        ["handshake", "identify", "request", "idle", "output"].map(|name| format!("-{name}-timeout={TIMEOUT}"));
    let server = Server::start(
        &[&timeouts[..], &[flag(backend), format!("-inactive-producer-timeout={TIMEOUT}")]].concat(),
    );
    let _bulky = bulky(server.tcp);
    let mut nsqds: Vec<_> = (0..NSQDS).map(|nth| Nsqd::identified(server.tcp, &format!("n{nth}."), 1)).collect();
    for nsqd in &mut nsqds {
        nsqd.register("t");
    }
    let mut silent: Vec<_> = (0..CLIENTS).map(|_| connect(server.tcp)).collect();
    let mut halves: Vec<_> = (0..CLIENTS).map(|_| connect(server.http)).collect();
    let mut download = connect(server.http);
    send_get(&mut download, "/debug");
    download.read_exact(&mut [0; 1000]).expect("a long answer");
    let mut asking = connect(server.http);
    get(&mut asking, "/ping");
    let write =
        |stream: &mut TcpStream, bytes: &[u8]| stream.write_all(bytes).expect("a socket's buffer holds it");
    for stream in &mut halves {
        write(stream, b"GET /ping HTTP/1.1\r\nHo");
    }
    for nsqd in &mut nsqds {
        assert_eq!(nsqd.ask(b"PING\n"), b"OK");
    }

    server.signal(Signal::STOP);
    // The question comes before the PINGs: its answer must not depend on them.
    send_get(&mut asking, "/lookup?topic=t");
    thread::sleep(STANDSTILL);
    for stream in &mut halves {
        write(stream, b"st: h\r\nConnection: close\r\n\r\n");
    }
    for stream in &mut silent {
        write(stream, b"  V1PING\n");
    }
    for nsqd in &mut nsqds {
        write(&mut nsqd.0, b"PING\n");
    }
    server.signal(Signal::CONT);

    let answer = read_answer(&mut asking);
    assert_eq!(answer.matches("\"n").count(), NSQDS, "{answer}");
    for stream in silent.iter_mut().chain(nsqds.iter_mut().map(|nsqd| &mut nsqd.0)) {
        let mut reply = [0; OK.len()];
        stream.read_exact(&mut reply).expect("the reply to PING");
        assert_eq!(reply, OK);
    }
    for stream in &mut halves {
        let answer = read_to_end(stream).expect("an answer");
        assert!(answer.starts_with(b"HTTP/1.1 200 OK\r\n"), "{}", answer.escape_ascii());
    }
    let mut rest = Vec::new();
    while !rest.ends_with(b"\r\n0\r\n\r\n") {
        let mut piece = [0; 16 << 10];
        let len = read_once(&mut download, &mut piece).expect("all of the answer");
        assert!(len > 0, "cut after {} bytes", rest.len());
        rest.extend(&piece[..len]);
    }
    assert!(server.stop().success());
}
