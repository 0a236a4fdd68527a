//! Clients of the program that wait for changes and watch, over both backends: what they get, when they are refused, and
//! how it ends.

mod support;

#[path = "support/both_drivers.rs"]
#[macro_use]
mod both_drivers;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use ringlookupd::io::Backend;
use rustix::process::Signal;
use serde_json::Value;

use support::clients::{Nsqd, connect, exchange, get, identify_with, post, read_once, request};
use support::{PATIENCE, Server};

on_both_drivers!(
    a_stream_begins_with_the_state_and_goes_on_with_its_changes,
    a_client_goes_on_where_it_was,
    the_list_of_topics_is_watched,
    too_many_are_refused_and_counted,
    a_client_that_never_reads_harms_nobody,
    a_shutdown_says_goodbye_and_waits_for_nobody,
    a_client_is_asked_to_connect_again,
    time_ends_a_wait,
    the_nearest_producers_are_shown,
    without_watching_the_server_is_as_stock,
);

fn start(backend: Backend, flags: &[&str]) -> Server {
    let io = both_drivers::flag(backend);
    let all: Vec<_> = [&*io, "-workers=2", "-warm-up=0s"].into_iter().chain(flags.iter().copied()).collect();
    Server::start(&all)
}

/// A stream of events that a client reads.
struct Events {
    stream: BufReader<TcpStream>,
    head: String,
    /// The last token, where it was not reset.
    id: Option<String>,
    /// Bytes of the body that came and are not read as events yet.
    body: String,
}

/// An event: its name and its data.
type Event = (String, Value);

impl Events {
    fn open(address: SocketAddr, query: &str, headers: &str) -> Self {
        let mut stream = connect(address);
        write!(stream, "GET /watch{query} HTTP/1.1\r\nHost: h\r\n{headers}\r\n").expect("the server reads");
        let mut stream = BufReader::new(stream);
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            assert!(stream.read_line(&mut head).expect("a head") > 0, "{head}");
        }
        Self { stream, head, id: None, body: String::new() }
    }

    /// The next event; `None` at the end of the stream.
    fn next(&mut self) -> Option<Event> {
        loop {
            while let Some((block, rest)) = self.body.split_once("\n\n") {
                let block = block.to_owned();
                self.body = rest.to_owned();
                let field = |name: &str| block.lines().find_map(|line| line.strip_prefix(name));
                if let Some(id) = field("id: ") {
                    self.id = Some(id.to_owned());
                } else if block.lines().any(|line| line == "id") {
                    self.id = None;
                }
                if let (Some(name), Some(data)) = (field("event: "), field("data: ")) {
                    return Some((name.to_owned(), serde_json::from_str(data).expect("JSON")));
                }
            }
            let mut length = String::new();
            self.stream.read_line(&mut length).expect("a chunk");
            let length = usize::from_str_radix(length.trim_end(), 16).expect("a length");
            let mut chunk = vec![0; length + 2];
            self.stream.read_exact(&mut chunk).expect("a whole chunk");
            if length == 0 {
                assert_eq!(read_once(&mut self.stream, &mut [0]).expect("FIN"), 0);
                return None;
            }
            self.body.push_str(str::from_utf8(&chunk[..length]).expect("UTF-8"));
        }
    }

    fn expect(&mut self, name: &str) -> Value {
        let (found, data) = self.next().expect("an event");
        assert_eq!(found, name, "{data}");
        data
    }
}

fn a_stream_begins_with_the_state_and_goes_on_with_its_changes(backend: Backend) {
    let server = start(backend, &[]);
    let mut nsqd = Nsqd::identified(server.tcp, "first", 1);
    nsqd.register("orders billing");
    let mut events = Events::open(server.http, "?topic=orders&topic=later", "");
    for header in
        ["Content-Type: text/event-stream", "Cache-Control: no-cache, no-transform", "X-Accel-Buffering: no"]
    {
        assert!(events.head.contains(&format!("\r\n{header}\r\n")), "{}", events.head);
    }
    let orders = events.expect("snapshot");
    assert_eq!(
        (&orders["topic"], &orders["exists"], &orders["channels"][0]),
        (&"orders".into(), &true.into(), &"billing".into())
    );
    assert_eq!(orders["producers"][0]["broadcast_address"], "first");
    let later = events.expect("snapshot");
    assert_eq!((&later["topic"], &later["exists"]), (&"later".into(), &false.into()));
    assert!(events.id.is_some());

    let mut second = Nsqd::identified(server.tcp, "second", 1);
    second.register("orders billing");
    assert_eq!(events.expect("up")["producer"]["broadcast_address"], "second");
    second.register("orders mail");
    let mail = events.expect("channel");
    assert_eq!((&mail["channel"], &mail["change"]), (&"mail".into(), &"created".into()));
    post(&mut connect(server.http), "/topic/tombstone?topic=orders&node=second:2");
    let down = events.expect("down");
    assert_eq!(
        (&down["broadcast_address"], &down["tcp_port"], &down["reason"]),
        (&"second".into(), &1.into(), &"tombstoned".into())
    );
    assert_eq!(nsqd.ask(b"UNREGISTER orders\n"), b"OK");
    assert_eq!(events.expect("down")["reason"], "unregistered");

    // A reconnect is no event; what comes behind it shows that there was none.
    nsqd.register("later");
    assert_eq!(events.expect("topic")["change"], "created");
    assert_eq!(events.expect("up")["producer"]["broadcast_address"], "first");
    drop(nsqd);
    let mut again = Nsqd::identified(server.tcp, "first", 1);
    again.register("later");
    again.register("later news");
    assert_eq!(events.expect("channel")["channel"], "news");
    drop(again);
    assert_eq!(events.expect("down")["reason"], "gone");
    post(&mut connect(server.http), "/topic/delete?topic=later");
    assert_eq!(events.expect("topic")["change"], "deleted");
}

fn a_client_goes_on_where_it_was(backend: Backend) {
    let server = start(backend, &[]);
    let mut nsqd = Nsqd::identified(server.tcp, "node", 1);
    nsqd.register("t");
    let mut events = Events::open(server.http, "?topic=t&topic=u", "");
    (0..2).for_each(|_| drop(events.expect("snapshot")));
    let id = events.id.clone().expect("a token");
    let resume =
        |id: &str| Events::open(server.http, "?topic=t&topic=u", &format!("Last-Event-ID: {id}\r\n")).next();
    assert_eq!(resume(&id).expect("an event").0, "same");
    nsqd.register("u");
    assert_eq!(resume(&id).expect("an event").0, "snapshot");
    assert_eq!(resume("of another server").expect("an event").0, "snapshot");
    // The token of one topic is the tag of its lookup.
    let lookup = get(&mut connect(server.http), "/lookup?topic=t");
    let tag = lookup.lines().find_map(|line| line.strip_prefix("ETag: ")).expect("a tag");
    let since = format!("?topic=t&since={}", tag.trim_matches('"'));
    assert_eq!(Events::open(server.http, &since, "").next().expect("an event").0, "same");
}

fn the_list_of_topics_is_watched(backend: Backend) {
    let server = start(backend, &[]);
    let mut client = connect(server.http);
    post(&mut client, "/topic/create?topic=a");
    let mut events = Events::open(server.http, "", "");
    assert_eq!(events.expect("snapshot")["topics"], serde_json::json!(["a"]));
    post(&mut client, "/topic/create?topic=b");
    post(&mut client, "/topic/delete?topic=a");
    for (topic, change) in [("b", "created"), ("a", "deleted")] {
        let event = events.expect("topic");
        assert_eq!((&event["topic"], &event["change"]), (&topic.into(), &change.into()));
    }
    let id = events.id.clone().expect("a token");
    let mut again = Events::open(server.http, &format!("?since={id}"), "");
    again.expect("same");
    let mut nodes = Events::open(server.http, "?nodes=true", "");
    assert_eq!(nodes.expect("nodes")["producers"], 0);
    let _nsqd = Nsqd::identified(server.tcp, "node", 1);
    assert_eq!(nodes.expect("nodes")["producers"], 1);
}

fn too_many_are_refused_and_counted(backend: Backend) {
    for (flag, value) in [("-max-watches", "2"), ("-max-watches-per-address", "2")] {
        let server = start(backend, &[&format!("{flag}={value}")]);
        let mut client = connect(server.http);
        post(&mut client, "/topic/create?topic=t");
        let lookup = get(&mut client, "/lookup?topic=t");
        let tag = lookup.lines().find_map(|line| line.strip_prefix("ETag: ")).expect("a tag");
        let mut events = Events::open(server.http, "?topic=t", "");
        events.expect("snapshot");
        let mut waiting = connect(server.http);
        let wait = |target: &str| format!("GET {target} HTTP/1.1\r\nHost: h\r\nIf-None-Match: {tag}\r\n\r\n");
        waiting.write_all(wait("/lookup?topic=t&wait=60s").as_bytes()).expect("the server reads");
        let metrics = |client: &mut TcpStream, series: &str| {
            let text = get(client, "/metrics");
            text.lines()
                .find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse::<u64>().ok())
                .expect("a series")
        };
        let begun = Instant::now();
        while metrics(&mut client, "nsqlookupd_watches") < 2 {
            assert!(begun.elapsed() < PATIENCE);
        }
        for target in ["/watch?topic=t", "/lookup?topic=t&wait=60s"] {
            let refused = exchange(&mut client, &wait(target)).expect("a response");
            assert!(
                refused.starts_with("HTTP/1.1 503 ") && refused.contains("\r\nRetry-After: 5\r\n"),
                "{refused}"
            );
            assert!(refused.ends_with("{\"message\":\"TOO_MANY_WATCHES\"}"), "{refused}");
        }
        // Its connection is of use for other requests.
        assert!(get(&mut client, "/ping").ends_with("OK"));
        let series = format!("nsqlookupd_limit_exceeded_total{{limit=\"{}\"}}", &flag[1..]);
        assert_eq!(metrics(&mut client, &series), 2);
        server.wait_for_log(&format!("exceeded the limit {flag}"));
        drop(events);
        drop(waiting);
        let begun = Instant::now();
        while metrics(&mut client, "nsqlookupd_watches") > 0 {
            assert!(begun.elapsed() < PATIENCE, "a client that is gone gives its permit back");
        }
    }
}

fn a_client_that_never_reads_harms_nobody(backend: Backend) {
    let server = start(backend, &["-output-timeout=2s"]);
    // Each description is long, so that the sockets of the one that does not read are full soon.
    let _deaf: Vec<_> = (0..5)
        .map(|_| {
            let mut stream = connect(server.http);
            stream.write_all(request("GET", "/watch?topic=t").as_bytes()).expect("the server reads");
            stream
        })
        .collect();
    let mut events = Events::open(server.http, "?topic=t", "");
    events.expect("snapshot");
    let mut nsqds = Vec::new();
    for nth in 0..60 {
        let mut nsqd = Nsqd::identified(server.tcp, &format!("node-{nth}"), 200_000);
        nsqd.register("t");
        while events.expect_any("up", "snapshot", nth) {}
        nsqds.push(nsqd);
    }
    let mut client = connect(server.http);
    let begun = Instant::now();
    while !get(&mut client, "/metrics").contains("\nnsqlookupd_watches 1\n") {
        assert!(begun.elapsed() < PATIENCE, "those that do not read are closed");
        thread::sleep(Duration::from_millis(20));
    }
}

impl Events {
    /// Reads an event; false when it shows a node of this number.
    fn expect_any(&mut self, up: &str, snapshot: &str, nth: usize) -> bool {
        let (name, data) = self.next().expect("an event");
        let node = format!("node-{nth}");
        let is_node = |producer: &Value| producer["broadcast_address"] == node.as_str();
        if name == up {
            return !is_node(&data["producer"]);
        }
        assert!(name == snapshot || name == "topic", "{name}");
        !data["producers"].as_array().is_some_and(|producers| producers.iter().any(is_node))
    }
}

fn a_shutdown_says_goodbye_and_waits_for_nobody(backend: Backend) {
    let mut server = start(backend, &[]);
    let mut events = Events::open(server.http, "?topic=t", "");
    events.expect("snapshot");
    let mut waiting = connect(server.http);
    write!(waiting, "GET /topics?wait=60s HTTP/1.1\r\nHost: h\r\nIf-None-Match: *\r\n\r\n")
        .expect("the server reads");
    let begun = Instant::now();
    while !get(&mut connect(server.http), "/metrics").contains("\nnsqlookupd_watches 2\n") {
        assert!(begun.elapsed() < PATIENCE);
    }
    server.signal(Signal::TERM);
    let bye = events.expect("bye");
    assert_eq!(bye["reason"], "shutdown");
    assert!((2000..5000).contains(&bye["retry_ms"].as_u64().expect("milliseconds")));
    assert!(events.next().is_none());
    let mut response = String::new();
    waiting.read_to_string(&mut response).expect("a response");
    assert!(response.starts_with("HTTP/1.1 304 ") && response.contains("\r\nConnection: close\r\n"), "{response}");
    assert!(server.wait_for_exit(PATIENCE).expect("it ends").success());
}

fn a_client_is_asked_to_connect_again(backend: Backend) {
    let server = start(backend, &["-max-watch-age=500ms"]);
    let mut events = Events::open(server.http, "", "");
    events.expect("snapshot");
    assert_eq!(events.expect("bye")["reason"], "age");
    assert!(events.next().is_none());
    let metrics = get(&mut connect(server.http), "/metrics");
    assert!(
        metrics.contains("\nnsqlookupd_watches 0\n") && metrics.contains("\nnsqlookupd_watch_states_total 1\n")
    );
}

/// A producer falls silent and is back, a tombstone ends, and a wait is over.
fn time_ends_a_wait(backend: Backend) {
    let server = start(backend, &["-inactive-producer-timeout=1s"]);
    let mut nsqd = Nsqd::identified(server.tcp, "node", 1);
    nsqd.register("t");
    let mut events = Events::open(server.http, "?topic=t", "");
    events.expect("snapshot");
    let mut client = connect(server.http);
    let lookup = get(&mut client, "/lookup?topic=t");
    let tag = lookup.lines().find_map(|line| line.strip_prefix("ETag: ")).expect("a tag");
    let ask = format!("GET /lookup?topic=t&wait=60s HTTP/1.1\r\nHost: h\r\nIf-None-Match: {tag}\r\n\r\n");
    let response = exchange(&mut client, &ask).expect("a response");
    assert!(response.starts_with("HTTP/1.1 200 ") && response.ends_with("\"producers\":[]}"), "{response}");
    assert_eq!(events.expect("down")["reason"], "inactive");
    assert_eq!(nsqd.ask(b"PING\n"), b"OK");
    events.expect("up");
    let server = start(backend, &["-tombstone-lifetime=1s"]);
    let mut nsqd = Nsqd::identified(server.tcp, "node", 1);
    nsqd.register("t");
    let mut events = Events::open(server.http, "?topic=t", "");
    events.expect("snapshot");
    post(&mut connect(server.http), "/topic/tombstone?topic=t&node=node:2");
    assert_eq!(events.expect("down")["reason"], "tombstoned");
    events.expect("up");
    for (target, header, status) in [
        ("/lookup?topic=unknown&wait=300ms", "If-None-Match: \"x\"\r\n", "404"),
        ("/lookup?topic=unknown&wait=300ms", "", "404"),
        ("/topics?wait=300ms", "If-None-Match: *\r\n", "304"),
        ("/topics?wait=soon", "If-None-Match: *\r\n", "400"),
        ("/topics?wait=soon", "", "200"),
    ] {
        let response =
            read_head(&mut connect(server.http), &format!("GET {target} HTTP/1.1\r\nHost: h\r\n{header}\r\n"));
        assert!(response.starts_with(&format!("HTTP/1.1 {status} ")), "{target}: {response}");
    }
}

fn read_head(stream: &mut TcpStream, request: &str) -> String {
    stream.write_all(request.as_bytes()).expect("the server reads");
    let mut head = String::new();
    let mut stream = BufReader::new(stream);
    while !head.ends_with("\r\n\r\n") {
        assert!(stream.read_line(&mut head).expect("a head") > 0, "{head}");
    }
    head
}

fn the_nearest_producers_are_shown(backend: Backend) {
    let server = start(backend, &[]);
    let mut nsqds = Vec::new();
    for (name, zone, region) in [("a", "z1", "r1"), ("b", "z2", "r1"), ("c", "", "")] {
        let mut nsqd = Nsqd::connect(server.tcp);
        let body = format!(
            r#"{{"broadcast_address":"{name}","tcp_port":1,"http_port":2,"version":"1","topology_zone":"{zone}","topology_region":"{region}"}}"#
        );
        assert!(nsqd.ask(&identify_with(body)).starts_with(b"{"));
        nsqd.register("t c");
        nsqds.push(nsqd);
    }
    let mut client = connect(server.http);
    let mut shown = |target: &str| {
        let response = get(&mut client, target);
        let (head, body) = response.split_once("\r\n\r\n").expect("a head");
        let body: Value = serde_json::from_str(body).expect("JSON");
        let names = body["producers"].as_array().expect("an array").iter();
        let mut names: Vec<_> =
            names.map(|producer| producer["broadcast_address"].as_str().expect("a name").to_owned()).collect();
        names.sort();
        let applied =
            head.lines().find_map(|line| line.strip_prefix("X-Ringlookupd-Filter: ")).unwrap_or_default();
        (names.concat(), applied.to_owned(), body)
    };
    for (query, names, applied) in [
        ("zone=z1", "ac", "zone"),
        ("zone=z9&region=r1", "abc", "region"),
        ("zone=z9", "abc", "all"),
        ("zone=z1&strict=true", "a", "strict-zone"),
        ("region=r1&strict=true", "ab", "strict-region"),
        ("zone=", "abc", ""),
    ] {
        for path in ["/lookup?topic=t&", "/nodes?"] {
            let (is, header, _) = shown(&format!("{path}{query}"));
            assert_eq!((&*is, &*header), (names, applied), "{path}{query}");
        }
    }
    let (_, _, body) = shown("/lookup?topic=t&channels=false");
    assert!(body.get("channels").is_none());
    let (_, _, body) = shown("/nodes?topics=false");
    assert!(body["producers"][0].get("topics").is_none() && body["producers"][0].get("tombstones").is_none());
    let mut events = Events::open(server.http, "?topic=t&zone=z1", "");
    assert_eq!(events.expect("snapshot")["producers"].as_array().expect("an array").len(), 2);
    // The zone has none any more: all are shown.
    assert_eq!(nsqds[0].ask(b"UNREGISTER t\n"), b"OK");
    assert_eq!(events.expect("up")["producer"]["broadcast_address"], "b");
    assert_eq!(events.expect("down")["reason"], "unregistered");
    nsqds[0].register("t");
    assert_eq!(events.expect("up")["producer"]["broadcast_address"], "a");
    assert_eq!(events.expect("down")["reason"], "filtered");
}

fn without_watching_the_server_is_as_stock(backend: Backend) {
    let server = start(backend, &["-watch=false"]);
    let mut client = connect(server.http);
    post(&mut client, "/topic/create?topic=t");
    for target in ["/lookup?topic=t", "/topics", "/channels?topic=t", "/nodes"] {
        let ask = format!(
            "GET {target}{}wait=60s HTTP/1.1\r\nHost: h\r\nIf-None-Match: *\r\n\r\n",
            if target.contains('?') { "&" } else { "?" }
        );
        let response = exchange(&mut client, &ask).expect("a response");
        assert!(
            response.starts_with("HTTP/1.1 200 ")
                && !response.contains("ETag")
                && !response.contains("Cache-Control"),
            "{response}"
        );
    }
    assert!(get(&mut client, "/watch").starts_with("HTTP/1.1 404 "));
}
