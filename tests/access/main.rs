//! Access control: who may do what, by address and by token, what refused clients get, and what is counted and logged.

#[path = "../support/mod.rs"]
mod support;

#[path = "../support/token_file.rs"]
mod token_file;

#[path = "../tls/certificates.rs"]
#[allow(dead_code, reason = "a part is for the tests of TLS")]
mod certificates;

#[path = "../tls/client.rs"]
#[allow(dead_code, reason = "a part is for the tests of TLS")]
mod client;

mod audit;
mod headers;
mod reload;
mod table;
mod tcp;

use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};
use support::clients::http::{exchange, split};
use support::{PATIENCE, Server};
use token_file::token_file;

/// One token and one certificate for each role.
const TOKENS: &str = "reader read read-s3cret\nadmin admin admin-s3cret\n\
    reader read cert:reader.example\nadmin admin cert:admin.example\n";

/// A connection from another address of this machine.
fn connect_from(from: [u8; 4], to: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    socket.bind(&SocketAddr::from((Ipv4Addr::from(from), 0)).into()).expect("every 127.x.y.z is this machine's");
    socket.connect(&to.into()).expect("the server listens");
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
    stream
}

/// A request with more headers, each with its line's end.
fn request(method: &str, target: &str, headers: &str) -> String {
    format!("{method} {target} HTTP/1.1\r\nHost: h\r\n{headers}\r\n")
}

fn bearer(token: &str) -> String {
    format!("Authorization: Bearer {token}\r\n")
}

/// Status and body of the response on a connection that stays open.
fn ask(stream: &mut TcpStream, request: &str) -> (u16, String) {
    let response = exchange(stream, request).expect("a response");
    let (head, body) = split(response.as_bytes());
    let head = str::from_utf8(head).expect("UTF-8");
    assert!(!head.contains("Connection: close"), "{request}: {head}");
    (head["HTTP/1.1 ".len()..][..3].parse().expect("a status"), String::from_utf8_lossy(body).into_owned())
}

fn status(stream: &mut TcpStream, method: &str, target: &str, token: &str) -> u16 {
    let header = if token.is_empty() { String::new() } else { bearer(token) };
    ask(stream, &request(method, target, &header)).0
}

/// The figures of refusals, as a client at this address reads them: by address, without a token, with an unknown one,
/// and with one that may not.
fn denied(server: &Server, from: [u8; 4], token: &str) -> [u64; 4] {
    let (_, metrics) = ask(&mut connect_from(from, server.http), &request("GET", "/metrics", &bearer(token)));
    ["address", "no_token", "unknown_token", "forbidden"].map(|reason| {
        let series = format!("nsqlookupd_access_denied_total{{reason=\"{reason}\"}} ");
        let value = metrics.lines().find_map(|line| line.strip_prefix(&series)).expect("the metric");
        value.parse().expect("a number")
    })
}

/// Waits until something that happens elsewhere is so.
fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < PATIENCE, "{what}: not so");
        thread::sleep(Duration::from_millis(5));
    }
}
