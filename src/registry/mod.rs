//! Who produces what. Knows neither sockets nor protocols.
//!
//! Readers answer from immutable snapshots and states behind `ArcSwap`s and never wait; [`Writer`]s take turns,
//! and each publishes a whole batch of changes. What does not change the structure stays out of it: a PING is
//! one atomic store, and the passing of time (inactivity, tombstones) is judged when an answer is rendered,
//! which also says until when the answer holds.

mod freshness;
mod index;
mod json;
mod judge;
mod lookup;
mod names;
mod producer;
mod producers;
mod render;
mod snapshot;
mod stream;
#[cfg(test)]
mod tests;
mod writer;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use arc_swap::{ArcSwap, Cache, Guard};

use crate::clock::Timestamp;
use crate::limits::{LOOKUP_CACHE_BYTES, LOOKUP_SCRATCH_BYTES_MAX, LOOKUPS_REMEMBERED};
use freshness::Judge;
pub use freshness::Lifetimes;
pub use json::string as write_json_string;
pub use judge::Registered;
pub use lookup::{KeptAnswer, LookupAnswer};
pub use names::{Name, ProducerId};
pub use producer::{PeerInfo, Producer};
use render::{Cursor, DebugCursor, Document};
use snapshot::{Snapshot, Topic};
pub use stream::Stream;
pub use writer::{Changed, Writer};
use writer::{Changes, Head};

/// All topics, channels and producers. Shared by every worker.
pub struct Registry {
    published: Arc<ArcSwap<Snapshot>>,
    /// The writer lock.
    head: Mutex<Head>,
    totals: Totals,
    lifetimes: Lifetimes,
    /// Every reader has a share in it.
    readers: Arc<()>,
}

/// How many there are, as of the last commit.
#[derive(Default)]
struct Totals {
    producers: AtomicUsize,
    topics: AtomicUsize,
    channels: AtomicUsize,
}

impl Registry {
    pub fn new(lifetimes: Lifetimes) -> Self {
        let head = Head::default();
        let published = Arc::new(ArcSwap::from_pointee(head.snapshot.clone()));
        Self { published, head: Mutex::new(head), totals: Totals::default(), lifetimes, readers: Arc::default() }
    }

    /// How many producers are connected.
    pub fn producers(&self) -> usize {
        self.totals.producers.load(Relaxed)
    }

    /// How many topics and channels there are.
    pub fn registered(&self) -> Registered {
        Registered { topics: self.totals.topics.load(Relaxed), channels: self.totals.channels.load(Relaxed) }
    }

    /// Waits for the writer lock and begins a batch.
    ///
    /// # Panics
    /// When a writer panicked before: what it left cannot be trusted.
    pub fn write(&self) -> Writer<'_> {
        let head = self.head.lock().map_err(|_: PoisonError<_>| ()).expect("no writer has panicked");
        Writer { head, published: &self.published, totals: &self.totals, changes: Changes::default() }
    }

    /// A reader of its own for one worker.
    pub fn reader(&self) -> Reader {
        Reader {
            snapshot: Cache::new(Arc::clone(&self.published)),
            lifetimes: self.lifetimes,
            readers: Arc::clone(&self.readers),
            cached: VecDeque::new(),
            cached_bytes: 0,
            asked: vec![u32::MAX; LOOKUPS_REMEMBERED].into(),
            scratch: Vec::new(),
        }
    }
}

/// One worker's view of the registry: no lock, and no reference count that two workers share.
pub struct Reader {
    snapshot: Cache<Arc<ArcSwap<Snapshot>>, Arc<Snapshot>>,
    lifetimes: Lifetimes,
    readers: Arc<()>,
    /// Topics in which this reader left answers that it rendered, oldest first, with the answers' sizes.
    cached: VecDeque<(Weak<Topic>, usize)>,
    cached_bytes: usize,
    /// Slots of topics that were asked for of late, each at a place that it shares with others. An answer is kept when
    /// it is rendered a second time: keeping one costs as much as rendering it, and among more topics than
    /// the cache holds, most would be let go of before they are asked for again.
    asked: Box<[u32]>,
    /// Where lookups are rendered.
    scratch: Vec<u8>,
}

/// An answer to `/lookup`.
pub enum Lookup {
    /// Borrowed from the registry's cache.
    Kept(Guard<Option<Arc<KeptAnswer>>>),
    /// Rendered for this answer alone.
    Rendered(LookupAnswer),
}

impl Lookup {
    /// # Panics
    /// Never: it is made only of an answer that is there.
    pub fn answer(&self) -> &LookupAnswer {
        match self {
            Self::Kept(kept) => &kept.as_ref().expect("made of an answer").answer,
            Self::Rendered(answer) => answer,
        }
    }
}

impl Reader {
    /// The answer to `/lookup`; `None` when the topic is not listed.
    pub fn lookup(&mut self, topic: &[u8], now: Timestamp) -> Option<Lookup> {
        let topic = self.snapshot.load().topic(topic)?;
        let version = topic.version();
        let kept = topic.answer.load();
        if kept.as_ref().is_some_and(|kept| kept.is_true(version, now)) {
            return Some(Lookup::Kept(kept));
        }
        let topic = Arc::clone(topic);
        let state = topic.state();
        if !state.listed {
            return None;
        }
        // Loaded after the state, so that it has every producer that the state lists and that has not left.
        let snapshot = self.snapshot.load();
        let parts = kept.as_ref().map_or(&[][..], |kept| kept.answer.parts());
        let answer = render::lookup(&state, snapshot, self.lifetimes, now, parts, &mut self.scratch);
        // One huge answer is no reason to keep as much for ever.
        if self.scratch.capacity() > LOOKUP_SCRATCH_BYTES_MAX {
            self.scratch = Vec::new();
        }
        let slot = topic.id.slot();
        let asked_before = std::mem::replace(&mut self.asked[slot as usize % LOOKUPS_REMEMBERED], slot) == slot;
        if kept.is_none() && !asked_before {
            return Some(Lookup::Rendered(answer));
        }
        let bytes = answer.body_len();
        let answer = Arc::new(KeptAnswer { version, answer });
        let before = topic.answer.swap(Some(Arc::clone(&answer)));
        // One that took another's place is counted already.
        if before.is_none_or(|before| before.answer.body_len() < bytes) {
            self.keep(Arc::downgrade(&topic), bytes);
        }
        Some(Lookup::Kept(Guard::from_inner(Some(answer))))
    }

    /// The answer to `/lookup?topic=*`; `None` when no topic is listed.
    pub fn lookup_all(&mut self, now: Timestamp) -> Option<Stream> {
        let snapshot = self.snapshot.load();
        let document = Document::LookupAll(Cursor::default(), Cursor::default());
        (snapshot.listed > 0).then(|| Stream::new(snapshot, document, Judge::new(self.lifetimes, now)))
    }

    /// Appends the answer to `/channels` of one topic, which need not exist.
    pub fn channels(&mut self, topic: &[u8], out: &mut Vec<u8>) {
        let state = self.snapshot.load().topic(topic).map(|topic| topic.state());
        out.extend_from_slice(b"{\"channels\":");
        render::channel_names(state.as_ref().map_or(&[], |state| &state.channels), out);
        out.push(b'}');
    }

    /// The answer to `/channels?topic=*`.
    pub fn all_channels(&mut self, now: Timestamp) -> Stream {
        Stream::new(
            self.snapshot.load(),
            Document::AllChannels(Cursor::default()),
            Judge::new(self.lifetimes, now),
        )
    }

    /// The answer to `/topics`.
    pub fn topics(&mut self, now: Timestamp) -> Stream {
        let snapshot = self.snapshot.load();
        let document = Document::Topics(Cursor::default());
        Stream::kept(&snapshot.topics_answer, now, snapshot, document, Judge::new(self.lifetimes, now))
    }

    /// The answer to `/nodes`.
    pub fn nodes(&mut self, now: Timestamp) -> Stream {
        let snapshot = self.snapshot.load();
        let document = Document::Nodes(Cursor::default());
        Stream::kept(&snapshot.nodes_answer, now, snapshot, document, Judge::new(self.lifetimes, now))
    }

    /// The answer to `/debug`.
    pub fn debug(&mut self, now: Timestamp) -> Stream {
        let document = Document::Debug(DebugCursor::default(), Cursor::default());
        Stream::new(self.snapshot.load(), document, Judge::new(self.lifetimes, now))
    }

    /// Lets go of a snapshot that was replaced. For workers that have nothing to answer: the last reader of
    /// an old snapshot keeps its memory.
    pub fn refresh(&mut self) {
        self.snapshot.load();
    }

    /// Keeps what this reader left in topics below its share of memory. A hot answer that is let go of with
    /// the cold ones is rendered once more, by whoever asks next.
    fn keep(&mut self, topic: Weak<Topic>, body: usize) {
        self.cached.push_back((topic, body + LOOKUP_CACHE_OVERHEAD));
        self.cached_bytes += body + LOOKUP_CACHE_OVERHEAD;
        // The registry has one, too.
        let share = LOOKUP_CACHE_BYTES / (Arc::strong_count(&self.readers) - 1).max(1);
        while self.cached_bytes > share && self.cached.len() > 1 {
            let (topic, bytes) = self.cached.pop_front().expect("more than one");
            if let Some(topic) = topic.upgrade() {
                topic.answer.store(None);
            }
            self.cached_bytes -= bytes;
        }
    }
}

/// What an answer costs beside its body: its own allocations, and the topic that may be gone already.
const LOOKUP_CACHE_OVERHEAD: usize = 256;
