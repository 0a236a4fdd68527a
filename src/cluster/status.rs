//! How the cluster is, for `/ready`, `/metrics` and the page. Written by its thread, read by all workers.

use crate::metrics::ClusterFigures;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};

/// The state of this instance in the cluster.
#[derive(Debug, Default)]
pub struct Status {
    /// There is a cluster.
    pub is_on: AtomicBool,
    /// All that etcd has was read once.
    pub has_read: AtomicBool,
    /// What changes in etcd comes here.
    pub is_connected: AtomicBool,
    /// etcd takes what this instance writes.
    pub is_writable: AtomicBool,
    /// Instances that live.
    pub instances: AtomicUsize,
    /// Producers of other instances.
    pub remote: AtomicUsize,
    /// Those of them whose instance is dead.
    pub orphans: AtomicUsize,
    /// Producers for whose node another stands.
    pub shadowed: AtomicUsize,
    /// Records and requests of clients that etcd does not have yet.
    pub pending: AtomicUsize,
    /// Records that were written.
    pub written: AtomicU64,
    /// Changes of keys that were taken.
    pub changes: AtomicU64,
    /// How often everything was read.
    pub reads: AtomicU64,
    /// Requests that etcd has not answered as it should.
    pub failures: AtomicU64,
    /// Values that could not be read, and requests of clients that were dropped.
    pub lost: AtomicU64,
    /// The etcd revision up to which this instance has followed.
    pub revision: AtomicU64,
}

impl Status {
    /// The figures of this moment.
    pub fn figures(&self) -> ClusterFigures {
        ClusterFigures {
            is_connected: self.is_connected.load(Relaxed),
            is_writable: self.is_writable.load(Relaxed),
            instances: self.instances.load(Relaxed),
            remote: self.remote.load(Relaxed),
            orphans: self.orphans.load(Relaxed),
            shadowed: self.shadowed.load(Relaxed),
            pending: self.pending.load(Relaxed),
            written: self.written.load(Relaxed),
            changes: self.changes.load(Relaxed),
            reads: self.reads.load(Relaxed),
            failures: self.failures.load(Relaxed),
            lost: self.lost.load(Relaxed),
            revision: self.revision.load(Relaxed),
        }
    }

    /// Whether there is a cluster.
    pub fn is_on(&self) -> bool {
        self.is_on.load(Relaxed)
    }

    /// Whether nothing has come from etcd since the start.
    pub fn is_alone(&self) -> bool {
        !self.has_read.load(Relaxed)
    }

    /// What `/ready` says of a server that is ready, but does not know what the others know, nothing from etcd since the start or
    /// nothing new; or that the others do not know of.
    pub fn remark(&self) -> Option<&'static str> {
        if !self.is_on() {
            None
        } else if self.is_alone() {
            Some("OK, alone")
        } else if !self.is_connected.load(Relaxed) {
            Some("OK, cut off")
        } else if !self.is_writable.load(Relaxed) {
            Some("OK, read only")
        } else {
            None
        }
    }
}
