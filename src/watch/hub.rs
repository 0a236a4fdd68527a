//! Which workers wait for what, and what has changed for each of them.

use std::collections::{BTreeSet, HashMap};
use std::mem;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use foldhash::fast::RandomState;

use crate::limits::LIST_CHANGES_MAX;
use crate::mailbox::{Mailbox, Message};
use crate::registry::{Commit, Name, Observer, Topic};

/// What a client waits for a change of.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Subject {
    /// A topic, which need not exist.
    Topic(Name),
    /// Which topics are listed.
    Topics,
    /// Any of it.
    Everything,
}

/// The observer of commits. Shared by all workers.
#[derive(Default)]
pub struct Hub {
    /// How many subjects workers wait for. Without any, this is all that a commit reads.
    waiting: AtomicUsize,
    interests: Mutex<Interests>,
}

/// The workers that have somebody who waits.
#[derive(Default)]
struct Interests {
    topics: HashMap<Name, Vec<Arc<Inbox>>, RandomState>,
    list: Vec<Arc<Inbox>>,
    everything: Vec<Arc<Inbox>>,
}

/// What has changed for one worker.
#[derive(Default)]
pub struct Inbox {
    changes: Mutex<Changes>,
    /// What wakes the worker.
    mailbox: OnceLock<Arc<Mailbox>>,
}

/// What has changed since a worker looked last.
#[derive(Default)]
pub struct Changes {
    /// Those that it waits for.
    pub subjects: BTreeSet<Subject>,
    pub list: ListChanges,
}

/// Changes of the list of topics, in their order.
#[derive(Default)]
pub struct ListChanges {
    /// Each with whether it is listed now.
    pub topics: Vec<(Name, bool)>,
    /// There were more.
    pub is_incomplete: bool,
    /// That of the list after the last of them.
    pub revision: u64,
}

impl Hub {
    /// From now on a worker is informed of what changes a subject. What has changed before is not reported: it is visible after
    /// [`Registry::synchronize`](crate::registry::Registry::synchronize).
    pub(super) fn add(&self, subject: Subject, inbox: &Arc<Inbox>) {
        let mut interests = self.lock();
        interests.inboxes(subject).push(Arc::clone(inbox));
        self.waiting.store(interests.len(), Relaxed);
    }

    pub(super) fn remove(&self, subject: Subject, inbox: &Arc<Inbox>) {
        let mut interests = self.lock();
        let inboxes = interests.inboxes(subject);
        inboxes.retain(|other| !Arc::ptr_eq(other, inbox));
        if let Subject::Topic(name) = subject
            && inboxes.is_empty()
        {
            interests.topics.remove(&name);
        }
        self.waiting.store(interests.len(), Relaxed);
    }

    fn lock(&self) -> MutexGuard<'_, Interests> {
        self.interests.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Interests {
    fn inboxes(&mut self, subject: Subject) -> &mut Vec<Arc<Inbox>> {
        match subject {
            Subject::Topic(name) => self.topics.entry(name).or_default(),
            Subject::Topics => &mut self.list,
            Subject::Everything => &mut self.everything,
        }
    }

    fn len(&self) -> usize {
        self.topics.len() + self.list.len() + self.everything.len()
    }

    fn note_topic(&self, topic: &Topic) {
        if let Some((&name, inboxes)) = self.topics.get_key_value(topic.name().as_bytes()) {
            for inbox in inboxes {
                inbox.note(Subject::Topic(name));
            }
        }
    }

    /// Notes that a topic is listed now, or is not any more.
    fn note_list(&self, topic: &Topic, is_listed: bool, revision: u64) {
        if let Some(name) = Name::new(topic.name().as_bytes()) {
            for inbox in &self.list {
                inbox.note_list(name, is_listed, revision);
            }
        }
    }
}

impl Observer for Hub {
    fn is_waiting(&self) -> bool {
        self.waiting.load(Relaxed) > 0
    }

    fn committed(&self, commit: &Commit<'_>) {
        let interests = self.lock();
        if commit.has_changed_lifetimes() {
            for (&name, inboxes) in &interests.topics {
                for inbox in inboxes {
                    inbox.note(Subject::Topic(name));
                }
            }
        }
        for (before, after) in commit.topics() {
            let is_same = before.zip(after).is_some_and(|(before, after)| before.id() == after.id());
            if let Some(before) = before.filter(|_| !is_same) {
                interests.note_topic(before);
            }
            if let Some(after) = after {
                interests.note_topic(after);
            }
            if interests.list.is_empty() {
                continue;
            }
            let was_listed = before.filter(|before| before.is_listed());
            let is_listed = after.filter(|after| after.is_listed());
            if is_same && was_listed.is_some() == is_listed.is_some() {
                continue;
            }
            let revision = commit.after().topics_revision();
            for (topic, is_listed) in [(was_listed, false), (is_listed, true)] {
                if let Some(topic) = topic {
                    interests.note_list(topic, is_listed, revision);
                }
            }
        }
        for inbox in &interests.everything {
            inbox.note(Subject::Everything);
        }
    }
}

impl Inbox {
    /// What wakes the worker. Set once.
    pub(super) fn wake_by(&self, mailbox: &Arc<Mailbox>) {
        // A worker has one mailbox.
        let _ = self.mailbox.set(Arc::clone(mailbox));
    }

    fn note(&self, subject: Subject) {
        self.lock().subjects.insert(subject);
        self.wake();
    }

    fn note_list(&self, name: Name, is_listed: bool, revision: u64) {
        let mut changes = self.lock();
        changes.subjects.insert(Subject::Topics);
        changes.list.revision = revision;
        if changes.list.topics.len() < LIST_CHANGES_MAX {
            changes.list.topics.push((name, is_listed));
        } else {
            changes.list.is_incomplete = true;
        }
        drop(changes);
        self.wake();
    }

    fn wake(&self) {
        if let Some(mailbox) = self.mailbox.get() {
            // A queue holds each message once, and has room for every kind.
            let _ = mailbox.send(Message::Changed);
        }
    }

    /// What has changed since the last call.
    pub(super) fn take(&self) -> Changes {
        mem::take(&mut *self.lock())
    }

    fn lock(&self) -> MutexGuard<'_, Changes> {
        self.changes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
