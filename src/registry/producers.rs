//! The producers that are there, by their ids: a persistent table whose copies share what did not change.
//!
//! An id is a place, so finding a producer is no search. (A tree, in whose place this is, took four times as long, which
//! was a fifth of the time to render a response, and three times the memory.)

use std::sync::Arc;

use super::names::ProducerId;
use super::producer::Producer;
use super::table::Table;

/// By source, then by slot.
#[derive(Clone, Default)]
pub(super) struct Producers {
    sources: Arc<[Table<Producer>]>,
    len: usize,
}

impl Producers {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    #[inline]
    pub(super) fn get(&self, id: ProducerId) -> Option<&Arc<Producer>> {
        self.sources.get(id.source_number())?.get(id.slot()).filter(|producer| producer.is(id))
    }

    /// # Panics
    /// When its place is taken: a connection identifies once, and its slot is another's only after its end.
    pub(super) fn insert(&mut self, producer: Arc<Producer>) {
        let id = producer.id();
        if self.sources.len() <= id.source_number() {
            let missing = id.source_number() + 1 - self.sources.len();
            let more = std::iter::repeat_n(Table::default(), missing);
            self.sources = self.sources.iter().cloned().chain(more).collect();
        }
        let before = Arc::make_mut(&mut self.sources)[id.source_number()].set(id.slot(), Some(producer));
        assert!(before.is_none(), "a producer id is given once");
        self.len += 1;
    }

    /// Lists what is in the place of an id as another producer, which has that place in addition to its own from now on.
    pub(super) fn hand_over(&mut self, place: ProducerId, to: Arc<Producer>) {
        self.set(place, Some(to));
        self.len -= 1;
    }

    /// Puts a producer back into a place that was handed over.
    pub(super) fn take_back(&mut self, producer: Arc<Producer>) {
        self.set(producer.id(), Some(producer));
        self.len += 1;
    }

    /// Empties a place that was handed over.
    pub(super) fn clear(&mut self, place: ProducerId) {
        self.set(place, None);
    }

    fn set(&mut self, place: ProducerId, producer: Option<Arc<Producer>>) {
        Arc::make_mut(&mut self.sources)[place.source_number()].set(place.slot(), producer);
    }

    /// # Panics
    /// When it is not there.
    pub(super) fn remove(&mut self, id: ProducerId) {
        assert!(self.get(id).is_some(), "a producer disconnects once");
        Arc::make_mut(&mut self.sources)[id.source_number()].set(id.slot(), None);
        self.len -= 1;
    }

    /// All of them in the order of their ids, from behind `last` on.
    pub(super) fn after(&self, last: Option<ProducerId>) -> impl Iterator<Item = &Arc<Producer>> {
        let (source, slot) = last.map_or((0, 0), |id| (id.source_number(), id.slot() + 1));
        let rest = self.sources.iter().skip(source).enumerate();
        let all = rest.flat_map(move |(nth, places)| {
            let source = source + nth;
            places.from(if nth == 0 { slot } else { 0 }).map(move |(slot, producer)| (source, slot, producer))
        });
        // A place that was handed over holds what another place has.
        let own = |&(source, slot, producer): &(usize, usize, &Arc<Producer>)| {
            producer.id().source_number() == source && producer.id().slot() == slot
        };
        all.filter(own).map(|(_, _, producer)| producer)
    }

    /// The places of a source that are taken, each with what it holds.
    pub(super) fn places(&self, source: usize) -> impl Iterator<Item = (usize, &Arc<Producer>)> {
        self.sources.get(source).into_iter().flat_map(|places| places.from(0))
    }
}
