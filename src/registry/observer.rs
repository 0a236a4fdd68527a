//! Being informed of commits.

use std::sync::Arc;

use super::change::Change;
use super::snapshot::Snapshot;
use super::topic::Topic;

/// Somebody who may want to know what a commit has changed. The registry asks at each commit whether it does, which is all
/// that a commit costs otherwise.
pub trait Observer: Send + Sync {
    /// Whether commits matter at present. One that begins after this has become so, and after
    /// [`Registry::synchronize`](super::Registry::synchronize), is not missed.
    fn is_waiting(&self) -> bool;

    /// A commit is visible. The writer lock is held: the next commit waits for this.
    fn committed(&self, commit: &Commit<'_>);
}

/// Somebody who is to know of every change, before it is made.
pub trait Recorder: Send + Sync {
    /// The change is made next, to the registry as it is in this snapshot. The writer lock is held: nothing else changes meanwhile,
    /// and what is noted here is visible to whoever gets the lock after this commit.
    fn record(&self, change: &Change, snapshot: &Snapshot);
}

/// A commit that has just become visible.
pub struct Commit<'a> {
    pub(super) before: &'a Snapshot,
    pub(super) after: &'a Snapshot,
    /// The slots of the topics in which the two differ, some more than once.
    pub(super) touched: &'a [u32],
}

impl Commit<'_> {
    /// The registry as it is now.
    pub fn after(&self) -> &Snapshot {
        self.after
    }

    /// Whether it has changed how long producers and tombstones are kept, which may show in every topic.
    pub fn has_changed_lifetimes(&self) -> bool {
        self.before.rest.lifetimes_revision != self.after.rest.lifetimes_revision
    }

    /// The topics that have changed, each as it was and as it is. A topic that another has taken the place of is there
    /// together with that one.
    pub fn topics(&self) -> impl Iterator<Item = (Option<&Arc<Topic>>, Option<&Arc<Topic>>)> {
        let slots = self.touched.iter().map(|&slot| slot as usize);
        slots.map(|slot| (self.before.topics.get(slot), self.after.topics.get(slot)))
    }
}
