//! The stamp: that the process was alive at a time, and how silent each producer was then. A PING changes no snapshot, so
//! the state file alone would make producers look silent that are not. All numbers are little-endian:
//!
//! | bytes | content |
//! | --- | --- |
//! | 8 | `nsqstamp` |
//! | 4 | the version of the format, 1 |
//! | 4 | the checksum of the state file that it belongs to |
//! | 8 | when it was made: nanoseconds since the Unix epoch, by the system's clock |
//! | ... | milliseconds since the last PING of each producer of that file, in its order: varints of postcard |
//! | 4 | CRC-32 of everything before it |
//!
//! A stamp that cannot be read, or belongs to another file, is as good as none: the time of the state file counts then.

use std::time::Duration;

use super::format::{nanos, sealed, u32_of};

const MAGIC: &[u8] = b"nsqstamp";
const VERSION: u32 = 1;

/// A sign of life.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Stamp {
    /// The checksum of the state file that it belongs to.
    pub state: u32,
    /// When it was made, since the Unix epoch.
    pub wall: Duration,
    /// The silence of each producer of that file, in milliseconds.
    pub silences: Vec<Duration>,
}

impl Stamp {
    /// The bytes of a stamp: a few for each producer.
    ///
    /// # Panics
    /// Never: memory takes whatever is written.
    pub fn encode(state: u32, wall: Duration, silences: impl Iterator<Item = Duration>) -> Vec<u8> {
        let mut bytes = [MAGIC, &VERSION.to_le_bytes(), &state.to_le_bytes(), &nanos(wall).to_le_bytes()].concat();
        for silence in silences {
            let millis = u64::try_from(silence.as_millis()).unwrap_or(u64::MAX);
            bytes = postcard::to_extend(&millis, bytes).expect("memory takes it");
        }
        let checksum = crc32fast::hash(&bytes);
        bytes.extend_from_slice(&checksum.to_le_bytes());
        bytes
    }

    /// `None` for bytes that are no stamp of this version.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (sealed, _) = sealed(bytes).ok()?;
        let (version, rest) = u32_of(sealed.strip_prefix(MAGIC)?)?;
        let (state, rest) = u32_of(rest).filter(|_| version == VERSION)?;
        let (wall, mut rest) = rest.split_first_chunk()?;
        let mut silences = Vec::new();
        while !rest.is_empty() {
            let (millis, behind) = postcard::take_from_bytes(rest).ok()?;
            silences.push(Duration::from_millis(millis));
            rest = behind;
        }
        Some(Self { state, wall: Duration::from_nanos(u64::from_le_bytes(*wall)), silences })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_is_read_whole_or_not_at_all() {
        let silences = vec![Duration::ZERO, Duration::from_millis(15_001), Duration::from_secs(1 << 40)];
        let stamp = Stamp { state: 7, wall: Duration::from_secs(1_800_000_000), silences };
        let bytes = Stamp::encode(stamp.state, stamp.wall, stamp.silences.iter().copied());
        assert_eq!(Stamp::decode(&bytes).as_ref(), Some(&stamp));
        for end in 0..bytes.len() {
            assert_eq!(Stamp::decode(&bytes[..end]), None);
            let mut changed = bytes.clone();
            changed[end] ^= 0x10;
            assert_eq!(Stamp::decode(&changed), None);
        }
    }
}
