//! A server that cannot start says why in one line, and exits with 1.

use std::net::TcpListener;
use std::process::{Command, Output, Stdio};
use std::thread;

use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, TargetArch, apply_filter};

use crate::PROGRAM;
use crate::support::{DEFAULTS, Server};

fn run(flags: &[&str]) -> Output {
    Command::new(PROGRAM).args(DEFAULTS).args(flags).stdin(Stdio::null()).output().expect("it starts")
}

/// The one line about the refusal, after that with the version.
fn refusal(output: &Output) -> String {
    let log = String::from_utf8(output.stderr.clone()).expect("UTF-8");
    assert_eq!(output.status.code(), Some(1), "{log}");
    let lines: Vec<_> = log.lines().collect();
    let [version, refusal] = lines[..] else { panic!("two lines, not {log}") };
    assert!(version.contains("INFO: nsqlookupd v"), "{version}");
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

/// Runs the server where `io_uring_setup` fails with `errno`.
fn run_without_ring(errno: i32, flags: &'static [&str]) -> Output {
    let rules = [(libc::SYS_io_uring_setup, Vec::new())].into();
    let errno = SeccompAction::Errno(errno.unsigned_abs());
    let arch = TargetArch::try_from(std::env::consts::ARCH).expect("an architecture with seccomp");
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, errno, arch).expect("a filter");
    let program = BpfProgram::try_from(filter).expect("a short program");
    // A filter is its thread's and its thread's children's.
    let forbidden = thread::spawn(move || {
        apply_filter(&program).expect("a thread may restrict itself");
        run(flags)
    });
    forbidden.join().expect("no panic")
}

#[test]
fn io_uring_that_a_filter_forbids() {
    for flags in [&["-workers=1"], &["-workers=4"]] {
        let line = refusal(&run_without_ring(libc::EPERM, flags));
        let (why, advice) = line.split_once("): ").expect("why, and what to do");
        assert_eq!(why, "io_uring is not available (Operation not permitted (os error 1)");
        assert!(advice.contains("seccomp") && advice.contains("allow io_uring_setup"), "{advice}");
    }
}

#[test]
fn io_uring_that_the_kernel_does_not_have() {
    let line = refusal(&run_without_ring(libc::ENOSYS, &[]));
    let (why, advice) = line.split_once("): ").expect("why, and what to do");
    assert_eq!(why, "io_uring is not available (Function not implemented (os error 38)");
    assert!(advice.contains("CONFIG_IO_URING"), "{advice}");
}
