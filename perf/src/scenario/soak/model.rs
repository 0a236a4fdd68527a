//! What must be registered: the naive model that answers are held against.
//!
//! A command changes the model when its OK is there. From before it is sent until then its topic is unsettled, and a
//! lookup that was under way meanwhile may show either side of it. Registrations commute, so that several may be under
//! way on one topic; what HTTP changes does not and has its topic for itself. A disconnect has no OK: who leaves may
//! be listed for a while.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::names::{Node, is_ephemeral};

/// Around the end of a tombstone's life it may hide or not: the server's clock began before its OK came.
const TOMBSTONE_SLACK: Duration = Duration::from_secs(2);

/// How a producer stands in one topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    Registered,
    /// Hidden from lookups for a tombstone's lifetime from then on.
    Tombstoned(Instant),
    /// Its connection has ended then, which the server has yet to notice.
    Left(Instant),
}

/// How long things take that no OK tells of.
#[derive(Clone, Copy, Debug)]
pub struct Lifetimes {
    /// The server's `-tombstone-lifetime`.
    pub tombstone: Duration,
    /// For how long a producer may be listed after its connection has ended.
    pub leaving: Duration,
}

impl Standing {
    /// Whether a lookup at `now` must show the producer, or must not.
    pub fn is_shown(self, lifetimes: Lifetimes, now: Instant) -> Option<bool> {
        match self {
            Self::Registered => Some(true),
            Self::Tombstoned(since) => {
                let passed = now.saturating_duration_since(since);
                if passed + TOMBSTONE_SLACK < lifetimes.tombstone {
                    Some(false)
                } else if passed > lifetimes.tombstone + TOMBSTONE_SLACK {
                    Some(true)
                } else {
                    None
                }
            }
            Self::Left(since) if now.saturating_duration_since(since) < lifetimes.leaving => None,
            Self::Left(_) => Some(false),
        }
    }
}

/// One topic. It exists without producers, and channels of an ephemeral one outlive it, as in stock.
#[derive(Debug, Default)]
pub struct Topic {
    pub exists: bool,
    pub producers: BTreeMap<Node, Standing>,
    pub channels: BTreeMap<String, BTreeSet<Node>>,
    changes: Changes,
    /// Changes begun and ended so far.
    version: u64,
}

/// Changes under way.
#[derive(Debug, PartialEq, Eq)]
enum Changes {
    /// Registrations, so many at a time.
    Shared(u32),
    /// One by HTTP.
    Exclusive,
}

impl Default for Changes {
    fn default() -> Self {
        Self::Shared(0)
    }
}

/// All topics, and who is connected.
#[derive(Debug, Default)]
pub struct Model {
    topics: BTreeMap<String, Topic>,
    nodes: BTreeSet<Node>,
}

impl Model {
    /// The topic, if anything was ever done to it.
    pub fn topic(&self, topic: &str) -> Option<&Topic> {
        self.topics.get(topic)
    }

    /// Everything that something was ever done to.
    pub fn topics(&self) -> impl Iterator<Item = (&String, &Topic)> {
        self.topics.iter()
    }

    /// Who is connected.
    pub fn nodes(&self) -> &BTreeSet<Node> {
        &self.nodes
    }

    /// Topics where a producer is registered.
    pub fn topics_of(&self, node: Node) -> impl Iterator<Item = &String> {
        let has = move |topic: &Topic| {
            topic.producers.get(&node).is_some_and(|standing| !matches!(standing, Standing::Left(_)))
        };
        self.topics.iter().filter(move |(_, topic)| has(topic)).map(|(name, _)| name)
    }

    /// What tells that nothing changed in between, unless a change is under way.
    pub fn settled(&self, topic: &str) -> Option<u64> {
        let Some(topic) = self.topics.get(topic) else { return Some(0) };
        (topic.changes == Changes::Shared(0)).then_some(topic.version)
    }

    /// Announces a registration or its end; false while HTTP changes the topic.
    pub fn begin_shared(&mut self, topic: &str) -> bool {
        let topic = self.entry(topic);
        let Changes::Shared(under_way) = &mut topic.changes else { return false };
        *under_way += 1;
        topic.version += 1;
        true
    }

    /// Announces a change by HTTP; false while another change is under way.
    pub fn begin_exclusive(&mut self, topic: &str) -> bool {
        let topic = self.entry(topic);
        let free = topic.changes == Changes::Shared(0);
        if free {
            topic.changes = Changes::Exclusive;
            topic.version += 1;
        }
        free
    }

    /// REGISTER was answered.
    pub fn registered(&mut self, node: Node, topic: &str, channel: Option<&str>) {
        let topic = self.end(topic);
        topic.exists = true;
        // A tombstone outlives another REGISTER, as in stock.
        topic.producers.entry(node).or_insert(Standing::Registered);
        if let Some(channel) = channel {
            topic.channels.entry(channel.to_owned()).or_default().insert(node);
        }
    }

    /// UNREGISTER was answered.
    pub fn unregistered(&mut self, node: Node, name: &str, channel: Option<&str>) {
        let topic = self.end(name);
        if let Some(channel) = channel {
            if let Some(producers) = topic.channels.get_mut(channel) {
                producers.remove(&node);
                if producers.is_empty() && is_ephemeral(channel) {
                    topic.channels.remove(channel);
                }
            }
            return;
        }
        topic.channels.values_mut().for_each(|producers| _ = producers.remove(&node));
        topic.producers.remove(&node);
        if topic.producers.is_empty() && is_ephemeral(name) {
            topic.exists = false;
        }
    }

    /// `/topic/create` or `/channel/create` was answered.
    pub fn created(&mut self, topic: &str, channel: Option<&str>) {
        let topic = self.end(topic);
        topic.exists = true;
        if let Some(channel) = channel {
            topic.channels.entry(channel.to_owned()).or_default();
        }
    }

    /// `/topic/delete` was answered.
    pub fn deleted(&mut self, topic: &str) {
        let topic = self.end(topic);
        topic.exists = false;
        topic.producers.clear();
        topic.channels.clear();
    }

    /// `/channel/delete` was answered.
    pub fn channel_deleted(&mut self, topic: &str, channel: &str) {
        self.end(topic).channels.remove(channel);
    }

    /// `/topic/tombstone` was answered.
    pub fn tombstoned(&mut self, topic: &str, node: Node, now: Instant) {
        if let Some(standing @ (Standing::Registered | Standing::Tombstoned(_))) =
            self.end(topic).producers.get_mut(&node)
        {
            *standing = Standing::Tombstoned(now);
        }
    }

    /// IDENTIFY was answered.
    pub fn joined(&mut self, node: Node) {
        self.nodes.insert(node);
    }

    /// The connection is about to end, with registrations of no ephemeral name: whether such a name outlives them
    /// depends on when the server notices.
    pub fn left(&mut self, node: Node, now: Instant) {
        self.nodes.remove(&node);
        for topic in self.topics.values_mut() {
            if let Some(standing) = topic.producers.get_mut(&node) {
                *standing = Standing::Left(now);
                topic.version += 1;
                topic.channels.values_mut().for_each(|producers| _ = producers.remove(&node));
            }
        }
    }

    /// Forgets those who left so long ago that nobody may list them any more.
    pub fn forget_left(&mut self, now: Instant, lifetimes: Lifetimes) {
        let is_forgotten = |standing: Standing| {
            matches!(standing, Standing::Left(_)) && standing.is_shown(lifetimes, now) == Some(false)
        };
        for topic in self.topics.values_mut() {
            topic.producers.retain(|_, standing| !is_forgotten(*standing));
        }
    }

    fn entry(&mut self, topic: &str) -> &mut Topic {
        // Not entry(): a name is there already nearly always.
        if !self.topics.contains_key(topic) {
            self.topics.insert(topic.to_owned(), Topic::default());
        }
        self.topics.get_mut(topic).expect("it was just there")
    }

    /// Ends an announced change.
    fn end(&mut self, topic: &str) -> &mut Topic {
        let topic = self.topics.get_mut(topic).expect("a change is announced before it is made");
        topic.version += 1;
        topic.changes = match topic.changes {
            Changes::Exclusive | Changes::Shared(0 | 1) => Changes::Shared(0),
            Changes::Shared(under_way) => Changes::Shared(under_way - 1),
        };
        topic
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIFETIMES: Lifetimes =
        Lifetimes { tombstone: Duration::from_secs(45), leaving: Duration::from_secs(30) };
    const PLAIN: &str = "t";
    const FLEETING: &str = "t#ephemeral";

    fn register(model: &mut Model, node: Node, topic: &str, channel: Option<&str>) {
        assert!(model.begin_shared(topic));
        model.registered(node, topic, channel);
    }

    fn unregister(model: &mut Model, node: Node, topic: &str, channel: Option<&str>) {
        assert!(model.begin_shared(topic));
        model.unregistered(node, topic, channel);
    }

    fn shown(model: &Model, topic: &str, node: Node, now: Instant) -> Option<bool> {
        model.topic(topic).unwrap().producers.get(&node).map_or(Some(false), |s| s.is_shown(LIFETIMES, now))
    }

    #[test]
    fn a_topic_outlives_its_producers_unless_it_is_ephemeral() {
        let (mut model, node) = (Model::default(), Node::new(0));
        for (topic, outlives) in [(PLAIN, true), (FLEETING, false)] {
            register(&mut model, node, topic, Some("c"));
            assert_eq!(model.topics_of(node).collect::<Vec<_>>(), [topic]);
            unregister(&mut model, node, topic, None);
            let topic = model.topic(topic).unwrap();
            assert_eq!(topic.exists, outlives);
            assert!(topic.producers.is_empty());
            assert_eq!(topic.channels.keys().collect::<Vec<_>>(), ["c"], "channels stay in both");
            assert!(topic.channels["c"].is_empty());
        }
    }

    #[test]
    fn an_ephemeral_channel_goes_with_the_last_that_unregisters_it() {
        let (mut model, one, other) = (Model::default(), Node::new(0), Node::new(1));
        register(&mut model, one, PLAIN, Some("c#ephemeral"));
        register(&mut model, other, PLAIN, Some("c#ephemeral"));
        unregister(&mut model, one, PLAIN, Some("c#ephemeral"));
        assert_eq!(model.topic(PLAIN).unwrap().channels.len(), 1);
        unregister(&mut model, other, PLAIN, Some("c#ephemeral"));
        assert_eq!(model.topic(PLAIN).unwrap().channels.len(), 0);
        assert_eq!(model.topic(PLAIN).unwrap().producers.len(), 2, "they are in the topic still");
    }

    #[test]
    fn a_topic_is_settled_when_nothing_is_under_way_and_tells_that_something_was() {
        let (mut model, node) = (Model::default(), Node::new(0));
        assert_eq!(model.settled(PLAIN), Some(0));
        assert!(model.begin_shared(PLAIN) && model.begin_shared(PLAIN));
        assert!(!model.begin_exclusive(PLAIN), "registrations are under way");
        model.registered(node, PLAIN, None);
        assert_eq!(model.settled(PLAIN), None);
        model.registered(node, PLAIN, Some("c"));
        let before = model.settled(PLAIN).unwrap();
        assert!(model.begin_exclusive(PLAIN));
        assert!(!model.begin_shared(PLAIN) && !model.begin_exclusive(PLAIN));
        assert_eq!(model.settled(PLAIN), None);
        model.deleted(PLAIN);
        assert!(model.settled(PLAIN).unwrap() > before);
        assert!(!model.topic(PLAIN).unwrap().exists);
    }

    #[test]
    fn a_tombstone_hides_for_its_lifetime_or_until_registered_afresh() {
        let (mut model, node, now) = (Model::default(), Node::new(0), Instant::now());
        register(&mut model, node, PLAIN, None);
        let tombstone = |model: &mut Model| {
            assert!(model.begin_exclusive(PLAIN));
            model.tombstoned(PLAIN, node, now);
        };
        tombstone(&mut model);
        register(&mut model, node, PLAIN, None);
        for (seconds, expected) in [(0, Some(false)), (42, Some(false)), (45, None), (48, Some(true))] {
            assert_eq!(shown(&model, PLAIN, node, now + Duration::from_secs(seconds)), expected, "{seconds}");
        }
        unregister(&mut model, node, PLAIN, None);
        register(&mut model, node, PLAIN, None);
        assert_eq!(shown(&model, PLAIN, node, now), Some(true));
    }

    #[test]
    fn who_left_may_be_listed_for_a_while_and_comes_back_as_another() {
        let (mut model, node, now) = (Model::default(), Node::new(0), Instant::now());
        model.joined(node);
        register(&mut model, node, PLAIN, Some("c"));
        model.left(node, now);
        assert!(model.nodes().is_empty() && model.topics_of(node).next().is_none());
        assert_eq!(shown(&model, PLAIN, node, now), None);
        assert_eq!(shown(&model, PLAIN, node, now + LIFETIMES.leaving), Some(false));
        model.joined(node.reborn());
        register(&mut model, node.reborn(), PLAIN, None);
        model.left(node.reborn(), now + LIFETIMES.leaving);
        model.forget_left(now + LIFETIMES.leaving, LIFETIMES);
        let topic = model.topic(PLAIN).unwrap();
        assert_eq!(topic.producers.keys().collect::<Vec<_>>(), [&node.reborn()], "the first is forgotten");
        assert!(topic.exists && topic.channels.contains_key("c"));
    }

    #[test]
    fn http_makes_and_removes_without_producers() {
        let mut model = Model::default();
        assert!(model.begin_exclusive(PLAIN));
        model.created(PLAIN, Some("c"));
        assert!(model.topic(PLAIN).unwrap().exists);
        assert!(model.begin_exclusive(PLAIN));
        model.channel_deleted(PLAIN, "c");
        assert!(model.topic(PLAIN).unwrap().channels.is_empty());
    }
}
