//! How many tombstones are in force, without a look at each topic.

use std::sync::Arc;
use std::time::Duration;

use crate::clock::Timestamp;

/// When each tombstone was set that may be in force, oldest first. One that has expired stays until the next is set.
#[derive(Clone, Default)]
pub(super) struct TombstoneTimes(Arc<Vec<Timestamp>>);

impl TombstoneTimes {
    /// So many are set, and those that have expired by now are dropped.
    pub(super) fn add(&mut self, now: Timestamp, count: usize, lifetime: Duration) {
        let times = Arc::make_mut(&mut self.0);
        times.drain(..expired(times, now, lifetime));
        // Another worker's time may be a little later.
        let at = times.partition_point(|&time| time <= now);
        times.splice(at..at, std::iter::repeat_n(now, count));
    }

    /// One of this time is gone. It may have been dropped before.
    pub(super) fn remove(&mut self, at: Timestamp) {
        if let Ok(found) = self.0.binary_search(&at) {
            Arc::make_mut(&mut self.0).remove(found);
        }
    }

    /// How many are in force.
    pub(super) fn count(&self, now: Timestamp, lifetime: Duration) -> usize {
        self.0.len() - expired(&self.0, now, lifetime)
    }
}

/// How many have expired (stock: when `now - tombstoned_at >= lifetime`).
fn expired(times: &[Timestamp], now: Timestamp, lifetime: Duration) -> usize {
    times.partition_point(|time| time.after(lifetime) <= now)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_in_force_is_counted() {
        let (lifetime, second) = (Duration::from_secs(45), Duration::from_secs(1));
        let start = Timestamp::from_nanos(1);
        let mut times = TombstoneTimes::default();
        times.add(start.after(second), 2, lifetime);
        times.add(start, 1, lifetime);
        assert_eq!(times.count(start.after(second), lifetime), 3);
        assert_eq!(times.count(start.after(lifetime), lifetime), 2);
        times.remove(start.after(second));
        assert_eq!(times.count(start.after(lifetime), lifetime), 1);
        times.add(start.after(2 * lifetime), 1, lifetime);
        times.remove(start);
        assert_eq!(times.0.len(), 1, "the expired were dropped");
    }
}
