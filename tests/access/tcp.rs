//! `-tcp-allow`: who may connect as nsqd.

use std::io::Write;

use crate::support::Server;
use crate::support::clients::{Nsqd, connect, framed, get, identify, until_fin};
use crate::{ask, connect_from, denied, request, status, token_file};

#[test]
fn an_nsqd_at_another_address_is_told_so_and_closed() {
    let server = Server::start(&["-tcp-allow=127.0.0.2/32", "-tcp-allow=127.0.0.4/32"]);
    for allowed in [2, 4] {
        let mut stream = connect_from([127, 0, 0, allowed], server.tcp);
        stream.write_all(b"  V1").expect("a new connection");
        assert_eq!(Nsqd(stream).ask(b"PING\n"), b"OK");
    }
    for _ in 0..3 {
        let mut stream = connect_from([127, 0, 0, 3], server.tcp);
        // What it sends means nothing any more.
        let _ = stream.write_all(&[b"  V1", &identify("node", 1)[..]].concat());
        assert_eq!(until_fin(stream), framed("E_UNAUTHORIZED address is not allowed"));
    }
    assert_eq!(denied(&server, [127, 0, 0, 1], "x"), [3, 0, 0, 0]);
    assert!(!get(&mut connect(server.http), "/nodes").contains("\"node\""));
    server.wait_for_log("may not connect as nsqd");
    let log = server.log();
    assert_eq!(log.matches("may not connect as nsqd: its address is not allowed").count(), 1, "{log}");
    assert!(!log.contains("new client(127.0.0.3:"), "{log}");
}

/// nsqd asks without a token which channels a topic has before it starts the topic.
#[test]
fn nsqd_finds_the_channels_of_a_topic_by_its_address() {
    let (_file, tokens) = token_file("a admin admin-s3cret\n");
    let server = Server::start(&[tokens.as_str(), "-http-allow=127.0.0.2/32"]);
    let mut admin = connect(server.http);
    assert_eq!(status(&mut admin, "POST", "/channel/create?topic=t&channel=c", "admin-s3cret"), 200);
    let channels = request("GET", "/channels?topic=t", "Accept: application/vnd.nsq; version=1.0\r\n");
    let found = (200, "{\"channels\":[\"c\"]}".to_owned());
    assert_eq!(ask(&mut connect_from([127, 0, 0, 2], server.http), &channels), found);
    assert_eq!(ask(&mut connect_from([127, 0, 0, 3], server.http), &channels).0, 401);
    assert!(!server.log().contains("-auth-token-file without -http-allow"));
}

#[test]
fn a_warning_says_that_nsqd_may_not_read() {
    let (_file, tokens) = token_file("a admin admin-s3cret\n");
    for flags in [vec![tokens.as_str()], vec![tokens.as_str(), "-http-admin-allow=127.0.0.1/32"]] {
        let server = Server::start(&flags);
        server
            .wait_for_log("WARNING: -auth-token-file without -http-allow: nsqd asks for the channels of a topic");
    }
    let server = Server::start(&["-http-admin-allow=127.0.0.1/32"]);
    assert!(!server.log().contains("WARNING"), "{}", server.log());
}
