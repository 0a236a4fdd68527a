//! A simulated etcd: revisions, leases, watches, compaction, and a wipe.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ringlookupd::cluster::store::{
    Condition, Failure, Header, Lease, Modified, Operation, Pair, Request, Response, Revision, Watched,
};

/// The data of a cluster of etcd.
pub struct Etcd {
    pub cluster_id: u64,
    pub revision: Revision,
    pairs: BTreeMap<String, Pair>,
    history: Vec<Modified>,
    compacted: Revision,
    leases: BTreeMap<Lease, Held>,
    next_lease: Lease,
    /// Takes no writes.
    pub is_full: bool,
}

struct Held {
    ttl: Duration,
    ends_at: Duration,
    keys: BTreeSet<String>,
}

impl Etcd {
    pub fn new() -> Self {
        Self {
            cluster_id: 7,
            revision: 1,
            pairs: BTreeMap::new(),
            history: Vec::new(),
            compacted: 0,
            leases: BTreeMap::new(),
            next_lease: 100,
            is_full: false,
        }
    }

    /// The same flags, and no data.
    pub fn wipe(&mut self) {
        *self = Self { next_lease: self.next_lease, ..Self::new() };
    }

    pub fn compact(&mut self) {
        self.compacted = self.revision;
        self.history.clear();
    }

    /// Leases end.
    pub fn pass(&mut self, now: Duration) {
        let over: Vec<_> =
            self.leases.iter().filter(|(_, held)| held.ends_at <= now).map(|(&lease, _)| lease).collect();
        for lease in over {
            self.end(lease);
        }
    }

    fn end(&mut self, lease: Lease) {
        let Some(held) = self.leases.remove(&lease) else { return };
        if !held.keys.is_empty() {
            self.revision += 1;
            for key in held.keys {
                self.delete(&key);
            }
        }
    }

    /// Ends the leases of an instance's key, as a stuck leader of etcd does.
    pub fn end_lease_of(&mut self, key: &str) {
        let lease = self.pairs.get(key).map_or(0, |pair| pair.lease);
        self.end(lease);
    }

    fn header(&self) -> Header {
        Header { cluster_id: self.cluster_id, revision: self.revision }
    }

    fn delete(&mut self, key: &str) {
        if let Some(pair) = self.pairs.remove(key) {
            if let Some(held) = self.leases.get_mut(&pair.lease) {
                held.keys.remove(key);
            }
            self.history.push(Modified::Deleted { key: key.into(), revision: self.revision });
        }
    }

    fn put(&mut self, key: String, value: Vec<u8>, lease: Lease) {
        let create_revision = self.pairs.get(&key).map_or(self.revision, |pair| pair.create_revision);
        let pair = Pair { key: key.clone(), value, create_revision, mod_revision: self.revision, lease };
        self.history.push(Modified::Put(pair.clone()));
        if let Some(before) = self.pairs.insert(key.clone(), pair)
            && let Some(held) = self.leases.get_mut(&before.lease)
        {
            held.keys.remove(&key);
        }
        if let Some(held) = self.leases.get_mut(&lease) {
            held.keys.insert(key);
        }
    }

    /// The state of another revision cannot be asked for: a read whose pages are of different revisions fails as compacted.
    pub fn ask(&mut self, request: &Request, now: Duration) -> Result<Response, Failure> {
        match request {
            Request::Range { from, before, limit, revision } => {
                if *revision != 0 && *revision != self.revision {
                    return Err(Failure::Compacted);
                }
                let mut found = self.pairs.range(from.clone()..before.clone()).map(|(_, pair)| pair.clone());
                let pairs: Vec<_> = found.by_ref().take(*limit).collect();
                Ok(Response::Range { header: self.header(), pairs, more: found.next().is_some() })
            }
            Request::Transaction { conditions, operations } => {
                let holds = |condition: &Condition| match condition {
                    Condition::Exists(key) => self.pairs.contains_key(key),
                    Condition::IsAbsent(key) => !self.pairs.contains_key(key),
                };
                if !conditions.iter().all(holds) {
                    return Ok(Response::Transaction { header: self.header(), succeeded: false });
                }
                self.write(operations)
            }
            Request::Grant { .. } if self.is_full => Err(Failure::Full),
            Request::Grant { seconds } => {
                self.next_lease += 1;
                let ttl = Duration::from_secs(*seconds);
                self.leases.insert(self.next_lease, Held { ttl, ends_at: now + ttl, keys: BTreeSet::new() });
                Ok(Response::Granted(self.next_lease))
            }
            Request::KeepAlive { lease } => {
                let held = self.leases.get_mut(lease);
                Ok(Response::Left(held.map_or(0, |held| {
                    held.ends_at = now + held.ttl;
                    held.ttl.as_secs()
                })))
            }
            Request::TimeToLive { lease } => {
                let left = self.leases.get(lease).map_or(0, |held| held.ends_at.saturating_sub(now).as_secs());
                Ok(Response::Left(left))
            }
            Request::Revoke { lease } => {
                self.end(*lease);
                Ok(Response::Revoked)
            }
        }
    }

    fn write(&mut self, operations: &[Operation]) -> Result<Response, Failure> {
        assert!(operations.len() <= 128, "etcd refuses so many operations");
        let mut written = BTreeSet::new();
        for operation in operations {
            let Operation::Put { key, lease, .. } = operation else { continue };
            assert!(written.insert(key), "etcd refuses a key that is written twice");
            if self.is_full {
                return Err(Failure::Full);
            }
            if *lease != 0 && !self.leases.contains_key(lease) {
                return Err(Failure::NoLease);
            }
        }
        let (before, revision) = (self.history.len(), self.revision);
        self.revision += 1;
        for operation in operations.iter().cloned() {
            match operation {
                Operation::Put { key, value, lease } => self.put(key, value, lease),
                Operation::Delete(key) => self.delete(&key),
                Operation::DeletePrefix(prefix) => {
                    let keys: Vec<_> = self.pairs.keys().filter(|key| key.starts_with(&prefix)).cloned().collect();
                    for key in keys {
                        self.delete(&key);
                    }
                }
            }
        }
        if self.history.len() == before {
            self.revision = revision;
        }
        Ok(Response::Transaction { header: self.header(), succeeded: true })
    }

    /// Where a watch from a revision on begins in the history.
    pub fn watch(&self, from: Revision) -> Result<Watched, Watched> {
        if from <= self.compacted { Err(Watched::Compacted) } else { Ok(Watched::Begun(self.header())) }
    }

    /// What has changed from a revision on, all of so many revisions, and the revision behind them.
    pub fn changes(&self, from: Revision, revisions: usize) -> Result<Option<(Watched, Revision)>, Watched> {
        if from <= self.compacted {
            return Err(Watched::Compacted);
        }
        let mut taken: Vec<Modified> = Vec::new();
        let mut left = revisions;
        for modified in self.history.iter().filter(|modified| modified.revision() >= from) {
            if taken.last().is_none_or(|last| last.revision() != modified.revision()) {
                if left == 0 {
                    break;
                }
                left -= 1;
            }
            taken.push(modified.clone());
        }
        let next = taken.last().map(|last| last.revision() + 1);
        Ok(next.map(|next| (Watched::Changed(self.header(), taken), next)))
    }

    pub fn has(&self, key: &str) -> bool {
        self.pairs.contains_key(key)
    }

    /// The keys that there are.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.pairs.keys().map(String::as_str)
    }
}
