//! Sockets that the server inherits: it serves from them, refuses what is no such socket, and a restart refuses nobody.
//!
//! systemd's own `systemd-socket-activate` starts the server. Where it is not installed, these tests say that they are
//! skipped.

use std::io::{BufRead, BufReader, Read};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};
use std::{env, io};

use rustix::process::{Pid, Signal, kill_process};

use crate::inherited_sockets::Sockets;
use crate::support::clients::{Nsqd, connect, get, get_alone};
use crate::support::{PATIENCE, Server};

/// Whether systemd's tool is here. Where the environment asks for it, it has to be.
fn is_there() -> bool {
    let found = Command::new("systemd-socket-activate").arg("--version").stdout(Stdio::null()).status();
    let is_there = found.is_ok_and(|status| status.success());
    assert!(is_there || env::var_os("SYSTEMD_TOOLS").is_none(), "systemd-socket-activate is missing");
    if !is_there {
        eprintln!("skipped: systemd-socket-activate is not installed");
    }
    is_there
}

/// Starts the server by systemd-socket-activate, which gets these sockets as systemd passes them on, waits for the first
/// client, and becomes the server.
fn activate(sockets: &Sockets, flags: &[&str]) -> Child {
    let mut command = sockets.pass_to("systemd-socket-activate");
    command.arg("--fdname=http:tcp").args([env!("CARGO_BIN_EXE_ringlookupd"), "-warm-up=0s"]).args(flags);
    command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().expect("a shell")
}

/// Ends a server in order, which must succeed.
fn stop(mut process: Child) {
    kill_process(Pid::from_child(&process), Signal::TERM).expect("our child");
    let begun = Instant::now();
    loop {
        if let Some(status) = process.try_wait().expect("our child") {
            assert!(status.success(), "{status}");
            return;
        }
        assert!(begun.elapsed() < PATIENCE, "it does not stop");
        thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn all_workers_serve_from_inherited_sockets() {
    if !is_there() {
        return;
    }
    for io in ["-io=uring", "-io=epoll"] {
        let sockets = Sockets::bind();
        // The address flags do not count.
        let mut process =
            activate(&sockets, &[io, "-workers=3", "-tcp-address=192.0.2.1:1", "-http-address=192.0.2.1:2"]);
        let clients: Vec<_> = (0..24).map(|_| connect(sockets.http())).collect();
        let tcp = sockets.tcp();
        let mut nsqds: Vec<_> =
            (0..24).map(|number| Nsqd::identified(tcp, &format!("node-{number}"), 1)).collect();
        for nsqd in &mut nsqds {
            nsqd.register("t");
        }
        for mut client in clients {
            let response = get(&mut client, "/lookup?topic=t");
            assert_eq!(response.matches("\"broadcast_address\"").count(), 24, "{response}");
        }
        let mut log = process.stderr.take().expect("a pipe");
        stop(process);
        let mut text = String::new();
        log.read_to_string(&mut text).expect("a log");
        for line in [format!("TCP: listening on {tcp}"), format!("HTTP: listening on {}", sockets.http())] {
            assert!(text.contains(&line), "{text}");
        }
    }
}

#[test]
fn a_socket_that_cannot_be_used_is_named() {
    if !is_there() {
        return;
    }
    for (options, error) in [
        (&["--fdname=web"][..], "the inherited socket \"web\" has to be named tcp, http, tcp-tls or https"),
        (&["--fdname=tcp", "--datagram"], "the inherited socket \"tcp\" is no TCP socket"),
    ] {
        let free = TcpListener::bind("127.0.0.1:0").expect("loopback").local_addr().expect("bound");
        let mut command = Command::new("systemd-socket-activate");
        command.arg(format!("--listen={free}")).args(options).arg(env!("CARGO_BIN_EXE_ringlookupd"));
        let mut process = command.stderr(Stdio::piped()).spawn().expect("systemd's tool");
        let log = BufReader::new(process.stderr.take().expect("a pipe"));
        let mut lines = log.lines().map_while(Result::ok);
        assert!(lines.any(|line| line.starts_with("Listening on")), "it does not listen");
        // The first client, or datagram, starts the server.
        if options.contains(&"--datagram") {
            let socket = std::net::UdpSocket::bind("127.0.0.1:0").expect("loopback");
            socket.send_to(b"x", free).expect("a datagram");
        } else {
            drop(TcpStream::connect(free));
        }
        let rest: Vec<_> = lines.collect();
        assert!(rest.iter().any(|line| line.contains("FATAL") && line.contains(error)), "{rest:?}");
        assert_eq!(process.wait().expect("our child").code(), Some(1));
    }
}

/// A child of the server must not believe that it inherits sockets, and a server that is passed none binds its own.
#[test]
fn sockets_of_another_process_are_not_taken() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringlookupd"));
    command.args(crate::support::DEFAULTS).envs([
        ("LISTEN_PID", "1"),
        ("LISTEN_FDS", "2"),
        ("LISTEN_FDNAMES", "tcp:http"),
    ]);
    let server = Server::start_command(&mut command);
    assert!(get(&mut connect(server.http), "/ping").ends_with("OK"));
    assert!(server.stop().success());
}

/// Restarts under load, and lookups a second meanwhile, each on a connection of its own.
const RESTARTS: usize = 50;
const LOOKUPS_A_SECOND: u32 = 500;

#[test]
fn restarts_refuse_and_fail_no_lookup() {
    if !is_there() {
        return;
    }
    let sockets = Sockets::bind();
    let address = sockets.http();
    let (stop_load, asked) = (AtomicBool::new(false), AtomicUsize::new(0));
    let failures = thread::scope(|scope| {
        let (failed, failures) = mpsc::channel();
        for _ in 0..2 {
            let (failed, stop_load, asked) = (failed.clone(), &stop_load, &asked);
            scope.spawn(move || {
                let (begun, mut sent) = (Instant::now(), 0);
                while !stop_load.load(Relaxed) {
                    // A lookup that was late does not put off the next ones.
                    thread::sleep(
                        (Duration::from_secs(2) / LOOKUPS_A_SECOND * sent).saturating_sub(begun.elapsed()),
                    );
                    sent += 1;
                    if let Err(error) = lookup(address) {
                        let _ = failed.send(format!("{:?} after the start: {error}", begun.elapsed()));
                    }
                    asked.fetch_add(1, Relaxed);
                }
            });
        }
        drop(failed);
        for number in 0..RESTARTS {
            let io = ["-io=uring", "-io=epoll"][number % 2];
            let mut process = activate(&sockets, &[io, "-workers=2"]);
            let log = BufReader::new(process.stderr.take().expect("a pipe"));
            let mut lines = log.lines().map_while(Result::ok);
            assert!(lines.any(|line| line.contains("HTTP: listening on")), "it does not start");
            let drained = thread::spawn(move || lines.count());
            // It has served some before it ends.
            let before = asked.load(Relaxed);
            crate::wait_until("lookups are served", || asked.load(Relaxed) > before + 20);
            stop(process);
            drained.join().expect("a log");
        }
        // The last of them waits for a server.
        let last = activate(&sockets, &[]);
        stop_load.store(true, Relaxed);
        let failures: Vec<_> = failures.iter().collect();
        stop(last);
        failures
    });
    println!("{} lookups beside {RESTARTS} restarts", asked.load(Relaxed));
    assert!(failures.is_empty(), "of {} lookups {} failed: {failures:?}", asked.load(Relaxed), failures.len());
}

/// A lookup as a client makes it that keeps no connections.
fn lookup(address: SocketAddr) -> io::Result<()> {
    let response = get_alone(address, "/lookup?topic=t")?;
    let is_whole = response.ends_with("{\"message\":\"TOPIC_NOT_FOUND\"}");
    is_whole.then_some(()).ok_or_else(|| io::Error::other(format!("{response:?}")))
}
