//! Attacks on memory.

use std::io::{ErrorKind, Write};
use std::net::TcpStream;

use crate::beside::{Driver, Scene};
use crate::peers::{pipelined, pour};
use crate::support::clients::{
    Nsqd, connect, framed, get, post, request, said, send_get, uninterrupted, wait_for_answer,
};

/// A command line without end.
pub fn endless(driver: Driver) {
    driver.beside(|scene| {
        for begin in [&b"  V1"[..], b"  V1REGISTER ", b"  V1PING"] {
            let reply = pour(scene.server.tcp, begin, &[b'x'; 16 << 10], 16_384);
            assert_eq!(reply, framed("E_INVALID command line too long"));
        }
        scene.stayed_below(32);
    });
}

/// A body that no endpoint reads, announced with its length, or in chunks.
pub fn body(driver: Driver) {
    driver.beside(|scene| {
        let chunk = [&b"10000\r\n"[..], &b"x".repeat(1 << 16), b"\r\n"].concat();
        let bodies =
            [("Content-Length: 536870912", &chunk[7..7 + (1 << 16)]), ("Transfer-Encoding: chunked", &chunk[..])];
        for (field, piece) in bodies {
            for request in ["POST /topic/create?topic=t", "GET /lookup?topic=steady"] {
                let head = format!("{request} HTTP/1.1\r\nHost: h\r\n{field}\r\n\r\n");
                let answer = pour(scene.server.http, head.as_bytes(), piece, 8192);
                assert!(answer.starts_with(b"HTTP/1.1 413 "), "{head}{}", answer.escape_ascii());
            }
        }
        scene.stayed_below(32);
    });
}

/// Producers that ask and do not read.
pub fn stalled_producers(driver: Driver) {
    driver.beside(|scene| {
        let mut stalled: Vec<_> = (0..20).map(|_| said(scene.server.tcp, b"  V1")).collect();
        stuff(scene, &mut stalled, &b"PING\n".repeat(10_000));
        scene.stayed_below(32);
        stalled
    });
}

/// Consumers that ask for a lot and do not read.
pub fn stalled_consumers(driver: Driver) {
    driver.beside(|scene| {
        let mut producer = Nsqd::identified(scene.server.tcp, "large", 256);
        for topic in 0..2000 {
            producer.register(&format!("topic-{topic}"));
        }
        let mut stalled: Vec<_> = (0..200).map(|_| connect(scene.server.http)).collect();
        for stream in &mut stalled {
            send_get(stream, "/debug");
            wait_for_answer(stream);
        }
        stuff(scene, &mut stalled, &b"GET /debug HTTP/1.1\r\nHost: h\r\n\r\n".repeat(1000));
        scene.stayed_below(96);
        (producer, stalled)
    });
}

/// Sends on all of them until the server has read nothing for a while.
fn stuff(scene: &Scene, stalled: &mut [TcpStream], bytes: &[u8]) {
    for stream in stalled.iter() {
        stream.set_nonblocking(true).expect("a socket");
    }
    loop {
        let mut taken = 0;
        for stream in &mut *stalled {
            match uninterrupted(|| stream.write(bytes)) {
                Ok(len) => taken += len,
                Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock, "{error}"),
            }
        }
        if taken == 0 {
            return;
        }
        scene.answered(20);
    }
}

/// What was registered and deleted is not kept: filling and emptying the registry again and again takes no more
/// than doing it once.
pub fn topics(driver: Driver) {
    const TOPICS: usize = 20_000;
    driver.beside(|scene| {
        fill_and_empty(scene, TOPICS);
        let once = scene.observed().peak_resident();
        (0..4).for_each(|_| fill_and_empty(scene, TOPICS));
        let often = scene.observed().peak_resident();
        assert!(often < once * 3 / 2 || cfg!(sanitized), "{once} bytes at first, {often} later");
        let answer = get(&mut connect(scene.server.http), "/topics");
        assert!(!answer.contains("topic-number"), "{answer}");
    });
}

/// Registers topics and deletes them.
fn fill_and_empty(scene: &Scene, topics: usize) {
    let mut producer = Nsqd::identified(scene.server.tcp, "filler", 1);
    let commands: Vec<_> = (0..topics).map(|topic| format!("REGISTER topic-number-{topic} channel\n")).collect();
    for batch in commands.chunks(1000) {
        producer.0.write_all(batch.concat().as_bytes()).expect("the server reads");
        for _ in batch {
            assert_eq!(producer.ask(b""), b"OK");
        }
    }
    drop(producer);
    let delete = |topic| request("POST", &format!("/topic/delete?topic=topic-number-{topic}"));
    let requests: String = (0..topics).map(delete).collect();
    let read = pipelined(scene.server.http, requests.as_bytes(), topics * answer_len(scene));
    assert_eq!(memchr::memmem::find_iter(&read, b"HTTP/1.1 200 OK\r\n").count(), topics);
}

/// The length of the answer to a deletion.
fn answer_len(scene: &Scene) -> usize {
    let mut client = connect(scene.server.http);
    ["create", "delete"].map(|verb| post(&mut client, &format!("/topic/{verb}?topic=one")))[1].len()
}
