//! The last joins and departures, each with its reason, and how often each node has connected again in the last hour.
//!
//! A connection writes here when it identifies, ends, falls silent or is heard again: it knows why. What others change comes
//! from the stream of changes. A lookup and a PING write nothing.

use std::collections::{HashMap, VecDeque};
use std::fmt::Display;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::clock::Timestamp;
use crate::limits::{JOURNAL_ENTRIES, JOURNAL_NODES_MAX, JOURNAL_TEXT_BYTES_MAX, Limit};
use crate::registry::{Change, Missing, Outcome, PeerInfo, Producer};

const MINUTES: i64 = 60;
const MINUTE: i64 = 60_000_000_000;

/// See the module's documentation.
#[derive(Default)]
pub struct Journal {
    kept: Mutex<Kept>,
    hasher: RandomState,
    /// Nanoseconds of the [`Timestamp`] at which each limit was last exceeded; zero for never.
    exceeded: [AtomicI64; Limit::ALL.len()],
}

#[derive(Default)]
struct Kept {
    /// Oldest first.
    entries: VecDeque<Entry>,
    /// The number of the last entry.
    last: u64,
    /// By the hash of broadcast address and ports.
    nodes: HashMap<u64, Reconnects>,
    /// When nodes of which nothing was heard for an hour were last dropped.
    dropped_at: Timestamp,
}

/// Something that has happened.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// Counts up from 1.
    pub number: u64,
    pub at: Timestamp,
    pub kind: Kind,
    /// `broadcast_address:tcp_port` of a producer, `broadcast_address:http_port` of a tombstone, or nothing.
    pub node: Box<str>,
    /// The address of the nsqd's connection, or the topic of a tombstone.
    pub about: Box<str>,
    /// Why, in the log's words.
    pub reason: Box<str>,
}

/// What has happened.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// An nsqd that was not known has identified.
    Joined,
    /// One that was known has.
    Reconnected,
    Left,
    Silent,
    Back,
    Tombstoned,
    /// Producers of before a restart have not come back.
    Missing,
}

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Self::Joined => "joined",
            Self::Reconnected => "reconnected",
            Self::Left => "left",
            Self::Silent => "silent",
            Self::Back => "back",
            Self::Tombstoned => "tombstoned",
            Self::Missing => "missing",
        }
    }
}

/// When a node has connected again, minute by minute.
struct Reconnects {
    /// How often in each minute of the last hour, by the minute's number modulo 60.
    minutes: [u8; 60],
    /// The minute that was last written.
    minute: i64,
}

impl Reconnects {
    fn new(now: Timestamp) -> Self {
        Self { minutes: [0; 60], minute: now.nanos() / MINUTE }
    }

    /// Clears the minutes that have passed.
    fn pass(&mut self, now: Timestamp) {
        let minute = now.nanos() / MINUTE;
        for passed in (self.minute + 1..=minute).take(60) {
            self.minutes[place(passed)] = 0;
        }
        self.minute = self.minute.max(minute);
    }

    fn add(&mut self, now: Timestamp) {
        self.pass(now);
        let count = &mut self.minutes[place(self.minute)];
        *count = count.saturating_add(1);
    }

    fn count(&mut self, now: Timestamp) -> u32 {
        self.pass(now);
        self.minutes.iter().map(|&count| u32::from(count)).sum()
    }
}

fn place(minute: i64) -> usize {
    usize::try_from(minute.rem_euclid(MINUTES)).expect("below 60")
}

impl Journal {
    /// An nsqd has identified.
    pub fn joined(&self, producer: &Producer, now: Timestamp) {
        let node = self.node(producer.info());
        let mut kept = self.kept();
        kept.drop_old(now);
        let is_known = kept.nodes.contains_key(&node);
        if is_known || kept.nodes.len() < JOURNAL_NODES_MAX {
            let reconnects = kept.nodes.entry(node).or_insert_with(|| Reconnects::new(now));
            if is_known {
                reconnects.add(now);
            }
        }
        kept.add(now, if is_known { Kind::Reconnected } else { Kind::Joined }, producer, "");
    }

    /// The connection of an nsqd has ended.
    pub fn left(&self, producer: &Producer, reason: impl Display, now: Timestamp) {
        let reason = reason.to_string();
        self.kept().add(now, Kind::Left, producer, &reason);
    }

    /// The last PING of an nsqd is too old.
    pub fn fell_silent(&self, producer: &Producer, now: Timestamp) {
        let silence = now.since(producer.last_update());
        self.kept().add(now, Kind::Silent, producer, &format!("last PING {silence:.1?} ago"));
    }

    /// It has sent another.
    pub fn is_back(&self, producer: &Producer, silence: Duration, now: Timestamp) {
        self.kept().add(now, Kind::Back, producer, &format!("after {silence:.1?} without a PING"));
    }

    /// Takes what a change has done.
    pub fn write(&self, change: &Change, outcome: &Outcome, now: Timestamp) {
        let (kind, node, about, reason) = match (change, outcome) {
            (Change::Tombstone { topic, node }, &Outcome::Tombstoned { producers }) if producers > 0 => {
                (Kind::Tombstoned, &*String::from_utf8_lossy(node), topic.as_str(), String::new())
            }
            (_, &Outcome::GraceEnded(Some(Missing { producers, .. }))) if producers > 0 => {
                (Kind::Missing, "", "", format!("{producers} producers from before the start"))
            }
            _ => return,
        };
        let (node, about) = (shortened(node), shortened(about));
        self.kept().push(Entry { number: 0, at: now, kind, node, about, reason: shortened(&reason) });
    }

    /// A client has exceeded a limit.
    pub fn exceeded(&self, limit: Limit, now: Timestamp) {
        self.exceeded[limit as usize].store(now.nanos(), Relaxed);
    }

    /// When clients last exceeded each limit that they have exceeded.
    pub fn limits_exceeded(&self) -> impl Iterator<Item = (Limit, Timestamp)> {
        let all = Limit::ALL.into_iter().zip(&self.exceeded);
        all.filter_map(|(limit, at)| match at.load(Relaxed) {
            0 => None,
            at => Some((limit, Timestamp::from_nanos(at))),
        })
    }

    /// The newest entries, newest first; of one node if it is named.
    pub fn latest(&self, node: Option<&str>, most: usize) -> Vec<Entry> {
        let kept = self.kept();
        let is_meant = |entry: &&Entry| node.is_none_or(|node| *entry.node == *node);
        kept.entries.iter().rev().filter(is_meant).take(most).cloned().collect()
    }

    /// How often nodes have connected again in the last hour, those of each producer in their order.
    pub fn reconnects<'a>(&self, nodes: impl Iterator<Item = &'a PeerInfo>, now: Timestamp) -> Vec<u32> {
        let mut kept = self.kept();
        let count = |info| kept.nodes.get_mut(&self.node(info)).map_or(0, |reconnects| reconnects.count(now));
        nodes.map(count).collect()
    }

    fn node(&self, info: &PeerInfo) -> u64 {
        self.hasher.hash_one((&info.broadcast_address, info.tcp_port, info.http_port))
    }

    /// Whoever panicked with it has left whole entries.
    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    fn add(&mut self, at: Timestamp, kind: Kind, producer: &Producer, reason: &str) {
        let PeerInfo { broadcast_address, tcp_port, .. } = producer.info();
        let node = shortened(&format!("{broadcast_address}:{tcp_port}"));
        let about = producer.remote_address().into();
        self.push(Entry { number: 0, at, kind, node, about, reason: shortened(reason) });
    }

    fn push(&mut self, entry: Entry) {
        self.last += 1;
        if self.entries.len() == JOURNAL_ENTRIES {
            self.entries.pop_front();
        }
        self.entries.push_back(Entry { number: self.last, ..entry });
    }

    /// Makes room for nodes that are new, once a minute at most.
    fn drop_old(&mut self, now: Timestamp) {
        if self.nodes.len() >= JOURNAL_NODES_MAX && now.since(self.dropped_at) > Duration::from_secs(60) {
            self.dropped_at = now;
            let hour_ago = now.nanos() / MINUTE - MINUTES;
            self.nodes.retain(|_, reconnects| reconnects.minute > hour_ago);
        }
    }
}

/// What a client says may be long.
fn shortened(text: &str) -> Box<str> {
    let end = (0..=text.len().min(JOURNAL_TEXT_BYTES_MAX)).rev().find(|&end| text.is_char_boundary(end));
    text[..end.unwrap_or(0)].into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::{Name, ProducerId, Source};

    const START: Timestamp = Timestamp::from_nanos(1_700_000_000_000_000_000);
    const MINUTE: Duration = Duration::from_secs(60);

    fn producer(address: &str) -> Producer {
        let info = PeerInfo { broadcast_address: address.into(), tcp_port: 1, ..PeerInfo::default() };
        Producer::new(ProducerId::new(Source::Worker(0), 0, 0), "1.2.3.4:5".into(), info, START)
    }

    #[test]
    fn reconnects_are_those_of_the_last_hour() {
        let (journal, a) = (Journal::default(), producer("a"));
        let count = |after| journal.reconnects([a.info(), producer("b").info()].into_iter(), START.after(after));
        journal.joined(&a, START);
        assert_eq!(count(Duration::ZERO), [0, 0], "the first is none");
        for minute in [0, 0, 10] {
            journal.joined(&a, START.after(minute * MINUTE));
        }
        assert_eq!(count(10 * MINUTE), [3, 0]);
        assert_eq!(count(59 * MINUTE), [3, 0]);
        assert_eq!(count(61 * MINUTE), [1, 0]);
        assert_eq!(count(200 * MINUTE), [0, 0]);
        journal.joined(&a, START.after(200 * MINUTE));
        assert_eq!(count(200 * MINUTE), [1, 0]);
    }

    #[test]
    fn entries_have_their_reasons_and_the_newest_are_kept() {
        let journal = Journal::default();
        let (a, b) = (producer("a"), producer(&"é".repeat(300)));
        journal.joined(&a, START);
        journal.fell_silent(&a, START.after(MINUTE));
        journal.is_back(&a, 2 * MINUTE, START.after(2 * MINUTE));
        journal.left(&a, "EOF", START.after(3 * MINUTE));
        journal.joined(&a, START.after(4 * MINUTE));
        journal.joined(&b, START);
        let topic = Name::new(b"t").expect("a valid name");
        let tombstone = Change::Tombstone { topic, node: b"a:2".as_slice().into() };
        journal.write(&tombstone, &Outcome::Tombstoned { producers: 0 }, START);
        journal.write(&tombstone, &Outcome::Tombstoned { producers: 1 }, START);
        let seen = journal.latest(None, 99);
        let kinds: Vec<_> = seen.iter().rev().map(|entry| entry.kind.name()).collect();
        assert_eq!(kinds, ["joined", "silent", "back", "left", "reconnected", "joined", "tombstoned"]);
        let reasons: Vec<_> = seen.iter().rev().take(5).map(|entry| &*entry.reason).collect();
        assert_eq!(reasons, ["", "last PING 60.0s ago", "after 120.0s without a PING", "EOF", ""]);
        assert_eq!((&*seen[0].node, &*seen[0].about, seen[0].number), ("a:2", "t", 7));
        assert!(seen[1].node.len() <= JOURNAL_TEXT_BYTES_MAX);
        assert_eq!(journal.latest(Some("a:1"), 2).len(), 2);
        for _ in 0..JOURNAL_ENTRIES {
            journal.joined(&a, START);
        }
        let kept = journal.latest(None, usize::MAX);
        assert_eq!((kept.len(), kept[0].number), (JOURNAL_ENTRIES, 7 + JOURNAL_ENTRIES as u64));
    }

    #[test]
    fn its_memory_is_bounded() {
        let journal = Journal::default();
        let join = |from: usize, at: Timestamp| {
            for number in from..=from + JOURNAL_NODES_MAX {
                journal.joined(&producer(&number.to_string()), at);
            }
            journal.kept().nodes.len()
        };
        assert_eq!(join(0, START), JOURNAL_NODES_MAX);
        assert_eq!(join(1_000_000, START.after(30 * MINUTE)), JOURNAL_NODES_MAX);
        let later = START.after(100 * MINUTE);
        join(2_000_000, later);
        assert_eq!(journal.reconnects([producer("2000000").info()].into_iter(), later), [0]);
        journal.joined(&producer("2000000"), later);
        assert_eq!(journal.reconnects([producer("2000000").info()].into_iter(), later), [1], "there was room");
    }

    #[test]
    fn limits_have_the_time_of_the_last_excess() {
        let journal = Journal::default();
        assert_eq!(journal.limits_exceeded().count(), 0);
        journal.exceeded(Limit::Topics, START);
        journal.exceeded(Limit::Topics, START.after(MINUTE));
        assert_eq!(journal.limits_exceeded().collect::<Vec<_>>(), [(Limit::Topics, START.after(MINUTE))]);
    }
}
