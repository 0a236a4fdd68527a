//! The answer to `/lookup`, and what of it a change leaves true.
//!
//! Most topics have a few producers, and their answer is one piece. That of a topic with thousands is in parts, each
//! a run of its producers: after a change the parts that it did not touch are used again, and sent from where they
//! lie. So a large nsqd cluster that restarts node by node costs its consumers' lookups a part each, and not the
//! whole: with 5,000 producers that was 1.3 times the cost of sending the answer, on top of it.

use std::sync::Arc;

use bytes::Bytes;

use super::freshness::Rendered;
use super::names::ProducerId;
use crate::clock::Timestamp;
use crate::limits::LOOKUP_PART_PRODUCERS;

/// An answer as it is left in its topic for those who ask next.
pub(super) struct KeptAnswer {
    /// The topic's before it was rendered.
    pub(super) version: u64,
    pub(super) answer: LookupAnswer,
}

impl KeptAnswer {
    /// Whether it would be rendered the same now.
    pub(super) fn is_true(&self, version: u64, now: Timestamp) -> bool {
        self.version == version && self.answer.is_fresh(now)
    }
}

/// An answer, true until a commit replaces its topic's state or time makes it false.
pub enum LookupAnswer {
    Whole(Rendered<Bytes>),
    Parts(Parts),
}

/// An answer in parts.
pub struct Parts {
    /// What stands before them.
    pub(super) opening: Bytes,
    pub(super) parts: Vec<Arc<Part>>,
}

/// A run of producers in an answer.
pub(super) struct Part {
    /// The run; at least one.
    pub(super) producers: Box<[ProducerId]>,
    /// Those of the topic when it was rendered.
    pub(super) tombstones: Option<Arc<Tombstones>>,
    /// The objects of those that are visible, a comma before each.
    pub(super) objects: Rendered<Bytes>,
}

/// When each tombstoned producer of a topic was, by id.
pub(super) type Tombstones = Vec<(ProducerId, Timestamp)>;

/// What stands behind the producers.
pub(super) const CLOSING: &[u8] = b"]}";

impl LookupAnswer {
    fn is_fresh(&self, now: Timestamp) -> bool {
        match self {
            Self::Whole(body) => body.is_fresh(now),
            Self::Parts(parts) => parts.parts.iter().all(|part| part.objects.is_fresh(now)),
        }
    }

    /// The parts, for the next answer.
    pub(super) fn parts(&self) -> &[Arc<Part>] {
        match self {
            Self::Whole(_) => &[],
            Self::Parts(parts) => &parts.parts,
        }
    }

    /// The body's length in bytes.
    pub(super) fn body_len(&self) -> usize {
        match self {
            Self::Whole(body) => body.content.len(),
            Self::Parts(parts) => {
                let objects: usize = parts.parts.iter().map(|part| part.objects.content.len()).sum();
                // Nothing is before the first comma.
                parts.opening.len() + objects.saturating_sub(1) + CLOSING.len()
            }
        }
    }
}

/// The body of an answer, until its reader is asked again.
pub enum LookupBody<'a> {
    /// In one piece, and for this time alone.
    Rendered(&'a [u8]),
    Kept(&'a LookupAnswer),
}

impl LookupBody<'_> {
    /// The body, when it is in one piece.
    pub fn whole(&self) -> Option<&[u8]> {
        match self {
            Self::Rendered(body) => Some(body),
            Self::Kept(LookupAnswer::Whole(body)) => Some(&body.content),
            Self::Kept(LookupAnswer::Parts(_)) => None,
        }
    }

    /// The body's length in bytes.
    pub fn body_len(&self) -> usize {
        match self {
            Self::Rendered(body) => body.len(),
            Self::Kept(answer) => answer.body_len(),
        }
    }

    /// The body in its pieces.
    pub fn pieces(&self) -> Vec<Bytes> {
        match self {
            Self::Rendered(body) => vec![Bytes::copy_from_slice(body)],
            Self::Kept(LookupAnswer::Whole(body)) => vec![body.content.clone()],
            Self::Kept(LookupAnswer::Parts(parts)) => parts.pieces(),
        }
    }
}

impl Parts {
    fn pieces(&self) -> Vec<Bytes> {
        let mut pieces = vec![self.opening.clone()];
        let objects = self.parts.iter().map(|part| &part.objects.content).filter(|objects| !objects.is_empty());
        // Nothing is before the first comma.
        pieces.extend(objects.enumerate().map(|(nth, objects)| objects.slice(usize::from(nth == 0)..)));
        pieces.push(Bytes::from_static(CLOSING));
        pieces
    }
}

impl Part {
    /// Whether it is what rendering these producers with these tombstones would make.
    pub(super) fn is_true(
        &self,
        run: &[ProducerId],
        tombstones: Option<&Arc<Tombstones>>,
        now: Timestamp,
    ) -> bool {
        let same_tombstones = self.tombstones.as_ref().map(Arc::as_ptr) == tombstones.map(Arc::as_ptr);
        same_tombstones && *self.producers == *run && self.objects.is_fresh(now)
    }
}

/// Cuts into as few runs as may be, of about the same length.
pub(super) fn runs(all: &[ProducerId]) -> impl Iterator<Item = &[ProducerId]> {
    let count = all.len().div_ceil(LOOKUP_PART_PRODUCERS).max(1);
    all.chunks(all.len().div_ceil(count).max(1))
}
