//! HEAD of a GET route: the status and the headers of GET, and not a byte behind them.

use ringlookupd::io::Backend;

use crate::both_drivers::flag;
use crate::support::Server;
use crate::support::clients::{self, Nsqd, bulky, until_fin};

on_both_drivers!(head_is_get_without_a_body, nothing_stands_between_head_and_the_next_response);

/// Everything that a server says to these requests, the last of which ends the connection.
fn said(server: &Server, requests: &str) -> String {
    String::from_utf8(until_fin(clients::said(server.http, requests.as_bytes()))).expect("UTF-8")
}

/// A server whose responses are short, shared in pieces, and longer than a page.
fn server(backend: Backend) -> (Server, Vec<Nsqd>) {
    let server = Server::start(&[flag(backend), "-workers=1".to_owned()]);
    let mut nsqds = vec![Nsqd::identified(server.tcp, "small", 1), bulky(server.tcp), bulky(server.tcp)];
    nsqds[0].register("short channel");
    for nsqd in &mut nsqds {
        nsqd.register("long channel");
    }
    (server, nsqds)
}

/// What follows a request line and what comes back, up to the body and without the date.
fn head(response: &str) -> Vec<&str> {
    let (head, _) = response.split_once("\r\n\r\n").expect("a head");
    head.lines().filter(|line| !line.starts_with("Date: ")).collect()
}

const TARGETS: [&str; 14] = [
    "/ping",
    "/info",
    "/lookup?topic=short",
    "/lookup?topic=long",
    "/lookup?topic=*",
    "/lookup?topic=unknown",
    "/lookup",
    "/lookup?topic=%zz",
    "/channels?topic=long",
    "/topics",
    "/debug",
    // Rendered while it is sent, which needs chunks; then kept, and its length is known.
    "/nodes",
    "/nodes",
    "/metrics",
];

fn head_is_get_without_a_body(backend: Backend) {
    let (server, _nsqds) = server(backend);
    let forms = ["HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n", "HTTP/1.0\r\n\r\n"];
    let mut heads = Vec::new();
    for form in forms {
        for target in TARGETS {
            let bare = said(&server, &format!("HEAD {target} {form}"));
            let full = said(&server, &format!("GET {target} {form}"));
            let (mut bare_head, mut full_head) = (head(&bare), head(&full));
            assert!(bare.ends_with("\r\n\r\n") && bare.matches("\r\n\r\n").count() == 1, "{target}: {bare}");
            if target == "/metrics" {
                // It counts the requests.
                bare_head.retain(|line| !line.starts_with("Content-Length: "));
                full_head.retain(|line| !line.starts_with("Content-Length: "));
            }
            assert_eq!(bare_head, full_head, "{target}");
            heads.push(bare);
        }
    }
    let chunked = "\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n";
    let nodes = TARGETS.iter().position(|target| *target == "/nodes").expect("it is there");
    assert!(heads[nodes].ends_with(chunked) && heads[nodes + 1].contains("\r\nContent-Length: "), "{heads:?}");
    for (target, allow) in [("/topic/create?topic=t", "OPTIONS, POST"), ("/channel/delete", "OPTIONS, POST")] {
        let refused = said(&server, &format!("HEAD {target} {}", forms[0]));
        assert!(refused.starts_with("HTTP/1.1 405 Method Not Allowed\r\n"), "{refused}");
        assert!(
            refused.contains(&format!("\r\nAllow: {allow}\r\n")) && refused.ends_with("\r\n\r\n"),
            "{refused}"
        );
    }
    assert!(!said(&server, &format!("GET /topics {}", forms[0])).contains("\"t\""), "HEAD has made a topic");
}

fn nothing_stands_between_head_and_the_next_response(backend: Backend) {
    let (server, _nsqds) = server(backend);
    for (version, keep) in [("1.1", ""), ("1.0", "Connection: keep-alive\r\n")] {
        for target in TARGETS {
            let request = format!("HEAD {target} HTTP/{version}\r\nHost: h\r\n{keep}\r\n");
            let last = "GET /ping HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n";
            let text = said(&server, &format!("{request}{request}{last}"));
            let responses: Vec<_> = text.split_inclusive("\r\n\r\n").collect();
            if version == "1.0" && !responses[0].contains("\r\nConnection: keep-alive\r\n") {
                // Too long for HTTP/1.0 to keep the connection (Go).
                assert_eq!(responses.len(), 1, "{target}: {text}");
                continue;
            }
            let [first, second, pong, body] = responses[..] else { panic!("{target}: {text}") };
            let status = |response: &str| response.split(' ').nth(1).map(str::to_owned);
            assert!(first.starts_with("HTTP/1.") && status(first) == status(second), "{target}: {text}");
            assert!(pong.starts_with("HTTP/1.1 200 OK\r\n"), "{target}: {text}");
            assert_eq!(body, "OK", "{target}");
            // Nobody has read all of it, so its length is not known yet.
            assert!(target != "/nodes" || first.contains("\r\nTransfer-Encoding: chunked\r\n"), "{first}");
        }
    }
}
