//! What the thread counts that writes the state file.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use super::counter::Counter;
use super::histogram::nanos;
use super::recurrent::Recurrent;
use crate::clock::Timestamp;

/// All 0 in a server that writes none.
#[derive(Default)]
pub struct StateFigures {
    pub(super) writes: Counter,
    pub(super) errors: Counter,
    /// Nanoseconds that the last write took.
    took: AtomicU64,
    bytes: AtomicU64,
    /// Nanoseconds since the Unix epoch.
    saved_at: AtomicU64,
    error_lines: Recurrent,
}

impl StateFigures {
    /// A state of so many bytes is on the disk, as of this time since the Unix epoch.
    pub fn written(&self, bytes: u64, took: Duration, wall: Duration) {
        self.writes.increment();
        self.bytes.store(bytes, Relaxed);
        self.took.store(nanos(took), Relaxed);
        self.stamped(wall);
    }

    /// That it is still so is on the disk, as of this time since the Unix epoch.
    pub fn stamped(&self, wall: Duration) {
        self.saved_at.store(nanos(wall), Relaxed);
    }

    /// A write has failed. When a line about it is due: how many have since the last.
    pub fn failed(&self, now: Timestamp) -> Option<u64> {
        self.errors.increment();
        self.error_lines.due(now, || self.errors.get())
    }

    pub(super) fn took(&self) -> Duration {
        Duration::from_nanos(self.took.load(Relaxed))
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes.load(Relaxed)
    }

    pub(super) fn saved_at(&self) -> Duration {
        Duration::from_nanos(self.saved_at.load(Relaxed))
    }
}
