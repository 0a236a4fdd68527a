//! Service goes on when nobody reads the log, and when descriptors run out.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, ChildStderr, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use ringlookupd::io::Interface;
use rustix::process::{Pid, Signal, kill_process};

use crate::PROGRAM;
use crate::both_drivers::flag;
use crate::clients::{Nsqd, OK, connect, get};
use crate::support::{DEFAULTS, PATIENCE, Server, logged_address};

on_both_drivers!(
    nobody_reads_the_log,
    the_log_is_a_broken_pipe,
    the_log_is_closed_from_the_start,
    descriptors_run_out,
);

/// A server whose log is the test's to read or not.
struct Unlogged {
    process: Child,
    stderr: Option<BufReader<ChildStderr>>,
    tcp: SocketAddr,
    http: SocketAddr,
}

impl Unlogged {
    /// Reads no further than the announcements.
    fn start(flags: &[&str]) -> Self {
        let mut command = Command::new(PROGRAM);
        command.args(DEFAULTS).args(flags).stdin(Stdio::null()).stderr(Stdio::piped());
        let mut process = command.spawn().expect("it starts");
        let mut stderr = BufReader::new(process.stderr.take().expect("it is piped"));
        let mut log = String::new();
        let (tcp, http) = loop {
            assert!(stderr.read_line(&mut log).expect("UTF-8") > 0, "it does not listen: {log}");
            let announced = |name| logged_address(&log, &format!("{name}: listening on "));
            if let (Some(tcp), Some(http)) = (announced("TCP"), announced("HTTP")) {
                break (tcp, http);
            }
        };
        Self { process, stderr: Some(stderr), tcp, http }
    }

    /// Has more logged than the pipe and the queue hold; each PING must be answered and the process must end.
    fn serves_and_stops(mut self) {
        let mut nsqd = Nsqd::identified(self.tcp, "n", 1);
        let pings = 20_000;
        let mut replies = vec![0; pings * OK.len()];
        thread::scope(|scope| {
            let mut writer = nsqd.0.try_clone().expect("a descriptor");
            scope.spawn(move || writer.write_all(&b"PING\n".repeat(pings)).expect("the server reads"));
            nsqd.0.read_exact(&mut replies).expect("each is answered");
        });
        assert!(replies == OK.repeat(pings));
        nsqd.register("t");
        assert!(get(&mut connect(self.http), "/lookup?topic=t").starts_with("HTTP/1.1 200 OK\r\n"));
        drop(nsqd);
        kill_process(Pid::from_child(&self.process), Signal::TERM).expect("it is our child");
        // Not `wait_for_exit`'s pidfd: a test's own patience ends a process that does not end.
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE {
            if let Some(status) = self.process.try_wait().expect("it is our child") {
                assert!(status.success(), "{status}");
                return;
            }
            thread::sleep(Duration::from_millis(10));
        }
        panic!("it does not end");
    }
}

impl Drop for Unlogged {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn nobody_reads_the_log(interface: Interface) {
    Unlogged::start(&["-log-level=debug", &flag(interface)]).serves_and_stops();
}

fn the_log_is_a_broken_pipe(interface: Interface) {
    let mut server = Unlogged::start(&["-log-level=debug", &flag(interface)]);
    server.stderr = None;
    server.serves_and_stops();
}

fn the_log_is_closed_from_the_start(interface: Interface) {
    // Somebody has to say which ports are free.
    let before = Server::start::<&str>(&[]);
    let (tcp, http) = (before.tcp, before.http);
    assert!(before.stop().success());
    let mut command = Command::new("sh");
    command.args(["-c", "exec \"$0\" \"$@\" 2>&-", PROGRAM, "-log-level=debug", &flag(interface)]);
    command.args([format!("-tcp-address={tcp}"), format!("-http-address={http}")]);
    let process = command.stdin(Stdio::null()).spawn().expect("it starts");
    let server = Unlogged { process, stderr: None, tcp, http };
    let begun = Instant::now();
    while TcpStream::connect(http).is_err() {
        assert!(begun.elapsed() < PATIENCE, "it does not listen");
        thread::sleep(Duration::from_millis(10));
    }
    server.serves_and_stops();
}

/// What /proc knows of a process.
struct Observed(i32);

impl Observed {
    fn descriptors(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.0)).expect("it runs").count()
    }

    /// Time on a processor, all threads together. USER_HZ is 100.
    fn cpu(&self) -> Duration {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.0)).expect("it runs");
        let (_, fields) = stat.rsplit_once(") ").expect("the name is in parentheses");
        let ticks: u64 = fields.split(' ').skip(11).take(2).map(|time| time.parse::<u64>().expect("ticks")).sum();
        Duration::from_millis(10 * ticks)
    }
}

/// Of the clients that have asked for it, takes those that are answered, until there are `count`.
fn take_served(waiting: &mut Vec<TcpStream>, count: usize) -> Vec<TcpStream> {
    let (begun, mut served) = (Instant::now(), Vec::new());
    while served.len() < count {
        assert!(begun.elapsed() < PATIENCE, "{} of {count} are served", served.len());
        let is_served = |stream: &mut TcpStream| stream.peek(&mut [0; OK.len()]).is_ok_and(|len| len == OK.len());
        served.extend(waiting.extract_if(.., is_served));
        thread::sleep(Duration::from_millis(10));
    }
    served
}

fn descriptors_run_out(interface: Interface) {
    const LIMIT: usize = 64;
    const CLIENTS: usize = 200;
    let warning = "temporary Accept() failure";
    let mut command = Command::new("sh");
    command.args(["-c", &format!("ulimit -n {LIMIT}; exec \"$0\" \"$@\""), PROGRAM]);
    command.args(DEFAULTS).arg(flag(interface));
    let server = Server::start_command(&mut command);
    let process = Observed(server.pid().as_raw_nonzero().get());
    let room = LIMIT - process.descriptors();

    let mut waiting: Vec<_> = (0..CLIENTS).map(|_| connect(server.tcp)).collect();
    for stream in &mut waiting {
        stream.write_all(b"  V1PING\n").expect("a new connection");
        stream.set_nonblocking(true).expect("a socket");
    }
    let mut lucky = take_served(&mut waiting, room);
    server.wait_for_log(warning);

    // Those that were accepted are served as if nothing were wrong, and the others cost next to nothing.
    let (begun, cpu) = (Instant::now(), process.cpu());
    let warnings = || server.log().matches(warning).count();
    let before = warnings();
    while warnings() < before + 6 {
        assert!(begun.elapsed() < PATIENCE, "accepting is not tried again");
        for stream in &mut lucky {
            stream.set_nonblocking(false).expect("a socket");
            stream.write_all(b"PING\n").expect("it is served");
            stream.read_exact(&mut [0; OK.len()]).expect("it is served");
        }
        thread::sleep(Duration::from_millis(20));
    }
    let (warned, busy) = (warnings() - before, process.cpu().saturating_sub(cpu));
    let took = begun.elapsed();
    assert!(busy < took / 2, "{busy:?} of {took:?}");
    // Two listeners, each tried ten times a second at most.
    let most = 2 * (took.as_millis() / 100 + 2);
    assert!(warned as u128 <= most, "{warned} warnings in {took:?}");

    // Those that have waited, and new ones, get the places of those that leave.
    waiting.push(connect(server.tcp));
    let new = waiting.last_mut().expect("just pushed");
    new.write_all(b"  V1PING\n").expect("a new connection");
    new.set_nonblocking(true).expect("a socket");
    while !waiting.is_empty() {
        let next = waiting.len().min(room);
        drop(lucky);
        lucky = take_served(&mut waiting, next);
    }
    assert!(server.stop().success());
}
