//! What is asked of etcd, and what comes back: the seam between what a member of the cluster does and how it reaches etcd.
//!
//! A member asks on three lanes, each of which has one request under way: the lease must be kept alive while a large batch of
//! writes takes long. Tests put a simulated etcd in this place.

use std::fmt;

/// A revision of etcd: it grows by one with each transaction that changes something. Zero is before the first.
pub type Revision = i64;

/// A lease of etcd. Zero is none.
pub type Lease = i64;

/// Which requests wait for each other.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Lane {
    /// Of this member's lease, and the key that it holds.
    Lease,
    /// Reading and writing.
    Data,
}

impl Lane {
    pub const ALL: [Self; 2] = [Self::Lease, Self::Data];
}

/// What is asked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Request {
    /// The pairs from a key on, and before another, in the order of their keys; at most so many.
    Range {
        from: String,
        before: String,
        limit: usize,
        /// As of this revision; zero is the newest.
        revision: Revision,
    },
    /// If all conditions hold, all of this is done, as one revision; else nothing.
    Transaction {
        conditions: Vec<Condition>,
        operations: Vec<Operation>,
    },
    /// A lease of so many seconds.
    Grant {
        seconds: u64,
    },
    KeepAlive {
        lease: Lease,
    },
    /// Ends a lease, and deletes the keys that it holds.
    Revoke {
        lease: Lease,
    },
    /// How much of a lease is left.
    TimeToLive {
        lease: Lease,
    },
}

/// A condition of a transaction.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Condition {
    Exists(String),
    IsAbsent(String),
}

/// A part of a transaction.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Operation {
    Put {
        key: String,
        value: Vec<u8>,
        lease: Lease,
    },
    Delete(String),
    /// Deletes the keys that begin so.
    DeletePrefix(String),
}

/// What every response says.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Header {
    /// Which cluster of etcd answers. One that was wiped and set up again alike has the same.
    pub cluster_id: u64,
    /// The newest revision, which is that of a transaction that has changed something.
    pub revision: Revision,
}

/// A key with its value.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Pair {
    pub key: String,
    pub value: Vec<u8>,
    /// When the key was made.
    pub create_revision: Revision,
    /// When it was written last.
    pub mod_revision: Revision,
    pub lease: Lease,
}

/// A response.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Response {
    Range {
        header: Header,
        pairs: Vec<Pair>,
        /// There are more than were asked for.
        more: bool,
    },
    /// Whether its conditions held.
    Transaction {
        header: Header,
        succeeded: bool,
    },
    Granted(Lease),
    /// The seconds that are left; zero when there is no such lease (any more).
    Left(u64),
    Revoked,
}

/// What a watch reports.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Watched {
    /// It has begun: etcd has it.
    Begun(Header),
    /// What has changed up to a revision, all changes of a revision together.
    Changed(Header, Vec<Modified>),
    /// Where it was to begin is compacted: that it was to report is lost.
    Compacted,
    /// It has ended.
    Failed(Failure),
}

/// A change of a key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Modified {
    Put(Pair),
    Deleted { key: String, revision: Revision },
}

impl Modified {
    /// The revision of the change.
    pub fn revision(&self) -> Revision {
        match self {
            Self::Put(pair) => pair.mod_revision,
            Self::Deleted { revision, .. } => *revision,
        }
    }
}

/// Why something was not answered as it should.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Failure {
    /// There is no connection, or it has broken.
    Unreachable(String),
    /// No answer in time. What was asked may have been done.
    TimedOut,
    /// Name, password or certificate are not accepted, or do not permit it.
    Denied(String),
    /// etcd takes no more data: its quota is used up, or another alarm is raised.
    Full,
    /// The revision is compacted.
    Compacted,
    /// There is no such lease.
    NoLease,
    /// It is not etcd, or one whose JSON gateway is off.
    NoGateway,
    /// etcd cannot do it now: it has no leader, or too much to do.
    Unavailable(String),
    /// etcd does not accept the request.
    Refused(String),
}

impl Failure {
    /// Whether it is over as soon as etcd answers anything, whatever it was that was asked.
    pub fn is_of_the_way(&self) -> bool {
        matches!(self, Self::Unreachable(_) | Self::TimedOut | Self::Unavailable(_))
    }

    /// Whether etcd, or what is there instead, would answer the same request so again until an operator does something.
    pub fn is_refusal(&self) -> bool {
        matches!(self, Self::Denied(_) | Self::Full | Self::NoGateway | Self::Refused(_))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable(why) => write!(f, "etcd cannot be reached: {why}"),
            Self::TimedOut => f.write_str("etcd did not answer in time"),
            Self::Denied(why) => write!(f, "etcd denies access: {why}; see -cluster-user-file and -cluster-cert"),
            Self::Full => f.write_str(
                "etcd takes no more data: its quota is used up; compact and defragment it, then disarm the alarm (etcdctl alarm disarm)",
            ),
            Self::Compacted => f.write_str("etcd has compacted what was asked for"),
            Self::NoLease => f.write_str("etcd does not have the lease any more"),
            Self::NoGateway => f.write_str("no JSON gateway of etcd is there: -cluster names another server, or etcd runs with --enable-grpc-gateway=false"),
            Self::Unavailable(why) => write!(f, "etcd is not available: {why}"),
            Self::Refused(why) => write!(f, "etcd refused: {why}"),
        }
    }
}

/// What comes from etcd.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Incoming {
    /// The answer to the one request that is under way on the lane.
    Answer(Lane, Result<Response, Failure>),
    /// Of the watch with this number: one that was stopped may still report.
    Watched(u64, Watched),
}

/// A connection to etcd, or to what stands for it. Nothing here blocks or fails: whatever happens comes as [`Incoming`].
pub trait Store {
    /// Asks, when nothing is under way on the lane.
    fn ask(&mut self, lane: Lane, request: Request);

    /// Watches all keys with a prefix from a revision on, and stops the watch before.
    fn watch(&mut self, number: u64, prefix: &str, from: Revision);

    /// Stops the watch.
    fn stop_watch(&mut self);
}
