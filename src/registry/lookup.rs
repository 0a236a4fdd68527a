//! The response to `/lookup` of one topic, and what of it a change leaves valid.
//!
//! Most topics have a few producers, and their response is one piece. That of a topic with thousands is in parts, each
//! a run of its producers: after a change the parts that it did not touch are used again, and sent from where they
//! lie. So a large nsqd cluster that restarts node by node costs its consumers' lookups a part each, and not the
//! whole: with 5,000 producers that was 1.3 times the cost of sending the response, on top of it.

use std::sync::Arc;

use bytes::Bytes;

use super::names::ProducerId;
use super::snapshot::Snapshot;
use super::tag::{Sequence, Tag};
use super::topic::Topic;
use super::visibility::{Rendered, Visibility};
use crate::clock::Timestamp;
use crate::json;
use crate::limits::LOOKUP_PART_PRODUCERS;

/// When each tombstoned producer of a topic was, by id.
pub(super) type Tombstones = Vec<(ProducerId, Timestamp)>;

/// What stands behind the producers.
pub(super) const CLOSING: &[u8] = b"]}";

/// A body that can be kept.
pub(super) enum StoredBody {
    Whole { body: Rendered<Bytes>, tag: Tag },
    Parts(Parts),
}

/// A body in parts.
pub(super) struct Parts {
    /// What stands before them.
    opening: Bytes,
    runs: Vec<Arc<Part>>,
    tag: Tag,
}

/// A run of producers in a body.
struct Part {
    /// The run; at least one.
    producers: Box<[ProducerId]>,
    /// Those of the topic when it was rendered.
    tombstones: Option<Arc<Tombstones>>,
    /// See [`Topic::rankings`].
    rankings: u32,
    /// The objects of those that are visible, a comma before each.
    objects: Rendered<Bytes>,
    /// Of the objects.
    sequence: Sequence,
}

impl StoredBody {
    pub(super) fn is_fresh(&self, now: Timestamp) -> bool {
        match self {
            Self::Whole { body, .. } => body.is_fresh(now),
            Self::Parts(parts) => parts.runs.iter().all(|part| part.objects.is_fresh(now)),
        }
    }

    /// The body, when it is in one piece.
    pub(super) fn whole(&self) -> Option<&[u8]> {
        match self {
            Self::Whole { body, .. } => Some(body.content()),
            Self::Parts(_) => None,
        }
    }

    pub(super) fn tag(&self) -> Tag {
        match self {
            Self::Whole { tag, .. } | Self::Parts(Parts { tag, .. }) => *tag,
        }
    }

    /// The body's length in bytes.
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Whole { body, .. } => body.content().len(),
            Self::Parts(parts) => {
                let objects: usize = parts.runs.iter().map(|part| part.objects.content().len()).sum();
                // Nothing is before the first comma.
                parts.opening.len() + objects.saturating_sub(1) + CLOSING.len()
            }
        }
    }
}

/// The body of a response to `/lookup`, until its reader is asked again.
#[derive(Clone, Copy)]
pub struct LookupBody<'a>(Source<'a>);

#[derive(Clone, Copy)]
enum Source<'a> {
    /// In one piece, and for this time alone.
    Rendered(&'a [u8], Tag),
    Stored(&'a StoredBody),
}

impl<'a> LookupBody<'a> {
    pub(super) fn rendered(body: &'a [u8], tag: Tag) -> Self {
        Self(Source::Rendered(body, tag))
    }

    pub(super) fn stored(body: &'a StoredBody) -> Self {
        Self(Source::Stored(body))
    }

    /// The body, when it is in one piece.
    pub fn whole(self) -> Option<&'a [u8]> {
        match self.0 {
            Source::Rendered(body, _) => Some(body),
            Source::Stored(body) => body.whole(),
        }
    }

    /// The body's length in bytes.
    #[expect(clippy::len_without_is_empty, reason = "no body is empty")]
    pub fn len(self) -> usize {
        match self.0 {
            Source::Rendered(body, _) => body.len(),
            Source::Stored(body) => body.len(),
        }
    }

    /// The tag of the body.
    pub fn tag(self) -> Tag {
        match self.0 {
            Source::Rendered(_, tag) => tag,
            Source::Stored(body) => body.tag(),
        }
    }

    /// The body in its pieces, shared where it is stored.
    pub fn pieces(self) -> Vec<Bytes> {
        match self.0 {
            Source::Rendered(body, _) => vec![Bytes::copy_from_slice(body)],
            Source::Stored(StoredBody::Whole { body, .. }) => vec![body.content().clone()],
            Source::Stored(StoredBody::Parts(parts)) => parts.pieces(),
        }
    }
}

impl Parts {
    fn pieces(&self) -> Vec<Bytes> {
        let mut pieces = vec![self.opening.clone()];
        let objects = self.runs.iter().map(|part| part.objects.content()).filter(|objects| !objects.is_empty());
        // Nothing is before the first comma.
        pieces.extend(objects.enumerate().map(|(nth, objects)| objects.slice(usize::from(nth == 0)..)));
        pieces.push(Bytes::from_static(CLOSING));
        pieces
    }
}

impl Part {
    /// Whether it is what rendering these producers of the topic would make.
    fn is_valid(&self, run: &[ProducerId], topic: &Topic, now: Timestamp) -> bool {
        let same_tombstones =
            self.tombstones.as_ref().map(Arc::as_ptr) == topic.tombstones.as_ref().map(Arc::as_ptr);
        same_tombstones && self.rankings == topic.rankings && *self.producers == *run && self.objects.is_fresh(now)
    }
}

/// Renders `/lookup` of one topic: its channels and visible producers.
pub(super) fn render(topic: &Topic, snapshot: &Snapshot, visibility: &mut Visibility, out: &mut Vec<u8>) -> Tag {
    let opening = render_opening(topic, true, out);
    // The first comma takes the bracket's place.
    let bracket = out.len() - 1;
    out.truncate(bracket);
    let sequence = render_objects(topic.producers(), topic, snapshot, visibility, out);
    match out.get_mut(bracket) {
        Some(comma) => *comma = b'[',
        None => out.push(b'['),
    }
    out.extend_from_slice(CLOSING);
    sequence.tag(opening)
}

/// The same in parts, with what is still valid of an older body. `scratch` is space to render in: what comes of it is as
/// large as it must be, without having grown.
pub(super) fn render_parts(
    topic: &Topic,
    snapshot: &Snapshot,
    now: Timestamp,
    before: Option<&StoredBody>,
    scratch: &mut Vec<u8>,
) -> Parts {
    scratch.clear();
    let opening_tag = render_opening(topic, true, scratch);
    let opening = Bytes::copy_from_slice(scratch);
    let mut render = |run: &[ProducerId]| {
        let mut visibility = Visibility::new(snapshot.lifetimes(), now);
        scratch.clear();
        let sequence = render_objects(run, topic, snapshot, &mut visibility, scratch);
        let objects = visibility.rendered(Bytes::copy_from_slice(scratch));
        Arc::new(Part {
            producers: run.into(),
            tombstones: topic.tombstones.clone(),
            rankings: topic.rankings,
            objects,
            sequence,
        })
    };
    let parts = match before {
        Some(StoredBody::Parts(before)) => &before.runs[..],
        Some(StoredBody::Whole { .. }) | None => &[],
    };
    let mut producers = topic.producers();
    let mut new = Vec::with_capacity(parts.len() + 1);
    for part in parts {
        let last = part.producers.last().expect("a run is of one at least");
        let (run, after) = producers.split_at(producers.partition_point(|id| id <= last));
        producers = after;
        if part.is_valid(run, topic, now) {
            new.push(Arc::clone(part));
        } else {
            new.extend(runs(run).map(&mut render));
        }
    }
    new.extend(runs(producers).map(&mut render));
    let mut sequence = Sequence::default();
    for part in &new {
        sequence.append(part.sequence);
    }
    Parts { opening, runs: new, tag: sequence.tag(opening_tag) }
}

/// What stands before the producers, with or without the channels. Returns its tag.
pub(super) fn render_opening(topic: &Topic, with_channels: bool, out: &mut Vec<u8>) -> Tag {
    let from = out.len();
    out.push(b'{');
    if with_channels {
        out.extend_from_slice(b"\"channels\":");
        json::array(out, topic.channels(), |out, channel| json::name(out, channel.name()));
        out.push(b',');
    }
    out.extend_from_slice(b"\"producers\":[");
    Tag::of(&out[from..])
}

/// The objects, rendered once for each producer, of those that are visible, a comma before each.
fn render_objects(
    run: &[ProducerId],
    topic: &Topic,
    snapshot: &Snapshot,
    visibility: &mut Visibility,
    out: &mut Vec<u8>,
) -> Sequence {
    let mut sequence = Sequence::default();
    for producer in snapshot.present(run) {
        if visibility.is_active(producer) && !visibility.is_tombstoned(topic, producer) {
            out.push(b',');
            out.extend_from_slice(producer.object());
            sequence.push(producer.tag());
        }
    }
    sequence
}

/// Cuts into as few runs as may be, of about the same length.
fn runs(all: &[ProducerId]) -> impl Iterator<Item = &[ProducerId]> {
    let count = all.len().div_ceil(LOOKUP_PART_PRODUCERS).max(1);
    all.chunks(all.len().div_ceil(count).max(1))
}
