use std::sync::Arc;

use super::*;
use crate::clock::Timestamp;
use crate::context::ServerInfo;
use crate::log::{Log, LogOptions};
use crate::registry::{Lifetimes, Registry};

const TOKEN: Token = Token { slot: 0, generation: 0 };

/// All that a client of a server with many topics is sent, and whether its connection stays open.
fn responses(requests: &str) -> (String, bool) {
    let minute = std::time::Duration::from_secs(60);
    let limits = Limits::default();
    let lifetimes = Lifetimes { inactive_producer_timeout: minute, ..Lifetimes::default() };
    let registry = Arc::new(Registry::new(lifetimes));
    let server = Arc::<ServerInfo>::default();
    let (log, writer) = Log::start(LogOptions { level: Level::Fatal, ..LogOptions::default() }).expect("a thread");
    let mut context = WorkerContext::new(registry, server, limits, Arc::default(), log, Timestamp::from_nanos(1));
    for topic in 0..300 {
        let topic = crate::registry::Name::new(format!("topic{topic}").as_bytes()).expect("a valid name");
        context.create(topic, None).expect("within the limits");
    }
    context.commit();
    let mut session = Session::new(Service::Http, "127.0.0.1:1".parse().expect("an address"), TOKEN);
    let (mut output, mut sent) = (Output::new(limits.size(Limit::OutputSize)), Vec::new());
    let mut rest = requests.as_bytes();
    loop {
        let Advance { used, close } = session.advance(rest, &mut context, &mut output);
        rest = &rest[used..];
        let before = sent.len();
        while let Some(buffer) = output.next_buffer() {
            sent.extend_from_slice(buffer.rest());
        }
        if close || (used == 0 && sent.len() == before) {
            drop(context);
            writer.close();
            return (String::from_utf8(sent).expect("UTF-8"), !close);
        }
    }
}

fn assert_response(request: &str, status: &str, connection: Option<&str>) {
    let (text, open) = responses(request);
    assert!(text.starts_with(status), "{request}: {text}");
    let said = text.lines().find_map(|line| line.strip_prefix("Connection: "));
    assert_eq!((said, open), (connection, connection == Some("keep-alive")), "{request}");
}

/// Names, order and values, as a network trace of stock shows them.
#[test]
fn heads_are_stocks_byte_for_byte() {
    const DATE: &str = "Date: Thu, 01 Jan 1970 00:00:00 GMT\r\n";
    const JSON: &str = "Content-Type: application/json; charset=utf-8\r\nX-Nsq-Content-Type: nsq; version=1.0\r\n";
    for (request, expected) in [
        (
            "GET /ping HTTP/1.1",
            format!("200 OK\r\n{DATE}Content-Length: 2\r\nContent-Type: text/plain; charset=utf-8\r\n\r\nOK"),
        ),
        (
            "PUT /ping HTTP/1.1",
            format!(
                "405 Method Not Allowed\r\nAllow: GET, OPTIONS\r\n{JSON}{DATE}Content-Length: 32\r\n\r\n\
                 {{\"message\":\"METHOD_NOT_ALLOWED\"}}"
            ),
        ),
        (
            "HEAD /topic/create?topic=t HTTP/1.1",
            format!("405 Method Not Allowed\r\nAllow: OPTIONS, POST\r\n{JSON}{DATE}Content-Length: 32\r\n\r\n"),
        ),
        (
            "GET /ping/ HTTP/1.1",
            format!(
                "301 Moved Permanently\r\nContent-Type: text/html; charset=utf-8\r\nLocation: /ping\r\n{DATE}\
                 Content-Length: 40\r\n\r\n<a href=\"/ping\">Moved Permanently</a>.\n\n"
            ),
        ),
        (
            "POST /topic/create?topic=t HTTP/1.1",
            format!("200 OK\r\nX-Nsq-Content-Type: nsq; version=1.0\r\n{DATE}Content-Length: 0\r\n\r\n"),
        ),
        (
            "OPTIONS /ping HTTP/1.1\r\nConnection: close",
            format!("200 OK\r\nAllow: GET, OPTIONS\r\n{DATE}Content-Length: 0\r\nConnection: close\r\n\r\n"),
        ),
        ("OPTIONS * HTTP/1.1", format!("200 OK\r\nContent-Length: 0\r\n{DATE}\r\n")),
        ("HEAD /ping HTTP/1.1\r\nExpect: x", format!("417 Expectation Failed\r\nConnection: close\r\n{DATE}\r\n")),
    ] {
        let (text, _) = responses(&format!("{request}\r\nHost: h\r\n\r\n"));
        assert_eq!(text, format!("HTTP/1.1 {expected}"), "{request}");
    }
}

#[test]
fn a_long_response_ends_an_http_1_0_connection() {
    let asking = |path| format!("GET {path} HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    assert_response(&asking("/ping"), "HTTP/1.0 200", Some("keep-alive"));
    assert_response(&asking("/topics"), "HTTP/1.0 200", None);
}

#[test]
fn http_1_0_is_told_of_a_close_as_go_tells_it() {
    assert_response("GET /ping HTTP/1.0\r\nExpect: x\r\n\r\n", "HTTP/1.0 417", Some("close"));
    let body = "GET /ping HTTP/1.0\r\nContent-Length: 300000\r\n";
    assert_response(&format!("{body}Connection: keep-alive\r\n\r\n"), "HTTP/1.0 200", Some("close"));
    assert_response(&format!("{body}\r\n"), "HTTP/1.0 200", None);
}

#[test]
fn the_body_of_options_star_is_read_up_to_a_limit() {
    let request = |expect: &str, length: usize| {
        let body = "x".repeat(length);
        format!("OPTIONS * HTTP/1.1\r\nHost: h\r\n{expect}Content-Length: {length}\r\n\r\n{body}")
    };
    let (text, open) = responses(&request("Expect: 100-continue\r\n", 4096));
    assert!(text.starts_with("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n"), "{text}");
    assert!(open && !text.contains("Connection: "), "{text}");
    assert_response(&request("", 4097), "HTTP/1.1 200", Some("close"));
}
