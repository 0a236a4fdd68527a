//! With `-log-format=json` whoever reads the log parses every line, whatever clients send, and finds client, topic and
//! channel without taking the message apart.

use std::net::TcpListener;

use rustix::process::Signal;
use serde_json::Value;

use super::refusals::run;
use crate::support::clients::{Nsqd, connect, get, post, said};
use crate::support::{PATIENCE, Server};

/// All lines; each has a time, a level and a message.
fn objects(log: &str) -> Vec<Value> {
    let object = |line: &str| {
        let object: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        let text = |name: &str| object[name].as_str().unwrap_or_else(|| panic!("no {name}: {line}"));
        chrono::DateTime::parse_from_rfc3339(text("time")).unwrap_or_else(|error| panic!("{error}: {line}"));
        assert!(["debug", "info", "warn", "error", "fatal"].contains(&text("level")), "{line}");
        text("message");
        object
    };
    log.lines().map(object).collect()
}

/// The level, and client, topic and channel, of the first line whose message begins so.
fn line<'a>(objects: &'a [Value], start: &str) -> (&'a str, [Option<&'a str>; 3]) {
    let begins = |object: &&Value| object["message"].as_str().is_some_and(|message| message.starts_with(start));
    let object = objects.iter().find(begins).unwrap_or_else(|| panic!("no {start:?}: {objects:#?}"));
    let fields = ["client", "topic", "channel"].map(|name| object.get(name).map(|value| value.as_str().unwrap()));
    (object["level"].as_str().unwrap(), fields)
}

#[test]
fn every_line_is_an_object() {
    let mut server = Server::start(&["-log-format=json", "-log-level=debug"]);
    let mut nsqd = Nsqd::identified(server.tcp, "node-1", 1);
    let nsqd_address = nsqd.0.local_addr().unwrap().to_string();
    nsqd.register("orders billing");
    let mut http = connect(server.http);
    let http_address = http.local_addr().unwrap().to_string();
    post(&mut http, "/topic/create?topic=made");
    post(&mut http, "/topic/tombstone?topic=%00%22%0a%e2%80%ae&node=x");
    post(&mut http, "/topic/delete?topic=orders");
    get(&mut http, "/lookup?topic=%22");
    assert!(nsqd.ask(b"REGISTER bad\xff\x1b[31m\"\n").starts_with(b"E_BAD_TOPIC "));
    server.wait_for_log("E_BAD_TOPIC");
    let at_the_wrong_port = said(server.tcp, b"GET / HTTP/1.1\r\n\r\n");
    let wrong_address = at_the_wrong_port.local_addr().unwrap().to_string();
    server.wait_for_log("speaks HTTP");
    drop(nsqd);
    server.wait_for_log("UNREGISTER category:client");
    server.signal(Signal::TERM);
    assert!(server.wait_for_exit(PATIENCE).is_some_and(|status| status.success()));

    let objects = objects(&server.log());
    let (nsqd, http, wrong) = (Some(&*nsqd_address), Some(&*http_address), Some(&*wrong_address));
    let of_nsqd = |text: &str| format!("DB: client({nsqd_address}) {text}");
    for (start, level, fields) in [
        ("nsqlookupd v", "info", [None; 3]),
        ("TCP: listening on ", "info", [None; 3]),
        (&format!("TCP: new client({nsqd_address})"), "info", [nsqd, None, None]),
        (&of_nsqd("REGISTER category:client"), "info", [nsqd, None, None]),
        (&of_nsqd("REGISTER category:channel"), "info", [nsqd, Some("orders"), Some("billing")]),
        (&of_nsqd("REGISTER category:topic"), "info", [nsqd, Some("orders"), None]),
        (&of_nsqd("UNREGISTER category:client"), "info", [nsqd, None, None]),
        (&format!("[{nsqd_address}] - E_BAD_TOPIC "), "error", [nsqd, None, None]),
        (&format!("client({nsqd_address}) - "), "error", [nsqd, None, None]),
        (&format!("client({wrong_address}) speaks HTTP"), "warn", [wrong, None, None]),
        ("DB: adding topic(made)", "info", [None, Some("made"), None]),
        ("topic(orders) was deleted while 1 ", "warn", [None, Some("orders"), None]),
        ("no tombstone set: ", "warn", [None, Some("\0\"\n\u{202e}"), None]),
        ("404 GET /lookup?topic=%22", "debug", [http, None, None]),
    ] {
        assert_eq!(line(&objects, start), (level, fields), "{start}");
    }
}

#[test]
fn a_failed_start_is_an_object_too() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("loopback");
    let address = taken.local_addr().expect("it is bound");
    let output = run(&["-log-format=json", &format!("-tcp-address={address}")]);
    let objects = objects(str::from_utf8(&output.stderr).expect("UTF-8"));
    assert_eq!(line(&objects, "failed to instantiate nsqlookupd - "), ("fatal", [None; 3]));
}
