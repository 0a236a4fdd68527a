//! What instances send of the writers: events, and listings of a topic.

use std::borrow::Cow;

use serde::Deserialize;

use crate::answers::{self, Down, Producer, Up, parse};
use crate::wire::events::Event;
use crate::wire::http::Answer;

/// What an event says.
pub enum Message<'a> {
    /// A producer is listed, or not any more.
    Changed { topic: Cow<'a, str>, address: Cow<'a, str>, is_registered: bool },
    /// A listing of the topic is in the event's data.
    Snapshot { topic: Cow<'a, str> },
    /// Nothing of producers.
    Other,
}

#[derive(Deserialize)]
struct Snapshot<'a> {
    #[serde(borrow)]
    topic: Cow<'a, str>,
}

#[derive(Deserialize)]
struct Listing<'a> {
    #[serde(borrow)]
    producers: Vec<Producer<'a>>,
}

/// Reads an event.
///
/// # Errors
/// What is no event of a watch, and its end.
pub fn message(event: Event<'_>) -> Result<Message<'_>, String> {
    Ok(match event.name {
        b"up" => {
            let Up { topic, producer } = parse(event.data)?;
            producer.check()?;
            Message::Changed { topic, address: producer.broadcast_address, is_registered: true }
        }
        b"down" => {
            let Down { topic, broadcast_address: address, .. } = parse(event.data)?;
            Message::Changed { topic, address, is_registered: false }
        }
        b"snapshot" => {
            let Snapshot { topic } = parse(event.data)?;
            Message::Snapshot { topic }
        }
        b"topic" | b"channel" | b"settled" => Message::Other,
        b"bye" => return Err("the server ends the watch".into()),
        _ => return Err("no change has such an event".into()),
    })
}

/// Which of so many writers a lookup lists. Others may be there, too.
///
/// # Errors
/// Any status but 200, what is no listing, a strange writer, and one that is listed twice.
pub fn writers_listed(answer: Answer<'_>, writers: u32) -> Result<Vec<u32>, String> {
    let lookup: Listing = answers::ok(answer).and_then(|()| parse(answer.body))?;
    let mut listed = Vec::new();
    for producer in &lookup.producers {
        let address = &producer.broadcast_address;
        let Some(writer) = named(address).filter(|&writer| writer < writers) else { continue };
        producer.check()?;
        if listed.contains(&writer) {
            return Err(format!("{address} twice"));
        }
        listed.push(writer);
    }
    Ok(listed)
}

/// The name of a writer, its broadcast address.
pub fn name(writer: u32) -> String {
    format!("cluster-{writer:06}.perf")
}

/// The writer of a name, if it is one.
pub fn named(broadcast_address: &str) -> Option<u32> {
    let digits = broadcast_address.strip_prefix("cluster-")?.strip_suffix(".perf")?;
    let is_ours = digits.len() == 6 && digits.bytes().all(|byte| byte.is_ascii_digit());
    digits.parse().ok().filter(|_| is_ours)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_leads_back_to_its_writer() {
        assert_eq!(named(&name(35)), Some(35));
        for stranger in ["nsqd-000001.perf", "cluster-1.perf", "cluster-+00001.perf", "cluster-000001"] {
            assert_eq!(named(stranger), None, "{stranger}");
        }
    }
}
