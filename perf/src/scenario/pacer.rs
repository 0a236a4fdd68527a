//! Work at a fixed rate, whether or not the server keeps up: what is due is due, and its latency counts from then.

use std::cell::Cell;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use tokio::sync::Notify;
use tokio_uring::fs::File;

use crate::failure::{Failure, Result};

/// Zero would disarm the timer.
const SHORTEST_WAIT: Duration = Duration::from_nanos(1);

/// Hands out moments at a fixed rate to whoever is free.
pub struct Pacer {
    schedule: Schedule,
    /// Moments that have come.
    due: Cell<u64>,
    /// Moments that somebody took.
    taken: Cell<u64>,
    ended: Cell<bool>,
    news: Notify,
}

/// Moment `i` is `i / rate` after the start.
#[derive(Clone, Copy, Debug)]
struct Schedule {
    start: Instant,
    /// A second.
    rate: f64,
}

impl Schedule {
    #[expect(clippy::cast_precision_loss, reason = "exact for the first 2^53 moments")]
    fn moment(&self, index: u64) -> Instant {
        self.start + Duration::from_secs_f64(index as f64 / self.rate)
    }

    /// How many moments have come by then, the first at the start.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count is far below 2^53")]
    fn due(&self, now: Instant) -> u64 {
        let whole = (now.saturating_duration_since(self.start).as_secs_f64() * self.rate) as u64;
        // The product may round to either side of a moment; the moments themselves are the truth.
        if self.moment(whole + 1) <= now { whole + 2 } else { whole + u64::from(self.moment(whole) <= now) }
    }
}

impl Pacer {
    /// Moments from now on, `rate` a second.
    pub fn start(rate: f64) -> Self {
        Self {
            schedule: Schedule { start: Instant::now(), rate },
            due: Cell::new(0),
            taken: Cell::new(0),
            ended: Cell::new(false),
            news: Notify::new(),
        }
    }

    /// Lets moments come until the time is over. Those that nobody has taken by then stay with [`Self::overdue`].
    ///
    /// # Errors
    /// When there is no timer to be had.
    pub async fn run(&self, end: impl Future<Output = ()>) -> Result<()> {
        let result = tokio::select! {
            result = self.tick() => result,
            () = end => Ok(()),
        };
        self.ended.set(true);
        self.news.notify_waiters();
        result
    }

    async fn tick(&self) -> Result<()> {
        let timer = Timer::new()?;
        loop {
            let due = self.schedule.due(Instant::now());
            for _ in self.due.replace(due)..due {
                self.news.notify_one();
            }
            timer.sleep_until(self.schedule.moment(due)).await?;
        }
    }

    /// The next moment that has come, or `None` after the end.
    pub async fn next(&self) -> Option<Instant> {
        while !self.ended.get() {
            let index = self.taken.get();
            if index < self.due.get() {
                self.taken.set(index + 1);
                return Some(self.schedule.moment(index));
            }
            self.news.notified().await;
        }
        None
    }

    /// The moments that came and that nobody was free for.
    pub fn overdue(&self) -> impl Iterator<Item = Instant> {
        (self.taken.get()..self.due.get()).map(|index| self.schedule.moment(index))
    }
}

/// A timer finer than tokio's, whose step of a millisecond is the whole latency here.
struct Timer {
    fd: OwnedFd,
    /// The same timer, read through the ring.
    file: File,
}

impl Timer {
    fn new() -> Result<Self> {
        // Not O_NONBLOCK, with which the ring would not wait either.
        let fd = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::CLOEXEC)
            .map_err(|error| failed(error.into()))?;
        let file = File::from_std(fd.try_clone().map_err(failed)?.into());
        Ok(Self { fd, file })
    }

    async fn sleep_until(&self, moment: Instant) -> Result<()> {
        // Even when behind: the ring is driven only while every task waits.
        let wait = moment.saturating_duration_since(Instant::now()).max(SHORTEST_WAIT);
        let never = Timespec { tv_sec: 0, tv_nsec: 0 };
        let it_value = Timespec::try_from(wait).expect("a wait is shorter than centuries");
        let once = Itimerspec { it_interval: never, it_value };
        timerfd_settime(&self.fd, TimerfdTimerFlags::empty(), &once).map_err(|error| failed(error.into()))?;
        let (result, _) = self.file.read_at(vec![0; size_of::<u64>()], 0).await;
        result.map(|_| ()).map_err(failed)
    }
}

fn failed(error: std::io::Error) -> Failure {
    Failure::io("use a timer", error, "the kernel must have timerfd")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_come_at_the_rate_from_the_start_on() {
        let start = Instant::now();
        for rate in [0.5, 3.0, 1_000.0, 999_983.0] {
            let schedule = Schedule { start, rate };
            assert_eq!(schedule.due(start), 1);
            for index in [1, 2, 3, 1_000, 1_000_003] {
                let moment = schedule.moment(index);
                assert_eq!(schedule.due(moment), index + 1, "moment {index} at {rate}");
                assert_eq!(
                    schedule.due(moment.checked_sub(Duration::from_nanos(1)).unwrap()),
                    index,
                    "before {index} at {rate}"
                );
            }
        }
    }

    /// A stall must not shift what comes after it: this is what makes latency count from the intended time.
    #[test]
    fn a_moment_taken_late_is_still_the_intended_one() {
        crate::ring::run(async {
            let pacer = Pacer::start(1_000.0);
            let start = pacer.schedule.start;
            pacer.due.set(3);
            assert_eq!(pacer.next().await, Some(start));
            assert_eq!(pacer.next().await, Some(start + Duration::from_millis(1)));
            let overdue: Vec<_> = pacer.overdue().collect();
            assert_eq!(overdue, [start + Duration::from_millis(2)]);
            pacer.run(async {}).await.unwrap();
            assert_eq!(pacer.next().await, None, "after the end nobody begins");
        })
        .unwrap();
    }

    #[test]
    fn who_waits_is_woken_at_each_moment_and_at_the_end() {
        crate::ring::run(async {
            let pacer = Pacer::start(2_000.0);
            let end = Notify::new();
            let worker = async {
                for _ in 0..5 {
                    assert!(pacer.next().await.unwrap() <= Instant::now());
                }
                end.notify_one();
                while pacer.next().await.is_some() {}
            };
            let (result, ()) = tokio::join!(pacer.run(end.notified()), worker);
            result.unwrap();
        })
        .unwrap();
    }
}
