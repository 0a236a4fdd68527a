//! Names that no producer has are forgotten after a time, so that what is dead does not fill the limits. Names that
//! somebody created over HTTP stay.

mod support;

use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use support::clients::{Nsqd, connect, get, post};
use support::{PATIENCE, Server};

fn body(client: &mut TcpStream, target: &str) -> String {
    let answer = get(client, target);
    answer.split_once("\r\n\r\n").expect("a head").1.to_owned()
}

/// Waits until the answer to a request is this.
fn await_answer(client: &mut TcpStream, target: &str, expected: &str) {
    let begun = Instant::now();
    while body(client, target) != expected {
        assert!(begun.elapsed() < PATIENCE, "{target} is {}, not {expected}", body(client, target));
        thread::sleep(Duration::from_millis(10));
    }
}

fn create(client: &mut TcpStream, target: &str) {
    let answer = post(client, target);
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
}

fn forgotten(client: &mut TcpStream, kind: &str) -> u64 {
    let sample = format!("nsqlookupd_names_forgotten_total{{kind=\"{kind}\"}} ");
    let text = get(client, "/metrics");
    let value = text.lines().find_map(|line| line.strip_prefix(&sample)).expect("both kinds are counted");
    value.parse().expect("a number")
}

/// The channels of tails that were killed are all that there may be. A producer that wants one more is refused that one
/// only, and gets it when the others are forgotten.
#[test]
fn channels_of_the_dead_make_room_for_the_living() {
    let after = Duration::from_secs(1);
    let server = Server::start(&["-max-channels=20", "-forget-ephemeral-after=1s"]);
    let mut client = connect(server.http);
    let mut living = Nsqd::identified(server.tcp, "living", 1);
    living.register("orders");
    let mut dying = Nsqd::identified(server.tcp, "dying", 1);
    for nth in 0..20 {
        dying.register(&format!("orders tail{nth}#ephemeral"));
    }
    let refused = b"E_INVALID exceeds max-channels";
    assert_eq!(living.ask(b"REGISTER orders billing\n"), refused);

    let died = Instant::now();
    drop(dying);
    loop {
        let lookup = body(&mut client, "/lookup?topic=orders");
        assert!(lookup.contains("living"), "{lookup}");
        let reply = living.ask(b"REGISTER orders billing\n");
        if reply == b"OK" {
            break;
        }
        assert_eq!(reply, refused);
        assert!(died.elapsed() < PATIENCE, "nothing is forgotten: {}", server.log());
        thread::sleep(Duration::from_millis(10));
    }
    assert!(died.elapsed() >= after, "too soon");
    await_answer(&mut client, "/channels?topic=orders", r#"{"channels":["billing"]}"#);
    assert_eq!((forgotten(&mut client, "topic"), forgotten(&mut client, "channel")), (0, 20));
    server.wait_for_log(" INFO: DB: forgetting topics:0 channels:20 without producers: channel(tail");
    server.wait_for_log("channel(tail19#ephemeral) of topic(orders)");
    assert!(server.stop().success());
}

#[test]
fn any_name_is_forgotten_that_nobody_created_over_http() {
    let server = Server::start(&["-forget-ephemeral-after=100ms", "-forget-unused-after=100ms"]);
    let mut client = connect(server.http);
    let mut living = Nsqd::identified(server.tcp, "living", 1);
    living.register("shared used");
    let mut dying = Nsqd::identified(server.tcp, "dying", 1);
    for name in ["shared unused", "dead channel", "dead#ephemeral channel", "created#ephemeral"] {
        dying.register(name);
    }
    create(&mut client, "/topic/create?topic=created%23ephemeral");
    create(&mut client, "/channel/create?topic=made&channel=made%23ephemeral");
    drop(dying);
    await_answer(&mut client, "/channels?topic=shared", r#"{"channels":["used"]}"#);
    await_answer(&mut client, "/channels?topic=dead", r#"{"channels":[]}"#);
    // Parts of a commit may be seen before the rest of it.
    server.wait_for_log("DB: forgetting topics:2 channels:3 without producers: ");
    let topics = body(&mut client, "/topics");
    for (topic, is_there) in
        [("shared", true), ("made", true), ("created#ephemeral", true), ("dead", false), ("dead#ephemeral", false)]
    {
        assert_eq!(topics.contains(&format!("\"{topic}\"")), is_there, "{topic} in {topics}");
    }
    assert!(get(&mut client, "/lookup?topic=dead").contains("TOPIC_NOT_FOUND"));
    assert_eq!(body(&mut client, "/channels?topic=made"), r#"{"channels":["made#ephemeral"]}"#);
    assert_eq!((forgotten(&mut client, "topic"), forgotten(&mut client, "channel")), (2, 3));
}

/// Without its flag an ephemeral name is forgotten when a silent producer is not listed any more, and others stay.
#[test]
fn ephemeral_names_follow_the_inactive_timeout() {
    let server = Server::start(&["-inactive-producer-timeout=100ms"]);
    let mut client = connect(server.http);
    let mut dying = Nsqd::identified(server.tcp, "dying", 1);
    dying.register("topic channel");
    dying.register("topic channel#ephemeral");
    drop(dying);
    await_answer(&mut client, "/channels?topic=topic", r#"{"channels":["channel"]}"#);
    assert_eq!(body(&mut client, "/topics"), r#"{"topics":["topic"]}"#);
}

/// Stock's behaviour, beside names that are forgotten.
#[test]
fn with_zero_ephemeral_names_stay() {
    let server = Server::start(&[
        "-inactive-producer-timeout=50ms",
        "-forget-ephemeral-after=0s",
        "-forget-unused-after=200ms",
    ]);
    let mut client = connect(server.http);
    let mut dying = Nsqd::identified(server.tcp, "dying", 1);
    dying.register("topic#ephemeral");
    dying.register("topic");
    drop(dying);
    await_answer(&mut client, "/topics", r#"{"topics":["topic#ephemeral"]}"#);
}
