//! Time. Read once an iteration and passed down as an argument.

use std::sync::atomic::AtomicI64;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::limits::{CLOCK_GAP, CLOCK_RENEWAL};

/// Nanoseconds since the Unix epoch, as stock keeps `last_update` and `tombstoned_at`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Timestamp(i64);

impl Timestamp {
    /// Later than every other.
    pub const MAX: Self = Self(i64::MAX);
    /// Before every other.
    pub const MIN: Self = Self(i64::MIN);

    pub const fn from_nanos(nanos: i64) -> Self {
        Self(nanos)
    }

    pub const fn nanos(self) -> i64 {
        self.0
    }

    /// Saturates at [`Timestamp::MAX`].
    #[must_use]
    pub fn after(self, wait: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(wait.as_nanos()).unwrap_or(i64::MAX)))
    }

    /// Saturates at the earliest that there is.
    #[must_use]
    pub fn before(self, ago: Duration) -> Self {
        Self(self.0.saturating_sub(i64::try_from(ago.as_nanos()).unwrap_or(i64::MAX)))
    }

    /// How long ago `earlier` was; zero when it is yet to come.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }
}

/// The system's clock, since the Unix epoch; zero before it. Unlike [`Clock`] it may be set.
#[must_use]
pub fn wall() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// Wall time that never steps: the system's clock at the start plus the time that the process has run since. A clock set
/// back or forward by an operator makes no producer inactive. Nor does a time in which the process did not run (SIGSTOP,
/// a paused container, a restored snapshot of the machine): what clients did meanwhile waits in the sockets, and nobody
/// can have been late. Only the numbers in `/debug` show the difference to the system's clock.
#[derive(Clone, Debug)]
pub struct Clock {
    started: Instant,
    started_at: Timestamp,
    running: Arc<Running>,
}

/// Which part of the time since the start the process has run. Workers sleep for a [`TICK`](crate::limits::TICK) at
/// most, so a longer gap between two readings, whoever makes them, is time in which none of them ran.
#[derive(Debug, Default)]
struct Running {
    /// Nanoseconds since the start at a late reading: at most [`CLOCK_RENEWAL`] before the last one.
    seen: AtomicI64,
    /// Nanoseconds in which the process did not run.
    lost: AtomicI64,
    /// For whoever adds to `lost`: two workers may notice a gap at the same moment.
    noting: Mutex<()>,
}

impl Clock {
    pub fn start() -> Self {
        let started_at = Timestamp::default().after(wall());
        Self { started: Instant::now(), started_at, running: Arc::default() }
    }

    pub fn now(&self) -> Timestamp {
        self.started_at.after(self.running.at(self.started.elapsed()))
    }
}

impl Running {
    /// How long the process has run, so long after the start.
    fn at(&self, elapsed: Duration) -> Duration {
        let elapsed = nanos(elapsed);
        // `seen` is stored after `lost`: who finds the end of a gap in the one finds the gap in the other.
        let gap = elapsed - self.seen.load(Acquire);
        if gap > nanos(CLOCK_GAP) {
            self.note_gap(elapsed);
        } else if gap > nanos(CLOCK_RENEWAL) {
            self.seen.fetch_max(elapsed, Release);
        }
        let ran = elapsed - self.lost.load(Relaxed);
        Duration::from_nanos(ran.try_into().unwrap_or(0))
    }

    fn note_gap(&self, elapsed: i64) {
        let _noting = self.noting.lock().unwrap_or_else(PoisonError::into_inner);
        let gap = elapsed - self.seen.load(Relaxed);
        if gap > nanos(CLOCK_GAP) {
            // Another worker may have read the clock so long after `seen`: it must not run backwards.
            self.lost.fetch_add(gap - nanos(CLOCK_RENEWAL), Relaxed);
            self.seen.store(elapsed, Release);
        }
    }
}

fn nanos(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn times_saturate() {
        assert_eq!(Timestamp::MAX.after(Duration::MAX), Timestamp::MAX);
        assert_eq!(Timestamp(1).since(Timestamp(2)), Duration::ZERO);
        assert_eq!(Timestamp(5).after(Duration::from_nanos(7)).since(Timestamp(2)), Duration::from_nanos(10));
    }

    #[test]
    fn the_clock_does_not_run_backwards() {
        let clock = Clock::start();
        let first = clock.now();
        assert!(clock.now() >= first);
    }
    #[test]
    fn the_time_in_which_nobody_reads_the_clock_does_not_pass() {
        let (running, second) = (Running::default(), Duration::from_secs(1));
        assert_eq!(running.at(second), second);
        let before = running.at(second + CLOCK_RENEWAL);
        for reader in 0..3 {
            let after = running.at(1000 * second);
            assert!(after >= before && after <= before + CLOCK_RENEWAL, "{reader}: {before:?}, {after:?}");
        }
        let (end, later) = (running.at(1000 * second), running.at(1000 * second + CLOCK_GAP));
        assert_eq!(later, end + CLOCK_GAP, "a tick that is late is time like any other");
    }

    #[test]
    fn readers_beside_a_gap_do_not_see_it() {
        let running = Running::default();
        thread::scope(|scope| {
            let readers: Vec<_> = (0..4)
                .map(|_| {
                    scope.spawn(|| {
                        let mut last = Duration::ZERO;
                        for step in 0..50_000_u32 {
                            // Each thousandth step is an hour.
                            let now =
                                running.at(step * CLOCK_RENEWAL + step / 1000 * Duration::from_secs(60 * 60));
                            assert!(now < 60_000 * CLOCK_RENEWAL, "{now:?} holds an hour");
                            last = last.max(now);
                        }
                        last
                    })
                })
                .collect();
            for reader in readers {
                reader.join().expect("no hour was seen");
            }
        });
    }
}
