//! Who produces what. Knows neither sockets nor protocols.
//!
//! Readers answer from immutable snapshots and states behind `ArcSwap`s and never wait; [`Writer`]s take turns,
//! and each publishes a whole batch of changes. What does not change the structure stays out of it: a PING is
//! one atomic store, and the passing of time (inactivity, tombstones) is judged when an answer is rendered,
//! which also says until when the answer holds.

mod contents;
mod freshness;
mod index;
mod json;
mod judge;
mod lookup;
mod names;
mod prefetch;
mod producer;
mod producers;
mod render;
mod snapshot;
mod stream;
mod table;
#[cfg(test)]
mod tests;
mod unused;
mod writer;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use arc_swap::{ArcSwap, Cache, Guard};
use bytes::Bytes;

use crate::clock::Timestamp;
use crate::limits::{
    LOOKUP_CACHE_BYTES, LOOKUP_PART_PRODUCERS, LOOKUP_REMEMBERED_BYTES_MAX, LOOKUP_SCRATCH_BYTES_MAX,
    LOOKUPS_AGING, LOOKUPS_REMEMBERED,
};
pub use contents::ChannelNames;
use freshness::Judge;
pub use freshness::Lifetimes;
pub use json::string as write_json_string;
pub use lookup::LookupBody;
use lookup::{KeptAnswer, LookupAnswer};
pub use names::{Name, ProducerId};
pub use producer::{PeerInfo, Producer, Registered};
use render::{Cursor, DebugCursor, Document};
use snapshot::{Snapshot, Topic};
pub use stream::Stream;
pub use unused::Forgotten;
use unused::Unused;
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
struct Totals {
    producers: AtomicUsize,
    topics: AtomicUsize,
    channels: AtomicUsize,
    /// Nanoseconds of the [`Timestamp`] at which the next unused name is to be forgotten.
    next_expiry: AtomicI64,
}

impl Registry {
    pub fn new(lifetimes: Lifetimes) -> Self {
        let head = Head::new(Unused::new(lifetimes));
        let published = Arc::new(ArcSwap::from_pointee(head.snapshot.clone()));
        let none = || AtomicUsize::new(0);
        let next_expiry = AtomicI64::new(Timestamp::MAX.nanos());
        let totals = Totals { producers: none(), topics: none(), channels: none(), next_expiry };
        Self { published, head: Mutex::new(head), totals, lifetimes, readers: Arc::default() }
    }

    /// How many producers are connected.
    pub fn producers(&self) -> usize {
        self.totals.producers.load(Relaxed)
    }

    /// How many topics and channels there are.
    pub fn registered(&self) -> Registered {
        Registered { topics: self.totals.topics.load(Relaxed), channels: self.totals.channels.load(Relaxed) }
    }

    pub fn lifetimes(&self) -> Lifetimes {
        self.lifetimes
    }

    /// Whether a name is to be forgotten, as of the last commit: then it is time for [`Writer::forget_unused`].
    pub fn has_unused(&self, now: Timestamp) -> bool {
        self.totals.next_expiry.load(Relaxed) <= now.nanos()
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
            recent: vec![Recent::default(); LOOKUPS_REMEMBERED].into(),
            aging: 0,
            last: Guard::from_inner(None),
            scratch: Vec::new(),
            cold: 0,
        }
    }
}

/// One worker's view of the registry: no lock, and no reference count that two workers share.
pub struct Reader {
    snapshot: Cache<Arc<ArcSwap<Snapshot>>, Arc<Snapshot>>,
    lifetimes: Lifetimes,
    readers: Arc<()>,
    /// Topics in which this reader left answers that it rendered, oldest first, with the memory that these took more than
    /// those before them.
    cached: VecDeque<(Weak<Topic>, usize)>,
    cached_bytes: usize,
    /// What was asked for of late, each name at a place that it shares with others.
    recent: Box<[Recent]>,
    /// The place from which on the next [`Reader::refresh`] lets go of answers.
    aging: usize,
    /// The answer to the last question, unless it is a recent one.
    last: Guard<Option<Arc<KeptAnswer>>>,
    /// Where lookups are rendered.
    scratch: Vec<u8>,
    /// See [`Reader::take_cold`].
    cold: usize,
}

/// What a reader does not have to look for. Only what is asked for twice is worth it: for an answer of which it was the
/// last holder, letting go takes longer than rendering it.
#[derive(Clone, Default)]
struct Recent {
    /// Of the name that was asked for last.
    hash: Option<u32>,
    held: Option<Held>,
}

/// An answer with its topic, whose version tells whether it is true: one that is deleted has another, and is never listed
/// again.
#[derive(Clone)]
struct Held {
    /// Of the topic's name: to compare another topic's would be a cache miss.
    hash: u32,
    topic: Arc<Topic>,
    answer: Arc<KeptAnswer>,
}

impl Recent {
    /// False for what is too large, and where there is another: two that took turns would count references all the
    /// time.
    fn hold(&mut self, hash: u32, topic: &Arc<Topic>, answer: &Arc<KeptAnswer>) -> bool {
        let fits = self.held.is_none() && answer.answer.body_len() <= LOOKUP_REMEMBERED_BYTES_MAX;
        if fits {
            self.held = Some(Held { hash, topic: Arc::clone(topic), answer: Arc::clone(answer) });
        }
        fits
    }
}

/// Where a reader holds an answer to `/lookup`; for [`Reader::body`], before the next question.
pub enum Lookup {
    Recent(usize),
    Last,
    Scratch,
}

/// What rendering an answer has made.
enum Made {
    InScratch,
    ToKeep(LookupAnswer),
}

impl Reader {
    /// The answer to `/lookup`; `None` when the topic is not listed.
    ///
    /// Asked for a topic again, a reader leaves the answer in the topic for all readers, and remembers it: the next time
    /// it counts no references, which would take as long as to copy the answer. Nothing is left at the first time, as
    /// leaving costs as much as rendering, and among more topics than the cache holds, most would be let go of before
    /// anybody asks for them again.
    pub fn lookup(&mut self, name: &[u8], now: Timestamp) -> Option<Lookup> {
        let snapshot = self.snapshot.load();
        let hash = snapshot.hash(name);
        let place = hash as usize % LOOKUPS_REMEMBERED;
        let recent = &mut self.recent[place];
        if let Some(held) = &recent.held
            && held.hash == hash
            && held.topic.name.as_bytes() == name
        {
            if held.answer.is_true(held.topic.version(), now) {
                return Some(Lookup::Recent(place));
            }
            recent.held = None;
        }
        let asked_before = recent.hash.replace(hash) == Some(hash);
        self.cold += usize::from(!asked_before);
        let topic = snapshot.topic_of(hash, name)?;
        let version = topic.version();
        let left = topic.answer.load();
        if let Some(answer) = left.as_ref().filter(|left| left.is_true(version, now)) {
            if asked_before && recent.hold(hash, topic, answer) {
                return Some(Lookup::Recent(place));
            }
            self.last = left;
            return Some(Lookup::Last);
        }
        let topic = Arc::clone(topic);
        let keep = asked_before || left.is_some();
        let answer = match self.render(&topic, left.as_ref(), keep, now)? {
            Made::InScratch => return Some(Lookup::Scratch),
            Made::ToKeep(answer) => Arc::new(KeptAnswer { version, answer }),
        };
        if keep {
            self.leave(&topic, &answer);
        }
        if asked_before && self.recent[place].hold(hash, &topic, &answer) {
            return Some(Lookup::Recent(place));
        }
        self.last = Guard::from_inner(Some(answer));
        Some(Lookup::Last)
    }

    /// `None` when the topic is not listed; `before` is its last answer, if there is one. What nobody is to keep stays in
    /// the scratch space, unless it is in parts.
    fn render(
        &mut self,
        topic: &Topic,
        before: Option<&Arc<KeptAnswer>>,
        keep: bool,
        now: Timestamp,
    ) -> Option<Made> {
        let state = topic.state();
        if !state.listed {
            return None;
        }
        // Loaded after the state, so that it has every producer that the state lists and that has not left.
        let snapshot = self.snapshot.load();
        let (lifetimes, scratch) = (self.lifetimes, &mut self.scratch);
        // One huge answer is no reason to keep as much for ever.
        if scratch.capacity() > LOOKUP_SCRATCH_BYTES_MAX {
            *scratch = Vec::new();
        }
        if state.producers.as_slice().len() > LOOKUP_PART_PRODUCERS {
            let parts = before.map_or(&[][..], |before| before.answer.parts());
            let parts = render::lookup_parts(&state, snapshot, lifetimes, now, parts, scratch);
            return Some(Made::ToKeep(LookupAnswer::Parts(parts)));
        }
        let mut judge = Judge::new(lifetimes, now);
        scratch.clear();
        render::lookup(&state, snapshot, &mut judge, scratch);
        if !keep {
            return Some(Made::InScratch);
        }
        Some(Made::ToKeep(LookupAnswer::Whole(judge.rendered(Bytes::copy_from_slice(scratch)))))
    }

    /// How many lookups since the last call were of what nobody asked for of late.
    pub fn take_cold(&mut self) -> usize {
        std::mem::take(&mut self.cold)
    }

    /// Reads ahead what lookups of these topics will read. Takes longer than it saves where that was read of late.
    pub fn prefetch<'a>(&mut self, names: impl Iterator<Item = &'a [u8]>) {
        let snapshot = self.snapshot.load();
        let hashes: Vec<_> = names.map(|name| snapshot.hash(name)).collect();
        prefetch::prefetch(snapshot, &hashes);
    }

    /// What [`Reader::lookup`] has found.
    ///
    /// # Panics
    /// When something else was asked for since.
    pub fn body(&self, lookup: &Lookup) -> LookupBody<'_> {
        let answer = match *lookup {
            Lookup::Recent(place) => self.recent[place].held.as_ref().map(|held| &held.answer),
            Lookup::Last => self.last.as_ref(),
            Lookup::Scratch => return LookupBody::Rendered(&self.scratch),
        };
        LookupBody::Kept(&answer.expect("held until the next question").answer)
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

    /// Lets go of a snapshot that was replaced, and of a share of what was asked for. For a worker to call now and
    /// then, whether or not it has something to answer: the last holder of what is out of date keeps its memory.
    pub fn refresh(&mut self) {
        self.snapshot.load();
        self.last = Guard::from_inner(None);
        let end = self.aging + LOOKUPS_REMEMBERED / LOOKUPS_AGING;
        for recent in &mut self.recent[self.aging..end] {
            recent.held = None;
        }
        self.aging = end % LOOKUPS_REMEMBERED;
    }

    /// Leaves an answer in its topic, and keeps what this reader left in topics below its share of memory. A hot answer
    /// that is let go of with the cold ones is rendered once more, by whoever asks next.
    fn leave(&mut self, topic: &Arc<Topic>, answer: &Arc<KeptAnswer>) {
        let size = |answer: &KeptAnswer| answer.answer.body_len() + LOOKUP_CACHE_OVERHEAD;
        let before = topic.answer.swap(Some(Arc::clone(answer)));
        // What took another's place is counted already, but for what it is larger by.
        let counted = before.map_or(0, |before| size(&before));
        if size(answer) <= counted {
            return;
        }
        let bytes = (size(answer) - counted).max(LOOKUP_CACHE_OVERHEAD);
        self.cached.push_back((Arc::downgrade(topic), bytes));
        self.cached_bytes += bytes;
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
