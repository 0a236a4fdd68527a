//! The runner's own tests: wrong expectations must fail, and only differences that matter may.

use std::io::Write as _;
use std::net::{SocketAddr, TcpListener};
use std::thread;
use std::time::{SystemTime, UNIX_EPOCH};

use libtest_mimic::{Failed, Trial};
use serde_json::{Value, json};

use crate::case::{Case, Step};
use crate::normal::{View, canonical, difference};
use crate::player::play;
use crate::wire::{Peer, ReadError, Response};

pub fn trials() -> Vec<Trial> {
    let tests: [(&str, fn()); 11] = [
        ("canary_bytes_at_the_end", bytes_at_the_end),
        ("compare_absent_members", absent_members),
        ("compare_addresses_and_times_are_masked", addresses_and_times_are_masked),
        ("compare_duplicate_keys_make_text", duplicate_keys_make_text),
        ("compare_header_names_by_byte", header_names_by_byte),
        ("compare_headers_that_count", headers_that_count),
        ("compare_number_text", number_text),
        ("compare_order_of_arrays", order_of_arrays),
        ("compare_self_description", self_description),
        ("compare_tombstones_stay_with_their_topics", tombstones_stay_with_their_topics),
        ("wire_response_framing", response_framing),
    ];
    let tests = tests.into_iter().map(|(name, test)| {
        let run = move || {
            test();
            Ok(())
        };
        Trial::test(name, run)
    });
    let canaries =
        canaries().into_iter().map(|(name, steps, complaint)| Trial::test(name, move || fails(&steps, complaint)));
    tests.chain(canaries).collect()
}

/// Steps with an expectation that no server may meet, and how the runner's complaint must begin.
fn canaries() -> [(&'static str, Value, &'static str); 7] {
    let pong = json!({
        "status": 200,
        "headers": {"Content-Type": "text/plain; charset=utf-8", "Connection": "close"},
        "text": "OK",
    });
    let goodbye = json!({"target": "/ping", "headers": {"Connection": "close"}, "conn": "k"});
    [
        (
            "canary_wrong_frame",
            json!([{"tcp": "a", "open": true, "send": "  V1PING\n", "expect": [{"text": "PONG"}]}]),
            r#"step 1: answer 1.text: expected "PONG" / got "OK""#,
        ),
        (
            "canary_wrong_header",
            json!([{"http": {"target": "/ping"}, "expect": [pong]}]),
            r#"step 1: answer 1.headers.Connection: expected "close" / got (absent)"#,
        ),
        (
            "canary_wrong_member",
            json!([{"http": {"target": "/topics"}, "expect": [{
                "status": 200,
                "headers": {
                    "Content-Type": "application/json; charset=utf-8",
                    "X-NSQ-Content-Type": "nsq; version=1.0",
                },
                "json": {"topics": ["t"]},
            }]}]),
            r#"step 1: answer 1.json.topics: expected ["t"] / got []"#,
        ),
        (
            "canary_answer_instead_of_silence",
            json!([{"tcp": "a", "open": true, "send": "  V1PING\n", "quiet": 5}]),
            r#"step 1: expected silence / got b"\x00"#,
        ),
        (
            "canary_answer_instead_of_close",
            json!([{"tcp": "a", "open": true, "send": "  V1PING\n", "closed": true}]),
            r#"step 1: expected the server to close / got b"\x00"#,
        ),
        (
            "canary_close_instead_of_silence",
            json!([{"http": goodbye, "expect": [pong], "quiet": 5}]),
            "step 1: expected silence / got a close",
        ),
        (
            "canary_close_instead_of_answer",
            json!([{"http": goodbye, "expect": [pong, pong]}]),
            "step 1: answer 2: expected {",
        ),
    ]
}

fn case_of(steps: &Value) -> Case {
    let case = json!({"name": "canary", "why": "the runner must be able to fail", "steps": steps});
    serde_json::from_value(case).expect("a valid case")
}

fn fails(steps: &Value, complaint: &str) -> Result<(), Failed> {
    match crate::play_case(&case_of(steps)) {
        Ok(()) => Err("the wrong expectation passed".into()),
        Err(wrong) if wrong.starts_with(complaint) => Ok(()),
        Err(wrong) => Err(format!("another failure than {complaint:?}: {wrong}").into()),
    }
}

/// A server that writes each of `greetings` to a connection of its own, one after the other, and
/// closes it.
fn greeter<const N: usize>(greetings: [&'static [u8]; N]) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    thread::spawn(move || {
        for greeting in greetings {
            let (mut client, _) = listener.accept().expect("a client");
            client.set_nodelay(true).expect("an open socket");
            for byte in greeting.chunks(1) {
                client.write_all(byte).expect("a client that reads");
            }
        }
    });
    address
}

fn bytes_at_the_end() {
    // The second greeting is written after the first, so the first has arrived when the second is
    // read.
    let server = greeter([b"\0\0\0\x02OK", b"\0\0\0\x02OK"]);
    let case = case_of(&json!([
        {"tcp": "a", "open": true},
        {"tcp": "b", "open": true, "expect": [{"text": "OK"}]},
    ]));
    let wrong = play(&case, server, server).expect_err("bytes that no step expected");
    assert!(wrong.starts_with("end: unexpected bytes b\"\\x00"), "{wrong}");
}

fn view() -> View {
    let mut view = View::new(4160, 4161, &[]);
    view.name("127.0.0.1:50000".parse().expect("an address"), "a");
    view
}

fn response(content_type: &str, body: &str) -> Response {
    Response {
        proto: "HTTP/1.1".into(),
        status: 200,
        headers: [("Content-Type", content_type), ("Date", "today")].map(|(k, v)| (k.into(), v.into())).into(),
        body: body.into(),
    }
}

/// The normal form of a JSON answer's body.
fn body(json: &Value) -> Value {
    view().response(&response("application/json", &json.to_string()), false)["json"].take()
}

fn order_of_arrays() {
    let one = json!({"topics": ["a", "b"], "producers": [{"p": 1, "q": [1, 2]}, {"p": 0}]});
    let two = json!({"producers": [{"p": 0}, {"q": [2, 1], "p": 1}], "topics": ["b", "a"]});
    assert_eq!(canonical(one.clone()), canonical(two));
    let other = json!({"producers": [{"p": 0}, {"q": [2, 2], "p": 1}], "topics": ["b", "a"]});
    assert_eq!(
        difference(&canonical(one), &canonical(other)).as_deref(),
        Some(".producers[1].q[0]: expected 1 / got 2")
    );
}

fn tombstones_stay_with_their_topics() {
    let hit_a = json!({"topics": ["a", "b"], "tombstones": [true, false]});
    let hit_a_too = json!({"topics": ["b", "a"], "tombstones": [false, true]});
    let hit_b = json!({"topics": ["a", "b"], "tombstones": [false, true]});
    assert_eq!(canonical(hit_a.clone()), canonical(hit_a_too));
    assert_ne!(canonical(hit_a), canonical(hit_b));
}

fn number_text() {
    let parse = |text| serde_json::from_str::<Value>(text).expect("JSON");
    assert_eq!(difference(&parse("[1]"), &parse("[1.0]")).as_deref(), Some("[0]: expected 1 / got 1.0"));
    assert_eq!(difference(&parse("12345678901234567890123"), &parse("12345678901234567890123")), None);
}

fn absent_members() {
    let (some, none) = (json!({"a": "(absent)"}), json!({}));
    assert_eq!(difference(&some, &none).as_deref(), Some(r#".a: expected "(absent)" / got (absent)"#));
    assert_eq!(difference(&none, &some).as_deref(), Some(r#".a: expected (absent) / got "(absent)""#));
}

fn duplicate_keys_make_text() {
    let text = r#"{"a:b":"\":","c":{"d":1,"d":1}}"#;
    assert_eq!(view().frame(text.as_bytes()), json!({"text": text}));
    let unique = r#"{"a:b":"\":","c":{"d":1,"e":1}}"#;
    assert_eq!(view().frame(unique.as_bytes()), json!({"json": {"a:b": "\":", "c": {"d": 1, "e": 1}}}));
}

fn addresses_and_times_are_masked() {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is past 1970").as_nanos();
    let now = i64::try_from(now).expect("it is before 2262");
    let entry = json!({
        "remote_address": "127.0.0.1:50000", "id": "127.0.0.1:50001", "hostname": "127.0.0.1:50000",
        "last_update": now, "tombstoned_at": -now, "tcp_port": now,
    });
    let masked = json!({
        "remote_address": "<addr:a>", "id": "127.0.0.1:50001", "hostname": "127.0.0.1:50000",
        "last_update": "<now_ns>", "tombstoned_at": "<other_ns>", "tcp_port": now,
    });
    assert_eq!(body(&json!([entry])), json!([masked]));
    assert_eq!(view().frame(b"E_BAD 127.0.0.1:50000"), json!({"text": "E_BAD <addr:a>"}));
    assert_eq!(view().frame(b"\xff\x00"), json!({"hex": "ff00"}));
}

fn self_description() {
    let identity = json!({
        "tcp_port": 4160, "http_port": 4160, "hostname": "h", "version": "",
        "broadcast_address": "b",
    });
    let masked = json!({
        "tcp_port": "<tcp_port>", "http_port": 4160, "hostname": "<str>", "version": "",
        "broadcast_address": "<str>",
    });
    assert_eq!(view().frame(identity.to_string().as_bytes()), json!({"json": masked}));
    let told = View::new(4160, 4161, &["-broadcast-address=b".to_owned()]);
    assert_eq!(told.frame(identity.to_string().as_bytes())["json"]["broadcast_address"], "b");
    assert_eq!(body(&json!({"version": "1"})), json!({"version": "<str>"}), "/info");
    assert_eq!(body(&json!({"version": "1", "x": 1}))["version"], "1", "not /info");
}

fn headers_that_count() {
    let info = response("application/json", r#"{"version":"1"}"#);
    let exact = json!({
        "status": 200,
        "headers": {"Content-Type": "application/json"},
        "text": r#"{"version":"1"}"#,
    });
    assert_eq!(view().response(&info, true), exact);
    let old = Response { proto: "HTTP/1.0".into(), ..response("text/plain", "{}") };
    let plain = json!({
        "status": 200,
        "proto": "HTTP/1.0",
        "headers": {"Content-Type": "text/plain"},
        "text": "{}",
    });
    assert_eq!(view().response(&old, false), plain);
}

/// A case says X-NSQ-Content-Type and means what Go makes of it.
fn header_names_by_byte() {
    let step = json!({"http": {"target": "/"}, "expect": [{"headers": {"X-NSQ-Content-Type": "v"}}]});
    let case = case_of(&json!([step]));
    let Step::Exchange(exchange) = &case.steps[0] else { panic!("an exchange") };
    for (name, same) in
        [("X-Nsq-Content-Type", true), ("X-NSQ-Content-Type", false), ("x-nsq-content-type", false)]
    {
        let answer = Response {
            proto: "HTTP/1.1".into(),
            status: 200,
            headers: [(name.to_owned(), "v".to_owned())].into(),
            body: Vec::new(),
        };
        let answer = view().response(&answer, false);
        assert_eq!(answer["headers"] == exchange.expect[0]["headers"], same, "{answer}");
    }
}

fn response_framing() {
    let read = |answer: &'static [u8], head| {
        let mut peer = Peer::connect(greeter([answer])).expect("the greeter listens");
        (peer.response(head).map(|response| response.body), peer)
    };
    let framings: [(&[u8], bool, &[u8]); 5] = [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", false, b"hello"),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\
              3;x=y\r\nhel\r\n2\r\nlo\r\n0\r\nTrailer: 1\r\n\r\n",
            false,
            b"hello",
        ),
        (b"HTTP/1.0 200 OK\r\n\r\nhello", false, b"hello"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", true, b""),
        (b"HTTP/1.1 100 Continue\r\n\r\n", false, b""),
    ];
    for (answer, head, want) in framings {
        let (body, peer) = read(answer, head);
        assert_eq!(body.expect("a response"), want, "{}", answer.escape_ascii());
        assert!(peer.buffer.is_empty(), "{}", answer.escape_ascii());
    }
    let (cut, _) = read(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhell", false);
    assert!(matches!(cut, Err(ReadError::Closed)), "{cut:?}");
    let (garbage, _) = read(b"SSH-2.0\r\n", false);
    assert!(matches!(garbage, Err(ReadError::Unreadable(_))), "{garbage:?}");
}
