//! Answers against the model. Nobody else is expected on topics of a soak; other topics and nodes that were there
//! before it must be there after it.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::time::Instant;

use serde::Deserialize;

use super::model::{Lifetimes, Model, Standing};
use super::names::Node;
use crate::answers;
use crate::population::Run;
use crate::wire::http::Answer;

/// What is wrong with an answer.
type Verdict = Result<(), String>;

#[derive(Deserialize)]
struct Channels<'a> {
    #[serde(borrow)]
    channels: Vec<Cow<'a, str>>,
}

#[derive(Deserialize)]
struct Nodes<'a> {
    #[serde(borrow)]
    producers: Vec<NodeEntry<'a>>,
}

#[derive(Deserialize)]
struct NodeEntry<'a> {
    #[serde(borrow)]
    broadcast_address: Cow<'a, str>,
    tcp_port: u16,
    #[serde(borrow)]
    topics: Vec<Cow<'a, str>>,
    /// Of each topic, in the same order.
    tombstones: Vec<bool>,
}

/// What was there before the soak and is none of its business.
#[derive(Debug, Default)]
pub struct Foreign {
    pub topics: BTreeSet<String>,
    /// By broadcast address and TCP port.
    pub nodes: BTreeSet<String>,
}

/// `/lookup` of a topic, which must show what the model has unless something changed meanwhile.
///
/// # Errors
/// What is wrong, by name.
pub fn lookup(
    model: &Model,
    topic: &str,
    answer: Answer<'_>,
    settled: bool,
    lifetimes: Lifetimes,
    now: Instant,
) -> Verdict {
    let known = model.topic(topic);
    let exists = known.is_some_and(|topic| topic.exists);
    if answer.status == 404 {
        return if exists && settled { Err("the topic exists".into()) } else { Ok(()) };
    }
    let lookup = answers::lookup(answer)?;
    let listed = lookup.producers.iter().map(node).collect::<Result<Vec<_>, _>>()?;
    let distinct: BTreeSet<_> = listed.iter().copied().collect();
    if distinct.len() < listed.len() {
        return Err("a producer is listed twice".into());
    }
    if !settled {
        return Ok(());
    }
    let Some(topic) = known.filter(|_| exists) else { return Err("no such topic was to exist".into()) };
    for (node, standing) in &topic.producers {
        match (standing.is_shown(lifetimes, now), distinct.contains(node)) {
            (Some(true), false) => return Err(format!("producer {node} is missing")),
            (Some(false), true) => return Err(format!("producer {node} is listed, {}", reason(*standing))),
            _ => {}
        }
    }
    if let Some(node) = distinct.iter().find(|node| !topic.producers.contains_key(node)) {
        return Err(format!("producer {node} is listed and not registered"));
    }
    same("channel", &answers::distinct(&lookup.channels)?, &topic.channels.keys().cloned().collect())
}

fn reason(standing: Standing) -> &'static str {
    match standing {
        Standing::Registered => "and must be",
        Standing::Tombstoned(_) => "though it is tombstoned",
        Standing::Left(_) => "though its connection has ended",
    }
}

/// Who is listed, if it said of itself what is said of it.
fn node(producer: &answers::Producer<'_>) -> Result<Node, String> {
    let name = &producer.broadcast_address;
    let node = Node::named(name, producer.tcp_port).ok_or_else(|| format!("producer {name} is a stranger"))?;
    let identity = node.identity(name);
    let right = producer.hostname == identity.hostname
        && producer.http_port == identity.http_port
        && producer.version == identity.version;
    if right { Ok(node) } else { Err(format!("producer {node} is not as it identified itself")) }
}

/// `/channels` of a topic, which must hold what the model has unless something changed meanwhile.
///
/// # Errors
/// What is wrong, by name.
pub fn channels(model: &Model, topic: &str, answer: Answer<'_>, settled: bool) -> Verdict {
    answers::ok(answer)?;
    let channels: Channels = answers::parse(answer.body)?;
    let listed = answers::distinct(&channels.channels)?;
    if !settled {
        return Ok(());
    }
    let known = model.topic(topic);
    same("channel", &listed, &known.into_iter().flat_map(|topic| topic.channels.keys().cloned()).collect())
}

/// `/topics`, when nothing changes.
///
/// # Errors
/// What is wrong, by name.
pub fn topics(model: &Model, foreign: &Foreign, answer: Answer<'_>) -> Verdict {
    let existing = model.topics().filter(|(_, topic)| topic.exists).map(|(name, _)| name);
    same("topic", &answers::topic_names(answer)?, &existing.chain(&foreign.topics).cloned().collect())
}

/// `/nodes`, when nothing changes.
///
/// # Errors
/// What is wrong, by name.
pub fn nodes(model: &Model, foreign: &Foreign, answer: Answer<'_>, lifetimes: Lifetimes, now: Instant) -> Verdict {
    let connected = model.nodes().iter().map(Node::to_string);
    same("node", &node_names(answer)?, &connected.chain(foreign.nodes.iter().cloned()).collect())?;
    let nodes: Nodes = answers::parse(answer.body)?;
    for entry in &nodes.producers {
        let Some(node) = Node::named(&entry.broadcast_address, entry.tcp_port) else { continue };
        let due = model.topics_of(node).cloned().collect();
        let wrong = |problem| format!("of node {node}: {problem}");
        same("topic", &answers::distinct(&entry.topics)?, &due).map_err(wrong)?;
        if entry.tombstones.len() != entry.topics.len() {
            return Err(wrong("tombstones of other topics than its own".into()));
        }
        for (topic, is_tombstoned) in entry.topics.iter().zip(&entry.tombstones) {
            let standing = model.topic(topic).and_then(|topic| topic.producers.get(&node));
            if standing.and_then(|standing| standing.is_shown(lifetimes, now)) == Some(*is_tombstoned) {
                return Err(wrong(format!("the tombstone of topic {topic} is {is_tombstoned}")));
            }
        }
    }
    Ok(())
}

/// Who is in `/nodes`, by broadcast address and TCP port.
///
/// # Errors
/// What is no answer to `/nodes`.
pub fn node_names(answer: Answer<'_>) -> Result<BTreeSet<String>, String> {
    answers::ok(answer)?;
    let nodes: Nodes = answers::parse(answer.body)?;
    let names = nodes.producers.iter().map(|node| format!("{}:{}", node.broadcast_address, node.tcp_port));
    Ok(names.collect())
}

/// Topics and nodes that others have made.
pub fn foreign(run: &Run, topics: BTreeSet<String>, nodes: BTreeSet<String>) -> Foreign {
    Foreign { topics: topics.into_iter().filter(|topic| !run.owns(topic)).collect(), nodes }
}

fn same(what: &str, listed: &BTreeSet<String>, due: &BTreeSet<String>) -> Verdict {
    if let Some(name) = due.difference(listed).next() {
        return Err(format!("{what} {name} is missing"));
    }
    match listed.difference(due).next() {
        Some(name) => Err(format!("{what} {name} is listed and must not be")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::{Value, json};

    use super::*;

    const LIFETIMES: Lifetimes =
        Lifetimes { tombstone: Duration::from_secs(45), leaving: Duration::from_secs(30) };

    fn model() -> Model {
        let mut model = Model::default();
        for index in 0..2 {
            let node = Node::new(index);
            model.joined(node);
            assert!(model.begin_shared("soak_a"));
            model.registered(node, "soak_a", Some("c"));
        }
        model
    }

    fn entry(index: u32) -> Value {
        let node = Node::new(index);
        let mut entry = serde_json::to_value(node.identity(&node.name())).unwrap();
        entry["remote_address"] = json!("127.0.0.1:1");
        entry["topics"] = json!(["soak_a"]);
        entry["tombstones"] = json!([false]);
        entry
    }

    fn checked(body: &Value, verify: impl Fn(Answer<'_>) -> Verdict) -> String {
        verify(Answer { status: 200, body: body.to_string().as_bytes() }).err().unwrap_or_default()
    }

    #[test]
    fn a_lookup_is_the_models_once_nothing_changes() {
        let model = model();
        let verify = |producers: Value, channels: Value, settled| {
            checked(&json!({"producers": producers, "channels": channels}), |answer| {
                lookup(&model, "soak_a", answer, settled, LIFETIMES, Instant::now())
            })
        };
        assert_eq!(verify(json!([entry(1), entry(0)]), json!(["c"]), true), "");
        assert_eq!(verify(json!([entry(0)]), json!(["c"]), true), "producer soak-000001.perf:1 is missing");
        assert_eq!(verify(json!([entry(0)]), json!([]), false), "", "it may be either while it changes");
        assert!(verify(json!([entry(0), entry(0)]), json!([]), false).contains("twice"));
        assert!(verify(json!([entry(0), entry(1), entry(2)]), json!(["c"]), true).contains("not registered"));
        assert_eq!(verify(json!([entry(1), entry(0)]), json!([]), true), "channel c is missing");
        let mut changed = entry(0);
        changed["hostname"] = json!("x");
        assert!(verify(json!([changed]), json!([]), false).contains("not as it identified itself"));
        let absent =
            |topic| lookup(&model, topic, Answer { status: 404, body: b"" }, true, LIFETIMES, Instant::now());
        assert_eq!(absent("soak_b"), Ok(()));
        assert!(absent("soak_a").is_err());
    }

    #[test]
    fn topics_channels_and_nodes_are_the_models_and_what_was_there_before() {
        let foreign = foreign(
            &Run::of("a"),
            ["old", "perf_a_000001"].map(str::to_owned).into(),
            ["vm:4150".to_owned()].into(),
        );
        let verify = |body: Value| checked(&body, |answer| topics(&model(), &foreign, answer));
        assert_eq!(verify(json!({"topics": ["soak_a", "old"]})), "");
        assert_eq!(verify(json!({"topics": ["soak_a"]})), "topic old is missing");
        assert!(verify(json!({"topics": ["soak_a", "old", "perf_a_000001"]})).contains("perf_a_000001 is listed"));

        let verify = |body: Value| checked(&body, |answer| channels(&model(), "soak_a", answer, true));
        assert_eq!(verify(json!({"channels": ["c"]})), "");
        assert!(verify(json!({"channels": ["c", "c"]})).contains("twice"));

        let old = json!({"broadcast_address": "vm", "tcp_port": 4150, "topics": [], "tombstones": []});
        let verify =
            |body: Value| checked(&body, |answer| nodes(&model(), &foreign, answer, LIFETIMES, Instant::now()));
        assert_eq!(verify(json!({"producers": [old, entry(0), entry(1)]})), "");
        assert_eq!(verify(json!({"producers": [old, entry(0)]})), "node soak-000001.perf:1 is missing");
        let mut idle = entry(1);
        idle["topics"] = json!([]);
        idle["tombstones"] = json!([]);
        assert!(verify(json!({"producers": [old, entry(0), idle]})).contains("topic soak_a is missing"));
        let mut tombstoned = entry(1);
        tombstoned["tombstones"] = json!([true]);
        assert!(verify(json!({"producers": [old, entry(0), tombstoned]})).contains("of topic soak_a is true"));
    }
}
