//! Something that is made from the whole registry, and kept until the registry has changed.
//!
//! A small one is made by the worker that needs it, at once. A large one is made by a thread of its own, so that no connection
//! of the worker waits for it: until then there is the one before, or none. As long as the registry changes all the time, it is
//! made again only so often that it takes a small part of a core.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::limits::UI_INDEX_REST;
use crate::registry::Registry;

/// The last that was made.
pub(super) struct Cached<T> {
    last: Mutex<Option<Made<T>>>,
    /// A thread is making the next one.
    is_making: AtomicBool,
}

struct Made<T> {
    value: Arc<T>,
    /// Of the registry, before it was made.
    revision: u64,
    at: Instant,
    took: Duration,
}

/// What there is.
pub(super) struct Found<T> {
    /// `None` while the first is being made.
    pub(super) value: Option<Arc<T>>,
    /// It is as of now.
    pub(super) is_current: bool,
}

impl<T> Default for Cached<T> {
    fn default() -> Self {
        Self { last: Mutex::new(None), is_making: AtomicBool::new(false) }
    }
}

impl<T: Send + Sync + 'static> Cached<T> {
    /// That of a revision of the registry, or what there is instead. `is_small` is made here.
    pub(super) fn get(
        self: &Arc<Self>,
        (registry, revision): (&Arc<Registry>, u64),
        is_small: bool,
        render: fn(&Registry) -> T,
    ) -> Found<T> {
        let (value, is_due) = match &*self.lock() {
            Some(last) if last.revision == revision => {
                return Found { value: Some(Arc::clone(&last.value)), is_current: true };
            }
            Some(last) => (Some(Arc::clone(&last.value)), last.at.elapsed() > UI_INDEX_REST * last.took),
            None => (None, true),
        };
        if is_small {
            return Found { value: Some(self.make(registry, revision, render)), is_current: true };
        }
        if is_due && !self.is_making.swap(true, Ordering::Acquire) {
            let (cached, registry) = (Arc::clone(self), Arc::clone(registry));
            let thread = thread::Builder::new().name("ui-index".into()).spawn(move || {
                cached.make(&registry, revision, render);
                cached.is_making.store(false, Ordering::Release);
            });
            if thread.is_err() {
                // At the limit of threads. The next request tries again.
                self.is_making.store(false, Ordering::Release);
            }
        }
        Found { value, is_current: false }
    }

    fn make(&self, registry: &Registry, revision: u64, render: fn(&Registry) -> T) -> Arc<T> {
        let begun = Instant::now();
        let value = Arc::new(render(registry));
        let took = begun.elapsed();
        let last = Made { value: Arc::clone(&value), revision, at: Instant::now(), took };
        let before = self.lock().replace(last);
        // Freed after the lock.
        drop(before);
        value
    }

    /// Held for a moment, so that a thread that panicked with it has left nothing half done.
    fn lock(&self) -> MutexGuard<'_, Option<Made<T>>> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::Lifetimes;

    #[test]
    fn it_is_made_once_for_each_revision() {
        let registry = Arc::new(Registry::new(Lifetimes::default()));
        let cached = Arc::<Cached<Instant>>::default();
        let get = |revision, is_small| cached.get((&registry, revision), is_small, |_| Instant::now());
        let first = get(1, true);
        let value = |found: &Found<Instant>| found.value.as_deref().copied();
        assert!(
            first.is_current && value(&get(1, true)) == value(&first) && value(&get(1, false)) == value(&first)
        );
        let second = get(2, true);
        assert!(second.is_current && value(&second) > value(&first));
    }

    #[test]
    fn a_large_one_is_made_elsewhere() {
        let registry = Arc::new(Registry::new(Lifetimes::default()));
        let cached = Arc::<Cached<thread::ThreadId>>::default();
        let get = |revision| cached.get((&registry, revision), false, |_| thread::current().id());
        let first = get(1);
        assert!(first.value.is_none() && !first.is_current);
        let begun = Instant::now();
        let made = loop {
            let found = get(1);
            assert!(begun.elapsed() < Duration::from_secs(20), "it is not made");
            match found.value {
                Some(value) if found.is_current => break value,
                _ => thread::yield_now(),
            }
        };
        assert_ne!(*made, thread::current().id());
        assert_eq!(get(2).value, Some(made), "there is the one before");
    }
}
