//! The names of all topics in order, with those of their channels, to be searched.

use super::search::Lines;
use crate::limits::{UI_INDEX_BYTES_MAX, UI_INDEX_STEP};
use crate::registry::{Registry, Topic};

/// The listed topics, by name.
#[derive(Default)]
pub(super) struct Names {
    /// A line for each topic: its name, and those of its channels.
    lines: Lines,
    /// The names of the topics, one behind the other.
    text: String,
    /// Where each name ends.
    ends: Vec<usize>,
    /// Whether nobody produces the topic, or one of its channels.
    are_unused: Vec<bool>,
    /// The names of channels are not searched: there are too many.
    pub(super) lacks_channels: bool,
}

/// A topic that was found: where it is in what was gathered.
struct Found {
    from: usize,
    name_end: usize,
    end: usize,
    is_unused: bool,
}

impl Names {
    pub(super) fn make(registry: &Registry) -> Self {
        let (mut text, mut topics, mut slot) = (String::new(), Vec::new(), 0);
        let mut lacks_channels = false;
        loop {
            let snapshot = registry.snapshot();
            let mut walked = 0;
            for (at, topic) in snapshot.topics(slot).take(UI_INDEX_STEP) {
                slot = at + 1;
                walked += 1;
                if topic.is_listed() {
                    let with_channels = text.len() < UI_INDEX_BYTES_MAX;
                    lacks_channels |= !with_channels;
                    topics.push(gather(topic, with_channels, &mut text));
                }
            }
            if walked < UI_INDEX_STEP {
                break;
            }
        }
        let name = |topic: &Found| &text[topic.from..topic.name_end];
        topics.sort_unstable_by(|a, b| name(a).cmp(name(b)));
        // One that was deleted and made again between two snapshots may be there twice.
        topics.dedup_by(|a, b| name(a) == name(b));
        let mut all = Self { lacks_channels, ..Self::default() };
        for topic in &topics {
            let words = text[topic.from..topic.end].split('\0').map(str::as_bytes);
            all.lines.push(words);
            all.text.push_str(name(topic));
            all.ends.push(all.text.len());
            all.are_unused.push(topic.is_unused);
        }
        all.lines.shrink();
        all
    }

    /// The numbers of the topics whose name, or that of a channel, contains a text.
    pub(super) fn containing(&self, text: &[u8], only_unused: bool) -> Vec<usize> {
        let mut found = self.lines.containing(text);
        if only_unused {
            found.retain(|&topic| self.are_unused[topic]);
        }
        found
    }

    pub(super) fn name(&self, topic: usize) -> &str {
        let from = topic.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.text[from..self.ends[topic]]
    }
}

fn gather(topic: &Topic, with_channels: bool, text: &mut String) -> Found {
    let from = text.len();
    text.push_str(topic.name());
    let name_end = text.len();
    let mut is_unused = topic.producers().is_empty();
    for channel in topic.channels() {
        is_unused |= channel.producers().is_empty();
        if with_channels {
            text.push('\0');
            text.push_str(channel.name());
        }
    }
    Found { from, name_end, end: text.len(), is_unused }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;
    use crate::registry::{Change, Lifetimes, Name};

    #[test]
    fn topics_are_found_by_their_names_and_their_channels() {
        let registry = Registry::new(Lifetimes::default());
        let count = UI_INDEX_STEP + 100;
        registry.commit(|writer| {
            for number in (0..count).rev() {
                let name = |text: String| Name::new(text.as_bytes()).expect("a valid name");
                let topic = name(format!("Topic{number:05}"));
                let channel = (number % 1000 == 7).then(|| name(format!("of_{number}")));
                writer.apply(&Change::Create { topic, channel }, Timestamp::default());
            }
        });
        let names = Names::make(&registry);
        assert_eq!(names.containing(b"", true).len(), count);
        let found = |text: &str| -> Vec<_> {
            names.containing(text.as_bytes(), false).into_iter().map(|topic| names.name(topic)).collect()
        };
        assert_eq!(found("topic0000")[..2], ["Topic00000", "Topic00001"]);
        assert_eq!(found("OF_"), ["Topic00007", "Topic01007", "Topic02007", "Topic03007", "Topic04007"]);
        assert!(!names.lacks_channels);
    }
}
