//! Documents of any size, page by page.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use super::debug::Debug;
use super::documents::{AllChannels, LookupAll, Nodes, Topics};
use super::topic_metrics::TopicMetrics;
use crate::clock::Timestamp;
use crate::limits::{PAGE_BYTES, PAGES_CACHED_BYTES_MAX};
use crate::registry::{Registry, Rendered, Snapshot, Tag, Visibility};

/// A document in the making: where it is.
pub(super) enum Document {
    Topics(Topics),
    Nodes(Nodes),
    AllChannels(AllChannels),
    LookupAll(LookupAll),
    Debug(Box<Debug>),
    TopicMetrics(TopicMetrics),
}

impl Document {
    /// Appends about [`PAGE_BYTES`], at least something; false when the document has ended. A page ends only
    /// between two elements, of which the largest is one producer with its topics.
    fn render(&mut self, snapshot: &Snapshot, visibility: &mut Visibility, out: &mut Vec<u8>) -> bool {
        match self {
            Self::Topics(topics) => topics.render(snapshot, out),
            Self::Nodes(nodes) => nodes.render(snapshot, visibility, out),
            Self::AllChannels(channels) => channels.render(snapshot, out),
            Self::LookupAll(lookup) => lookup.render(snapshot, visibility, out),
            Self::Debug(debug) => debug.render(snapshot, out),
            Self::TopicMetrics(metrics) => metrics.render(snapshot, visibility, out),
        }
    }

    /// The revision of the snapshot that it depends on.
    fn revision(&self, snapshot: &Snapshot) -> u64 {
        match self {
            Self::Topics(_) => snapshot.topics_revision(),
            Self::Nodes(_) => snapshot.nodes_revision(),
            Self::AllChannels(_) | Self::LookupAll(_) | Self::Debug(_) | Self::TopicMetrics(_) => {
                snapshot.revision()
            }
        }
    }
}

impl Document {
    /// The tag of the whole document, whose pages have these tags and are of one revision. A document has always the same
    /// pages, so that theirs are enough.
    fn tag(&self, revision: u64, pages: &[Tag]) -> Tag {
        match self {
            Self::Topics(_) => topics_tag(revision),
            _ => Tag::of_all(pages.iter().copied()),
        }
    }
}

/// The tag of `/topics`: no other list has the same revision, and no time changes it.
pub(super) fn topics_tag(revision: u64) -> Tag {
    Tag::of_number(revision)
}

/// A document that was rendered.
struct Pages {
    content: Rendered<Vec<Bytes>>,
    tag: Tag,
    /// What it depends on was the same in all of its pages.
    revision: u64,
}

/// The last rendering of a document, for whoever asks next.
#[derive(Clone, Default)]
pub(super) struct PageCache(Arc<Mutex<Option<Arc<Pages>>>>);

impl PageCache {
    /// The pages, when they are still what rendering would make.
    fn get(&self, revision: u64, now: Timestamp) -> Option<Arc<Pages>> {
        let pages = self.lock();
        let valid = pages.as_ref().filter(|pages| pages.revision == revision && pages.content.is_fresh(now));
        valid.cloned()
    }

    fn put(&self, pages: Pages) {
        let before = self.lock().replace(Arc::new(pages));
        // Freed after the lock.
        drop(before);
    }

    /// Held for a moment, so that a thread that panicked with it has left nothing half done.
    fn lock(&self) -> MutexGuard<'_, Option<Arc<Pages>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.lock().is_none()
    }
}

/// A document on its way: rendered as it goes, or from pages that are still valid.
pub struct Stream(Source);

enum Source {
    Cached { pages: Arc<Pages>, next: usize },
    Rendering(Box<Rendering>),
}

struct Rendering {
    registry: Arc<Registry>,
    /// None when the last page is out.
    document: Option<(Document, Visibility)>,
    /// For a document that is worth keeping.
    keep: Option<Keep>,
    /// The first page, rendered ahead of its time.
    ahead: Option<Bytes>,
    /// No page was rendered yet.
    is_new: bool,
    /// Of the whole document, when one page was all of it.
    tag: Option<Tag>,
}

/// The pages so far of a document that is to be cached.
struct Keep {
    cache: PageCache,
    /// Of the first page.
    revision: u64,
    pages: Vec<Bytes>,
    tags: Vec<Tag>,
    bytes: usize,
}

impl Stream {
    /// Renders the document afresh.
    pub(super) fn new(registry: &Arc<Registry>, now: Timestamp, document: Document) -> Self {
        Self::render(registry, now, document, None)
    }

    /// Takes what the cache has when that is still valid; otherwise renders the document for the cache, too.
    pub(super) fn cached(cache: &PageCache, registry: &Arc<Registry>, now: Timestamp, document: Document) -> Self {
        let revision = document.revision(&registry.snapshot());
        if let Some(pages) = cache.get(revision, now) {
            return Self(Source::Cached { pages, next: 0 });
        }
        let keep = Keep { cache: cache.clone(), revision, pages: Vec::new(), tags: Vec::new(), bytes: 0 };
        Self::render(registry, now, document, Some(keep))
    }

    fn render(registry: &Arc<Registry>, now: Timestamp, document: Document, keep: Option<Keep>) -> Self {
        let visibility = Visibility::new(registry.lifetimes(), now);
        let (registry, document) = (Arc::clone(registry), Some((document, visibility)));
        Self(Source::Rendering(Box::new(Rendering {
            registry,
            document,
            keep,
            ahead: None,
            is_new: true,
            tag: None,
        })))
    }

    /// The length of the whole document, when it is known before the last page.
    pub fn known_len(&self) -> Option<usize> {
        match &self.0 {
            Source::Cached { pages, .. } => Some(pages.content.content().iter().map(Bytes::len).sum()),
            Source::Rendering(_) => None,
        }
    }

    /// The tag of the document, where it is known before the first page is given out: of one that is cached, and of one that is one
    /// page. The pages of others may be of different revisions.
    pub fn tag(&mut self) -> Option<Tag> {
        match &mut self.0 {
            Source::Cached { pages, .. } => Some(pages.tag),
            Source::Rendering(rendering) => {
                if rendering.is_new {
                    rendering.ahead = rendering.render_page();
                }
                rendering.tag
            }
        }
    }

    /// Whether the last page was given out.
    pub fn is_finished(&self) -> bool {
        match &self.0 {
            Source::Cached { pages, next } => *next == pages.content.content().len(),
            Source::Rendering(rendering) => rendering.document.is_none() && rendering.ahead.is_none(),
        }
    }

    /// The next page, never empty; `None` after the last.
    pub fn next_page(&mut self) -> Option<Bytes> {
        match &mut self.0 {
            Source::Cached { pages, next } => {
                let page = pages.content.content().get(*next)?;
                *next += 1;
                Some(page.clone())
            }
            Source::Rendering(rendering) => rendering.ahead.take().or_else(|| rendering.render_page()),
        }
    }
}

impl Rendering {
    fn render_page(&mut self) -> Option<Bytes> {
        let (document, visibility) = self.document.as_mut()?;
        let is_first = std::mem::take(&mut self.is_new);
        let mut page = Vec::with_capacity(PAGE_BYTES);
        let snapshot = self.registry.snapshot();
        let revision = document.revision(&snapshot);
        let more = document.render(&snapshot, visibility, &mut page);
        drop(snapshot);
        page.shrink_to_fit();
        let page = Bytes::from(page);
        let tag = Tag::of(&page);
        self.keep = self.keep.take().filter(|keep| keep.revision == revision);
        self.keep = self.keep.take().and_then(|keep| keep.with(&page, tag));
        if !more {
            let (document, visibility) = self.document.take().expect("it has just rendered the last page");
            self.tag = is_first.then(|| document.tag(revision, &[tag]));
            if let Some(Keep { cache, revision, pages, tags, .. }) = self.keep.take() {
                let tag = document.tag(revision, &tags);
                cache.put(Pages { content: visibility.rendered(pages), tag, revision });
            }
        }
        Some(page)
    }
}

impl Keep {
    /// With one page more; `None` when that is too much.
    fn with(mut self, page: &Bytes, tag: Tag) -> Option<Self> {
        self.bytes += page.len();
        self.tags.push(tag);
        self.pages.push(page.clone());
        (self.bytes <= PAGES_CACHED_BYTES_MAX).then_some(self)
    }
}
