//! What a registry relies on and records can fail to hold. A file is written by this program; whatever else has changed it
//! may have computed the right checksum.

use std::collections::HashSet;

use crate::registry::{Saved, SavedProducers, SavedTopic};

/// Topics are there once, channels by name, and lists of producers in order and of producers that there are.
pub(super) fn saved(saved: &Saved) -> Result<(), &'static str> {
    let mut names = HashSet::with_capacity(saved.topics.len());
    for topic in &saved.topics {
        if !names.insert(topic.name.as_bytes()) {
            return Err("a topic twice");
        }
        check_topic(topic, saved.producers.len())?;
    }
    Ok(())
}

fn check_topic(topic: &SavedTopic, producers: usize) -> Result<(), &'static str> {
    let is_known = |number: u32| (number as usize) < producers;
    if !topic.producers.is_sorted_by(|one, next| one < next) {
        return Err("producers of a topic that are not in order");
    }
    // The last of them is the highest.
    if !topic.producers.last().is_none_or(|&last| is_known(last)) {
        return Err("a producer that is not there");
    }
    let mut tombstones = HashSet::with_capacity(topic.tombstones.len());
    if !topic.tombstones.iter().all(|&(number, _)| is_known(number) && tombstones.insert(number)) {
        return Err("a tombstone twice, or of a producer that is not there");
    }
    if !topic.channels.is_sorted_by(|one, next| one.name.as_bytes() < next.name.as_bytes()) {
        return Err("channels that are not in order");
    }
    let some = topic.channels.iter().filter_map(|channel| match &channel.producers {
        SavedProducers::All => None,
        SavedProducers::Some(producers) => Some(producers),
    });
    for producers in some {
        if !producers.is_sorted_by(|one, next| one < next) {
            return Err("producers of a channel that are not in order");
        }
        if !is_part(producers, &topic.producers) {
            return Err("a channel's producer that its topic lacks");
        }
    }
    Ok(())
}

/// Whether all of one list are in the other; both are in order.
fn is_part(part: &[u32], whole: &[u32]) -> bool {
    let mut whole = whole.iter();
    part.iter().all(|number| whole.any(|other| other == number))
}
