//! What this instance has to write: records of its producers, and what its clients have asked for.
//!
//! A record is written as it is at that moment, so however much has changed meanwhile is written once. Nothing waits for etcd but
//! what is here, and nothing of it is lost before etcd has it.

use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use super::keys::{Connection, Keys, TopicOrChannel};
use super::lease::retry;
use super::nodes::Standing;
use super::notes::Asked;
use super::record::{By, Record, Registrations, encode, part_of, parts_for};
use super::registered::registrations;
use super::store::{Condition, Failure, Lease, Operation, Request, Response, Revision};
use crate::clock::Timestamp;
use crate::limits::{
    CLUSTER_ASKED_MAX, CLUSTER_WRITE_BYTES, CLUSTER_WRITE_KEYS, DELETION_KEPT, DELETION_LEASE_SHARED,
    RECORD_PERIOD,
};
use crate::registry::{Producer, ProducerId, Snapshot};

/// What is to be written, and what is under way.
pub struct Outbox {
    own: Box<str>,
    keys: Keys,
    producers: BTreeMap<ProducerId, Own>,
    dirty: BTreeSet<ProducerId>,
    /// Connections that are over, whose records are to go.
    left: BTreeSet<Box<str>>,
    asked: VecDeque<Asked>,
    /// The number of the last deletion that was seen in etcd, whatever was answered.
    confirmed: u64,
    chores: VecDeque<Chore>,
    under_way: Option<UnderWay>,
    /// Records are not written before this instance has followed so far: what was deleted must be gone from them.
    follow_to: Revision,
    deletion_lease: Option<(Lease, Timestamp)>,
    /// For the tombstone that is written next.
    tombstone_lease: Option<Lease>,
    retry_at: Timestamp,
}

/// A producer of this instance.
struct Own {
    producer: Arc<Producer>,
    number: Box<str>,
    is_active: bool,
    /// Since when etcd has its record; `MAX` before that was seen.
    created: Revision,
    /// It is written even if it is what was written last.
    is_forced: bool,
    /// The checksum of what was written last, and how many parts that had.
    written: Option<(u64, u32)>,
    written_at: Timestamp,
}

impl Own {
    fn standing(&self) -> Standing {
        Standing { is_live: true, is_active: self.is_active, created: self.created }
    }
}

/// Something that any instance may do.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Chore {
    /// Removes what an instance has left that is dead for good.
    RemoveInstance(Box<str>),
    /// Removes the record of a dead instance, whose nsqd is connected to one that lives.
    RemoveRecord(Connection),
}

enum UnderWay {
    DeletionLease,
    TombstoneLease,
    Asked,
    Records { written: Vec<(ProducerId, u64, u32)>, left: Vec<Box<str>> },
    Chore,
}

/// What an answer has brought about.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Written {
    Nothing,
    /// So many keys were written.
    Records(usize),
    /// This instance's key is gone from etcd.
    NotAlive,
}

impl Outbox {
    pub fn new(own: &str, keys: Keys) -> Self {
        Self {
            own: own.into(),
            keys,
            producers: BTreeMap::new(),
            dirty: BTreeSet::new(),
            left: BTreeSet::new(),
            asked: VecDeque::new(),
            confirmed: 0,
            chores: VecDeque::new(),
            under_way: None,
            follow_to: 0,
            deletion_lease: None,
            tombstone_lease: None,
            retry_at: Timestamp::MIN,
        }
    }

    /// How much is to be written.
    pub fn len(&self) -> usize {
        self.dirty.len() + self.left.len() + self.asked.len()
    }

    /// A producer is connected to this instance. Returns its standing.
    pub fn join(&mut self, producer: &Arc<Producer>) -> Standing {
        let number = number_of(producer.id());
        let (producer, id) = (Arc::clone(producer), producer.id());
        let own = Own {
            producer,
            number,
            is_active: true,
            created: Revision::MAX,
            is_forced: false,
            written: None,
            written_at: Timestamp::MIN,
        };
        let standing = own.standing();
        self.producers.insert(id, own);
        self.dirty.insert(id);
        standing
    }

    /// It is no more. Returns it, if it was.
    pub fn leave(&mut self, id: ProducerId) -> Option<Arc<Producer>> {
        let own = self.producers.remove(&id)?;
        self.dirty.remove(&id);
        self.left.insert(own.number);
        Some(own.producer)
    }

    /// What it has registered may have changed. Returns it, if it is connected.
    pub fn change(&mut self, id: ProducerId) -> Option<&Arc<Producer>> {
        let own = self.producers.get(&id)?;
        self.dirty.insert(id);
        Some(&own.producer)
    }

    /// Any of them may have.
    pub fn change_all(&mut self) {
        self.dirty.extend(self.producers.keys());
    }

    /// Everything is to be written again: etcd does not have it.
    pub fn write_all_again(&mut self) {
        self.change_all();
        self.producers.values_mut().for_each(|own| own.is_forced = true);
    }

    /// The same of one connection, if it is still there.
    pub fn write_again(&mut self, number: &str) {
        if let Some(id) = id_of(number) {
            self.force(id);
        }
    }

    /// What has been deleted is written again where it was registered again, so that the others see that.
    pub fn force(&mut self, id: ProducerId) {
        if let Some(own) = self.producers.get_mut(&id) {
            own.is_forced = true;
            self.dirty.insert(id);
        }
    }

    /// A deletion was seen. What is to be written, or under way, is written as of after it, whatever it is: an nsqd may have left the
    /// name before, and registers it again after, so that its record is what it was.
    pub fn force_unsettled(&mut self) {
        let under_way = match &self.under_way {
            Some(UnderWay::Records { written, .. }) => written.as_slice(),
            _ => &[],
        };
        let ids: Vec<_> = self.dirty.iter().copied().chain(under_way.iter().map(|(id, ..)| *id)).collect();
        for id in ids {
            self.force(id);
        }
    }

    /// What is written of a connection that etcd does not have is written again.
    pub fn write_missing(&mut self, there: &HashSet<&str>) {
        for (&id, own) in
            self.producers.iter_mut().filter(|(_, own)| own.written.is_some() && !there.contains(&*own.number))
        {
            own.is_forced = true;
            self.dirty.insert(id);
        }
    }

    /// Whether a producer is connected to this instance, and what it has registered is written.
    pub fn has_written(&self, producer: &Producer) -> bool {
        let own = self.producers.get(&producer.id());
        own.is_some_and(|own| own.written.is_some()) && !self.dirty.contains(&producer.id())
    }

    /// The record with this number was seen in etcd, which has it since then. Returns its producer, if that is still connected.
    pub fn see(&mut self, number: &str, created: Revision) -> Option<(Arc<Producer>, Standing)> {
        let own = self.producers.get_mut(&id_of(number)?)?;
        own.created = created;
        Some((Arc::clone(&own.producer), own.standing()))
    }

    /// Whether each producer has sent a PING lately. Returns those of which that has changed.
    pub fn look_for_silence(&mut self, is_active: impl Fn(&Producer) -> bool) -> Vec<(Arc<Producer>, Standing)> {
        let mut changed = Vec::new();
        for (&id, own) in &mut self.producers {
            let is_active = is_active(&own.producer);
            if std::mem::replace(&mut own.is_active, is_active) != is_active {
                self.dirty.insert(id);
                changed.push((Arc::clone(&own.producer), own.standing()));
            }
        }
        changed
    }

    /// A client has asked for something that is done here. Returns what is dropped for it, as too many wait.
    pub fn ask(&mut self, asked: Asked) -> Option<Asked> {
        self.asked.push_back(asked);
        // The first may be under way.
        if self.asked.len() > CLUSTER_ASKED_MAX { self.asked.remove(1) } else { None }
    }

    /// Names that were made over HTTP are to be written again.
    pub fn create_again(&mut self, names: Vec<TopicOrChannel>) {
        self.asked.extend(names.into_iter().map(Asked::Create));
    }

    /// What an instance has left that is dead for good is to be removed.
    pub fn remove_instance(&mut self, incarnation: Box<str>) {
        self.add_chore(Chore::RemoveInstance(incarnation));
    }

    /// The record of a dead instance is to be removed.
    pub fn remove_record(&mut self, connection: Connection) {
        self.add_chore(Chore::RemoveRecord(connection));
    }

    fn add_chore(&mut self, chore: Chore) {
        if !self.chores.contains(&chore) && self.chores.len() < CLUSTER_ASKED_MAX {
            self.chores.push_back(chore);
        }
    }

    /// A deletion was seen in etcd: it is not asked for again, which would delete what others have made since.
    pub fn confirm_deletion(&mut self, number: u64) {
        self.confirmed = self.confirmed.max(number);
    }

    /// Whether a deletion is still to be written.
    pub fn has_deletion(&self, number: u64) -> bool {
        self.asked.iter().any(|asked| matches!(asked, Asked::Delete(_, its) if *its == number))
    }

    /// Whether a name that was made over HTTP is still to be written.
    pub fn has_creation(&self, name: &TopicOrChannel) -> bool {
        // With a channel its topic is written.
        let writes = |its: &TopicOrChannel| *its == *name || TopicOrChannel { channel: None, ..*its } == *name;
        self.asked.iter().any(|asked| matches!(asked, Asked::Create(its) if writes(its)))
    }

    /// What is to be asked at this time, if anything is, by an instance that has followed so far. `lifetime` is that of tombstones.
    pub fn poll(
        &mut self,
        snapshot: &Snapshot,
        seen: Revision,
        lifetime: Duration,
        now: Timestamp,
    ) -> Option<Request> {
        if self.under_way.is_some() || now < self.retry_at {
            return None;
        }
        while matches!(self.asked.front(), Some(Asked::Delete(_, number)) if *number <= self.confirmed) {
            self.asked.pop_front();
        }
        if let Some(asked) = self.asked.front() {
            let (under_way, request) = self.request(&asked.clone(), lifetime, now);
            self.under_way = Some(under_way);
            return Some(request);
        }
        if seen >= self.follow_to
            && let Some(request) = self.records(snapshot, seen, now)
        {
            return Some(request);
        }
        let (incarnation, prefix) = match self.chores.front()? {
            Chore::RemoveInstance(incarnation) => (incarnation, self.keys.records_of(incarnation)),
            Chore::RemoveRecord(connection) => (&connection.incarnation, self.keys.parts_of(connection)),
        };
        // It may have come back.
        let conditions = vec![Condition::IsAbsent(self.keys.instance(incarnation))];
        let operations = vec![Operation::DeletePrefix(prefix)];
        self.under_way = Some(UnderWay::Chore);
        Some(Request::Transaction { conditions, operations })
    }

    fn request(&self, asked: &Asked, lifetime: Duration, now: Timestamp) -> (UnderWay, Request) {
        let number = if let Asked::Delete(_, number) = asked { *number } else { 0 };
        let by = encode(&By { by: self.own.clone(), number });
        let put = |key, lease| Operation::Put { key, value: by.clone(), lease };
        let operations = match asked {
            Asked::Create(name) => {
                let topic = TopicOrChannel { channel: None, ..*name };
                let names = [topic].into_iter().chain(name.channel.is_some().then_some(*name));
                names.map(|name| put(self.keys.created(&name), 0)).collect()
            }
            Asked::Release(name) => vec![Operation::Delete(self.keys.created(name))],
            Asked::Delete(name, _) => {
                let fresh = self.deletion_lease.filter(|(_, since)| now.since(*since) < DELETION_LEASE_SHARED);
                let Some((lease, _)) = fresh else {
                    let seconds = (DELETION_KEPT + DELETION_LEASE_SHARED).as_secs();
                    return (UnderWay::DeletionLease, Request::Grant { seconds });
                };
                let created = self.keys.created(name);
                let mut operations = vec![Operation::Delete(created.clone())];
                if name.channel.is_none() {
                    operations.push(Operation::DeletePrefix(format!("{created}/")));
                }
                operations.push(put(self.keys.deletion(name), lease));
                operations
            }
            Asked::Tombstone { topic, node } => {
                let Some(lease) = self.tombstone_lease else {
                    let seconds = lifetime.as_secs_f64().ceil().max(1.0);
                    #[expect(
                        clippy::cast_possible_truncation,
                        clippy::cast_sign_loss,
                        reason = "whole, and at least 1"
                    )]
                    return (UnderWay::TombstoneLease, Request::Grant { seconds: seconds as u64 });
                };
                vec![put(self.keys.tombstone(topic, node), lease)]
            }
        };
        (UnderWay::Asked, Request::Transaction { conditions: Vec::new(), operations })
    }

    /// The next records that are due, as one transaction.
    fn records(&mut self, snapshot: &Snapshot, seen: Revision, now: Timestamp) -> Option<Request> {
        let is_due = |id: &&ProducerId| {
            self.producers
                .get(id)
                .is_some_and(|own| now.since(own.written_at) >= RECORD_PERIOD || own.written.is_none())
        };
        let due: Vec<_> = self.dirty.iter().filter(is_due).take(CLUSTER_WRITE_KEYS).copied().collect();
        let left: Vec<_> =
            self.left.iter().take(CLUSTER_WRITE_KEYS.saturating_sub(due.len()).max(1)).cloned().collect();
        let (mut operations, mut written, mut bytes) = (Vec::new(), Vec::new(), 0);
        for number in &left {
            let connection = Connection { incarnation: self.own.clone(), number: number.clone() };
            operations.push(Operation::DeletePrefix(self.keys.parts_of(&connection)));
        }
        for id in due {
            if operations.len() >= CLUSTER_WRITE_KEYS || bytes >= CLUSTER_WRITE_BYTES {
                break;
            }
            let Some(own) = self.producers.get_mut(&id) else { continue };
            let topics = registrations(snapshot, &own.producer);
            let parts = parts_for(topics.len());
            let fingerprint = fingerprint(own.is_active, &topics);
            let (is_same, before) = own.written.map_or((false, 0), |(last, parts)| (last == fingerprint, parts));
            if is_same && !own.is_forced {
                self.dirty.remove(&id);
                continue;
            }
            if !operations.is_empty() && operations.len() + (parts + before) as usize > CLUSTER_WRITE_KEYS {
                break;
            }
            let connection = Connection { incarnation: self.own.clone(), number: own.number.clone() };
            let mut of_parts: Vec<_> = (0..parts).map(|_| Registrations::new()).collect();
            for (topic, channels) in topics {
                of_parts[part_of(&topic, parts) as usize].insert(topic, channels);
            }
            for (part, topics) in (0..).zip(of_parts) {
                let record = Record {
                    node: own.producer.info().clone(),
                    remote_address: own.producer.remote_address().into(),
                    active: own.is_active,
                    seen,
                    parts,
                    topics,
                };
                let value = encode(&record);
                bytes += value.len();
                operations.push(Operation::Put { key: self.keys.part(&connection, part), value, lease: 0 });
            }
            let stale = parts..before;
            operations.extend(stale.map(|part| Operation::Delete(self.keys.part(&connection, part))));
            own.is_forced = false;
            own.written_at = now;
            self.dirty.remove(&id);
            written.push((id, fingerprint, parts));
        }
        if operations.is_empty() {
            return None;
        }
        // Without its key the others take this instance for dead, and may have removed what it has written.
        let conditions = vec![Condition::Exists(self.keys.instance(&self.own))];
        self.under_way = Some(UnderWay::Records { written, left });
        Some(Request::Transaction { conditions, operations })
    }

    /// Takes the answer.
    ///
    /// # Errors
    /// Why etcd does not do it. It is tried again.
    pub fn answer(&mut self, result: Result<Response, Failure>, now: Timestamp) -> Result<Written, Failure> {
        let Some(under_way) = self.under_way.take() else { return Ok(Written::Nothing) };
        match (under_way, result) {
            (UnderWay::DeletionLease, Ok(Response::Granted(lease))) => self.deletion_lease = Some((lease, now)),
            (UnderWay::TombstoneLease, Ok(Response::Granted(lease))) => self.tombstone_lease = Some(lease),
            (UnderWay::Asked, Ok(Response::Transaction { header, .. })) => match self.asked.pop_front() {
                Some(Asked::Delete(..)) => self.follow_to = header.revision,
                Some(Asked::Tombstone { .. }) => self.tombstone_lease = None,
                _ => {}
            },
            (UnderWay::Asked, Err(Failure::NoLease)) => (self.deletion_lease, self.tombstone_lease) = (None, None),
            (UnderWay::Records { written, left }, Ok(Response::Transaction { succeeded: true, .. })) => {
                let count = written.len() + left.len();
                for (id, fingerprint, parts) in written {
                    if let Some(own) = self.producers.get_mut(&id) {
                        own.written = Some((fingerprint, parts));
                    }
                }
                for number in &left {
                    self.left.remove(number);
                }
                return Ok(Written::Records(count));
            }
            (UnderWay::Chore, Ok(_)) => {
                self.chores.pop_front();
            }
            (UnderWay::Records { written, .. }, result) => {
                for (id, ..) in written {
                    self.force(id);
                }
                return match result {
                    Ok(_) => Ok(Written::NotAlive),
                    Err(failure) => Err(self.failed(failure, now)),
                };
            }
            (_, Err(failure)) => return Err(self.failed(failure, now)),
            // An answer to something else.
            (_, Ok(_)) => {}
        }
        Ok(Written::Nothing)
    }

    fn failed(&mut self, failure: Failure, now: Timestamp) -> Failure {
        self.retry_at = now.after(retry(&failure));
        failure
    }

    /// etcd was set up anew: what was deleted in the old one is no matter.
    pub fn restart(&mut self) {
        (self.follow_to, self.deletion_lease, self.tombstone_lease) = (0, None, None);
        self.write_all_again();
    }
}

/// What a producer's key has for its connection: its id.
fn number_of(id: ProducerId) -> Box<str> {
    format!("{:x}", id.to_bits()).into()
}

fn id_of(number: &str) -> Option<ProducerId> {
    u64::from_str_radix(number, 16).ok().map(ProducerId::from_bits)
}

fn fingerprint(is_active: bool, topics: &Registrations) -> u64 {
    let mut hasher = DefaultHasher::new();
    is_active.hash(&mut hasher);
    topics.hash(&mut hasher);
    hasher.finish()
}
