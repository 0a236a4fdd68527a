//! Streams of events through nginx and HAProxy with their usual timeouts of about a minute: an event passes at once, and a stream
//! that has nothing to say stays, because of its comments.

use std::io::{BufRead, Read};
use std::thread;

use ringlookupd::io::Backend;

use crate::both_drivers::{self, BACKENDS};
use crate::programs;
use crate::proxy::Proxy;
use crate::support::Server;
use crate::support::clients::Nsqd;

/// One each 15 s: more than a minute in all.
const COMMENTS: usize = 5;

/// All at once, as each takes more than a minute.
#[test]
fn a_stream_passes_proxies() {
    thread::scope(|scope| {
        for backend in BACKENDS {
            scope.spawn(move || both_drivers::run(backend, nginx));
            scope.spawn(move || both_drivers::run(backend, haproxy));
        }
    });
}

fn nginx(backend: Backend) {
    check(backend, |server| {
        let http = server.http;
        Proxy::nginx(&format!("location / {{ proxy_pass http://{http}; proxy_http_version 1.1; }}"))
    });
}

fn haproxy(backend: Backend) {
    check(backend, |server| {
        let http = server.http;
        // Those of the distribution's file.
        Proxy::haproxy(|address| {
            format!(
                "defaults\n  mode http\n  timeout connect 5000\n  timeout client 50000\n  timeout server 50000\n\
                 frontend consumers\n  bind {address}\n  default_backend lookupds\n\
                 backend lookupds\n  server one {http}\n"
            )
        })
    });
}

fn check(backend: Backend, start: impl Fn(&Server) -> Option<Proxy>) {
    let (program, io) = programs::lookupd(backend);
    let server = Server::start_program(&program, &io);
    let Some(proxy) = start(&server) else { return };
    let mut nsqd = Nsqd::identified(server.tcp, "node", 1);
    let mut events = proxy.send("GET /watch?topic=t HTTP/1.1\r\nHost: h\r\n\r\n");
    let mut line = String::new();
    let mut until = |what: &str| {
        line.clear();
        while !line.contains(what) {
            line.clear();
            assert!(events.read_line(&mut line).expect("the stream goes on") > 0, "it ends before {what}");
        }
    };
    until("event: snapshot");
    nsqd.register("t");
    until("event: up");
    for _ in 0..COMMENTS {
        until(":\n");
        until("\n");
        assert_eq!(nsqd.ask(b"PING\n"), b"OK");
    }
    assert_eq!(nsqd.ask(b"UNREGISTER t\n"), b"OK");
    until("event: down");

    let mut topics = proxy.send("GET /topics HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
    let mut response = String::new();
    topics.read_to_string(&mut response).expect("a response");
    // HAProxy writes names of headers in lower case.
    let headers = response.lines().filter_map(|line| line.split_once(": "));
    let tag = headers.filter(|(name, _)| name.eq_ignore_ascii_case("etag")).map(|(_, tag)| tag).next();
    let tag = tag.expect("it passes the proxy");
    let request =
        format!("GET /topics?wait=1s HTTP/1.1\r\nHost: h\r\nIf-None-Match: {tag}\r\nConnection: close\r\n\r\n");
    let mut response = String::new();
    proxy.send(&request).read_to_string(&mut response).expect("a response");
    assert!(response.starts_with("HTTP/1.1 304 "), "{response}");
}
