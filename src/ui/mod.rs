//! The page for browsers at `/ui/`: its files, the documents that it reads, and what only they need.
//!
//! The page shows what a lookup daemon alone knows: which nsqd nodes are connected, since when, and why others are gone. It
//! changes nothing. `files` are what a browser loads; `documents` what the page's script reads, page by page, with the search
//! on the server; the `journal` keeps the last joins and departures. Lists that are searched are made when somebody looks at
//! them, and kept until the registry has changed (`cached`), so that the page costs nothing while nobody does.

mod cached;
mod documents;
mod files;
mod journal;
mod names;
mod nodes;
mod object;
mod overview;
mod search;
mod topics;

use std::sync::Arc;

pub use documents::{Arguments, NoDocument, document};
pub use files::{File, file};
pub use journal::{Entry, Journal, Kind};

use cached::Cached;
use names::Names;
use nodes::Nodes;

/// What the page needs beside the registry. Shared by all workers.
#[derive(Default)]
pub struct Ui {
    pub journal: Journal,
    names: Arc<Cached<Names>>,
    nodes: Arc<Cached<Nodes>>,
}
