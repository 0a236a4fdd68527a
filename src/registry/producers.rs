//! The producers that are there, by their ids: a persistent table whose copies share what did not change.
//!
//! An id is a place, so finding a producer is no search. (A tree, in whose place this is, took four times as long, which
//! was a fifth of the time to render an answer, and three times the memory.)

use std::sync::Arc;

use imbl::Vector;

use super::names::ProducerId;
use super::producer::Producer;

/// By worker, then by slot.
#[derive(Clone, Default)]
pub(super) struct Producers {
    workers: Vector<Vector<Option<Arc<Producer>>>>,
    len: usize,
}

impl Producers {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(super) fn get(&self, id: ProducerId) -> Option<&Arc<Producer>> {
        let place = self.workers.get(id.worker())?.get(id.slot())?;
        place.as_ref().filter(|producer| producer.id() == id)
    }

    /// # Panics
    /// When its place is taken: a connection identifies once, and its slot is another's only after its end.
    pub(super) fn insert(&mut self, producer: Arc<Producer>) {
        let id = producer.id();
        while self.workers.len() <= id.worker() {
            self.workers.push_back(Vector::new());
        }
        let worker = &mut self.workers[id.worker()];
        while worker.len() <= id.slot() {
            worker.push_back(None);
        }
        let before = worker[id.slot()].replace(producer);
        assert!(before.is_none(), "a producer id is given once");
        self.len += 1;
    }

    /// # Panics
    /// When it is not there.
    pub(super) fn remove(&mut self, id: ProducerId) {
        assert!(self.get(id).is_some(), "a producer disconnects once");
        self.workers[id.worker()][id.slot()] = None;
        self.len -= 1;
    }

    /// All of them in the order of their ids, from behind `last` on.
    pub(super) fn after(&self, last: Option<ProducerId>) -> impl Iterator<Item = &Arc<Producer>> {
        let (worker, slot) = last.map_or((0, 0), |id| (id.worker(), id.slot() + 1));
        let first = self.workers.get(worker).map(|places| places.focus().narrow(slot.min(places.len())..));
        let others = self.workers.iter().skip(worker + 1).map(Vector::focus);
        first.into_iter().chain(others).flatten().filter_map(Option::as_ref)
    }
}
