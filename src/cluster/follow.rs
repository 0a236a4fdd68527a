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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::record::Instance;
    use crate::cluster::store::Lane;

    /// Takes what is asked for.
    #[derive(Default)]
    struct Watches {
        /// The number of the watch, and from where on.
        open: Option<(u64, Revision)>,
    }

    impl Store for Watches {
        fn ask(&mut self, _: Lane, request: Request) {
            panic!("the member asks: {request:?}");
        }

        fn watch(&mut self, number: u64, _: &str, from: Revision) {
            self.open = Some((number, from));
        }

        fn stop_watch(&mut self) {
            self.open = None;
        }
    }

    /// A follower, the lease beside it, and the time.
    struct Following {
        follower: Follower,
        lease: LeaseKeeper,
        watches: Watches,
        now: Timestamp,
    }

    const OWN: &str = "p/v1/i/own";

    fn pair(key: &str, created: Revision) -> Pair {
        Pair { key: key.to_owned(), create_revision: created, mod_revision: created, lease: 7, ..Pair::default() }
    }

    fn range(cluster_id: u64, revision: Revision, pairs: &[Pair], more: bool) -> Response {
        Response::Range { header: Header { cluster_id, revision }, pairs: pairs.to_vec(), more }
    }

    impl Following {
        /// One whose lease is held, or refused.
        fn new(is_refused: bool) -> Self {
            let now = Timestamp::from_nanos(0);
            let mut lease =
                LeaseKeeper::new(OWN.to_owned(), &Instance { name: "own".into(), version: "1".into() });
            if is_refused {
                lease.poll(now).expect("a lease is asked for");
                lease.answer(Err(Failure::Full), now).expect_err("it is full");
            } else {
                for response in
                    [Response::Granted(7), Response::Transaction { header: Header::default(), succeeded: true }]
                {
                    lease.poll(now).expect("the lease, and its key");
                    lease.answer(Ok(response), now).expect("done");
                }
            }
            let follower = Follower::new("own", Keys::new("p"), now);
            Self { follower, lease, watches: Watches::default(), now }
        }

        fn pass(&mut self, seconds: u64) {
            self.now = self.now.after(Duration::from_secs(seconds));
        }

        fn advance(&mut self) -> Followed {
            self.follower.advance(&self.lease, &mut self.watches, self.now)
        }

        fn answer(&mut self, result: Result<Response, Failure>) -> Followed {
            self.follower.poll().expect("something is asked");
            self.follower.answer(result, &mut self.watches, self.now)
        }

        fn respond(&mut self, response: Response) -> Followed {
            self.answer(Ok(response))
        }

        /// Reads everything as it is at a revision. Returns it.
        fn read(&mut self, revision: Revision, pairs: &[Pair]) -> Complete {
            let read = self.respond(range(1, revision, pairs, false));
            let Followed::All(complete) = read else { panic!("{read:?}") };
            complete
        }

        fn watched(&mut self, watched: Watched) -> Followed {
            let (number, _) = self.watches.open.expect("a watch");
            self.follower.watched(number, watched, &mut self.watches, self.now)
        }

        fn begun(&mut self, revision: Revision) -> Followed {
            self.watched(Watched::Begun(Header { cluster_id: 1, revision }))
        }

        /// It has read everything, its own key included, at revision 10, and follows.
        fn from_ten() -> Self {
            let mut following = Self::new(false);
            following.advance();
            following.respond(range(1, 10, &[pair(OWN, 5)], false));
            let complete = following.read(10, &[pair("p/v1/d/t", 4), pair(OWN, 5)]);
            assert_eq!((complete.is_first, complete.is_wiped, complete.strips_from), (true, false, 5));
            assert!(matches!(following.begun(10), Followed::Begun));
            following
        }

        /// The watch breaks, and its own key is looked at again.
        fn lose_and_check(&mut self, revision: Revision, own: &[Pair]) {
            let lost = self.watched(Watched::Failed(Failure::TimedOut));
            assert!(matches!(lost, Followed::Failed(Failure::TimedOut)), "{lost:?}");
            self.pass(1);
            self.advance();
            self.respond(range(1, revision, own, false));
        }
    }

    #[test]
    fn pages_are_of_the_revision_of_the_first() {
        let mut following = Following::new(false);
        following.advance();
        following.respond(range(1, 10, &[], false));
        let first = following.respond(range(1, 10, &[pair("p/v1/d/t", 4)], true));
        assert!(matches!(first, Followed::Nothing));
        let Some(Request::Range { from, before, revision, .. }) = following.follower.poll() else {
            panic!("a page is asked for")
        };
        assert_eq!((from.as_str(), before.as_str(), revision), ("p/v1/d/t\0", "p/v10", 10));
        // What has changed meanwhile comes with the watch.
        let complete = following.respond(range(1, 12, &[pair(OWN, 5)], false));
        let Followed::All(Complete { pairs, .. }) = complete else { panic!("{complete:?}") };
        assert_eq!((pairs.len(), following.follower.seen()), (2, 10));
        assert_eq!(following.watches.open, Some((1, 11)));
    }

    #[test]
    fn a_watch_goes_on_where_it_broke_while_its_own_key_is_as_it_was() {
        let mut following = Following::from_ten();
        let report = Watched::Changed(Header::default(), vec![Modified::Put(pair("p/v1/d/u", 12))]);
        assert!(matches!(following.watched(report.clone()), Followed::Changed(new) if new.len() == 1));
        assert!(matches!(following.watched(report), Followed::Changed(new) if new.is_empty()), "it is known");
        following.lose_and_check(15, &[pair(OWN, 5)]);
        assert_eq!(following.watches.open, Some((2, 13)));
    }

    #[test]
    fn everything_is_read_again_when_its_own_key_is_not_as_it_was() {
        for (revision, own) in [
            (15, vec![]),
            (15, vec![pair(OWN, 6)]),
            (15, vec![Pair { lease: 8, ..pair(OWN, 5) }]),
            (9, vec![pair(OWN, 5)]),
        ] {
            let mut following = Following::from_ten();
            following.lose_and_check(revision, &own);
            // Not at once: that it is another etcd is not forgotten.
            let failed = following.answer(Err(Failure::TimedOut));
            assert!(matches!(failed, Followed::Failed(_)));
            following.pass(1);
            following.advance();
            following.respond(range(1, 20, &own, false));
            let complete = following.read(20, &own);
            assert!(complete.is_wiped && !complete.is_first, "{own:?} at {revision}");
            assert_eq!(complete.strips_from, 10);
        }
    }

    #[test]
    fn an_older_etcd_behind_the_watch_is_noticed() {
        let mut following = Following::from_ten();
        following.lose_and_check(10, &[pair(OWN, 5)]);
        assert!(matches!(following.begun(3), Followed::Nothing));
        assert_eq!(following.watches.open, None);
        following.advance();
        following.respond(range(1, 3, &[], false));
        assert!(following.read(3, &[]).is_wiped);
    }

    #[test]
    fn what_was_compacted_is_read_and_nothing_is_taken_for_lost() {
        let mut following = Following::from_ten();
        assert!(matches!(following.watched(Watched::Compacted), Followed::Nothing));
        following.advance();
        following.respond(range(1, 30, &[pair(OWN, 5)], false));
        let complete = following.read(30, &[pair(OWN, 5)]);
        assert_eq!((complete.is_wiped, complete.strips_from), (false, 10));
    }

    #[test]
    fn a_watch_that_does_not_show_its_own_key_is_given_up() {
        let mut following = Following::from_ten();
        following.pass(20);
        assert!(matches!(following.advance(), Followed::Nothing));
        following.pass(6);
        assert!(following.follower.is_lost(following.now));
        assert!(matches!(following.advance(), Followed::Failed(Failure::TimedOut)));
        let late = following.follower.watched(1, Watched::Compacted, &mut following.watches, following.now);
        assert!(matches!(late, Followed::Nothing), "it may still report");
    }

    /// Its own key cannot show it, so the watch begins anew as often as that would be written.
    #[test]
    fn a_full_etcd_is_followed() {
        let mut following = Following::new(true);
        following.advance();
        following.respond(range(1, 10, &[], false));
        assert!(!following.read(10, &[]).is_wiped);
        for round in 1..20 {
            assert!(matches!(following.begun(10), Followed::Begun));
            following.follower.hear(following.now);
            following.pass(10);
            assert!(!following.follower.is_overdue(following.now));
            following.advance();
            following.advance();
            following.respond(range(1, 10, &[], false));
            assert_eq!(following.watches.open, Some((2 * round + 1, 11)), "it is not read again");
        }
        // Its key is written at last, and the watch breaks before it shows that.
        following.lose_and_check(11, &[pair(OWN, 11)]);
        assert!(following.follower.poll().is_some(), "it may be another etcd");
    }
}
