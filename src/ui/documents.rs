//! The documents that the page's script reads: JSON, each with the server's time. They have no stable form: script and server
//! come from one program.

use std::borrow::Cow;

use super::nodes::{Node, Nodes, Shown, State};
use super::object::{Object, object};
use super::{overview, topics};
use crate::context::WorkerContext;
use crate::limits::{UI_INDEXED_INLINE, UI_ROWS, UI_ROWS_MAX, UI_SEARCH_BYTES_MAX};
use crate::registry::Snapshot;
use crate::ui::cached::Found;

/// What a request asks of a document.
#[derive(Default, Debug)]
pub struct Arguments<'a> {
    /// `topic`
    pub topic: Option<Cow<'a, [u8]>>,
    /// `node`, as `broadcast_address:tcp_port`
    pub node: Option<Cow<'a, [u8]>>,
    /// `q`, what to search for
    pub search: Option<Cow<'a, [u8]>>,
    /// `offset` of the first row
    pub offset: Option<Cow<'a, [u8]>>,
    /// `limit`, the number of rows
    pub limit: Option<Cow<'a, [u8]>>,
    /// `unused=true`, what nobody produces
    pub unused: Option<Cow<'a, [u8]>>,
}

/// Why there is no document.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NoDocument {
    /// No document has this name.
    Unknown,
    MissingTopic,
    MissingNode,
    /// The node is not UTF-8.
    InvalidNode,
    /// The text to search for is longer than [`UI_SEARCH_BYTES_MAX`].
    InvalidSearch,
    /// The offset is no number.
    InvalidOffset,
    /// The limit is no number.
    InvalidLimit,
}

/// Which rows of a list a document has.
#[derive(Clone, Copy)]
pub(super) struct Rows {
    pub(super) offset: usize,
    pub(super) limit: usize,
}

impl Rows {
    /// Writes where the rows are among all.
    pub(super) fn write(self, total: usize, object: &mut Object<'_>) {
        object.count("total", total);
        object.count("offset", self.offset);
        object.count("limit", self.limit);
    }

    pub(super) fn of<T>(self, all: impl Iterator<Item = T>) -> impl Iterator<Item = T> {
        all.skip(self.offset).take(self.limit)
    }
}

/// The document of that name.
///
/// # Errors
/// There is none.
pub fn document(name: &[u8], arguments: &Arguments<'_>, context: &WorkerContext) -> Result<Vec<u8>, NoDocument> {
    let rows = rows(arguments)?;
    let search = arguments.search.as_deref().unwrap_or_default();
    if search.len() > UI_SEARCH_BYTES_MAX {
        return Err(NoDocument::InvalidSearch);
    }
    let mut out = Vec::with_capacity(4096);
    let mut write = |write: &mut dyn FnMut(&mut Object<'_>)| {
        object(&mut out, |object| {
            object.time("now", context.now);
            write(object);
        });
    };
    match name {
        b"overview" => write(&mut |object| overview::write(context, object)),
        b"nodes" => write(&mut |object| nodes(context, search, rows, object)),
        b"node" => {
            let node = arguments.node.as_deref().ok_or(NoDocument::MissingNode)?;
            let node = str::from_utf8(node).map_err(|_| NoDocument::InvalidNode)?;
            write(&mut |object| self::node(context, node, (search, rows), object));
        }
        b"topics" => {
            let only_unused = arguments.unused.as_deref() == Some(b"true");
            write(&mut |object| topics::list(context, (search, only_unused), rows, object));
        }
        b"topic" => {
            let topic = arguments.topic.as_deref().ok_or(NoDocument::MissingTopic)?;
            write(&mut |object| topics::topic(context, topic, (search, rows), object));
        }
        b"producers" => {
            let topic = arguments.topic.as_deref().ok_or(NoDocument::MissingTopic)?;
            write(&mut |object| topics::producers(context, topic, rows, object));
        }
        _ => return Err(NoDocument::Unknown),
    }
    Ok(out)
}

fn rows(Arguments { offset, limit, .. }: &Arguments<'_>) -> Result<Rows, NoDocument> {
    let number = |text: &Option<Cow<'_, [u8]>>, otherwise, invalid| match text {
        None => Ok(otherwise),
        Some(text) => str::from_utf8(text).ok().and_then(|text| text.parse().ok()).ok_or(invalid),
    };
    let offset = number(offset, 0, NoDocument::InvalidOffset)?;
    let limit = number(limit, UI_ROWS, NoDocument::InvalidLimit)?;
    Ok(Rows { offset, limit: limit.clamp(1, UI_ROWS_MAX) })
}

/// The producers in order; see [`Nodes`].
pub(super) fn all_nodes(context: &WorkerContext) -> Found<Nodes> {
    let registry = &context.registry;
    let revision = registry.snapshot().nodes_revision();
    let is_small = registry.producers() <= UI_INDEXED_INLINE;
    context.shared.ui.nodes.get((registry, revision), is_small, Nodes::make)
}

/// The nodes, those first that are not listed.
fn nodes(context: &WorkerContext, search: &[u8], rows: Rows, object: &mut Object<'_>) {
    let Found { value, is_current } = all_nodes(context);
    object.boolean("current", is_current);
    let nodes = value.unwrap_or_default();
    let lifetimes = context.registry.lifetimes();
    let state = |node: &Node| State::of(&node.producer, &lifetimes, context.now).0;
    let mut found: Vec<_> = nodes.containing(search).map(|node| (state(node), node)).collect();
    rows.write(found.len(), object);
    found.sort_by_key(|&(state, node)| (state, !node.is_doubled));
    let found: Vec<_> = rows.of(found.into_iter()).map(|(_, node)| node).collect();
    write_nodes(context, &context.registry.snapshot(), &found, object);
}

fn write_nodes(context: &WorkerContext, snapshot: &Snapshot, nodes: &[&Node], object: &mut Object<'_>) {
    let infos = nodes.iter().map(|node| node.producer.info());
    let reconnects = context.shared.ui.journal.reconnects(infos, context.now);
    let mut shown = Shown::new(snapshot, context.now);
    let each = nodes.iter().zip(reconnects);
    object.objects("nodes", each, |object, (node, reconnects)| shown.write(node, reconnects, object));
}

/// One node: its connections, its topics, and what has happened to it of late.
fn node(context: &WorkerContext, name: &str, (search, rows): (&[u8], Rows), object: &mut Object<'_>) {
    let Found { value, is_current } = all_nodes(context);
    object.boolean("current", is_current);
    let nodes = value.unwrap_or_default();
    let lifetimes = context.registry.lifetimes();
    let mut connections: Vec<&Node> = nodes.named(name).take(rows.limit).collect();
    // The one that is listed is the one whose topics are shown.
    connections.sort_by_key(|node| {
        let (state, since) = State::of(&node.producer, &lifetimes, context.now);
        (std::cmp::Reverse(state), std::cmp::Reverse(since))
    });
    let snapshot = context.registry.snapshot();
    write_nodes(context, &snapshot, &connections, object);
    if let Some(node) = connections.first() {
        object.object("topics", |object| topics::of_node(&snapshot, node, (search, rows), context.now, object));
    }
    overview::write_journal(&context.shared.ui.journal.latest(Some(name), rows.limit), object);
}
