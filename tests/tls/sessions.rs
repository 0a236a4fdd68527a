//! What is said within TLS is what is said without.

use std::io::{Read, Write};

use ringlookupd::io::Backend;
use rustls::HandshakeKind;

use crate::both_drivers::flag;
use crate::certificates::Authority;
use crate::client::{TlsServer, config, config_of, tls};
use crate::support::clients::http::{content, exchange, read_answer, request};
use crate::support::clients::{Nsqd, OK, connect, framed, get, identify};

on_both_drivers!(
    responses_are_those_of_the_plain_port,
    nsqd_registers_within_tls,
    large_documents_are_whole,
    requests_may_come_in_any_pieces,
    a_session_is_resumed_by_any_worker,
    a_request_with_its_end_gets_its_response,
    a_server_that_stops_ends_tls_in_order,
);

/// Without the one header that tells the time.
fn without_date(response: &str) -> String {
    response.lines().filter(|line| !line.starts_with("Date: ")).collect::<Vec<_>>().join("\n")
}

fn responses_are_those_of_the_plain_port(backend: Backend) {
    let authority = Authority::new();
    let TlsServer { server, https, .. } = TlsServer::start(&authority.certify("server"), &[&flag(backend)]);
    let mut nsqd = Nsqd::identified(server.tcp, "node", 1);
    nsqd.register("t c");
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let (mut plain, mut within) = (connect(server.http), tls(https, &config_of(&authority, version)));
        for (method, target) in [
            ("GET", "/ping"),
            ("GET", "/lookup?topic=t"),
            ("HEAD", "/lookup?topic=t"),
            ("GET", "/lookup?topic=none"),
            ("GET", "/nodes"),
            ("POST", "/topic/create?topic=u"),
            ("GET", "/topics"),
            ("POST", "/topic/delete?topic=u"),
            ("DELETE", "/ping"),
            ("GET", "/nowhere"),
        ] {
            let responses = [&mut plain as &mut dyn Both, &mut within].map(|mut stream| {
                stream.write_all(request(method, target).as_bytes()).expect("the server reads");
                let head_only = method == "HEAD";
                without_date(&if head_only { read_head(&mut stream) } else { read_answer(&mut stream) })
            });
            assert_eq!(responses[0], responses[1], "{method} {target}");
        }
        assert_eq!(within.conn.protocol_version(), Some(version.version));
    }
}

trait Both: Read + Write {}

impl<T: Read + Write> Both for T {}

fn read_head(stream: &mut impl Read) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).expect("a head");
        head.push(byte[0]);
    }
    String::from_utf8(head).expect("text")
}

fn nsqd_registers_within_tls(backend: Backend) {
    let authority = Authority::new();
    let started = TlsServer::start(&authority.certify("server"), &[&flag(backend)]);
    let mut nsqd = tls(started.tcp_tls, &config(&authority));
    nsqd.write_all(&[&b"  V1"[..], &identify("node", 1)].concat()).expect("the server reads");
    let mut length = [0; 4];
    nsqd.read_exact(&mut length).expect("a response");
    let mut response = vec![0; u32::from_be_bytes(length) as usize];
    nsqd.read_exact(&mut response).expect("a response");
    for command in ["REGISTER t c\n", "PING\n"] {
        nsqd.write_all(command.as_bytes()).expect("the server reads");
        let mut response = [0; 6];
        nsqd.read_exact(&mut response).expect("a response");
        assert_eq!(response, OK, "{command}");
    }
    assert!(get(&mut connect(started.server.http), "/lookup?topic=t").contains("\"node\""));
    nsqd.write_all(b"NONSENSE\n").expect("the server reads");
    let mut rest = Vec::new();
    nsqd.read_to_end(&mut rest).expect("an error, and an end that TLS knows of");
    assert_eq!(rest, framed("E_INVALID invalid command NONSENSE"));
}

/// Larger than a page, than a record, and than what rustls and the socket hold.
fn large_documents_are_whole(backend: Backend) {
    let authority = Authority::new();
    let started = TlsServer::start(&authority.certify("server"), &[&flag(backend)]);
    let mut producer = Nsqd::identified(started.server.tcp, "node", 50_000);
    for topic in 0..20 {
        producer.register(&format!("t{topic}"));
    }
    for (target, least) in
        [("/nodes", 50_000), ("/lookup?topic=t1", 50_000), ("/debug", 1_000_000), ("/nodes", 50_000)]
    {
        let request = format!("GET {target} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
        let (mut plain, mut within) = (connect(started.server.http), tls(started.https, &config(&authority)));
        let [expected, found] = [&mut plain as &mut dyn Both, &mut within].map(|stream| {
            stream.write_all(request.as_bytes()).expect("the server reads");
            let mut response = Vec::new();
            stream.read_to_end(&mut response).expect("an end in order");
            content(&response).1.len()
        });
        assert!(expected >= least && found == expected, "{target}: {found} of {expected} bytes");
    }
}

fn requests_may_come_in_any_pieces(backend: Backend) {
    let authority = Authority::new();
    let started = TlsServer::start(&authority.certify("server"), &[&flag(backend)]);
    let mut stream = tls(started.https, &config(&authority));
    // A record for each byte.
    for byte in request("GET", "/ping").as_bytes() {
        stream.write_all(&[*byte]).expect("the server reads");
        stream.flush().expect("the server reads");
    }
    assert!(read_answer(&mut stream).ends_with("OK"));
    // Many requests in one record, and more than a record holds.
    let many = request("GET", "/ping").repeat(1000);
    stream.write_all(many.as_bytes()).expect("the server reads");
    for _ in 0..1000 {
        assert!(read_answer(&mut stream).ends_with("OK"));
    }
    // What is encrypted may arrive in any pieces, too.
    let mut slow = tls(started.https, &config(&authority));
    let hello = {
        let mut bytes = Vec::new();
        slow.conn.write_tls(&mut bytes).expect("a Vec takes every write");
        bytes
    };
    for byte in hello {
        slow.sock.write_all(&[byte]).expect("the server reads");
    }
    assert!(get(&mut slow, "/ping").ends_with("OK"));
}

fn a_session_is_resumed_by_any_worker(backend: Backend) {
    let authority = Authority::new();
    let started = TlsServer::start(&authority.certify("server"), &["-workers=4", &flag(backend)]);
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let config = config_of(&authority, version);
        let mut kinds = Vec::new();
        for _ in 0..16 {
            let mut stream = tls(started.https, &config);
            assert!(get(&mut stream, "/ping").ends_with("OK"));
            kinds.push(stream.conn.handshake_kind());
        }
        assert_eq!(kinds[0], Some(HandshakeKind::Full));
        assert!(kinds[1..].iter().all(|kind| *kind == Some(HandshakeKind::Resumed)), "{version:?}: {kinds:?}");
    }
}

/// A client that says `close_notify` behind its request, as one that sends FIN.
fn a_request_with_its_end_gets_its_response(backend: Backend) {
    let authority = Authority::new();
    let started = TlsServer::start(&authority.certify("server"), &[&flag(backend)]);
    let mut stream = tls(started.https, &config(&authority));
    assert!(get(&mut stream, "/ping").ends_with("OK"));
    stream.write_all(request("GET", "/topics").as_bytes()).expect("the server reads");
    stream.conn.send_close_notify();
    let mut rest = String::new();
    stream.read_to_string(&mut rest).expect("an end that TLS knows of");
    assert!(rest.ends_with("{\"topics\":[]}"), "{rest}");
}

fn a_server_that_stops_ends_tls_in_order(backend: Backend) {
    let authority = Authority::new();
    let started = TlsServer::start(&authority.certify("server"), &[&flag(backend)]);
    let mut stream = tls(started.https, &config(&authority));
    let closing = "GET /ping HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n";
    assert!(exchange(&mut stream, closing).expect("a response").ends_with("OK"));
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).expect("an end that TLS knows of");
    assert!(rest.is_empty());
    let _idle = tls(started.https, &config(&authority));
    assert!(started.server.stop().success());
}
