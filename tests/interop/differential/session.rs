//! One session: the same steps sent to both servers, and every reply compared.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Instant;

use serde_json::Value;

use crate::rng::Rng;
use crate::support::clients::http::content;
use crate::support::{PATIENCE, Server};

use super::differences::{Asked, is_avoided, is_not_compared};
use super::http::Request;
use super::normal::normal;
use super::v1::{Act, Producer, cut, quoted};
use super::wire::{Connection, Protocol, Reply};

/// Connections of each kind at the same time.
const PRODUCERS: usize = 5;
const CONSUMERS: usize = 3;

/// A difference that a canary plants.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// The last bit of a reply of ringlookupd.
    Bit,
    /// The case of a letter in a header of ringlookupd.
    Header,
    /// A topic that only stock is told of.
    Topic,
}

/// How to start a server: the program and its flags.
pub struct Program<'a> {
    pub path: &'a Path,
    pub flags: Vec<String>,
}

/// Both servers, and the clients of both.
pub struct Session {
    /// Stock, and the one under test. Both have the same ports, on addresses of their own.
    servers: [Server; 2],
    /// The address of all clients.
    host: Ipv4Addr,
    port: u16,
    producers: BTreeMap<u16, (Producer, Pair)>,
    consumers: BTreeMap<u16, Consumer>,
    observer: Option<Pair>,
    rng: Rng,
    fault: Option<Fault>,
    is_planted: bool,
    steps: String,
    replies: usize,
    tombstoned: bool,
}

/// A connection to each server.
type Pair = [Connection; 2];

struct Consumer {
    pair: Pair,
    /// A request that has been sent in part, and the rest of its bytes.
    begun: Option<(Request, Vec<u8>)>,
}

/// Plays one seed; the count of replies compared, or what differed.
pub fn play(stock: &Path, ours: &Program, seed: u64, fault: Option<Fault>) -> Result<usize, String> {
    let mut session = Session::start(stock, ours, seed, fault);
    let played = session.play();
    match played {
        Ok(()) => Ok(session.replies),
        Err(what) => Err(format!(
            "the steps so far:\n{}\n{what}\n\nlog of ringlookupd:\n{}",
            session.steps,
            session.servers[1].log()
        )),
    }
}

impl Session {
    fn start(stock: &Path, ours: &Program, seed: u64, fault: Option<Fault>) -> Self {
        let mut rng = Rng::new(seed);
        let mut flags = vec!["-broadcast-address=lookupd".to_owned()];
        if rng.chance(150) {
            flags.push("-tombstone-lifetime=0s".to_owned());
        }
        let first = Server::start_program(stock, &flags);
        let own = |server: SocketAddr| SocketAddr::from((Ipv4Addr::new(127, 0, 0, 2), server.port()));
        let addresses = [format!("-tcp-address={}", own(first.tcp)), format!("-http-address={}", own(first.http))];
        let second = Server::start_program(ours.path, &[&flags[..], &ours.flags, &addresses].concat());
        Self {
            servers: [first, second],
            host: host(),
            port: 10_000,
            producers: BTreeMap::new(),
            consumers: BTreeMap::new(),
            observer: None,
            rng,
            fault,
            is_planted: false,
            steps: String::new(),
            replies: 0,
            tombstoned: false,
        }
    }

    fn play(&mut self) -> Result<(), String> {
        let steps = self.rng.size(400);
        for nth in 0..steps {
            if nth == steps / 2 {
                self.plant()?;
            }
            if self.rng.chance(600) {
                self.producer_step()?;
            } else {
                self.consumer_step()?;
            }
            if self.rng.chance(150) {
                self.look()?;
            }
        }
        self.leave()?;
        self.look()
    }

    /// Connects to both servers from the same address.
    fn open(&mut self, protocol: Protocol) -> Result<(u16, Pair), String> {
        loop {
            self.port += 1;
            let opened = [0, 1].map(|nth| self.connect(protocol, nth));
            match opened {
                [Ok(stock), Ok(ours)] => return Ok((self.port, [stock, ours])),
                [Err(error), _] | [_, Err(error)] if error.kind() != ErrorKind::AddrInUse => {
                    return Err(format!("no connection: {error}"));
                }
                // Some other program has that port.
                _ => {}
            }
        }
    }

    fn connect(&self, protocol: Protocol, nth: usize) -> io::Result<Connection> {
        let server = &self.servers[nth];
        let address = if protocol == Protocol::V1 { server.tcp } else { server.http };
        Connection::open(protocol, (self.host, self.port).into(), address)
    }

    /// One step of a producer.
    fn producer_step(&mut self) -> Result<(), String> {
        let (port, (mut producer, mut pair)) = self.pick_producer()?;
        let act = producer.next(&mut self.rng);
        writeln!(self.steps, "V1 {port}: {act}").expect("a string takes all");
        let count = match act {
            Act::Send(pieces, replies) => {
                for connection in &mut pair {
                    connection.send(&pieces, &[]);
                }
                replies
            }
            Act::Finish(pieces) => {
                for connection in &mut pair {
                    connection.send(&pieces, &[]);
                    connection.finish();
                }
                usize::MAX
            }
            Act::Leave(piece) => {
                for mut connection in pair {
                    connection.send(std::slice::from_ref(&piece), &[]);
                }
                return self.await_departure(port);
            }
            Act::Reset => {
                pair.into_iter().for_each(Connection::reset);
                return self.await_departure(port);
            }
        };
        let replies = pair.each_mut().map(|connection| connection.replies(count));
        let over = replies[0].iter().any(Reply::is_end);
        self.compare(&replies, &[], false)?;
        if over {
            drop(pair);
            return self.await_departure(port);
        }
        self.producers.insert(port, (producer, pair));
        Ok(())
    }

    fn pick_producer(&mut self) -> Result<(u16, (Producer, Pair)), String> {
        let chosen = self.producers.keys().copied().nth(self.rng.below(PRODUCERS));
        if let Some(known) = chosen.and_then(|port| self.producers.remove_entry(&port)) {
            return Ok(known);
        }
        let (port, pair) = self.open(Protocol::V1)?;
        Ok((port, (Producer::default(), pair)))
    }

    /// Waits until neither server lists the producer of a connection that has ended.
    fn await_departure(&mut self, port: u16) -> Result<(), String> {
        let id = format!("\"id\":\"{}:{port}\"", self.host);
        let begun = Instant::now();
        loop {
            let [stock, ours] = self.observe("/debug")?;
            let has = |replies: &[Reply]| match &replies[0] {
                Reply::Response(bytes) => memchr::memmem::find(bytes, id.as_bytes()).is_some(),
                _ => false,
            };
            match (has(&stock), has(&ours)) {
                (false, false) => return Ok(()),
                left if begun.elapsed() > PATIENCE => {
                    return Err(format!("{id} has gone and is listed by (stock, ringlookupd): {left:?}"));
                }
                _ => {}
            }
        }
    }

    /// One step of a consumer: requests on one connection.
    fn consumer_step(&mut self) -> Result<(), String> {
        let (port, mut consumer) = self.pick_consumer()?;
        let (mut requests, mut bytes) = match consumer.begun.take() {
            Some((request, rest)) => (vec![request], rest),
            None => Default::default(),
        };
        let begun = requests.len();
        while requests.is_empty() || self.rng.chance(250) && requests.last().is_none_or(|last| !last.open_ended) {
            let request = Request::random(&mut self.rng);
            if !is_avoided(&request, self.tombstoned) {
                self.tombstoned |= Asked::new(&request).is_tombstone();
                bytes.extend(&request.bytes);
                requests.push(request);
            }
        }
        let heads: Vec<_> = requests[begun..].iter().map(|request| request.method == "HEAD").collect();
        let last = requests.last().expect("one at least");
        let finishes = last.open_ended || self.rng.chance(20);
        let held = if !finishes && requests.len() > begun && self.rng.chance(60) {
            // Stock runs some handlers as soon as it has the head, so other steps must not come before the body.
            last.bytes.len() - self.rng.below(last.head_len)
        } else {
            0
        };
        let rest = bytes.split_off(bytes.len() - held);
        let pieces = cut(&mut self.rng, bytes);
        let end = if finishes { " and FIN" } else { "" };
        writeln!(self.steps, "HTTP {port}: {}{end}", quoted(&pieces)).expect("a string takes all");

        let count = if finishes { usize::MAX } else { requests.len() - usize::from(held > 0) };
        let replies = consumer.pair.each_mut().map(|connection| {
            connection.send(&pieces, &heads);
            if finishes {
                connection.finish();
            }
            connection.replies(count)
        });
        let over = replies[0].iter().any(Reply::is_end);
        self.compare(&replies, &requests, finishes)?;
        if !over {
            consumer.begun = (held > 0).then(|| requests.pop()).flatten().map(|request| (request, rest));
            self.consumers.insert(port, consumer);
        }
        Ok(())
    }

    fn pick_consumer(&mut self) -> Result<(u16, Consumer), String> {
        let chosen = self.consumers.keys().copied().nth(self.rng.below(CONSUMERS));
        if let Some(known) = chosen.and_then(|port| self.consumers.remove_entry(&port)) {
            return Ok(known);
        }
        let (port, pair) = self.open(Protocol::Http)?;
        Ok((port, Consumer { pair, begun: None }))
    }

    /// Compares all read endpoints.
    fn look(&mut self) -> Result<(), String> {
        self.steps.push_str("(look)\n");
        if self.rng.chance(200) {
            self.observer = None;
        }
        for target in ["/ping", "/info", "/nodes", "/debug", "/channels?topic=nobody", "/lookup?topic=nobody"] {
            self.look_at(target)?;
        }
        let topics = self.look_at("/topics")?;
        let topics: Value = serde_json::from_slice(&content(&topics).1).map_err(|error| error.to_string())?;
        for topic in topics["topics"].as_array().into_iter().flatten() {
            let topic = topic.as_str().unwrap_or_default().replace('#', "%23");
            self.look_at(&format!("/channels?topic={topic}"))?;
            self.look_at(&format!("/lookup?topic={topic}"))?;
        }
        Ok(())
    }

    /// Compares one read endpoint, and returns stock's response.
    fn look_at(&mut self, target: &str) -> Result<Vec<u8>, String> {
        let replies = self.observe(target)?;
        self.compare(&replies, &[], false).map_err(|wrong| format!("GET {target}: {wrong}"))?;
        match &replies[0][..] {
            [Reply::Response(bytes)] => Ok(bytes.clone()),
            _ => Err(format!("GET {target}: the connection has ended")),
        }
    }

    /// Sends a GET on a connection that no step uses.
    fn observe(&mut self, target: &str) -> Result<[Vec<Reply>; 2], String> {
        let mut pair = match self.observer.take() {
            Some(pair) => pair,
            None => self.open(Protocol::Http)?.1,
        };
        let request = Request::get(target).bytes;
        let replies = pair.each_mut().map(|connection| {
            connection.send(std::slice::from_ref(&request), &[false]);
            connection.replies(1)
        });
        self.observer = Some(pair);
        Ok(replies)
    }

    /// Ends all connections, and compares what was still unread.
    fn leave(&mut self) -> Result<(), String> {
        self.steps.push_str("(all leave)\n");
        let producers = std::mem::take(&mut self.producers);
        let consumers = std::mem::take(&mut self.consumers);
        let consumers = consumers.into_iter().map(|(port, consumer)| (port, consumer.pair));
        for (port, mut pair) in producers.into_iter().map(|(port, (_, pair))| (port, pair)).chain(consumers) {
            let replies = pair.each_mut().map(|connection| {
                connection.finish();
                connection.replies(usize::MAX)
            });
            self.compare(&replies, &[], true).map_err(|wrong| format!("the end of {port}: {wrong}"))?;
            self.await_departure(port)?;
        }
        Ok(())
    }

    /// Compares what both have replied to the `requests`, or to commands.
    fn compare(&mut self, replies: &[Vec<Reply>; 2], requests: &[Request], finished: bool) -> Result<(), String> {
        let [stock, ours] = replies;
        for nth in 0..stock.len().max(ours.len()) {
            let pair = [stock.get(nth), ours.get(nth)];
            if let [Some(Reply::Response(stock)), Some(Reply::Response(_))] = pair
                && requests.get(nth).is_some_and(|request| is_not_compared(request, stock))
            {
                continue;
            }
            let [stock, mut ours] = pair.map(|reply| reply.map(|reply| normal(reply, finished)));
            if let Some(ours) = &mut ours {
                self.spoil(ours);
            }
            // By RST, which Go's server sends if bytes are unread, stock loses replies that it has not sent yet.
            if let [Some(Reply::Reset(_)), Some(_)] = pair
                && replies[1].last().is_some_and(Reply::is_end)
            {
                return Ok(());
            }
            if stock != ours {
                let shown = |reply: Option<&Reply>| reply.map_or("(none)".to_owned(), Reply::to_string);
                let [stock, ours] = pair.map(shown);
                return Err(format!("reply {} differs\nnsqlookupd:\n{stock}\nringlookupd:\n{ours}", nth + 1));
            }
            if let Some(Reply::Silence(_)) = pair[0] {
                return Err(format!("neither server replies: the step is wrong; reply {}", nth + 1));
            }
            self.replies += 1;
        }
        Ok(())
    }

    /// Starts the fault of a canary.
    fn plant(&mut self) -> Result<(), String> {
        self.is_planted = true;
        self.steps.push_str("(canary)\n");
        if self.fault == Some(Fault::Topic) {
            self.port += 1;
            let mut stock = self.connect(Protocol::Http, 0).map_err(|error| error.to_string())?;
            stock.send(&[b"POST /topic/create?topic=planted HTTP/1.1\r\nHost: h\r\n\r\n".to_vec()], &[false]);
            stock.replies(1);
        }
        Ok(())
    }

    /// Changes a reply for a canary.
    fn spoil(&self, reply: &mut [u8]) {
        match self.fault {
            Some(Fault::Bit) if self.is_planted => *reply.last_mut().expect("no reply is empty") ^= 1,
            Some(Fault::Header) if self.is_planted && reply.starts_with(b"HTTP/") => {
                let line = memchr::memchr(b'\n', reply).expect("a status line");
                reply[line + 1] ^= 0x20;
            }
            _ => {}
        }
    }
}

/// An address for the clients of one session, which no other recent session has had.
fn host() -> Ipv4Addr {
    static SESSIONS: AtomicU16 = AtomicU16::new(0);
    let [high, low] = SESSIONS.fetch_add(1, Ordering::Relaxed).to_be_bytes();
    let process = u8::try_from(std::process::id() % 200).expect("below 256");
    Ipv4Addr::new(127, 16 + process, high, low)
}
