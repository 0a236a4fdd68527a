//! A server that may not create a thread more than it has (RLIMIT_NPROC, a cgroup's pids.max) ends connections all the
//! same, and itself.

use std::fs;
use std::io::Write;
use std::process::Command;

use ringlookupd::io::Backend;
use rustix::process::{Signal, geteuid};

use crate::PROGRAM;
use crate::both_drivers::flag;
use crate::support::clients::{Nsqd, connect, read_to_end};
use crate::support::{DEFAULTS, PATIENCE, Server};

on_both_drivers!(connections_end_without_another_thread);

/// A user that has no other processes, so that the limit counts the server's threads alone.
const USER: u32 = 54_321;

fn connections_end_without_another_thread(backend: Backend) {
    if !geteuid().is_root() {
        eprintln!("skipped: only root may start a server as another user, and root has no limit of threads");
        return;
    }
    // Another user may not reach the program where it was built.
    let folder = tempfile::Builder::new().permissions(public()).tempdir().expect("a temporary folder");
    let program = folder.path().join("ringlookupd");
    fs::copy(PROGRAM, &program).expect("space for a program");
    let user = (USER + u32::from(backend == Backend::Epoll)).to_string();
    let start = |threads: &str| {
        let mut command = Command::new("setpriv");
        command.args(["--reuid", &user, "--clear-groups", "prlimit", &format!("--nproc={threads}")]);
        Server::start_command(command.arg(&program).args(DEFAULTS).arg(flag(backend)))
    };
    let server = start("1000");
    let threads = fs::read_dir(format!("/proc/{}/task", server.pid())).expect("it runs").count();
    assert!(server.stop().success());
    let mut server = start(&threads.to_string());

    for _ in 0..20 {
        let mut wrong = connect(server.tcp);
        wrong.write_all(b"GET ").expect("a connection");
        assert!(read_to_end(&mut wrong).expect("a FIN").ends_with(b"E_BAD_PROTOCOL"));
        let mut client = connect(server.http);
        client.write_all(b"GET /ping HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n").expect("a connection");
        assert!(read_to_end(&mut client).expect("a FIN").ends_with(b"OK"));
    }
    let _idle = Nsqd::identified(server.tcp, "idle", 1);
    server.signal(Signal::TERM);
    assert!(server.wait_for_exit(PATIENCE).is_some_and(|status| status.success()), "{}", server.log());
}

fn public() -> fs::Permissions {
    std::os::unix::fs::PermissionsExt::from_mode(0o755)
}
