//! Topics, and what belongs to one: its channels, and its producers.

use super::documents::Rows;
use super::names::Names;
use super::nodes::{Node, Shown};
use super::object::Object;
use super::search;
use crate::clock::Timestamp;
use crate::context::WorkerContext;
use crate::limits::{UI_INDEXED_INLINE, UI_LOOKED_AT};
use crate::registry::{Snapshot, Topic, Visibility};
use crate::ui::cached::Found;

/// The channels of a topic that are named beside it because they were searched for.
const CHANNELS_NAMED: usize = 3;

/// The topics whose names, or those of their channels, contain a text.
pub(super) fn list(
    context: &WorkerContext,
    (wanted, only_unused): (&[u8], bool),
    rows: Rows,
    object: &mut Object<'_>,
) {
    let registry = &context.registry;
    let revision = registry.snapshot().revision();
    let is_small = registry.registered().topics <= UI_INDEXED_INLINE;
    let Found { value, is_current } = context.shared.ui.names.get((registry, revision), is_small, Names::make);
    object.boolean("current", is_current);
    let names = value.unwrap_or_default();
    object.boolean("lacks_channels", names.lacks_channels);
    let found = names.containing(wanted, only_unused);
    rows.write(found.len(), object);
    let snapshot = registry.snapshot();
    let mut count = Counting::new(&snapshot, context.now);
    let present = rows.of(found.into_iter()).filter_map(|topic| snapshot.topic(names.name(topic).as_bytes()));
    object.objects("topics", present, |object, topic| {
        write(topic, &mut count, object);
        if !wanted.is_empty() && !search::contains(topic.name(), wanted) {
            let matching = topic.channels().iter().filter(|channel| search::contains(channel.name(), wanted));
            object.array("found", matching.take(CHANNELS_NAMED), |out, channel| {
                crate::json::name(out, channel.name());
            });
        }
    });
}

/// How many producers of topics lookups show, as long as not too many had to be looked at.
struct Counting<'a> {
    snapshot: &'a Snapshot,
    visibility: Visibility,
    budget: usize,
}

impl<'a> Counting<'a> {
    fn new(snapshot: &'a Snapshot, now: Timestamp) -> Self {
        Self { snapshot, visibility: Visibility::new(snapshot.lifetimes(), now), budget: UI_LOOKED_AT }
    }

    fn visible(&mut self, topic: &Topic) -> Option<usize> {
        self.budget = self.budget.checked_sub(topic.producers().len())?;
        Some(self.visibility.count(topic, self.snapshot))
    }
}

fn write(topic: &Topic, count: &mut Counting<'_>, object: &mut Object<'_>) {
    object.text("name", topic.name());
    object.count("producers", topic.producers().len());
    if let Some(visible) = count.visible(topic) {
        object.count("visible", visible);
    }
    object.count("channels", topic.channels().len());
}

/// One topic, with those of its channels whose names contain a text.
pub(super) fn topic(context: &WorkerContext, name: &[u8], (wanted, rows): (&[u8], Rows), object: &mut Object<'_>) {
    let snapshot = context.registry.snapshot();
    let topic = snapshot.topic(name).filter(|topic| topic.is_listed());
    object.boolean("exists", topic.is_some());
    let Some(topic) = topic else { return };
    write(topic, &mut Counting::new(&snapshot, context.now), object);
    let found: Vec<_> =
        topic.channels().iter().filter(|channel| search::contains(channel.name(), wanted)).collect();
    object.object("list", |object| {
        rows.write(found.len(), object);
        object.objects("channels", rows.of(found.iter()), |object, channel| {
            object.text("name", channel.name());
            object.count("producers", channel.producers().len());
        });
    });
}

/// The producers of a topic, listed or not.
pub(super) fn producers(context: &WorkerContext, name: &[u8], rows: Rows, object: &mut Object<'_>) {
    let snapshot = context.registry.snapshot();
    let topic = snapshot.topic(name).filter(|topic| topic.is_listed());
    let ids = topic.map_or(&[][..], |topic| topic.producers());
    rows.write(ids.len(), object);
    let shown = Shown::new(&snapshot, context.now);
    let producers = rows.of(ids.iter()).filter_map(|&id| snapshot.producer(id));
    object.objects("producers", producers, |object, producer| {
        let info = producer.info();
        object.text("address", &info.broadcast_address);
        object.number("tcp_port", info.tcp_port);
        object.number("http_port", info.http_port);
        object.text("zone", &info.topology_zone);
        shown.write_state(producer, object);
        let at = topic.and_then(|topic| topic.tombstone_of(producer));
        write_tombstone(at, &shown, object);
    });
}

fn write_tombstone(at: Option<Timestamp>, shown: &Shown<'_>, object: &mut Object<'_>) {
    let end = at.map(|at| at.after(shown.lifetimes.tombstone_lifetime));
    if let Some(end) = end.filter(|&end| end > shown.now) {
        object.time("tombstoned_until", end);
    }
}

/// The topics that a node has registered whose names contain a text, those first in which it has a tombstone.
pub(super) fn of_node(
    snapshot: &Snapshot,
    node: &Node,
    (wanted, rows): (&[u8], Rows),
    now: Timestamp,
    object: &mut Object<'_>,
) {
    let shown = Shown::new(snapshot, now);
    let lifetime = shown.lifetimes.tombstone_lifetime;
    let producer = &node.producer;
    let (mut found, mut looked_at) = (Vec::new(), 0);
    for topic in snapshot.topics_of(producer).take(UI_LOOKED_AT) {
        looked_at += 1;
        if search::contains(topic.name(), wanted) {
            let at = topic.tombstone_of(producer).filter(|at| at.after(lifetime) > now);
            found.push((at.is_none(), topic.name(), at));
        }
    }
    object.boolean("all", looked_at < UI_LOOKED_AT);
    rows.write(found.len(), object);
    found.sort_unstable();
    object.objects("rows", rows.of(found.iter()), |object, &(_, name, at)| {
        object.text("name", name);
        write_tombstone(at, &shown, object);
    });
}
