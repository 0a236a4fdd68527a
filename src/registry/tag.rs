//! Tags: what a response shows, in 64 bits.
//!
//! A tag is a hash of the content itself, keyed for each process. So equal tags mean equal bytes, and a tag stays the same
//! while nothing visible changes, whatever else is committed and however time passes: silence, a tombstone's end and a PING
//! change a tag exactly when they change the response. A counter of changes would have to be advanced by whoever
//! notices that time has passed, and kept for each filter; here nothing is kept, and a commit knows nothing of tags.
//!
//! The objects of producers are hashed once, when they identify. The tag of a lookup is made of these hashes, so that it
//! costs a multiplication for each producer, and the parts of a large body keep their shares of it.

use std::fmt;
use std::hash::{BuildHasher, Hasher};
use std::sync::LazyLock;

use foldhash::quality::RandomState;

/// The key: no client can choose content whose tag is another's.
static KEY: LazyLock<RandomState> = LazyLock::new(RandomState::default);

/// What the hashes of a sequence are multiplied with.
static MULTIPLIER: LazyLock<u64> = LazyLock::new(|| KEY.hash_one("multiplier") | 1);

/// The tag of some content. Shown as 16 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Tag(u64);

impl Tag {
    /// How long a tag is as text.
    pub const DIGITS: usize = 16;

    /// Of content that is there as a whole.
    pub fn of(content: &[u8]) -> Self {
        Self(hash(content))
    }

    /// Of something with a number that never comes again with other content, such as a revision.
    pub fn of_number(number: u64) -> Self {
        Self(KEY.hash_one(number))
    }

    /// Of several things in this order. One alone keeps its own.
    pub fn of_all(tags: impl IntoIterator<Item = Self>) -> Self {
        let mut sequence = Sequence::default();
        let mut last = None;
        for tag in tags {
            sequence.push(tag);
            last = Some(tag);
        }
        match last {
            Some(only) if sequence.count == 1 => only,
            _ => sequence.tag(Self::of(b"")),
        }
    }

    /// Its digits.
    pub fn text(self) -> [u8; Self::DIGITS] {
        let digit = |place: usize| {
            b"0123456789abcdef"[usize::from(self.0.to_be_bytes()[place / 2] >> (4 * (1 - place % 2)) & 0xf)]
        };
        std::array::from_fn(digit)
    }

    /// The tag of this text, with or without the quotes of an entity tag.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let text = text.strip_prefix(b"\"").and_then(|text| text.strip_suffix(b"\"")).unwrap_or(text);
        let is_digit = |byte: &u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        let text = str::from_utf8(text).ok().filter(|text| text.len() == Self::DIGITS)?;
        text.as_bytes().iter().all(is_digit).then(|| u64::from_str_radix(text, 16).ok().map(Self))?
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

fn hash(content: &[u8]) -> u64 {
    let mut hasher = KEY.build_hasher();
    hasher.write(content);
    hasher.finish()
}

/// The hash of a sequence, from those of its elements: that of two sequences, one behind the other, is made of
/// theirs, wherever it was cut.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Sequence {
    sum: u64,
    /// The multiplier to the power of the count.
    power: u64,
    count: u64,
}

impl Default for Sequence {
    fn default() -> Self {
        Self { sum: 0, power: 1, count: 0 }
    }
}

impl Sequence {
    pub(super) fn push(&mut self, element: Tag) {
        let multiplier = *MULTIPLIER;
        self.sum = self.sum.wrapping_mul(multiplier).wrapping_add(element.0);
        self.power = self.power.wrapping_mul(multiplier);
        self.count += 1;
    }

    pub(super) fn append(&mut self, other: Self) {
        self.sum = self.sum.wrapping_mul(other.power).wrapping_add(other.sum);
        self.power = self.power.wrapping_mul(other.power);
        self.count += other.count;
    }

    /// The tag of what begins so and goes on with the sequence.
    pub(super) fn tag(self, opening: Tag) -> Tag {
        Tag(KEY.hash_one((opening.0, self.sum, self.count)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_is_read_as_it_is_written() {
        let tag = Tag::of(b"content");
        let text = tag.to_string();
        assert_eq!(tag.text(), *text.as_bytes());
        for text in [text.clone(), format!("\"{text}\"")] {
            assert_eq!(Tag::parse(text.as_bytes()), Some(tag));
        }
        assert_eq!(Tag::parse(Tag(7).to_string().as_bytes()), Some(Tag(7)));
        for other in ["", "\"\"", "0123456789abcde", "0123456789ABCDEF", "+123456789abcdef", "0123456789abcdef0"] {
            assert_eq!(Tag::parse(other.as_bytes()), None, "{other}");
        }
    }

    #[test]
    fn a_sequence_has_one_tag_however_it_is_cut() {
        let elements: Vec<_> = (0..9).map(Tag::of_number).collect();
        let of = |elements: &[Tag]| {
            let mut sequence = Sequence::default();
            for &element in elements {
                sequence.push(element);
            }
            sequence
        };
        for cut in 0..=elements.len() {
            let mut sequence = of(&elements[..cut]);
            sequence.append(of(&elements[cut..]));
            assert_eq!(sequence, of(&elements));
        }
    }

    #[test]
    fn other_content_has_another_tag() {
        let [a, b] = [Tag::of(b"a"), Tag::of(b"b")];
        let sequences =
            [vec![], vec![a], vec![b], vec![a, a], vec![a, b], vec![b, a], vec![a, b, a], vec![a, a, b]];
        let mut tags: Vec<_> = sequences.iter().map(|tags| Tag::of_all(tags.iter().copied())).collect();
        tags.push(Tag::of_number(1));
        for (at, tag) in tags.iter().enumerate() {
            assert!(!tags[..at].contains(tag), "{at}");
        }
        assert_eq!(Tag::of_all([a]), a);
    }
}
