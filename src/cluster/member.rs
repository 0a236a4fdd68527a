//! One instance in the cluster: what it does next, given what etcd answers and what time it is. No thread, no socket: a
//! [`Store`] carries its requests.
//!
//! It keeps its lease, follows what the others write, and writes what changes here.

use std::collections::VecDeque;
use std::mem;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use super::follow::{Complete, Followed, Follower};
use super::keys::{Key, Keys, TopicOrChannel};
use super::lease::{LeaseKeeper, retry};
use super::mirror::{IsKept, Mirror, Own};
use super::nodes::Conflict;
use super::notes::{Asked, Noted, Notes};
use super::outbox::{Outbox, Written};
use super::record::Instance;
use super::status::Status;
use super::store::{Failure, Incoming, Lane, Lease, Modified, Pair, Request, Response, Revision, Store};
use crate::clock::Timestamp;
use crate::limits::{CLUSTER_CHANGES_TOGETHER, RECORD_PERIOD};
use crate::log::Log;
use crate::registry::{Lifetimes, Name, Producer, Recorder, Registry, Writer};

/// Who it is, and what it is to do.
pub struct Settings {
    /// Of this start: no two have the same.
    pub incarnation: Box<str>,
    pub instance: Instance,
    pub keys: Keys,
    /// When it has been cut off for so long, producers of others are not listed any more; zero is never.
    pub stale: Duration,
    pub is_kept: IsKept,
}

/// This instance.
pub struct Member<S> {
    store: S,
    registry: Arc<Registry>,
    notes: Arc<Notes>,
    status: Arc<Status>,
    log: Log,
    own: Box<str>,
    keys: Keys,
    stale: Duration,
    lease: LeaseKeeper,
    mirror: Mirror,
    outbox: Outbox,
    follower: Follower,
    /// What is under way on the lane of data.
    data: Option<Data>,
    is_cut_off: bool,
    /// Since when it follows etcd, and etcd takes what it writes.
    steady_since: Option<Timestamp>,
    /// Tombstones that were read, whose age is not known.
    ages: VecDeque<Aged>,
    /// After a failure to ask for one: not before this.
    ages_at: Timestamp,
    /// The last failure that the log has, unless it is over.
    reported: Option<Failure>,
    next_look: Timestamp,
    is_stopping: bool,
}

enum Data {
    Read,
    Age(Aged),
    Write,
}

struct Aged {
    topic: Name,
    node: Box<str>,
    lease: Lease,
    written: Revision,
}

/// How often what depends on time is looked at.
const LOOK_PERIOD: Duration = Duration::from_secs(1);

impl<S: Store> Member<S> {
    /// One that has asked nothing yet. From now on it knows what changes in the registry.
    pub fn new(
        store: S,
        registry: Arc<Registry>,
        notes: Arc<Notes>,
        status: Arc<Status>,
        log: Log,
        settings: Settings,
        now: Timestamp,
    ) -> Self {
        let Settings { incarnation: own, instance, keys, stale, is_kept } = settings;
        registry.record(Some(Arc::<Notes>::clone(&notes) as Arc<dyn Recorder>));
        status.is_on.store(true, Relaxed);
        Self {
            store,
            registry,
            status,
            stale,
            lease: LeaseKeeper::new(keys.instance(&own), &instance),
            mirror: Mirror::new(&own, keys.clone(), log.clone(), Arc::clone(&notes), is_kept),
            outbox: Outbox::new(&own, keys.clone()),
            follower: Follower::new(&own, keys.clone(), now),
            notes,
            log,
            own,
            keys,
            data: None,
            is_cut_off: false,
            steady_since: None,
            ages: VecDeque::new(),
            ages_at: now,
            reported: None,
            next_look: now,
            is_stopping: false,
        }
    }

    /// From now on it writes what is left to be written, and gives its lease back.
    pub fn stop(&mut self, now: Timestamp) {
        self.commit(now, |_, _| ());
        self.registry.record(None);
        self.is_stopping = true;
    }

    /// Whether nothing is left to do after [`Self::stop`].
    pub fn is_over(&self) -> bool {
        self.lease.is_over()
    }

    /// Takes what etcd sends.
    pub fn handle(&mut self, incoming: Incoming, now: Timestamp) {
        match incoming {
            Incoming::Answer(Lane::Lease, result) => {
                if let Err(failure) = self.lease.answer(result, now) {
                    self.report(&failure);
                }
            }
            Incoming::Answer(Lane::Data, result) => self.answered(result, now),
            Incoming::Watched(watch, watched) => {
                let followed = self.follower.watched(watch, watched, &mut self.store, now);
                self.followed(followed, now);
            }
        }
    }

    /// Does what is due.
    pub fn step(&mut self, now: Timestamp) {
        // What is noted is visible when this is over.
        self.commit(now, |_, _| ());
        if now >= self.next_look {
            self.next_look = now.after(LOOK_PERIOD);
            self.look(now);
        }
        let followed = self.follower.advance(&self.lease, &mut self.store, now);
        self.followed(followed, now);
        if self.is_stopping && !self.lease.is_waiting() && (self.outbox.len() == 0 || !self.can_write()) {
            if let Some(request) = self.lease.end() {
                self.store.ask(Lane::Lease, request);
            }
        } else if let Some(request) = self.lease.poll(now) {
            self.store.ask(Lane::Lease, request);
        }
        self.ask_for_data(now);
        if self.follower.has_read() && self.ages.is_empty() && !matches!(self.data, Some(Data::Age(_))) {
            self.status.has_read.store(true, Relaxed);
        }
        self.status.pending.store(self.outbox.len(), Relaxed);
        if self.lease.is_held() || self.lease.is_refused() {
            self.status.is_writable.store(!self.lease.is_refused(), Relaxed);
        }
    }

    fn can_write(&self) -> bool {
        self.lease.is_held() && self.follower.has_read()
    }

    /// Commits something, after it has looked at what has changed here until then.
    fn commit<T>(&mut self, now: Timestamp, work: impl FnOnce(&mut Self, &mut Writer<'_>) -> T) -> T {
        let registry = Arc::clone(&self.registry);
        registry.commit(|writer| {
            if !self.is_stopping {
                self.take_notes(writer, now);
            }
            work(self, writer)
        })
    }

    /// Looks at what has changed here since the last time.
    fn take_notes(&mut self, writer: &mut Writer<'_>, now: Timestamp) {
        let Self { notes, mirror, outbox, status, .. } = self;
        let Noted { joined, left, changed, deleted, all, asked, dropped } = notes.take();
        for producer in joined {
            let standing = outbox.join(&producer);
            if !left.contains(&producer.id()) {
                mirror.nodes.set(&producer, standing, writer, now);
            }
        }
        for id in left {
            if let Some(producer) = outbox.leave(id) {
                mirror.nodes.remove(&producer, writer, now);
            }
        }
        for id in changed {
            if let Some(producer) = outbox.change(id) {
                mirror.nodes.has_registered(producer, writer, now);
            }
        }
        for id in deleted {
            outbox.force(id);
        }
        if all {
            outbox.change_all();
        }
        let mut lost = dropped;
        for asked in asked {
            if let Asked::Delete(name, number) = &asked {
                mirror.delete_here(*name, *number);
            }
            if let Some(dropped) = outbox.ask(asked) {
                lost += 1;
                if let Asked::Delete(name, number) = dropped {
                    mirror.deleted(name, number);
                }
            }
        }
        status.lost.fetch_add(lost as u64, Relaxed);
    }

    /// Looks at what time has changed.
    fn look(&mut self, now: Timestamp) {
        self.look_for_silence(now);
        // First: after a pause of this process nothing is known of what the others have done meanwhile.
        self.look_whether_cut_off(now);
        self.commit(now, |member, writer| member.mirror.nodes.hand_over(writer, now));
        // While etcd takes nothing, the nsqds of a dead instance cannot come back through another.
        let is_steady = self.follower.has_read() && !self.is_cut_off && !self.lease.is_refused();
        self.steady_since = is_steady.then(|| self.steady_since.unwrap_or(now));
        if let Some(since) = self.steady_since {
            for incarnation in self.commit(now, |member, writer| member.mirror.expire(since, writer, now)) {
                self.outbox.remove_instance(incarnation);
            }
            let Self { mirror, outbox, .. } = self;
            for connection in mirror.taken_over(|producer| outbox.has_written(producer)) {
                outbox.remove_record(connection);
            }
        }
        for Conflict { listed, hidden } in self.mirror.nodes.conflicts(now) {
            let at = |producer: &Producer| match self.mirror.instance_of(producer) {
                Some(name) => format!("{} at {name}", producer.remote_address()),
                None => format!("{} here", producer.remote_address()),
            };
            self.log.warn(format_args!(
                "CLUSTER: node {} is connected twice, {} and {}: two nsqd nodes with one -broadcast-address; \
                 only the first is listed; give each its own",
                listed.node(),
                at(&listed),
                at(&hidden),
            ));
        }
        let counts = self.mirror.counts();
        self.status.instances.store(counts.instances, Relaxed);
        self.status.remote.store(counts.remote, Relaxed);
        self.status.orphans.store(counts.orphans, Relaxed);
        self.status.shadowed.store(counts.shadowed, Relaxed);
    }

    fn look_for_silence(&mut self, now: Timestamp) {
        let lifetimes: Lifetimes = self.registry.lifetimes();
        // A worker may have a PING in hand.
        let is_active =
            |producer: &Producer| now <= lifetimes.listed_until(producer.last_update()).after(LOOK_PERIOD);
        let changed = self.outbox.look_for_silence(is_active);
        if !changed.is_empty() {
            self.commit(now, |Self { mirror, .. }, writer| {
                for (producer, standing) in changed {
                    mirror.nodes.set(&producer, standing, writer, now);
                }
            });
        }
    }

    fn look_whether_cut_off(&mut self, now: Timestamp) {
        let silence = self.follower.silence(now);
        // It ends when its own key is seen.
        let is_cut_off = self.is_cut_off || (self.follower.has_read() && self.follower.is_overdue(now));
        if is_cut_off && !self.is_cut_off {
            self.is_cut_off = true;
            self.status.is_connected.store(false, Relaxed);
            self.log.warn(format_args!(
                "CLUSTER: cut off from etcd for {silence:.1?}: this instance lists what it knows of the others; what changes \
                 meanwhile comes when etcd is back"
            ));
        }
        // Not while a watch has begun that will show it: what is forgotten is to be read again.
        if is_cut_off && self.follower.is_lost(now) && !self.stale.is_zero() && silence > self.stale {
            let count = self.commit(now, |member, writer| member.mirror.forget_all(writer, now));
            self.follower.forget();
            if count > 0 {
                self.log.warn(format_args!(
                    "CLUSTER: cut off for longer than -cluster-stale ({:?}): {count} producers of other instances are not listed any more",
                    self.stale
                ));
            }
        }
    }

    /// Its own key was seen, or what counts instead: etcd, and the way from there, are alive.
    fn hear(&mut self, now: Timestamp) {
        if mem::take(&mut self.is_cut_off) {
            let silence = self.follower.silence(now);
            self.log.info(format_args!("CLUSTER: etcd is back after {silence:.1?}"));
        }
        self.follower.hear(now);
        // The next time that etcd is lost is another.
        self.reported.take_if(|failure| failure.is_of_the_way());
    }

    /// Logs a failure, unless it is of the kind that was logged last.
    fn report(&mut self, failure: &Failure) {
        self.status.failures.fetch_add(1, Relaxed);
        let before = self.reported.replace(failure.clone());
        if before.is_none_or(|before| mem::discriminant(&before) != mem::discriminant(failure)) {
            self.log.warn(format_args!("CLUSTER: {failure}; trying again"));
        }
    }

    fn ask_for_data(&mut self, now: Timestamp) {
        if self.data.is_some() {
            return;
        }
        let (data, request) = if let Some(request) = self.follower.poll() {
            (Data::Read, request)
        } else if now >= self.ages_at
            && let Some(aged) = self.ages.pop_front()
        {
            let request = Request::TimeToLive { lease: aged.lease };
            (Data::Age(aged), request)
        } else if self.can_write() {
            let snapshot = self.registry.snapshot();
            let lifetime = snapshot.lifetimes().tombstone_lifetime;
            let Some(request) = self.outbox.poll(&snapshot, self.follower.seen(), lifetime, now) else { return };
            (Data::Write, request)
        } else {
            return;
        };
        self.data = Some(data);
        self.store.ask(Lane::Data, request);
    }

    fn answered(&mut self, result: Result<Response, Failure>, now: Timestamp) {
        match (self.data.take(), result) {
            (Some(Data::Write), result) => match self.outbox.answer(result, now) {
                Ok(Written::Nothing) => {}
                Ok(Written::Records(count)) => {
                    self.reported = None;
                    self.status.written.fetch_add(count as u64, Relaxed);
                }
                Ok(Written::NotAlive) => {
                    self.lease.lost();
                    self.follower.start_again(&mut self.store, now);
                }
                Err(failure) => self.report(&failure),
            },
            (Some(Data::Age(aged)), Ok(Response::Left(left))) => {
                self.tombstone(&aged, Duration::from_secs(left), now);
            }
            (Some(Data::Read), result) => {
                let followed = self.follower.answer(result, &mut self.store, now);
                self.followed(followed, now);
            }
            (Some(Data::Age(aged)), Err(failure)) => {
                if failure.is_refusal() {
                    // It was there a moment ago: as good as made now.
                    self.tombstone(&aged, Duration::MAX, now);
                } else {
                    self.ages.push_front(aged);
                }
                self.ages_at = now.after(retry(&failure));
                self.report(&failure);
            }
            _ => {}
        }
    }

    /// Takes what has come of following etcd.
    fn followed(&mut self, followed: Followed, now: Timestamp) {
        match followed {
            Followed::Nothing => {}
            Followed::Begun => {
                self.status.is_connected.store(true, Relaxed);
                if self.lease.is_refused() {
                    self.hear(now);
                }
            }
            Followed::All(complete) => self.take_all(&complete, now),
            Followed::Changed(changes) => self.take_changes(&changes, now),
            Followed::Failed(failure) => self.report(&failure),
        }
    }

    /// Makes what is known of the others what was read.
    fn take_all(&mut self, all: &Complete, now: Timestamp) {
        let &Complete { ref pairs, is_first, is_wiped, .. } = all;
        // Keys that this version does not know are left out.
        let pairs: Vec<_> = pairs.iter().filter_map(|pair| Some((self.keys.parse(&pair.key)?, pair))).collect();
        self.mirror.keep_deleted(|number| self.outbox.has_deletion(number));
        let missing = self.commit(now, |Self { mirror, outbox, .. }, writer| {
            mirror.keep_only(&pairs, is_wiped, |name| outbox.has_creation(name), writer, now)
        });
        self.outbox.create_again(missing);
        if is_wiped {
            self.outbox.restart();
        }
        if !is_first {
            let own = pairs.iter().filter_map(|(key, _)| match key {
                Key::Record { connection, .. } if connection.incarnation == self.own => Some(&*connection.number),
                _ => None,
            });
            self.outbox.write_missing(&own.collect());
        }
        let (records, names): (Vec<_>, Vec<_>) =
            pairs.into_iter().partition(|(key, _)| matches!(key, Key::Record { .. }));
        for pairs in [names, records] {
            let mut rest = pairs.into_iter().peekable();
            while rest.peek().is_some() {
                let together = rest.by_ref().take(CLUSTER_CHANGES_TOGETHER);
                self.commit(now, |member, writer| {
                    for (key, pair) in together {
                        member.take_read(key, pair, all, writer, now);
                    }
                });
            }
        }
        let revision = self.follower.seen();
        self.status.reads.fetch_add(1, Relaxed);
        self.status.revision.store(revision.unsigned_abs(), Relaxed);
        // Until the watch begins, which is asked for next, it is as good as one.
        self.status.is_connected.store(true, Relaxed);
        if !self.lease.is_refused() {
            self.reported = None;
        }
        let counts = self.mirror.counts();
        self.log.info(format_args!(
            "CLUSTER: read all that etcd has: instances:{} producers of others:{} revision:{revision}",
            counts.instances, counts.remote
        ));
    }

    fn take_read(&mut self, key: Key, pair: &Pair, all: &Complete, writer: &mut Writer<'_>, now: Timestamp) {
        if !all.is_wiped && self.mirror.has(&key, pair) {
            return;
        }
        if let Key::Tombstone { topic, node } = key {
            self.mirror.note_tombstone(pair);
            if pair.lease != 0 {
                self.ages.push_back(Aged { topic, node, lease: pair.lease, written: pair.mod_revision });
            }
            return;
        }
        let own = self.mirror.put(key, pair, pair.mod_revision > all.strips_from, writer, now);
        self.take_own(own, writer, now);
    }

    /// Tombstones a node since the time that is left of its lease says.
    fn tombstone(&mut self, Aged { topic, node, written, .. }: &Aged, left: Duration, now: Timestamp) {
        let lifetime = self.registry.lifetimes().tombstone_lifetime;
        let age = lifetime.saturating_sub(left);
        if !left.is_zero() && self.mirror.nodes.were_there(node, *written) {
            self.commit(now, |member, writer| member.mirror.tombstone(*topic, node, writer, now.before(age)));
        }
    }

    /// Takes what has changed.
    fn take_changes(&mut self, changes: &[Modified], now: Timestamp) {
        let mut rest = changes;
        while !rest.is_empty() {
            // What one transaction has changed becomes visible together.
            let mut count = CLUSTER_CHANGES_TOGETHER.min(rest.len());
            while count < rest.len() && rest[count].revision() == rest[count - 1].revision() {
                count += 1;
            }
            let (now_taken, later) = rest.split_at(count);
            rest = later;
            self.commit(now, |member, writer| {
                for modified in now_taken {
                    let own = member.mirror.modify(modified, writer, now);
                    member.take_own(own, writer, now);
                }
            });
        }
        self.status.changes.fetch_add(changes.len() as u64, Relaxed);
        self.status.revision.store(self.follower.seen().unsigned_abs(), Relaxed);
    }

    fn take_own(&mut self, own: Result<Option<Own>, String>, writer: &mut Writer<'_>, now: Timestamp) {
        match own {
            Ok(None) => {}
            Ok(Some(Own::Instance(key))) => {
                match key {
                    Some(_) => self.hear(now),
                    None => self.lease.lost(),
                }
                self.follower.see_own_key(key);
            }
            Ok(Some(Own::Record { number, created: Some(created) })) => {
                if let Some((producer, standing)) = self.outbox.see(&number, created) {
                    self.mirror.nodes.set(&producer, standing, writer, now);
                }
            }
            Ok(Some(Own::Record { number, created: None })) => self.outbox.write_again(&number),
            Ok(Some(Own::Deletion(TopicOrChannel { topic, .. }, number))) => {
                if let Some(number) = number {
                    self.outbox.confirm_deletion(number);
                }
                self.outbox.force_unsettled();
                // What has registered it again is to be written as of after the deletion.
                let producers = writer.snapshot().producers_of(topic.as_bytes());
                producers.for_each(|producer| self.outbox.force(producer.id()));
            }
            Err(error) => {
                self.status.lost.fetch_add(1, Relaxed);
                self.log.warn(format_args!("CLUSTER: a value in etcd cannot be read, and is left out - {error}"));
            }
        }
    }

    /// How long it may wait for something to happen.
    pub fn patience(&self, now: Timestamp) -> Duration {
        let is_busy = self.outbox.len() > 0 && self.data.is_none();
        let until = self.next_look.since(now);
        if is_busy { until.min(RECORD_PERIOD) } else { until }
    }

    /// Whether it knows what the others know, and they know of it.
    pub fn has_joined(&self) -> bool {
        self.follower.has_read()
    }

    /// How far it has followed.
    pub fn revision(&self) -> Revision {
        self.follower.seen()
    }

    /// For tests: whether nothing is left to be written.
    pub fn is_settled(&self) -> bool {
        self.outbox.len() == 0 && self.follower.is_following()
    }
}
