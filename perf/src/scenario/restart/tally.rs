//! What became of lookups, restart by restart. Moments are arguments: it knows no clock.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use crate::failure::Loss;
use crate::measure::Latencies;
use crate::report::{Lookups, Restart};

/// What is counted as interrupted as a whole when a lookup in it was.
pub const BUCKET: Duration = Duration::from_millis(100);

/// How a lookup ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Listed {
        is_complete: bool,
        has_duplicates: bool,
    },
    /// A status other than 200 and 404.
    ErrorStatus,
    Lost(Loss),
}

/// Which connection a lookup was sent over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Via {
    New,
    Kept,
}

/// Counts since the last restart began, and those of the restarts before it.
pub struct Tally {
    window: Window,
    restarts: Vec<Restart>,
    /// Of lookups over new connections with a response, of all restarts.
    latencies: Latencies,
    complete: u64,
}

/// From one restart to the next.
struct Window {
    began: Instant,
    new: Counts,
    kept: Counts,
    incomplete: BTreeSet<u128>,
    failed: BTreeSet<u128>,
    /// Whether any lookup was without a complete response.
    was_interrupted: bool,
    /// The first complete response since then.
    complete_since: Option<Instant>,
}

#[derive(Default)]
struct Counts {
    lookups: Lookups,
    latencies: Latencies,
}

impl Tally {
    pub fn new(now: Instant) -> Self {
        Self { window: Window::new(now), restarts: Vec::new(), latencies: Latencies::default(), complete: 0 }
    }

    /// A lookup that was due at a moment has ended now.
    pub fn record(&mut self, via: Via, due: Instant, now: Instant, outcome: Outcome) {
        self.window.record(via, due, now, outcome);
        self.complete += u64::from(matches!(outcome, Outcome::Listed { is_complete: true, .. }));
    }

    /// Since when all responses have been complete, if the last one was.
    pub fn complete_since(&self) -> Option<Instant> {
        self.window.complete_since
    }

    /// A restart begins.
    pub fn begin(&mut self, now: Instant) {
        self.window = Window::new(now);
    }

    /// The restart is over: what has happened since it began is its own.
    pub fn end(&mut self, is_settled: bool) {
        self.latencies.add(&self.window.new.latencies);
        self.restarts.push(self.window.restart(is_settled));
    }

    pub fn restarts(&self) -> &[Restart] {
        &self.restarts
    }

    /// Complete responses, those before the first restart too.
    pub fn complete(&self) -> u64 {
        self.complete
    }

    /// Of lookups over new connections, during restarts.
    pub fn latencies(&self) -> &Latencies {
        &self.latencies
    }
}

impl Window {
    fn new(began: Instant) -> Self {
        Self {
            began,
            new: Counts::default(),
            kept: Counts::default(),
            incomplete: BTreeSet::new(),
            failed: BTreeSet::new(),
            was_interrupted: false,
            complete_since: None,
        }
    }

    fn record(&mut self, via: Via, due: Instant, now: Instant, outcome: Outcome) {
        let bucket = now.saturating_duration_since(self.began).as_nanos() / BUCKET.as_nanos();
        let counts = match via {
            Via::New => &mut self.new,
            Via::Kept => &mut self.kept,
        };
        let lookups = &mut counts.lookups;
        lookups.asked += 1;
        match outcome {
            Outcome::Listed { is_complete, has_duplicates } => {
                lookups.incomplete += u64::from(!is_complete);
                lookups.with_duplicates += u64::from(has_duplicates);
            }
            Outcome::ErrorStatus => lookups.error_status += 1,
            Outcome::Lost(Loss::Refused) => lookups.refused += 1,
            Outcome::Lost(Loss::Closed | Loss::Broken) => lookups.broken += 1,
            Outcome::Lost(Loss::TimedOut) => lookups.timed_out += 1,
        }
        if !matches!(outcome, Outcome::Lost(_)) {
            counts.latencies.record(now.saturating_duration_since(due));
        }
        match outcome {
            Outcome::Listed { is_complete: true, .. } => {
                self.complete_since.get_or_insert(now);
                return;
            }
            Outcome::Listed { .. } => self.incomplete.insert(bucket),
            Outcome::ErrorStatus | Outcome::Lost(_) => self.failed.insert(bucket),
        };
        self.was_interrupted = true;
        self.complete_since = None;
    }

    fn restart(&self, is_settled: bool) -> Restart {
        #[expect(clippy::cast_precision_loss, reason = "hours of tenths are exact")]
        let seconds = |buckets: &BTreeSet<u128>| buckets.len() as f64 * BUCKET.as_secs_f64();
        let until_complete = match self.complete_since {
            Some(_) if !self.was_interrupted => Some(0.0),
            since => since.map(|since| since.saturating_duration_since(self.began).as_secs_f64()),
        };
        Restart {
            new_connections: self.new.summary(),
            kept_connections: self.kept.summary(),
            seconds_incomplete: seconds(&self.incomplete),
            seconds_failed: seconds(&self.failed),
            seconds_until_complete: until_complete,
            is_settled,
        }
    }
}

impl Counts {
    fn summary(&self) -> Lookups {
        Lookups { latency_us: self.latencies.summary(), ..self.lookups.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMPLETE: Outcome = Outcome::Listed { is_complete: true, has_duplicates: false };
    const INCOMPLETE: Outcome = Outcome::Listed { is_complete: false, has_duplicates: false };
    const REFUSED: Outcome = Outcome::Lost(Loss::Refused);

    fn millis(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    /// Lookups over new connections that end so many milliseconds after a restart's begin, each due 1 ms before.
    fn restart(lookups: &[(u64, Outcome)]) -> (Tally, Instant) {
        let began = Instant::now();
        let mut tally = Tally::new(began);
        tally.begin(began);
        for &(at, outcome) in lookups {
            let now = began + millis(at);
            tally.record(Via::New, now.checked_sub(millis(1)).unwrap(), now, outcome);
        }
        (tally, began)
    }

    #[test]
    fn interruptions_are_counted_in_tenths_of_a_second() {
        let (mut tally, began) = restart(&[
            (10, COMPLETE),
            (50, REFUSED),
            (250, INCOMPLETE),
            (299, INCOMPLETE),
            (301, INCOMPLETE),
            (350, COMPLETE),
            (700, INCOMPLETE),
            (720, COMPLETE),
            (760, COMPLETE),
        ]);
        assert_eq!(tally.complete_since(), Some(began + millis(720)));
        tally.end(true);
        let [restart] = tally.restarts() else { panic!("one restart") };
        assert!((restart.seconds_incomplete - 0.3).abs() < 1e-9, "{restart:?}");
        assert!((restart.seconds_failed - 0.1).abs() < 1e-9, "{restart:?}");
        assert_eq!(restart.seconds_until_complete, Some(0.72));
        let lookups = &restart.new_connections;
        assert_eq!((lookups.asked, lookups.refused, lookups.incomplete, lookups.failed()), (9, 1, 4, 0));
        assert_eq!(restart.kept_connections.asked, 0);
        assert_eq!(tally.complete(), 4);
        assert_eq!(tally.latencies().count(), 8, "what was refused has no latency");
        assert!((lookups.latency_us.unwrap().p50 - 1e3).abs() < 1.0, "from when it was due");
    }

    #[test]
    fn a_restart_that_interrupts_nothing_is_complete_at_once() {
        let (mut tally, _) = restart(&[(40, COMPLETE), (90, COMPLETE)]);
        tally.end(true);
        assert_eq!(tally.restarts()[0].seconds_until_complete, Some(0.0));
        let (mut tally, _) = restart(&[(40, COMPLETE), (90, REFUSED)]);
        tally.end(false);
        assert_eq!(tally.restarts()[0].seconds_until_complete, None, "it is not reached");
        assert!(!tally.restarts()[0].is_settled);
    }

    #[test]
    fn every_way_to_fail_is_counted_apart_and_by_connection() {
        let (mut tally, began) = restart(&[
            (0, Outcome::Lost(Loss::Closed)),
            (1, Outcome::Lost(Loss::Broken)),
            (2, Outcome::Lost(Loss::TimedOut)),
            (3, Outcome::ErrorStatus),
        ]);
        let twice = Outcome::Listed { is_complete: true, has_duplicates: true };
        tally.record(Via::Kept, began, began + millis(4), twice);
        tally.end(true);
        let Restart { new_connections: new, kept_connections: kept, .. } = &tally.restarts()[0];
        assert_eq!((new.broken, new.timed_out, new.error_status, new.failed()), (2, 1, 1, 4));
        assert_eq!((kept.asked, kept.with_duplicates, kept.failed()), (1, 1, 0));
    }

    #[test]
    fn each_restart_begins_anew() {
        let (mut tally, began) = restart(&[(10, INCOMPLETE), (20, COMPLETE)]);
        tally.end(true);
        tally.begin(began + millis(1000));
        assert_eq!(tally.complete_since(), None, "nothing was asked since");
        tally.record(Via::New, began, began + millis(1050), COMPLETE);
        tally.end(true);
        let [first, second] = tally.restarts() else { panic!("two restarts") };
        assert_eq!((first.new_connections.incomplete, second.new_connections.incomplete), (1, 0));
        assert_eq!(second.new_connections.asked, 1);
    }
}
