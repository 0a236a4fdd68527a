//! Service goes on when nobody reads the log, and when descriptors run out.

use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, ChildStderr, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use ringlookupd::io::Backend;
use ringlookupd::limits::WORKER_DESCRIPTORS;
use rustix::process::{Pid, Signal, kill_process};

use crate::PROGRAM;
use crate::both_drivers::{BACKENDS, flag, missing};
use crate::support::clients::{Nsqd, OK, connect, get, read_to_end, uninterrupted};
use crate::support::observed::Observed;
use crate::support::{DEFAULTS, PATIENCE, Server, logged_address};

on_both_drivers!(
    nobody_reads_the_log,
    the_log_is_a_broken_pipe,
    the_log_is_closed_from_the_start,
    descriptors_run_out,
    few_descriptors_serve_as_many_as_fit,
);

/// Under load, and whenever the test's process is stopped and goes on, the kernel ends reads with EINTR.
#[test]
fn a_call_that_a_signal_has_interrupted_is_made_again() {
    let mut results =
        [Err(ErrorKind::Interrupted), Err(ErrorKind::Interrupted), Ok(7), Err(ErrorKind::WouldBlock)]
            .map(|result| result.map_err(io::Error::from))
            .into_iter();
    let mut call = || uninterrupted(|| results.next().expect("not called again"));
    assert_eq!(call().expect("the third result"), 7);
    assert_eq!(call().expect_err("the fourth result").kind(), ErrorKind::WouldBlock);
}

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

fn nobody_reads_the_log(backend: Backend) {
    Unlogged::start(&["-log-level=debug", &flag(backend)]).serves_and_stops();
}

fn the_log_is_a_broken_pipe(backend: Backend) {
    let mut server = Unlogged::start(&["-log-level=debug", &flag(backend)]);
    server.stderr = None;
    server.serves_and_stops();
}

fn the_log_is_closed_from_the_start(backend: Backend) {
    // Somebody has to say which ports are free.
    let before = Server::start::<&str>(&[]);
    let (tcp, http) = (before.tcp, before.http);
    assert!(before.stop().success());
    let mut command = Command::new("sh");
    command.args(["-c", "exec \"$0\" \"$@\" 2>&-", PROGRAM, "-log-level=debug", &flag(backend)]);
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

/// The counter's value, asked for on a connection that is there already.
fn accept_failures(client: &mut TcpStream) -> u64 {
    let text = get(client, "/metrics");
    let samples = text.lines().filter_map(|line| line.strip_prefix("nsqlookupd_accept_failures_total{"));
    samples.map(|sample| sample.rsplit_once(' ').expect("a value").1.parse::<u64>().expect("a number")).sum()
}

/// Of the clients that have asked for it, those that were answered; the others were told off, or cut off.
#[expect(clippy::disallowed_methods, reason = "it is made again")]
fn settle(mut waiting: Vec<TcpStream>) -> Vec<TcpStream> {
    let (begun, mut served) = (Instant::now(), Vec::new());
    while !waiting.is_empty() {
        assert!(begun.elapsed() < PATIENCE, "{} clients have no answer", waiting.len());
        let mut reply = [0; OK.len()];
        for stream in std::mem::take(&mut waiting) {
            match uninterrupted(|| stream.peek(&mut reply)) {
                Ok(len) if reply[..len] == *OK => served.push(stream),
                Ok(len) if len > 0 && reply[..len] == OK[..len] => waiting.push(stream),
                Err(error) if error.kind() == ErrorKind::WouldBlock => waiting.push(stream),
                _ => {}
            }
        }
        thread::sleep(Duration::from_millis(10));
    }
    for stream in &mut served {
        stream.set_nonblocking(false).expect("a socket");
        stream.read_exact(&mut [0; OK.len()]).expect("looked at above");
    }
    served
}

fn assert_served(clients: &mut [TcpStream]) {
    for stream in clients {
        stream.write_all(b"PING\n").expect("it is served");
        stream.read_exact(&mut [0; OK.len()]).expect("it is served");
    }
}

/// One after the other they come until one is served.
fn wait_for_room(address: SocketAddr) {
    let begun = Instant::now();
    loop {
        let mut stream = connect(address);
        let (_, mut reply) = (stream.write_all(b"  V1PING\n"), [0; OK.len()]);
        if stream.read_exact(&mut reply).is_ok() && reply == OK {
            return;
        }
        assert!(begun.elapsed() < PATIENCE, "no place is free");
    }
}

/// More clients come at once than there are descriptors, so that the kernel accepts them before anybody counts.
fn descriptors_run_out(backend: Backend) {
    const CLIENTS: usize = 200;
    let mut command = Command::new("sh");
    command
        .args(["-c", "ulimit -n 64; exec \"$0\" \"$@\"", PROGRAM, "-workers=1"])
        .args(DEFAULTS)
        .arg(flag(backend));
    let server = Server::start_command(&mut command);
    let mut observer = connect(server.http);
    get(&mut observer, "/ping");
    server.signal(Signal::STOP);
    let mut clients: Vec<_> = (0..CLIENTS).map(|_| connect(server.tcp)).collect();
    for stream in &mut clients {
        stream.write_all(b"  V1PING\n").expect("a new connection");
        stream.set_nonblocking(true).expect("a socket");
    }
    let process = Observed(server.pid());
    let (begun, cpu) = (Instant::now(), process.cpu());
    server.signal(Signal::CONT);
    server.wait_for_log("temporary Accept() failure");
    let mut lucky = settle(clients);
    let (took, busy) = (begun.elapsed(), process.cpu().saturating_sub(cpu));
    assert!((20..64).contains(&lucky.len()), "{} are served", lucky.len());
    assert_served(&mut lucky);
    // It backs off, and says so once.
    assert!(busy < took / 2, "{busy:?} of {took:?}");
    let failures = accept_failures(&mut observer);
    let most = 2 * (took.as_millis() / 100 + 2);
    assert!(failures > 0 && u128::from(failures) <= most, "{failures} failures in {took:?}");
    assert_eq!(server.log().matches("temporary Accept() failure").count(), 1);
    drop(lucky);
    wait_for_room(server.tcp);
    assert!(server.stop().success());
}

/// With as many clients as one likes, descriptors do not run out: those who are too many are told so.
#[test]
fn there_are_as_many_connections_as_descriptors() {
    const CLIENTS: usize = 400;
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -n 256; exec \"$0\" \"$@\"", PROGRAM, "-workers=2"]).args(DEFAULTS);
    let server = Server::start_command(&mut command);
    let mut observer = connect(server.http);
    get(&mut observer, "/ping");
    let (mut lucky, mut refused) = (Vec::new(), 0);
    for _ in 0..CLIENTS {
        let mut stream = connect(server.tcp);
        let _ = stream.write_all(b"  V1PING\n");
        let mut reply = [0; OK.len()];
        match stream.read_exact(&mut reply) {
            Ok(()) if reply == OK => lucky.push(stream),
            _ => refused += 1,
        }
    }
    assert!((150..256).contains(&lucky.len()), "{} are served", lucky.len());
    assert_eq!(lucky.len() + refused, CLIENTS);
    assert_eq!(accept_failures(&mut observer), 0, "{}", server.log());
    assert_served(&mut lucky);
    // The places of those that leave are free again.
    drop(lucky);
    wait_for_room(server.tcp);
    assert!(server.stop().success());
}

/// Where there are hardly any descriptors, fewer workers leave room for connections, and one line says what to raise.
fn few_descriptors_serve_as_many_as_fit(backend: Backend) {
    for most in [16, 20, 64] {
        let mut command = Command::new("sh");
        let script = format!("ulimit -n {most}; exec \"$0\" \"$@\"");
        command.args(["-c", &script, PROGRAM, "-workers=8"]).args(DEFAULTS).arg(flag(backend));
        let server = Server::start_command(&mut command);
        let free = most - open_files(&server);
        let fit = free - free.div_ceil(8);
        assert!(fit > 1, "{free} descriptors are free");
        let mut clients: Vec<_> = (0..fit).map(|_| Nsqd::connect(server.tcp)).collect();
        for client in &mut clients {
            assert_eq!(client.ask(b"PING\n"), b"OK");
        }
        // One more is told so, and nobody else notices.
        let text = read_to_end(&mut connect(server.tcp)).expect("a FIN, not a reset");
        assert!(text.ends_with(b"exceeds max-connections"), "{}", text.escape_ascii());
        assert_served(&mut clients.into_iter().map(|client| client.0).collect::<Vec<_>>());
        let log = server.log();
        let warnings: Vec<_> = log.lines().filter(|line| line.contains(" WARNING: ")).collect();
        let at_start = format!("there may be no more than {most} open files; raise the limit (ulimit -n)");
        assert!(warnings[0].contains(&at_start) && !log.contains("Accept() failure"), "{log}");
        assert!(warnings[1..].iter().all(|line| line.contains("exceeded the limit -max-connections")), "{log}");
        assert!(server.stop().success());
    }
}

fn open_files(server: &Server) -> usize {
    let directory = format!("/proc/{}/fd", server.pid().as_raw_pid());
    std::fs::read_dir(directory).expect("it runs").count()
}

/// The number that the limits are based on: two listeners, and what each worker has beside them.
#[test]
fn descriptors_of_a_worker() {
    for backend in BACKENDS.into_iter().filter(|&backend| missing(backend).is_none()) {
        let [one, three] = [1, 3].map(|workers| {
            let server = Server::start(&[format!("-workers={workers}"), flag(backend)]);
            open_files(&server)
        });
        assert_eq!(three - one, 2 * (WORKER_DESCRIPTORS + 2), "{backend:?}");
    }
}
