//! A worker's view of the registry.

use std::hash::RandomState;
use std::sync::Arc;

use arc_swap::Guard;
use bytes::Bytes;

use super::cache::{CachedResponse, LocalCache, PublishedResponses};
use super::lookup::{self, LookupBody, StoredBody};
use super::prefetch;
use super::producer::Registered;
use super::snapshot::{Snapshot, hash};
use super::tag::Tag;
use super::topic::Topic;
use super::visibility::Visibility;
use super::{Published, Registry};
use crate::clock::Timestamp;
use crate::limits::{LOOKUP_PART_PRODUCERS, LOOKUP_SCRATCH_BYTES_MAX};

/// Reads the registry without a lock, and serves responses in its cache without a reference count that two workers share.
pub struct Reader {
    view: View,
    hasher: RandomState,
    local: LocalCache,
    shared: PublishedResponses,
    /// The last response, unless it is in the local cache.
    last: Guard<Option<Arc<CachedResponse>>>,
    /// Where lookups are rendered.
    scratch: Vec<u8>,
    /// See [`Reader::take_misses`].
    misses: usize,
    /// See [`Reader::take_cache_use`].
    cache_use: CacheUse,
}

/// How many responses to `/lookup` came from a cache, this worker's or the one that all share, and how many were rendered.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct CacheUse {
    pub hits: usize,
    pub misses: usize,
}

/// The newest snapshot. It is given back before its thread sleeps, so that the next commit can change it in place.
struct View {
    published: Arc<Published>,
    snapshot: Option<Guard<Arc<Snapshot>>>,
}

impl View {
    /// At least as new as every commit that was over before the call.
    fn snapshot(&mut self) -> &Snapshot {
        let revision = self.published.revision();
        if self.snapshot.as_ref().is_none_or(|snapshot| snapshot.revision() < revision) {
            // Before the next is taken: a thread holds few of them for little.
            self.snapshot = None;
        }
        self.snapshot.get_or_insert_with(|| self.published.snapshot.load())
    }
}

/// Where the body of a response is.
enum Found {
    Local,
    Last,
    Scratch(Tag),
}

impl Reader {
    pub(super) fn new(registry: &Registry) -> Self {
        let published = Arc::clone(&registry.published);
        let hasher = published.snapshot.load().rest.hasher.clone();
        Self {
            view: View { published, snapshot: None },
            hasher,
            local: LocalCache::default(),
            shared: PublishedResponses::new(Arc::clone(&registry.sharers)),
            last: Guard::from_inner(None),
            scratch: Vec::new(),
            misses: 0,
            cache_use: CacheUse::default(),
        }
    }

    /// The newest snapshot.
    pub fn snapshot(&mut self) -> &Snapshot {
        self.view.snapshot()
    }

    /// How many topics (listed or not) and channels there are.
    pub fn registered(&mut self) -> Registered {
        self.snapshot().counts().1
    }

    /// The response to `/lookup`; `None` when the topic is not listed.
    ///
    /// # Panics
    /// Never: what was found is there until the next call.
    pub fn lookup(&mut self, name: &[u8], now: Timestamp) -> Option<LookupBody<'_>> {
        let hash = hash(&self.hasher, name);
        let (slot, revision) = (LocalCache::slot_of(hash), self.view.published.revision());
        if self.local.is_hit(slot, hash, name, revision, now) {
            self.cache_use.hits += 1;
            return Some(LookupBody::stored(&self.local.response(slot).body));
        }
        let response = match self.find(slot, hash, name, now)? {
            Found::Local => self.local.response(slot),
            Found::Last => self.last.as_ref().expect("it was just found"),
            Found::Scratch(tag) => return Some(LookupBody::rendered(&self.scratch, tag)),
        };
        Some(LookupBody::stored(&response.body))
    }

    #[cold]
    fn find(&mut self, slot: usize, hash: u32, name: &[u8], now: Timestamp) -> Option<Found> {
        if self.renew(slot, hash, name, now) {
            self.cache_use.hits += 1;
            return Some(Found::Local);
        }
        let asked_before = self.local.ask(slot, hash);
        self.misses += usize::from(!asked_before);
        let snapshot = self.view.snapshot();
        let topic = snapshot.topic_of(hash, name).filter(|topic| topic.listed)?;
        let stored = topic.response();
        let lifetimes_revision = snapshot.rest.lifetimes_revision;
        let response = if stored.as_ref().is_some_and(|stored| stored.is_valid(topic, lifetimes_revision, now)) {
            self.cache_use.hits += 1;
            stored
        } else {
            self.cache_use.misses += 1;
            let keep = asked_before || stored.is_some();
            let before = stored.as_ref().filter(|stored| stored.lifetimes_revision == lifetimes_revision);
            let before = before.map(|stored| &stored.body);
            let body = match render(topic, snapshot, now, before, &mut self.scratch, keep) {
                Ok(body) => body,
                Err(tag) => return Some(Found::Scratch(tag)),
            };
            let response = Arc::new(CachedResponse { version: topic.version, lifetimes_revision, body });
            if keep {
                self.shared.publish(topic, &response);
            }
            Guard::from_inner(Some(response))
        };
        if asked_before
            && let Some(response) = response.as_ref()
            && self.local.insert(slot, hash, snapshot.revision(), topic, response)
        {
            return Some(Found::Local);
        }
        self.last = response;
        Some(Found::Last)
    }

    /// Whether the local cache has a response that is valid although something was committed since: that of the topic
    /// that the registry still has. One that is not valid is evicted.
    fn renew(&mut self, slot: usize, hash: u32, name: &[u8], now: Timestamp) -> bool {
        let Some(entry) = self.local.entry(slot, hash, name) else { return false };
        let snapshot = self.view.snapshot();
        entry.revision = snapshot.revision();
        let has = snapshot.topic_at(entry.topic.id).is_some_and(|topic| Arc::ptr_eq(topic, &entry.topic));
        let is_valid = has
            && entry.response.lifetimes_revision == snapshot.rest.lifetimes_revision
            && entry.response.body.is_fresh(now);
        if !is_valid {
            self.local.evict(slot);
        }
        is_valid
    }

    /// How many lookups since the last call missed the local cache and were not the repetition of one before.
    pub fn take_misses(&mut self) -> usize {
        std::mem::take(&mut self.misses)
    }

    /// What became of the lookups since the last call, but those of topics that are not listed.
    pub fn take_cache_use(&mut self) -> CacheUse {
        std::mem::take(&mut self.cache_use)
    }

    /// Reads ahead what lookups of these topics will read. Takes longer than it saves where that is in the processor's caches.
    pub fn prefetch<'a>(&mut self, names: impl Iterator<Item = &'a [u8]>) {
        let hashes: Vec<_> = names.map(|name| hash(&self.hasher, name)).collect();
        self.last = Guard::from_inner(None);
        prefetch::prefetch(self.view.snapshot(), &hashes);
    }

    /// Gives the snapshot back. To be called before a commit, and before the thread sleeps: a commit copies what a
    /// reader holds.
    pub fn release(&mut self) {
        self.view.snapshot = None;
        self.last = Guard::from_inner(None);
    }

    /// Evicts a share of the cached responses, once in a while: of a response that is out of date this reader may be
    /// the last holder.
    pub fn age(&mut self) {
        self.local.age();
    }

    #[cfg(test)]
    pub(super) fn caches(&self) -> (&LocalCache, &PublishedResponses) {
        (&self.local, &self.shared)
    }
}

/// Renders a response; `before` is an older one of the topic, if there is one. Unless it is in parts, one that nobody is to keep
/// stays in the scratch space: then this is its tag.
fn render(
    topic: &Topic,
    snapshot: &Snapshot,
    now: Timestamp,
    before: Option<&StoredBody>,
    scratch: &mut Vec<u8>,
    keep: bool,
) -> Result<StoredBody, Tag> {
    // One huge response is no reason to keep as much for ever.
    if scratch.capacity() > LOOKUP_SCRATCH_BYTES_MAX {
        *scratch = Vec::new();
    }
    if topic.producers().len() > LOOKUP_PART_PRODUCERS {
        let parts = lookup::render_parts(topic, snapshot, now, before, scratch);
        return Ok(StoredBody::Parts(parts));
    }
    let mut visibility = Visibility::new(snapshot.lifetimes(), now);
    scratch.clear();
    let tag = lookup::render(topic, snapshot, &mut visibility, scratch);
    if !keep {
        return Err(tag);
    }
    Ok(StoredBody::Whole { body: visibility.rendered(Bytes::copy_from_slice(scratch)), tag })
}
