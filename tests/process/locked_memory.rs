//! A ring's memory counts against the user's limit of locked memory (`ulimit -l`). The server starts whatever the limit
//! is, and all its workers use one backend.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use ringlookupd::io::Backend;

use crate::PROGRAM;
use crate::both_drivers::missing;
use crate::refusals::refusal;
use crate::support::clients::{Nsqd, connect, get};
use crate::support::{DEFAULTS, Server};

/// A user without privileges, whom nothing else counts against.
struct User {
    id: u32,
    /// The program where this user can read it.
    program: PathBuf,
}

impl User {
    /// `None`, with the reason on standard error, where the tests cannot become another user.
    fn new() -> Option<Self> {
        static USERS: AtomicU32 = AtomicU32::new(0);
        if let Some(why) = missing(Backend::Uring) {
            eprintln!("skipped: {why}");
            return None;
        }
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: only root can start a server as another user");
            return None;
        }
        let id = 1_000_000_000 + std::process::id() * 16 + USERS.fetch_add(1, Relaxed);
        let program = std::env::temp_dir().join(format!("ringlookupd-{id}"));
        fs::copy(PROGRAM, &program).expect("a temporary directory");
        Some(Self { id, program })
    }

    /// The server's command under a limit of so many KiB.
    fn command(&self, kib: u32, flags: &[&str]) -> Command {
        let mut command = Command::new("sh");
        let script = format!("ulimit -l {kib} && exec setpriv --reuid={} --clear-groups \"$0\" \"$@\"", self.id);
        command.args(["-c", &script]).arg(&self.program).args(DEFAULTS).args(flags);
        command
    }

    fn start(&self, kib: u32, flags: &[&str]) -> Server {
        Server::start_command(&mut self.command(kib, flags))
    }
}

impl Drop for User {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.program);
    }
}

fn assert_serves(server: &Server, backend: &str) {
    let nsqds: Vec<_> = (0..50).map(|number| Nsqd::identified(server.tcp, &format!("node-{number}"), 1)).collect();
    let nodes = get(&mut connect(server.http), "/nodes");
    assert_eq!(nodes.matches("\"broadcast_address\"").count(), nsqds.len(), "{nodes}");
    let log = server.log();
    assert!(log.contains(&format!(" INFO: backend {backend}, ")), "{log}");
    let warnings: Vec<_> = log.lines().filter(|line| line.contains(" WARNING: ")).collect();
    match backend {
        "io_uring" => assert!(warnings.is_empty(), "{log}"),
        _ => assert!(warnings.len() == 1 && warnings[0].contains("(ulimit -l)"), "{log}"),
    }
}

/// Linux's default, in KiB.
const DEFAULT: u32 = 8192;

#[test]
fn sixty_four_workers_have_rings_under_the_default_limit() {
    let Some(user) = User::new() else { return };
    let server = user.start(DEFAULT, &["-workers=64"]);
    assert_serves(&server, "io_uring");
    assert!(server.stop().success());
}

#[test]
fn two_servers_of_one_user_have_rings_under_the_default_limit() {
    let Some(user) = User::new() else { return };
    let servers = [(); 2].map(|()| user.start(DEFAULT, &["-workers=28"]));
    for server in servers {
        assert_serves(&server, "io_uring");
        assert!(server.stop().success());
    }
}

#[test]
fn one_worker_has_a_ring_under_a_tight_limit() {
    for io in ["-io=auto", "-io=uring"] {
        let Some(user) = User::new() else { return };
        let server = user.start(256, &["-workers=1", io]);
        assert_serves(&server, "io_uring");
        assert!(server.stop().success());
    }
}

/// What the kernel takes back late does not keep the next server from starting.
#[test]
fn a_server_that_is_started_again_at_once() {
    let Some(user) = User::new() else { return };
    let mut before = user.start(DEFAULT, &["-workers=28"]);
    let addresses = [format!("-tcp-address={}", before.tcp), format!("-http-address={}", before.http)];
    for _ in 0..5 {
        let _nsqds: Vec<_> = (0..50).map(|_| Nsqd::identified(before.tcp, "node", 1)).collect();
        assert!(before.stop().success());
        before = user.start(DEFAULT, &["-workers=28", &addresses[0], &addresses[1]]);
        assert_serves(&before, "io_uring");
    }
}

/// One ring fits where eight do not: then none is used.
#[test]
fn some_workers_would_have_no_ring() {
    let Some(user) = User::new() else { return };
    let one = user.start(64, &["-workers=1", "-io=uring"]);
    assert_serves(&one, "io_uring");
    assert!(one.stop().success());
    let Some(user) = User::new() else { return };
    let refused = user.command(64, &["-workers=8", "-io=uring"]).output().expect("it starts");
    if refused.status.success() {
        return;
    }
    let line = refusal(&refused);
    assert!(line.contains("io_uring is not available (io_uring_") && line.contains("(ulimit -l)"), "{line}");
    let server = user.start(64, &["-workers=8"]);
    assert_serves(&server, "epoll");
    assert!(server.stop().success());
}
