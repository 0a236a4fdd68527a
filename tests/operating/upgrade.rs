//! SIGUSR2: the program on the disk takes over with the ports and the registry, and no client notices; one that cannot take over
//! changes nothing.

use std::fs;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::thread;

use rustix::process::{Pid, Signal, kill_process};

use crate::inherited_sockets::Sockets;
use crate::support::clients::{Nsqd, ask, connect, get, get_alone, introduce, read_to_end};
use crate::support::observed::Observed;
use crate::support::{DEFAULTS, Ends, PATIENCE, Server};
use crate::wait_until;

/// Upgrades in a row; `RINGLOOKUPD_UPGRADES` sets another number.
const UPGRADES: usize = 20;

const BACKENDS: [&str; 2] = ["-io=uring", "-io=epoll"];

/// A server of which one process follows another. They have one log.
struct Served {
    first: Server,
    pid: Pid,
    upgrades: usize,
}

impl Served {
    fn new(first: Server) -> Self {
        Self { pid: first.pid(), first, upgrades: 0 }
    }

    fn start(flags: &[&str]) -> Self {
        Self::new(Server::start(flags))
    }

    fn signal(&self, signal: Signal) {
        kill_process(self.pid, signal).expect("the process is there");
    }

    /// Waits until another process serves, and this one is gone.
    fn upgrade(&mut self) {
        let before = self.pid;
        self.signal(Signal::USR2);
        self.first.wait_for_log(&format!("has taken over from process {}\n", before.as_raw_nonzero()));
        // Each process writes its lines by and by.
        let mut found = Vec::new();
        wait_until("the process before says which one serves", || {
            found = successors(&self.first.log());
            found.len() > self.upgrades
        });
        self.upgrades += 1;
        self.pid = found.pop().expect("one more");
        if before == self.first.pid() {
            let status = self.first.wait_for_exit(PATIENCE);
            assert!(status.is_some_and(|status| status.success()), "{status:?}");
        } else {
            wait_until("the process before has ended", || has_ended(before));
        }
    }

    fn warns(&self, warning: &str) {
        self.first.wait_for_log(&format!("WARNING: upgrade failed, this process goes on - {warning}"));
    }
}

/// The processes that have taken over, one after the other.
fn successors(log: &str) -> Vec<Pid> {
    let lines = log.lines().filter_map(|line| line.strip_suffix(" serves, this one ends its connections"));
    let numbers = lines.filter_map(|line| line.rsplit_once("upgrade: process ")?.1.parse().ok());
    numbers.filter_map(Pid::from_raw).collect()
}

/// Whether a process is gone, or waits for nothing but the one that reaps it.
fn has_ended(process: Pid) -> bool {
    fs::read_link(format!("/proc/{}/exe", process.as_raw_nonzero())).is_err()
}

impl Drop for Served {
    fn drop(&mut self) {
        // It may have ended in order.
        let _ = kill_process(self.pid, Signal::KILL);
    }
}

/// A lookup on a connection of its own.
fn lookup(http: SocketAddr) -> io::Result<String> {
    get_alone(http, "/lookup?topic=t")
}

/// Registers again whenever its connection has ended, as nsqd does.
fn stay_registered(tcp: SocketAddr, name: &str, is_over: &AtomicBool) {
    while !is_over.load(Relaxed) {
        let Ok(mut stream) = introduce(tcp, name, 0) else { continue };
        while !is_over.load(Relaxed) && ask(&mut stream, b"REGISTER t c\n").is_ok_and(|answer| answer == b"OK") {
            thread::sleep(std::time::Duration::from_millis(1));
        }
    }
}

/// Lookups while one process follows the other: each is answered, with both producers, one of which registers all the time and
/// one of which is never seen again.
fn beside_upgrades(mut served: Served, tcp: SocketAddr, http: SocketAddr) {
    let count = std::env::var("RINGLOOKUPD_UPGRADES").map_or(UPGRADES, |count| count.parse().expect("a number"));
    let mut away = Nsqd::identified(tcp, "away", 0);
    away.register("t");
    let (is_over, is_left, asked) = (AtomicBool::new(false), AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        // Whatever fails here, the load is to end, and behind it the nsqd.
        let _end_nsqd = Ends(&is_left);
        let end_load = Ends(&is_over);
        scope.spawn(|| stay_registered(tcp, "back", &is_left));
        let ask = || {
            let mut failures = Vec::new();
            while !is_over.load(Relaxed) {
                match lookup(http) {
                    Ok(response) if response.contains("\"away\"") && response.contains("\"back\"") => {}
                    other => failures.push(format!("{other:?}")),
                }
                asked.fetch_add(1, Relaxed);
            }
            failures
        };
        wait_until("both are listed", || {
            lookup(http).is_ok_and(|response| response.contains("\"away\"") && response.contains("\"back\""))
        });
        let load: Vec<_> = (0..2).map(|_| scope.spawn(ask)).collect();
        let mut descriptors = Vec::new();
        for _ in 0..count {
            let before = asked.load(Relaxed);
            wait_until("lookups are served", || asked.load(Relaxed) > before + 20);
            served.upgrade();
        }
        drop(end_load);
        for thread in load {
            let failures = thread.join().expect("it does not panic");
            assert!(
                failures.is_empty(),
                "{} of {}: {failures:?}\n{}",
                failures.len(),
                asked.load(Relaxed),
                served.first.log()
            );
        }
        descriptors.push(Observed(served.pid).descriptors());
        // Sockets of this test's clients are closed by and by.
        for _ in 0..2 {
            served.upgrade();
            descriptors.push(Observed(served.pid).descriptors());
        }
        assert!(descriptors[2] <= descriptors[1] && descriptors[1] <= descriptors[0], "{descriptors:?}");
    });
    println!("{} lookups beside {count} upgrades", asked.load(Relaxed));
    served.signal(Signal::TERM);
    wait_until("it stops", || has_ended(served.pid));
}

#[test]
fn upgrades_refuse_and_fail_no_lookup() {
    for backend in BACKENDS {
        let served = Served::start(&[backend, "-workers=2"]);
        let (tcp, http) = (served.first.tcp, served.first.http);
        beside_upgrades(served, tcp, http);
    }
}

/// Sockets of a service manager stay its own, and a state's folder goes along with its lock.
#[test]
fn inherited_sockets_and_the_state_go_along() {
    let (sockets, folder) = (Sockets::bind(), tempfile::tempdir().expect("a folder"));
    let mut command = sockets.pass_to(env!("CARGO_BIN_EXE_ringlookupd"));
    command.args(["-workers=2", &format!("-data-path={}", folder.path().display())]);
    let served = Served::new(Server::start_command(&mut command));
    beside_upgrades(served, sockets.tcp(), sockets.http());
    let mut command = sockets.pass_to(env!("CARGO_BIN_EXE_ringlookupd"));
    command.args(["-workers=1", &format!("-data-path={}", folder.path().display())]);
    let last = Server::start_command(&mut command);
    assert!(lookup(sockets.http()).expect("a response").contains("\"away\""));
    assert!(last.stop().success());
}

/// Connections that are open: nsqd's is closed, so that it connects anew; an HTTP client has its response, and the end behind it.
#[test]
fn connections_end_in_order() {
    for backend in BACKENDS {
        let mut served = Served::start(&[backend, "-workers=1"]);
        let (tcp, http) = (served.first.tcp, served.first.http);
        let mut nsqd = Nsqd::identified(tcp, "n", 0);
        nsqd.register("t");
        let mut client = connect(http);
        assert!(get(&mut client, "/ping").ends_with("OK"));
        served.upgrade();
        assert_eq!(read_to_end(&mut nsqd.0).expect("an end in order"), b"");
        assert_eq!(read_to_end(&mut client).expect("an end in order"), b"");
        assert!(get(&mut connect(http), "/lookup?topic=t").contains("\"n\""));
        let mut nsqd = Nsqd::identified(tcp, "n", 0);
        nsqd.register("t");
        let lookup = get(&mut connect(http), "/lookup?topic=t");
        assert_eq!(lookup.matches("broadcast_address").count(), 1, "{lookup}");
    }
}

/// The new process reads the settings anew: with another number of workers each old socket is still served.
#[test]
fn the_number_of_workers_may_change() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = folder.path().join("config");
    let write = |workers: usize| fs::write(&config, format!("workers = {workers}\n")).expect("space");
    write(2);
    let mut served = Served::start(&[&format!("-config={}", config.display())]);
    let http = served.first.http;
    for workers in [4, 1, 3] {
        write(workers);
        served.upgrade();
        served.first.wait_for_log(&format!(", {workers} workers, "));
        for _ in 0..50 {
            assert!(lookup(http).expect("a response").contains("TOPIC_NOT_FOUND"));
        }
    }
}

/// Puts a program in the place of another, as a package upgrade does.
fn install(program: &Path, content: &[u8]) {
    let new = program.with_extension("new");
    fs::write(&new, content).expect("space");
    fs::set_permissions(&new, fs::Permissions::from_mode(0o755)).expect("our file");
    fs::rename(new, program).expect("one folder");
}

#[test]
fn a_program_that_cannot_take_over_changes_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let program = folder.path().join("ringlookupd");
    let content = fs::read(env!("CARGO_BIN_EXE_ringlookupd")).expect("the program");
    install(&program, &content);
    let state = folder.path().join("state");
    fs::create_dir(&state).expect("space");
    let flags = [format!("-data-path={}", state.display())];
    let mut served = Served::new(Server::start_program(&program, &flags));
    let (tcp, http) = (served.first.tcp, served.first.http);
    let mut nsqd = Nsqd::identified(tcp, "n", 0);
    nsqd.register("t");
    for (script, warning) in [
        ("#!/bin/sh\nexit 3\n", "the new process has ended"),
        ("#!/bin/sh\necho good morning >&0\nsleep 1000\n", "the new program does not take over from this version"),
        ("", "cannot start "),
    ] {
        install(&program, script.as_bytes());
        served.signal(Signal::USR2);
        served.warns(warning);
        assert_eq!(nsqd.ask(b"PING\n"), b"OK");
        assert!(lookup(http).expect("a response").contains("\"n\""));
    }
    // One that is prepared, and ends when everything is left to it.
    install(&program, b"#!/bin/sh\nprintf 'RLU\\001' >&0\nexec head -c 100 >/dev/null\n");
    served.signal(Signal::USR2);
    wait_until("it has failed, too", || served.first.log().matches("this process goes on").count() == 4);
    assert_eq!(nsqd.ask(b"PING\n"), b"OK");
    assert!(lookup(http).expect("a response").contains("\"n\""));
    let metrics = get(&mut connect(http), "/metrics");
    assert!(metrics.contains("\nnsqlookupd_upgrade_failures_total 4\n"), "{metrics}");
    install(&program, &content);
    served.upgrade();
    assert!(lookup(http).expect("a response").contains("\"n\""));
}

#[test]
fn an_address_that_has_changed_is_bound() {
    let folder = tempfile::tempdir().expect("a folder");
    let config = folder.path().join("config");
    let write = |http: &str| {
        fs::write(&config, format!("tcp_address = '127.0.0.1:0'\nhttp_address = '{http}'\n")).expect("space");
    };
    write("127.0.0.1:0");
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringlookupd"));
    let mut served = Served::new(Server::start_command(command.arg(format!("-config={}", config.display()))));
    let (tcp, http) = (served.first.tcp, served.first.http);
    write("127.0.0.2:0");
    served.upgrade();
    served.first.wait_for_log(&format!("http: 127.0.0.2:0 instead of {http}"));
    let log = served.first.log();
    let listening = log.split("HTTP: listening on ").nth(2).and_then(|rest| rest.lines().next());
    let now = listening.expect("it listens").parse().expect("an address");
    Nsqd::identified(tcp, "n", 0).register("t");
    assert!(lookup(now).expect("a response").starts_with("HTTP/1.1 200 OK"));
    assert!(TcpStream::connect(http).is_err());
}

/// In a container: the kernel ends all its processes with process 1.
#[test]
fn process_1_stays() {
    let namespace = ["--pid", "--fork", "--kill-child", "--"];
    let is_allowed = Command::new("unshare").args(namespace).arg("true").status();
    if !is_allowed.is_ok_and(|status| status.success()) {
        eprintln!("skipped: unshare may not make a namespace of processes");
        return;
    }
    let mut command = Command::new("unshare");
    command.args(namespace).arg(env!("CARGO_BIN_EXE_ringlookupd")).args(DEFAULTS);
    let server = Server::start_command(&mut command);
    let unshare = server.pid().as_raw_nonzero();
    let children = fs::read_to_string(format!("/proc/{unshare}/task/{unshare}/children")).expect("it runs");
    let process = Pid::from_raw(children.trim().parse().expect("one child")).expect("a process");
    kill_process(process, Signal::USR2).expect("it runs");
    server.wait_for_log("WARNING: upgrade refused: this is process 1");
    assert!(lookup(server.http).expect("a response").contains("TOPIC_NOT_FOUND"));
}

#[test]
fn a_stop_meanwhile_stops_both() {
    let folder = tempfile::tempdir().expect("a folder");
    let program = folder.path().join("ringlookupd");
    install(&program, &fs::read(env!("CARGO_BIN_EXE_ringlookupd")).expect("the program"));
    let mut server = Server::start_program(&program, &DEFAULTS);
    install(&program, b"#!/bin/sh\necho $$ > \"$0.pid\"\nexec sleep 1000\n");
    server.signal(Signal::USR2);
    let file = folder.path().join("ringlookupd.pid");
    wait_until("the new process runs", || fs::read_to_string(&file).is_ok_and(|pid| pid.ends_with('\n')));
    let pid = fs::read_to_string(&file).expect("it was read").trim().parse().expect("a number");
    server.signal(Signal::USR2);
    server.wait_for_log("upgrade: one is under way, SIGUSR2 is ignored");
    server.signal(Signal::TERM);
    assert!(server.wait_for_exit(PATIENCE).is_some_and(|status| status.success()));
    wait_until("the new process has ended", || has_ended(Pid::from_raw(pid).expect("a process")));
}
