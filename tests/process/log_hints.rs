//! What the log tells the operator: which program this is, and what its clients do wrong.

use std::io::Write;
use std::net::Shutdown;
use std::time::Instant;

use crate::support::clients::{Nsqd, connect, get, identify, identify_with, reset, said, until_fin};
use crate::support::{PATIENCE, Server};

/// The log's lines without what stands before the level.
fn lines(log: &str) -> Vec<&str> {
    let begin = "[nsqlookupd] 2026/11/22 10:37:00.123456 ".len();
    log.lines().map(|line| &line[begin..]).collect()
}

#[test]
fn the_log_begins_with_both_versions() {
    let server = Server::start::<&str>(&[]);
    let log = server.log();
    let [stocks, own] = lines(&log)[..2] else { unreachable!("two of them") };
    assert!(stocks.starts_with("INFO: nsqlookupd v1.3.0 (built w/rustc") && stocks.ends_with(')'), "{stocks}");
    assert!(own.starts_with(concat!("INFO: ringlookupd ", env!("CARGO_PKG_VERSION"), " (")), "{own}");
    let mut client = connect(server.http);
    assert!(get(&mut client, "/info").ends_with("\r\n\r\n{\"version\":\"1.3.0\"}"));
    let identity = Nsqd::connect(server.tcp).ask(&identify("n", 1));
    assert!(identity.ends_with(b",\"version\":\"1.3.0\"}"), "{}", identity.escape_ascii());
}

/// A health check connects, and leaves by FIN or RST without a byte.
#[test]
fn a_health_check_is_no_error() {
    let server = Server::start(&["-log-level=debug"]);
    let accepted = || {
        let stream = connect(server.tcp);
        server.wait_for_log(&format!("TCP: new client({})", stream.local_addr().expect("connected")));
        stream
    };
    reset(accepted());
    drop(accepted());
    let half_closed = accepted();
    half_closed.shutdown(Shutdown::Write).expect("connected");
    assert_eq!(until_fin(half_closed), b"");
    let (mut client, begun) = (connect(server.http), Instant::now());
    while !get(&mut client, "/metrics").contains("connections_closed_total{listener=\"tcp\"} 3\n") {
        assert!(begun.elapsed() < PATIENCE, "not closed: {}", server.log());
    }
    // What is begun and not finished is an error, as in stock.
    let mut torn = accepted();
    torn.write_all(b"  V").expect("connected");
    drop(torn);
    server.wait_for_log("ERROR: failed to read protocol version - unexpected EOF");
    let log = server.log();
    let lines = lines(&log);
    let ends = lines.iter().filter(|line| line.contains("failed to read protocol version"));
    let [debug, error] =
        ["DEBUG", "ERROR"].map(|level| ends.clone().filter(|line| line.starts_with(level)).count());
    assert_eq!((debug, error), (3, 1), "{log}");
    assert!(!lines.iter().any(|line| line.starts_with("WARNING")), "{log}");
}

/// Whoever speaks to the wrong port gets stock's response; a log line names the right port, once a minute.
#[test]
fn a_client_at_the_wrong_port_is_shown_the_right_one() {
    let server = Server::start::<&str>(&[]);
    let (tcp, http) = (server.tcp, server.http);
    let requests = [
        "GET / HTTP/1.1\r\nHost: h\r\n\r\n",
        "HEAD / HTTP/1.0\r\n\r\n",
        "POST /topic/create?topic=t HTTP/1.1\r\n\r\n",
        "PUT / HTTP/1.1\r\n\r\n",
        "DELETE / HTTP/1.1\r\n\r\n",
        "OPTIONS * HTTP/1.1\r\n\r\n",
        "CONNECT h:1 HTTP/1.1\r\n\r\n",
        "TRACE / HTTP/1.1\r\n\r\n",
        "PATCH / HTTP/1.1\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ];
    for request in requests {
        assert_eq!(until_fin(said(tcp, request.as_bytes())), b"\0\0\0\x0eE_BAD_PROTOCOL", "{request}");
    }
    let command = identify("n", 1);
    for (first, second) in [(&b"  V1"[..], &command[..]), (b"  V1IDENT", &command[5..]), (b"  V1", b"")] {
        let mut nsqd = said(http, first);
        nsqd.write_all(second).expect("connected");
        nsqd.shutdown(Shutdown::Write).expect("connected");
        let response = until_fin(nsqd);
        assert!(response.starts_with(b"HTTP/1.1 400 Bad Request\r\n"), "{}", response.escape_ascii());
    }
    let mut client = connect(http);
    let metrics = get(&mut client, "/metrics");
    for (listener, count) in [("tcp", requests.len()), ("http", 3)] {
        let sample = format!("nsqlookupd_wrong_port_total{{listener=\"{listener}\"}} {count}\n");
        assert!(metrics.contains(&sample), "{metrics}");
    }
    for (spoken, wrong, right) in [("HTTP", tcp, http), ("nsqd's protocol", http, tcp)] {
        let line =
            format!(") speaks {spoken} to {wrong}: the right port is {right} (times since the last such line: 1)");
        server.wait_for_log(&line);
    }
    let log = server.log();
    let warnings = lines(&log).into_iter().filter(|line| line.starts_with("WARNING: client(127.0.0.1:"));
    assert_eq!(warnings.count(), 2, "{log}");
}

#[test]
fn an_identify_that_is_refused_is_explained() {
    let server = Server::start::<&str>(&[]);
    for (body, error, logged) in [
        ("{}", "missing fields", " - broadcast_address, tcp_port, http_port, version"),
        (r#"{"broadcast_address":"b","http_port":2,"version":""}"#, "missing fields", " - tcp_port, version"),
        (r#"{"tcp_port":"4150"}"#, "failed to decode JSON body", " - wrong type: tcp_port"),
        ("{", "failed to decode JSON body", "\n"),
    ] {
        let reply = Nsqd::connect(server.tcp).ask(&identify_with(body));
        assert_eq!(reply, format!("E_BAD_BODY IDENTIFY {error}").as_bytes());
        server.wait_for_log(&format!("] - E_BAD_BODY IDENTIFY {error}{logged}"));
    }
}
