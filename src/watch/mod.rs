//! Waiting for changes: requests that wait, and streams of events.
//!
//! The registry informs one observer of its commits, the [`Hub`]. It knows which worker has clients that wait for what, so
//! that a commit wakes these workers alone, and none while nobody waits. A worker's [`Watchers`] know its clients by what they
//! wait for; for the topics that are watched they have a [`View`]: what its watchers know. A change is the difference between
//! a view and the registry, so that any number of commits, the passing of time and a PING are found in the same way, and
//! nothing is missed and nothing is kept.
//!
//! - `hub`: which workers wait for what, and what has changed for them.
//! - `watchers`: a worker's clients.
//! - `view`: what watchers know of a topic, and the events that bring them up to date.
//! - `events`: events as text.
//! - `stream`: one client that watches.

mod events;
mod hub;
mod stream;
mod view;
mod watchers;

use std::time::Duration;

pub use hub::{Hub, Subject};
pub use stream::{Asked, Resume, Watch};
pub use view::{TopicFilter, View};
pub use watchers::{News, Sent, Watchers};

use crate::options::Options;

/// What the operator asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WatchOptions {
    /// Whether responses have tags, and clients may wait.
    pub is_enabled: bool,
    /// For how long a client watches; [`Duration::MAX`] for ever.
    pub age_max: Duration,
}

impl WatchOptions {
    pub fn of(options: &Options) -> Self {
        let age_max = if options.max_watch_age.is_zero() { Duration::MAX } else { options.max_watch_age };
        Self { is_enabled: options.watch, age_max }
    }
}
