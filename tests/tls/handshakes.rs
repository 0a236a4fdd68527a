//! Handshakes that do not end, and those that cannot be served.

use std::io::{Read, Write};

use ringlookupd::io::Backend;
use rustls::version::{TLS12, TLS13};

use crate::both_drivers::flag;
use crate::certificates::Authority;
use crate::client::{TlsServer, config, config_of, tls};
use crate::support::clients::{connect, get, read_to_end};

on_both_drivers!(
    a_handshake_that_does_not_go_on_ends,
    old_versions_are_refused,
    what_is_no_tls_at_all_ends_the_connection_alone,
    renegotiation_and_oversized_records_are_refused,
);

/// The alert that ends TLS in order (RFC 8446, 6.1), in a record.
const CLOSE_NOTIFY: [u8; 7] = [21, 3, 3, 0, 2, 1, 0];

fn a_handshake_that_does_not_go_on_ends(backend: Backend) {
    let authority = Authority::new();
    let started = TlsServer::start(
        &authority.certify("server"),
        &["-handshake-timeout=300ms", "-log-level=debug", &flag(backend)],
    );
    let mut silent = connect(started.https);
    let mut half = tls(started.https, &config(&authority));
    let mut hello = Vec::new();
    half.conn.write_tls(&mut hello).expect("a Vec takes every write");
    half.sock.write_all(&hello[..hello.len() / 2]).expect("the server reads");
    let mut waiting = tls(started.https, &config(&authority));
    waiting.conn.write_tls(&mut waiting.sock).expect("the server reads");
    // One whose handshake is over is not concerned.
    let mut done = tls(started.https, &config(&authority));
    assert!(get(&mut done, "/ping").ends_with("OK"));
    for stream in [&mut silent, &mut half.sock] {
        assert_eq!(read_to_end(stream).expect("a FIN"), CLOSE_NOTIFY);
    }
    let answer = read_to_end(&mut waiting.sock).expect("a FIN");
    assert_eq!(answer.first(), Some(&22), "the server's part of the handshake");
    assert!(get(&mut done, "/ping").ends_with("OK"));
    started.server.wait_for_log("exceeded the limit -handshake-timeout");
}

fn old_versions_are_refused(backend: Backend) {
    let authority = Authority::new();
    let started = TlsServer::start(&authority.certify("server"), &["-tls-min-version=tls1.3", &flag(backend)]);
    let mut old = tls(started.https, &config_of(&authority, &TLS12));
    assert!(old.write_all(b"GET").and_then(|()| old.flush()).is_err());
    assert!(get(&mut tls(started.https, &config_of(&authority, &TLS13)), "/ping").ends_with("OK"));
    started.server.wait_for_log("failed the TLS handshake - ");
}

fn what_is_no_tls_at_all_ends_the_connection_alone(backend: Backend) {
    let authority = Authority::new();
    let started = TlsServer::start(&authority.certify("server"), &[&flag(backend)]);
    let mut bystander = tls(started.https, &config(&authority));
    assert!(get(&mut bystander, "/ping").ends_with("OK"));
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    for _ in 0..200 {
        let mut stream = connect(started.https);
        // It begins as TLS does.
        let mut bytes = vec![22, 3, random.u8(0..5), random.u8(0..80), random.u8(..)];
        bytes.extend((0..random.usize(..3000)).map(|_| random.u8(..)));
        let _ = stream.write_all(&bytes);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let mut rest = Vec::new();
        // An alert, a FIN, or a reset where the server did not read all.
        let _ = stream.read_to_end(&mut rest);
        assert!(rest.is_empty() || rest[0] == 21, "{rest:?}");
    }
    assert!(get(&mut bystander, "/ping").ends_with("OK"));
}

fn renegotiation_and_oversized_records_are_refused(backend: Backend) {
    let authority = Authority::new();
    let started = TlsServer::start(&authority.certify("server"), &[&flag(backend)]);
    // A record that says it is longer than any may be (RFC 8446, 5.1).
    let mut stream = tls(started.https, &config(&authority));
    assert!(get(&mut stream, "/ping").ends_with("OK"));
    stream.sock.write_all(&[23, 3, 3, 0xff, 0xff]).expect("the server reads");
    let mut rest = Vec::new();
    assert!(stream.read_to_end(&mut rest).is_err(), "an alert");
    // A handshake in plain within the connection: what asked for another one before TLS 1.3.
    let mut stream = tls(started.https, &config_of(&authority, &TLS12));
    assert!(get(&mut stream, "/ping").ends_with("OK"));
    stream.sock.write_all(&[22, 3, 3, 0, 4, 1, 0, 0, 0]).expect("the server reads");
    assert!(stream.read_to_end(&mut rest).is_err(), "an alert");
    assert!(get(&mut tls(started.https, &config(&authority)), "/ping").ends_with("OK"));
}
