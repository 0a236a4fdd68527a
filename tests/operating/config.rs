//! `/config` is nsqd's: the responses here are those of nsqd 1.3.0 to the same requests, but for what it sets.

use crate::support::Server;
use crate::support::clients::http::{exchange, request, split};
use crate::support::clients::{connect, get};

/// Status line and body of the response to a request with a body.
fn put(server: &Server, target: &str, body: &str) -> (String, String) {
    let head = format!("PUT {target} HTTP/1.1\r\nHost: h\r\nContent-Length: {}\r\n\r\n", body.len());
    said(&exchange(&mut connect(server.http), &(head + body)).expect("a response"))
}

fn said(response: &str) -> (String, String) {
    let (head, body) = split(response.as_bytes());
    let line = String::from_utf8_lossy(head).lines().next().expect("a status line").to_owned();
    (line["HTTP/1.1 ".len()..].to_owned(), String::from_utf8_lossy(body).into_owned())
}

fn shown(server: &Server, key: &str) -> (String, String) {
    said(&get(&mut connect(server.http), &format!("/config/{key}")))
}

fn pair(status: &str, body: &str) -> (String, String) {
    (status.to_owned(), body.to_owned())
}

#[test]
fn settings_are_shown_as_nsqd_shows_them() {
    let flags = ["-max-topics=7", "-idle-timeout=2m", "-log-prefix=p ", "-broadcast-address=b", "-workers=2"];
    let server = Server::start(&flags);
    for (key, value) in [
        ("log_level", "2"),
        ("log_prefix", "p "),
        ("log_format", "text"),
        ("tcp_address", "127.0.0.1:0"),
        ("broadcast_address", "b"),
        ("max_topics", "7"),
        ("idle_timeout", "120000000000"),
        ("tombstone_lifetime", "45000000000"),
        ("forget_ephemeral_after", "300000000000"),
        ("pin_workers", "false"),
        ("workers", "2"),
        ("io", "auto"),
        ("allow_config_from_cidr", "127.0.0.1/8"),
    ] {
        assert_eq!(shown(&server, key), pair("200 OK", value), "{key}");
    }
    let text = get(&mut connect(server.http), "/config/log_prefix");
    assert!(text.contains("Content-Type: text/plain; charset=utf-8\r\n"), "{text}");
    let json = get(&mut connect(server.http), "/config/max_topics");
    assert!(json.contains("Content-Type: application/json; charset=utf-8\r\n"), "{json}");
    for key in ["verbose", "config", "version", "none", "max-topics", "%ff"] {
        assert_eq!(shown(&server, key), pair("400 Bad Request", r#"{"message":"INVALID_OPTION"}"#), "{key}");
    }
    for path in ["", "/", "/a/b"] {
        let response = get(&mut connect(server.http), &format!("/config{path}"));
        assert!(response.starts_with("HTTP/1.1 404 Not Found\r\n"), "{path}: {response}");
    }
}

#[test]
fn the_log_level_is_set_while_the_server_runs() {
    let server = Server::start::<&str>(&[]);
    for (text, level) in [("debug", "1"), ("FATAL", "5"), ("warn", "3"), ("info", "2")] {
        assert_eq!(put(&server, "/config/log_level", text), pair("200 OK", level));
        assert_eq!(shown(&server, "log_level"), pair("200 OK", level));
    }
    server.wait_for_log("has set the log level to info");
    let requests = |log: &str| log.matches("200 GET /ping").count();
    get(&mut connect(server.http), "/ping");
    put(&server, "/config/log_level", "debug");
    get(&mut connect(server.http), "/ping");
    server.wait_for_log("200 GET /ping");
    assert_eq!(requests(&server.log()), 1);
    // In pieces as well as in chunks.
    let chunked = "PUT /config/log_level HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nwa\r\n2\r\nrn\r\n0\r\n\r\n";
    assert_eq!(said(&exchange(&mut connect(server.http), chunked).expect("a response")), pair("200 OK", "3"));
}

#[test]
fn what_cannot_be_set_is_refused_as_by_nsqd() {
    let server = Server::start::<&str>(&[]);
    let long = "x".repeat(100_000);
    for (key, value, status, message) in [
        ("log_level", "loud", "400 Bad Request", "INVALID_VALUE"),
        ("log_level", "", "413 Request Entity Too Large", "INVALID_VALUE"),
        ("log_level", &long, "413 Request Entity Too Large", "INVALID_VALUE"),
        ("max_topics", "9", "400 Bad Request", "INVALID_OPTION"),
        ("none", "9", "400 Bad Request", "INVALID_OPTION"),
    ] {
        let expected = pair(status, &format!("{{\"message\":\"{message}\"}}"));
        assert_eq!(put(&server, &format!("/config/{key}"), value), expected, "{key}");
    }
    let response = exchange(&mut connect(server.http), &request("POST", "/config/log_level")).expect("a response");
    assert!(response.starts_with("HTTP/1.1 405 Method Not Allowed\r\nAllow: GET, OPTIONS, PUT\r\n"), "{response}");
    let response = exchange(&mut connect(server.http), &request("PUT", "/config/log_level/")).expect("a response");
    assert!(response.starts_with("HTTP/1.1 307 Temporary Redirect\r\n"), "{response}");
    assert_eq!(shown(&server, "log_level").1, "2");
}

#[test]
fn others_may_neither_read_nor_set() {
    for range in ["", "10.0.0.0/8", "::1/128"] {
        let server = Server::start(&[format!("-allow-config-from-cidr={range}")]);
        let forbidden = pair("403 Forbidden", r#"{"message":"FORBIDDEN"}"#);
        assert_eq!(shown(&server, "log_level"), forbidden);
        assert_eq!(shown(&server, "none"), forbidden);
        assert_eq!(put(&server, "/config/log_level", "debug"), forbidden);
        assert!(get(&mut connect(server.http), "/ping").ends_with("OK"));
    }
}
