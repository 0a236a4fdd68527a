//! Documents of any size, page by page.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use super::debug::Debug;
use super::documents::{AllChannels, LookupAll, Nodes, Topics};
use super::topic_metrics::TopicMetrics;
use crate::clock::Timestamp;
use crate::limits::{PAGE_BYTES, PAGES_CACHED_BYTES_MAX};
use crate::registry::{Registry, Rendered, Snapshot, Visibility};

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

/// A document that was rendered.
struct Pages {
    pages: Rendered<Vec<Bytes>>,
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
        let valid = pages.as_ref().filter(|pages| pages.revision == revision && pages.pages.is_fresh(now));
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
}

/// The pages so far of a document that is to be cached.
struct Keep {
    cache: PageCache,
    /// Of the first page.
    revision: u64,
    pages: Vec<Bytes>,
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
        let keep = Keep { cache: cache.clone(), revision, pages: Vec::new(), bytes: 0 };
        Self::render(registry, now, document, Some(keep))
    }

    fn render(registry: &Arc<Registry>, now: Timestamp, document: Document, keep: Option<Keep>) -> Self {
        let visibility = Visibility::new(registry.lifetimes(), now);
        let (registry, document) = (Arc::clone(registry), Some((document, visibility)));
        Self(Source::Rendering(Box::new(Rendering { registry, document, keep })))
    }

    /// The length of the whole document, when it is known before the last page.
    pub fn known_len(&self) -> Option<usize> {
        match &self.0 {
            Source::Cached { pages, .. } => Some(pages.pages.content().iter().map(Bytes::len).sum()),
            Source::Rendering(_) => None,
        }
    }

    /// Whether the last page was given out.
    pub fn is_finished(&self) -> bool {
        match &self.0 {
            Source::Cached { pages, next } => *next == pages.pages.content().len(),
            Source::Rendering(rendering) => rendering.document.is_none(),
        }
    }

    /// The next page, never empty; `None` after the last.
    pub fn next_page(&mut self) -> Option<Bytes> {
        match &mut self.0 {
            Source::Cached { pages, next } => {
                let page = pages.pages.content().get(*next)?;
                *next += 1;
                Some(page.clone())
            }
            Source::Rendering(rendering) => rendering.next_page(),
        }
    }
}

impl Rendering {
    fn next_page(&mut self) -> Option<Bytes> {
        let (document, visibility) = self.document.as_mut()?;
        let mut page = Vec::with_capacity(PAGE_BYTES);
        let snapshot = self.registry.snapshot();
        let revision = document.revision(&snapshot);
        let more = document.render(&snapshot, visibility, &mut page);
        drop(snapshot);
        page.shrink_to_fit();
        let page = Bytes::from(page);
        self.keep = self.keep.take().filter(|keep| keep.revision == revision);
        self.keep = self.keep.take().and_then(|keep| keep.with(&page));
        if !more {
            let (_, visibility) = self.document.take().expect("it has just rendered the last page");
            if let Some(Keep { cache, revision, pages, .. }) = self.keep.take() {
                cache.put(Pages { pages: visibility.rendered(pages), revision });
            }
        }
        Some(page)
    }
}

impl Keep {
    /// With one page more; `None` when that is too much.
    fn with(mut self, page: &Bytes) -> Option<Self> {
        self.bytes += page.len();
        self.pages.push(page.clone());
        (self.bytes <= PAGES_CACHED_BYTES_MAX).then_some(self)
    }
}
