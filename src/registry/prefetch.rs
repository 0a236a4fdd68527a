//! Reads ahead what lookups, and the changes of a batch, will read.
//!
//! A lookup of a topic that was not looked up recently misses the processor's caches several times, each time on the way
//! to what it misses next: at a million registrations that was a fifth of all its time, the kernel's included. The
//! misses of several lookups overlap if what one stage of all of them reads is touched before what the next stage
//! reads. (Prefetching the producers too, or fewer topics together, gained nothing.)

use std::hint::black_box;
use std::sync::Arc;

use super::snapshot::Snapshot;
use super::topic::Topic;
use crate::limits::{CHANGES_PREFETCHED_TOGETHER, LOOKUPS_PREFETCHED_TOGETHER};

/// Touches what lookups of the topics with these hashes will read.
pub(super) fn prefetch(snapshot: &Snapshot, hashes: &[u32]) {
    for topics in topics(snapshot, hashes).chunks(LOOKUPS_PREFETCHED_TOGETHER) {
        touch_topics(topics.iter().map(|topic| &***topic));
        prefetch_contents(&prefetch_responses(topics));
    }
}

/// Touches what changes of the topics with these hashes will read.
pub(super) fn prefetch_changes(snapshot: &Snapshot, hashes: &[u32]) {
    for hashes in hashes.chunks(CHANGES_PREFETCHED_TOGETHER) {
        prefetch_topics(topics(snapshot, hashes).into_iter());
    }
}

/// Touches topics and what they have.
pub(super) fn prefetch_topics<'a>(topics: impl Iterator<Item = &'a Arc<Topic>>) {
    let topics: Vec<_> = topics.map(|topic| &**topic).collect();
    touch_topics(topics.iter().copied());
    prefetch_contents(&topics);
}

fn touch_topics<'a>(topics: impl Iterator<Item = &'a Topic>) {
    topics.for_each(|topic| touch((topic.version, topic.name.len())));
}

/// The topics with these hashes, or others of the same hash, themselves untouched.
fn topics<'a>(snapshot: &'a Snapshot, hashes: &[u32]) -> Vec<&'a Arc<Topic>> {
    let slots: Vec<_> = hashes.iter().filter_map(|&hash| snapshot.slots_of(hash).next()).collect();
    slots.iter().filter_map(|&slot| snapshot.topics.get(slot as usize)).collect()
}

/// Touches the responses in the cells of topics, and returns the topics that have none.
fn prefetch_responses<'a>(topics: &[&'a Arc<Topic>]) -> Vec<&'a Topic> {
    let stored: Vec<_> = topics.iter().map(|topic| topic.response()).collect();
    for response in stored.iter().filter_map(|stored| stored.as_ref()) {
        touch(response.version);
    }
    for response in stored.iter().filter_map(|stored| stored.as_ref()) {
        if let Some(body) = response.body.whole() {
            // As much as the processor needs to see that it is read from one end to the other.
            touch([0, 64, 128].map(|at| body.get(at).copied()));
        }
    }
    topics.iter().zip(&stored).filter(|(_, stored)| stored.is_none()).map(|(topic, _)| &***topic).collect()
}

fn prefetch_contents(topics: &[&Topic]) {
    for topic in topics {
        touch(topic.producers().first().copied());
        touch(topic.channels().first().map(|channel| channel.name().len()));
    }
}

/// Reads for the caches alone.
fn touch<T>(value: T) {
    black_box(value);
}
