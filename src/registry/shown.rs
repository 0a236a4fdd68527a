//! What a client is shown of one topic: the producers that are visible, and of these the ones that its filter asks for.

use std::sync::Arc;

use super::filter::{Applied, Filter};
use super::lookup;
use super::names::ProducerId;
use super::producer::Producer;
use super::snapshot::Snapshot;
use super::tag::{Sequence, Tag};
use super::topic::Topic;
use super::visibility::Visibility;

/// A topic's producers as a response would list them, each with the id that the topic lists it by.
pub struct Shown {
    pub producers: Vec<(ProducerId, Arc<Producer>)>,
    /// What of the filter was applied, where there is one.
    pub applied: Option<Applied>,
}

impl Shown {
    /// Of a topic at the moment of `visibility`, which notes for how long it holds.
    pub fn of(topic: &Topic, snapshot: &Snapshot, visibility: &mut Visibility, filter: Option<&Filter>) -> Self {
        let found = topic.producers().iter().filter_map(|&id| Some((id, snapshot.producer(id)?)));
        let visible = found
            .filter(|(_, producer)| visibility.is_active(producer) && !visibility.is_tombstoned(topic, producer));
        let mut producers: Vec<_> = visible.map(|(id, producer)| (id, Arc::clone(producer))).collect();
        let applied = filter.map(|filter| {
            let applied = filter.apply(producers.iter().map(|(_, producer)| producer));
            producers.retain(|(_, producer)| filter.shows(applied, producer));
            applied
        });
        Self { producers, applied }
    }

    /// The tag of `/lookup` that lists these producers, with the channels of their topic.
    pub fn tag(&self, topic: &Topic) -> Tag {
        self.sequence().tag(lookup::render_opening(topic, true, &mut Vec::new()))
    }

    fn sequence(&self) -> Sequence {
        let mut sequence = Sequence::default();
        self.producers.iter().for_each(|(_, producer)| sequence.push(producer.tag()));
        sequence
    }

    /// Appends `/lookup` that lists these producers, with or without the channels, and returns its tag.
    pub fn render(&self, topic: &Topic, with_channels: bool, out: &mut Vec<u8>) -> Tag {
        let opening = lookup::render_opening(topic, with_channels, out);
        for (nth, (_, producer)) in self.producers.iter().enumerate() {
            if nth > 0 {
                out.push(b',');
            }
            out.extend_from_slice(producer.object());
        }
        out.extend_from_slice(lookup::CLOSING);
        self.sequence().tag(opening)
    }
}
