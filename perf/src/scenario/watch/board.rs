//! The changes of each topic, how many of them each watcher knows, and what an event or a listing may say next.

use std::cell::{Cell, RefCell};
use std::hash::BuildHasher;
use std::rc::Rc;
use std::time::Instant;

use foldhash::quality::RandomState;
use memchr::{memchr, memmem};

use super::script::{self, Present, Step};
use super::writers::groups;
use crate::answers::{Checker, Down, Up, parse};
use crate::measure::Latencies;
use crate::population::{Population, Run};
use crate::wire::events::Event;
use crate::wire::http::Answer;

/// The topics of a population, which a group of nsqds changes and watchers watch.
pub struct Board {
    population: Population,
    checker: Checker,
    hasher: RandomState,
    topics: Vec<Topic>,
    watchers: RefCell<Vec<Rc<Watcher>>>,
    found: RefCell<Found>,
}

struct Topic {
    name: String,
    changes: RefCell<Vec<Change>>,
    watchers: Cell<u64>,
}

/// A change of a topic, by its number in the script.
struct Change {
    sent: Instant,
    ok: Option<Instant>,
    /// The hash of an event that was found right for it: the same bytes are right again.
    right: Option<u64>,
}

/// A watcher of one topic.
pub struct Watcher {
    topic: u32,
    /// How many of its changes the watcher knows.
    known: Cell<u64>,
}

/// What watchers received.
#[derive(Default)]
pub struct Found {
    /// From the `OK` to REGISTER that was read, to the watcher; 0 when that knew of it earlier.
    pub up_after_ok: Latencies,
    /// From REGISTER.
    pub up_after_sent: Latencies,
    /// From the `OK` to UNREGISTER.
    pub down_after_ok: Latencies,
    /// Changes that watchers were to know, each once for each watcher.
    pub expected: u64,
    /// Those of them that they know.
    pub received: u64,
    /// Before the `OK` was read.
    pub before_ok: u64,
    /// With a later one in the same response or snapshot.
    pub coalesced: u64,
    /// Events and responses that repeat what was known.
    pub repeated: u64,
    /// Snapshots instead of events.
    pub snapshots: u64,
}

impl Board {
    pub fn new(run: &Run, population: Population) -> Self {
        let topic = |topic| Topic { name: run.topic(topic), changes: RefCell::default(), watchers: Cell::new(0) };
        Self {
            population,
            checker: Checker::new(population),
            hasher: RandomState::default(),
            topics: (0..population.topics).map(topic).collect(),
            watchers: RefCell::default(),
            found: RefCell::default(),
        }
    }

    pub fn topics(&self) -> u32 {
        self.population.topics
    }

    pub fn name(&self, topic: u32) -> &str {
        &self.topic(topic).name
    }

    pub fn found(&self) -> std::cell::Ref<'_, Found> {
        self.found.borrow()
    }

    /// Changes of a topic so far.
    pub fn changes(&self, topic: u32) -> u64 {
        self.topic(topic).changes.borrow().len() as u64
    }

    /// Changes of all topics so far.
    pub fn all_changes(&self) -> u64 {
        (0..self.topics()).map(|topic| self.changes(topic)).sum()
    }

    /// Notes that the next change of a topic is about to be sent.
    pub fn begin(&self, topic: u32, sent: Instant) {
        let topic = self.topic(topic);
        topic.changes.borrow_mut().push(Change { sent, ok: None, right: None });
        self.found.borrow_mut().expected += topic.watchers.get();
    }

    /// Notes that the `OK` to it was read.
    pub fn done(&self, topic: u32, ok: Instant) {
        self.topic(topic).changes.borrow_mut().last_mut().expect("it has begun").ok = Some(ok);
    }

    /// Adds a watcher with its first listing of a topic, which nobody changes meanwhile.
    ///
    /// # Errors
    /// A listing that differs from what is registered.
    pub fn join(&self, topic: u32, listing: &[u8]) -> Result<Rc<Watcher>, String> {
        let changes = self.changes(topic);
        let listed = self.present(topic, listing)?;
        if listed != script::present(changes) {
            return Err(self.differs(topic, listed, changes));
        }
        let watcher = Rc::new(Watcher { topic, known: Cell::new(changes) });
        self.watchers.borrow_mut().push(Rc::clone(&watcher));
        let watchers = &self.topic(topic).watchers;
        watchers.set(watchers.get() + 1);
        Ok(watcher)
    }

    /// The same of the first event of a stream.
    ///
    /// # Errors
    /// As [`Self::join`], and any other event.
    pub fn join_by(&self, topic: u32, event: Event<'_>) -> Result<Rc<Watcher>, String> {
        if event.name == b"snapshot" { self.join(topic, event.data) } else { Err("a snapshot was due".into()) }
    }

    /// Checks a watcher's next event and records it.
    ///
    /// # Errors
    /// What is not the watcher's next change, and no repetition of what the watcher knows.
    pub fn event(&self, watcher: &Watcher, event: Event<'_>, now: Instant) -> Result<(), String> {
        match event.name {
            b"up" => self.changed(watcher, Step::Registers, event.data, now),
            b"down" => self.changed(watcher, Step::Unregisters, event.data, now),
            b"snapshot" => {
                self.found.borrow_mut().snapshots += 1;
                self.listed(watcher, event.data, now)
            }
            b"settled" => Ok(()),
            b"bye" => Err("the server ends the watch".into()),
            _ => Err("no change has such an event".into()),
        }
    }

    fn changed(&self, watcher: &Watcher, step: Step, data: &[u8], now: Instant) -> Result<(), String> {
        let known = watcher.known.get();
        let hash = self.hasher.hash_one((step == Step::Registers, data));
        let is_next = |change: &Change| change.right == Some(hash);
        let next = usize::try_from(known).expect("changes are in memory");
        if !self.topic(watcher.topic).changes.borrow().get(next).is_some_and(is_next) {
            let Some(nsqd) = self.nsqd(watcher.topic, step, data)? else {
                self.found.borrow_mut().repeated += 1;
                return Ok(());
            };
            let due = script::change(known);
            if (step, nsqd) != due {
                let is_there = script::present(known) & (1 << nsqd) != 0;
                if is_there == (step == Step::Registers) {
                    self.found.borrow_mut().repeated += 1;
                    return Ok(());
                }
                return Err(format!("an event is missing or wrong: due was that {}", self.due(watcher)));
            }
            let mut changes = self.topic(watcher.topic).changes.borrow_mut();
            changes.get_mut(next).ok_or("it has not happened yet")?.right = Some(hash);
        }
        self.advance(watcher, known + 1, now);
        Ok(())
    }

    /// Which nsqd of the topic's group an event is about; `None` when it is one of the population that is there anyway.
    fn nsqd(&self, topic: u32, step: Step, data: &[u8]) -> Result<Option<u32>, String> {
        let (named, address) = match step {
            Step::Registers => {
                let Up { topic, producer } = parse(data)?;
                producer.check()?;
                (topic, producer.broadcast_address)
            }
            Step::Unregisters => {
                let Down { topic, broadcast_address, reason } = parse(data)?;
                if reason != "unregistered" {
                    return Err(format!("the reason is {reason} where unregistered was due"));
                }
                (topic, broadcast_address)
            }
        };
        if named != self.name(topic) {
            return Err(format!("it is about {named}, which was not asked for"));
        }
        if let Some(nsqd) = self.of_group(topic, &address) {
            return Ok(Some(nsqd));
        }
        let registers = |producer| self.population.registers(producer, topic);
        if step == Step::Registers && self.population.producer_named(&address).is_some_and(registers) {
            return Ok(None);
        }
        Err(format!("{address} has neither registered nor unregistered"))
    }

    fn of_group(&self, topic: u32, address: &str) -> Option<u32> {
        let group = topic % groups(self.topics());
        script::named(address).filter(|named| named.0 == group).map(|named| named.1)
    }

    /// Checks a snapshot or the response to a poll, which may include several changes, and records it.
    ///
    /// # Errors
    /// What is wrong with it, and the state before a change that the watcher knows.
    pub fn listed(&self, watcher: &Watcher, listing: &[u8], now: Instant) -> Result<(), String> {
        let listed = self.present(watcher.topic, listing)?;
        let (known, changes) = (watcher.known.get(), self.changes(watcher.topic));
        let Some(last) = (known..=changes).rev().find(|&number| script::present(number) == listed) else {
            return Err(self.differs(watcher.topic, listed, known));
        };
        if last == known {
            self.found.borrow_mut().repeated += 1;
        } else {
            self.found.borrow_mut().coalesced += last - known - 1;
            self.advance(watcher, last, now);
        }
        Ok(())
    }

    /// Which nsqds of the topic's group are listed. The population must be, too.
    fn present(&self, topic: u32, listing: &[u8]) -> Result<Present, String> {
        const MARK: &[u8] = b"\"broadcast_address\":\"";
        self.checker.complete(topic, Answer { status: 200, body: listing })?;
        let mut present = 0;
        for at in memmem::find_iter(listing, MARK) {
            let address = &listing[at + MARK.len()..];
            let address = &address[..memchr(b'"', address).unwrap_or(0)];
            if let Some(nsqd) = str::from_utf8(address).ok().and_then(|address| self.of_group(topic, address)) {
                if present & (1 << nsqd) != 0 {
                    return Err(format!("{} twice", String::from_utf8_lossy(address)));
                }
                present |= 1 << nsqd;
            }
        }
        Ok(present)
    }

    fn differs(&self, topic: u32, listed: Present, changes: u64) -> String {
        let names = |present: Present| {
            let group = topic % groups(self.topics());
            let names = (0..script::NSQDS).filter(|nsqd| present & (1 << nsqd) != 0);
            names.map(|nsqd| script::name(group, nsqd)).collect::<Vec<_>>().join(", ")
        };
        let (listed, due) = (names(listed), names(script::present(changes)));
        format!("after {changes} changes [{listed}] are listed where [{due}] or later ones were due")
    }

    fn advance(&self, watcher: &Watcher, known: u64, now: Instant) {
        let changes = self.topic(watcher.topic).changes.borrow();
        let mut found = self.found.borrow_mut();
        for number in watcher.known.replace(known)..known {
            let change = &changes[usize::try_from(number).expect("changes are in memory")];
            let after_ok = now.saturating_duration_since(change.ok.unwrap_or(now));
            found.received += 1;
            found.before_ok += u64::from(change.ok.is_none());
            match script::change(number).0 {
                Step::Registers => {
                    found.up_after_ok.record(after_ok);
                    found.up_after_sent.record(now.saturating_duration_since(change.sent));
                }
                Step::Unregisters => found.down_after_ok.record(after_ok),
            }
        }
    }

    /// What a watcher is to receive next.
    fn due(&self, watcher: &Watcher) -> String {
        let (step, nsqd) = script::change(watcher.known.get());
        let name = script::name(watcher.topic % groups(self.topics()), nsqd);
        let step = if step == Step::Registers { "registered" } else { "unregistered" };
        format!("{name} {step}, change {} of {}", watcher.known.get() + 1, self.name(watcher.topic))
    }

    /// Whether every watcher knows every change.
    ///
    /// # Errors
    /// The first that one does not know, and how many those are.
    pub fn all_have_arrived(&self) -> Result<(), String> {
        let watchers = self.watchers.borrow();
        let missing = |watcher: &Rc<Watcher>| self.changes(watcher.topic) - watcher.known.get();
        let count: u64 = watchers.iter().map(missing).sum();
        let Some(first) = watchers.iter().find(|watcher| missing(watcher) > 0) else { return Ok(()) };
        let behind = watchers.iter().filter(|watcher| missing(watcher) > 0).count();
        Err(format!(
            "{count} events have not reached {behind} watchers; the first that was due: {}",
            self.due(first)
        ))
    }

    fn topic(&self, topic: u32) -> &Topic {
        &self.topics[topic as usize]
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::population::{Identity, producer_name};

    const POPULATION: Population = Population { producers: 2, topics_per_producer: 1, topics: 2, channels: 0 };
    /// Of group 1, as there are two.
    const TOPIC: u32 = 1;

    fn producer(name: &str) -> Value {
        let mut producer = serde_json::to_value(Identity::named(name)).unwrap();
        producer["remote_address"] = "127.0.0.1:1".into();
        producer
    }

    fn board() -> Board {
        Board::new(&Run::of("a"), POPULATION)
    }

    fn listing(nsqds: &[u32]) -> Vec<u8> {
        let names = nsqds.iter().map(|&nsqd| script::name(TOPIC, nsqd)).chain([producer_name(TOPIC)]);
        let producers: Vec<_> = names.map(|name| producer(&name)).collect();
        json!({"topic": "perf_a_000001", "channels": [], "producers": producers}).to_string().into_bytes()
    }

    fn send(board: &Board, watcher: &Watcher, step: Step, address: &str) -> Result<(), String> {
        let (name, data) = match step {
            Step::Registers => ("up", json!({"topic": "perf_a_000001", "producer": producer(address)})),
            Step::Unregisters => {
                let reason = "unregistered";
                let data = json!({"topic": "perf_a_000001", "broadcast_address": address, "tcp_port": 4150, "reason": reason});
                ("down", data)
            }
        };
        let data = data.to_string();
        board.event(watcher, Event { name: name.as_bytes(), data: data.as_bytes() }, Instant::now())
    }

    fn nsqd(board: &Board, watcher: &Watcher, step: Step, nsqd: u32) -> Result<(), String> {
        send(board, watcher, step, &script::name(TOPIC, nsqd))
    }

    /// A board with so many changes, none of which has reached the watcher.
    fn changed(changes: u32) -> (Board, Rc<Watcher>) {
        let board = board();
        let watcher = board.join(TOPIC, &listing(&[])).unwrap();
        for _ in 0..changes {
            board.begin(TOPIC, Instant::now());
            board.done(TOPIC, Instant::now());
        }
        (board, watcher)
    }

    #[test]
    fn events_come_in_the_order_of_the_changes_and_may_be_repeated() {
        let (board, watcher) = changed(3);
        nsqd(&board, &watcher, Step::Registers, 0).unwrap();
        nsqd(&board, &watcher, Step::Registers, 0).unwrap();
        send(&board, &watcher, Step::Registers, &producer_name(TOPIC)).unwrap();
        nsqd(&board, &watcher, Step::Unregisters, 5).unwrap();
        assert_eq!((board.found().received, board.found().repeated), (1, 3));
        let missing = board.all_have_arrived().unwrap_err();
        assert!(missing.starts_with("2 events have not reached 1 watchers"), "{missing}");
        nsqd(&board, &watcher, Step::Registers, 1).unwrap();
        nsqd(&board, &watcher, Step::Unregisters, 0).unwrap();
        assert_eq!(board.all_have_arrived(), Ok(()));
        assert_eq!((board.found().expected, board.found().received), (3, 3));
        assert_eq!((board.found().up_after_ok.count(), board.found().down_after_ok.count()), (2, 1));
    }

    #[test]
    fn each_way_to_be_wrong_is_named() {
        let error = |changes, step, address: &str| {
            let (board, watcher) = changed(changes);
            send(&board, &watcher, step, address).unwrap_err()
        };
        let of_group = |nsqd| script::name(TOPIC, nsqd);
        assert!(
            error(3, Step::Registers, &of_group(1))
                .contains("due was that watch-000008.perf registered, change 1 of")
        );
        assert_eq!(error(0, Step::Registers, &of_group(0)), "it has not happened yet");
        assert!(
            error(1, Step::Unregisters, &producer_name(TOPIC))
                .ends_with("has neither registered nor unregistered")
        );
        assert!(
            error(1, Step::Registers, &script::name(0, 0)).ends_with("has neither registered nor unregistered")
        );

        let (board, watcher) = changed(1);
        let event = |name: &str, data: &Value| {
            let data = data.to_string();
            board.event(&watcher, Event { name: name.as_bytes(), data: data.as_bytes() }, Instant::now())
        };
        let up = json!({"topic": "other", "producer": producer(&of_group(0))});
        assert_eq!(event("up", &up).unwrap_err(), "it is about other, which was not asked for");
        let down =
            json!({"topic": "perf_a_000001", "broadcast_address": of_group(0), "tcp_port": 1, "reason": "gone"});
        assert_eq!(event("down", &down).unwrap_err(), "the reason is gone where unregistered was due");
        assert!(event("up", &down).unwrap_err().starts_with("not the JSON"));
        assert_eq!(event("topic", &json!({})).unwrap_err(), "no change has such an event");
        assert_eq!(event("bye", &json!({})).unwrap_err(), "the server ends the watch");
        assert_eq!(event("settled", &json!({})), Ok(()));
    }

    #[test]
    fn a_listing_may_include_several_changes_and_never_goes_back() {
        let (board, watcher) = changed(4);
        board.listed(&watcher, &listing(&[1]), Instant::now()).unwrap();
        assert_eq!((board.found().received, board.found().coalesced), (3, 2));
        board.listed(&watcher, &listing(&[1]), Instant::now()).unwrap();
        assert_eq!(board.found().repeated, 1);
        let error = board.listed(&watcher, &listing(&[0, 1]), Instant::now()).unwrap_err();
        assert!(
            error.contains("[watch-000008.perf, watch-000009.perf] are listed where [watch-000009.perf]"),
            "{error}"
        );
        assert!(board.listed(&watcher, &listing(&[1, 1]), Instant::now()).unwrap_err().ends_with("twice"));
        assert!(board.listed(&watcher, b"{\"channels\":[],\"producers\":[]}", Instant::now()).is_err());
        let whole = listing(&[1, 2]);
        board.event(&watcher, Event { name: b"snapshot", data: &whole }, Instant::now()).unwrap();
        assert_eq!((board.found().snapshots, board.all_have_arrived()), (1, Ok(())));
    }

    #[test]
    fn a_watcher_begins_with_a_listing_of_its_topic() {
        let board = board();
        assert!(board.join(TOPIC, &listing(&[0])).is_err(), "nobody has registered");
        let whole = listing(&[]);
        assert!(board.join_by(TOPIC, Event { name: b"up", data: &whole }).is_err());
        board.join_by(TOPIC, Event { name: b"snapshot", data: &whole }).unwrap();
    }
}
