//! Signals: two stop the server, those that a Go program takes and ignores are ignored, whatever mask the parent left.

use std::process::Command;
use std::thread;
use std::time::Instant;

use nix::sys::signal::SigSet;
use ringlookupd::io::Backend;
use rustix::process::Signal;

use crate::PROGRAM;
use crate::both_drivers::flag;
use crate::support::clients::{Nsqd, OK, connect, get};
use crate::support::{DEFAULTS, PATIENCE, Server};

on_both_drivers!(signals_without_a_meaning_are_ignored);

/// Sent by the shell, which knows the real-time signals too.
fn send(server: &Server, signals: impl IntoIterator<Item = i32>) {
    let pid = server.pid().as_raw_pid();
    let kills: Vec<_> = signals.into_iter().map(|signal| format!("kill -{signal} {pid}")).collect();
    assert!(Command::new("sh").args(["-c", &kills.join(" && ")]).status().expect("a shell").success());
}

/// Whether each signal that was sent has reached the process.
fn nothing_is_pending(server: &Server) -> bool {
    let path = format!("/proc/{}/status", server.pid().as_raw_pid());
    let status = std::fs::read_to_string(path).expect("it runs");
    let masks = status.lines().filter_map(|line| line.split_once("Pnd:\t"));
    masks.map(|(_, mask)| u64::from_str_radix(mask, 16).expect("a mask")).all(|mask| mask == 0)
}

fn signals_without_a_meaning_are_ignored(backend: Backend) {
    let server = Server::start(&["-workers=2", &flag(backend)]);
    let mut nsqd = Nsqd::identified(server.tcp, "node", 1);
    nsqd.register("t");
    let named = [
        libc::SIGUSR1,
        libc::SIGALRM,
        libc::SIGVTALRM,
        libc::SIGPROF,
        libc::SIGIO,
        libc::SIGXCPU,
        libc::SIGXFSZ,
        libc::SIGPWR,
        libc::SIGPIPE,
        libc::SIGCHLD,
        libc::SIGURG,
        libc::SIGWINCH,
        libc::SIGCONT,
    ];
    let real_time = libc::SIGRTMIN()..=libc::SIGRTMAX();
    for _ in 0..3 {
        send(&server, named.into_iter().chain(real_time.clone()));
        assert_eq!(nsqd.ask(b"PING\n"), OK[4..]);
    }
    let begun = Instant::now();
    while !nothing_is_pending(&server) {
        assert!(begun.elapsed() < PATIENCE, "a signal is pending");
        thread::yield_now();
    }
    assert_eq!(nsqd.ask(b"PING\n"), OK[4..]);
    assert!(get(&mut connect(server.http), "/lookup?topic=t").contains("node"));
    assert!(server.stop().success());
}

/// A crash stays one: its core dump shows where.
#[test]
fn signals_of_a_crash_end_it() {
    for signal in [Signal::QUIT, Signal::ABORT] {
        // A shell's background jobs ignore SIGQUIT, and so would the server.
        let mut command = Command::new("env");
        command.args(["--default-signal=QUIT", PROGRAM]).args(DEFAULTS);
        let mut server = Server::start_command(&mut command);
        server.signal(signal);
        let status = server.wait_for_exit(PATIENCE).expect("it ends");
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(signal.as_raw()));
    }
}

/// As some supervisors and shells leave it to their children.
#[test]
fn a_parent_that_blocked_all_signals() {
    for signal in [Signal::TERM, Signal::INT] {
        let start = || {
            // For this thread and what it starts.
            SigSet::all().thread_block().expect("a thread may");
            Server::start(&["-workers=2"])
        };
        let mut server = thread::scope(|scope| scope.spawn(start).join().expect("it starts"));
        server.signal(signal);
        assert!(server.wait_for_exit(PATIENCE).is_some_and(|status| status.success()), "{}", server.log());
    }
}
