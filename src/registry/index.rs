//! Finds numbers by the hash of a name: a persistent table whose copies share what did not change.
//!
//! The upper bits of a hash choose one of [`LEAVES`] leaves, and a leaf is a sorted array: with 100 k topics some 24
//! words. So a search is four steps at any size (a persistent tree, in whose place this is, took a dozen, and twice
//! the memory), and an insertion is a `memcpy` of a leaf. Entries are plain numbers: copying them counts no
//! references.

use std::sync::Arc;

/// Leaves of a group, and groups. With a million topics a leaf has 2 KB.
const FANOUT: usize = 64;
const LEAVES: usize = FANOUT * FANOUT;

/// Hashes, each with its number in the lower half, in order.
type Leaf = Arc<[u64]>;
type Group = [Leaf; FANOUT];

/// Numbers by hash; several may have the same hash.
#[derive(Clone)]
pub(super) struct Index {
    groups: Arc<[Arc<Group>]>,
    len: usize,
}

impl Default for Index {
    fn default() -> Self {
        let empty: Arc<Group> = Arc::new(std::array::from_fn(|_| Leaf::default()));
        Self { groups: std::iter::repeat_n(empty, FANOUT).collect(), len: 0 }
    }
}

impl Index {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// The numbers with this hash.
    pub(super) fn find(&self, hash: u32) -> impl Iterator<Item = u32> {
        let (group, leaf) = place(hash);
        let leaf = &self.groups[group][leaf];
        let first = leaf.partition_point(|&entry| entry < self::entry(hash, 0));
        let same = move |entry: &&u64| **entry >> u32::BITS == u64::from(hash);
        #[expect(clippy::cast_possible_truncation, reason = "the lower half")]
        leaf[first..].iter().take_while(same).map(|&entry| entry as u32)
    }

    /// # Panics
    /// When it is there already.
    pub(super) fn insert(&mut self, hash: u32, number: u32) {
        let entry = entry(hash, number);
        let leaf = self.leaf(hash);
        let at = leaf.binary_search(&entry).expect_err("a number is inserted once");
        *leaf = leaf[..at].iter().chain([&entry]).chain(&leaf[at..]).copied().collect();
        self.len += 1;
    }

    /// # Panics
    /// When it is not there.
    pub(super) fn remove(&mut self, hash: u32, number: u32) {
        let entry = entry(hash, number);
        let leaf = self.leaf(hash);
        let at = leaf.binary_search(&entry).expect("a number is removed once");
        *leaf = leaf[..at].iter().chain(&leaf[at + 1..]).copied().collect();
        self.len -= 1;
    }

    fn leaf(&mut self, hash: u32) -> &mut Leaf {
        let (group, leaf) = place(hash);
        &mut Arc::make_mut(&mut Arc::make_mut(&mut self.groups)[group])[leaf]
    }
}

fn entry(hash: u32, number: u32) -> u64 {
    u64::from(hash) << u32::BITS | u64::from(number)
}

/// Group, and leaf in it.
fn place(hash: u32) -> (usize, usize) {
    let leaf = (hash >> (u32::BITS - LEAVES.trailing_zeros())) as usize;
    (leaf / FANOUT, leaf % FANOUT)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// With few hashes, so that numbers share them, and a copy from before each change.
    #[test]
    fn it_is_a_set_of_pairs() {
        let seed = fastrand::u64(..);
        println!("seed {seed}");
        let mut rng = fastrand::Rng::with_seed(seed);
        let (mut index, mut model) = (Index::default(), BTreeSet::new());
        for _ in 0..20_000 {
            let hash = rng.u32(..8).wrapping_mul(0x2000_0003);
            let number = rng.u32(..64);
            let before = (index.clone(), model.clone());
            if model.insert((hash, number)) {
                index.insert(hash, number);
            } else {
                model.remove(&(hash, number));
                index.remove(hash, number);
            }
            for (index, model) in [before, (index.clone(), model.clone())] {
                let expected: Vec<_> =
                    model.range((hash, 0)..=(hash, u32::MAX)).map(|&(_, number)| number).collect();
                assert_eq!(index.find(hash).collect::<Vec<_>>(), expected);
                assert_eq!(index.len(), model.len());
            }
        }
    }
}
