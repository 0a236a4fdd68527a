//! Where io_uring is missing or forbidden, the server says why and what to change, and serves with epoll unless it is
//! told not to.

use std::fs;
use std::thread;

use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, TargetArch, apply_filter};

use crate::refusals::{refusal, run};
use crate::support::Server;
use crate::support::clients::{Nsqd, connect, get};

/// Does something where a system call fails with `errno`.
fn without<T: Send>(call: i64, errno: i32, act: impl FnOnce() -> T + Send) -> T {
    let rules = [(call, Vec::new())].into();
    let errno = SeccompAction::Errno(errno.unsigned_abs());
    let arch = TargetArch::try_from(std::env::consts::ARCH).expect("an architecture with seccomp");
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, errno, arch).expect("a filter");
    let program = BpfProgram::try_from(filter).expect("a short program");
    // A filter is its thread's and its thread's children's.
    let restricted = || {
        apply_filter(&program).expect("a thread may restrict itself");
        act()
    };
    thread::scope(|scope| scope.spawn(restricted).join().expect("no panic"))
}

/// The system calls that a ring needs.
const CALLS: [(&str, i64); 3] = [
    ("io_uring_setup", libc::SYS_io_uring_setup),
    ("io_uring_register", libc::SYS_io_uring_register),
    ("io_uring_enter", libc::SYS_io_uring_enter),
];

/// It serves, and has said once why not with io_uring, in one line, which is returned.
fn falls_back(server: Server) -> String {
    let mut nsqd = Nsqd::identified(server.tcp, "node", 1);
    nsqd.register("t");
    assert!(get(&mut connect(server.http), "/lookup?topic=t").contains("node"));
    let log = server.log();
    let warnings: Vec<_> = log.lines().filter(|line| line.contains(" WARNING: ")).collect();
    let [warning] = warnings[..] else { panic!("one warning, not {log}") };
    assert!(warning.contains("io_uring is not available (") && warning.contains("epoll serves"), "{warning}");
    let warning = warning.to_owned();
    assert!(server.stop().success());
    warning
}

/// A sandbox may forbid one call and allow the others.
#[test]
fn io_uring_that_a_filter_forbids() {
    for (name, call) in CALLS {
        for workers in ["-workers=1", "-workers=4"] {
            let line = refusal(&without(call, libc::EPERM, || run(&["-io=uring", workers])));
            let (why, advice) = line.split_once("): ").expect("why, and what to do");
            assert_eq!(why, format!("io_uring is not available ({name}: Operation not permitted (os error 1)"));
            assert!(advice.contains("seccomp") && advice.contains("allow io_uring_setup"), "{advice}");

            let warning = falls_back(without(call, libc::EPERM, || Server::start(&[workers])));
            assert!(warning.contains(name) && warning.contains("seccomp"), "{warning}");
        }
        falls_back(without(call, libc::EPERM, || Server::start(&["-busy-poll=10us"])));
    }
}

#[test]
fn io_uring_that_the_kernel_does_not_have() {
    for (name, call) in CALLS {
        let line = refusal(&without(call, libc::ENOSYS, || run(&["-io=uring"])));
        let (why, advice) = line.split_once("): ").expect("why, and what to do");
        assert_eq!(why, format!("io_uring is not available ({name}: Function not implemented (os error 38)"));
        assert!(advice.contains("CONFIG_IO_URING"), "{advice}");

        let warning = falls_back(without(call, libc::ENOSYS, || Server::start(&["-io=auto"])));
        assert!(warning.contains("CONFIG_IO_URING"), "{warning}");
    }
}

/// No memory for a ring (a container's limit) is no reason not to serve.
#[test]
fn io_uring_without_memory() {
    for (_, call) in CALLS {
        let warning = falls_back(without(call, libc::ENOMEM, || Server::start::<&str>(&[])));
        assert!(warning.contains("ulimit -l"), "{warning}");
    }
}

/// Epoll that was asked for is no reason to warn.
#[test]
fn io_uring_that_is_not_wanted() {
    let server = without(libc::SYS_io_uring_setup, libc::EPERM, || Server::start(&["-io=epoll"]));
    assert!(get(&mut connect(server.http), "/ping").ends_with("OK"));
    let log = server.log();
    assert!(!log.contains("io_uring") && log.contains(" INFO: backend epoll, "), "{log}");
    assert!(server.stop().success());
}

/// `kernel.io_uring_disabled`, set as long as this lives.
struct Disabled {
    before: String,
}

impl Disabled {
    const SYSCTL: &str = "/proc/sys/kernel/io_uring_disabled";

    fn set() -> Self {
        let before = fs::read_to_string(Self::SYSCTL).expect("Linux 6.6 or newer");
        fs::write(Self::SYSCTL, "2").expect("root may set it");
        Self { before }
    }
}

impl Drop for Disabled {
    fn drop(&mut self) {
        fs::write(Self::SYSCTL, &self.before).expect("root may set it");
    }
}

#[test]
#[ignore = "wants root, and forbids io_uring to the whole machine while it runs"]
fn io_uring_that_the_sysctl_forbids() {
    let _disabled = Disabled::set();
    assert!(refusal(&run(&["-io=uring"])).contains("set it to 0"));
    let warning = falls_back(Server::start::<&str>(&[]));
    assert!(warning.contains("kernel.io_uring_disabled is 2"), "{warning}");
}
