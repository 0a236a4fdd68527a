//! Log lines that would repeat.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};

use crate::clock::Timestamp;
use crate::limits::LOG_PAUSE;

/// A line that is logged once in [`LOG_PAUSE`], however often there is reason to.
#[derive(Default)]
pub(super) struct Recurrent {
    /// Nanoseconds of the [`Timestamp`] from which on it may be logged again.
    next: AtomicI64,
    /// How many occasions the lines so far have reported.
    reported: AtomicU64,
}

impl Recurrent {
    /// How many occasions a line should tell of, if it should be logged now; `total` is all of them so far.
    pub(super) fn due(&self, now: Timestamp, total: impl FnOnce() -> u64) -> Option<u64> {
        let next = self.next.load(Relaxed);
        let due = now.nanos() >= next
            && self.next.compare_exchange(next, now.after(LOG_PAUSE).nanos(), Relaxed, Relaxed).is_ok();
        due.then(|| {
            let total = total();
            total.saturating_sub(self.reported.swap(total, Relaxed))
        })
    }
}
