//! Reads ahead what lookups will read.
//!
//! A lookup of a topic that nobody asked for of late misses the processor's caches some seven times, each time on the way
//! to what it misses next: at a million registrations that was a fifth of all its time, the kernel's included. The
//! misses of several lookups overlap if what one stage of all of them reads is touched before what the next stage
//! reads. (Prefetching fragments too, or fewer topics together, gained nothing.)

use std::hint::black_box;
use std::sync::Arc;

use super::lookup::LookupAnswer;
use super::snapshot::{Snapshot, Topic};
use crate::limits::LOOKUPS_PREFETCHED_TOGETHER;

/// Touches what lookups of the topics with these hashes will read.
pub(super) fn prefetch(snapshot: &Snapshot, hashes: &[u32]) {
    let slots: Vec<_> = hashes.iter().filter_map(|&hash| snapshot.slots_of(hash).next()).collect();
    let topics: Vec<_> = slots.iter().filter_map(|&slot| snapshot.topics.get(slot as usize)).collect();
    for topics in topics.chunks(LOOKUPS_PREFETCHED_TOGETHER) {
        for topic in topics {
            touch((topic.version(), topic.name.len()));
        }
        prefetch_states(&prefetch_answers(topics));
    }
}

/// Touches the answers that were left in topics, and returns the topics that have none.
fn prefetch_answers<'a>(topics: &[&'a Arc<Topic>]) -> Vec<&'a Topic> {
    let left: Vec<_> = topics.iter().map(|topic| topic.answer.load()).collect();
    for answer in left.iter().filter_map(|left| left.as_ref()) {
        touch(answer.version);
    }
    for answer in left.iter().filter_map(|left| left.as_ref()) {
        if let LookupAnswer::Whole(body) = &answer.answer {
            // As much as the processor needs to see that it is read from one end to the other.
            touch([0, 64, 128].map(|at| body.content.get(at).copied()));
        }
    }
    topics.iter().zip(&left).filter(|(_, left)| left.is_none()).map(|(topic, _)| &***topic).collect()
}

fn prefetch_states(topics: &[&Topic]) {
    let states: Vec<_> = topics.iter().map(|topic| topic.state()).collect();
    for state in &states {
        touch(state.listed);
    }
    for state in &states {
        touch(state.producers.as_slice().first().copied());
        touch(state.channels.first().map(|channel| channel.name.len()));
    }
}

/// Reads for the caches alone.
fn touch<T>(value: T) {
    black_box(value);
}
