//! New certificates without a restart.

use std::fs;

use ringlookupd::io::Backend;
use rustix::process::Signal;

use crate::both_drivers::flag;
use crate::certificates::Authority;
use crate::client::{TlsServer, config, tls};
use crate::support::clients::get;

on_both_drivers!(certificates_are_read_again);

fn certificates_are_read_again(backend: Backend) {
    let authority = Authority::new();
    let (certified, next) = (authority.certify("server"), authority.certify("next"));
    let started = TlsServer::start(&certified, &[&flag(backend)]);
    // Without resumption, so that each handshake shows the certificate.
    let shown = || {
        let mut stream = tls(started.https, &config(&authority));
        assert!(get(&mut stream, "/ping").ends_with("OK"));
        stream.conn.peer_certificates().expect("a certificate")[0].clone()
    };
    let before = shown();
    let mut kept = tls(started.https, &config(&authority));
    assert!(get(&mut kept, "/ping").ends_with("OK"));
    // The new certificate with the old key does not fit: nothing changes.
    fs::copy(&next.cert, &certified.cert).expect("space");
    started.server.signal(Signal::HUP);
    started.server.wait_for_log("reload failed, the settings stay as they were - -tls-cert");
    assert_eq!(shown(), before);
    fs::copy(&next.key, &certified.key).expect("space");
    started.server.signal(Signal::HUP);
    started.server.wait_for_log("reloaded the settings");
    assert_ne!(shown(), before);
    assert!(get(&mut kept, "/ping").ends_with("OK"), "a connection that was there before stays");
}
