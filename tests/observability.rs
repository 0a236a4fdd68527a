//! What happens is what the metrics say.

#![expect(clippy::float_cmp, reason = "whole numbers")]

use std::net::TcpStream;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

mod support;

use support::clients::{Nsqd, connect, exchange, get, post};
use support::{PATIENCE, Server};

const OPENMETRICS: &str = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";

/// The head and the body of a response.
fn ask(client: &mut TcpStream, path: &str, accept: &str) -> (String, String) {
    let request = format!("GET {path} HTTP/1.1\r\nHost: h\r\nAccept: {accept}\r\n\r\n");
    let response = exchange(client, &request).expect("a response");
    let (head, body) = response.split_once("\r\n\r\n").expect("a head");
    (head.to_owned(), body.to_owned())
}

/// The value of a series.
fn value(metrics: &str, series: &str) -> f64 {
    let value = metrics.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    value.unwrap_or_else(|| panic!("no {series} in {metrics}")).parse().expect("a number")
}

#[test]
fn the_client_chooses_the_format() {
    let server = Server::start::<&str>(&[]);
    let mut client = connect(server.http);
    for (accept, content_type) in [
        ("*/*", "text/plain; version=0.0.4; charset=utf-8"),
        (OPENMETRICS, "application/openmetrics-text; version=1.0.0; charset=utf-8"),
    ] {
        for (path, ends) in [("/metrics", accept == OPENMETRICS), ("/metrics/topics", true)] {
            let (head, body) = ask(&mut client, path, accept);
            assert!(head.contains(&format!("\r\nContent-Type: {content_type}\r\n")), "{head}");
            assert_eq!(body.ends_with("\n# EOF\n"), ends, "{body}");
        }
    }
}

#[test]
fn requests_and_registrations_are_counted() {
    let server = Server::start(&["-workers=2", "-warm-up=0s"]);
    let mut nsqd = Nsqd::identified(server.tcp, "node", 1);
    nsqd.register("t c");
    nsqd.register("u");
    let mut client = connect(server.http);
    for _ in 0..5 {
        assert!(get(&mut client, "/lookup?topic=t").starts_with("HTTP/1.1 200"));
    }
    get(&mut client, "/lookup?topic=nothing");
    get(&mut client, "/topics");
    get(&mut client, "/nothing");
    post(&mut client, "/channel/create?topic=v&channel=c");
    post(&mut client, "/topic/tombstone?topic=t&node=node:2");
    // The duration of an iteration is known when it is over.
    let (_, metrics) = ask(&mut client, "/metrics", "*/*");
    for (series, expected) in [
        ("http_requests_total{route=\"/lookup\",code=\"200\"}", 5.0),
        ("http_requests_total{route=\"/lookup\",code=\"404\"}", 1.0),
        ("http_requests_total{route=\"other\",code=\"404\"}", 1.0),
        ("http_request_duration_seconds_count{route=\"/lookup\"}", 6.0),
        ("http_request_duration_seconds_bucket{route=\"/topics\",le=\"+Inf\"}", 1.0),
        ("lookup_cache_requests_total{result=\"hit\"}", 3.0),
        ("lookup_cache_requests_total{result=\"miss\"}", 2.0),
        ("commands_total{command=\"REGISTER\"}", 2.0),
        ("producers{state=\"active\"}", 1.0),
        ("producers{state=\"inactive\"}", 0.0),
        ("topics", 3.0),
        ("channels", 2.0),
        ("names_without_producers{kind=\"topic\"}", 1.0),
        ("names_without_producers{kind=\"channel\"}", 1.0),
        ("tombstones", 1.0),
        ("connections{listener=\"tcp\"}", 1.0),
        ("connections{listener=\"http\"}", 1.0),
        ("ready", 1.0),
        ("workers", 2.0),
    ] {
        assert_eq!(value(&metrics, &format!("nsqlookupd_{series}")), expected, "{series}");
    }
    let commits = value(&metrics, "nsqlookupd_commit_duration_seconds_count");
    assert!(commits >= 2.0 && value(&metrics, "nsqlookupd_commit_changes_sum") >= 5.0, "{metrics}");
    let of_workers = |name: &str| -> f64 {
        (0..2).map(|worker| value(&metrics, &format!("nsqlookupd_{name}{{worker=\"{worker}\"}}"))).sum()
    };
    assert_eq!(of_workers("worker_connections"), 2.0);
    assert!(of_workers("worker_requests_total") >= 12.0 && of_workers("worker_busy_seconds_total") > 0.0);
}

/// Also of workers that have nothing to do.
#[test]
fn each_worker_shows_that_it_runs() {
    let server = Server::start(&["-workers=3"]);
    let mut client = connect(server.http);
    let begun = Instant::now();
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs_f64();
    let started = now();
    loop {
        let metrics = get(&mut client, "/metrics");
        let last = |worker| {
            value(&metrics, &format!("nsqlookupd_worker_last_iteration_timestamp_seconds{{worker=\"{worker}\"}}"))
        };
        if (0..3).all(|worker| last(worker) > started) {
            break;
        }
        assert!(begun.elapsed() < PATIENCE, "{metrics}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
