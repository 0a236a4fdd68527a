//! Finds things by a number: a persistent array whose copies share what did not change.
//!
//! Four steps lead to an element. A change copies what it must not touch because another copy of the table has it too: at
//! most a leaf, two nodes and the list of the groups, and nothing where this table is the only one that has them. (Leaves
//! and nodes of 64 elements made a commit beside a reader that never rests take 1.7 times as long, and were no faster
//! without one. With the relaxed tree of a library lookups over 100,000 topics took 4 % longer, the kernel's share
//! included.)

use std::array;
use std::iter;
use std::sync::Arc;

/// Elements of a leaf, leaves of a node, and nodes of a group.
const FANOUT: usize = 16;
const GROUP_ELEMENTS: usize = FANOUT * FANOUT * FANOUT;

type Leaf<T> = Arc<[Option<Arc<T>>; FANOUT]>;
type Node<T> = Arc<[Leaf<T>; FANOUT]>;
type Group<T> = Arc<[Node<T>; FANOUT]>;

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
        let group = self.groups.get(at / GROUP_ELEMENTS)?;
        group[at / FANOUT / FANOUT % FANOUT][at / FANOUT % FANOUT][at % FANOUT].as_ref()
    }

    /// Puts something into a place, or nothing, and returns what was there.
    pub(super) fn set(&mut self, at: usize, element: Option<Arc<T>>) -> Option<Arc<T>> {
        let group = at / GROUP_ELEMENTS;
        if group >= self.groups.len() {
            let leaf = Leaf::new([const { None }; FANOUT]);
            let node = Node::new(array::from_fn(|_| Arc::clone(&leaf)));
            let new = Group::new(array::from_fn(|_| Arc::clone(&node)));
            let missing = group + 1 - self.groups.len();
            self.groups = self.groups.iter().cloned().chain(iter::repeat_n(new, missing)).collect();
        }
        self.len = self.len.max(at + 1);
        std::mem::replace(self.place(at).expect("its group was just made"), element)
    }

    /// What is at this place, to be changed; `None` when nothing is.
    pub(super) fn get_mut(&mut self, at: usize) -> Option<&mut Arc<T>> {
        self.place(at)?.as_mut()
    }

    /// `None` when no place in the same group was ever taken.
    fn place(&mut self, at: usize) -> Option<&mut Option<Arc<T>>> {
        let group = Arc::make_mut(Arc::make_mut(&mut self.groups).get_mut(at / GROUP_ELEMENTS)?);
        let node = Arc::make_mut(&mut group[at / FANOUT / FANOUT % FANOUT]);
        Some(&mut Arc::make_mut(&mut node[at / FANOUT % FANOUT])[at % FANOUT])
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
        let places = [0, 1, 15, 16, 255, 256, GROUP_ELEMENTS - 1, GROUP_ELEMENTS, 3 * GROUP_ELEMENTS + 70];
        let mut copies = vec![table.clone()];
        for at in places {
            assert!(table.set(at, Some(Arc::new(at))).is_none());
            copies.push(table.clone());
        }
        *table.get_mut(1).expect("taken") = Arc::new(7);
        assert_eq!(table.set(1, Some(Arc::new(1))).as_deref(), Some(&7));
        assert!(table.get_mut(2).is_none() && table.get_mut(usize::MAX).is_none());
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

    #[test]
    fn a_table_that_is_alone_is_changed_in_place() {
        let mut table = Table::default();
        table.set(5, Some(Arc::new(1)));
        let groups = |table: &Table<_>| table.groups.as_ptr();
        let (before, leaf) = (groups(&table), Arc::as_ptr(&table.groups[0][0][0]));
        table.set(6, Some(Arc::new(2)));
        assert!(groups(&table) == before && Arc::as_ptr(&table.groups[0][0][0]) == leaf);
        let copy = table.clone();
        table.set(7, Some(Arc::new(3)));
        assert!(groups(&copy) == before && groups(&table) != before);
        assert!(
            Arc::as_ptr(&table.groups[0][0][0]) != leaf
                && Arc::ptr_eq(&table.groups[0][0][1], &copy.groups[0][0][1])
        );
    }
}
