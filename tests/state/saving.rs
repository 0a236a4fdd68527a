//! When a state is written, how much of a core that takes, and that a disk which fails costs nothing else.

use std::cell::Cell;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ringlookupd::clock::{Clock, Timestamp};
use ringlookupd::limits::{LOG_PAUSE, STAMP_PERIOD};
use ringlookupd::log::Log;
use ringlookupd::metrics::{Format, Gauges, Metrics};
use ringlookupd::state::{Folder, LOCK, Moment, STAMP, STATE, Saver, Time, Writer};
use tempfile::tempdir;

use crate::disk::Faulty;
use crate::world::{Lines, Registry, names, producer, random};

const INTERVAL: Duration = Duration::from_secs(1);
const WALL: Duration = Duration::from_secs(1_800_000_000);

/// Time that passes when a test says so, and with each reading.
#[derive(Default)]
struct Clocks {
    passed: Cell<Duration>,
    cpu: Cell<Duration>,
    /// What each reading takes: a write is between two.
    step: Cell<Duration>,
    cpu_step: Cell<Duration>,
}

impl Clocks {
    fn pass(&self, time: Duration) {
        self.passed.set(self.passed.get() + time);
    }
}

impl Time for Clocks {
    fn moment(&self) -> Moment {
        self.pass(self.step.get());
        self.cpu.set(self.cpu.get() + self.cpu_step.get());
        let passed = self.passed.get();
        Moment { now: Timestamp::default().after(passed), wall: WALL + passed, cpu: self.cpu.get() }
    }
}

/// A writer on a disk that can fail.
struct Bench {
    disk: Faulty,
    registry: Registry,
    clocks: Clocks,
    metrics: Metrics,
    writer: Writer<Registry, Faulty>,
}

impl Bench {
    fn new(log: &Log) -> Self {
        let (disk, registry, metrics) = (Faulty::default(), Registry::default(), Metrics::default());
        let folder = Folder::with(disk.clone());
        let writer = Writer::new(folder, registry.clone(), INTERVAL, metrics.state(), log.clone());
        Self { disk, registry, clocks: Clocks::default(), metrics, writer }
    }

    fn step(&mut self) -> Duration {
        self.writer.step(&self.clocks)
    }

    /// As the thread does, for so long.
    fn run_for(&mut self, time: Duration) {
        let end = self.clocks.passed.get() + time;
        while self.clocks.passed.get() < end {
            let rest = self.step();
            assert!(rest <= STAMP_PERIOD && !rest.is_zero(), "{rest:?}");
            self.clocks.pass(rest.min(end.saturating_sub(self.clocks.passed.get())));
        }
    }

    fn count(&self, name: &str) -> u64 {
        self.metric(name).parse().expect("a whole number")
    }

    fn seconds(&self, name: &str) -> f64 {
        self.metric(name).parse().expect("a number")
    }

    fn metric(&self, name: &str) -> String {
        let text = self.metrics.render(Format::Text, Gauges::default());
        let line = text.lines().find_map(|line| line.strip_prefix(&format!("nsqlookupd_state_{name} ")));
        line.unwrap_or_else(|| panic!("no {name}")).to_owned()
    }

    fn read(&self) -> Option<ringlookupd::state::Restored> {
        Folder::with(self.disk.clone()).read(WALL, &Log::disabled())
    }
}

#[test]
fn only_what_changes_is_written_once_in_an_interval() {
    let mut bench = Bench::new(&Log::disabled());
    assert_eq!(bench.step(), INTERVAL);
    assert_eq!(bench.registry.saves(), 1, "the first is written at once");
    bench.run_for(5 * INTERVAL);
    assert_eq!(bench.registry.saves(), 1);
    for number in 0..50 {
        bench.registry.set(random(number));
        bench.run_for(INTERVAL / 10);
    }
    let saves = bench.registry.saves();
    assert!((5..=7).contains(&saves), "{saves}");
    bench.run_for(INTERVAL);
    assert_eq!(bench.read().expect("a state").saved, random(49));
    assert_eq!(bench.count("writes_total"), bench.registry.saves());
    let size = bench.disk.content(STATE).expect("a state").len();
    assert_eq!(bench.count("bytes"), size as u64);
}

#[test]
fn a_stamp_says_that_nothing_has_changed() {
    let mut bench = Bench::new(&Log::disabled());
    let mut saved = random(1);
    saved.producers = (0..6).map(producer).collect();
    bench.registry.set(saved.clone());
    bench.run_for(INTERVAL);
    assert_eq!(bench.disk.content(STAMP), None, "the state says so itself");
    bench.run_for(3 * STAMP_PERIOD);
    assert_eq!(bench.registry.saves(), 1);
    let restored = bench.read().expect("a state");
    let alive = restored.wall.saturating_sub(WALL);
    assert!(alive >= 3 * STAMP_PERIOD && alive < 4 * STAMP_PERIOD, "{alive:?}");
    saved.producers.iter_mut().for_each(|producer| producer.silence += alive);
    saved.age(alive);
    assert_eq!(restored.saved, saved);
    let saved_at = bench.seconds("saved_timestamp_seconds");
    assert!((saved_at - restored.wall.as_secs_f64()).abs() < 0.001, "{saved_at}");
    // The last sign of life is that of the end.
    bench.clocks.pass(STAMP_PERIOD / 3);
    bench.writer.finish(&bench.clocks);
    assert_eq!(bench.read().expect("a state").wall, WALL + bench.clocks.passed.get());
}

#[test]
fn the_end_writes_what_is_not_due_yet() {
    let mut bench = Bench::new(&Log::disabled());
    bench.step();
    bench.registry.set(random(7));
    bench.step();
    assert_eq!(bench.registry.saves(), 1);
    bench.writer.finish(&bench.clocks);
    assert_eq!(bench.read().expect("a state").saved, random(7));
}

#[test]
fn a_write_that_takes_long_is_followed_by_a_rest() {
    for (step, cpu, share) in [
        // 300 ms of CPU time are 5 % of 6 s.
        (300, 300, 0.05),
        // A disk that takes 2 s of waiting is busy half of the time.
        (2000, 1, 0.5),
    ] {
        let mut bench = Bench::new(&Log::disabled());
        bench.clocks.step.set(Duration::from_millis(step));
        bench.clocks.cpu_step.set(Duration::from_millis(cpu));
        let begun = bench.clocks.moment();
        while bench.registry.saves() < 50 {
            bench.registry.set(random(bench.registry.saves()));
            // Only writes take time here, not the looks at the clock in between.
            bench.clocks.step.set(Duration::from_millis(step));
            bench.clocks.cpu_step.set(Duration::from_millis(cpu));
            let rest = bench.step();
            bench.clocks.step.set(Duration::ZERO);
            bench.clocks.cpu_step.set(Duration::ZERO);
            bench.clocks.pass(rest);
        }
        let end = bench.clocks.moment();
        let passed = end.now.since(begun.now).as_secs_f64();
        let written = bench.seconds("write_seconds") * 50.0;
        assert!(written / passed <= share, "{written} of {passed}");
    }
}

#[test]
fn a_disk_that_fails_is_a_line_a_minute_and_the_next_write_is_made_again() {
    for error in [libc::ENOSPC, libc::EROFS, libc::EIO] {
        let lines = Lines::start();
        let mut bench = Bench::new(&lines.log);
        bench.registry.set(random(1));
        bench.run_for(INTERVAL);
        bench.disk.fail(Some(error));
        for number in 0..150 {
            bench.registry.set(random(number));
            bench.run_for(INTERVAL);
        }
        assert_eq!(bench.read().expect("the last one").saved, random(1));
        let failures = bench.count("write_errors_total");
        assert!((140..200).contains(&failures), "{failures}");
        bench.disk.fail(None);
        bench.run_for(2 * INTERVAL);
        assert_eq!(bench.read().expect("a state").saved, random(149));
        assert_eq!(bench.count("writes_total"), 2);
        bench.registry.set(random(2));
        bench.run_for(INTERVAL);
        let lines = lines.end();
        let [first, second, third, again] = &lines[..] else { panic!("{lines:?}") };
        let text = std::io::Error::from_raw_os_error(error).to_string();
        let expected =
            format!("WARNING: cannot write the state to /state - {text} (times since the last such line: ");
        assert_eq!(first, &format!("{expected}1)"));
        assert!(second.starts_with(&expected) && third.starts_with(&expected), "{lines:?}");
        assert_eq!(again, "INFO: the state is written to /state again");
        assert!(LOG_PAUSE < Duration::from_secs(75), "two more in 150 s");
    }
}

#[test]
fn any_operation_may_fail_once() {
    for at in 0..14 {
        let lines = Lines::start();
        let mut bench = Bench::new(&lines.log);
        bench.registry.set(random(1));
        bench.run_for(INTERVAL);
        bench.registry.set(random(2));
        bench.disk.fail_after(at, libc::EIO);
        bench.run_for(3 * INTERVAL);
        assert_eq!(bench.read().expect("a state").saved, random(2), "operation {at}");
        let lines = lines.end();
        assert!(lines.len() == 2 || lines.is_empty(), "{lines:?}");
        assert!(lines.last().is_none_or(|line| line.starts_with("INFO: the state is written")), "{lines:?}");
        let temporary = bench.disk.names().into_iter().find(|name| name.contains("tmp"));
        assert_eq!(temporary, None, "operation {at}");
    }
}

/// Waits until the thread has done what is asked for.
fn until(mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < Duration::from_secs(60), "nothing happens");
        std::thread::yield_now();
    }
}

#[test]
fn the_thread_writes_on_a_real_disk_and_gives_the_folder_back() {
    let place = tempdir().expect("a folder");
    let (registry, metrics) = (Registry::with(random(1)), Arc::new(Metrics::default()));
    let start = |folder| {
        let source = registry.clone();
        Saver::start(folder, source, Duration::ZERO, Clock::start(), metrics.state(), &Log::disabled())
            .expect("a thread")
    };
    let saver = start(Folder::open(place.path()).expect("nobody has it"));
    until(|| registry.saves() == 1);
    registry.set(random(2));
    until(|| registry.saves() == 2);
    // What has not been written is not written by a hand-over, and is by whoever goes on.
    let folder = saver.hand_over().expect("it has ended");
    registry.set(random(3));
    assert!(Folder::open(place.path()).is_err(), "the lock is held");
    let saver = start(folder);
    until(|| registry.saves() == 3);
    registry.set(random(4));
    let mut folder = saver.finish().expect("it has ended");
    assert_eq!(folder.read(Duration::ZERO, &Log::disabled()).expect("a state").saved, random(4));
    let names = names(place.path());
    assert!(names.starts_with(&[LOCK.to_owned()]) && names.contains(&STATE.to_owned()), "{names:?}");
    drop(folder);
    Folder::open(place.path()).expect("it is free");
}
