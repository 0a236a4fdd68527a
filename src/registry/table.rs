//! Finds things by a number: a persistent array whose copies share what did not change.
//!
//! Three steps lead to an element, and a change copies a leaf and a group: 128 references. (With the relaxed tree of a
//! library, in whose place this is, lookups over 100,000 topics took 4 % longer, the kernel's share included.)

use std::sync::Arc;

/// Elements of a leaf, and leaves of a group.
const FANOUT: usize = 64;

type Leaf<T> = Arc<[Option<Arc<T>>; FANOUT]>;
type Group<T> = Arc<[Leaf<T>; FANOUT]>;

/// Elements at places that are numbered from 0 on.
pub(super) struct Table<T> {
    /// As many as it takes: with a million places 245.
    groups: Arc<[Group<T>]>,
    /// One more than the highest place that was ever taken.
    len: usize,
}

impl<T> Clone for Table<T> {
    fn clone(&self) -> Self {
        Self { groups: Arc::clone(&self.groups), len: self.len }
    }
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self { groups: Arc::default(), len: 0 }
    }
}

impl<T> Table<T> {
    /// One more than the highest place that was ever taken.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    #[inline]
    pub(super) fn get(&self, at: usize) -> Option<&Arc<T>> {
        self.groups.get(at / FANOUT / FANOUT)?[at / FANOUT % FANOUT][at % FANOUT].as_ref()
    }

    /// Puts something into a place, or nothing, and returns what was there.
    pub(super) fn set(&mut self, at: usize, element: Option<Arc<T>>) -> Option<Arc<T>> {
        let group = at / FANOUT / FANOUT;
        if group >= self.groups.len() {
            let empty = Arc::new([const { None }; FANOUT]);
            let new = Arc::new(std::array::from_fn(|_| Arc::clone(&empty)));
            let missing = group + 1 - self.groups.len();
            self.groups = self.groups.iter().cloned().chain(std::iter::repeat_n(new, missing)).collect();
        }
        self.len = self.len.max(at + 1);
        let group = Arc::make_mut(&mut Arc::make_mut(&mut self.groups)[group]);
        let leaf = Arc::make_mut(&mut group[at / FANOUT % FANOUT]);
        std::mem::replace(&mut leaf[at % FANOUT], element)
    }

    /// What is at this place and behind it, each with its place.
    pub(super) fn from(&self, at: usize) -> impl Iterator<Item = (usize, &Arc<T>)> {
        (at..self.len).filter_map(|at| Some((at, self.get(at)?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_do_not_see_later_changes() {
        let mut table = Table::default();
        let places = [0, 1, FANOUT - 1, FANOUT, FANOUT * FANOUT - 1, FANOUT * FANOUT, 3 * FANOUT * FANOUT + 70];
        let mut copies = vec![table.clone()];
        for at in places {
            assert!(table.set(at, Some(Arc::new(at))).is_none());
            copies.push(table.clone());
        }
        for at in places {
            assert_eq!(table.set(at, None).as_deref(), Some(&at));
        }
        assert_eq!((table.from(0).count(), table.len()), (0, places[places.len() - 1] + 1));
        for (count, copy) in copies.iter().enumerate() {
            let found: Vec<_> = copy.from(0).map(|(at, element)| (at, **element)).collect();
            assert_eq!(found, places[..count].iter().map(|&at| (at, at)).collect::<Vec<_>>());
            assert_eq!(copy.from(2).count(), count.saturating_sub(2));
            assert!(copy.get(2).is_none() && copy.get(usize::MAX).is_none());
        }
    }
}
