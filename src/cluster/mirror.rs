//! What the other instances have written, in the registry.
//!
//! Nothing of their records is kept here beside which there are: what another instance's producers have registered is in the
//! registry, and a new record is compared with that. All of it happens under the registry's writer lock, so that nothing that
//! clients of this instance ask for meanwhile is lost.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use super::keys::{Connection, Key, Keys, TopicOrChannel};
use super::nodes::{Nodes, Standing};
use super::notes::Notes;
use super::record::{By, Instance, Record, Registrations, decode, part_of};
use super::registered::{difference, has_producers, is_listed};
use super::store::{Lease, Modified, Pair, Revision};
use crate::change_log;
use crate::clock::Timestamp;
use crate::limits::{CONNECTIONS_MAX, ORPHAN_GRACE};
use crate::log::Log;
use crate::registry::{Change, Name, Producer, ProducerId, Source, Writer};

/// Whether a name is in the topology file, so that it cannot be deleted here.
pub type IsKept = Box<dyn Fn(&TopicOrChannel) -> bool + Send>;

/// What is known of the others.
pub struct Mirror {
    own: Box<str>,
    keys: Keys,
    log: Log,
    notes: Arc<Notes>,
    is_kept: IsKept,
    instances: BTreeMap<Box<str>, Seen>,
    remotes: BTreeMap<Connection, Remote>,
    slots: Slots,
    /// Names that were deleted, and when.
    deletions: HashMap<TopicOrChannel, Revision>,
    /// Names that clients of this instance have deleted, each with the number of the last such deletion: this instance has not
    /// followed to what etcd makes of it.
    deleted_here: HashMap<TopicOrChannel, u64>,
    /// Names that were made over HTTP.
    created: BTreeSet<TopicOrChannel>,
    /// Tombstones, and when each was written last.
    tombstones: HashMap<String, Revision>,
    pub nodes: Nodes,
}

/// An instance.
struct Seen {
    name: Box<str>,
    /// Since when its lease is over.
    gone: Option<Timestamp>,
}

/// A record of another instance.
struct Remote {
    producer: Arc<Producer>,
    /// Its parts, each with its revision.
    parts: BTreeMap<u32, Revision>,
    created: Revision,
    is_active: bool,
    /// Since when etcd does not have it, after it was wiped.
    vanished: Option<Timestamp>,
}

/// What a change of a key means for what this instance has written.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Own {
    /// Its own key, when that was made, and its lease; `None` when it is gone.
    Instance(Option<(Revision, Lease)>),
    /// A part of a record, which was made then; `None` when it is gone.
    Record { number: Box<str>, created: Option<Revision> },
    /// A deletion of a name, with its number if clients of this instance have asked for it.
    Deletion(TopicOrChannel, Option<u64>),
}

/// What is there, for the metrics.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counts {
    /// Instances that live, this one included if etcd has it.
    pub instances: usize,
    /// Producers of other instances, hidden ones too.
    pub remote: usize,
    /// Those of them whose instance is dead.
    pub orphans: usize,
    /// Producers, remote or not, for whose node another stands.
    pub shadowed: usize,
}

/// Numbers for producers of other instances.
#[derive(Default)]
struct Slots {
    free: Vec<(u32, u32)>,
    next: u32,
}

impl Slots {
    fn take(&mut self) -> Option<ProducerId> {
        let (slot, generation) = match self.free.pop() {
            Some(free) => free,
            None if self.next < CONNECTIONS_MAX => {
                self.next += 1;
                (self.next - 1, 0)
            }
            None => return None,
        };
        Some(ProducerId::new(Source::Remote, slot, generation))
    }

    fn give_back(&mut self, id: ProducerId) {
        let (slot, generation) = id.place();
        self.free.push((slot, generation.wrapping_add(1)));
    }
}

impl Mirror {
    pub fn new(own: &str, keys: Keys, log: Log, notes: Arc<Notes>, is_kept: IsKept) -> Self {
        Self {
            own: own.into(),
            keys,
            log,
            notes,
            is_kept,
            instances: BTreeMap::new(),
            remotes: BTreeMap::new(),
            slots: Slots::default(),
            deletions: HashMap::new(),
            deleted_here: HashMap::new(),
            created: BTreeSet::new(),
            tombstones: HashMap::new(),
            nodes: Nodes::default(),
        }
    }

    pub fn counts(&self) -> Counts {
        let is_orphan = |connection: &&Connection| self.is_gone(&connection.incarnation);
        Counts {
            instances: self.instances.values().filter(|seen| seen.gone.is_none()).count(),
            remote: self.remotes.len(),
            orphans: self.remotes.keys().filter(is_orphan).count(),
            shadowed: self.nodes.shadowed(),
        }
    }

    /// The name of the instance that has a producer.
    pub fn instance_of(&self, producer: &Producer) -> Option<&str> {
        let (connection, _) = self.remotes.iter().find(|(_, remote)| remote.producer.id() == producer.id())?;
        self.instances.get(&connection.incarnation).map(|seen| &*seen.name)
    }

    /// A client of this instance has deleted a name: until etcd knows, it stays deleted in what others write.
    pub fn delete_here(&mut self, name: TopicOrChannel, number: u64) {
        self.deleted_here.insert(name, number);
    }

    /// This instance has followed to the deletion of this number, or it was dropped.
    pub fn deleted(&mut self, name: TopicOrChannel, number: u64) {
        if self.deleted_here.get(&name).is_some_and(|&last| last <= number) {
            self.deleted_here.remove(&name);
        }
    }

    /// Whether a client of this instance has deleted a name, or the topic of a channel, and etcd does not know.
    fn is_deleted_here(&self, name: TopicOrChannel) -> bool {
        let topic = TopicOrChannel { channel: None, ..name };
        self.deleted_here.contains_key(&name) || self.deleted_here.contains_key(&topic)
    }

    /// All that etcd has was read: of the names that were deleted here, it does not know those of these numbers.
    pub fn keep_deleted(&mut self, is_waiting: impl Fn(u64) -> bool) {
        self.deleted_here.retain(|_, number| is_waiting(*number));
    }

    /// Takes a change of a key. What it means for what this instance has written is returned.
    ///
    /// # Errors
    /// A value that cannot be read.
    pub fn modify(
        &mut self,
        modified: &Modified,
        writer: &mut Writer<'_>,
        now: Timestamp,
    ) -> Result<Option<Own>, String> {
        match modified {
            Modified::Put(pair) => match self.keys.parse(&pair.key) {
                Some(key) => self.put(key, pair, true, writer, now),
                None => Ok(None),
            },
            Modified::Deleted { key, .. } => Ok(self.delete(key, writer, now)),
        }
    }

    /// Takes a key as it is. `strips` says whether a deletion is news, which is done here now.
    ///
    /// # Errors
    /// As [`Self::modify`].
    pub fn put(
        &mut self,
        key: Key,
        pair: &Pair,
        strips: bool,
        writer: &mut Writer<'_>,
        now: Timestamp,
    ) -> Result<Option<Own>, String> {
        let error = |error| format!("{}: {error}", pair.key);
        match key {
            Key::Instance(incarnation) => {
                let Instance { name, .. } = decode(&pair.value).map_err(error)?;
                let is_own = incarnation == self.own;
                let before = self.instances.insert(incarnation.clone(), Seen { name, gone: None });
                if before.is_none_or(|seen| seen.gone.is_some()) {
                    self.stand(&incarnation, writer, now);
                }
                Ok(is_own.then_some(Own::Instance(Some((pair.create_revision, pair.lease)))))
            }
            Key::Record { connection, part } => {
                if connection.incarnation == self.own {
                    let created = (part == 0).then_some(pair.create_revision);
                    return Ok(
                        created.map(|created| Own::Record { number: connection.number, created: Some(created) })
                    );
                }
                let record: Record = decode(&pair.value).map_err(error)?;
                self.put_record(&connection, part, record, pair, writer, now);
                Ok(None)
            }
            Key::Deletion(name) => {
                let By { by, number } = decode(&pair.value).map_err(error)?;
                let is_own = by == self.own;
                self.deletions.insert(name, pair.mod_revision);
                let is_repeated = is_own && !self.deleted_here.contains_key(&name);
                if is_own {
                    self.deleted(name, number);
                }
                if strips {
                    self.strip(name, is_own, is_repeated, writer, now);
                }
                Ok(Some(Own::Deletion(name, is_own.then_some(number))))
            }
            Key::Created(name) => {
                let By { by, .. } = decode(&pair.value).map_err(error)?;
                self.created.insert(name);
                // What this instance has made itself may have been deleted here since, as another was asked before.
                let is_there = by == self.own && is_listed(&name, writer.snapshot());
                if !is_there && !self.is_deleted_here(name) {
                    let TopicOrChannel { topic, channel } = name;
                    self.apply(&Change::Create { topic, channel }, writer, now);
                }
                Ok(None)
            }
            Key::Tombstone { topic, node } => {
                let By { by, .. } = decode(&pair.value).map_err(error)?;
                self.note_tombstone(pair);
                if by != self.own {
                    self.tombstone(topic, &node, writer, now);
                }
                Ok(None)
            }
        }
    }

    fn delete(&mut self, key: &str, writer: &mut Writer<'_>, now: Timestamp) -> Option<Own> {
        match self.keys.parse(key)? {
            Key::Instance(incarnation) => {
                if let Some(seen) = self.instances.get_mut(&incarnation).filter(|seen| seen.gone.is_none()) {
                    seen.gone = Some(now);
                    self.stand(&incarnation, writer, now);
                }
                (incarnation == self.own).then_some(Own::Instance(None))
            }
            Key::Record { connection, part } => {
                if connection.incarnation == self.own {
                    return Some(Own::Record { number: connection.number, created: None });
                }
                if let Some(remote) = self.remotes.get_mut(&connection) {
                    remote.parts.remove(&part);
                    if remote.parts.is_empty() {
                        self.remove(&connection, writer, now);
                    }
                }
                None
            }
            Key::Deletion(name) => {
                self.deletions.remove(&name);
                None
            }
            Key::Created(name) => {
                if self.created.remove(&name) {
                    let TopicOrChannel { topic, channel } = name;
                    self.apply(&Change::Release { topic, channel }, writer, now);
                }
                None
            }
            Key::Tombstone { .. } => {
                self.tombstones.remove(key);
                None
            }
        }
    }

    fn put_record(
        &mut self,
        connection: &Connection,
        part: u32,
        record: Record,
        pair: &Pair,
        writer: &mut Writer<'_>,
        now: Timestamp,
    ) {
        let Record { node, remote_address, active, seen, parts, topics } = record;
        if !self.remotes.contains_key(connection) {
            let Some(id) = self.slots.take() else { return };
            let producer = Arc::new(Producer::new(id, remote_address.into_string(), node, now));
            self.apply(&Change::Identify(Arc::clone(&producer)), writer, now);
            if !self.instances.contains_key(&connection.incarnation) {
                // Its instance is written first, and is dead if that is not there.
                let name = connection.incarnation.clone();
                self.instances.insert(connection.incarnation.clone(), Seen { name, gone: Some(now) });
            }
            let remote = Remote {
                producer,
                parts: BTreeMap::new(),
                created: Revision::MAX,
                is_active: active,
                vanished: None,
            };
            self.remotes.insert(connection.clone(), remote);
        }
        let Some(remote) = self.remotes.get_mut(connection) else { return };
        remote.parts.insert(part, pair.mod_revision);
        remote.parts.retain(|&part, _| part < parts);
        remote.created = remote.created.min(pair.create_revision);
        remote.is_active = active;
        remote.vanished = None;
        remote.producer.touch(now);
        let producer = Arc::clone(&remote.producer);
        let wanted = self.without_deleted(topics, seen);
        let changes = difference(&producer, &wanted, |topic| part_of(topic, parts) == part, writer.snapshot());
        for change in changes {
            self.apply(&change, writer, now);
        }
        self.stand_one(connection, writer, now);
        self.nodes.has_registered(&producer, writer, now);
    }

    /// What is left of registrations of an instance that had followed so far.
    fn without_deleted(&self, mut topics: Registrations, seen: Revision) -> Registrations {
        if self.deletions.is_empty() && self.deleted_here.is_empty() {
            return topics;
        }
        let is_deleted = |name: &TopicOrChannel| {
            self.deleted_here.contains_key(name) || self.deletions.get(name).is_some_and(|&deleted| deleted > seen)
        };
        topics.retain(|&topic, channels| {
            channels.retain(|&channel| !is_deleted(&TopicOrChannel { topic, channel: Some(channel) }));
            !is_deleted(&TopicOrChannel { topic, channel: None })
        });
        topics
    }

    /// Deletes a name here. What this instance's clients have asked for is done already, but others did not know of it when they
    /// wrote what has come since. It is repeated when etcd's answer was lost.
    fn strip(
        &mut self,
        name: TopicOrChannel,
        is_own: bool,
        is_repeated: bool,
        writer: &mut Writer<'_>,
        now: Timestamp,
    ) {
        let TopicOrChannel { topic, channel } = name;
        if !is_own {
            if !(self.is_kept)(&name) {
                self.apply(&Change::Delete { topic, channel }, writer, now);
            }
            return;
        }
        let producers = writer.snapshot().producers_of(topic.as_bytes());
        let remote: Vec<_> = producers.filter(|producer| producer.is_remote()).cloned().collect();
        for producer in remote {
            self.apply(&Change::Unregister { producer, topic, channel }, writer, now);
        }
        // Another instance may have made it between the two.
        if is_repeated && !has_producers(&name, writer.snapshot()) && !(self.is_kept)(&name) {
            self.apply(&Change::Delete { topic, channel }, writer, now);
        }
    }

    /// Tombstones a node, as another instance was asked, at this time.
    pub fn tombstone(&self, topic: Name, node: &str, writer: &mut Writer<'_>, at: Timestamp) {
        self.apply(&Change::Tombstone { topic, node: node.as_bytes().into() }, writer, at);
    }

    fn remove(&mut self, connection: &Connection, writer: &mut Writer<'_>, now: Timestamp) {
        let Some(Remote { producer, .. }) = self.remotes.remove(connection) else { return };
        self.apply(&Change::Disconnect(Arc::clone(&producer)), writer, now);
        self.nodes.remove(&producer, writer, now);
        self.slots.give_back(producer.id());
    }

    fn is_gone(&self, incarnation: &str) -> bool {
        self.instances.get(incarnation).is_none_or(|seen| seen.gone.is_some())
    }

    fn of(&self, incarnation: &str) -> Vec<Connection> {
        let from = Connection { incarnation: incarnation.into(), number: "".into() };
        let keys = self.remotes.range(from..).map(|(connection, _)| connection);
        keys.take_while(|connection| *connection.incarnation == *incarnation).cloned().collect()
    }

    /// The producers of an instance have another standing.
    fn stand(&mut self, incarnation: &str, writer: &mut Writer<'_>, now: Timestamp) {
        for connection in self.of(incarnation) {
            self.stand_one(&connection, writer, now);
        }
    }

    fn stand_one(&mut self, connection: &Connection, writer: &mut Writer<'_>, now: Timestamp) {
        let is_live = !self.is_gone(&connection.incarnation);
        let Some(remote) = self.remotes.get(connection) else { return };
        let is_live = is_live && remote.vanished.is_none();
        let standing = Standing { is_live, is_active: remote.is_active, created: remote.created };
        self.nodes.set(&Arc::clone(&remote.producer), standing, writer, now);
    }

    /// Makes a change that another instance was asked for.
    fn apply(&self, change: &Change, writer: &mut Writer<'_>, now: Timestamp) {
        self.notes.set_from_others(true);
        let outcome = writer.apply(change, now);
        self.notes.set_from_others(false);
        // What the other instance's nsqds do is in its own log.
        if matches!(change, Change::Create { .. } | Change::Delete { .. } | Change::Tombstone { .. }) {
            change_log::write(change, &outcome, &self.log);
        }
    }

    /// What is not there any more, where all that is there was read. After etcd was wiped it is kept for a while, so that its
    /// instance can write it again; names that were made over HTTP, and are to be written again, are returned. `is_waiting` says which
    /// are to be written already.
    pub fn keep_only(
        &mut self,
        all: &[(Key, &Pair)],
        is_wiped: bool,
        is_waiting: impl Fn(&TopicOrChannel) -> bool,
        writer: &mut Writer<'_>,
        now: Timestamp,
    ) -> Vec<TopicOrChannel> {
        let (mut there, mut instances) = (HashMap::<&Connection, BTreeSet<u32>>::new(), HashSet::new());
        let (mut created, mut deletions, mut tombstones) = (BTreeSet::new(), HashSet::new(), HashSet::new());
        for (key, pair) in all {
            match key {
                Key::Instance(incarnation) => {
                    instances.insert(incarnation);
                }
                Key::Record { connection, part } => {
                    there.entry(connection).or_default().insert(*part);
                }
                Key::Created(name) => {
                    created.insert(*name);
                }
                Key::Deletion(name) => {
                    deletions.insert(*name);
                }
                Key::Tombstone { .. } => {
                    tombstones.insert(pair.key.as_str());
                }
            }
        }
        let gone: Vec<_> = self.instances.keys().filter(|known| !instances.contains(*known)).cloned().collect();
        for incarnation in gone {
            if let Some(seen) = self.instances.get_mut(&incarnation).filter(|seen| seen.gone.is_none()) {
                seen.gone = Some(now);
                self.stand(&incarnation, writer, now);
            }
        }
        let known: Vec<_> = self.remotes.keys().cloned().collect();
        for connection in known {
            let Some(remote) = self.remotes.get_mut(&connection) else { continue };
            if let Some(parts) = there.get(&connection) {
                remote.parts.retain(|part, _| parts.contains(part));
            } else if is_wiped || remote.vanished.is_some() {
                remote.vanished.get_or_insert(now);
                remote.parts.clear();
                self.stand_one(&connection, writer, now);
            } else {
                self.remove(&connection, writer, now);
            }
        }
        self.tombstones.retain(|key, _| tombstones.contains(key.as_str()));
        let missing: Vec<_> = self.created.difference(&created).copied().collect();
        // Even if much was lost: what was deleted since is not written again.
        let is_deleted = |name: &TopicOrChannel| {
            deletions.contains(name) || deletions.contains(&TopicOrChannel { channel: None, ..*name })
        };
        let (again, released): (Vec<_>, Vec<_>) =
            missing.into_iter().partition(|name| is_wiped && !is_deleted(name));
        for name in released.into_iter().filter(|name| !is_waiting(name)) {
            self.created.remove(&name);
            let TopicOrChannel { topic, channel } = name;
            self.apply(&Change::Release { topic, channel }, writer, now);
        }
        self.deletions.retain(|name, _| deletions.contains(name));
        again
    }

    /// Whether a key is there as it is known already.
    pub fn has(&self, key: &Key, pair: &Pair) -> bool {
        match key {
            Key::Record { connection, part } => {
                let remote = self.remotes.get(connection);
                remote.is_some_and(|remote| remote.parts.get(part) == Some(&pair.mod_revision))
            }
            Key::Tombstone { .. } => self.tombstones.get(&pair.key) == Some(&pair.mod_revision),
            Key::Deletion(name) => self.deletions.get(name) == Some(&pair.mod_revision),
            Key::Instance(_) | Key::Created(_) => false,
        }
    }

    /// A tombstone is there.
    pub fn note_tombstone(&mut self, pair: &Pair) {
        self.tombstones.insert(pair.key.clone(), pair.mod_revision);
    }

    /// Removes what nobody vouches for any more. Its nsqds can have come back since `steady_since`, and not before. Returns the
    /// instances that are dead for good.
    pub fn expire(&mut self, steady_since: Timestamp, writer: &mut Writer<'_>, now: Timestamp) -> Vec<Box<str>> {
        let is_over = |since: Option<Timestamp>| {
            since.is_some_and(|since| now.since(since.max(steady_since)) >= ORPHAN_GRACE)
        };
        let vanished = self.remotes.iter().filter(|(_, remote)| is_over(remote.vanished));
        let vanished: Vec<_> = vanished.map(|(connection, _)| connection.clone()).collect();
        for connection in vanished {
            self.remove(&connection, writer, now);
        }
        let dead = self.instances.iter().filter(|(_, seen)| is_over(seen.gone));
        let dead: Vec<_> = dead.map(|(incarnation, _)| incarnation.clone()).collect();
        for incarnation in &dead {
            for connection in self.of(incarnation) {
                self.remove(&connection, writer, now);
            }
            self.instances.remove(incarnation);
        }
        dead
    }

    /// Records of dead instances whose nsqd is connected to this one, and listed so. `has_written` says of which producers that holds, and
    /// that etcd has what they have registered: the others are not to miss the nsqd in between. What is connected to another instance is
    /// that one's matter, which alone knows whether it still is.
    pub fn taken_over(&self, has_written: impl Fn(&Producer) -> bool) -> Vec<Connection> {
        let is_orphan = |(connection, remote): &(&Connection, &Remote)| {
            self.is_gone(&connection.incarnation)
                && self.nodes.taken_over_by(&remote.producer).is_some_and(&has_written)
        };
        self.remotes.iter().filter(is_orphan).map(|(connection, _)| connection.clone()).collect()
    }

    /// Forgets all producers of others, as nobody has vouched for them for too long.
    pub fn forget_all(&mut self, writer: &mut Writer<'_>, now: Timestamp) -> usize {
        let all: Vec<_> = self.remotes.keys().cloned().collect();
        for connection in &all {
            self.remove(connection, writer, now);
        }
        self.deletions.clear();
        all.len()
    }
}
