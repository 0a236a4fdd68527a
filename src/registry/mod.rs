//! Who produces what. Knows neither sockets nor protocols.
//!
//! Whatever changes the registry is a [`Change`]. [`Registry::commit`] applies a batch of them and publishes the result
//! as one immutable [`Snapshot`] by one store through `arc-swap`: a batch is visible as a whole or not at all, and
//! readers never wait. What does not change the structure stays out of it: a PING is one atomic store, and the passing
//! of time (inactivity, tombstones) is looked at when a response is rendered, which also says until when it is valid.
//!
//! - names: `names`. Values: `producer`, `topic`.
//! - A snapshot: `snapshot`, from the tables `table`, `index`, `producers`, and `tombstones`.
//! - Changing it: `change`, `writer`, `versions`, with `quota`, `contents`, `unused` and `nodes` at the side.
//! - Being informed of what has changed: `observer`.
//! - Outliving the process: `saved`, `restored`, `inheritance`.
//! - Reading it: `reader`, with `visibility`, `filter`, `shown`, `lookup`, `tag`, `cache` and `prefetch`.

mod cache;
mod change;
mod contents;
mod filter;
mod index;
mod inheritance;
mod lookup;
mod names;
mod nodes;
mod observer;
mod prefetch;
mod producer;
mod producers;
mod quota;
mod reader;
mod restored;
mod saved;
mod shown;
mod snapshot;
mod table;
mod tag;
#[cfg(test)]
mod tests;
mod tombstones;
mod topic;
mod unused;
mod versions;
mod visibility;
mod writer;

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, TryLockError};

use arc_swap::{ArcSwap, Guard};

use crate::clock::Timestamp;
pub use change::{Change, Changed, Deleted, Identified, Older, Outcome};
pub use contents::ChannelNames;
pub use filter::{Applied, Filter};
use inheritance::Grace;
pub use inheritance::Missing;
pub use lookup::LookupBody;
pub use names::{Name, ProducerId, Source, TopicId};
pub use observer::{Commit, Observer, Recorder};
pub use producer::{PeerInfo, Producer, Registered};
pub use reader::{CacheUse, Reader};
pub use restored::Restore;
pub use saved::{Saved, SavedChannel, SavedExpiry, SavedProducer, SavedProducers, SavedTopic, Saving};
pub use shown::Shown;
pub use snapshot::Snapshot;
pub use tag::Tag;
pub use topic::{Channel, Topic};
pub use unused::Forgotten;
use unused::Unused;
use versions::Versions;
pub use visibility::{Lifetimes, Rendered, Visibility};
pub use writer::Writer;
use writer::{Documents, Head};

/// All topics, channels and producers. Shared by every worker.
pub struct Registry {
    published: Arc<Published>,
    /// The writer lock.
    head: Mutex<Head>,
    /// Nanoseconds of the [`Timestamp`] at which the next unused name is to be forgotten.
    next_expiry: AtomicI64,
    /// Nanoseconds of the [`Timestamp`] at which restored producers are not expected any more.
    grace_end: AtomicI64,
    /// Every reader has a share in it.
    sharers: Arc<()>,
    observer: OnceLock<Arc<dyn Observer>>,
}

/// The newest snapshot.
struct Published {
    snapshot: ArcSwap<Snapshot>,
    /// Its revision, stored after it: who has seen a revision finds a snapshot that is at least as new.
    revision: AtomicU64,
}

impl Published {
    fn revision(&self) -> u64 {
        self.revision.load(Ordering::Acquire)
    }
}

impl Registry {
    pub fn new(lifetimes: Lifetimes) -> Self {
        let head = Head::new(Versions::new(lifetimes), Unused::new(lifetimes));
        let snapshot = ArcSwap::new(Arc::clone(head.versions.published()));
        let published = Arc::new(Published { snapshot, revision: AtomicU64::new(0) });
        let next_expiry = AtomicI64::new(Timestamp::MAX.nanos());
        let grace_end = AtomicI64::new(Timestamp::MAX.nanos());
        let (sharers, observer) = (Arc::default(), OnceLock::new());
        Self { published, head: Mutex::new(head), next_expiry, grace_end, sharers, observer }
    }

    /// The newest snapshot, for a moment: the next commit copies what is held.
    pub fn snapshot(&self) -> Guard<Arc<Snapshot>> {
        self.published.snapshot.load()
    }

    /// How many producers are connected.
    pub fn producers(&self) -> usize {
        self.snapshot().counts().0
    }

    /// How many topics (listed or not) and channels there are.
    pub fn registered(&self) -> Registered {
        self.snapshot().counts().1
    }

    /// How many of these have no producer.
    pub fn without_producers(&self) -> Registered {
        self.snapshot().rest.without_producers
    }

    /// How many tombstones hide a producer at this moment.
    pub fn tombstones(&self, now: Timestamp) -> usize {
        self.snapshot().tombstones(now)
    }

    /// How many producers of before a restart are expected back.
    pub fn expected(&self) -> usize {
        self.snapshot().rest.expected
    }

    pub fn lifetimes(&self) -> Lifetimes {
        self.snapshot().lifetimes()
    }

    /// Whether the time is over in which producers of before a restart are expected back: then it is time for
    /// [`Change::EndGrace`].
    pub fn is_grace_over(&self, now: Timestamp) -> bool {
        self.grace_end.load(Ordering::Relaxed) <= now.nanos()
    }

    /// Whether a name is to be forgotten, as of the last commit: then it is time for [`Change::Forget`].
    pub fn has_unused(&self, now: Timestamp) -> bool {
        self.next_expiry.load(Ordering::Relaxed) <= now.nanos()
    }

    /// Waits for the writer lock, applies a batch of changes, and publishes them by one store. A batch that has changed
    /// nothing publishes nothing.
    ///
    /// # Panics
    /// When a batch has panicked before: what it left cannot be trusted.
    pub fn commit<T>(&self, batch: impl FnOnce(&mut Writer<'_>) -> T) -> T {
        let mut head = self.lock();
        head.versions.begin();
        let mut writer = Writer { head: &mut head, changed: Documents::default() };
        let result = batch(&mut writer);
        let Documents { topics, nodes, lifetimes } = writer.changed;
        if nodes || topics || lifetimes || head.versions.are_different() {
            let without_producers = head.unused.count;
            let rest = &mut head.versions.edit().rest;
            rest.revision += 1;
            rest.without_producers = without_producers;
            let revision = rest.revision;
            if topics {
                rest.topics_revision = revision;
            }
            if nodes || lifetimes {
                rest.nodes_revision = revision;
            }
            if lifetimes {
                rest.lifetimes_revision = revision;
            }
            self.published.snapshot.store(head.versions.publish());
            self.published.revision.store(revision, Ordering::Release);
            if let Some(observer) = self.observer.get().filter(|observer| observer.is_waiting()) {
                observer.committed(&head.versions.last_commit());
            }
            head.versions.catch_up();
        }
        let grace_end = head.grace.as_ref().map_or(Timestamp::MAX, Grace::until);
        for (at, then) in [(&self.next_expiry, head.unused.next_expiry()), (&self.grace_end, grace_end)] {
            // Stored only when it has changed: all workers read it.
            if at.load(Ordering::Relaxed) != then.nanos() {
                at.store(then.nanos(), Ordering::Relaxed);
            }
        }
        result
    }

    /// Sets who is informed of commits. The first one stays.
    pub fn observe(&self, observer: Arc<dyn Observer>) {
        // Another worker has done it.
        let _ = self.observer.set(observer);
    }

    /// Sets who knows of every change from now on.
    ///
    /// # Panics
    /// As [`Registry::commit`].
    pub fn record(&self, recorder: Option<Arc<dyn Recorder>>) {
        self.lock().recorder = recorder;
    }

    /// Waits for the commit that is under way. Whatever is read after this is either newer than a commit, or that commit finds
    /// what its caller did before.
    ///
    /// # Panics
    /// As [`Registry::commit`].
    pub fn synchronize(&self) {
        drop(self.lock());
    }

    /// Frees what the last commit has replaced, if a reader held it then and does no more. To be called once in a while.
    ///
    /// # Panics
    /// As [`Registry::commit`].
    pub fn catch_up(&self) {
        match self.head.try_lock() {
            Ok(mut head) => head.versions.catch_up(),
            // The commit that is under way does it.
            Err(TryLockError::WouldBlock) => {}
            Err(TryLockError::Poisoned(_)) => panic!("{POISONED}"),
        }
    }

    /// A reader of its own for one worker.
    pub fn reader(&self) -> Reader {
        Reader::new(self)
    }

    fn lock(&self) -> MutexGuard<'_, Head> {
        self.head.lock().map_err(|_: PoisonError<_>| ()).expect(POISONED)
    }
}

const POISONED: &str = "no batch has panicked";
