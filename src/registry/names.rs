//! Names and ids: what the registry's tables are keyed by.

use std::fmt;

use crate::limits::{CONNECTIONS_MAX, WORKERS_MAX};

/// Longest topic or channel name, in bytes (stock: `protocol.IsValidTopicName`).
pub const NAME_BYTES_MAX: usize = 64;

/// Topics and channels whose name ends so are dropped with their last UNREGISTER.
pub const EPHEMERAL_SUFFIX: &[u8] = b"#ephemeral";

const SLOT_BITS: u32 = 22;
const _: () = assert!(CONNECTIONS_MAX <= 1 << SLOT_BITS);
const _: () = assert!(WORKERS_MAX.get() <= 1 << (u32::BITS - SLOT_BITS));

/// A valid topic or channel name, held in place: mutations wait for their commit without allocating.
#[derive(Clone, Copy)]
pub struct Name {
    len: u8,
    bytes: [u8; NAME_BYTES_MAX],
}

const _: () = assert!(NAME_BYTES_MAX <= u8::MAX as usize);

impl Name {
    /// Judges a name as stock does (`^[.a-zA-Z0-9_-]+(#ephemeral)?$`, 1 to 64 bytes).
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
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(str::from_utf8(self.as_bytes()).expect("a valid name is ASCII"))
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

/// A topic's place in the registry: given at creation, free for another topic after deletion.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct TopicId(pub(super) u32);

/// A producer is its connection, so its id is the connection's place: worker and slot. It is free for
/// another producer as soon as the disconnect is committed, which is before the slot can be reused.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ProducerId(u32);

impl ProducerId {
    /// # Panics
    /// When a number does not fit its share of the 32 bits: the limits keep both below.
    pub fn new(worker: u32, slot: u32) -> Self {
        assert!(worker >> (u32::BITS - SLOT_BITS) == 0 && slot >> SLOT_BITS == 0);
        Self(worker << SLOT_BITS | slot)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_judged_as_stock_does() {
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
    fn producer_ids_keep_worker_and_slot_apart() {
        assert_ne!(ProducerId::new(0, 1), ProducerId::new(1, 0));
        assert_ne!(ProducerId::new(1023, 0), ProducerId::new(0, CONNECTIONS_MAX - 1));
    }
}
