//! What the registry's changes leave to be written to etcd.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use super::keys::TopicOrChannel;
use crate::limits::CLUSTER_ASKED_MAX;
use crate::registry::{Change, Name, Producer, ProducerId, Recorder, Snapshot};

/// What clients of this instance have asked for, and has been done here.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Asked {
    Create(TopicOrChannel),
    /// A name is not in the topology file any more.
    Release(TopicOrChannel),
    /// With a number of its own, higher than those before.
    Delete(TopicOrChannel, u64),
    Tombstone {
        topic: Name,
        node: Box<str>,
    },
}

/// What has changed since it was looked at.
#[derive(Default)]
pub struct Noted {
    /// Producers of this instance that have identified, in this order.
    pub joined: Vec<Arc<Producer>>,
    /// Those that have left.
    pub left: HashSet<ProducerId>,
    /// Those whose registrations may have changed.
    pub changed: HashSet<ProducerId>,
    /// Those that have lost a name by its deletion. Their records are written even if they get it back at once, so that the others
    /// see that they have it since.
    pub deleted: HashSet<ProducerId>,
    /// Any of them may have.
    pub all: bool,
    pub asked: Vec<Asked>,
    /// How many that were asked for were dropped, as too many wait.
    pub dropped: usize,
}

/// Collects them under the registry's writer lock, for the thread that speaks to etcd.
#[derive(Default)]
pub struct Notes {
    inner: Mutex<Inner>,
    /// Wakes that thread.
    waker: OnceLock<Box<dyn Fn() + Send + Sync>>,
}

#[derive(Default)]
struct Inner {
    noted: Noted,
    is_noted: bool,
    /// Deletions so far.
    deletions: u64,
    /// The thread itself makes the changes: others have asked for them.
    is_from_others: bool,
}

impl Notes {
    /// Who is to be woken when the first is noted since the last look. Set once.
    pub fn wake_by(&self, waker: impl Fn() + Send + Sync + 'static) {
        let _ = self.waker.set(Box::new(waker));
    }

    /// What was noted since the last call. Under the writer lock it is complete.
    pub fn take(&self) -> Noted {
        let mut inner = self.lock();
        inner.is_noted = false;
        std::mem::take(&mut inner.noted)
    }

    /// From now on changes are those that others have asked for, or not any more. To be called under the writer lock.
    pub fn set_from_others(&self, is_from_others: bool) {
        self.lock().is_from_others = is_from_others;
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a producer is connected to this instance.
pub fn is_own(producer: &Producer) -> bool {
    !producer.is_remote() && !producer.is_restored()
}

impl Recorder for Notes {
    fn record(&self, change: &Change, snapshot: &Snapshot) {
        let mut inner = self.lock();
        let is_from_others = inner.is_from_others;
        let noted = &mut inner.noted;
        match change {
            Change::Identify(producer) if is_own(producer) => noted.joined.push(Arc::clone(producer)),
            Change::Disconnect(producer) if is_own(producer) => {
                noted.left.insert(producer.id());
            }
            Change::Register { producer, .. } | Change::Unregister { producer, .. } if is_own(producer) => {
                noted.changed.insert(producer.id());
            }
            Change::Delete { topic, channel } => {
                let own = snapshot.producers_of(topic.as_bytes()).filter(|producer| is_own(producer));
                noted.deleted.extend(own.map(|producer| producer.id()));
                let name = TopicOrChannel { topic: *topic, channel: *channel };
                inner.deletions += 1;
                let number = inner.deletions;
                inner.noted.ask(Asked::Delete(name, number), is_from_others);
            }
            Change::Create { topic, channel } => {
                noted.ask(Asked::Create(TopicOrChannel { topic: *topic, channel: *channel }), is_from_others);
            }
            Change::Release { topic, channel } => {
                noted.ask(Asked::Release(TopicOrChannel { topic: *topic, channel: *channel }), is_from_others);
            }
            Change::Tombstone { topic, node } => {
                let node = String::from_utf8_lossy(node).into();
                noted.ask(Asked::Tombstone { topic: *topic, node }, is_from_others);
            }
            // What an nsqd has not registered again since a restart is removed.
            Change::EndGrace { .. } => noted.all = true,
            _ => return,
        }
        let is_first = !std::mem::replace(&mut inner.is_noted, true);
        drop(inner);
        if is_first
            && !is_from_others
            && let Some(waker) = self.waker.get()
        {
            waker();
        }
    }
}

impl Noted {
    fn ask(&mut self, asked: Asked, is_from_others: bool) {
        if is_from_others {
            return;
        }
        if self.asked.len() >= CLUSTER_ASKED_MAX {
            self.dropped += 1;
            self.asked.remove(0);
        }
        self.asked.push(asked);
    }
}
