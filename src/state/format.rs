//! The bytes of a state file. All numbers are little-endian:
//!
//! | bytes | content |
//! | --- | --- |
//! | 8 | `nsqstate` |
//! | 4 | the version of the format, 1 |
//! | 8 | when it was taken: nanoseconds since the Unix epoch, by the system's clock |
//! | ... | the producers, then the topics: records of postcard, one behind the other |
//! | 4 | the number of producers |
//! | 4 | the number of topics |
//! | 4 | CRC-32 of everything before it |
//!
//! Every version begins with the first two rows and ends with the last one, so that a file of a newer version is known to be
//! whole before anything else of it is read. The two numbers come last because whoever writes walks a snapshot once.
//! A producer's number is its place among the records. The records are [`SavedProducer`] and [`SavedTopic`] as serde sees
//! them: a change of these types is a new version, and the old one stays readable.

use std::fmt;
use std::io::{self, BufWriter, Write};
use std::time::Duration;

use crc32fast::Hasher;
use serde::{Deserialize, Serialize};

use super::check;
use crate::limits::STATE_BUFFER_BYTES;
use crate::registry::{Saved, SavedProducer, SavedTopic};

/// The version that is written.
pub const VERSION: u32 = 1;

const MAGIC: &[u8] = b"nsqstate";
/// Before the records.
const HEAD_BYTES: usize = MAGIC.len() + 4 + 8;
/// Behind the records, without the checksum.
const COUNTS_BYTES: usize = 8;
const CHECKSUM_BYTES: usize = 4;
/// What every version has.
const EVERY_VERSION_BYTES: usize = MAGIC.len() + 4 + CHECKSUM_BYTES;

/// The shortest records: a forged number of them allocates no more than a small multiple of the file's size.
const PRODUCER_BYTES_MIN: usize = 10;
const TOPIC_BYTES_MIN: usize = 6;

/// Writes a state record by record: all producers, then all topics. A buffer is in front of the writer.
pub struct Encoder<'a> {
    to: BufWriter<&'a mut dyn Write>,
    checksum: Hasher,
    bytes: u64,
    producers: u32,
    topics: u32,
    /// Keeps its capacity from one record to the next.
    record: Vec<u8>,
}

/// What was written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Written {
    pub bytes: u64,
    /// The file's last four bytes: what a stamp knows it by.
    pub checksum: u32,
}

/// What a file holds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Decoded {
    /// When it was taken, since the Unix epoch.
    pub wall: Duration,
    pub checksum: u32,
    pub saved: Saved,
}

/// Why bytes are not a state that can be used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FormatError {
    /// They end too early to hold any.
    Truncated,
    /// They are not as they were written.
    Checksum,
    /// They are whole, and of a later version than this program knows.
    Newer(u32),
    /// They are as they were written, and no state.
    Malformed(&'static str),
}

impl fmt::Display for FormatError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Truncated => f.write_str("truncated"),
            Self::Checksum => f.write_str("wrong checksum"),
            Self::Newer(version) => write!(f, "format {version}, and this program knows up to {VERSION}"),
            Self::Malformed(what) => write!(f, "malformed: {what}"),
        }
    }
}

impl std::error::Error for FormatError {}

/// Writes a state.
pub fn encode(
    to: &mut dyn Write,
    wall: Duration,
    producers: impl IntoIterator<Item = SavedProducer>,
    topics: impl IntoIterator<Item = SavedTopic>,
) -> io::Result<Written> {
    let mut encoder = Encoder::new(to, wall)?;
    producers.into_iter().try_for_each(|producer| encoder.producer(&producer))?;
    topics.into_iter().try_for_each(|topic| encoder.topic(&topic))?;
    encoder.finish()
}

impl<'a> Encoder<'a> {
    /// Begins a state that is taken at this time, since the Unix epoch.
    pub fn new(to: &'a mut dyn Write, wall: Duration) -> io::Result<Self> {
        let to = BufWriter::with_capacity(STATE_BUFFER_BYTES, to);
        let (checksum, record) = (Hasher::new(), Vec::new());
        let mut encoder = Self { to, checksum, bytes: 0, producers: 0, topics: 0, record };
        encoder.put(MAGIC)?;
        encoder.put(&VERSION.to_le_bytes())?;
        encoder.put(&nanos(wall).to_le_bytes())?;
        Ok(encoder)
    }

    /// # Panics
    /// Behind a topic.
    pub fn producer(&mut self, producer: &SavedProducer) -> io::Result<()> {
        assert_eq!(self.topics, 0, "the producers come first");
        self.producers += 1;
        self.put_record(producer)
    }

    /// The producers that it names are there already.
    pub fn topic(&mut self, topic: &SavedTopic) -> io::Result<()> {
        self.topics += 1;
        self.put_record(topic)
    }

    /// Writes what is behind the records, and all that is buffered.
    pub fn finish(mut self) -> io::Result<Written> {
        self.put(&self.producers.to_le_bytes())?;
        self.put(&self.topics.to_le_bytes())?;
        let checksum = self.checksum.clone().finalize();
        self.put(&checksum.to_le_bytes())?;
        self.to.flush()?;
        Ok(Written { bytes: self.bytes, checksum })
    }

    fn put_record(&mut self, record: &impl Serialize) -> io::Result<()> {
        self.record.clear();
        let record = postcard::to_extend(record, std::mem::take(&mut self.record)).map_err(io::Error::other)?;
        self.put(&record)?;
        self.record = record;
        Ok(())
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.checksum.update(bytes);
        self.bytes += bytes.len() as u64;
        self.to.write_all(bytes)
    }
}

/// Reads a state. It takes memory in proportion to the bytes, whatever they say, and what it returns holds all that the
/// registry relies on.
pub fn decode(bytes: &[u8]) -> Result<Decoded, FormatError> {
    if !MAGIC.starts_with(&bytes[..bytes.len().min(MAGIC.len())]) {
        return Err(FormatError::Malformed("not a state file"));
    }
    if bytes.len() < EVERY_VERSION_BYTES {
        return Err(FormatError::Truncated);
    }
    let (sealed, checksum) = sealed(bytes)?;
    let (version, rest) = u32_of(&sealed[MAGIC.len()..]).ok_or(FormatError::Truncated)?;
    match version {
        VERSION => {}
        0 => return Err(FormatError::Malformed("not a state file")),
        newer => return Err(FormatError::Newer(newer)),
    }
    if sealed.len() < HEAD_BYTES + COUNTS_BYTES {
        return Err(FormatError::Truncated);
    }
    let (wall, rest) = rest.split_first_chunk().ok_or(FormatError::Truncated)?;
    let (records, counts) = rest.split_at(rest.len() - COUNTS_BYTES);
    let (producers, counts) = u32_of(counts).ok_or(FormatError::Truncated)?;
    let (topics, _) = u32_of(counts).ok_or(FormatError::Truncated)?;
    let (producers, records) = take_records(records, producers, PRODUCER_BYTES_MIN)?;
    let (topics, records) = take_records(records, topics, TOPIC_BYTES_MIN)?;
    if !records.is_empty() {
        return Err(FormatError::Malformed("bytes behind the last record"));
    }
    let saved = Saved { producers, topics };
    check::saved(&saved).map_err(FormatError::Malformed)?;
    Ok(Decoded { wall: Duration::from_nanos(u64::from_le_bytes(*wall)), checksum, saved })
}

/// The bytes before their checksum, if it is the right one.
pub(super) fn sealed(bytes: &[u8]) -> Result<(&[u8], u32), FormatError> {
    let (sealed, checksum) = bytes.split_last_chunk::<CHECKSUM_BYTES>().ok_or(FormatError::Truncated)?;
    let checksum = u32::from_le_bytes(*checksum);
    if crc32fast::hash(sealed) == checksum { Ok((sealed, checksum)) } else { Err(FormatError::Checksum) }
}

/// So many records of one kind, each of at least `bytes_min`, and what is behind them.
fn take_records<'a, T: Deserialize<'a>>(
    mut bytes: &'a [u8],
    count: u32,
    bytes_min: usize,
) -> Result<(Vec<T>, &'a [u8]), FormatError> {
    let count = count as usize;
    if count > bytes.len() / bytes_min {
        return Err(FormatError::Malformed("more records than there are bytes for"));
    }
    let mut records = Vec::with_capacity(count);
    for _ in 0..count {
        let (record, rest) =
            postcard::take_from_bytes(bytes).map_err(|_| FormatError::Malformed("a record cannot be read"))?;
        records.push(record);
        bytes = rest;
    }
    Ok((records, bytes))
}

pub(super) fn u32_of(bytes: &[u8]) -> Option<(u32, &[u8])> {
    let (number, rest) = bytes.split_first_chunk()?;
    Some((u32::from_le_bytes(*number), rest))
}

/// Saturates in the year 2554.
pub(super) fn nanos(wall: Duration) -> u64 {
    wall.as_nanos().try_into().unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::{Name, PeerInfo, SavedChannel, SavedExpiry, SavedProducers};

    const WALL: Duration = Duration::from_secs(1_800_000_000);

    fn producer() -> SavedProducer {
        let info = PeerInfo::default();
        SavedProducer { info, remote_address: "".into(), silence: Duration::ZERO }
    }

    fn topic(name: &[u8]) -> SavedTopic {
        let name = Name::new(name).expect("a name");
        SavedTopic {
            name,
            is_listed: true,
            expiry: SavedExpiry::None,
            producers: vec![],
            tombstones: vec![],
            channels: vec![],
        }
    }

    fn encoded(producers: usize, topics: &[SavedTopic]) -> Vec<u8> {
        let mut bytes = Vec::new();
        let producers = vec![producer(); producers];
        let written = encode(&mut bytes, WALL, producers, topics.to_vec()).expect("memory");
        assert_eq!(written.bytes, bytes.len() as u64);
        bytes
    }

    /// The same bytes with another head or tail, and the right checksum.
    fn resealed(mut bytes: Vec<u8>, change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        bytes.truncate(bytes.len() - CHECKSUM_BYTES);
        change(&mut bytes);
        let checksum = crc32fast::hash(&bytes);
        bytes.extend_from_slice(&checksum.to_le_bytes());
        bytes
    }

    #[test]
    fn the_shortest_records_are_as_short_as_assumed() {
        let head_and_tail = encoded(0, &[]).len();
        assert_eq!(encoded(1, &[]).len() - head_and_tail, PRODUCER_BYTES_MIN);
        // A name of one byte is one longer than none, which no topic has.
        assert_eq!(encoded(0, &[topic(b"t")]).len() - head_and_tail, TOPIC_BYTES_MIN + 1);
    }

    #[test]
    fn a_file_that_was_cut_or_changed_is_no_newer_one() {
        let whole = encoded(2, &[topic(b"t")]);
        for end in 0..whole.len() {
            let error = decode(&whole[..end]).expect_err("cut");
            assert!(matches!(error, FormatError::Truncated | FormatError::Checksum), "{end}: {error}");
        }
        let newer = resealed(whole.clone(), |bytes| {
            bytes.truncate(8);
            bytes.extend_from_slice(&2_u32.to_le_bytes());
            bytes.extend_from_slice(b"whatever");
        });
        assert_eq!(decode(&newer), Err(FormatError::Newer(2)));
        let mut changed = newer;
        changed[9] ^= 1;
        assert_eq!(decode(&changed), Err(FormatError::Checksum));
        assert_eq!(decode(b"tcp_address = 1"), Err(FormatError::Malformed("not a state file")));
        let old = resealed(whole, |bytes| bytes[8] = 0);
        assert_eq!(decode(&old), Err(FormatError::Malformed("not a state file")));
    }

    #[test]
    fn forged_numbers_of_records_are_refused() {
        let whole = encoded(1, &[topic(b"t")]);
        for (producers, topics, expected) in [
            (u32::MAX, 1, "more records than there are bytes for"),
            (1, u32::MAX, "more records than there are bytes for"),
            (0, 1, "a record cannot be read"),
            (1, 0, "bytes behind the last record"),
        ] {
            let forged = resealed(whole.clone(), |bytes| {
                let counts = bytes.len() - COUNTS_BYTES;
                bytes[counts..counts + 4].copy_from_slice(&producers.to_le_bytes());
                bytes[counts + 4..].copy_from_slice(&topics.to_le_bytes());
            });
            assert_eq!(decode(&forged), Err(FormatError::Malformed(expected)));
        }
    }

    #[test]
    fn what_the_registry_relies_on_is_checked() {
        let channel = |name: &[u8], producers| {
            let name = Name::new(name).expect("a name");
            SavedChannel { name, expiry: SavedExpiry::None, producers }
        };
        let some = |numbers: &[u32]| SavedProducers::Some(numbers.to_vec());
        let second = Duration::from_secs(1);
        let good = SavedTopic {
            producers: vec![0, 2],
            tombstones: vec![(2, second), (0, second)],
            channels: vec![channel(b"a", SavedProducers::All), channel(b"b", some(&[2]))],
            ..topic(b"t")
        };
        let read = |topics: &[SavedTopic]| decode(&encoded(3, topics)).map(|decoded| decoded.saved.topics);
        let both = [good.clone(), topic(b"u")];
        assert_eq!(read(&both).as_deref(), Ok(&both[..]));
        let with_channels = |channels| SavedTopic { channels, ..good.clone() };
        let bad = [
            SavedTopic { producers: vec![2, 0], ..good.clone() },
            SavedTopic { producers: vec![0, 0, 2], ..good.clone() },
            SavedTopic { producers: vec![0, 2, 3], ..good.clone() },
            SavedTopic { tombstones: vec![(0, second), (2, second), (0, second)], ..good.clone() },
            SavedTopic { tombstones: vec![(3, second)], ..good.clone() },
            with_channels(vec![channel(b"b", some(&[0, 1]))]),
            with_channels(vec![channel(b"b", some(&[2, 0]))]),
            with_channels(vec![channel(b"b", some(&[3]))]),
            with_channels(vec![channel(b"b", some(&[])), channel(b"a", some(&[]))]),
            with_channels(vec![channel(b"a", some(&[])), channel(b"a", SavedProducers::All)]),
        ];
        for bad in bad {
            assert!(matches!(read(std::slice::from_ref(&bad)), Err(FormatError::Malformed(_))), "{bad:?}");
        }
        assert_eq!(read(&[topic(b"t"), topic(b"u"), topic(b"t")]), Err(FormatError::Malformed("a topic twice")));
    }
}
