//! Cached responses to `/lookup`, in two layers.
//!
//! - A worker's [`LocalCache`] is found without a reference count: counting takes as long as copying a short response,
//!   and longer where workers share the count.
//! - A topic's [`ResponseCell`] has what one worker has rendered for all workers.
//!
//! A response is published from the second request on: most of those that are asked for once would be evicted before
//! anybody asks again, and evicting one whose last holder a worker is costs more than rendering it.

use std::collections::VecDeque;
use std::mem;
use std::sync::{Arc, Weak};

use arc_swap::ArcSwapOption;

use super::lookup::StoredBody;
use super::topic::Topic;
use crate::clock::Timestamp;
use crate::limits::{
    LOOKUP_CACHE_BYTES, LOOKUP_REMEMBERED_BYTES_MAX, LOOKUPS_AGING, LOOKUPS_REMEMBERED, SHARED_BODY_BYTES_MIN,
};

/// The response that all versions of a topic share. Outside the topic itself: dropping an `ArcSwap` visits every thread
/// that has read one, which is too much for each change of a topic.
pub(super) type ResponseCell = ArcSwapOption<CachedResponse>;

/// A response with the version of the topic, and the revision of the lifetimes, that it was rendered from.
pub(super) struct CachedResponse {
    pub(super) version: u64,
    pub(super) lifetimes_revision: u64,
    pub(super) body: StoredBody,
}

impl CachedResponse {
    pub(super) fn is_valid(&self, topic: &Topic, lifetimes_revision: u64, now: Timestamp) -> bool {
        self.version == topic.version && self.lifetimes_revision == lifetimes_revision && self.body.is_fresh(now)
    }
}

/// The responses that one worker keeps for itself, each in a slot that several names share.
pub(super) struct LocalCache {
    slots: Box<[Slot]>,
    /// The slot from which on the next [`LocalCache::age`] evicts.
    aging: usize,
}

#[derive(Clone)]
struct Slot {
    /// Of the name that was asked for last. [`NOT_ASKED`] before; a name with that hash is published at the first time.
    asked: u32,
    /// Of the entry's name: to compare another topic's would be a cache miss.
    hash: u32,
    entry: Option<CacheEntry>,
}

const NOT_ASKED: u32 = u32::MAX;

/// A response that is valid as long as its topic is the one that the registry has.
#[derive(Clone)]
pub(super) struct CacheEntry {
    /// The registry had this topic in this revision.
    pub(super) revision: u64,
    pub(super) topic: Arc<Topic>,
    pub(super) response: Arc<CachedResponse>,
}

impl Default for LocalCache {
    fn default() -> Self {
        Self { slots: vec![Slot { asked: NOT_ASKED, hash: 0, entry: None }; LOOKUPS_REMEMBERED].into(), aging: 0 }
    }
}

impl LocalCache {
    /// The slot of names with this hash.
    pub(super) fn slot_of(hash: u32) -> usize {
        hash as usize % LOOKUPS_REMEMBERED
    }

    /// Whether the response in a slot is of this name, and certainly that of its topic in this revision.
    #[inline]
    pub(super) fn is_hit(&self, slot: usize, hash: u32, name: &[u8], revision: u64, now: Timestamp) -> bool {
        let slot = &self.slots[slot];
        let Some(entry) = slot.entry.as_ref().filter(|_| slot.hash == hash) else { return false };
        entry.revision >= revision && entry.topic.name.as_bytes() == name && entry.response.body.is_fresh(now)
    }

    /// The entry in a slot, when it is of this name.
    pub(super) fn entry(&mut self, slot: usize, hash: u32, name: &[u8]) -> Option<&mut CacheEntry> {
        let slot = &mut self.slots[slot];
        slot.entry.as_mut().filter(|entry| slot.hash == hash && entry.topic.name.as_bytes() == name)
    }

    /// The response in a slot.
    ///
    /// # Panics
    /// When it is empty.
    #[inline]
    pub(super) fn response(&self, slot: usize) -> &CachedResponse {
        &self.slots[slot].entry.as_ref().expect("the slot is taken").response
    }

    pub(super) fn evict(&mut self, slot: usize) {
        self.slots[slot].entry = None;
    }

    /// Notes that a name of this hash is asked for; returns whether the one before it in its slot had the same.
    pub(super) fn ask(&mut self, slot: usize, hash: u32) -> bool {
        mem::replace(&mut self.slots[slot].asked, hash) == hash
    }

    /// Keeps a response. False for one that is too large, and where there is another: two that took turns would count
    /// references all the time.
    pub(super) fn insert(
        &mut self,
        slot: usize,
        hash: u32,
        revision: u64,
        topic: &Arc<Topic>,
        response: &Arc<CachedResponse>,
    ) -> bool {
        let slot = &mut self.slots[slot];
        let fits = slot.entry.is_none() && response.body.len() <= LOOKUP_REMEMBERED_BYTES_MAX;
        if fits {
            let (topic, response) = (Arc::clone(topic), Arc::clone(response));
            (slot.hash, slot.entry) = (hash, Some(CacheEntry { revision, topic, response }));
        }
        fits
    }

    /// Evicts a share of the entries, so that responses that are out of date do not keep their memory.
    pub(super) fn age(&mut self) {
        let end = self.aging + LOOKUPS_REMEMBERED / LOOKUPS_AGING;
        for slot in &mut self.slots[self.aging..end] {
            slot.entry = None;
        }
        self.aging = end % LOOKUPS_REMEMBERED;
    }

    #[cfg(test)]
    pub(super) fn entries(&self) -> impl Iterator<Item = &CacheEntry> {
        self.slots.iter().filter_map(|slot| slot.entry.as_ref())
    }
}

/// The responses that one worker has published in the cells of topics: its share of [`LOOKUP_CACHE_BYTES`].
pub(super) struct PublishedResponses {
    /// Oldest first, with the memory that each took more than the one before it in its cell.
    cells: VecDeque<(Weak<ResponseCell>, usize)>,
    bytes: usize,
    /// Every worker and the registry have one of these.
    sharers: Arc<()>,
}

impl PublishedResponses {
    pub(super) fn new(sharers: Arc<()>) -> Self {
        Self { cells: VecDeque::new(), bytes: 0, sharers }
    }

    /// Puts a response into its topic's cell, and evicts the oldest while this worker's take more than its share. A
    /// response that is asked for all the time may be evicted with the others: the next request renders it once more.
    pub(super) fn publish(&mut self, topic: &Topic, response: &Arc<CachedResponse>) {
        let size = |response: &CachedResponse| response.body.len() + RESPONSE_OVERHEAD;
        let cell = topic.response.get_or_init(Arc::default);
        let before = cell.swap(Some(Arc::clone(response)));
        // What took another's place is counted already, but for what it is larger by.
        let counted = before.map_or(0, |before| size(&before));
        if size(response) <= counted {
            return;
        }
        let bytes = (size(response) - counted).max(RESPONSE_OVERHEAD);
        self.cells.push_back((Arc::downgrade(cell), bytes));
        self.bytes += bytes;
        let share = LOOKUP_CACHE_BYTES / (Arc::strong_count(&self.sharers) - 1).max(1);
        while self.bytes > share && self.cells.len() > 1 {
            let (cell, bytes) = self.cells.pop_front().expect("more than one");
            if let Some(cell) = cell.upgrade() {
                cell.store(None);
            }
            self.bytes -= bytes;
        }
    }

    #[cfg(test)]
    pub(super) fn counted(&self) -> (usize, usize) {
        (self.cells.len(), self.bytes)
    }
}

/// What a response costs beside its body: its own allocations, and the cell of a topic that may be deleted already.
const RESPONSE_OVERHEAD: usize = 256;

// A response in a worker's own cache is copied behind its head.
const _: () = assert!(LOOKUP_REMEMBERED_BYTES_MAX <= SHARED_BODY_BYTES_MIN);
