//! Workers, their kernels and all clients in one thread, and what must be true between them.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use ringlookupd::api;
use ringlookupd::clock::Timestamp;
use ringlookupd::context::{ServerInfo, Shared, WorkerContext};
use ringlookupd::limits::{Limits, TICK};
use ringlookupd::listen::{Listener, Protocol};
use ringlookupd::log::Log;
use ringlookupd::mailbox::Mailbox;
use ringlookupd::registry::{Lifetimes, Reader, Registry};
use ringlookupd::worker::Worker;

use crate::Fault;
use crate::client::{Client, Talk};
use crate::fault_profile::FaultProfile;
use crate::http::{self, Answer, Wanted};
use crate::kernel::Kernel;
use crate::link::{Link, ServerEnd};
use crate::rng::Rng;
use crate::v1::{self, IDENTIFY_REPLY, TOPICS};

/// Turns in which a run that is asked to end must be over, each some milliseconds long.
const LAST_TURNS: usize = 20_000;

/// What each worker's listening sockets are for: two of each protocol.
pub const LISTENERS: [Protocol; 4] = [Protocol::V1, Protocol::Http, Protocol::Http, Protocol::V1];

pub struct World {
    rng: Rng,
    now: Timestamp,
    workers: Vec<(Worker, Kernel)>,
    /// That they share.
    registry: Arc<Registry>,
    reader: Reader,
    /// What each topic's lookup was when it was last checked, for a fault.
    stale: [Vec<u8>; TOPICS.len()],
    links: Vec<Link>,
    clients: Vec<Client>,
    /// What was known when a request was sent, by client and request.
    known: Vec<Vec<Vec<Known>>>,
    stopping: bool,
    /// Time may jump past deadlines.
    jumps: bool,
    fault: Option<Fault>,
}

/// What is certain about a producer at some moment.
#[derive(Clone, Copy, Default)]
struct Known {
    /// Commands of which it has read the replies.
    answered: usize,
    /// Its worker knows that it has ended.
    gone: bool,
}

/// How much goes on in a run.
#[derive(Clone, Copy, Debug)]
pub struct Profile {
    /// At least, and at most.
    pub clients: (usize, usize),
    pub steps: (usize, usize),
    /// How many of a thousand clients are producers.
    pub producers: usize,
    /// How many of a thousand PINGs are a flood of them.
    pub floods: usize,
    /// At most so many of a thousand accepts fail, after each of which the worker rests.
    pub accept_errors: usize,
    /// Up to so many bytes make an IDENTIFY longer: then answers are shared or streamed instead of copied.
    pub padding: usize,
}

/// Few clients, so that seeds are many.
pub const FEW: Profile = Profile {
    clients: (1, 40),
    steps: (50, 1000),
    producers: 550,
    floods: 50,
    accept_errors: 1000,
    padding: 20_000,
};

/// Thousands of sessions at once.
pub const CROWD: Profile =
    Profile { clients: (1000, 4000), steps: (200, 400), producers: 950, floods: 0, accept_errors: 1, padding: 1 };

/// A registry in which no producer lapses: what time does to it is tested with the registry.
fn registry() -> Arc<Registry> {
    let for_ever = Duration::from_secs(24 * 60 * 60 * 365);
    Arc::new(Registry::new(Lifetimes { inactive_producer_timeout: for_ever, ..Lifetimes::default() }))
}

/// Workers over one registry, and the time they begin at.
pub fn workers(count: usize) -> (Vec<Worker>, Timestamp) {
    workers_over(&registry(), count)
}

fn workers_over(registry: &Arc<Registry>, count: usize) -> (Vec<Worker>, Timestamp) {
    let (identify_reply, info) = (IDENTIFY_REPLY.into(), b"{\"version\":\"1.3.0\"}".into());
    let server = Arc::new(ServerInfo { identify_reply, info, ..ServerInfo::default() });
    let shared = Arc::<Shared>::default();
    let now = Timestamp::from_nanos(1_700_000_000_000_000_000);
    let context = || {
        let (limits, shared) = (Limits::default(), Arc::clone(&shared));
        WorkerContext::new(Arc::clone(registry), Arc::clone(&server), limits, shared, Log::disabled(), now)
    };
    let mailbox = || Arc::new(Mailbox::new().expect("an eventfd"));
    let address = (Ipv4Addr::LOCALHOST, 4160).into();
    let listeners = LISTENERS.map(|protocol| Listener::bound(address, protocol));
    ((0..).take(count).map(|number| Worker::new(number, context(), mailbox(), &listeners)).collect(), now)
}

/// Plays one seed to its end and returns how many events the workers were told.
pub fn run(seed: u64, profile: Profile, fault: Option<Fault>) -> u64 {
    let mut world = World::new(seed, profile, fault);
    let steps = world.rng.between(profile.steps.0, profile.steps.1);
    for step in 0..steps {
        world.step(step);
        world.check_registry();
    }
    if world.rng.chance(500) {
        world.end_by_clients();
    }
    world.end_by_stop();
    world.workers.iter().map(|(_, kernel)| kernel.events).sum()
}

impl World {
    fn new(seed: u64, profile: Profile, fault: Option<Fault>) -> Self {
        let mut rng = Rng::new(seed);
        let often = |rng: &mut Rng| rng.pick(&[0, 20, 200]);
        let faults = FaultProfile {
            prompt: rng.pick(&[100, 500, 900]),
            no_buffers: often(&mut rng),
            disarms: often(&mut rng),
            short_send: often(&mut rng),
            accept_error: often(&mut rng).min(profile.accept_errors),
            failure: rng.pick(&[0, 0, 1, 10]),
            piece: rng.pick(&[1, 20, 4096, 65536]),
        };
        let registry = registry();
        let (workers, now) = workers_over(&registry, rng.between(1, 4));
        let workers: Vec<_> =
            workers.into_iter().map(|worker| (worker, Kernel::new(rng.next(), faults, fault))).collect();
        let mut world = Self {
            rng,
            now,
            workers,
            reader: registry.reader(),
            registry,
            stale: Default::default(),
            links: Vec::new(),
            clients: Vec::new(),
            known: Vec::new(),
            stopping: false,
            jumps: true,
            fault,
        };
        world.invite(profile);
        world
    }

    fn invite(&mut self, profile: Profile) {
        let rng = &mut self.rng;
        let padding = rng.pick(&[1, 500, 20_000]).min(profile.padding);
        let (clients, span) = (rng.between(profile.clients.0, profile.clients.1), rng.between(1, profile.steps.1));
        for number in 0..clients {
            let talk = if rng.chance(profile.producers) {
                Talk::V1(v1::Talk::new(format!("nsqd-{number}"), padding, profile.floods, rng))
            } else {
                Talk::Http { talk: http::Talk::new(rng), answered: 0 }
            };
            let port = 20_000 + u16::try_from(number).expect("few clients");
            let peer = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
            self.clients.push(Client::new(rng.below(span), peer, talk, rng));
            self.known.push(Vec::new());
        }
    }

    fn step(&mut self, step: usize) {
        for client in 0..self.clients.len() {
            if self.clients[client].starts == step {
                self.connect(client);
            }
            if self.rng.chance(300) {
                self.client_step(client);
            }
        }
        self.turns();
    }

    /// One turn for each worker, or none for some.
    fn turns(&mut self) {
        let pause = match self.rng.below(1000) {
            0..2 if !self.jumps => TICK,
            0 => Duration::from_secs(61),
            1 if self.rng.chance(100) => Duration::from_secs(61 * 60),
            2..10 => TICK,
            _ => Duration::from_micros(self.rng.size(5000) as u64),
        };
        self.now = self.now.after(pause);
        for (worker, kernel) in &mut self.workers {
            if self.rng.chance(800) && !worker.is_finished() {
                kernel.turn(worker, &mut self.links, self.now);
                assert!(worker.timeout() <= TICK);
            }
        }
    }

    fn connect(&mut self, client: usize) {
        let rng = &mut self.rng;
        let worker = rng.below(self.workers.len());
        let (protocol, boundaries) = match &self.clients[client].talk {
            Talk::V1(talk) => (Protocol::V1, talk.boundaries.clone()),
            Talk::Http { talk, .. } => (Protocol::Http, talk.boundaries.clone()),
        };
        let window = rng.size(300_000);
        let link = self.links.len();
        self.links.push(Link::new(protocol, boundaries, window));
        self.clients[client].link = Some(link);
        if !self.workers[worker].1.connect(protocol, link, self.clients[client].peer) {
            (self.links[link].server, self.links[link].cut) = (ServerEnd::Closed, true);
        }
    }

    fn client_step(&mut self, number: usize) {
        let client = &mut self.clients[number];
        let Some(link) = client.link.filter(|_| !client.over) else { return };
        let link = &mut self.links[link];
        if self.rng.chance(500) {
            client.send(link, &mut self.rng);
        }
        let answers = client.read(link, self.stopping, &mut self.rng);
        client.end(link, self.stopping);
        self.note_requests(number);
        self.check_answers(number, answers);
    }

    /// Notes what is certain when a request has been sent: its answer must know at least that.
    fn note_requests(&mut self, number: usize) {
        let Talk::Http { talk, .. } = &self.clients[number].talk else { return };
        let asked = talk.asked(self.clients[number].sent);
        if self.known[number].len() < asked {
            let now: Vec<_> = self.clients.iter().map(|client| self.know(client)).collect();
            self.known[number].resize(asked, now);
        }
    }

    fn know(&self, client: &Client) -> Known {
        let gone = client.link.is_some_and(|link| self.links[link].gone);
        Known { answered: client.answered(), gone }
    }

    /// Whatever the workers are at: a topic in the registry is what its producers have made of it.
    fn check_registry(&mut self) {
        let topic = self.rng.below(TOPICS.len());
        let mut answer = self.lookup(topic);
        if self.fault == Some(Fault::Stale) {
            std::mem::swap(&mut answer.body, &mut self.stale[topic]);
        }
        let known: Vec<_> = self.clients.iter().map(|client| self.know(client)).collect();
        self.check_status(answer.status, &known, |talk, done| talk.has_named(topic, done));
        self.check_producers(&answer, &known, |talk, done| talk.produces(topic, done));
    }

    fn lookup(&mut self, topic: usize) -> Answer {
        let found = self.reader.lookup(TOPICS[topic].as_bytes(), self.now);
        found.map_or(Answer::new(404, &[]), |body| Answer::new(200, &body.pieces().concat()))
    }

    fn check_answers(&self, number: usize, answers: Vec<Answer>) {
        let client = &self.clients[number];
        let Talk::Http { talk, answered } = &client.talk else { return };
        for (nth, mut answer) in (*answered - answers.len()..).zip(answers) {
            if self.fault == Some(Fault::Unlisted) {
                answer.body.clear();
            }
            // What is refused at its first line need not all be sent.
            let known = self.known[number].get(nth).map_or(&[][..], Vec::as_slice);
            let status = answer.status;
            match talk.requests[nth].wanted {
                Wanted::Status(wanted) => assert_eq!(status, wanted, "{answer:?}"),
                Wanted::Cut => assert_eq!(status, 400, "{answer:?}"),
                Wanted::Nodes => {
                    assert_eq!(status, 200);
                    self.check_producers(&answer, known, v1::Talk::is_identified);
                }
                Wanted::Lookup(topic) => {
                    self.check_status(status, known, |talk, done| talk.has_named(topic, done));
                    self.check_producers(&answer, known, |talk, done| talk.produces(topic, done));
                }
                Wanted::LookupAll => {
                    let any = |talk: &v1::Talk, done| (0..TOPICS.len()).any(|topic| talk.has_named(topic, done));
                    if status == 404 {
                        self.check_status(status, known, any);
                    }
                    self.check_producers(&answer, known, |talk, done| {
                        (0..TOPICS.len()).any(|topic| talk.produces(topic, done))
                    });
                }
            }
            let is_last = answer.is_last();
            assert!(!is_last || nth + 1 == *answered, "nothing follows the last answer");
        }
    }

    fn producers(&self) -> impl Iterator<Item = (usize, &Client, &v1::Talk)> {
        self.clients.iter().enumerate().filter_map(|(number, client)| match &client.talk {
            Talk::V1(talk) => Some((number, client, talk)),
            Talk::Http { .. } => None,
        })
    }

    /// A topic is there if a producer has read that it is, and only if one has asked for it.
    fn check_status(&self, status: u16, known: &[Known], has_named: impl Fn(&v1::Talk, usize) -> bool) {
        let certain = self.producers().any(|(number, _, talk)| has_named(talk, known[number].answered));
        let possible = self.producers().any(|(_, client, talk)| has_named(talk, talk.asked(client.sent)));
        match status {
            200 => assert!(possible, "a topic that nobody has made"),
            404 => assert!(!certain, "a topic whose producer has read OK is not found"),
            _ => panic!("status {status} to a lookup"),
        }
    }

    /// A producer is listed as it was at some moment between the request and now: at least as what it has read
    /// replies to, at most as what it has sent.
    fn check_producers(&self, answer: &Answer, known: &[Known], lists: impl Fn(&v1::Talk, usize) -> bool) {
        let listed = answer.listed();
        for (number, client, talk) in self.producers() {
            let Known { answered, gone } = known[number];
            let leaving = client.link.is_some_and(|link| client.is_leaving(&self.links[link]));
            let mut states = (answered..=talk.asked(client.sent)).map(|done| lists(talk, done));
            let (shown, name) = (listed.contains(talk.name.as_bytes()), &talk.name);
            if shown {
                assert!(!gone, "{name} is listed and was gone before the request");
                assert!(states.any(|state| state), "{name} is listed and has not asked for it");
            } else {
                let unlisted = gone || leaving || self.stopping || states.any(|state| !state);
                assert!(unlisted, "{name} has read OK and is not listed");
            }
        }
    }

    /// All clients leave; then nothing may be left.
    fn end_by_clients(&mut self) {
        self.hurry();
        for turn in 0.. {
            for number in 0..self.clients.len() {
                let client = &mut self.clients[number];
                if let Some(link) = client.link {
                    client.leave(&mut self.links[link]);
                }
                self.client_step(number);
            }
            self.turns();
            if self.workers.iter().all(|(worker, kernel)| worker.connections() == 0 && kernel.is_idle()) {
                return self.nobody_is_left();
            }
            assert!(turn < LAST_TURNS, "connections are left though all clients are gone: {}", self.left());
        }
    }

    /// Connections take what they registered with them.
    fn nobody_is_left(&mut self) {
        for topic in 0..TOPICS.len() {
            let answer = self.lookup(topic);
            assert!(answer.listed().is_empty(), "{answer:?}");
        }
        let mut nodes = api::nodes(&self.registry, &api::Cache::default(), self.now);
        let page = nodes.next_page().expect("a document has a page");
        assert_eq!(page.as_ref(), b"{\"producers\":[]}");
    }

    /// The server stops; clients go on as they like. Whatever they do, it is over in time.
    fn end_by_stop(&mut self) {
        self.hurry();
        self.stopping = true;
        self.jumps = self.rng.chance(300);
        for client in 0..self.clients.len() {
            // Some come too late.
            if self.clients[client].link.is_none() {
                self.connect(client);
            }
        }
        self.workers.iter_mut().for_each(|(_, kernel)| kernel.stop());
        for turn in 0.. {
            if self.workers.iter().all(|(worker, _)| worker.is_finished()) {
                break;
            }
            for number in 0..self.clients.len() {
                self.client_step(number);
            }
            self.turns();
            assert!(turn < LAST_TURNS, "the drain does not end: {}", self.left());
        }
        for (_, kernel) in &self.workers {
            // What is left was given up: because of a client, or of a jump of the clock.
            let excused = self.jumps || kernel.is_held_up(&self.links);
            assert!(excused, "connections are left by the drain: {}", self.left());
        }
    }

    /// From here on the kernels are fair.
    fn hurry(&mut self) {
        for (_, kernel) in &mut self.workers {
            kernel.faults.prompt = kernel.faults.prompt.max(500);
            kernel.faults.piece = kernel.faults.piece.max(4096);
            (kernel.faults.accept_error, kernel.faults.no_buffers) = (0, 0);
        }
        // A client whose window is a few bytes and who has half a megabyte to read is no reason to wait.
        for link in &mut self.links {
            link.window = link.window.max(4096);
        }
    }

    fn left(&self) -> String {
        let counts = self.workers.iter().map(|(worker, _)| worker.connections().to_string());
        format!("{} connections", counts.collect::<Vec<_>>().join(" + "))
    }
}
