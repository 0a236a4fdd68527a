//! Answers of any size, rendered page by page.
//!
//! `/nodes` of a large cluster is tens of megabytes. A [`Stream`] renders a page of it each time the
//! connection has sent the one before, from the snapshot it began with, so no other connection of the worker
//! waits for more than a page, and a client that reads slowly holds one page and not the whole.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use bytes::Bytes;

use super::freshness::Judge;
use super::render::Document;
use super::snapshot::{Pages, Snapshot};
use crate::clock::Timestamp;
use crate::limits::{PAGE_BYTES, PAGES_CACHED_BYTES_MAX};

/// An answer on its way: rendered as it goes, or again from pages that are still true.
pub struct Stream(Source);

enum Source {
    Kept { pages: Arc<Pages>, next: usize },
    Rendering(Box<Rendering>),
}

struct Rendering {
    snapshot: Arc<Snapshot>,
    /// None when the last page is out.
    document: Option<(Document, Judge)>,
    /// Where to leave the pages for the next reader; None for answers that are not worth keeping.
    slot: Option<Arc<ArcSwapOption<Pages>>>,
    kept: Vec<Bytes>,
    bytes: usize,
}

impl Stream {
    /// Renders the document afresh.
    pub(super) fn new(snapshot: &Arc<Snapshot>, document: Document, judge: Judge) -> Self {
        Self::render(snapshot, document, judge, None)
    }

    /// Takes what `slot` holds when that is still true at `now`; otherwise renders the document and leaves
    /// it there.
    pub(super) fn kept(
        slot: &Arc<ArcSwapOption<Pages>>,
        now: Timestamp,
        snapshot: &Arc<Snapshot>,
        document: Document,
        judge: Judge,
    ) -> Self {
        match slot.load_full() {
            Some(pages) if pages.is_fresh(now) => Self(Source::Kept { pages, next: 0 }),
            _ => Self::render(snapshot, document, judge, Some(Arc::clone(slot))),
        }
    }

    fn render(
        snapshot: &Arc<Snapshot>,
        document: Document,
        judge: Judge,
        slot: Option<Arc<ArcSwapOption<Pages>>>,
    ) -> Self {
        let (snapshot, document) = (Arc::clone(snapshot), Some((document, judge)));
        Self(Source::Rendering(Box::new(Rendering { snapshot, document, slot, kept: Vec::new(), bytes: 0 })))
    }

    /// The length of the whole answer, when it is known before the last page.
    pub fn known_len(&self) -> Option<usize> {
        match &self.0 {
            Source::Kept { pages, .. } => Some(pages.content.iter().map(Bytes::len).sum()),
            Source::Rendering(_) => None,
        }
    }

    /// Whether the last page was given out.
    pub fn is_finished(&self) -> bool {
        match &self.0 {
            Source::Kept { pages, next } => *next == pages.content.len(),
            Source::Rendering(rendering) => rendering.document.is_none(),
        }
    }

    /// The next page, never empty; `None` after the last.
    pub fn next_page(&mut self) -> Option<Bytes> {
        match &mut self.0 {
            Source::Kept { pages, next } => {
                let page = pages.content.get(*next)?;
                *next += 1;
                Some(page.clone())
            }
            Source::Rendering(rendering) => rendering.next_page(),
        }
    }
}

impl Rendering {
    fn next_page(&mut self) -> Option<Bytes> {
        let (document, judge) = self.document.as_mut()?;
        let mut page = Vec::with_capacity(PAGE_BYTES);
        let more = document.render(&self.snapshot, judge, &mut page);
        page.shrink_to_fit();
        let page = Bytes::from(page);
        self.bytes += page.len();
        if self.bytes > PAGES_CACHED_BYTES_MAX {
            self.slot = None;
            self.kept = Vec::new();
        }
        if self.slot.is_some() {
            self.kept.push(page.clone());
        }
        if !more {
            let (_, judge) = self.document.take().expect("it has just rendered the last page");
            if let Some(slot) = self.slot.take() {
                slot.store(Some(Arc::new(judge.rendered(std::mem::take(&mut self.kept)))));
            }
        }
        Some(page)
    }
}
