//! SIGTERM and SIGINT end the program in time, whatever clients do, and what it has begun to answer is finished.

use std::any::Any;
use std::io::{ErrorKind, Write};
use std::net::TcpStream;
use std::thread;
use std::time::Duration;

use ringlookupd::io::Backend;
use rustix::process::Signal;

use crate::both_drivers::flag;
use crate::support::clients::http::response_len;
use crate::support::clients::{
    Nsqd, OK, bulky, connect, get, read_once, said, send_get, until_fin, wait_for_answer,
};
use crate::support::{PATIENCE, Server};

/// Long enough for the drain (3 s), short enough for a supervisor's patience (10 s and more).
const IN_TIME: Duration = Duration::from_secs(5);

on_both_drivers!(
    whatever_clients_do,
    replies_in_hand_are_finished,
    new_clients_are_refused_at_once,
    idle_connections_do_not_hold_it_up,
);

/// What clients have done when the signal comes; what they return is dropped at the end.
type Clients = fn(&Server) -> Box<dyn Any>;

/// At once, because a drain takes its time.
fn whatever_clients_do(backend: Backend) {
    let clients: [(&str, Clients); 4] = [
        ("nothing", |_| Box::new(())),
        ("idle", idle),
        ("unfinished", unfinished),
        ("stalled reader", |server| Box::new(stalled_reader(server))),
    ];
    thread::scope(|scope| {
        for ((name, clients), signal) in
            clients.into_iter().flat_map(|case| [(case, Signal::TERM), (case, Signal::INT)])
        {
            let thread = thread::Builder::new().name(format!("{name}, {signal:?}"));
            thread.spawn_scoped(scope, move || stops_with(backend, clients, signal)).expect("a thread");
        }
    });
}

/// The server exits with 0 in time, and another one serves on the same ports at once.
fn stops_with(backend: Backend, clients: Clients, signal: Signal) {
    let mut server = Server::start(&[flag(backend)]);
    let clients = clients(&server);
    server.signal(signal);
    let status = server.wait_for_exit(IN_TIME);
    assert!(status.is_some_and(|status| status.success()), "{status:?}, {}", server.log());
    let (tcp, http) = (server.tcp, server.http);
    let again = Server::start(&[flag(backend), format!("-tcp-address={tcp}"), format!("-http-address={http}")]);
    // What is announced is reachable.
    assert_eq!([again.tcp, again.http], [tcp, http]);
    assert!(get(&mut connect(again.http), "/ping").ends_with("OK"));
    assert_eq!(Nsqd::connect(again.tcp).ask(b"PING\n"), b"OK");
    drop(clients);
}

fn idle(server: &Server) -> Box<dyn Any> {
    let mut nsqd = Nsqd::identified(server.tcp, "idle", 1);
    nsqd.register("t");
    let mut client = connect(server.http);
    get(&mut client, "/lookup?topic=t");
    Box::new((nsqd, client, connect(server.tcp), connect(server.http)))
}

fn unfinished(server: &Server) -> Box<dyn Any> {
    Box::new([
        said(server.tcp, b"  V"),
        said(server.tcp, b"  V1IDENTIFY\n\0\0"),
        said(server.http, b"GET /ping HT"),
        said(server.http, b"POST /topic/create?topic=t HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\n12"),
    ])
}

/// Has asked for more than two sockets' buffers hold, and does not read.
fn stalled_reader(server: &Server) -> (Nsqd, TcpStream) {
    let mut producer = bulky(server.tcp);
    for topic in 0..20 {
        producer.register(&format!("t{topic}"));
    }
    let mut reader = connect(server.http);
    // It shows all of the producer for each registration.
    send_get(&mut reader, "/debug");
    wait_for_answer(&reader);
    (producer, reader)
}

/// Whoever has asked before the signal, and reads, gets a whole answer or none, and no reset.
fn replies_in_hand_are_finished(backend: Backend) {
    for _ in 0..2 {
        let mut server = Server::start(&["-workers=2", &flag(backend)]);
        let _producer = bulky(server.tcp);
        let mut nsqds: Vec<_> = (0..10).map(|_| Nsqd::connect(server.tcp)).collect();
        let mut clients: Vec<_> = (0..10).map(|_| connect(server.http)).collect();
        // All are accepted when the signal comes.
        for nsqd in &mut nsqds {
            assert_eq!(nsqd.ask(b"PING\n"), b"OK");
        }
        for client in &mut clients {
            get(client, "/ping");
        }
        for nsqd in &mut nsqds {
            nsqd.0.write_all(&b"PING\n".repeat(1000)).expect("the server reads");
        }
        for (client, target) in clients.iter_mut().zip(["/nodes", "/ping"].into_iter().cycle()) {
            send_get(client, target);
        }
        server.signal(Signal::TERM);
        let readers = nsqds.into_iter().map(|nsqd| (nsqd.0, is_whole_replies as fn(&[u8]) -> bool));
        let readers = readers.chain(clients.into_iter().map(|client| (client, is_whole_answer as _)));
        let readers: Vec<_> = readers.map(|(stream, whole)| thread::spawn(move || check(stream, whole))).collect();
        for reader in readers {
            reader.join().expect("a whole answer");
        }
        assert!(server.wait_for_exit(IN_TIME).is_some_and(|status| status.success()), "{}", server.log());
    }
}

fn check(stream: TcpStream, is_whole: fn(&[u8]) -> bool) {
    let read = until_fin(stream);
    let end = &read[read.len().saturating_sub(100)..];
    assert!(read.is_empty() || is_whole(&read), "{} bytes that end with {}", read.len(), end.escape_ascii());
}

fn is_whole_replies(read: &[u8]) -> bool {
    read.chunks(OK.len()).all(|reply| reply == OK)
}

fn is_whole_answer(read: &[u8]) -> bool {
    read.starts_with(b"HTTP/1.1 200 OK\r\n") && response_len(read, false, false) == Some(read.len())
}

/// From SIGTERM on a new client is served or refused, and never left without an answer, and another server may have the
/// ports while this one is held up by a client that does not read.
fn new_clients_are_refused_at_once(backend: Backend) {
    let mut server = Server::start::<&str>(&[&flag(backend), "-drain-timeout=1h"]);
    let (mut idle, stalled) = (Nsqd::identified(server.tcp, "idle", 1), stalled_reader(&server));
    server.signal(Signal::TERM);
    loop {
        match TcpStream::connect(server.http) {
            Ok(mut client) => {
                client.set_read_timeout(Some(PATIENCE)).expect("not zero");
                assert!(get(&mut client, "/ping").ends_with("OK"));
            }
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
                break;
            }
        }
    }
    assert_eq!(read_once(&mut idle.0, &mut [0]).expect("a FIN, not a reset"), 0);
    let (tcp, http) = (server.tcp, server.http);
    let next = Server::start(&[flag(backend), format!("-tcp-address={tcp}"), format!("-http-address={http}")]);
    assert!(get(&mut connect(next.http), "/ping").ends_with("OK"));
    assert!(server.exited().is_none(), "it waits for the client that does not read");
    drop(stalled);
    assert!(server.wait_for_exit(PATIENCE).is_some_and(|status| status.success()));
}

/// Clients that are owed nothing are told by a FIN, and nobody waits for theirs.
fn idle_connections_do_not_hold_it_up(backend: Backend) {
    let mut server = Server::start::<&str>(&[&flag(backend), "-drain-timeout=1h"]);
    let mut nsqd = Nsqd::identified(server.tcp, "idle", 1);
    let mut clients = [connect(server.tcp), connect(server.http), connect(server.http)];
    get(&mut clients[2], "/ping");
    server.signal(Signal::TERM);
    assert!(server.wait_for_exit(IN_TIME).is_some_and(|status| status.success()));
    for stream in clients.iter_mut().chain([&mut nsqd.0]) {
        assert_eq!(read_once(stream, &mut [0]).expect("a FIN, not a reset"), 0);
    }
}
