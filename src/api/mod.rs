//! The documents of the HTTP API that grow with the registry: `/topics`, `/nodes`, `/debug`, `/metrics/topics`, and
//! `/lookup` and `/channels` of every topic.
//!
//! `/nodes` of a large cluster is tens of megabytes. So a document is a [`Stream`] of pages: the connection asks for a
//! page each time it has sent the one before, so that no other connection of the worker waits for more than a page,
//! and a client that reads slowly holds one page and not the whole. Each page is rendered from the newest snapshot and
//! goes on behind the last element of the page before, by its id: a stream holds no snapshot, which the next commit
//! would have to copy.

mod debug;
mod documents;
mod pages;
#[cfg(test)]
mod tests;
mod topic_metrics;

use std::sync::Arc;

use documents::{AllChannels, LookupAll, Nodes, Topics};
pub use pages::Stream;
use pages::{Document, PageCache};
use topic_metrics::TopicMetrics;

use crate::clock::Timestamp;
use crate::json;
use crate::registry::{Applied, Filter, Registry, Snapshot, Tag, Topic, Visibility};

/// The last rendering of the two documents that are asked for most. Shared by every worker.
#[derive(Default)]
pub struct Cache {
    topics: PageCache,
    nodes: PageCache,
}

/// `/topics`: every listed topic.
pub fn topics(registry: &Arc<Registry>, cache: &Cache, now: Timestamp) -> Stream {
    Stream::cached(&cache.topics, registry, now, Document::Topics(Topics::default()))
}

/// The tag of `/topics` as it is now, whether it was rendered or not.
pub fn topics_tag(snapshot: &Snapshot) -> Tag {
    pages::topics_tag(snapshot.topics_revision())
}

/// `/nodes`: every active producer with its topics.
pub fn nodes(registry: &Arc<Registry>, cache: &Cache, now: Timestamp) -> Stream {
    Stream::cached(&cache.nodes, registry, now, Document::Nodes(Nodes::default()))
}

/// `/nodes` of those that a filter shows, with or without their topics, and what of the filter is applied.
pub fn some_nodes(
    registry: &Arc<Registry>,
    now: Timestamp,
    filter: Option<Filter>,
    with_topics: bool,
) -> (Stream, Option<Applied>) {
    let filter = filter.map(|filter| {
        let snapshot = registry.snapshot();
        let mut visibility = Visibility::new(snapshot.lifetimes(), now);
        let applied = filter.apply(snapshot.producers(None).filter(|producer| visibility.is_active(producer)));
        (filter, applied)
    });
    let applied = filter.as_ref().map(|&(_, applied)| applied);
    (Stream::new(registry, now, Document::Nodes(Nodes::some(filter, with_topics))), applied)
}

/// `/channels?topic=*`: every channel of every topic, as often as it occurs (stock).
pub fn all_channels(registry: &Arc<Registry>, now: Timestamp) -> Stream {
    Stream::new(registry, now, Document::AllChannels(AllChannels::default()))
}

/// `/lookup?topic=*`: every channel of every topic, then each producer that `/lookup` of one of its topics would list;
/// `None` when no topic is listed. (Stock decides about a tombstone by whichever topic its map yields first.)
pub fn lookup_all(registry: &Arc<Registry>, now: Timestamp) -> Option<Stream> {
    let any = registry.snapshot().listed_topics() > 0;
    any.then(|| Stream::new(registry, now, Document::LookupAll(LookupAll::default())))
}

/// `/debug`: every registration that has producers.
pub fn debug(registry: &Arc<Registry>, now: Timestamp) -> Stream {
    Stream::new(registry, now, Document::Debug(Box::default()))
}

/// `/metrics/topics`: the producers and channels of every listed topic, as metrics.
pub fn topic_metrics(registry: &Arc<Registry>, now: Timestamp) -> Stream {
    Stream::new(registry, now, Document::TopicMetrics(TopicMetrics::default()))
}

/// Appends `/channels` of one topic, which need not exist.
pub fn channels(topic: Option<&Topic>, out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"channels\":");
    json::array(out, topic.map_or(&[][..], Topic::channels), |out, channel| json::name(out, channel.name()));
    out.push(b'}');
}
