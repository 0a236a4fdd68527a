//! Following etcd: everything is read once, and from there on what changes is watched.
//!
//! When the watch is lost, this instance's own key is looked at. If it is as it was, etcd is the same, and what was missed comes with
//! the next watch; if not, everything is read again. The own key is written again and again, so that a watch that does not show it
//! is known to be dead. While etcd refuses to write it, the watch begins anew as often, and that it begins is what counts.

use std::mem;
use std::time::Duration;

use super::keys::Keys;
use super::lease::{LeaseKeeper, retry};
use super::store::{Failure, Header, Lease, Modified, Pair, Request, Response, Revision, Store, Watched};
use crate::clock::Timestamp;
use crate::limits::{CLUSTER_PAGE_KEYS, CLUSTER_SIGNAL_PERIOD, CLUSTER_SILENCE_MAX};

/// How far this instance has followed, and how it goes on.
pub struct Follower {
    keys: Keys,
    own: String,
    link: Link,
    /// The number of the last watch.
    watch: u64,
    seen: Revision,
    cluster_id: u64,
    has_read: bool,
    own_key: OwnKey,
    /// When its own key was seen last, or what counts instead.
    heard_at: Timestamp,
    /// When a watch was asked for last, which is to show that key.
    opened_at: Timestamp,
    /// What is to be read, if etcd is the same.
    missing: Missing,
}

/// Its own key, as it was last seen.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum OwnKey {
    /// It was not there when everything was read.
    Absent,
    /// When it was made, and its lease. The revision alone may be the same in an etcd that was wiped.
    There(Revision, Lease),
    Gone,
}

impl OwnKey {
    fn of(pair: Option<&Pair>) -> Self {
        pair.map_or(Self::Absent, |pair| Self::There(pair.create_revision, pair.lease))
    }
}

/// What it does not know.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Missing {
    /// At most what has changed since the revision that it has followed to.
    Changes,
    /// It may be anything.
    All,
}

enum Link {
    Off {
        until: Timestamp,
    },
    /// It looks for its own key, which etcd may have refused to write.
    Checking {
        is_refused: bool,
    },
    Reading {
        /// That of the first page.
        header: Header,
        from: String,
        pairs: Vec<Pair>,
        is_wiped: bool,
    },
    /// The watch is asked for.
    Opening,
    Following,
}

/// What has come from etcd.
#[derive(Debug)]
pub enum Followed {
    Nothing,
    /// What changes comes here now.
    Begun,
    /// All that etcd has.
    All(Complete),
    Changed(Vec<Modified>),
    /// It does not follow any more, and tries again.
    Failed(Failure),
}

/// All that etcd has.
#[derive(Debug)]
pub struct Complete {
    pub pairs: Vec<Pair>,
    /// It is the first time.
    pub is_first: bool,
    /// What was known before, and is not there now, may have been lost with etcd's data.
    pub is_wiped: bool,
    /// Deletions from this revision on are news. What was deleted before this instance was there is no matter to what has been
    /// registered here since.
    pub strips_from: Revision,
}

impl Follower {
    /// One that has asked nothing yet.
    pub fn new(own: &str, keys: Keys, now: Timestamp) -> Self {
        Self {
            own: keys.instance(own),
            keys,
            link: Link::Off { until: now },
            watch: 0,
            seen: 0,
            cluster_id: 0,
            has_read: false,
            own_key: OwnKey::Absent,
            heard_at: now,
            opened_at: now,
            missing: Missing::All,
        }
    }

    /// Whether everything was read once.
    pub fn has_read(&self) -> bool {
        self.has_read
    }

    /// How far it has followed.
    pub fn seen(&self) -> Revision {
        self.seen
    }

    /// Whether what changes comes here, as far as is known.
    pub fn is_following(&self) -> bool {
        matches!(self.link, Link::Following)
    }

    /// For how long its own key has not been seen.
    pub fn silence(&self, now: Timestamp) -> Duration {
        now.since(self.heard_at)
    }

    /// Whether its own key should have been seen meanwhile.
    pub fn is_overdue(&self, now: Timestamp) -> bool {
        now.since(self.heard_at.max(self.opened_at)) > CLUSTER_SILENCE_MAX
    }

    /// Whether no watch has begun that will show its own key.
    pub fn is_lost(&self, now: Timestamp) -> bool {
        self.is_overdue(now) || !matches!(self.link, Link::Opening | Link::Following)
    }

    /// Its own key was seen, or is gone.
    pub fn see_own_key(&mut self, key: Option<(Revision, Lease)>) {
        self.own_key = key.map_or(OwnKey::Gone, |(created, lease)| OwnKey::There(created, lease));
    }

    /// Its own key was seen, or what counts instead: etcd, and the way from there, are alive.
    pub fn hear(&mut self, now: Timestamp) {
        self.heard_at = now;
    }

    /// What it has followed to is not known here any more: it is read again, when it has lost the watch.
    pub fn forget(&mut self) {
        self.missing = Missing::All;
    }

    /// What etcd has is not what it had: everything is to be read again.
    pub fn start_again(&mut self, store: &mut impl Store, now: Timestamp) {
        self.own_key = OwnKey::Gone;
        self.leave(store, now);
    }

    /// Begins to follow, when it is known whether its own key is written or refused, and gives up a watch that is dead.
    pub fn advance(&mut self, lease: &LeaseKeeper, store: &mut impl Store, now: Timestamp) -> Followed {
        match &self.link {
            Link::Off { until } if now >= *until && (lease.is_held() || lease.is_refused()) => {
                self.link = Link::Checking { is_refused: lease.is_refused() };
            }
            Link::Following if lease.is_refused() && self.silence(now) >= CLUSTER_SIGNAL_PERIOD => {
                self.leave(store, now);
            }
            Link::Opening | Link::Following if self.is_overdue(now) => {
                self.leave(store, now);
                return self.lose(Failure::TimedOut, now);
            }
            _ => {}
        }
        Followed::Nothing
    }

    fn leave(&mut self, store: &mut impl Store, now: Timestamp) {
        store.stop_watch();
        // What it still reports is not meant any more.
        self.watch += 1;
        self.link = Link::Off { until: now };
    }

    fn lose(&mut self, failure: Failure, now: Timestamp) -> Followed {
        if matches!(failure, Failure::Compacted) {
            self.missing = Missing::All;
            self.link = Link::Off { until: now };
            return Followed::Nothing;
        }
        self.link = Link::Off { until: now.after(retry(&failure)) };
        Followed::Failed(failure)
    }

    /// What is to be read next, if anything is.
    pub fn poll(&self) -> Option<Request> {
        match &self.link {
            Link::Checking { .. } => {
                let from = self.own.clone();
                // Behind this key alone.
                let before = format!("{from}\0");
                Some(Request::Range { from, before, limit: 1, revision: 0 })
            }
            Link::Reading { header, from, .. } => {
                let (from, before) = (from.clone(), self.keys.end());
                Some(Request::Range { from, before, limit: CLUSTER_PAGE_KEYS, revision: header.revision })
            }
            Link::Off { .. } | Link::Opening | Link::Following => None,
        }
    }

    /// Takes the answer.
    pub fn answer(
        &mut self,
        result: Result<Response, Failure>,
        store: &mut impl Store,
        now: Timestamp,
    ) -> Followed {
        match (&self.link, result) {
            (&Link::Checking { is_refused }, Ok(Response::Range { header, pairs, .. })) => {
                self.checked(header, pairs.first(), is_refused, store, now);
                Followed::Nothing
            }
            (Link::Reading { .. }, Ok(Response::Range { header, pairs, more })) => {
                self.read(header, pairs, more, store, now)
            }
            (Link::Checking { .. } | Link::Reading { .. }, Err(failure)) => self.lose(failure, now),
            _ => Followed::Nothing,
        }
    }

    /// Whether etcd is as it was, going by its own key.
    fn checked(
        &mut self,
        header: Header,
        own: Option<&Pair>,
        is_refused: bool,
        store: &mut impl Store,
        now: Timestamp,
    ) {
        let own = OwnKey::of(own);
        let is_same = header.cluster_id == self.cluster_id
            && header.revision >= self.seen
            && own == self.own_key
            && (own != OwnKey::Absent || is_refused);
        if is_same && self.missing == Missing::Changes {
            return self.open(store, now);
        }
        if !is_same {
            // Until everything is read: that may take several attempts.
            self.own_key = OwnKey::Gone;
        }
        self.link = Link::Reading {
            header: Header { revision: 0, ..header },
            from: self.keys.root().to_owned(),
            pairs: Vec::new(),
            is_wiped: self.has_read && !is_same,
        };
    }

    fn read(
        &mut self,
        page: Header,
        page_pairs: Vec<Pair>,
        more: bool,
        store: &mut impl Store,
        now: Timestamp,
    ) -> Followed {
        let Link::Reading { header, from, pairs, is_wiped } = &mut self.link else { return Followed::Nothing };
        if header.revision == 0 {
            *header = page;
        }
        if let Some(last) = page_pairs.last() {
            *from = format!("{}\0", last.key);
        }
        pairs.extend(page_pairs);
        if more {
            return Followed::Nothing;
        }
        let (header, pairs) = (*header, mem::take(pairs));
        let is_first = !self.has_read;
        let is_older = header.revision < self.seen;
        // It may have been wiped since its own key was looked at.
        let is_wiped = *is_wiped || (!is_first && is_older);
        let own = pairs.iter().find(|pair| pair.key == self.own);
        let strips_from = match own {
            Some(own) if is_first || is_older => own.create_revision,
            None if is_first || is_older => Revision::MAX,
            _ => self.seen,
        };
        (self.seen, self.cluster_id) = (header.revision, header.cluster_id);
        (self.has_read, self.missing, self.own_key) = (true, Missing::Changes, OwnKey::of(own));
        self.open(store, now);
        Followed::All(Complete { pairs, is_first, is_wiped, strips_from })
    }

    fn open(&mut self, store: &mut impl Store, now: Timestamp) {
        self.watch += 1;
        self.opened_at = now;
        store.watch(self.watch, self.keys.root(), self.seen + 1);
        self.link = Link::Opening;
    }

    /// Takes what the watch with this number reports.
    pub fn watched(&mut self, number: u64, watched: Watched, store: &mut impl Store, now: Timestamp) -> Followed {
        if number != self.watch {
            return Followed::Nothing;
        }
        match watched {
            // Otherwise it would be silent until the new etcd has as many revisions as the one that was read.
            Watched::Begun(header) if header.revision < self.seen || header.cluster_id != self.cluster_id => {
                self.start_again(store, now);
                Followed::Nothing
            }
            Watched::Begun(_) if matches!(self.link, Link::Opening) => {
                self.link = Link::Following;
                Followed::Begun
            }
            Watched::Begun(_) => Followed::Nothing,
            Watched::Changed(_, mut changes) => {
                changes.retain(|modified| modified.revision() > self.seen);
                self.seen = changes.last().map_or(self.seen, Modified::revision);
                Followed::Changed(changes)
            }
            Watched::Compacted => self.lose(Failure::Compacted, now),
            Watched::Failed(failure) => self.lose(failure, now),
        }
    }
}
