//! Every limit of `docs/reference.md`, one test for each, against the program with a small limit set by its flag:
//! whoever goes over is told so in its protocol's words and loses its connection, but for a REGISTER too many, which costs
//! an nsqd nothing else; the counter in `/metrics` and one line in the log say which limit it was, and a producer and a
//! consumer beside it notice nothing.

mod support;

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use socket2::{Domain, Socket, Type};

use support::clients::{
    Nsqd, OK, bulky, connect, exchange, framed, get, post, read_to_end, send_get, until_fin, wait_for_answer,
};
use support::{PATIENCE, Server};

/// A server with a producer and a consumer that behave.
struct Scene {
    server: Server,
    nsqd: Nsqd,
    client: TcpStream,
    limit: &'static str,
}

impl Scene {
    /// With one limit set.
    fn new(limit: &'static str, value: &str) -> Self {
        let server = Server::start(&[&format!("-{limit}={value}")]);
        let mut nsqd = Nsqd::identified(server.tcp, "steady", 1);
        nsqd.register("topic channel");
        let client = connect(server.http);
        let mut scene = Self { server, nsqd, client, limit };
        scene.check_neighbours();
        scene
    }

    fn check_neighbours(&mut self) {
        assert_eq!(self.nsqd.ask(b"PING\n"), b"OK");
        let answer = get(&mut self.client, "/lookup?topic=topic");
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.contains("steady"), "{answer}");
    }

    fn exceeded(&mut self) -> u64 {
        let text = get(&mut self.client, "/metrics");
        let sample = format!("nsqlookupd_limit_exceeded_total{{limit=\"{}\"}} ", self.limit);
        let value = text.lines().find_map(|line| line.strip_prefix(&sample)).expect("every limit has a counter");
        value.parse().expect("a number")
    }

    /// Waits until the limit has struck so often.
    fn wait_for_exceeded(&mut self, at_least: u64) {
        let begun = Instant::now();
        while self.exceeded() < at_least {
            assert!(begun.elapsed() < PATIENCE, "the limit does not exceeded: {}", self.server.log());
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// The limit has struck so often, and nobody else has noticed.
    fn end(mut self, exceeded: u64) {
        assert_eq!(self.exceeded(), exceeded);
        self.check_neighbours();
        self.check_log();
        assert!(self.server.stop().success());
    }

    /// However often it struck, one line says so.
    fn check_log(&self) {
        let line = "client(127.0.0.1:";
        let met = format!(") exceeded the limit -{} (", self.limit);
        self.server.wait_for_log(&met);
        let log = self.server.log();
        let lines: Vec<_> = log.lines().filter(|line| line.contains(&met)).collect();
        assert!(lines.len() == 1 && lines[0].contains(" WARNING: ") && lines[0].contains(line), "{lines:?}");
    }
}

/// A connection that does not identify.
fn nsqd(server: &Server) -> TcpStream {
    Nsqd::connect(server.tcp).0
}

/// Sends something, and checks that the error is all that comes before the end.
fn assert_refused(mut stream: TcpStream, bytes: &[u8], error: &str) {
    stream.write_all(bytes).expect("a connection");
    let read = until_fin(stream);
    assert!(read == framed(error), "{}", read.escape_ascii());
}

/// The same for HTTP: the answer begins so, ends so, and nothing follows it.
fn assert_answered(mut stream: TcpStream, bytes: &[u8], status: &str, body: &str) {
    stream.write_all(bytes).expect("a connection");
    let read = until_fin(stream);
    let text = String::from_utf8(read).expect("ASCII");
    assert!(text.starts_with(&format!("HTTP/1.1 {status}\r\n")), "{text}");
    assert!(text.contains("Connection: close\r\n") && text.ends_with(&format!("\r\n\r\n{body}")), "{text}");
}

#[test]
fn a_command_line() {
    let scene = Scene::new("max-command-size", "128");
    let error = "E_INVALID command line too long";
    assert_refused(nsqd(&scene.server), &[b'x'; 129], error);
    assert_refused(nsqd(&scene.server), &[&[b'x'; 129][..], b"\n"].concat(), error);
    assert_refused(nsqd(&scene.server), &["x".repeat(100_000).as_bytes(), b"\n"].concat(), error);
    let just = [b"PING", &[b' '; 124][..], b"\n"].concat();
    assert_eq!(Nsqd(nsqd(&scene.server)).ask(&just), b"OK");
    scene.end(3);
}

#[test]
fn the_body_of_identify() {
    let scene = Scene::new("max-identify-size", "100");
    for _ in 0..3 {
        assert_refused(nsqd(&scene.server), b"IDENTIFY\n\0\0\0\x65", "E_BAD_BODY IDENTIFY invalid body size 101");
    }
    // Of no size at all, so that no limit is to be changed.
    assert_refused(nsqd(&scene.server), b"IDENTIFY\n\xff\xff\xff\xff", "E_BAD_BODY IDENTIFY invalid body size -1");
    scene.end(3);
}

#[test]
fn the_bytes_of_a_request_head() {
    let scene = Scene::new("max-request-head-size", "1000");
    let (long, status) = ("x".repeat(1000), "431 Request Header Fields Too Large");
    for head in [
        format!("GET /{long}"),
        format!("GET /ping HTTP/1.1\r\nHost: h\r\nX: {long}"),
        format!("GET /ping HTTP/1.1\r\nHost: h\r\nX: {long}\r\n\r\n"),
    ] {
        assert_answered(connect(scene.server.http), head.as_bytes(), status, status);
    }
    scene.end(3);
}

#[test]
fn the_headers_of_a_request() {
    let mut scene = Scene::new("max-request-headers", "10");
    let request =
        |headers: usize| format!("GET /ping HTTP/1.1\r\nHost: h\r\n{}\r\n", "X: y\r\n".repeat(headers - 1));
    assert!(exchange(&mut scene.client, &request(10)).expect("a response").starts_with("HTTP/1.1 200 OK\r\n"));
    let status = "431 Request Header Fields Too Large";
    // httparse reads the first, and is not asked about the second.
    for headers in [11, 1000] {
        assert_answered(connect(scene.server.http), request(headers).as_bytes(), status, status);
    }
    scene.end(2);
}

#[test]
fn the_body_of_a_request() {
    let mut scene = Scene::new("max-request-body-size", "100");
    let head = "POST /topic/create?topic=t HTTP/1.1\r\nHost: h\r\n";
    for body in [
        // Nothing of it need come.
        "Content-Length: 101\r\n\r\n".to_owned(),
        format!("Transfer-Encoding: chunked\r\n\r\n65\r\n{}", "b".repeat(101)),
        format!("Transfer-Encoding: chunked\r\n\r\n{}", format!("a\r\n{}\r\n", "b".repeat(10)).repeat(11)),
    ] {
        let error = r#"{"message":"BODY_TOO_LARGE"}"#;
        let request = format!("{head}{body}");
        assert_answered(connect(scene.server.http), request.as_bytes(), "413 Request Entity Too Large", error);
    }
    let request = format!("{head}Content-Length: 100\r\n\r\n{}", "b".repeat(100));
    assert!(exchange(&mut scene.client, &request).expect("a response").starts_with("HTTP/1.1 200 OK\r\n"));
    scene.end(3);
}

#[test]
fn connections_in_all() {
    let scene = Scene::new("max-connections", "3");
    let mut last = Nsqd::connect(scene.server.tcp);
    assert_eq!(last.ask(b"PING\n"), b"OK");
    for _ in 0..3 {
        assert_refused(connect(scene.server.tcp), b"", "E_INVALID exceeds max-connections");
    }
    let error = r#"{"message":"TOO_MANY_CONNECTIONS"}"#;
    assert_answered(connect(scene.server.http), b"", "503 Service Unavailable", error);
    // Whoever leaves makes room, once the server knows.
    drop(last);
    let (begun, mut refused) = (Instant::now(), 0);
    loop {
        let mut stream = connect(scene.server.tcp);
        let _ = stream.write_all(b"  V1PING\n");
        let mut reply = [0; OK.len()];
        if stream.read_exact(&mut reply).is_ok() && reply == OK {
            break;
        }
        refused += 1;
        assert!(begun.elapsed() < PATIENCE, "the place is not free");
    }
    scene.end(4 + refused);
}

#[test]
fn connections_of_an_address() {
    let scene = Scene::new("max-connections-per-address", "2");
    for _ in 0..3 {
        assert_refused(connect(scene.server.tcp), b"", "E_INVALID exceeds max-connections-per-address");
    }
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a descriptor");
    socket.bind(&SocketAddr::from((Ipv4Addr::new(127, 0, 0, 2), 0)).into()).expect("loopback");
    socket.connect(&scene.server.http.into()).expect("the server listens");
    let mut other = TcpStream::from(socket);
    other.set_read_timeout(Some(PATIENCE)).expect("not zero");
    assert!(get(&mut other, "/ping").starts_with("HTTP/1.1 200 OK\r\n"));
    scene.end(3);
}

/// A second topic or channel is the last; what is there can be registered again, before and after a third is refused.
fn registrations(limit: &'static str, second: &str, third: (&str, &str)) -> (Scene, Nsqd) {
    let scene = Scene::new(limit, "2");
    let mut producer = Nsqd::identified(scene.server.tcp, "greedy", 1);
    for words in ["topic channel", second, second, "topic", "topic channel"] {
        producer.register(words);
    }
    let (topic, channel) = third;
    let reply = producer.ask(format!("REGISTER {topic} {channel}\n").as_bytes());
    assert_eq!(reply, format!("E_INVALID exceeds {limit}").as_bytes());
    // Which name it was, and whose.
    scene.server.wait_for_log(" WARNING: nsqd(greedy) client(127.0.0.1:");
    scene
        .server
        .wait_for_log(&format!(") REGISTER topic({topic}) channel({channel}) exceeded the limit -{limit} ("));
    for words in ["topic channel", second, "topic"] {
        producer.register(words);
    }
    assert_eq!(producer.ask(b"PING\n"), b"OK");
    (scene, producer)
}

/// Whether the producer that met the limit is found by the topic.
fn lists_greedy(scene: &mut Scene, topic: &str) -> bool {
    get(&mut scene.client, &format!("/lookup?topic={topic}")).contains("greedy")
}

#[test]
fn topics_in_all() {
    let (mut scene, _greedy) = registrations("max-topics", "second", ("third", ""));
    for target in ["/topic/create?topic=third", "/channel/create?topic=third&channel=c"] {
        let answer = post(&mut scene.client, target);
        assert!(answer.starts_with("HTTP/1.1 503 Service Unavailable\r\n"), "{answer}");
        assert!(answer.ends_with(r#"{"message":"TOO_MANY_TOPICS"}"#), "{answer}");
    }
    let topics = get(&mut scene.client, "/topics");
    assert!(
        topics.contains("\"second\"") && topics.contains("\"topic\"") && !topics.contains("third"),
        "{topics}"
    );
    assert!(lists_greedy(&mut scene, "topic") && lists_greedy(&mut scene, "second"));
    // What is deleted makes room.
    assert!(post(&mut scene.client, "/topic/delete?topic=second").starts_with("HTTP/1.1 200"));
    scene.nsqd.register("third");
    scene.end(3);
}

#[test]
fn channels_in_all() {
    let (mut scene, _greedy) = registrations("max-channels", "topic second", ("topic", "third"));
    let answer = post(&mut scene.client, "/channel/create?topic=topic&channel=third");
    assert!(answer.ends_with(r#"{"message":"TOO_MANY_CHANNELS"}"#), "{answer}");
    assert!(get(&mut scene.client, "/channels?topic=topic").ends_with(r#"{"channels":["channel","second"]}"#));
    assert!(lists_greedy(&mut scene, "topic"));
    assert!(post(&mut scene.client, "/channel/delete?topic=topic&channel=second").starts_with("HTTP/1.1 200"));
    scene.nsqd.register("topic third");
    scene.end(2);
}

#[test]
fn topics_of_a_producer() {
    let (mut scene, mut greedy) = registrations("max-topics-per-producer", "second", ("third", "channel"));
    assert!(get(&mut scene.client, "/lookup?topic=third").starts_with("HTTP/1.1 404"));
    // Others have topics of their own, and whoever gives one up gets another.
    scene.nsqd.register("third");
    assert_eq!(greedy.ask(b"UNREGISTER second\n"), b"OK");
    greedy.register("third channel");
    assert!(lists_greedy(&mut scene, "topic") && lists_greedy(&mut scene, "third"));
    scene.end(1);
}

#[test]
fn channels_of_a_producer() {
    let (mut scene, greedy) = registrations("max-channels-per-producer", "topic second", ("other", "third"));
    // The topic is within its limit.
    assert!(lists_greedy(&mut scene, "other"));
    assert!(get(&mut scene.client, "/channels?topic=other").ends_with(r#"{"channels":[]}"#));
    drop(greedy);
    scene.nsqd.register("topic third");
    assert_eq!(scene.nsqd.ask(b"UNREGISTER topic third\n"), b"OK");
    scene.nsqd.register("topic fourth");
    // One that is deleted counts for nobody any more.
    assert!(post(&mut scene.client, "/channel/delete?topic=topic&channel=fourth").starts_with("HTTP/1.1 200"));
    scene.nsqd.register("topic fifth");
    scene.end(1);
}

/// It is not asked for more until it reads, and then gets everything.
#[test]
fn the_output_of_a_connection() {
    let mut scene = Scene::new("max-output-size", "1000");
    // More replies than the buffers of two sockets ever hold.
    let pings = 2_000_000;
    let mut stalled = nsqd(&scene.server);
    let mut writer = stalled.try_clone().expect("a descriptor");
    let writing =
        thread::spawn(move || writer.write_all(&b"PING\n".repeat(pings)).expect("the server reads at last"));
    scene.wait_for_exceeded(1);
    scene.check_neighbours();
    let mut replies = vec![0; pings * OK.len()];
    stalled.read_exact(&mut replies).expect("each is answered");
    assert!(replies == OK.repeat(pings));
    writing.join().expect("all is written");
    let exceeded = scene.exceeded();
    scene.end(exceeded);
}

#[test]
fn the_time_to_the_magic() {
    let mut scene = Scene::new("handshake-timeout", "200ms");
    for begun in [&b""[..], b"  V"] {
        assert_refused(connect(scene.server.tcp), begun, "E_INVALID exceeds handshake-timeout");
    }
    // After the magic nothing is due.
    let mut silent = Nsqd(nsqd(&scene.server));
    scene.wait_for_exceeded(2);
    assert_refused(connect(scene.server.tcp), b"", "E_INVALID exceeds handshake-timeout");
    assert_eq!(silent.ask(b"PING\n"), b"OK");
    scene.end(3);
}

#[test]
fn the_silence_before_identify() {
    let scene = Scene::new("identify-timeout", "200ms");
    let error = "E_INVALID exceeds identify-timeout";
    assert_refused(nsqd(&scene.server), b"", error);
    let mut pinged = Nsqd(nsqd(&scene.server));
    assert_eq!(pinged.ask(b"PING\n"), b"OK");
    assert_refused(pinged.0, b"", error);
    // The producer of the scene has been silent for as long.
    scene.end(2);
}

#[test]
fn the_time_to_a_whole_request() {
    let scene = Scene::new("request-timeout", "200ms");
    let error = "E_INVALID exceeds request-timeout";
    assert_refused(nsqd(&scene.server), b"PIN", error);
    assert_refused(nsqd(&scene.server), b"IDENTIFY\n\0\0\0\x09{", error);
    for request in [
        "GET /ping HTTP/1.1\r\nHo",
        "POST /topic/create?topic=t HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\n\r\n1",
    ] {
        let error = r#"{"message":"REQUEST_TIMEOUT"}"#;
        assert_answered(connect(scene.server.http), request.as_bytes(), "408 Request Timeout", error);
    }
    scene.end(4);
}

/// Bytes that come one by one do not move the end.
#[test]
fn a_request_byte_by_byte() {
    let scene = Scene::new("request-timeout", "300ms");
    let mut stream = connect(scene.server.http);
    stream.set_read_timeout(Some(Duration::from_millis(20))).expect("not zero");
    stream.write_all(b"GET /ping HTTP/1.1\r\nX: ").expect("a connection");
    let (begun, mut read) = (Instant::now(), [0; 12]);
    while stream.read_exact(&mut read).is_err() {
        assert!(begun.elapsed() < PATIENCE, "it goes on for ever");
        let _ = stream.write_all(b"x");
    }
    assert_eq!(&read, b"HTTP/1.1 408");
    scene.end(1);
}

#[test]
fn the_silence_of_an_http_connection() {
    let mut scene = Scene::new("idle-timeout", "200ms");
    let mut fresh = connect(scene.server.http);
    assert_eq!(read_to_end(&mut fresh).expect("a FIN"), b"");
    // It would be the answer to the request that may be on its way.
    assert_eq!(read_to_end(&mut scene.client).expect("a FIN"), b"");
    scene.client = connect(scene.server.http);
    scene.end(2);
}

/// Asks for more than two sockets' buffers hold, and does not read.
fn stalled(server: &Server) -> (Nsqd, TcpStream) {
    let mut producer = bulky(server.tcp);
    for topic in 0..20 {
        producer.register(&format!("t{topic}"));
    }
    let mut stalled = connect(server.http);
    send_get(&mut stalled, "/debug");
    wait_for_answer(&stalled);
    (producer, stalled)
}

#[test]
fn the_time_to_read() {
    let mut scene = Scene::new("output-timeout", "300ms");
    let (producer, mut stalled) = stalled(&scene.server);
    scene.wait_for_exceeded(1);
    // A FIN or a reset, and either comes too soon.
    let mut read = Vec::new();
    let _ = stalled.read_to_end(&mut read);
    assert!(!read.is_empty() && !read.ends_with(b"\r\n0\r\n\r\n"), "all of it came");
    drop(producer);
    scene.end(1);
}

#[test]
fn the_time_to_drain() {
    let mut scene = Scene::new("drain-timeout", "100ms");
    let clients = stalled(&scene.server);
    scene.server.signal(Signal::TERM);
    let status = scene.server.wait_for_exit(PATIENCE);
    assert!(status.is_some_and(|status| status.success()), "{status:?}");
    scene.check_log();
    drop(clients);
}
