//! An attack, and the well-behaved clients beside it.

use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::time::ClockId;
use rustix::process::{Resource, Rlimit, Signal, getrlimit, setrlimit};

use crate::PROGRAM;
use crate::support::clients::{Nsqd, connect, get};
use crate::support::observed::Observed;
use crate::support::{PATIENCE, Server};

/// Server CPU time between a request and its response, at the 99th percentile: more is late. The clock is the server's and
/// not the wall's, so what else the machine runs makes no response late. A sanitizer makes an iteration several times as
/// long.
const LATE: Duration = Duration::from_millis(if cfg!(sanitized) { 500 } else { 50 });

/// Answers to each of the well-behaved during an attack, at least.
const ANSWERS: usize = 500;

/// Between two questions of a well-behaved client, so that it does not take part in the attack.
const PAUSE: Duration = Duration::from_micros(500);

/// What a supervisor waits for SIGTERM to work: longer than the drain.
const IN_TIME: Duration = Duration::from_secs(5);

/// How the server talks to the kernel.
#[derive(Clone, Copy)]
pub struct Driver {
    pub flags: &'static [&'static str],
}

impl Driver {
    /// One worker, so that whatever an attacker occupies is what the others need.
    pub fn flags(self) -> impl Iterator<Item = &'static str> {
        ["-workers=1"].iter().chain(self.flags).copied()
    }

    /// An attack on a server with nothing special. What it returns is held until the server has ended.
    pub fn beside<T>(self, attack: impl FnOnce(&Scene) -> T) {
        Self::beside_on(Server::start(&self.flags().collect::<Vec<_>>()), attack);
    }

    /// An attack on `server`.
    ///
    /// # Panics
    /// When a well-behaved client sees an error or late answers, before it or after it a new client is not
    /// served, or SIGTERM does not work.
    pub fn beside_on<T>(server: Server, attack: impl FnOnce(&Scene) -> T) {
        raise_open_file_limit();
        let mut scene = Scene::new(server);
        let beside = WellBehaved::start(&scene);
        scene.answered(1);
        let held = attack(&scene);
        scene.answered(ANSWERS);
        let [producer, consumer] = beside.stop();
        let peak = Observed(scene.server.pid()).peak_resident() >> 20;
        println!("server CPU time, p99: a producer {producer:?}, a consumer {consumer:?}; {peak} MiB at most");
        for p99 in [producer, consumer] {
            assert!(p99 <= LATE, "the server works {p99:?} before it responds");
        }
        // New ones are served as well.
        let _ = WellBehaved::start(&scene).stop();
        scene.server.signal(Signal::TERM);
        let status = scene.server.wait_for_exit(IN_TIME);
        assert!(status.is_some_and(|status| status.success()), "{status:?}, {}", scene.server.log());
        drop(held);
    }
}

/// A server under attack.
pub struct Scene {
    pub server: Server,
    /// What the well-behaved were answered.
    answers: Arc<AtomicUsize>,
}

impl Scene {
    fn new(server: Server) -> Self {
        Self { server, answers: Arc::default() }
    }

    /// Lets some time pass: until the well-behaved have had `count` answers each, more or less.
    pub fn answered(&self, count: usize) {
        let (begun, upto) = (Instant::now(), self.answers.load(Ordering::Relaxed) + 2 * count);
        while self.answers.load(Ordering::Relaxed) < upto {
            assert!(begun.elapsed() < PATIENCE, "the well-behaved are not answered");
            thread::sleep(PAUSE);
        }
    }

    pub fn observed(&self) -> Observed {
        Observed(self.server.pid())
    }

    /// # Panics
    /// When the server has ever been larger.
    pub fn stayed_below(&self, mebibytes: usize) {
        let peak = self.observed().peak_resident() >> 20;
        // A sanitizer keeps what was freed for a while, and notes on all that is there.
        assert!(peak < mebibytes || cfg!(sanitized), "{peak} MiB");
    }
}

/// A producer and a consumer that ask one thing after the other, each in its thread.
struct WellBehaved {
    threads: Vec<JoinHandle<Vec<Duration>>>,
    stop: Arc<AtomicBool>,
}

impl WellBehaved {
    fn start(scene: &Scene) -> Self {
        let stop: Arc<AtomicBool> = Arc::default();
        let clock = scene.observed().cpu_clock();
        let asker =
            || Asker { stop: Arc::clone(&stop), answers: Arc::clone(&scene.answers), clock, times: Vec::new() };
        let (tcp, http) = (scene.server.tcp, scene.server.http);
        // All are connected before the attack begins.
        let (producer, consumer) = (Producer::connect(tcp, http), Consumer::connect(tcp, http));
        let (producing, asking) = (asker(), asker());
        let threads = vec![
            thread::spawn(move || producer.produce(producing)),
            thread::spawn(move || consumer.consume(asking)),
        ];
        Self { threads, stop }
    }

    /// The 99th percentiles of the producer and of the consumer.
    fn stop(mut self) -> [Duration; 2] {
        self.stop.store(true, Ordering::Relaxed);
        let mut p99 = self.threads.drain(..).map(|thread| {
            let mut times = thread.join().expect("the well-behaved see no error");
            times.sort_unstable();
            times[times.len() * 99 / 100]
        });
        [(); 2].map(|()| p99.next().expect("two threads"))
    }
}

/// After a failed attack: before the server is gone.
impl Drop for WellBehaved {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.threads.drain(..).for_each(|thread| drop(thread.join()));
    }
}

/// Measures the server's work for a client.
struct Asker {
    stop: Arc<AtomicBool>,
    answers: Arc<AtomicUsize>,
    /// CPU time of the server.
    clock: ClockId,
    times: Vec<Duration>,
}

impl Asker {
    fn goes_on(&self) -> bool {
        !self.stop.load(Ordering::Relaxed) || self.times.is_empty()
    }

    fn time<T>(&mut self, ask: impl FnOnce() -> T) -> T {
        thread::sleep(PAUSE);
        let now = || Duration::from(self.clock.now().expect("the server runs"));
        let asked = now();
        let answer = ask();
        self.times.push(now().saturating_sub(asked));
        self.answers.fetch_add(1, Ordering::Relaxed);
        answer
    }
}

/// It looks up what another connection produces all the time.
struct Consumer {
    producer: Nsqd,
    client: TcpStream,
}

impl Consumer {
    fn connect(tcp: SocketAddr, http: SocketAddr) -> Self {
        let mut producer = Nsqd::identified(tcp, "steady-node", 1);
        producer.register("steady");
        Self { producer, client: connect(http) }
    }

    fn consume(mut self, mut asker: Asker) -> Vec<Duration> {
        while asker.goes_on() {
            let answer = asker.time(|| get(&mut self.client, "/lookup?topic=steady"));
            assert!(answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.contains("\"steady-node\""), "{answer}");
        }
        drop(self.producer);
        asker.times
    }
}

/// It comes and goes, and looks whether what it was answered is so.
struct Producer {
    nsqd: Nsqd,
    client: TcpStream,
}

impl Producer {
    fn connect(tcp: SocketAddr, http: SocketAddr) -> Self {
        Self { nsqd: Nsqd::identified(tcp, "busy-node", 1), client: connect(http) }
    }

    fn produce(mut self, mut asker: Asker) -> Vec<Duration> {
        while asker.goes_on() {
            for (command, listed) in
                [("REGISTER busy channel\n", true), ("PING\n", true), ("UNREGISTER busy\n", false)]
            {
                assert_eq!(asker.time(|| self.nsqd.ask(command.as_bytes())), b"OK");
                let answer = get(&mut self.client, "/lookup?topic=busy");
                assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
                assert_eq!(answer.contains("\"busy-node\""), listed, "{command}{answer}");
            }
        }
        asker.times
    }
}

/// Thousands of clients are descriptors of the test's.
fn raise_open_file_limit() {
    let maximum = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).expect("a soft limit may be raised");
}

/// The program behind a shell that does something before.
pub fn behind_shell(script: &str, flags: impl Iterator<Item = &'static str>) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", &format!("{script}; exec \"$0\" \"$@\""), PROGRAM]);
    command.args(crate::support::DEFAULTS).args(flags);
    command
}
