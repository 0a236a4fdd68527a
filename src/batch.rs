//! The changes of one iteration of the event loop, which wait for its commit, and how much work the iteration has done.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::change_log;
use crate::clock::Timestamp;
use crate::limits::{COMMIT_WEIGHT, DISCONNECT_WEIGHT, INPUT_BYTES_FOR_WEIGHT, ITERATION_WEIGHT_MAX};
use crate::log::Log;
use crate::registry::{Change, Registry, Writer};

/// A worker's batch.
pub struct Batch {
    registry: Arc<Registry>,
    changes: Vec<Change>,
    /// Work done in this iteration, in registrations.
    weight: u32,
}

impl Batch {
    pub fn new(registry: Arc<Registry>) -> Self {
        Self { registry, changes: Vec::new(), weight: 0 }
    }

    /// How many changes wait.
    pub fn len(&self) -> usize {
        self.changes.len()
    }

    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// Adds a change. The response to it may be staged now: it leaves after the commit.
    pub fn add(&mut self, change: Change) {
        self.weight += match change {
            Change::Disconnect(_) => DISCONNECT_WEIGHT,
            _ => 1,
        };
        self.changes.push(change);
    }

    /// Counts input that was acted on.
    pub fn count_input(&mut self, bytes: usize) {
        let weight = u32::try_from(bytes / INPUT_BYTES_FOR_WEIGHT).unwrap_or(u32::MAX);
        self.weight = self.weight.saturating_add(weight);
    }

    /// Whether the iteration should end here: a longer one would keep other workers from committing, and this
    /// worker's other connections from their responses.
    pub fn is_full(&self) -> bool {
        self.weight >= ITERATION_WEIGHT_MAX
    }

    /// Commits the changes, with something more to do under the writer lock, and hands each with its outcome to the log.
    /// Returns what more gave, and how long the commit took.
    pub fn commit<T>(
        &mut self,
        now: Timestamp,
        log: &Log,
        more: impl FnOnce(&mut Writer<'_>) -> T,
    ) -> (T, Duration) {
        self.weight += COMMIT_WEIGHT;
        let begun = Instant::now();
        let (outcomes, result) =
            self.registry.commit(|writer| (writer.apply_all(&self.changes, now), more(writer)));
        let took = begun.elapsed();
        for (change, outcome) in self.changes.drain(..).zip(&outcomes) {
            change_log::write(&change, outcome, log);
        }
        (result, took)
    }

    /// The iteration is over.
    pub fn end_iteration(&mut self) {
        self.weight = 0;
    }
}
