//! `/metrics/topics`: the producers and channels of each topic, for Prometheus.

use super::documents::{Cursor, end, is_full};
use crate::limits::PAGE_PRODUCERS;
use crate::registry::{Snapshot, Visibility};

/// Where the document is: first one metric of every topic, then the other, as a format of Prometheus has it.
#[derive(Default)]
pub(super) struct TopicMetrics {
    producers: Cursor<usize>,
    channels: Cursor<usize>,
}

impl TopicMetrics {
    pub(super) fn render(&mut self, snapshot: &Snapshot, visibility: &Visibility, out: &mut Vec<u8>) -> bool {
        // A topic that is new when the channels have begun comes too late.
        (!self.channels.is_open() && self.producers(snapshot, visibility, out)) || self.channels(snapshot, out)
    }

    fn producers(&mut self, snapshot: &Snapshot, visibility: &Visibility, out: &mut Vec<u8>) -> bool {
        let (name, help) = ("nsqlookupd_topic_producers", "Producers that a lookup of the topic shows.");
        self.producers.open(out, &header(name, help));
        let mut looked_at = 0;
        for (slot, topic) in snapshot.topics(self.producers.next_slot()) {
            if is_full(out) || looked_at >= PAGE_PRODUCERS {
                return true;
            }
            self.producers.last = Some(slot);
            if topic.is_listed() {
                looked_at += topic.producers().len();
                sample(out, name, topic.name(), visibility.count(topic, snapshot));
            }
        }
        false
    }

    fn channels(&mut self, snapshot: &Snapshot, out: &mut Vec<u8>) -> bool {
        let (name, help) = ("nsqlookupd_topic_channels", "Channels of the topic.");
        self.channels.open(out, &header(name, help));
        for (slot, topic) in snapshot.topics(self.channels.next_slot()) {
            if is_full(out) {
                return true;
            }
            self.channels.last = Some(slot);
            if topic.is_listed() {
                sample(out, name, topic.name(), topic.channels().len());
            }
        }
        // What ends OpenMetrics is a comment in the older format.
        end(out, "# EOF\n")
    }
}

fn header(name: &str, help: &str) -> String {
    format!("# HELP {name} {help}\n# TYPE {name} gauge\n")
}

/// The name of a topic holds nothing that is escaped.
fn sample(out: &mut Vec<u8>, name: &str, topic: &str, value: usize) {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"{topic=\"");
    out.extend_from_slice(topic.as_bytes());
    out.extend_from_slice(b"\"} ");
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
    out.push(b'\n');
}
