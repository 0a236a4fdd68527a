//! A server that keeps its state restarts, and nobody notices: real nsqd nodes stay listed in every lookup, no connection is
//! refused, and a consumer that starts meanwhile finds them. What SIGKILL takes with it are the lookups that the server had begun.
//!
//! `RINGLOOKUPD_RESTARTS` sets the number of restarts of each kind.

use std::env;
use std::fs;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use ringlookupd::io::Backend;
use ringlookupd::state::decode;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::cluster::Nsqd;
use crate::daemon::Daemon;
use crate::inherited_sockets::Sockets;
use crate::programs::{self, Client, Programs};
use crate::support::clients::get_alone;
use crate::support::{Ends, Server};
use crate::wait;

on_both_drivers!(restarts_by_sigterm, restarts_by_sigkill, upgrades_by_sigusr2);

const RESTARTS: usize = 5;

/// Lookups a second, each on a connection of its own.
const LOOKUPS_A_SECOND: u32 = 1000;

fn restarts_by_sigterm(backend: Backend) {
    assert_eq!(restarts(backend, Signal::TERM), 0);
}

fn upgrades_by_sigusr2(backend: Backend) {
    assert_eq!(restarts(backend, Signal::USR2), 0);
}

fn restarts_by_sigkill(backend: Backend) {
    restarts(backend, Signal::KILL);
}

/// What a server is started with each time.
struct Scene {
    program: (PathBuf, Vec<String>),
    sockets: Sockets,
    state: TempDir,
}

impl Scene {
    fn start(&self) -> Server {
        let (program, flags) = &self.program;
        let state = format!("-data-path={}", self.state.path().display());
        let mut command = self.sockets.pass_to(program);
        command.args(flags).args(["-broadcast-address=127.0.0.1", "-workers=2", &state]);
        Server::start_command(&mut command)
    }

    /// The process that serves: its number is in the lock's file.
    fn process(&self) -> Pid {
        let lock = fs::read_to_string(self.state.path().join("nsqlookupd.lock")).expect("it is there");
        Pid::from_raw(lock.trim().parse().expect("a number")).expect("a process")
    }
}

/// The last process of a chain is no child of the test.
impl Drop for Scene {
    fn drop(&mut self) {
        let _ = kill_process(self.process(), Signal::KILL);
    }
}

/// Returns how many lookups were cut short: their connection was accepted, and ended before the response.
fn restarts(backend: Backend, signal: Signal) -> usize {
    let Some(programs) = Programs::find() else {
        return 0;
    };
    let count = env::var("RINGLOOKUPD_RESTARTS").map_or(RESTARTS, |count| count.parse().expect("a number"));
    let state = tempfile::tempdir().expect("a folder");
    let scene = Scene { program: programs::lookupd(backend), sockets: Sockets::bind(), state };
    let mut server = scene.start();
    let nsqds = [(); 2].map(|()| Nsqd::start_at(&programs, &[scene.sockets.tcp()], &[]));
    for nsqd in &nsqds {
        nsqd.create_topic("orders");
    }
    let http = scene.sockets.http();
    // From now on a kill at any moment leaves both.
    wait::until("both are saved", || {
        let bytes = fs::read(scene.state.path().join("nsqlookupd.state")).unwrap_or_default();
        let saved = decode(&bytes).map_err(|error| error.to_string())?.saved;
        let topic = saved.topics.first().filter(|topic| topic.producers.len() == 2);
        topic.map(|_| ()).ok_or_else(|| format!("{saved:?}"))
    });

    let (is_over, asked) = (AtomicBool::new(false), AtomicUsize::new(0));
    let failures = thread::scope(|scope| {
        let load: Vec<_> = (0..2).map(|_| scope.spawn(|| ask(http, &is_over, &asked))).collect();
        // Whatever fails here, the load is to end.
        let end_load = Ends(&is_over);
        for number in 0..count {
            let before = asked.load(Relaxed);
            wait::until_eq("lookups are served", &true, || asked.load(Relaxed) > before + 100);
            let process = scene.process();
            kill_process(process, signal).expect("the process is there");
            // Between the end of the one and the start of the other.
            let channel = format!("channel_{number}");
            let mut consumer = programs.consumer(Client::GoNsq, "orders", &channel, nsqds.len(), &[http]);
            let consumer = Daemon::start(&mut consumer);
            if signal == Signal::USR2 {
                server.wait_for_log(&format!("has taken over from process {}\n", process.as_raw_nonzero()));
            } else {
                assert!(server.wait_for_exit(wait::PATIENCE).is_some(), "it ends");
                server = scene.start();
            }
            for (nsqd, body) in nsqds.iter().zip(["first", "second"]) {
                wait::until("the consumer is there", || {
                    nsqd.unfinished("orders", &channel).ok_or_else(String::new)
                });
                nsqd.publish("orders", &[body]);
            }
            assert_eq!(consumer.finish(), ["first", "second"]);
        }
        drop(end_load);
        load.into_iter().flat_map(|thread| thread.join().expect("it does not panic")).collect::<Vec<_>>()
    });
    let (cut_short, failures): (Vec<_>, Vec<_>) = failures.into_iter().partition(|(_, error)| error.is_none());
    println!("{} lookups beside {count} restarts, {} cut short", asked.load(Relaxed), cut_short.len());
    assert!(failures.is_empty(), "of {} lookups {} failed: {failures:?}", asked.load(Relaxed), failures.len());
    cut_short.len()
}

/// Half of the lookups, at a fixed rate. Returns when which of them failed, and how; nothing for one that was cut short.
fn ask(http: SocketAddr, is_over: &AtomicBool, asked: &AtomicUsize) -> Vec<(Duration, Option<String>)> {
    let (begun, mut sent, mut failures) = (Instant::now(), 0, Vec::new());
    while !is_over.load(Relaxed) {
        // A lookup that was late does not put off the next ones.
        thread::sleep((Duration::from_secs(2) / LOOKUPS_A_SECOND * sent).saturating_sub(begun.elapsed()));
        sent += 1;
        match get_alone(http, "/lookup?topic=orders") {
            Ok(response) if listed(&response) == 2 => {}
            Ok(response) if response.is_empty() => failures.push((begun.elapsed(), None)),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => failures.push((begun.elapsed(), None)),
            Ok(response) => failures.push((begun.elapsed(), Some(response))),
            Err(error) => failures.push((begun.elapsed(), Some(error.to_string()))),
        }
        asked.fetch_add(1, Relaxed);
    }
    failures
}

/// How many producers a response lists.
fn listed(response: &str) -> usize {
    response.matches("\"broadcast_address\"").count()
}
