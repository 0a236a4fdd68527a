//! Attacks within TLS, and on its handshake. A client that is served within TLS stands beside the well-behaved, who have the
//! plain ports of the same worker.

use std::env;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::thread;

use rustix::process::Signal;
use rustls::pki_types::ServerName;
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, ClientConnection, HandshakeKind};

use crate::beside::{Driver, Scene};
use crate::certificates::Authority;
use crate::client::{Stream, TlsServer, config, config_of, tls};
use crate::peers::{pour, trickle, wait_until};
use crate::support::clients::http::{read_answer, request};
use crate::support::clients::{connect, get, reset, uninterrupted};

/// Connections whose handshake does not end; `RINGLOOKUPD_HALF_OPEN` sets another number.
const HALF_OPEN: usize = 1000;

/// The largest that a record may be (RFC 8446, 5.1).
const RECORD_MAX: usize = 1 << 14;

const HANDSHAKE: u8 = 22;
const APPLICATION_DATA: u8 = 23;
const ALERT: u8 = 21;

/// A server under attack, and what its clients trust.
struct Target {
    authority: Authority,
    https: SocketAddr,
    tcp_tls: SocketAddr,
}

impl Target {
    fn client(&self) -> Stream {
        tls(self.https, &config(&self.authority))
    }

    /// What a client of the authority says first.
    fn hello(&self) -> Vec<u8> {
        let name = ServerName::try_from("localhost").expect("a name");
        let mut client = ClientConnection::new(config(&self.authority), name).expect("a configuration");
        let mut hello = Vec::new();
        client.write_tls(&mut hello).expect("a Vec takes every write");
        hello
    }
}

/// An attack on a server with TLS. What it returns is held until the server has ended.
fn beside<T>(driver: Driver, attack: impl FnOnce(&Scene, &Target) -> T) {
    let authority = Authority::new();
    let flags: Vec<_> = driver.flags().collect();
    let TlsServer { server, tcp_tls, https } = TlsServer::start(&authority.certify("server"), &flags);
    let target = Target { authority, https, tcp_tls };
    Driver::beside_on(server, |scene| {
        let mut bystander = target.client();
        assert!(get(&mut bystander, "/ping").ends_with("OK"));
        let held = attack(scene, &target);
        assert!(get(&mut bystander, "/ping").ends_with("OK"));
        assert!(get(&mut target.client(), "/ping").ends_with("OK"));
        held
    });
}

/// Repeats what connects and leaves: nothing of it is kept.
fn again_and_again(scene: &Scene, attack: impl Fn()) {
    let before = scene.observed().descriptors();
    let peak = || {
        attack();
        wait_until("all are closed", || scene.observed().descriptors() == before);
        scene.observed().peak_resident()
    };
    let once = peak();
    let often = (0..3).map(|_| peak()).max().expect("three");
    assert!(often < once * 3 / 2 || cfg!(sanitized), "{once} bytes at first, {often} later");
}

/// Thousands of connections at the three places where a client can stop: nothing, half of its hello, all of it.
pub fn unfinished_handshakes(driver: Driver) {
    let count = env::var("RINGLOOKUPD_HALF_OPEN").map_or(HALF_OPEN, |count| count.parse().expect("a number"));
    beside(driver, |scene, target| {
        let hello = target.hello();
        let open = || {
            let stream = |nth: usize| {
                let mut stream = connect([target.https, target.tcp_tls][nth % 2]);
                // It may have been ended for its slowness by then.
                let _ = stream.write_all(&hello[..[0, hello.len() / 2, hello.len()][nth % 3]]);
                stream
            };
            (0..count).map(stream).collect::<Vec<_>>()
        };
        again_and_again(scene, || {
            let all = open();
            scene.answered(100);
            all.into_iter().for_each(reset);
        });
        open()
    });
}

/// Handshakes without end: each is finished, and the client leaves.
pub fn flood_of_handshakes(driver: Driver) {
    const THREADS: usize = 4;
    const HANDSHAKES: usize = 100;
    beside(driver, |scene, target| {
        let configs = [&TLS12, &TLS13].map(|version| config_of(&target.authority, version));
        again_and_again(scene, || {
            thread::scope(|scope| {
                for nth in 0..THREADS {
                    let config = &configs[nth % 2];
                    scope.spawn(move || (0..HANDSHAKES).for_each(|_| reset(shaken(target, config))));
                }
            });
        });
    });
}

/// A connection whose handshake is over.
fn shaken(target: &Target, config: &Arc<ClientConfig>) -> TcpStream {
    let mut stream = tls(target.https, config);
    while stream.conn.is_handshaking() {
        stream.conn.complete_io(&mut stream.sock).expect("the server shakes hands");
    }
    stream.sock
}

/// Many sessions are resumed at once, and with the end of each handshake comes a request, to which no message of the
/// server's handshake is still to be sent: each is answered. The server is stopped while all of it is sent.
pub fn burst_of_resumptions(driver: Driver) {
    beside(driver, |scene, target| {
        let config = config_of(&target.authority, &TLS12);
        assert!(get(&mut tls(target.https, &config), "/ping").ends_with("OK"));
        let mut clients: Vec<_> = (0..100).map(|_| resumed(target, &config)).collect();
        scene.server.signal(Signal::STOP);
        for client in &mut clients {
            let request = request("GET", "/lookup?topic=steady");
            client.conn.writer().write_all(request.as_bytes()).expect("it is kept until it can be sent");
            let mut bytes = Vec::new();
            while client.conn.wants_write() {
                client.conn.write_tls(&mut bytes).expect("a Vec takes every write");
            }
            client.sock.write_all(&bytes).expect("the sockets hold it");
        }
        scene.server.signal(Signal::CONT);
        for client in &mut clients {
            assert!(read_answer(client).starts_with("HTTP/1.1 200 OK\r\n"));
        }
        clients
    });
}

/// A client that has read the server's part of the handshake, and sends the end of its own with its first request.
fn resumed(target: &Target, config: &Arc<ClientConfig>) -> Stream {
    let mut stream = tls(target.https, config);
    stream.conn.write_tls(&mut stream.sock).expect("the server reads");
    while stream.conn.is_handshaking() {
        stream.conn.read_tls(&mut stream.sock).expect("the server shakes hands");
        stream.conn.process_new_packets().expect("the server shakes hands");
    }
    assert_eq!(stream.conn.handshake_kind(), Some(HandshakeKind::Resumed));
    stream
}

pub fn hello_byte_by_byte(driver: Driver) {
    beside(driver, |scene, target| {
        let mut streams = trickle(target.https, &target.hello(), 50);
        for stream in &mut streams {
            let mut first = [0];
            stream.read_exact(&mut first).expect("the server shakes hands");
            assert_eq!(first, [HANDSHAKE]);
        }
        scene.stayed_below(48);
        streams
    });
}

/// A handshake message that goes on for ever, in records as large as they may be.
pub fn endless_hello(driver: Driver) {
    beside(driver, |scene, target| {
        // A hello that will be 16 MiB.
        let begin = [&record(HANDSHAKE, &[1, 0xff, 0xff, 0xff])[..], &record(HANDSHAKE, &[3, 3])].concat();
        for piece in [record(HANDSHAKE, &[0; RECORD_MAX]), record(HANDSHAKE, &[0; 1]), record(HANDSHAKE, &[])] {
            let said = pour(target.https, &begin, &piece, 16_384);
            assert_eq!(said.first(), Some(&ALERT), "{said:?}");
        }
        scene.stayed_below(48);
    });
}

fn record(kind: u8, content: &[u8]) -> Vec<u8> {
    let length = u16::try_from(content.len()).expect("as long as a record may be");
    [&[kind, 3, 3], &length.to_be_bytes()[..], content].concat()
}

/// A request without end in records as large as they may be is refused; one in the smallest that there are is served.
pub fn endless_records(driver: Driver) {
    const BEGIN: &[u8] = b"GET /lookup?topic=steady HTTP/1.1\r\nHost: h\r\nX: ";
    const SMALL: usize = 10_000;
    beside(driver, |scene, target| {
        let mut stream = target.client();
        stream.write_all(BEGIN).expect("the server reads");
        let mut reading = stream.sock.try_clone().expect("a descriptor");
        let endless = vec![b'x'; RECORD_MAX];
        let end = thread::scope(|scope| {
            let reader = scope.spawn(move || {
                let end = read_to_end_or_reset(&mut reading);
                let _ = reading.shutdown(Shutdown::Both);
                end
            });
            while stream.write_all(&endless).and_then(|()| stream.flush()).is_ok() {}
            reader.join().expect("it does not panic")
        });
        end.expect("a head without end is refused");

        let mut stream = target.client();
        stream.write_all(BEGIN).expect("the server reads");
        for _ in 0..SMALL {
            stream.write_all(b"x").and_then(|()| stream.flush()).expect("the server reads");
        }
        stream.write_all(b"\r\n\r\n").expect("the server reads");
        let answer = read_answer(&mut stream);
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        scene.stayed_below(48);
    });
}

/// Early data is offered to a server that takes none (RFC 8446, 4.2.10), and sent without end.
pub fn early_data(driver: Driver) {
    beside(driver, |scene, target| {
        let hello = with_extension(&target.hello(), &[0, 42, 0, 0]);
        let said = pour(target.https, &hello, &record(APPLICATION_DATA, &[0; RECORD_MAX]), 16_384);
        assert_eq!(said.first(), Some(&HANDSHAKE), "the handshake goes on without early data");
        scene.stayed_below(48);
    });
}

/// A hello with one more extension before the others.
fn with_extension(hello: &[u8], extension: &[u8]) -> Vec<u8> {
    let mut longer = hello.to_vec();
    // After the headers of record and message, version and random, come three lists: session, suites, compression.
    let mut at = 5 + 4 + 2 + 32;
    at += 1 + usize::from(hello[at]);
    at += 2 + usize::from(u16::from_be_bytes([hello[at], hello[at + 1]]));
    at += 1 + usize::from(hello[at]);
    longer.splice(at + 2..at + 2, extension.iter().copied());
    // The record, the message and the extensions are longer.
    for field in [3, 7, at] {
        let length = u16::from_be_bytes([longer[field], longer[field + 1]])
            + u16::try_from(extension.len()).expect("short");
        longer[field..field + 2].copy_from_slice(&length.to_be_bytes());
    }
    longer
}

/// Another handshake is begun in each session, of every version.
pub fn renegotiation(driver: Driver) {
    beside(driver, |scene, target| {
        let configs = [&TLS12, &TLS13].map(|version| config_of(&target.authority, version));
        let hello = target.hello();
        again_and_again(scene, || {
            for config in configs.iter().cycle().take(100) {
                let mut stream = shaken(target, config);
                stream.write_all(&hello).expect("the server reads");
                let end = read_to_end_or_reset(&mut stream);
                assert!(end.is_ok(), "{end:?}");
            }
        });
    });
}

/// Bytes until the server has ended the connection.
fn read_to_end_or_reset(stream: &mut TcpStream) -> Result<Vec<u8>, std::io::Error> {
    let mut all = Vec::new();
    match uninterrupted(|| stream.read_to_end(&mut all)) {
        Err(error) if error.kind() != ErrorKind::ConnectionReset => Err(error),
        _ => Ok(all),
    }
}
