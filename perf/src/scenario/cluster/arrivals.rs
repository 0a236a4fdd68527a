//! The changes there were, and at which instances each of them has arrived.
//!
//! A registration is of one writer and one topic. Its next change waits until the last one has arrived at every other
//! instance: an instance may send two changes as one, so a change that is taken back at once need not show anywhere.

use std::cell::{Cell, Ref, RefCell};
use std::fmt::Display;
use std::time::{Duration, Instant};

use super::messages::{Message, message, name, named, writers_listed};
use crate::failure::{Failure, Result};
use crate::measure::Latencies;
use crate::population::{Population, Run, producer_named};
use crate::unit::approximate;
use crate::wire::events::Event;
use crate::wire::http::Answer;

/// Which registration: a writer's of a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Registration {
    pub writer: u32,
    /// Of those that are changed.
    pub place: u32,
}

/// What an instance lists of a registration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// The writer is connected to this instance.
    IsHome,
    /// What it was before the last change.
    Due,
    /// An event had the last change; a lookup has not shown it yet.
    Announced,
    /// What it is.
    Arrived,
}

struct State {
    is_registered: bool,
    /// When the last change was sent.
    sent: Option<Instant>,
    /// When its `OK` was read.
    ok: Option<Instant>,
    /// By instance.
    standings: Vec<Standing>,
}

/// What was measured.
#[derive(Default)]
pub struct Found {
    /// From the `OK` to REGISTER to each other instance; 0 where it was listed earlier.
    pub up: Latencies,
    /// The same of UNREGISTER.
    pub down: Latencies,
    /// From the command to its `OK`.
    pub oks: Latencies,
    pub changes: u64,
    pub arrivals: u64,
    /// Before the `OK` was read.
    pub before_ok: u64,
    /// Changes that waited until the last one of the same registration had arrived.
    pub delayed: u64,
    /// Events that repeat what was known.
    pub repeated: u64,
}

/// All registrations that change.
pub struct Arrivals {
    run: Run,
    writers: u32,
    /// The numbers of the topics that are changed, ascending.
    topics: Vec<u32>,
    /// Who is who, by address.
    instances: Vec<String>,
    /// By writer, then by topic.
    states: RefCell<Vec<State>>,
    found: RefCell<Found>,
    /// How many registrations have not arrived everywhere.
    under_way: Cell<usize>,
}

impl Arrivals {
    /// `count` of the population's topics are changed by each of the writers. `home` is the instance that a writer is
    /// connected to. At first a writer has registered every other topic.
    pub fn new(
        run: &Run,
        population: Population,
        count: u32,
        writers: u32,
        instances: Vec<String>,
        home: impl Fn(u32) -> usize,
    ) -> Self {
        let topics = population.sample(count);
        let states = (0..writers).flat_map(|writer| {
            let mut standings = vec![Standing::Arrived; instances.len()];
            standings[home(writer)] = Standing::IsHome;
            (0..count_of(&topics)).map(move |place| State {
                is_registered: is_registered_at_first(Registration { writer, place }),
                sent: None,
                ok: None,
                standings: standings.clone(),
            })
        });
        let states: Vec<_> = states.collect();
        let states = RefCell::new(states);
        let (found, under_way) = (RefCell::default(), Cell::new(0));
        Self { run: run.clone(), writers, topics, instances, states, found, under_way }
    }

    /// How many topics are changed.
    pub fn count(&self) -> u32 {
        count_of(&self.topics)
    }

    pub fn name(&self, place: u32) -> String {
        self.run.topic(self.topics[place as usize])
    }

    pub fn found(&self) -> Ref<'_, Found> {
        self.found.borrow()
    }

    /// The topics a writer has registered at first.
    pub fn first_of(&self, writer: u32) -> impl Iterator<Item = u32> {
        (0..self.count()).filter(move |&place| is_registered_at_first(Registration { writer, place }))
    }

    /// Whether the last change of a registration has arrived everywhere.
    pub fn has_arrived(&self, registration: Registration) -> bool {
        let arrived = |standing: &Standing| matches!(standing, Standing::Arrived | Standing::IsHome);
        self.states.borrow()[self.index(registration)].standings.iter().all(arrived)
    }

    /// Notes that a change had to wait.
    pub fn delayed(&self) {
        self.found.borrow_mut().delayed += 1;
    }

    /// The command that changes a registration, which is about to be sent.
    pub fn begin(&self, registration: Registration, sent: Instant) -> String {
        debug_assert!(self.has_arrived(registration));
        let state = &mut self.states.borrow_mut()[self.index(registration)];
        state.is_registered = !state.is_registered;
        (state.sent, state.ok) = (Some(sent), None);
        for standing in &mut state.standings {
            if *standing == Standing::Arrived {
                *standing = Standing::Due;
            }
        }
        // An instance alone has no others.
        self.under_way.set(self.under_way.get() + usize::from(state.standings.contains(&Standing::Due)));
        self.found.borrow_mut().changes += 1;
        format!("{} {}", command(state.is_registered), self.name(registration.place))
    }

    /// Notes that the `OK` to it was read.
    pub fn done(&self, registration: Registration, ok: Instant) {
        let state = &mut self.states.borrow_mut()[self.index(registration)];
        state.ok = Some(ok);
        self.found.borrow_mut().oks.record(ok - state.sent.expect("it was sent"));
    }

    /// Topics of which an instance does not list some change.
    pub fn due_at(&self, instance: usize) -> Vec<u32> {
        if self.under_way.get() == 0 {
            return Vec::new();
        }
        let states = self.states.borrow();
        let is_due = |&place: &u32| {
            let mut writers = 0..self.writers;
            let index = |writer| self.index(Registration { writer, place });
            writers.any(|writer| states[index(writer)].standings[instance] == Standing::Due)
        };
        (0..self.count()).filter(is_due).collect()
    }

    /// Reads the listing of a topic, from a lookup or a snapshot. All of an instance's listings and events that are
    /// given to this must be in the order in which it sent them.
    ///
    /// # Errors
    /// A registration that is listed and should not be, or the other way round, other than by a change under way.
    pub fn listed(&self, instance: usize, place: u32, answer: Answer<'_>, now: Instant) -> Result<(), String> {
        let listed = writers_listed(answer, self.writers)?;
        for writer in 0..self.writers {
            self.observe(instance, Registration { writer, place }, listed.contains(&writer), now, false)?;
        }
        Ok(())
    }

    /// Reads the listing of a topic before any change, in which all is to be as it was at first.
    ///
    /// # Errors
    /// What may not be there at any time.
    pub fn is_as_at_first(&self, instance: usize, place: u32, answer: Answer<'_>) -> Result<bool, String> {
        if answer.status == 404 {
            return Ok(false);
        }
        let listed = writers_listed(answer, self.writers)?;
        let states = self.states.borrow();
        let is_right = |writer| {
            let registration = Registration { writer, place };
            let is_watched = states[self.index(registration)].standings[instance] != Standing::IsHome;
            !is_watched || listed.contains(&writer) == is_registered_at_first(registration)
        };
        Ok((0..self.writers).all(is_right))
    }

    /// Reads a lookup that was sent after an event of a registration: it must show the same.
    ///
    /// # Errors
    /// When it does not.
    pub fn confirmed(
        &self,
        instance: usize,
        registration: Registration,
        answer: Answer<'_>,
    ) -> Result<(), String> {
        let is_listed = writers_listed(answer, self.writers)?.contains(&registration.writer);
        let state = &mut self.states.borrow_mut()[self.index(registration)];
        if is_listed != state.is_registered {
            let (event, name) = (if state.is_registered { "up" } else { "down" }, name(registration.writer));
            let but = if is_listed { "is listed" } else { "is not listed" };
            return Err(format!("the event {event} of {name} was read before, and it {but}"));
        }
        state.standings[instance] = Standing::Arrived;
        self.ends(state);
        Ok(())
    }

    /// Reads an event of a stream; the registration whose change it has, which a lookup is then to confirm.
    ///
    /// # Errors
    /// What no change under way explains: one is an event for a producer of the population.
    pub fn event(&self, instance: usize, event: Event<'_>, now: Instant) -> Result<Option<Registration>, String> {
        let (topic, address, is_registered) = match message(event)? {
            Message::Changed { topic, address, is_registered } => (topic, address, is_registered),
            Message::Snapshot { topic } => {
                let place = self.place(&topic)?;
                let answer = Answer { status: 200, body: event.data };
                return self.listed(instance, place, answer, now).map(|()| None);
            }
            Message::Other => return Ok(None),
        };
        let place = self.place(&topic)?;
        let Some(writer) = named(&address).filter(|&writer| writer < self.writers) else {
            if producer_named(&address).is_some() && !is_registered {
                return Err(format!("{address} has not unregistered {topic}"));
            }
            return Ok(None);
        };
        let registration = Registration { writer, place };
        let is_new = self.observe(instance, registration, is_registered, now, true)?;
        Ok(is_new.then_some(registration))
    }

    /// Takes in whether an instance lists a registration; true when that is the change which was due.
    fn observe(
        &self,
        instance: usize,
        registration: Registration,
        is_listed: bool,
        now: Instant,
        is_event: bool,
    ) -> Result<bool, String> {
        let state = &mut self.states.borrow_mut()[self.index(registration)];
        match (state.standings[instance], is_listed == state.is_registered) {
            (Standing::IsHome, _) => return Ok(false),
            (Standing::Due, true) => {}
            (Standing::Announced | Standing::Arrived, false) => {
                let (name, topic) = (name(registration.writer), self.name(registration.place));
                let is = if is_listed { "is listed" } else { "is not listed" };
                let was = if state.is_registered { "was listed" } else { "was not listed" };
                return Err(format!("{name} {is} in {topic}, without a change since it {was}"));
            }
            (Standing::Due, false) | (Standing::Announced | Standing::Arrived, true) => {
                self.found.borrow_mut().repeated += u64::from(is_event);
                return Ok(false);
            }
        }
        let mut found = self.found.borrow_mut();
        found.arrivals += 1;
        found.before_ok += u64::from(state.ok.is_none());
        let latency = now.saturating_duration_since(state.ok.unwrap_or(now));
        let latencies = if state.is_registered { &mut found.up } else { &mut found.down };
        latencies.record(latency);
        drop(found);
        state.standings[instance] = if is_event { Standing::Announced } else { Standing::Arrived };
        self.ends(state);
        Ok(true)
    }

    /// Notes when a change has arrived everywhere.
    fn ends(&self, state: &State) {
        if !state.standings.iter().any(|standing| matches!(standing, Standing::Due | Standing::Announced)) {
            self.under_way.set(self.under_way.get() - 1);
        }
    }

    /// How many changes have not arrived everywhere.
    pub fn under_way(&self) -> usize {
        self.under_way.get()
    }

    /// # Errors
    /// The change that has been under way for longest, if that is too long.
    pub fn check_all_in_time(&self, within: Duration, now: Instant) -> Result<()> {
        if self.under_way.get() == 0 {
            return Ok(());
        }
        let states = self.states.borrow();
        let is_late = |state: &&State| {
            let is_due = state.standings.contains(&Standing::Due);
            is_due && state.ok.is_some_and(|ok| now.saturating_duration_since(ok) > within)
        };
        let late = states.iter().enumerate().filter(|(_, state)| is_late(state));
        let Some((index, state)) = late.min_by_key(|(_, state)| state.ok) else { return Ok(()) };
        let registration = self.registration(index);
        let at = |wanted: Standing| {
            let named =
                state.standings.iter().zip(&self.instances).filter(move |(standing, _)| **standing == wanted);
            named.map(|(_, instance)| instance.as_str()).collect::<Vec<_>>()
        };
        let due = states.iter().filter(|state| state.standings.contains(&Standing::Due)).count();
        Err(Failure::Late(format!(
            "{} {} of {} has not arrived at {} within {within:?}, nor have {} other changes everywhere: give the \
             server longer with --within",
            command(state.is_registered),
            self.name(registration.place),
            name(registration.writer),
            at(Standing::Due).join(" and "),
            due - 1,
        )))
    }

    fn place(&self, topic: &str) -> Result<u32, String> {
        // Names of a run have their number in the end, so they are in order.
        let number = topic.rsplit_once('_').and_then(|(_, digits)| digits.parse::<u32>().ok());
        let place =
            number.filter(|_| self.run.owns(topic)).and_then(|number| self.topics.binary_search(&number).ok());
        let place = place.ok_or_else(|| format!("it is about {topic}, which was not asked for"))?;
        Ok(u32::try_from(place).expect("topics are counted in 32 bits"))
    }

    fn index(&self, Registration { writer, place }: Registration) -> usize {
        writer as usize * self.topics.len() + place as usize
    }

    fn registration(&self, index: usize) -> Registration {
        let count = |number: usize| u32::try_from(number).expect("both are counted in 32 bits");
        Registration { writer: count(index / self.topics.len()), place: count(index % self.topics.len()) }
    }
}

impl Found {
    /// The counts, as figures.
    pub fn counts(&self) -> impl Iterator<Item = (String, f64)> {
        let counts = [
            ("changes", self.changes),
            ("changes_delayed", self.delayed),
            ("arrivals_before_ok", self.before_ok),
            ("events_repeated", self.repeated),
        ];
        counts.map(|(name, count)| (name.to_owned(), approximate(count))).into_iter()
    }
}

fn is_registered_at_first(Registration { writer, place }: Registration) -> bool {
    (writer + place).is_multiple_of(2)
}

fn count_of(topics: &[u32]) -> u32 {
    u32::try_from(topics.len()).expect("topics are counted in 32 bits")
}

fn command(registers: bool) -> impl Display {
    if registers { "REGISTER" } else { "UNREGISTER" }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::population::{Identity, producer_name};

    const POPULATION: Population = Population { producers: 2, topics_per_producer: 1, topics: 2, channels: 0 };
    /// Registered at first.
    const FIRST: Registration = Registration { writer: 0, place: 0 };
    /// Not registered at first.
    const SECOND: Registration = Registration { writer: 0, place: 1 };
    const SHORT: Duration = Duration::from_millis(100);

    /// Two writers at the first of three instances.
    fn arrivals() -> Arrivals {
        let instances = ["a", "b", "c"].map(str::to_owned).into();
        Arrivals::new(&Run::of("a"), POPULATION, 9, 2, instances, |_| 0)
    }

    fn producer(name: &str) -> Value {
        let mut producer = serde_json::to_value(Identity::named(name)).unwrap();
        producer["remote_address"] = "127.0.0.1:1".into();
        producer
    }

    fn listing(place: u32, writers: &[u32]) -> Vec<u8> {
        let names = writers.iter().map(|&writer| name(writer)).chain([producer_name(place)]);
        let producers: Vec<_> = names.map(|name| producer(&name)).collect();
        json!({"topic": format!("perf_a_{place:06}"), "channels": [], "producers": producers})
            .to_string()
            .into_bytes()
    }

    fn list(arrivals: &Arrivals, instance: usize, place: u32, writers: &[u32]) -> Result<(), String> {
        let body = listing(place, writers);
        arrivals.listed(instance, place, Answer { status: 200, body: &body }, Instant::now())
    }

    fn confirm(arrivals: &Arrivals, instance: usize, what: Registration, writers: &[u32]) -> Result<(), String> {
        let body = listing(what.place, writers);
        arrivals.confirmed(instance, what, Answer { status: 200, body: &body })
    }

    fn send(
        arrivals: &Arrivals,
        instance: usize,
        event: &str,
        place: u32,
        name: &str,
    ) -> Result<Option<Registration>, String> {
        let topic = format!("perf_a_{place:06}");
        let data = match event {
            "up" => json!({"topic": topic, "producer": producer(name)}),
            _ => json!({"topic": topic, "broadcast_address": name, "tcp_port": 4150, "reason": "unregistered"}),
        };
        let data = data.to_string();
        arrivals.event(instance, Event { name: event.as_bytes(), data: data.as_bytes() }, Instant::now())
    }

    /// The change of a registration, whose `OK` was read so long ago.
    fn change(arrivals: &Arrivals, what: Registration, ago: Duration) -> String {
        let ok = Instant::now().checked_sub(ago).unwrap();
        let command = arrivals.begin(what, ok);
        arrivals.done(what, ok);
        command
    }

    #[test]
    fn half_is_registered_at_first_and_changed_in_turn() {
        let arrivals = arrivals();
        assert_eq!(arrivals.count(), 2, "there are no more topics");
        assert_eq!(arrivals.first_of(0).collect::<Vec<_>>(), [0]);
        assert_eq!(arrivals.first_of(1).collect::<Vec<_>>(), [1]);
        let is_right = |instance, writers: &[u32]| {
            let body = listing(0, writers);
            arrivals.is_as_at_first(instance, 0, Answer { status: 200, body: &body }).unwrap()
        };
        assert!(is_right(1, &[0]) && !is_right(1, &[]) && !is_right(1, &[0, 1]));
        assert!(is_right(0, &[]), "nobody looks where the writers are");
        assert_eq!(change(&arrivals, FIRST, SHORT), "UNREGISTER perf_a_000000");
        assert_eq!(change(&arrivals, SECOND, SHORT), "REGISTER perf_a_000001");
    }

    #[test]
    fn a_change_has_arrived_when_every_other_instance_lists_it() {
        let arrivals = arrivals();
        change(&arrivals, FIRST, SHORT);
        assert_eq!((arrivals.due_at(0), arrivals.due_at(1), arrivals.due_at(2)), (vec![], vec![0], vec![0]));
        list(&arrivals, 1, 0, &[0]).unwrap();
        assert_eq!(arrivals.due_at(1), [0], "that was from before the change");
        list(&arrivals, 1, 0, &[]).unwrap();
        assert!(arrivals.due_at(1).is_empty() && !arrivals.has_arrived(FIRST));
        list(&arrivals, 2, 0, &[]).unwrap();
        assert!(arrivals.has_arrived(FIRST) && arrivals.under_way() == 0);
        let found = arrivals.found();
        assert_eq!((found.changes, found.arrivals, found.up.count(), found.down.count()), (1, 2, 0, 2));
        assert!(found.down.summary().unwrap().p50 >= 100_000.0, "it counts from the OK");
    }

    #[test]
    fn nothing_has_to_arrive_where_there_are_no_others() {
        let arrivals = Arrivals::new(&Run::of("a"), POPULATION, 2, 1, vec!["a".into()], |_| 0);
        change(&arrivals, FIRST, SHORT);
        assert!(arrivals.has_arrived(FIRST) && arrivals.under_way() == 0);
        assert_eq!((arrivals.found().changes, arrivals.found().arrivals), (1, 0));
    }

    #[test]
    fn an_event_is_an_arrival_that_a_lookup_confirms() {
        let arrivals = arrivals();
        arrivals.begin(SECOND, Instant::now());
        assert_eq!(send(&arrivals, 1, "up", 1, &name(0)), Ok(Some(SECOND)));
        arrivals.done(SECOND, Instant::now());
        assert_eq!(send(&arrivals, 1, "up", 1, &name(0)), Ok(None));
        assert!(list(&arrivals, 2, 1, &[0, 1]).is_ok() && !arrivals.has_arrived(SECOND));
        let error = confirm(&arrivals, 1, SECOND, &[1]).unwrap_err();
        assert_eq!(error, "the event up of cluster-000000.perf was read before, and it is not listed");
        confirm(&arrivals, 1, SECOND, &[0, 1]).unwrap();
        assert!(arrivals.has_arrived(SECOND) && arrivals.under_way() == 0);
        let found = arrivals.found();
        assert_eq!((found.arrivals, found.before_ok, found.repeated), (2, 1, 1));
    }

    #[test]
    fn what_no_change_explains_is_wrong() {
        let arrivals = arrivals();
        let error = list(&arrivals, 1, 0, &[]).unwrap_err();
        assert_eq!(
            error,
            "cluster-000000.perf is not listed in perf_a_000000, without a change since it was listed"
        );
        assert!(list(&arrivals, 2, 0, &[0, 1]).unwrap_err().contains("cluster-000001.perf is listed"));
        assert!(send(&arrivals, 1, "down", 0, &name(0)).is_err());
        assert!(list(&arrivals, 1, 0, &[0, 0]).unwrap_err().contains("cluster-000000.perf twice"));
        let error = send(&arrivals, 1, "down", 0, &producer_name(0)).unwrap_err();
        assert_eq!(error, "nsqd-000000.perf has not unregistered perf_a_000000");
        assert_eq!(send(&arrivals, 1, "up", 0, &producer_name(0)), Ok(None));
        assert_eq!(send(&arrivals, 1, "down", 0, "stranger"), Ok(None));
        assert!(send(&arrivals, 1, "up", 2, &name(0)).unwrap_err().contains("which was not asked for"));
        assert!(send(&arrivals, 1, "bye", 0, "").is_err());
        assert_eq!(send(&arrivals, 0, "down", 0, &name(0)), Ok(None), "nobody looks where the writers are");
    }

    #[test]
    fn a_snapshot_is_a_listing() {
        let arrivals = arrivals();
        change(&arrivals, SECOND, SHORT);
        let data = listing(1, &[0, 1]);
        let snapshot = Event { name: b"snapshot", data: &data };
        assert_eq!(arrivals.event(1, snapshot, Instant::now()), Ok(None));
        assert!(arrivals.due_at(1).is_empty());
    }

    #[test]
    fn a_late_change_is_named() {
        let arrivals = arrivals();
        let check = |within| arrivals.check_all_in_time(within, Instant::now());
        check(Duration::ZERO).unwrap();
        change(&arrivals, FIRST, SHORT);
        change(&arrivals, SECOND, SHORT / 2);
        check(Duration::from_secs(60)).unwrap();
        list(&arrivals, 1, 0, &[]).unwrap();
        let error = check(Duration::from_millis(10)).unwrap_err();
        assert_eq!(error.exit_code(), crate::failure::LATE);
        let text = error.to_string();
        assert!(
            text.starts_with("UNREGISTER perf_a_000000 of cluster-000000.perf has not arrived at c within 10ms"),
            "{text}"
        );
        assert!(text.contains("nor have 1 other changes everywhere"), "{text}");
    }
}
