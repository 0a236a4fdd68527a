//! What is reported to a service manager, by the protocol of sd_notify(3), with the test in systemd's place.

use std::os::unix::net::UnixDatagram;
use std::process::Command;
use std::time::Duration;

use nix::sys::ptrace;
use nix::unistd::Pid;
use rustix::process::Signal;
use tempfile::TempDir;

use crate::support::clients::Nsqd;
use crate::support::{DEFAULTS, PATIENCE, Server};

/// The end of the service manager.
struct Manager {
    _folder: TempDir,
    socket: UnixDatagram,
    path: std::path::PathBuf,
}

impl Manager {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("notify");
        let socket = UnixDatagram::bind(&path).expect("a socket");
        socket.set_read_timeout(Some(PATIENCE)).expect("a socket");
        Self { _folder: folder, socket, path }
    }

    fn start(&self, flags: &[&str], environment: &[(&str, &str)]) -> Server {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ringlookupd"));
        command.args(DEFAULTS).args(flags).env("NOTIFY_SOCKET", &self.path);
        Server::start_command(command.envs(environment.iter().copied()))
    }

    /// The next message, in lines.
    fn next(&self) -> Vec<String> {
        let mut buffer = [0; 4096];
        let length = self.socket.recv(&mut buffer).expect("a message");
        String::from_utf8_lossy(&buffer[..length]).lines().map(str::to_owned).collect()
    }

    /// Waits for a message with this line, and returns the whole.
    fn wait_for(&self, line: &str) -> Vec<String> {
        loop {
            let message = self.next();
            if message.iter().any(|found| found == line) {
                return message;
            }
        }
    }
}

#[test]
fn start_reload_and_stop_are_reported() {
    let manager = Manager::new();
    let mut server = manager.start(&["-warm-up=0s"], &[]);
    assert_eq!(manager.next(), ["READY=1", "STATUS=0 producers, 0 topics"]);
    let mut nsqd = Nsqd::identified(server.tcp, "node", 1);
    nsqd.register("a");
    nsqd.register("b");
    // Without a file too.
    server.signal(Signal::HUP);
    let message = manager.next();
    let time = message[1].strip_prefix("MONOTONIC_USEC=").and_then(|time| time.parse::<u64>().ok());
    assert!(message[0] == "RELOADING=1" && time.is_some_and(|time| time > 0), "{message:?}");
    assert_eq!(manager.next(), ["READY=1", "STATUS=1 producers, 2 topics"]);
    server.signal(Signal::TERM);
    assert_eq!(manager.next(), ["STOPPING=1", "STATUS=stopping"]);
    assert!(server.wait_for_exit(PATIENCE).is_some_and(|status| status.success()));
}

#[test]
fn the_status_follows() {
    let manager = Manager::new();
    // The shorter the watchdog's time, the more often the status is sent.
    let server = manager.start(&["-warm-up=1h"], &[("WATCHDOG_USEC", "200000")]);
    assert_eq!(manager.next(), ["READY=1", "STATUS=0 producers, 0 topics, warming up"]);
    let nsqd = Nsqd::identified(server.tcp, "node", 1);
    manager.wait_for("STATUS=1 producers, 0 topics, warming up");
    drop(nsqd);
    manager.wait_for("STATUS=0 producers, 0 topics, warming up");
}

/// The watchdog hears of the server as long as each worker runs, and no longer.
#[test]
fn a_stuck_worker_stops_the_watchdog() {
    let manager = Manager::new();
    let server = manager.start(&["-workers=3"], &[("WATCHDOG_USEC", "1000000")]);
    for _ in 0..3 {
        manager.wait_for("WATCHDOG=1");
    }
    let worker = thread_named(&server, "worker-1");
    ptrace::seize(worker, ptrace::Options::empty()).expect("a child's thread may be traced");
    ptrace::interrupt(worker).expect("it is traced");
    server.wait_for_log("worker 1 is stuck: no iteration for 1s, the watchdog's time");
    // What was sent before has been received; from now on there is silence.
    manager.socket.set_nonblocking(true).expect("a socket");
    while manager.socket.recv(&mut [0; 4096]).is_ok() {}
    manager.socket.set_nonblocking(false).expect("a socket");
    manager.socket.set_read_timeout(Some(Duration::from_secs(2))).expect("a socket");
    assert!(manager.socket.recv(&mut [0; 4096]).is_err(), "it says that it is alive");
    manager.socket.set_read_timeout(Some(PATIENCE)).expect("a socket");
    ptrace::detach(worker, None).expect("it is traced");
    manager.wait_for("WATCHDOG=1");
    assert!(server.stop().success());
}

/// After an upgrade the new process is the main one, and its watchdog goes on.
#[test]
fn the_main_process_changes_with_an_upgrade() {
    let manager = Manager::new();
    let mut command = Command::new("sh");
    // As systemd has it: for this process alone.
    command.args(["-c", "WATCHDOG_PID=$$ exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_ringlookupd")]);
    command.args(DEFAULTS).env("NOTIFY_SOCKET", &manager.path).env("WATCHDOG_USEC", "200000");
    let mut server = Server::start_command(&mut command);
    manager.wait_for("WATCHDOG=1");
    server.signal(Signal::USR2);
    let pid = loop {
        if let Some(pid) = manager.next().iter().find_map(|line| line.strip_prefix("MAINPID=")?.parse().ok()) {
            break pid;
        }
    };
    manager.wait_for("READY=1");
    assert!(server.wait_for_exit(PATIENCE).is_some_and(|status| status.success()));
    manager.wait_for("WATCHDOG=1");
    let pid = rustix::process::Pid::from_raw(pid).expect("a process");
    rustix::process::kill_process(pid, Signal::TERM).expect("it runs");
    manager.wait_for("STOPPING=1");
    server.wait_for_log("HTTP: closing");
}

fn thread_named(server: &Server, name: &str) -> Pid {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", server.pid().as_raw_pid())).expect("it runs");
    let found = tasks
        .map(|task| task.expect("a thread").path())
        .find(|path| std::fs::read_to_string(path.join("comm")).is_ok_and(|found| found.trim() == name));
    let number = found.expect("the thread").file_name().expect("a number").to_string_lossy().parse();
    Pid::from_raw(number.expect("a number"))
}

#[test]
fn without_a_service_manager_nothing_is_sent() {
    let server = Server::start::<&str>(&[]);
    server.signal(Signal::HUP);
    server.wait_for_log("reloaded the settings");
    assert!(!server.log().contains("service manager"), "{}", server.log());
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringlookupd"));
    command.args(DEFAULTS).env("NOTIFY_SOCKET", "/nonexistent/notify");
    let server = Server::start_command(&mut command);
    server.wait_for_log("cannot reach the service manager at NOTIFY_SOCKET");
    assert!(server.stop().success());
}
