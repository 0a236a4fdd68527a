//! What the log says of nsqd nodes that leave, fall silent or lose what they registered. Where stock has a line for
//! it, the line is stock's: `tests/interop` compares them.

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use ringlookupd::io::Backend;
use ringlookupd::limits::CHANNELS_LOGGED_MAX;
use rustix::process::Signal;
use socket2::SockRef;

use crate::both_drivers::flag;
use crate::support::clients::{self, Nsqd, connect, get, reset};
use crate::support::{PATIENCE, Server};

on_both_drivers!(
    a_topic_that_goes_with_its_channels_names_them,
    so_many_channels_are_not_all_named,
    a_node_that_leaves_has_a_reason,
    a_node_that_stops_in_the_middle_has_a_reason,
    a_connection_without_a_magic_has_a_reason,
    a_silent_producer_is_logged_until_it_is_back,
    a_silence_in_the_middle_of_a_command_is_noticed,
    a_tombstone_finds_ipv6_nodes_and_warns_of_none,
    deleting_what_live_producers_have_is_a_warning,
);

/// What was logged, without prefix and time.
fn messages(server: &Server) -> Vec<String> {
    server.log().lines().filter_map(|line| line.splitn(4, ' ').nth(3)).map(Into::into).collect()
}

fn name(stream: &TcpStream) -> SocketAddr {
    stream.local_addr().expect("it is connected")
}

fn post(server: &Server, target: &str) -> String {
    clients::post(&mut connect(server.http), target)
}

/// The value in `/metrics`.
fn metric(server: &Server, name: &str) -> u64 {
    let text = get(&mut connect(server.http), "/metrics");
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.expect("a metric").parse().expect("a number")
}

fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < PATIENCE, "{what}");
        thread::sleep(Duration::from_millis(5));
    }
}

fn a_topic_that_goes_with_its_channels_names_them(backend: Backend) {
    let server = Server::start(&[flag(backend)]);
    let mut nsqd = Nsqd::identified(server.tcp, "n", 1);
    let client = name(&nsqd.0);
    for channel in ["a", "c", "b"] {
        nsqd.register(&format!("t {channel}"));
    }
    assert_eq!(nsqd.ask(b"UNREGISTER t b\n"), b"OK");
    assert_eq!(nsqd.ask(b"UNREGISTER t\n"), b"OK");
    server.wait_for_log("UNREGISTER category:topic");
    let unexpected = |channel| {
        format!("WARNING: client({client}) unexpected UNREGISTER category:channel key:t subkey:{channel}")
    };
    let lines: Vec<_> = messages(&server).into_iter().filter(|line| line.contains("UNREGISTER")).collect();
    let as_asked = format!("INFO: DB: client({client}) UNREGISTER category:channel key:t subkey:b");
    let topic = format!("INFO: DB: client({client}) UNREGISTER category:topic key:t subkey:");
    assert_eq!(lines, [as_asked, unexpected("a"), unexpected("c"), topic]);

    // Deleted over HTTP it names them too: those without a producer as well.
    assert!(post(&server, "/topic/delete?topic=t").starts_with("HTTP/1.1 200 "));
    server.wait_for_log("removing topic(t)");
    let lines: Vec<_> = messages(&server).into_iter().filter(|line| line.contains(": removing")).collect();
    let removing = |channel| format!("INFO: DB: removing channel({channel}) from topic(t)");
    assert_eq!(lines, [removing("a"), removing("b"), removing("c"), "INFO: DB: removing topic(t)".into()]);
}

fn so_many_channels_are_not_all_named(backend: Backend) {
    let server = Server::start(&[flag(backend)]);
    let mut nsqd = Nsqd::identified(server.tcp, "n", 1);
    for number in 0..CHANNELS_LOGGED_MAX + 3 {
        nsqd.register(&format!("t c{number:04}"));
    }
    assert_eq!(nsqd.ask(b"UNREGISTER t\n"), b"OK");
    server.wait_for_log("UNREGISTER category:topic");
    let unexpected: Vec<_> = messages(&server).into_iter().filter(|line| line.contains("unexpected")).collect();
    assert_eq!(unexpected.len(), CHANNELS_LOGGED_MAX + 1);
    assert!(unexpected[0].ends_with(" key:t subkey:c0000"), "{unexpected:?}");
    assert!(unexpected[CHANNELS_LOGGED_MAX].ends_with(" key:t, 3 more channels"), "{unexpected:?}");

    post(&server, "/topic/delete?topic=t");
    server.wait_for_log("INFO: DB: removing 3 more channels from topic(t)");
    assert_eq!(server.log().matches(": removing channel(").count(), CHANNELS_LOGGED_MAX);
}

fn a_node_that_leaves_has_a_reason(backend: Backend) {
    let mut server = Server::start(&[flag(backend)]);
    let identified = || Nsqd::identified(server.tcp, "n", 1);
    let mut expected = Vec::new();
    let line = |stream: &TcpStream, reason: &str| format!("ERROR: client({}) - {reason}", name(stream));

    let nsqd = identified();
    expected.push(line(&nsqd.0, "EOF"));
    drop(nsqd);
    let mut half_a_line = identified();
    expected.push(line(&half_a_line.0, "EOF"));
    half_a_line.0.write_all(b"REGIS").expect("a connection");
    drop(half_a_line);
    // It has not identified.
    let magic_alone = Nsqd::connect(server.tcp);
    expected.push(line(&magic_alone.0, "EOF"));
    drop(magic_alone);
    for half in [b"IDENTIFY\n\0\0".as_slice(), b"IDENTIFY\n\0\0\0\x05{"] {
        let mut nsqd = Nsqd::connect(server.tcp);
        let size = if half.len() < 13 { " size" } else { "" };
        expected.push(line(&nsqd.0, &format!("E_BAD_BODY IDENTIFY failed to read body{size}")));
        nsqd.0.write_all(half).expect("a connection");
    }
    let vanishing = identified();
    expected.push(line(&vanishing.0, "read: connection reset by peer"));
    reset(vanishing.0);
    let mut wrong = identified();
    expected.push(line(&wrong.0, "E_INVALID invalid command FOO"));
    assert_eq!(wrong.ask(b"FOO\n"), b"E_INVALID invalid command FOO");
    for line in &expected {
        server.wait_for_log(line);
    }
    let here_at_the_end = identified();
    expected.push(line(&here_at_the_end.0, "use of closed network connection"));

    server.signal(Signal::TERM);
    assert!(server.wait_for_exit(PATIENCE).is_some_and(|status| status.success()));
    for line in &expected {
        server.wait_for_log(line);
    }
    let reasons = messages(&server).into_iter().filter(|line| line.starts_with("ERROR: client("));
    assert_eq!(reasons.count(), expected.len(), "one for each: {}", server.log());
}

fn a_node_that_stops_in_the_middle_has_a_reason(backend: Backend) {
    let has_reason = |limit: &str, reason: &str, stop: fn(&Server) -> Nsqd| {
        let server = Server::start(&[flag(backend), format!("-{limit}=100ms")]);
        let nsqd = stop(&server);
        server.wait_for_log(&format!("ERROR: client({}) - {reason}", name(&nsqd.0)));
    };
    has_reason("identify-timeout", "E_INVALID exceeds identify-timeout", |server| Nsqd::connect(server.tcp));
    has_reason("request-timeout", "E_INVALID exceeds request-timeout", |server| {
        let mut nsqd = Nsqd::identified(server.tcp, "n", 1);
        nsqd.0.write_all(b"REGIS").expect("a connection");
        nsqd
    });
    has_reason("output-timeout", "exceeds output-timeout", |server| {
        let mut nsqd = Nsqd::identified(server.tcp, "n", 1);
        nsqd.0.set_nonblocking(true).expect("a socket");
        let pings = b"PING\n".repeat(10_000);
        // The buffers of both sides are full of replies and of PINGs.
        until("the server stops reading", || nsqd.0.write(&pings).is_err());
        nsqd
    });
}

/// At debug when nothing was sent at all, as load balancers do.
fn a_connection_without_a_magic_has_a_reason(backend: Backend) {
    let server = Server::start(&[flag(backend), "-log-level=debug".into()]);
    for (sent, level, fin) in [("", "DEBUG", "EOF"), ("  V", "ERROR", "unexpected EOF")] {
        for (reason, linger) in [(fin, None), ("read: connection reset by peer", Some(Duration::ZERO))] {
            let mut stream = connect(server.tcp);
            stream.write_all(sent.as_bytes()).expect("a new connection");
            // A connection that is reset before it is accepted has no other reason.
            server.wait_for_log(&format!("TCP: new client({})", name(&stream)));
            SockRef::from(&stream).set_linger(linger).expect("a socket");
            drop(stream);
            server.wait_for_log(&format!("{level}: failed to read protocol version - {reason}\n"));
        }
    }
}

fn a_silent_producer_is_logged_until_it_is_back(backend: Backend) {
    let server = Server::start(&[flag(backend), "-inactive-producer-timeout=100ms".into()]);
    let mut nsqd = Nsqd::identified(server.tcp, "node-1", 1);
    nsqd.register("t");
    let client = name(&nsqd.0);
    let silent = format!("WARNING: client({client}) is silent: last PING ");
    server.wait_for_log(&silent);
    assert_eq!(metric(&server, r#"nsqlookupd_producers{state="inactive"}"#), 1);
    assert!(get(&mut connect(server.http), "/lookup?topic=t").ends_with(r#""producers":[]}"#));
    let lines = messages(&server);
    let line = lines.iter().find(|line| line.starts_with(&silent)).expect("seen above");
    assert!(line.ends_with("not listed until its next PING; node node-1:2"), "{line}");

    assert_eq!(nsqd.ask(b"PING\n"), b"OK");
    server.wait_for_log(&format!("INFO: client({client}) is back: listed again after "));
    // And silent once more.
    until("silent again", || metric(&server, "nsqlookupd_producer_silences_total") == 2);
    drop(nsqd);
    until("gone", || metric(&server, r#"nsqlookupd_producers{state="inactive"}"#) == 0);
    assert_eq!(metric(&server, r#"nsqlookupd_producers{state="active"}"#), 0);
    assert!(server.log().matches(&silent).count() == 2, "{}", server.log());
}

/// Whatever else the server waits for.
fn a_silence_in_the_middle_of_a_command_is_noticed(backend: Backend) {
    let server =
        Server::start(&[flag(backend), "-inactive-producer-timeout=100ms".into(), "-request-timeout=0".into()]);
    let mut nsqd = Nsqd::identified(server.tcp, "n", 1);
    nsqd.0.write_all(b"PI").expect("a connection");
    server.wait_for_log(" is silent: ");
    assert_eq!(nsqd.ask(b"NG\n"), b"OK");
    server.wait_for_log(" is back: ");
}

fn a_tombstone_finds_ipv6_nodes_and_warns_of_none(backend: Backend) {
    let server = Server::start(&[flag(backend)]);
    let mut client = connect(server.http);
    let mut producers =
        |topic: &str| get(&mut client, &format!("/lookup?topic={topic}")).matches("broadcast_address").count();
    let mut nsqds = Vec::new();
    for (number, (address, node)) in [
        ("2001:db8::1", "%5B2001:db8::1%5D:2"),
        ("2001:db8::1", "2001:db8::1:2"),
        ("2001:db8::1", "[2001:db8::1]:2"),
        ("[2001:db8::1]", "2001:db8::1:2"),
        ("[2001:db8::1]", "%5B%5B2001:db8::1%5D%5D:2"),
        ("nsqd-1", "nsqd-1:2"),
    ]
    .into_iter()
    .enumerate()
    {
        let topic = format!("t{number}");
        let mut nsqd = Nsqd::identified(server.tcp, address, 1);
        nsqd.register(&topic);
        assert_eq!(producers(&topic), 1);
        let answer = post(&server, &format!("/topic/tombstone?topic={topic}&node={node}"));
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        assert_eq!(producers(&topic), 0, "{node} is {address}");
        nsqds.push(nsqd);
    }
    assert!(!server.log().contains("WARNING"), "{}", server.log());
    for (topic, node) in [("t5", "nsqd-1:1"), ("t5", "nsqd-1"), ("t5", "127.0.0.1:2"), ("none", "nsqd-1:2")] {
        let answer = post(&server, &format!("/topic/tombstone?topic={topic}&node={node}"));
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        let what = format!("WARNING: no tombstone set: topic({topic}) has no producer@{node}; ");
        server.wait_for_log(&format!("{what}a node is broadcast_address:http_port, such as "));
    }
}

fn deleting_what_live_producers_have_is_a_warning(backend: Backend) {
    let server = Server::start(&[flag(backend)]);
    let mut nsqds: Vec<_> = (0..3).map(|_| Nsqd::identified(server.tcp, "n", 1)).collect();
    for nsqd in &mut nsqds {
        nsqd.register("t c");
    }
    nsqds[0].register("t d");
    post(&server, "/channel/create?topic=t&channel=empty");
    server.wait_for_log("INFO: DB: adding topic(t)");
    // Nobody has it.
    post(&server, "/channel/delete?topic=t&channel=empty");
    server.wait_for_log("removing channel(empty) from topic(t)");
    for (target, what, count) in [
        ("/channel/delete?topic=t&channel=c", "channel(c) of topic(t)", 3),
        ("/channel/delete?topic=t&channel=d", "channel(d) of topic(t)", 1),
        ("/topic/delete?topic=t", "topic(t)", 3),
    ] {
        assert!(post(&server, target).starts_with("HTTP/1.1 200 "));
        server.wait_for_log(&format!("WARNING: {what} was deleted while {count} connected nsqd have it: "));
    }
    // Nobody has it any more.
    post(&server, "/topic/delete?topic=t");
    post(&server, "/topic/create?topic=t");
    post(&server, "/topic/delete?topic=t");
    until("deleted", || server.log().matches("removing topic(t)").count() == 2);
    assert_eq!(server.log().matches("was deleted while").count(), 3);
}
