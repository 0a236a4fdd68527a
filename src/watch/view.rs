//! What watchers know of one topic, and the events that bring them up to date.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;

use super::events::{Events, Reason};
use crate::clock::Timestamp;
use crate::limits::GONE_HOLD;
use crate::registry::{
    Channel, Filter, Name, PeerInfo, Producer, ProducerId, Rendered, Shown, Snapshot, Tag, Topic, Visibility,
};

/// A topic as some clients see it.
#[derive(PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct TopicFilter {
    pub topic: Name,
    pub filter: Option<Arc<Filter>>,
}

/// A node: its address and port for consumers.
type Node = (Box<str>, i64);

/// A node that watchers take for up.
struct Known {
    producer: Arc<Producer>,
    /// Since when it is gone, which is not said yet.
    gone: Option<Gone>,
}

struct Gone {
    until: Timestamp,
    /// There are watchers that have got the state since: they take it for down.
    is_known_to_some: bool,
}

/// What the watchers of a topic know.
pub struct View {
    of: Arc<TopicFilter>,
    /// As it was; `None` when it was not listed.
    topic: Option<Arc<Topic>>,
    /// By the id that the topic lists each by.
    producers: Vec<(ProducerId, Arc<Producer>)>,
    known: HashMap<Node, Known>,
    /// How many of the nodes are gone.
    gone: usize,
    /// What it was derived from is valid as long as this is.
    fresh: Rendered<()>,
    tag: Tag,
    /// How often it was looked at, which numbers the states.
    number: u64,
    /// The last rendering of the state, and whether that said that it is settled.
    snapshot: Option<(bool, Bytes)>,
}

impl View {
    /// What a client gets that asks now.
    pub fn new(of: Arc<TopicFilter>, snapshot: &Snapshot, now: Timestamp) -> Self {
        let fresh = Visibility::new(snapshot.lifetimes(), now).rendered(());
        let (topic, producers, known) = (None, Vec::new(), HashMap::new());
        let mut view =
            Self { of, topic, producers, known, gone: 0, fresh, tag: absent(), number: 0, snapshot: None };
        view.advance(snapshot, now);
        view
    }

    /// The tag of the state: that of `/lookup` of the topic.
    pub fn tag(&self) -> Tag {
        self.tag
    }

    /// The number of the state: a later one has a higher number.
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// The tag of what every watcher knows that has got all events; `None` while some know of nodes that are gone.
    pub(super) fn known_tag(&self) -> Option<Tag> {
        (self.gone == 0).then_some(self.tag)
    }

    /// Whether nothing but a commit can have changed the state.
    pub(super) fn is_fresh(&self, now: Timestamp) -> bool {
        let is_due = |known: &Known| known.gone.as_ref().is_some_and(|gone| gone.until <= now);
        self.fresh.is_fresh(now) && (self.gone == 0 || !self.known.values().any(is_due))
    }

    /// The state as an event, for a client that takes it for all that there is.
    pub(super) fn state(&mut self, is_settled: bool) -> Bytes {
        self.note_handed_out();
        if let Some((settled, text)) = &self.snapshot
            && *settled == is_settled
        {
            return text.clone();
        }
        let mut events = Events::default();
        let producers = self.producers.iter().map(|(_, producer)| &**producer);
        events.snapshot(self.of.topic.as_str(), self.topic.as_deref(), producers, is_settled);
        let text = events.into_bytes();
        self.snapshot = Some((is_settled, text.clone()));
        text
    }

    /// A client begins with the state: nodes that are gone are down for it.
    pub(super) fn note_handed_out(&mut self) {
        if self.gone > 0 {
            self.known
                .values_mut()
                .filter_map(|known| known.gone.as_mut())
                .for_each(|gone| gone.is_known_to_some = true);
        }
    }

    /// Takes the registry as it is now, and returns the events that say what is different.
    pub(super) fn advance(&mut self, snapshot: &Snapshot, now: Timestamp) -> Events {
        self.number += 1;
        let name = self.of.topic;
        let topic = snapshot.topic(name.as_bytes()).filter(|topic| topic.is_listed()).cloned();
        let mut visibility = Visibility::new(snapshot.lifetimes(), now);
        let shown = topic.as_ref().map(|topic| {
            let shown = Shown::of(topic, snapshot, &mut visibility, self.of.filter.as_deref());
            self.tag = shown.tag(topic);
            shown.producers
        });
        if topic.is_none() {
            self.tag = absent();
        }
        let mut events = Events::default();
        let before = std::mem::replace(&mut self.producers, shown.unwrap_or_default());
        let old = std::mem::replace(&mut self.topic, topic);
        if old.is_none() && self.topic.is_some() {
            events.topic(name.as_str(), true);
        }
        if self.topic.is_some() {
            compare(&channels(old.as_deref()), &channels(self.topic.as_deref()), |channel, exists| {
                events.channel(name.as_str(), channel, exists);
            });
        }
        self.compare_producers(&before, old.as_deref(), snapshot, &mut visibility, now, &mut events);
        self.end_holds(now, &mut events);
        if old.is_some() && self.topic.is_none() {
            events.topic(name.as_str(), false);
        }
        self.fresh = visibility.rendered(());
        self.snapshot = None;
        events
    }

    fn compare_producers(
        &mut self,
        before: &[(ProducerId, Arc<Producer>)],
        old: Option<&Topic>,
        snapshot: &Snapshot,
        visibility: &mut Visibility,
        now: Timestamp,
        events: &mut Events,
    ) {
        let is_in = |all: &[(ProducerId, Arc<Producer>)], id| all.binary_search_by_key(&id, |&(id, _)| id).is_ok();
        let removed: Vec<_> = before.iter().filter(|&&(id, _)| !is_in(&self.producers, id)).collect();
        let added: Vec<_> = self
            .producers
            .iter()
            .filter(|&&(id, _)| !is_in(before, id))
            .map(|(_, producer)| Arc::clone(producer))
            .collect();
        for producer in added {
            self.rises(producer, events);
        }
        if removed.is_empty() {
            return;
        }
        let others: HashMap<_, _> =
            self.producers.iter().map(|(_, producer)| (node(producer), Arc::clone(producer))).collect();
        let mut seen = HashSet::new();
        for (id, producer) in removed {
            let node = node(producer);
            if let Some(other) = others.get(&node) {
                self.rises(Arc::clone(other), events);
            } else if seen.insert(node) {
                let reason = self.reason(*id, producer, old, snapshot, visibility);
                self.falls(producer, reason, now, events);
            }
        }
    }

    /// A producer shows: an event, unless it is known and says of itself what it said before.
    fn rises(&mut self, producer: Arc<Producer>, events: &mut Events) {
        let is_news = match self.known.get_mut(&node(&producer)) {
            Some(known) => {
                let was_down_for_some = known.gone.take().is_some_and(|gone| {
                    self.gone -= 1;
                    gone.is_known_to_some
                });
                was_down_for_some || !is_described_alike(known.producer.info(), producer.info())
            }
            None => true,
        };
        if is_news {
            events.up(self.of.topic.as_str(), &producer);
        }
        self.known.insert(node(&producer), Known { producer, gone: None });
    }

    fn falls(&mut self, producer: &Producer, reason: Reason, now: Timestamp, events: &mut Events) {
        let node = node(producer);
        let Some(known) = self.known.get_mut(&node) else { return };
        if reason == Reason::Gone {
            known.gone = Some(Gone { until: now.after(GONE_HOLD), is_known_to_some: false });
            self.gone += 1;
        } else {
            events.down(self.of.topic.as_str(), producer, reason);
            self.known.remove(&node);
        }
    }

    /// Says that nodes are down which have been gone for long enough.
    fn end_holds(&mut self, now: Timestamp, events: &mut Events) {
        if self.gone == 0 {
            return;
        }
        let is_over = self.topic.is_none();
        let topic = self.of.topic;
        let mut over: Vec<_> = self
            .known
            .extract_if(|_, known| known.gone.as_ref().is_some_and(|gone| is_over || gone.until <= now))
            .collect();
        over.sort_unstable_by(|(node, _), (other, _)| node.cmp(other));
        for (_, Known { producer, .. }) in over {
            self.gone -= 1;
            let reason = if is_over { Reason::Deleted } else { Reason::Gone };
            events.down(topic.as_str(), &producer, reason);
        }
    }

    /// Why a producer is not shown that was.
    fn reason(
        &self,
        id: ProducerId,
        producer: &Arc<Producer>,
        old: Option<&Topic>,
        snapshot: &Snapshot,
        visibility: &mut Visibility,
    ) -> Reason {
        let Some(topic) = &self.topic else { return Reason::Deleted };
        if old.is_some_and(|old| old.id() != topic.id()) {
            return Reason::Deleted;
        }
        if snapshot.producer(id).is_none() {
            return Reason::Gone;
        }
        if topic.producers().binary_search(&id).is_err() {
            return Reason::Unregistered;
        }
        if visibility.is_tombstoned(topic, producer) {
            Reason::Tombstoned
        } else if !visibility.is_active(producer) {
            Reason::Inactive
        } else {
            Reason::Filtered
        }
    }
}

/// The tag of a topic that is not listed.
fn absent() -> Tag {
    Tag::of(b"")
}

fn node(producer: &Producer) -> Node {
    (producer.info().broadcast_address.clone(), producer.info().tcp_port)
}

/// Whether two connections say the same of their node.
fn is_described_alike(one: &PeerInfo, other: &PeerInfo) -> bool {
    one == other
}

fn channels(topic: Option<&Topic>) -> Vec<&str> {
    topic.map_or(&[][..], Topic::channels).iter().map(Channel::name).collect()
}

/// Calls with each name that one of two sorted lists has alone, and whether that is the second.
fn compare(before: &[&str], after: &[&str], mut differs: impl FnMut(&str, bool)) {
    let is_in = |all: &[&str], name: &&str| all.binary_search(name).is_ok();
    before.iter().filter(|name| !is_in(after, name)).for_each(|name| differs(name, false));
    after.iter().filter(|name| !is_in(before, name)).for_each(|name| differs(name, true));
}
