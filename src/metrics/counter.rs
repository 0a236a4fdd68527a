//! A number that one thread changes and others read.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Counts what one worker sees.
#[derive(Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// For the worker that the counter is of: another's increment at the same time would be lost.
    #[inline]
    pub fn increment(&self) {
        self.add(1);
    }

    /// As [`Counter::increment`], for several at once.
    #[inline]
    pub fn add(&self, more: usize) {
        self.add_u64(more as u64);
    }

    #[inline]
    pub(super) fn add_u64(&self, more: u64) {
        self.0.store(self.0.load(Relaxed) + more, Relaxed);
    }

    /// The number so far, which begins anew.
    pub(super) fn take(&self) -> u64 {
        let number = self.get();
        self.0.store(0, Relaxed);
        number
    }

    pub(super) fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}
