use std::sync::Arc;

use super::*;
use crate::clock::Timestamp;
use crate::context::Advance;
use crate::http::session::Session;
use crate::io::Token;
use crate::limits::{Limit, Limits};
use crate::listen::Service;
use crate::log::{Level, Log, LogOptions};
use crate::registry::{Lifetimes, Name, Registry};

const TOKEN: Token = Token { slot: 0, generation: 0 };

/// What happens to a connection after its input.
enum Then {
    Nothing,
    HalfClose,
    Exceeds(Limit),
}

/// The statuses of all final responses, and those that the metrics have counted, each with the route and in order.
fn statuses(input: &str, then: &Then) -> (Vec<String>, Vec<(String, String)>) {
    let mut limits = Limits::default();
    limits.set(Limit::RequestBodySize, 8);
    let registry = Arc::new(Registry::new(Lifetimes::default()));
    let (log, writer) = Log::start(LogOptions { level: Level::Fatal, ..LogOptions::default() }).expect("a thread");
    let now = Timestamp::from_nanos(1);
    let mut context = WorkerContext::new(registry, Arc::default(), limits, Arc::default(), log, now);
    for topic in 0..300 {
        let topic = Name::new(format!("topic{topic}").as_bytes()).expect("a valid name");
        context.create(topic, None).expect("within the limits");
    }
    context.commit();
    let mut session = Session::new(Service::Http, "127.0.0.1:1".parse().expect("an address"), TOKEN);
    let (mut output, mut sent) = (Output::new(limits.size(Limit::OutputSize)), Vec::new());
    let Advance { used, .. } = session.advance(input.as_bytes(), &mut context, &mut output);
    match *then {
        Then::Nothing => {}
        Then::HalfClose => session.finish(&input.as_bytes()[used..], &mut context, &mut output),
        Then::Exceeds(limit) => session.refuse_over(limit, &context, &mut output),
    }
    while let Some(buffer) = output.next_buffer() {
        sent.extend_from_slice(buffer.rest());
    }
    let metrics = context.metrics(Format::Text);
    drop(context);
    writer.close();
    let sent = String::from_utf8(sent).expect("UTF-8");
    let codes = sent.split("HTTP/1.").skip(1).map(|response| response[2..5].to_owned());
    let counted = metrics.lines().flat_map(|line| {
        let series =
            line.strip_prefix("nsqlookupd_http_requests_total{route=\"").and_then(|line| line.rsplit_once(' '));
        let Some((labels, count)) = series else { return Vec::new() };
        let (route, code) = labels.split_once("\",code=\"").expect("two labels");
        vec![(route.to_owned(), code.trim_end_matches("\"}").to_owned()); count.parse().expect("a number")]
    });
    (codes.filter(|code| code != "100").collect(), counted.collect())
}

/// `expected` are the responses, each with the route that it is counted for.
fn assert_counted(input: &str, then: &Then, expected: &[(&str, &str)]) {
    let (codes, mut counted) = statuses(input, then);
    assert_eq!(codes, expected.iter().map(|(_, code)| *code).collect::<Vec<_>>(), "{input:?}");
    let mut expected: Vec<_> = expected.iter().map(|&(route, code)| (route.to_owned(), code.to_owned())).collect();
    expected.sort();
    counted.sort();
    assert_eq!(counted, expected, "{input:?}");
}

#[test]
fn a_response_to_a_request_is_counted_once() {
    for (request, expected) in [
        ("GET /ping HTTP/1.1\r\n", ("/ping", "200")),
        ("HEAD /topics HTTP/1.1\r\n", ("/topics", "200")),
        ("GET /topics HTTP/1.1\r\n", ("/topics", "200")),
        ("GET /topics HTTP/1.0\r\n", ("/topics", "200")),
        ("GET /debug HTTP/1.1\r\n", ("/debug", "200")),
        ("GET /lookup?topic=topic1 HTTP/1.1\r\n", ("/lookup", "200")),
        ("GET /metrics HTTP/1.1\r\n", ("/metrics", "200")),
        ("OPTIONS * HTTP/1.1\r\n", ("other", "200")),
        ("OPTIONS /ping HTTP/1.1\r\n", ("/ping", "200")),
        ("POST /topic/create?topic=t HTTP/1.1\r\n", ("/topic/create", "200")),
        ("GET /ping/ HTTP/1.1\r\n", ("other", "301")),
        ("POST //topic/create?topic=t HTTP/1.1\r\n", ("other", "307")),
        ("GET /lookup HTTP/1.1\r\n", ("/lookup", "400")),
        ("GET /lookup?topic=nothing HTTP/1.1\r\n", ("/lookup", "404")),
        ("GET /nothing HTTP/1.1\r\n", ("other", "404")),
        ("PUT /ping HTTP/1.1\r\n", ("/ping", "405")),
        ("POST /topic/create HTTP/1.1\r\nContent-Length: 9\r\n", ("/topic/create", "413")),
        ("GET /ping HTTP/1.1\r\nExpect: x\r\n", ("/ping", "417")),
    ] {
        assert_counted(&format!("{request}Host: h\r\n\r\n"), &Then::Nothing, &[expected]);
    }
}

#[test]
fn a_response_to_a_body_is_counted_once() {
    let request = |framing| format!("POST /topic/create?topic=t HTTP/1.1\r\nHost: h\r\n{framing}\r\n\r\n");
    let (length, chunked) = (request("Content-Length: 4"), request("Transfer-Encoding: chunked"));
    let expects = request("Expect: 100-continue\r\nContent-Length: 4");
    assert_counted(&format!("{length}body"), &Then::Nothing, &[("/topic/create", "200")]);
    assert_counted(&format!("{expects}body"), &Then::Nothing, &[("/topic/create", "200")]);
    assert_counted(&length, &Then::Nothing, &[]);
    assert_counted(&length, &Then::HalfClose, &[("/topic/create", "400")]);
    assert_counted(&format!("{chunked}x\r\n"), &Then::Nothing, &[("/topic/create", "400")]);
    assert_counted(&format!("{chunked}9\r\n123456789\r\n0\r\n\r\n"), &Then::Nothing, &[("/topic/create", "413")]);
}

#[test]
fn a_response_to_no_request_is_counted_once() {
    assert_counted("nothing\r\n\r\n", &Then::Nothing, &[("other", "400")]);
    assert_counted("GET /ping HTTP/1.1\r\n\r\n", &Then::Nothing, &[("other", "400")]);
    assert_counted("GET /ping HTTP/1.1\r\nHost: h", &Then::HalfClose, &[("other", "400")]);
    assert_counted("GET /ping HTTP/9.1\r\nHost: h\r\n\r\n", &Then::Nothing, &[("other", "505")]);
    let encoding = "GET /ping HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: x\r\n\r\n";
    assert_counted(encoding, &Then::Nothing, &[("other", "501")]);
    let headers = "a: b\r\n".repeat(16_385);
    assert_counted(
        &format!("GET /ping HTTP/1.1\r\nHost: h\r\n{headers}\r\n"),
        &Then::Nothing,
        &[("other", "431")],
    );
    assert_counted("GET /ping", &Then::Exceeds(Limit::RequestTimeout), &[("other", "408")]);
    assert_counted("", &Then::Exceeds(Limit::Connections), &[("other", "503")]);
    assert_counted("", &Then::Exceeds(Limit::IdleTimeout), &[]);
}

#[test]
fn each_of_several_responses_is_counted() {
    let request = |path| format!("GET {path} HTTP/1.1\r\nHost: h\r\n\r\n");
    let requests = [request("/ping"), request("/ping/"), request("/nothing"), "?\r\n\r\n".to_owned()].concat();
    assert_counted(
        &requests,
        &Then::Nothing,
        &[("/ping", "200"), ("other", "301"), ("other", "404"), ("other", "400")],
    );
}
