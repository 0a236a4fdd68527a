//! What does a whole iteration of a worker cost without the kernel: events in, commit, requests out? Each takes the
//! completions of the sends before it and new input, as with clients that ask again once they have their answer.

#[expect(dead_code, reason = "here the registry changes by what clients send")]
mod population;

use std::fs::File;
use std::hint::black_box;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use population::{NOW, Population};
use ringlookupd::access::{AccessOptions, Policy};
use ringlookupd::clock::Clock;
use ringlookupd::context::{ServerInfo, Shared, WorkerContext};
use ringlookupd::io::{Event, ListenerId, Request, SendBuffer, Token};
use ringlookupd::limits::Limits;
use ringlookupd::listen::{Listener, Protocol};
use ringlookupd::log::Log;
use ringlookupd::mailbox::Mailbox;
use ringlookupd::worker::Worker;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const IDENTIFY: &str =
    r#"{"broadcast_address":"node.example","hostname":"node","http_port":4151,"tcp_port":4150,"version":"1.3.0"}"#;

/// A worker over a registry of 100 k registrations, with a kernel that does at once what it is asked.
struct Simulation {
    worker: Worker,
    clients: Vec<Token>,
    /// Answers of the last iteration; the next begins with their completion.
    sending: Vec<(Token, SendBuffer)>,
    /// Read at the end of an iteration, as a server does; it begins at the population's time.
    clock: Clock,
}

impl Simulation {
    /// Workers beside each other need a number each, so that their producers differ.
    fn new(number: u32, protocol: Protocol, clients: u16) -> Self {
        Self::with_access(number, protocol, clients, Policy::default())
    }

    fn with_access(number: u32, protocol: Protocol, clients: u16, access: Policy) -> Self {
        let server = ServerInfo { identify_reply: b"{}".to_vec(), info: b"{}".to_vec(), ..ServerInfo::default() };
        let registry = Arc::clone(&Population::of(100_000).registry);
        let (server, limits) = (Arc::new(server), Limits::default());
        let shared = Arc::<Shared>::default();
        shared.access.store(Arc::new(access));
        let context = WorkerContext::new(registry, server, limits, shared, Log::disabled(), NOW);
        let listener = Listener::bound(([127, 0, 0, 1], 4160).into(), protocol);
        let worker = Worker::new(number, context, Arc::new(Mailbox::new().expect("an eventfd")), &[listener]);
        let mut simulation = Self { worker, clients: Vec::new(), sending: Vec::new(), clock: Clock::start() };
        for nth in 0..clients {
            let peer = SocketAddr::from(([10, 0, 0, 1], 1024 + nth));
            let socket = OwnedFd::from(File::open("/dev/null").expect("a descriptor")).into();
            simulation.worker.handle(Event::Accepted { listener: ListenerId(0), socket, peer, armed: true });
        }
        simulation.end_iteration();
        simulation
    }

    /// One iteration in which each client sends its input.
    fn iterate(&mut self, inputs: &[Vec<u8>]) {
        self.worker.begin_iteration(NOW);
        for (token, buffer) in self.sending.drain(..) {
            let sent = Ok(buffer.rest().len());
            self.worker.handle(Event::Sent { token, buffer, sent });
        }
        self.worker.prefetch(inputs.iter().map(Vec::as_slice));
        for (&token, bytes) in self.clients.iter().zip(inputs) {
            self.worker.handle(Event::Received { token, bytes: black_box(bytes), armed: true });
        }
        self.end_iteration();
        self.worker.measure(self.clock.now());
        assert_eq!(self.sending.len(), inputs.len(), "each client has its answer");
    }

    fn end_iteration(&mut self) {
        self.worker.end_iteration(|| SystemTime::UNIX_EPOCH);
        for request in self.worker.requests() {
            match request {
                Request::Send { token, buffer, .. } => self.sending.push((token, buffer)),
                Request::Receive { token } => self.clients.push(token),
                Request::Accept(_) | Request::Open { .. } => {}
                other => panic!("nothing ends here: {other:?}"),
            }
        }
    }
}

/// A lookup from each of as many consumers, of a topic of its own whose answer is there.
fn lookups(c: &mut Criterion) {
    let mut group = c.benchmark_group("iteration of lookups");
    for clients in [1, 16, 64] {
        let mut made = None;
        group.throughput(Throughput::Elements(clients.into()));
        group.bench_function(clients.to_string(), |b| {
            let (simulation, requests) = made.get_or_insert_with(|| {
                let topics = &Population::of(100_000).topics;
                let requests: Vec<_> = topics.iter().step_by(100).take(clients.into()).map(request).collect();
                (Simulation::new(1, Protocol::Http, clients), requests)
            });
            simulation.iterate(requests);
            b.iter(|| simulation.iterate(requests));
        });
    }
}

/// A thousand tokens, and a thousand ranges none of which has the clients.
fn access() -> Policy {
    let tokens: Vec<_> = (0..1000).map(|nth| format!("n{nth} read token-{nth}\n")).collect();
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), tokens.concat()).expect("space for a file");
    let ranges: Vec<_> = (0..1000).map(|nth| format!("172.16.{}.{}/32", nth / 256, nth % 256)).collect();
    let options = AccessOptions {
        http_allow: Some(ranges.join(",").parse().expect("ranges")),
        auth_token_file: file.path().to_str().expect("UTF-8").to_owned(),
        ..AccessOptions::default()
    };
    Policy::load(&options, 1).expect("a policy")
}

/// The same lookups with the last of the tokens, and with the token where nobody asks for one.
fn lookups_with_tokens(c: &mut Criterion) {
    for (name, is_asked) in
        [("iteration of lookups, token unasked", false), ("iteration of lookups, 1,000 rules", true)]
    {
        let mut group = c.benchmark_group(name);
        for clients in [1, 64] {
            let mut made = None;
            group.throughput(Throughput::Elements(clients.into()));
            group.bench_function(clients.to_string(), |b| {
                let (simulation, requests) = made.get_or_insert_with(|| {
                    let topics = &Population::of(100_000).topics;
                    let topics = topics.iter().step_by(100).take(clients.into());
                    let requests: Vec<_> = topics.map(|topic| with_token(&request(topic))).collect();
                    let access = if is_asked { access() } else { Policy::default() };
                    (Simulation::with_access(1, Protocol::Http, clients, access), requests)
                });
                simulation.iterate(requests);
                b.iter(|| simulation.iterate(requests));
            });
        }
    }
}

fn with_token(request: &[u8]) -> Vec<u8> {
    [request.strip_suffix(b"\r\n").expect("a head"), b"Authorization: Bearer token-999\r\n\r\n"].concat()
}

/// As go-nsq 1.1.0 sends it.
fn request(topic: &impl std::fmt::Display) -> Vec<u8> {
    format!(
        "GET /lookup?topic={topic} HTTP/1.1\r\nHost: lookupd-1.example:4161\r\nUser-Agent: Go-http-client/1.1\r\n\
         Accept: application/vnd.nsq; version=1.0\r\nAccept-Encoding: gzip\r\n\r\n"
    )
    .into_bytes()
}

/// REGISTERs that one nsqd sends at once, or as many nsqds one each. The iterations between, which take them back, are
/// not timed.
fn registers(c: &mut Criterion) {
    let mut group = c.benchmark_group("iteration of REGISTERs");
    let shapes = [(1, 1), (1, 16), (1, 64), (16, 1), (64, 1)];
    for ((clients, pipelined), number) in shapes.into_iter().zip(1..) {
        let mut made = None;
        let registers = usize::from(clients) * pipelined;
        group.throughput(Throughput::Elements(registers as u64));
        group.bench_function(format!("{clients} nsqd x {pipelined}"), |b| {
            let (simulation, register, unregister) = made.get_or_insert_with(|| {
                let mut simulation = Simulation::new(number, Protocol::V1, clients);
                let size = u32::try_from(IDENTIFY.len()).expect("short").to_be_bytes();
                let hello = [b"  V1IDENTIFY\n".as_slice(), &size, IDENTIFY.as_bytes()].concat();
                simulation.iterate(&vec![hello; clients.into()]);
                let topics = &Population::of(100_000).topics;
                let topics: Vec<_> = topics.iter().step_by(100).take(registers).collect();
                let commands = |verb: &str, words: &str| -> Vec<_> {
                    let line = |topic| format!("{verb} {topic}{words}\n");
                    topics
                        .chunks(pipelined)
                        .map(|own| own.iter().map(line).collect::<Vec<_>>().concat().into_bytes())
                        .collect()
                };
                (simulation, commands("REGISTER", " archive"), commands("UNREGISTER", ""))
            });
            b.iter_custom(|iterations| {
                let time_one = |_| {
                    let begun = Instant::now();
                    simulation.iterate(register);
                    let took = begun.elapsed();
                    simulation.iterate(unregister);
                    took
                };
                (0..iterations).map(time_one).sum()
            });
        });
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default().warm_up_time(Duration::from_secs(1)).measurement_time(Duration::from_secs(3));
    targets = lookups, lookups_with_tokens, registers
}
criterion_main!(benches);
