//! Clients that watch and wait, on workers of their own: whatever nsqd nodes do, and however slowly a client reads, what it
//! has read in the end is what a lookup says.
//!
//! nsqd nodes register, unregister, leave and come back at random on several workers. Watchers read at random, some of them
//! seldom. When all has calmed down, the events of each are applied to its state, which must equal `/lookup`. Requests that
//! wait get their response when, and only when, it has another tag than they know.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use ringlookupd::clock::Timestamp;
use ringlookupd::listen::Protocol;
use ringlookupd::worker::Worker;
use serde_json::Value;

use crate::fault_profile::FaultProfile;
use crate::kernel::Kernel;
use crate::link::{ClientEnd, Link, ServerEnd};
use crate::rng::Rng;
use crate::{Blame, number, world};

const SEEDS: u64 = 60;
const TOPICS: [&str; 3] = ["t", "u", "v"];
const NODES: usize = 4;
/// The bytes of a comment.
const COMMENT: usize = 8;
/// For so long a node that is gone is held, and some ticks.
const CALM: Duration = Duration::from_secs(4);

/// A worker with its kernel and its clients.
struct Side {
    worker: Worker,
    kernel: Kernel,
    links: Vec<Link>,
}

impl Side {
    fn new(worker: Worker, seed: u64, faults: FaultProfile) -> Self {
        Self { worker, kernel: Kernel::new(seed, faults, None), links: Vec::new() }
    }

    /// A client that sends this, and what it may have unread.
    fn connect(&mut self, protocol: Protocol, window: usize, sent: &[u8]) -> usize {
        let mut link = Link::new(protocol, vec![0], window);
        link.upload.extend(sent);
        self.links.push(link);
        let number = self.links.len() - 1;
        let port = u16::try_from(number + 1).expect("few");
        assert!(self.kernel.connect(protocol, number, SocketAddr::from((Ipv4Addr::LOCALHOST, port))));
        number
    }

    fn turn(&mut self, now: Timestamp) {
        self.kernel.turn(&mut self.worker, &mut self.links, now);
    }
}

/// An nsqd: where it is connected, and the topics that it has registered there.
#[derive(Default)]
struct Node {
    link: Option<(usize, usize)>,
    topics: BTreeSet<usize>,
}

/// A client that watches a topic, or several.
struct Watcher {
    side: usize,
    link: usize,
    topics: Vec<&'static str>,
    /// How often of a thousand it reads.
    reads: usize,
    is_slow: bool,
    read: Vec<u8>,
}

struct Scene {
    rng: Rng,
    sides: Vec<Side>,
    now: Timestamp,
    nodes: Vec<Node>,
    watchers: Vec<Watcher>,
}

fn identify(node: usize) -> Vec<u8> {
    let body = format!(r#"{{"broadcast_address":"n{node}","tcp_port":4150,"http_port":4151,"version":"1"}}"#);
    let length = u32::try_from(body.len()).expect("short").to_be_bytes();
    [b"  V1IDENTIFY\n".as_slice(), &length, body.as_bytes()].concat()
}

impl Scene {
    fn new(seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let faults = FaultProfile {
            prompt: rng.pick(&[300, 900, 1000]),
            disarms: rng.pick(&[0, 20]),
            short_send: rng.pick(&[0, 20, 200]),
            piece: rng.pick(&[20, 4096]),
            ..FaultProfile::KIND
        };
        let (workers, now) = world::workers(rng.between(1, 4));
        let sides = workers.into_iter().map(|worker| Side::new(worker, rng.next(), faults)).collect();
        let nodes = (0..NODES).map(|_| Node::default()).collect();
        let mut scene = Self { rng, sides, now, nodes, watchers: Vec::new() };
        for _ in 0..scene.rng.between(1, 8) {
            scene.watch();
        }
        scene
    }

    fn watch(&mut self) {
        let side = self.rng.below(self.sides.len());
        let mut topics = TOPICS.to_vec();
        self.rng.shuffle(&mut topics);
        topics.truncate(self.rng.between(1, TOPICS.len() + 1));
        let query: Vec<_> = topics.iter().map(|topic| format!("topic={topic}")).collect();
        let request = format!("GET /watch?{} HTTP/1.1\r\nHost: h\r\n\r\n", query.join("&"));
        let window = self.rng.pick(&[100, 1 << 12, 1 << 20]);
        let link = self.sides[side].connect(Protocol::Http, window, request.as_bytes());
        let reads = self.rng.pick(&[3, 300, 1000]);
        self.watchers.push(Watcher { side, link, topics, reads, is_slow: reads < 10, read: Vec::new() });
    }

    /// An nsqd does something.
    fn change(&mut self) {
        let number = self.rng.below(NODES);
        let topic = self.rng.below(TOPICS.len());
        let node = &mut self.nodes[number];
        match node.link {
            None => {
                let side = self.rng.below(self.sides.len());
                let link = self.sides[side].connect(Protocol::V1, 1 << 20, &identify(number));
                node.link = Some((side, link));
            }
            Some((side, link)) => {
                let upload = &mut self.sides[side].links[link];
                match self.rng.below(10) {
                    0 => {
                        upload.client = ClientEnd::Finished;
                        *node = Node::default();
                    }
                    1..4 => {
                        node.topics.remove(&topic);
                        upload.upload.extend(format!("UNREGISTER {}\n", TOPICS[topic]).bytes());
                    }
                    _ => {
                        node.topics.insert(topic);
                        let channel = self.rng.below(3);
                        upload.upload.extend(format!("REGISTER {} c{channel}\n", TOPICS[topic]).bytes());
                    }
                }
            }
        }
    }

    fn turns(&mut self) {
        self.now = self.now.after(Duration::from_millis(self.rng.pick(&[1, 5, 100])));
        for side in &mut self.sides {
            side.turn(self.now);
            // An nsqd reads what it is sent.
            for link in side.links.iter_mut().filter(|link| link.protocol == Protocol::V1) {
                link.download.clear();
            }
        }
        for watcher in &mut self.watchers {
            if self.rng.chance(watcher.reads) {
                watcher.read.extend(self.sides[watcher.side].links[watcher.link].download.drain(..));
            }
        }
    }

    fn calm_down(&mut self) {
        self.watchers.iter_mut().for_each(|watcher| watcher.reads = 1000);
        let end = self.now.after(CALM);
        let read = |scene: &Self| scene.watchers.iter().map(|watcher| watcher.read.len()).sum::<usize>();
        let mut before = usize::MAX;
        // Until nothing but comments has come for a hundred turns.
        while self.now < end || read(self) > before.saturating_add(COMMENT * self.watchers.len()) {
            before = read(self);
            (0..100).for_each(|_| self.turns());
        }
    }

    /// The nodes and channels that a lookup of the topic shows, on any worker.
    fn lookup(&mut self, topic: &str) -> Option<Known> {
        let side = self.rng.below(self.sides.len());
        let request = format!("GET /lookup?topic={topic} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
        let link = self.sides[side].connect(Protocol::Http, 1 << 20, request.as_bytes());
        let mut response = Vec::new();
        while !self.sides[side].links[link].is_at_end() {
            self.turns();
            response.extend(self.sides[side].links[link].download.drain(..));
        }
        let response = String::from_utf8(response).expect("UTF-8");
        let (head, body) = response.split_once("\r\n\r\n").expect("a head");
        head.starts_with("HTTP/1.1 200").then(|| Known::of(&serde_json::from_str(body).expect("JSON")))
    }
}

/// What a client knows of a topic.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct Known {
    nodes: BTreeMap<String, Value>,
    channels: BTreeSet<String>,
}

fn node(value: &Value) -> String {
    format!("{}:{}", value["broadcast_address"].as_str().expect("a text"), value["tcp_port"])
}

fn text(value: &Value) -> String {
    value.as_str().expect("a text").to_owned()
}

/// A producer but for the port of its connection: a reconnect within the hold is no event.
fn described(producer: &Value) -> Value {
    let mut producer = producer.clone();
    producer.as_object_mut().expect("an object").remove("remote_address");
    producer
}

impl Known {
    fn of(lookup: &Value) -> Self {
        let producers = lookup["producers"].as_array().expect("an array");
        Self {
            nodes: producers.iter().map(|producer| (node(producer), described(producer))).collect(),
            channels: lookup["channels"].as_array().expect("an array").iter().map(text).collect(),
        }
    }
}

/// Plays a stream to the end: what its client knows of each topic that exists.
fn play(stream: &[u8], topics: &[&str]) -> BTreeMap<String, Known> {
    let text_of = String::from_utf8(dechunk(stream)).expect("UTF-8");
    let mut known: BTreeMap<String, Known> = BTreeMap::new();
    for event in text_of.split("\n\n").filter(|event| event.contains("event: ")) {
        let field = |name: &str| event.lines().find_map(|line| line.strip_prefix(name));
        let (kind, data) = (field("event: ").expect("a name"), field("data: ").expect("data"));
        let data: Value = serde_json::from_str(data).expect("JSON");
        if kind == "settled" {
            continue;
        }
        let topic = text(&data["topic"]);
        assert!(topics.contains(&topic.as_str()), "{event}");
        let exists = data["change"] == "created";
        match kind {
            "snapshot" if data["exists"] == true => _ = known.insert(topic, Known::of(&data)),
            "topic" if exists => _ = known.entry(topic).or_default(),
            "snapshot" | "topic" => _ = known.remove(&topic),
            "channel" => {
                let channels = &mut known.entry(topic).or_default().channels;
                let channel = text(&data["channel"]);
                _ = if exists { channels.insert(channel) } else { channels.remove(&channel) };
            }
            "up" => {
                let producer = &data["producer"];
                known.entry(topic).or_default().nodes.insert(node(producer), described(producer));
            }
            "down" => _ = known.entry(topic).or_default().nodes.remove(&node(&data)),
            other => panic!("{other}: {event}"),
        }
    }
    known
}

/// The body of a response in chunks, as far as it is there.
fn dechunk(response: &[u8]) -> Vec<u8> {
    let head = response.windows(4).position(|bytes| bytes == b"\r\n\r\n").expect("a head") + 4;
    assert!(response.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(response));
    let (mut rest, mut body) = (&response[head..], Vec::new());
    while let Some(end) = rest.windows(2).position(|bytes| bytes == b"\r\n") {
        let length = str::from_utf8(&rest[..end]).expect("digits");
        let length = usize::from_str_radix(length, 16).expect("a length");
        // A comment may be on its way.
        let Some(chunk) = rest.get(end + 2..end + 2 + length) else { break };
        body.extend_from_slice(chunk);
        rest = rest.get(end + 4 + length..).unwrap_or_default();
    }
    body
}

fn run(seed: u64) {
    let _blame = Blame(seed, "watching");
    let mut scene = Scene::new(seed);
    for _ in 0..scene.rng.between(50, 600) {
        for _ in 0..scene.rng.below(4) {
            scene.change();
        }
        scene.turns();
        if scene.rng.chance(20) {
            scene.watch();
        }
    }
    scene.calm_down();
    let lookups: Vec<_> = TOPICS.map(|topic| (topic, scene.lookup(topic))).into();
    scene.calm_down();
    let expected: BTreeMap<_, _> =
        lookups.into_iter().filter_map(|(topic, known)| Some((topic.to_owned(), known?))).collect();
    for (nth, watcher) in scene.watchers.iter().enumerate() {
        // One that has read nothing for a minute is closed.
        if scene.sides[watcher.side].links[watcher.link].server != ServerEnd::Open {
            assert!(watcher.is_slow);
            continue;
        }
        let known = play(&watcher.read, &watcher.topics);
        let expected: BTreeMap<_, _> = expected
            .iter()
            .filter(|(topic, _)| watcher.topics.contains(&topic.as_str()))
            .map(|(topic, known)| (topic.clone(), known.clone()))
            .collect();
        assert!(known == expected, "watcher {nth} knows {known:#?}, not {expected:#?}");
    }
}

#[test]
fn what_a_watcher_knows_in_the_end_is_what_a_lookup_says() {
    match number("RINGLOOKUPD_SEED") {
        Some(seed) => run(seed),
        None => (0..number("RINGLOOKUPD_SEEDS").unwrap_or(SEEDS)).for_each(run),
    }
}

/// A request that waits responds when something changes, on whatever worker, and not before.
#[test]
fn a_request_waits_for_a_change() {
    for workers in 1..4 {
        let (workers, mut now) = world::workers(workers);
        let mut sides: Vec<_> =
            workers.into_iter().map(|worker| Side::new(worker, 1, FaultProfile::KIND)).collect();
        let last = sides.len() - 1;
        let turns = |sides: &mut Vec<Side>, now: &mut Timestamp| {
            for _ in 0..20 {
                *now = now.after(Duration::from_millis(1));
                for side in sides.iter_mut() {
                    side.turn(*now);
                }
            }
        };
        let nsqd = sides[0].connect(Protocol::V1, 1 << 20, &[identify(0), b"REGISTER t\n".to_vec()].concat());
        turns(&mut sides, &mut now);
        let ask = |target: &str, tag: &str| {
            let tag = if tag.is_empty() { String::new() } else { format!("If-None-Match: {tag}\r\n") };
            format!("GET {target} HTTP/1.1\r\nHost: h\r\n{tag}\r\n").into_bytes()
        };
        for (target, change) in [
            ("/lookup?topic=t&wait=60s", "REGISTER t c\n"),
            ("/channels?topic=t&wait=60s", "REGISTER t d\n"),
            ("/topics?wait=60s", "REGISTER u\n"),
            ("/nodes?wait=60s", "REGISTER v\n"),
            ("/lookup?topic=t&channels=false&wait=60s", "UNREGISTER t\n"),
        ] {
            let client = sides[last].connect(Protocol::Http, 1 << 20, &ask(target, ""));
            turns(&mut sides, &mut now);
            let read = |sides: &mut Vec<Side>| {
                String::from_utf8(sides[last].links[client].download.drain(..).collect()).expect("UTF-8")
            };
            let first = read(&mut sides);
            let tag = first.lines().find_map(|line| line.strip_prefix("ETag: ")).expect("a tag").to_owned();
            sides[last].links[client].upload.extend(ask(target, &tag));
            turns(&mut sides, &mut now);
            assert_eq!(read(&mut sides), "", "{target}");
            // What its response does not show.
            sides[0].links[nsqd].upload.extend(b"REGISTER other\nUNREGISTER other\nPING\n".iter());
            if target.starts_with("/lookup") || target.starts_with("/channels") {
                turns(&mut sides, &mut now);
                assert_eq!(read(&mut sides), "", "{target}");
            }
            sides[0].links[nsqd].upload.extend(change.bytes());
            turns(&mut sides, &mut now);
            let second = read(&mut sides);
            assert!(second.starts_with("HTTP/1.1 200") && !second.contains(&tag), "{target}: {second}");
            // The connection goes on.
            sides[last].links[client].upload.extend(b"GET /ping HTTP/1.1\r\nHost: h\r\n\r\n".iter());
            turns(&mut sides, &mut now);
            assert!(read(&mut sides).ends_with("\r\n\r\nOK"), "{target}");
        }
    }
}
