//! Plain bytes at a TLS port, and TLS at a plain one: a clean end, and one warning that says which port is the right one.

use std::io::{Read, Write};

use ringlookupd::io::Backend;

use crate::both_drivers::flag;
use crate::certificates::Authority;
use crate::client::{TlsServer, config, tls};
use crate::support::clients::http::request;
use crate::support::clients::{connect, framed, read_to_end};

on_both_drivers!(each_is_told_apart);

fn each_is_told_apart(backend: Backend) {
    let authority = Authority::new();
    let started = TlsServer::start(&authority.certify("server"), &[&flag(backend)]);
    let TlsServer { server, tcp_tls, https } = &started;
    for _ in 0..3 {
        let mut plain = connect(*https);
        plain.write_all(request("GET", "/ping").as_bytes()).expect("the server reads");
        let response = read_to_end(&mut plain).expect("a FIN");
        let expected = "HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n";
        assert_eq!(String::from_utf8_lossy(&response), expected);
        let mut plain = connect(*tcp_tls);
        plain.write_all(b"  V1").expect("the server reads");
        assert_eq!(read_to_end(&mut plain).expect("a FIN"), framed("E_BAD_PROTOCOL"));
        for address in [server.http, server.tcp] {
            let mut within = tls(address, &config(&authority));
            let _ = within.write_all(b"GET");
            let mut rest = Vec::new();
            assert!(within.read_to_end(&mut rest).is_err(), "what comes is no TLS");
        }
    }
    for (speaks, wrong, right) in [
        ("HTTP", https, server.http),
        ("nsqd's protocol", tcp_tls, server.tcp),
        ("TLS", &server.http, *https),
        ("TLS", &server.tcp, *tcp_tls),
    ] {
        let warning = format!("speaks {speaks} to {wrong}: the right port is {right}");
        server.wait_for_log(&warning);
        assert_eq!(server.log().matches(&warning).count(), 1, "{}", server.log());
    }
}
