//! Attacks on the port of consumers.

use std::net::Shutdown;

use crate::beside::Driver;
use crate::peers::{pipelined, pour, trickle};
use crate::support::clients::{Nsqd, connect, get, post, read_answer, said, send_get, until_fin};

/// A head without end, in one line or in many.
pub fn head(driver: Driver) {
    driver.beside(|scene| {
        let endless: [(&[u8], Vec<u8>); 3] = [
            (b"GET /", vec![b'x'; 64 << 10]),
            (b"GET /ping HTTP/1.1\r\nHost: h\r\nX: ", vec![b'x'; 64 << 10]),
            (b"GET /ping HTTP/1.1\r\nHost: h\r\n", b"a: b\r\n".repeat(10_000)),
        ];
        for (begin, piece) in &endless {
            let answer = pour(scene.server.http, begin, piece, 1000);
            assert!(answer.starts_with(b"HTTP/1.1 431 "), "{}", answer.escape_ascii());
        }
        scene.stayed_below(32);
    });
}

/// A request a byte at a time, and requests that are never whole.
pub fn byte_by_byte_requests(driver: Driver) {
    driver.beside(|scene| {
        let whole = b"POST /topic/create?topic=slow HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\n123456789";
        for stream in &mut trickle(scene.server.http, whole, 100) {
            let answer = read_answer(stream);
            assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        }
        let unfinished: Vec<_> = [0, 1, 40, whole.len() - 1]
            .into_iter()
            .flat_map(|len| (0..100).map(move |_| len))
            .map(|len| said(scene.server.http, &whole[..len]))
            .collect();
        scene.answered(100);
        unfinished
    });
}

/// FIN, wherever a request is. What is whole is answered.
pub fn half_closed_requests(driver: Driver) {
    driver.beside(|scene| {
        let requests: [(&[u8], &[&str]); 6] = [
            (b"", &[]),
            (b"GET /pi", &["400"]),
            (b"GET /ping HTTP/1.1\r\nHost: h\r\n", &["400"]),
            (b"GET /ping HTTP/1.1\r\nHost: h\r\n\r\n", &["200"]),
            (b"GET /ping HTTP/1.1\r\nHost: h\r\n\r\nGET /x HTTP/1.1\r\nHost: h\r\n\r\n", &["200", "404"]),
            (b"POST /topic/create?topic=t HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\n123", &["400"]),
        ];
        for (bytes, expected) in requests.iter().cycle().take(300) {
            let stream = said(scene.server.http, bytes);
            stream.shutdown(Shutdown::Write).expect("connected");
            assert_eq!(statuses(&until_fin(stream)), *expected, "{}", bytes.escape_ascii());
        }
    });
}

/// Requests without end; every tenth changes something.
pub fn pipelined_requests(driver: Driver) {
    const ROUNDS: usize = 10_000;
    let ping = b"GET /ping HTTP/1.1\r\nHost: h\r\n\r\n".repeat(9);
    let create = b"POST /topic/create?topic=many HTTP/1.1\r\nHost: h\r\n\r\n";
    let round = [&ping[..], create].concat();
    driver.beside(|scene| {
        // Their length is that of the first ones.
        let mut first = said(scene.server.http, &round);
        let len = (0..10).map(|_| read_answer(&mut first).len()).sum::<usize>();
        let read = pipelined(scene.server.http, &round.repeat(ROUNDS), len * ROUNDS);
        assert!(statuses(&read).iter().all(|status| status == "200"));
        scene.stayed_below(32);
    });
}

/// Thousands of connections from one address, all of them in use.
pub fn keep_alive(driver: Driver) {
    driver.beside(|scene| {
        let mut clients: Vec<_> = (0..2000).map(|_| connect(scene.server.http)).collect();
        for _ in 0..3 {
            for client in &mut clients {
                send_get(client, "/ping");
            }
            for client in &mut clients {
                assert!(read_answer(client).ends_with("OK"));
            }
        }
        scene.stayed_below(32);
        clients
    });
}

/// `*` is every topic to those who read, and no topic to those who delete.
pub fn star(driver: Driver) {
    driver.beside(|scene| {
        let mut producer = Nsqd::identified(scene.server.tcp, "starred", 1);
        producer.register("first");
        producer.register("second");
        for target in [
            "/topic/delete?topic=*",
            "/topic/tombstone?topic=*&node=starred:2",
            "/channel/delete?topic=*&channel=*",
        ] {
            let answer = post(&mut connect(scene.server.http), target);
            assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains("INVALID_ARG_"), "{answer}");
        }
        let mut client = connect(scene.server.http);
        for topic in ["first", "second", "*"] {
            let answer = get(&mut client, &format!("/lookup?topic={topic}"));
            assert!(answer.contains("\"starred\""), "{answer}");
        }
    });
}

/// Names that are none are neither made nor echoed.
pub fn names_asked_for(driver: Driver) {
    driver.beside(|scene| {
        let mut client = connect(scene.server.http);
        for name in
            ["%ff%fe", "a%00b", "%1b[2J", "a%0d%0aSet-Cookie:x", "%22", "%c0%80", &"x".repeat(65), "\u{e9}", "%zz"]
        {
            for target in
                [format!("/topic/create?topic={name}"), format!("/channel/create?topic=t&channel={name}")]
            {
                let answer = post(&mut connect(scene.server.http), &target);
                assert!(
                    answer.starts_with("HTTP/1.1 400 ") && answer.contains("{\"message\":\"INVALID_"),
                    "{answer}"
                );
            }
            // A name that is only looked for is not validated (stock), nor echoed.
            for target in
                ["/topic/delete?topic=", "/channel/delete?channel=c&topic=", "/topic/tombstone?node=n:1&topic="]
            {
                let answer = post(&mut connect(scene.server.http), &format!("{target}{name}"));
                assert!(answer.is_ascii() && !answer.contains("Set-Cookie"), "{answer}");
            }
            get(&mut client, &format!("/lookup?topic={name}"));
        }
        assert!(get(&mut client, "/topics").is_ascii());
    });
}

/// The status of each answer in what was read.
pub fn statuses(read: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(read);
    let lines = text.match_indices("HTTP/1.1 ").map(|(at, line)| &text[at + line.len()..]);
    lines.map(|line| line.chars().take(3).collect()).collect()
}
