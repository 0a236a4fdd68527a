//! A server that cannot start says why in one line, and exits with 1.

use std::net::TcpListener;
use std::process::{Command, Output, Stdio};
use std::thread;

use crate::PROGRAM;
use crate::support::{DEFAULTS, Server};

pub fn run(flags: &[&str]) -> Output {
    Command::new(PROGRAM).args(DEFAULTS).args(flags).stdin(Stdio::null()).output().expect("it starts")
}

/// The one line about the refusal, after those with the versions.
pub fn refusal(output: &Output) -> String {
    let log = String::from_utf8(output.stderr.clone()).expect("UTF-8");
    assert_eq!(output.status.code(), Some(1), "{log}");
    let lines: Vec<_> = log.lines().collect();
    let [stocks, own, refusal] = lines[..] else { panic!("three lines, not {log}") };
    assert!(stocks.contains("INFO: nsqlookupd v") && own.contains("INFO: ringlookupd "), "{log}");
    let (_, text) = refusal.split_once(" FATAL: failed to instantiate nsqlookupd - ").expect("stock's words");
    text.to_owned()
}

#[test]
fn a_port_that_is_taken() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("loopback");
    let address = taken.local_addr().expect("it is bound");
    // At once, because each tries for a second.
    thread::scope(|scope| {
        for port in ["tcp", "http"] {
            for workers in ["-workers=1", "-workers=2"] {
                scope.spawn(move || {
                    let line = refusal(&run(&[workers, &format!("-{port}-address={address}")]));
                    let listen = format!("listen ({address}) failed - listen tcp {address}");
                    assert_eq!(line, format!("{listen}: bind: address already in use"));
                });
            }
        }
    });
}

/// Several workers share a port among themselves, and with nobody else.
#[test]
fn a_port_that_another_server_has() {
    let other = Server::start(&["-workers=2"]);
    let output = run(&["-workers=2", &format!("-tcp-address={}", other.tcp)]);
    assert!(refusal(&output).ends_with("bind: address already in use"));
}

#[test]
fn an_address_of_another_machine() {
    // TEST-NET-1 (RFC 5737)
    let output = run(&["-tcp-address=192.0.2.1:4160"]);
    assert_eq!(
        refusal(&output),
        "listen (192.0.2.1:4160) failed - listen tcp 192.0.2.1:4160: bind: cannot assign requested address"
    );
}
