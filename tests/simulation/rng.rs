//! Every choice of a run comes from its seed.

/// A source of choices; the same seed makes the same ones.
pub struct Rng(fastrand::Rng);

impl Rng {
    pub fn new(seed: u64) -> Self {
        Self(fastrand::Rng::with_seed(seed))
    }

    pub fn next(&mut self) -> u64 {
        self.0.u64(..)
    }

    /// From zero to `end`, which is not included.
    pub fn below(&mut self, end: usize) -> usize {
        self.0.usize(..end)
    }

    /// Both ends are included.
    pub fn between(&mut self, low: usize, high: usize) -> usize {
        self.0.usize(low..=high)
    }

    /// From 1 to `high`, of any magnitude: as often below 10 as above a tenth of it.
    pub fn size(&mut self, high: usize) -> usize {
        let bits = self.below(high.ilog2() as usize + 1);
        self.between(1, (2 << bits).min(high))
    }

    /// True in so many of a thousand cases.
    pub fn chance(&mut self, per_mille: usize) -> bool {
        self.below(1000) < per_mille
    }

    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }

    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        self.0.shuffle(items);
    }
}
