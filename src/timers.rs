//! Timers: one for each connection of a worker, in a wheel.
//!
//! A bucket of the wheel holds the timers of a quarter of a second in a list, so that setting a timer and cancelling it
//! take constant time, and looking for the timers that are due visits the buckets of the time since the last look.
//!
//! Timers are lazy. Most deadlines move later again and again, with each request and each PING. Such a move does not
//! touch the timer: it fires at the time before, and its owner, who finds that there is more time, sets it again. A timer
//! further away than the wheel reaches fires early likewise.

use crate::clock::Timestamp;

/// A bucket holds the timers of 2^28 nanoseconds: 268 ms, about a [`TICK`](crate::limits::TICK).
const BUCKET_SHIFT: u32 = 28;
/// The wheel reaches over nearly five minutes.
const BUCKETS: u32 = 1024;

/// Timers, each with a number that its owner has chosen: small numbers, as the memory is that of the largest.
pub struct Timers {
    /// The heads of the buckets' lists, and behind them the timers by number.
    nodes: Vec<Node>,
    /// The bucket of the last look, counted from the beginning of time. Timers are in it and in those after it.
    current: i64,
}

/// A member of a circular list. One that is alone is not set.
#[derive(Clone, Copy)]
struct Node {
    /// When it fires; [`Timestamp::MAX`] when it is not set.
    at: Timestamp,
    previous: u32,
    next: u32,
}

impl Timers {
    pub fn new(now: Timestamp) -> Self {
        Self { nodes: (0..BUCKETS).map(Node::alone).collect(), current: bucket(now) }
    }

    /// Makes a timer fire after `at`, or sooner: one that is set to an earlier time stays as it is. No timer is needed for
    /// [`Timestamp::MAX`].
    pub fn set(&mut self, timer: u32, at: Timestamp) {
        if at == Timestamp::MAX {
            return;
        }
        let node = BUCKETS + timer;
        if node as usize >= self.nodes.len() {
            let more = (BUCKETS..=node).skip(self.nodes.len() - BUCKETS as usize);
            self.nodes.extend(more.map(Node::alone));
        }
        if self.nodes[node as usize].at > at {
            self.unlink(node);
            self.link(node, at);
        }
    }

    /// Makes sure that a timer does not fire.
    pub fn cancel(&mut self, timer: u32) {
        let node = BUCKETS + timer;
        if (node as usize) < self.nodes.len() {
            self.unlink(node);
        }
    }

    /// Appends the timers that were set to a time before `now`, which are then set no more.
    pub fn fire(&mut self, now: Timestamp, fired: &mut Vec<u32>) {
        let last = bucket(now).max(self.current);
        let passed = last - self.current;
        // After a long time each bucket is visited once.
        for number in self.current..=self.current + passed.min(i64::from(BUCKETS) - 1) {
            let head = head(number);
            let mut node = self.nodes[head as usize].next;
            while node != head {
                let Node { at, next, .. } = self.nodes[node as usize];
                if at < now {
                    self.unlink(node);
                    fired.push(node - BUCKETS);
                }
                node = next;
            }
        }
        self.current = last;
    }

    fn link(&mut self, node: u32, at: Timestamp) {
        let furthest = self.current + i64::from(BUCKETS) - 1;
        let at = at.min(Timestamp::from_nanos(furthest << BUCKET_SHIFT));
        // What is overdue already is found with the next look.
        let head = head(bucket(at).max(self.current));
        let next = self.nodes[head as usize].next;
        self.nodes[node as usize] = Node { at, previous: head, next };
        self.nodes[head as usize].next = node;
        self.nodes[next as usize].previous = node;
    }

    fn unlink(&mut self, node: u32) {
        let Node { previous, next, .. } = self.nodes[node as usize];
        self.nodes[previous as usize].next = next;
        self.nodes[next as usize].previous = previous;
        self.nodes[node as usize] = Node::alone(node);
    }
}

impl Node {
    fn alone(itself: u32) -> Self {
        Self { at: Timestamp::MAX, previous: itself, next: itself }
    }
}

/// In which bucket a time is, counted from the beginning of time.
fn bucket(at: Timestamp) -> i64 {
    at.nanos() >> BUCKET_SHIFT
}

/// The head of a bucket's list.
fn head(bucket: i64) -> u32 {
    u32::try_from(bucket.rem_euclid(i64::from(BUCKETS))).expect("a remainder")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::hash::{BuildHasher, RandomState};
    use std::panic;
    use std::time::Duration;

    use super::*;
    use crate::limits::TICK;

    const START: Timestamp = Timestamp::from_nanos(1_700_000_000_000_000_000);

    /// The owners of timers, and what a scan of all deadlines finds.
    struct Scene {
        rng: fastrand::Rng,
        now: Timestamp,
        timers: Timers,
        /// `MAX` where there is none.
        deadlines: Vec<Timestamp>,
    }

    impl Scene {
        /// A time from now on of any magnitude, from a nanosecond to years.
        fn later(&mut self) -> Duration {
            let bits = self.rng.u32(0..58);
            Duration::from_nanos(self.rng.u64(..1 << bits))
        }

        fn step(&mut self) {
            let timer = self.rng.usize(..self.deadlines.len());
            match self.rng.u32(..10) {
                // Earlier or later than before, or even past.
                0..7 => {
                    let from = if self.rng.bool() { self.now } else { START };
                    let deadline = from.after(self.later());
                    self.deadlines[timer] = deadline;
                    self.timers.set(u32::try_from(timer).expect("few"), deadline);
                }
                7 => self.deadlines[timer] = Timestamp::MAX,
                8 => {
                    self.deadlines[timer] = Timestamp::MAX;
                    self.timers.cancel(u32::try_from(timer).expect("few"));
                }
                _ => self.look(),
            }
        }

        /// As the worker does it: fired timers with time left are set again.
        fn look(&mut self) {
            let wait = if self.rng.u32(..10) > 0 { TICK.mul_f64(self.rng.f64() * 2.0) } else { self.later() };
            self.now = self.now.after(wait);
            let overdue = |deadlines: &[Timestamp], now| -> BTreeSet<usize> {
                (0..deadlines.len()).filter(|&timer| deadlines[timer] < now).collect()
            };
            let expected = overdue(&self.deadlines, self.now);
            let mut fired = Vec::new();
            self.timers.fire(self.now, &mut fired);
            let mut expired = BTreeSet::new();
            for timer in fired {
                let deadline = &mut self.deadlines[timer as usize];
                if *deadline < self.now {
                    assert!(expired.insert(timer as usize), "a timer fires once");
                    *deadline = Timestamp::MAX;
                } else {
                    self.timers.set(timer, *deadline);
                }
            }
            assert_eq!(expired, expected);
        }
    }

    #[test]
    fn what_a_scan_of_all_deadlines_finds() {
        let fresh = RandomState::new().hash_one(0);
        for seed in (0..200).chain([fresh]) {
            let mut rng = fastrand::Rng::with_seed(seed);
            let deadlines = vec![Timestamp::MAX; rng.usize(1..100)];
            let mut scene = Scene { rng, now: START, timers: Timers::new(START), deadlines };
            let played = panic::catch_unwind(panic::AssertUnwindSafe(|| (0..2000).for_each(|_| scene.step())));
            assert!(played.is_ok(), "seed {seed}");
        }
    }

    #[test]
    fn a_timer_fires_after_its_time_and_not_at_it() {
        let mut timers = Timers::new(START);
        let at = START.after(TICK);
        timers.set(3, at);
        let mut fired = Vec::new();
        timers.fire(at, &mut fired);
        assert!(fired.is_empty());
        timers.fire(at.after(Duration::from_nanos(1)), &mut fired);
        assert_eq!(fired, [3]);
    }

    /// However often a deadline moves later, there is one timer, and nothing is allocated for it.
    #[test]
    fn a_deadline_that_moves_later_leaves_its_timer_alone() {
        let mut timers = Timers::new(START);
        timers.set(0, START.after(TICK));
        let nodes = timers.nodes.len();
        for times in 2..1000 {
            timers.set(0, START.after(times * TICK));
        }
        assert_eq!(timers.nodes.len(), nodes);
        let mut fired = Vec::new();
        timers.fire(START.after(2 * TICK), &mut fired);
        timers.fire(Timestamp::MAX, &mut fired);
        assert_eq!(fired, [0]);
    }
}
