//! The values of the keys: JSON, deflated (zlib, RFC 1950) where that is worth it. Fields that this version does not know are
//! skipped, so that a later one may add some.

use std::collections::BTreeMap;
use std::io::Read as _;

use flate2::Compression;
use flate2::read::{ZlibDecoder, ZlibEncoder};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::store::Revision;
use crate::limits::{RECORD_BYTES_MAX, RECORD_DEFLATED_FROM, RECORD_PART_TOPICS, RECORD_PARTS_MAX};
use crate::registry::{Name, PeerInfo};

/// Topics, each with its channels.
pub type Registrations = BTreeMap<Name, Vec<Name>>;

/// An instance since its start: the value of `i/`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Instance {
    /// `-cluster-node`.
    pub name: Box<str>,
    /// Of the program.
    pub version: Box<str>,
}

/// A part of what an nsqd has registered: the value of `p/`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Record {
    /// What the nsqd says of itself.
    pub node: PeerInfo,
    /// `host:port` of its connection.
    pub remote_address: Box<str>,
    /// Whether it has sent a PING lately.
    pub active: bool,
    /// How far the instance that wrote it had followed: what was deleted later is not deleted in it yet.
    pub seen: Revision,
    /// How many parts there are. A topic is in the part that its name's checksum says.
    pub parts: u32,
    pub topics: Registrations,
}

/// The value of `d/`, `t/` and `x/`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct By {
    /// The instance that was asked for it, which has done it already.
    pub by: Box<str>,
    /// Of a deletion: how many that instance has been asked for so far.
    #[serde(default)]
    pub number: u64,
}

/// In which of so many parts of a record a topic is.
pub fn part_of(topic: &Name, parts: u32) -> u32 {
    if parts <= 1 { 0 } else { crc32fast::hash(topic.as_bytes()) % parts }
}

/// How many parts a record of so many topics has.
pub fn parts_for(topics: usize) -> u32 {
    u32::try_from(topics.div_ceil(RECORD_PART_TOPICS)).unwrap_or(u32::MAX).clamp(1, RECORD_PARTS_MAX)
}

/// A value as bytes.
///
/// # Panics
/// Never: these values have a form in JSON.
pub fn encode(value: &impl Serialize) -> Vec<u8> {
    let text = simd_json::to_vec(value).expect("text, numbers, lists and tables");
    if text.len() < RECORD_DEFLATED_FROM {
        return text;
    }
    let mut deflated = Vec::with_capacity(text.len() / 4);
    let _ = ZlibEncoder::new(&text[..], Compression::fast()).read_to_end(&mut deflated);
    deflated
}

/// The value of some bytes.
///
/// # Errors
/// What is wrong with them, for the log.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    let mut text = Vec::new();
    if bytes.first() == Some(&b'{') {
        text.extend_from_slice(bytes);
    } else {
        let limit = RECORD_BYTES_MAX as u64 + 1;
        ZlibDecoder::new(bytes).take(limit).read_to_end(&mut text).map_err(|error| format!("zlib: {error}"))?;
    }
    if text.len() > RECORD_BYTES_MAX {
        return Err(format!("it has more than {RECORD_BYTES_MAX} bytes"));
    }
    simd_json::from_slice(&mut text).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        Name::new(text.as_bytes()).unwrap()
    }

    fn record(topics: usize) -> Record {
        Record {
            node: PeerInfo { broadcast_address: "h".into(), tcp_port: 4150, ..PeerInfo::default() },
            remote_address: "1.2.3.4:5".into(),
            active: true,
            seen: 7,
            parts: 1,
            topics: (0..topics).map(|nth| (name(&format!("topic_{nth}")), vec![name("a"), name("b")])).collect(),
        }
    }

    #[test]
    fn values_are_read_as_they_were_written() {
        for topics in [0, 1, 500] {
            let (record, bytes) = (record(topics), encode(&record(topics)));
            assert_eq!(decode::<Record>(&bytes).as_ref(), Ok(&record));
            assert_eq!(bytes[0] == b'{', topics < 500, "small ones are legible");
        }
        let bytes = encode(&record(500));
        assert!(bytes.len() < 5000, "{}", bytes.len());
    }

    #[test]
    fn fields_of_later_versions_are_skipped_and_nonsense_is_an_error() {
        let value = br#"{"name":"a","version":"1","of":{"later":[1]}}"#;
        assert_eq!(decode(value), Ok(Instance { name: "a".into(), version: "1".into() }));
        for bad in [&b""[..], b"{", b"nonsense", b"{\"name\":1}"] {
            assert!(decode::<Instance>(bad).is_err());
        }
        let bomb = encode(&Instance { name: "x".repeat(RECORD_BYTES_MAX + 1).into(), version: "".into() });
        assert!(decode::<Instance>(&bomb).unwrap_err().contains("more than"));
    }

    #[test]
    fn a_record_has_as_many_parts_as_it_needs() {
        assert_eq!([0, 1, 2000, 2001, 1_000_000].map(parts_for), [1, 1, 1, 2, RECORD_PARTS_MAX]);
        assert_eq!(part_of(&name("t"), 1), 0);
        assert!(part_of(&name("t"), 5) < 5);
    }
}
