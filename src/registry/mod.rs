//! Who produces what. Knows neither sockets nor protocols.
//!
//! Readers answer from immutable snapshots and states behind `ArcSwap`s and never wait; [`Writer`]s take turns,
//! and each publishes a whole batch of changes. What does not change the structure stays out of it: a PING is
//! one atomic store, and the passing of time (inactivity, tombstones) is judged when an answer is rendered,
//! which also says until when the answer holds.

mod freshness;
mod json;
mod judge;
mod lookup;
mod names;
mod producer;
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
use crate::limits::{LOOKUP_CACHE_BYTES, LOOKUPS_REMEMBERED};
use freshness::Judge;
pub use freshness::Lifetimes;
pub use json::string as write_json_string;
pub use judge::Registered;
pub use lookup::LookupAnswer;
pub use names::{Name, ProducerId};
pub use producer::{PeerInfo, Producer};
use render::{Cursor, DebugCursor, Document};
use snapshot::{Snapshot, Topic, TopicState};
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
            asked: vec![usize::MAX; LOOKUPS_REMEMBERED].into(),
        }
    }
}

/// One worker's view of the registry: no lock, and no reference count that two workers share.
pub struct Reader {
    snapshot: Cache<Arc<ArcSwap<Snapshot>>, Arc<Snapshot>>,
    lifetimes: Lifetimes,
    readers: Arc<()>,
    /// Where this reader left answers that it rendered, oldest first, with their sizes.
    cached: VecDeque<(Left, usize)>,
    cached_bytes: usize,
    /// Slots of topics that were asked for of late, each at a place that it shares with others. An answer is kept when
    /// it is rendered a second time: keeping one costs as much as rendering it, and among more topics than
    /// the cache holds, most would be let go of before they are asked for again.
    asked: Box<[usize]>,
}

/// Where an answer was left for the next reader.
enum Left {
    /// In a state; one that was replaced meanwhile took the answer with it.
    Whole(Weak<TopicState>),
    /// In a topic, whatever its state.
    Parts(Weak<Topic>),
}

impl Left {
    fn forget(self) {
        match self {
            Self::Whole(state) => {
                if let Some(state) = state.upgrade() {
                    state.lookup.store(None);
                }
            }
            Self::Parts(topic) => {
                if let Some(topic) = topic.upgrade() {
                    topic.parts.store(None);
                    topic.state.load().lookup.store(None);
                }
            }
        }
    }
}

/// An answer to `/lookup`.
pub enum Lookup {
    /// Borrowed from the registry's cache.
    Kept(Guard<Option<Arc<LookupAnswer>>>),
    /// Rendered for this answer alone.
    Rendered(LookupAnswer),
}

impl Lookup {
    /// # Panics
    /// Never: it is made only of an answer that is there.
    pub fn answer(&self) -> &LookupAnswer {
        match self {
            Self::Kept(answer) => answer.as_ref().expect("made of an answer"),
            Self::Rendered(answer) => answer,
        }
    }
}

impl Reader {
    /// The answer to `/lookup`; `None` when the topic is not listed.
    pub fn lookup(&mut self, topic: &[u8], now: Timestamp) -> Option<Lookup> {
        let topic = self.snapshot.load().topic(topic)?;
        let current = topic.state.load();
        if !current.listed {
            return None;
        }
        let answer = current.lookup.load();
        if answer.as_ref().is_some_and(|answer| answer.is_fresh(now)) {
            return Some(Lookup::Kept(answer));
        }
        let (topic, state) = (Arc::clone(topic), Guard::into_inner(current));
        // Loaded after the state, so that it has every producer that the state lists and that has not left.
        let snapshot = self.snapshot.load();
        let parts = topic.parts.load();
        let parts = parts.as_ref().map_or(&[][..], |parts| parts);
        let answer = render::lookup(&state, snapshot, self.lifetimes, now, parts);
        let slot = topic.id.slot();
        let asked_before = &mut self.asked[slot % LOOKUPS_REMEMBERED];
        if std::mem::replace(asked_before, slot) != slot {
            return Some(Lookup::Rendered(answer));
        }
        let answer = Arc::new(answer);
        let left = match answer.parts() {
            None => Some(Left::Whole(Arc::downgrade(&state))),
            // Counted when they were first left there; since then they were only replaced.
            Some(new) => {
                topic.parts.swap(Some(Arc::clone(new))).is_none().then(|| Left::Parts(Arc::downgrade(&topic)))
            }
        };
        state.lookup.store(Some(Arc::clone(&answer)));
        if let Some(left) = left {
            self.keep(left, answer.body_len());
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
        let state = self.snapshot.load().topic(topic).map(|topic| topic.state.load());
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
    fn keep(&mut self, left: Left, body: usize) {
        self.cached.push_back((left, body + LOOKUP_CACHE_OVERHEAD));
        self.cached_bytes += body + LOOKUP_CACHE_OVERHEAD;
        // The registry has one, too.
        let share = LOOKUP_CACHE_BYTES / (Arc::strong_count(&self.readers) - 1).max(1);
        while self.cached_bytes > share && self.cached.len() > 1 {
            let (left, bytes) = self.cached.pop_front().expect("more than one");
            left.forget();
            self.cached_bytes -= bytes;
        }
    }
}

/// What an answer costs beside its body: the topic version it may keep alive, its own allocations.
const LOOKUP_CACHE_OVERHEAD: usize = 320;
