//! `/debug`: every registration that has producers, as stock keys them: `topic:NAME:`, `channel:TOPIC:NAME` and `client::`.

use std::sync::Arc;
use std::vec;

use super::documents::{Cursor, end, is_full};
use crate::clock::Timestamp;
use crate::json;
use crate::registry::{Producer, ProducerId, Snapshot, Topic};

/// Where the document is: first the registrations of topics and channels, producer by producer, as one topic may have
/// thousands, then all producers.
#[derive(Default)]
pub(super) struct Debug {
    topics: Cursor<usize>,
    /// The topic that is being written, as it was when that began, and the registration that is next: the
    /// topic's own, then each channel's.
    topic: Option<(Arc<Topic>, usize)>,
    /// The rest of a registration that is being written.
    producers: vec::IntoIter<Arc<Producer>>,
    clients: Cursor<ProducerId>,
}

impl Debug {
    pub(super) fn render(&mut self, snapshot: &Snapshot, out: &mut Vec<u8>) -> bool {
        // A topic that is new when the producers have begun comes too late.
        (!self.clients.is_open() && self.registrations(snapshot, out)) || self.all_producers(snapshot, out)
    }

    fn registrations(&mut self, snapshot: &Snapshot, out: &mut Vec<u8>) -> bool {
        loop {
            if self.registration(out) {
                return true;
            }
            if self.begin_registration(snapshot, out) {
                continue;
            }
            let Some((slot, topic)) = snapshot.topics(self.topics.next_slot()).next() else { return false };
            self.topics.last = Some(slot);
            self.topic = Some((Arc::clone(topic), 0));
        }
    }

    /// Writes what is left of the registration that has begun; true when the page is full before its end.
    fn registration(&mut self, out: &mut Vec<u8>) -> bool {
        while let Some(producer) = self.producers.as_slice().first() {
            if is_full(out) {
                return true;
            }
            let (topic, next) = self.topic.as_ref().expect("a registration is a topic's");
            let is_topic = *next == 1;
            write_producer(producer, topic.tombstone_of(producer).filter(|_| is_topic), out);
            self.producers.next();
            out.push(if self.producers.as_slice().is_empty() { b']' } else { b',' });
        }
        false
    }

    /// Begins the next registration of the topic that has producers; false when there is none.
    fn begin_registration(&mut self, snapshot: &Snapshot, out: &mut Vec<u8>) -> bool {
        let Some((topic, next)) = &mut self.topic else { return false };
        while *next <= topic.channels().len() {
            let (category, channel, ids) = match *next {
                0 => ("topic", "", topic.producers()),
                nth => ("channel", topic.channels()[nth - 1].name(), topic.channels()[nth - 1].producers()),
            };
            *next += 1;
            let producers: Vec<_> = ids.iter().filter_map(|&id| snapshot.producer(id)).cloned().collect();
            if !producers.is_empty() {
                out.push(if self.topics.comma { b',' } else { b'{' });
                self.topics.comma = true;
                json::name(out, &[category, topic.name(), channel].join(":"));
                out.extend_from_slice(b":[");
                self.producers = producers.into_iter();
                return true;
            }
        }
        self.topic = None;
        false
    }

    /// The producers may all have left since the registrations were written, or be new.
    fn all_producers(&mut self, snapshot: &Snapshot, out: &mut Vec<u8>) -> bool {
        for producer in snapshot.producers(self.clients.last) {
            if is_full(out) {
                return true;
            }
            let opening = if self.topics.comma { ",\"client::\":[" } else { "{\"client::\":[" };
            self.clients.open(out, opening);
            self.clients.last = Some(producer.id());
            self.clients.element(out);
            write_producer(producer, None, out);
        }
        match (self.clients.comma, self.topics.comma) {
            (true, _) => end(out, "]}"),
            (false, true) => end(out, "}"),
            (false, false) => end(out, "{}"),
        }
    }
}

/// A producer's object in `/debug`, where stock marshals a map: keys in alphabetical order.
fn write_producer(producer: &Producer, tombstoned_at: Option<Timestamp>, out: &mut Vec<u8>) {
    let info = producer.info();
    out.extend_from_slice(b"{\"broadcast_address\":");
    json::string(out, &info.broadcast_address);
    out.extend_from_slice(b",\"hostname\":");
    json::string(out, &info.hostname);
    json::field(out, "http_port", info.http_port);
    out.extend_from_slice(b",\"id\":");
    json::string(out, producer.remote_address());
    json::field(out, "last_update", producer.last_update().nanos());
    json::field(out, "tcp_port", info.tcp_port);
    out.extend_from_slice(b",\"tombstoned\":");
    json::boolean(out, tombstoned_at.is_some());
    json::field(out, "tombstoned_at", tombstoned_at.map_or(GO_ZERO_TIME_NANOS, Timestamp::nanos));
    out.extend_from_slice(b",\"topology_region\":");
    json::string(out, &info.topology_region);
    out.extend_from_slice(b",\"topology_zone\":");
    json::string(out, &info.topology_zone);
    out.extend_from_slice(b",\"version\":");
    json::string(out, &info.version);
    out.push(b'}');
}

/// `time.Time{}.UnixNano()`, which is how stock shows that there never was a tombstone.
const GO_ZERO_TIME_NANOS: i64 = -6_795_364_578_871_345_152;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::{PeerInfo, Source};

    #[test]
    fn producers_have_stocks_field_order_and_escapes() {
        let info = PeerInfo {
            broadcast_address: "<b>".into(),
            tcp_port: -1,
            http_port: 4151,
            version: "1.3.0".into(),
            ..PeerInfo::default()
        };
        let id = ProducerId::new(Source::Worker(0), 0, 0);
        let producer = Producer::new(id, "1.2.3.4:5".into(), info, Timestamp::from_nanos(7));
        let mut out = Vec::new();
        write_producer(&producer, None, &mut out);
        let expected = r#"{"broadcast_address":"\u003cb\u003e","hostname":"","http_port":4151,"id":"1.2.3.4:5","last_update":7,"tcp_port":-1,"tombstoned":false,"tombstoned_at":-6795364578871345152,"topology_region":"","topology_zone":"","version":"1.3.0"}"#;
        assert_eq!(str::from_utf8(&out).expect("UTF-8"), expected);
    }
}
