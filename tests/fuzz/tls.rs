//! The bodies of TLS: bytes that are no client's, and a client whose bytes are changed on their way.

use std::io::{Read, Write};
use std::sync::{Arc, LazyLock};

use rcgen::{CertificateParams, KeyPair};
use ringlookupd::listen::Protocol;
use ringlookupd::transport::{Kind, TlsConfigs, TlsOptions, Transport};
use rustls::crypto::ring;
use rustls::pki_types::ServerName;
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, ClientConnection, RootCertStore};

use super::{connected, take};

/// An alert is a record of this kind (RFC 8446, 5.1), with a content of two bytes.
const ALERT: u8 = 21;
const ALERT_LEN: usize = 7;

/// What a response and the server's part of a handshake stay below.
const SAID_MAX: usize = 16 << 10;

const REQUEST: &[u8] = b"GET /ping HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n";

/// A server's configuration, and one of its clients for each version.
struct Both {
    server: Kind,
    clients: [Arc<ClientConfig>; 2],
}

static BOTH: LazyLock<Both> = LazyLock::new(|| {
    let key = KeyPair::generate().expect("a key");
    let params = CertificateParams::new(["localhost".to_owned()]).expect("a name");
    let certificate = params.self_signed(&key).expect("a certificate");
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name);
    std::fs::write(path("cert"), certificate.pem()).expect("a file");
    std::fs::write(path("key"), key.serialize_pem()).expect("a file");
    let [cert, key] = ["cert", "key"].map(|name| path(name).display().to_string());
    let configs = TlsConfigs::load(&TlsOptions { cert, key, ..TlsOptions::default() }).expect("they fit");
    let mut roots = RootCertStore::empty();
    roots.add(certificate.der().clone()).expect("a certificate");
    let clients = [&TLS12, &TLS13].map(|version| {
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
        let builder = builder.with_protocol_versions(&[version]).expect("a version");
        let mut config = builder.with_root_certificates(roots.clone()).with_no_client_auth();
        // Each handshake is a whole one.
        config.resumption = rustls::client::Resumption::disabled();
        Arc::new(config)
    });
    Both { server: configs.kind(Protocol::Http), clients }
});

/// What arrives at the port of HTTPS: the first byte says how the rest is cut.
pub fn tls(data: &[u8]) {
    let Some((&cut, input)) = data.split_first() else { return };
    let whole = said_to(&[input]);
    let pieces: Vec<_> = input.chunks(usize::from(cut) + 1).collect();
    let cut = said_to(&pieces);
    assert!(whole.len() <= SAID_MAX && cut.len() <= SAID_MAX, "{} and {} bytes", whole.len(), cut.len());
    // What is not TLS is answered as plain HTTP is; a hello that is one is answered with random numbers.
    if whole.first() == Some(&ALERT) {
        assert_eq!(cut, whole, "another alert, cut: {}", input.escape_ascii());
        assert_eq!(whole.len(), ALERT_LEN);
    }
}

fn said_to(pieces: &[&[u8]]) -> Vec<u8> {
    let (mut connection, mut context) = connected(Protocol::Http, Transport::new(&BOTH.server));
    let mut said = Vec::new();
    for piece in pieces {
        take(&mut connection, piece, &mut context, &mut said);
    }
    said
}

/// A client of rustls asks for `/ping`, and its bytes are changed on their way: the first byte of `data` chooses the version,
/// the second how they are cut, and each three behind them a place and what is done there. Keys are random, so a finding is
/// not the same again byte by byte.
pub fn tls_handshake(data: &[u8]) {
    let [version, cut, changes @ ..] = data else { return };
    let config = &BOTH.clients[usize::from(version % 2)];
    let name = ServerName::try_from("localhost").expect("a name");
    let mut client = ClientConnection::new(Arc::clone(config), name).expect("a configuration");
    client.writer().write_all(REQUEST).expect("it is kept until it can be sent");
    let (mut connection, mut context) = connected(Protocol::Http, Transport::new(&BOTH.server));
    let (mut sent, mut received, mut plain) = (0, 0, Vec::new());
    let mut is_changed = false;
    loop {
        let mut bytes = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut bytes).expect("a Vec takes every write");
        }
        let before = bytes.clone();
        let begin = sent;
        sent += bytes.len();
        for change in changes.chunks_exact(3).take(8) {
            apply(change, begin, &mut bytes);
        }
        is_changed |= bytes != before;
        let mut said = Vec::new();
        for piece in bytes.chunks(usize::from(*cut) + 1) {
            take(&mut connection, piece, &mut context, &mut said);
        }
        received += said.len();
        assert!(received <= SAID_MAX, "{received} bytes");
        if said.is_empty() || !heard(&mut client, &said, &mut plain) {
            break;
        }
    }
    let response = plain.is_empty() || plain.starts_with(b"HTTP/1.1 200 OK\r\n") && plain.ends_with(b"\r\n\r\nOK");
    assert!(response, "{}", plain.escape_ascii());
    assert!(is_changed || !plain.is_empty(), "no response to a client whose bytes arrived");
}

/// Changes one byte of those that begin at `begin`: flips bits of it, drops it, or repeats it.
fn apply(change: &[u8], begin: usize, bytes: &mut Vec<u8>) {
    let place = usize::from(u16::from_be_bytes([change[0], change[1]]) % 1024);
    let Some(at) = place.checked_sub(begin).filter(|&at| at < bytes.len()) else { return };
    match change[2] {
        0 => drop(bytes.remove(at)),
        255 => bytes.insert(at, bytes[at]),
        bits => bytes[at] ^= bits,
    }
}

/// Lets the client hear what was said; false when it will hear no more.
fn heard(client: &mut ClientConnection, mut said: &[u8], plain: &mut Vec<u8>) -> bool {
    while !said.is_empty() {
        if !matches!(client.read_tls(&mut said), Ok(1..)) || client.process_new_packets().is_err() {
            return false;
        }
        // An end of its input is not the end of TLS.
        let _ = client.reader().read_to_end(plain);
    }
    true
}
