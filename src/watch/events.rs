//! Events as text, as WHATWG's server-sent events have it: lines of a field each, and an empty line behind each event.

use std::io::Write as _;
use std::time::Duration;

use bytes::Bytes;

use crate::json;
use crate::limits::WATCH_RETRY;
use crate::registry::{Producer, Registered, Tag, Topic};

/// Why a node is not shown any more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Reason {
    /// Its connection is closed. That says nothing of the nsqd.
    Gone,
    /// It has been silent for too long. Likewise.
    Inactive,
    Tombstoned,
    /// It has given the topic up.
    Unregistered,
    /// The topic was deleted, or forgotten.
    Deleted,
    /// The client's filter prefers others now.
    Filtered,
}

impl Reason {
    fn text(self) -> &'static str {
        match self {
            Self::Gone => "gone",
            Self::Inactive => "inactive",
            Self::Tombstoned => "tombstoned",
            Self::Unregistered => "unregistered",
            Self::Deleted => "deleted",
            Self::Filtered => "filtered",
        }
    }
}

/// Why a stream ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Farewell {
    Shutdown,
    Age,
}

/// Events that belong together: a client that has all of them has the state that the tag is of. One that has lost some of
/// them has none that it could go on from.
#[derive(Default)]
pub(super) struct Events {
    text: Vec<u8>,
}

impl Events {
    pub(super) fn is_empty(&self) -> bool {
        self.text.is_empty()
    }

    pub(super) fn into_bytes(self) -> Bytes {
        self.text.into()
    }

    /// Begins an event. The one before has no tag: more follows until the state is whole.
    fn begin(&mut self, event: &str) {
        if !self.text.is_empty() {
            end(&mut self.text, None);
        }
        self.text.extend_from_slice(b"event: ");
        self.text.extend_from_slice(event.as_bytes());
        self.text.extend_from_slice(b"\ndata: {");
    }

    /// Begins an event about a topic.
    fn about(&mut self, event: &str, topic: &str) {
        self.begin(event);
        self.text.extend_from_slice(b"\"topic\":");
        json::name(&mut self.text, topic);
    }

    fn finish(&mut self) {
        self.text.extend_from_slice(b"}\n");
    }

    /// A node shows, or is described anew.
    pub(super) fn up(&mut self, topic: &str, producer: &Producer) {
        self.about("up", topic);
        self.text.extend_from_slice(b",\"producer\":");
        self.text.extend_from_slice(producer.object());
        self.finish();
    }

    pub(super) fn down(&mut self, topic: &str, producer: &Producer, reason: Reason) {
        let info = producer.info();
        self.about("down", topic);
        self.text.extend_from_slice(b",\"broadcast_address\":");
        json::string(&mut self.text, &info.broadcast_address);
        json::field(&mut self.text, "tcp_port", info.tcp_port);
        self.text.extend_from_slice(b",\"reason\":");
        json::name(&mut self.text, reason.text());
        self.finish();
    }

    pub(super) fn topic(&mut self, topic: &str, exists: bool) {
        self.about("topic", topic);
        self.change(exists);
    }

    pub(super) fn channel(&mut self, topic: &str, channel: &str, exists: bool) {
        self.about("channel", topic);
        self.text.extend_from_slice(b",\"channel\":");
        json::name(&mut self.text, channel);
        self.change(exists);
    }

    fn change(&mut self, exists: bool) {
        self.text.extend_from_slice(b",\"change\":");
        json::name(&mut self.text, if exists { "created" } else { "deleted" });
        self.finish();
    }

    /// The whole state of a topic; `None` for one that does not exist.
    pub(super) fn snapshot<'a>(
        &mut self,
        name: &str,
        topic: Option<&Topic>,
        producers: impl Iterator<Item = &'a Producer>,
        is_settled: bool,
    ) {
        self.about("snapshot", name);
        self.text.extend_from_slice(b",\"exists\":");
        json::boolean(&mut self.text, topic.is_some());
        self.text.extend_from_slice(b",\"settled\":");
        json::boolean(&mut self.text, is_settled);
        self.text.extend_from_slice(b",\"channels\":");
        let channels = topic.map_or(&[][..], Topic::channels);
        json::array(&mut self.text, channels, |out, channel| json::name(out, channel.name()));
        self.text.extend_from_slice(b",\"producers\":");
        json::array(&mut self.text, producers, |out, producer| out.extend_from_slice(producer.object()));
        self.finish();
    }

    /// The whole list of topics.
    pub(super) fn list<'a>(&mut self, topics: impl Iterator<Item = &'a str>, is_settled: bool) {
        self.begin("snapshot");
        self.settled_field(is_settled);
        self.text.extend_from_slice(b",\"topics\":");
        json::array(&mut self.text, topics, json::name);
        self.finish();
    }

    /// The client's state is current.
    pub(super) fn same(&mut self, is_settled: bool) {
        self.begin("same");
        self.settled_field(is_settled);
        self.finish();
    }

    pub(super) fn settled(&mut self) {
        self.begin("settled");
        self.settled_field(true);
        self.finish();
    }

    fn settled_field(&mut self, is_settled: bool) {
        self.text.extend_from_slice(b"\"settled\":");
        json::boolean(&mut self.text, is_settled);
    }

    /// The nodes have changed.
    pub(super) fn nodes(&mut self, producers: usize, Registered { topics, channels }: Registered) {
        self.begin("nodes");
        write!(self.text, "\"producers\":{producers},\"topics\":{topics},\"channels\":{channels}")
            .expect("a Vec takes every write");
        self.finish();
    }

    /// The stream ends.
    pub(super) fn bye(&mut self, why: Farewell, retry: Duration) {
        let reason = match why {
            Farewell::Shutdown => "shutdown",
            Farewell::Age => "age",
        };
        let retry = retry.as_millis();
        self.begin("bye");
        write!(self.text, "\"reason\":\"{reason}\",\"retry_ms\":{retry}}}\nretry: {retry}\n")
            .expect("a Vec takes every write");
    }
}

/// Ends an event, with the tag of the state that it completes. Without one, a client that connects again asks for the state
/// as a whole.
pub(super) fn end(out: &mut Vec<u8>, tag: Option<Tag>) {
    match tag {
        Some(tag) => {
            out.extend_from_slice(b"id: ");
            out.extend_from_slice(&tag.text());
            out.extend_from_slice(b"\n\n");
        }
        None => out.extend_from_slice(b"id\n\n"),
    }
}

/// What a stream begins with: when to connect again if it is cut.
pub(super) fn opening() -> String {
    format!("retry: {}\n\n", WATCH_RETRY.as_millis())
}

/// What is sent when there is nothing to say, so that nobody takes the connection for dead.
pub(super) const COMMENT: &[u8] = b":\n\n";
