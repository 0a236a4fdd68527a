//! Names and ids: what the registry's tables are keyed by.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::limits::{CONNECTIONS_MAX, WORKERS_MAX};

/// Longest topic or channel name, in bytes (stock: `protocol.IsValidTopicName`).
pub const NAME_BYTES_MAX: usize = 64;

/// Topics and channels whose name ends so are dropped with their last UNREGISTER.
pub const EPHEMERAL_SUFFIX: &[u8] = b"#ephemeral";

/// A valid topic or channel name, held in place: changes wait for their commit without allocating.
#[derive(Clone, Copy)]
pub struct Name {
    len: u8,
    bytes: [u8; NAME_BYTES_MAX],
}

const _: () = assert!(NAME_BYTES_MAX <= u8::MAX as usize);

impl Name {
    /// Validates a name as stock does (`^[.a-zA-Z0-9_-]+(#ephemeral)?$`, 1 to 64 bytes).
    pub fn new(text: &[u8]) -> Option<Self> {
        let stem = text.strip_suffix(EPHEMERAL_SUFFIX).unwrap_or(text);
        let plain = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
        if stem.is_empty() || text.len() > NAME_BYTES_MAX || !stem.iter().all(plain) {
            return None;
        }
        let mut bytes = [0; NAME_BYTES_MAX];
        bytes[..text.len()].copy_from_slice(text);
        #[expect(clippy::cast_possible_truncation, reason = "at most NAME_BYTES_MAX, asserted above")]
        let len = text.len() as u8;
        Some(Self { len, bytes })
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }

    /// # Panics
    /// Never: a valid name is ASCII.
    pub fn as_str(&self) -> &str {
        str::from_utf8(self.as_bytes()).expect("a valid name is ASCII")
    }

    pub fn is_ephemeral(&self) -> bool {
        is_ephemeral(self.as_bytes())
    }
}

impl Hash for Name {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_bytes().hash(state);
    }
}

/// Names hash as their bytes do.
impl Borrow<[u8]> for Name {
    fn borrow(&self) -> &[u8] {
        self.as_bytes()
    }
}

impl PartialOrd for Name {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Name {
    fn cmp(&self, other: &Self) -> Ordering {
        self.as_bytes().cmp(other.as_bytes())
    }
}

impl PartialEq for Name {
    fn eq(&self, other: &Self) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl Eq for Name {}

impl Serialize for Name {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// A text that is no valid name is an error.
impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <&str>::deserialize(deserializer)?;
        Self::new(text.as_bytes()).ok_or_else(|| D::Error::custom("no valid name"))
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

pub(super) fn is_ephemeral(name: &[u8]) -> bool {
    name.ends_with(EPHEMERAL_SUFFIX)
}

/// A topic's place in the registry, and the number of the topics that had it before: no two topics have the
/// same id.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct TopicId(u64);

impl TopicId {
    /// # Panics
    /// With 4 billion topics.
    pub(super) fn first_of(slot: usize) -> Self {
        Self(u64::from(u32::try_from(slot).expect("fewer topics than numbers")) << u32::BITS)
    }

    /// The next topic at the same place.
    pub(super) fn next(self) -> Self {
        let generation = self.generation().wrapping_add(1);
        Self(self.0 >> u32::BITS << u32::BITS | u64::from(generation))
    }

    pub(super) fn slot(self) -> u32 {
        (self.0 >> u32::BITS) as u32
    }

    #[expect(clippy::cast_possible_truncation, reason = "the lower half")]
    fn generation(self) -> u32 {
        self.0 as u32
    }
}

/// Where the registry knows a producer from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Source {
    /// The nsqd itself, over a connection of this worker.
    Worker(u32),
    /// What the registry held before the process started; its slots are given once.
    Restored,
    /// Another server, over whose connection it is: that one says whether it is active.
    Remote,
}

/// A producer's source, its slot there, and the number of the producers that had the slot before: no two producers have
/// the same id. The slot of an nsqd is that of its connection.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ProducerId(u64);

const SLOT_BITS: u32 = 20;
/// More than there are workers: other sources take the higher numbers.
const SOURCE_BITS: u32 = 12;
const _: () = assert!(CONNECTIONS_MAX <= 1 << SLOT_BITS);
const _: () = assert!(WORKERS_MAX.get() + FIRST_WORKER as usize <= 1 << SOURCE_BITS);
/// The number of [`Source::Restored`].
pub(super) const RESTORED: u32 = 0;
/// The number of [`Source::Remote`].
const REMOTE: u32 = 1;
/// The number of the first worker; those of the others follow.
const FIRST_WORKER: u32 = 2;

impl ProducerId {
    /// # Panics
    /// When source or slot does not fit its share of the bits: the limits keep both below.
    pub fn new(source: Source, slot: u32, generation: u32) -> Self {
        let source = match source {
            Source::Restored => RESTORED,
            Source::Remote => REMOTE,
            Source::Worker(worker) => {
                assert!((worker as usize) < WORKERS_MAX.get(), "there are as many workers as numbers for them");
                FIRST_WORKER + worker
            }
        };
        assert!(slot >> SLOT_BITS == 0, "the limits keep slots below");
        Self(u64::from(source << SLOT_BITS | slot) << u32::BITS | u64::from(generation))
    }

    /// Where the registry knows this producer from.
    #[expect(clippy::cast_possible_truncation, reason = "of few bits")]
    pub fn source(self) -> Source {
        match self.source_number() as u32 {
            RESTORED => Source::Restored,
            REMOTE => Source::Remote,
            source => Source::Worker(source - FIRST_WORKER),
        }
    }

    /// Its slot, and the number of the producers that had the slot before.
    #[expect(clippy::cast_possible_truncation, reason = "the parts of which it was made")]
    pub fn place(self) -> (u32, u32) {
        (self.slot() as u32, self.0 as u32)
    }

    /// The next producer in the same slot.
    #[expect(clippy::cast_possible_truncation, reason = "the lower half")]
    pub(super) fn next(self) -> Self {
        let generation = (self.0 as u32).wrapping_add(1);
        Self(self.0 >> u32::BITS << u32::BITS | u64::from(generation))
    }

    /// All of it, as one number.
    pub fn to_bits(self) -> u64 {
        self.0
    }

    /// The id of this number.
    pub fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    pub(super) fn source_number(self) -> usize {
        (self.0 >> (u32::BITS + SLOT_BITS)) as usize
    }

    pub(super) fn slot(self) -> usize {
        (self.0 >> u32::BITS) as usize & ((1 << SLOT_BITS) - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_validated_as_stock_does() {
        let long = "t".repeat(NAME_BYTES_MAX);
        for good in ["a", ".", "-", "_", "0", "A.b-c_d", "a#ephemeral", &long] {
            assert_eq!(Name::new(good.as_bytes()).expect(good).as_bytes(), good.as_bytes());
        }
        let too_long = "t".repeat(NAME_BYTES_MAX + 1);
        let ephemeral_too_long = format!("{}#ephemeral", "t".repeat(NAME_BYTES_MAX - 9));
        for bad in [
            "",
            "a b",
            "a$",
            "*",
            "#ephemeral",
            "a#eph",
            "a#ephemeral#ephemeral",
            "caf\u{e9}",
            "a\0b",
            "a\n",
            &too_long,
            &ephemeral_too_long,
        ] {
            assert!(Name::new(bad.as_bytes()).is_none(), "{bad:?}");
        }
    }

    #[test]
    fn producer_ids_keep_their_parts_apart() {
        let ids = [(0, 0, 0), (0, 0, 1), (0, 1, 0), (1, 0, 0), (1023, CONNECTIONS_MAX - 1, u32::MAX)];
        let new = |(worker, slot, generation)| ProducerId::new(Source::Worker(worker), slot, generation);
        let distinct: std::collections::HashSet<_> = ids.iter().copied().map(new).collect();
        assert_eq!(distinct.len(), ids.len());
        for (worker, slot, generation) in ids {
            let id = new((worker, slot, generation));
            assert_eq!((id.source(), id.slot()), (Source::Worker(worker), slot as usize));
        }
    }
}
