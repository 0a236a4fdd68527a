//! Histograms with fixed buckets.

use std::array;
use std::time::Duration;

use super::counter::Counter;

/// Upper bounds of buckets, as integers: nanoseconds, or a number of something.
pub(super) type Bounds<const N: usize> = [u64; N];

/// From request to response, 10 us to 1 s.
pub(super) const RESPONSE_NANOS: Bounds<16> = {
    let [_, _, _, from_10_us @ ..] = WORK_NANOS;
    from_10_us
};

/// Work of a worker, 1 us to 1 s.
pub(super) const WORK_NANOS: Bounds<19> = {
    let mut bounds = [0; 19];
    let (mut at, mut decade) = (0, 1_000);
    while at < bounds.len() {
        bounds[at] = decade * [1, 2, 5][at % 3];
        at += 1;
        if at.is_multiple_of(3) {
            decade *= 10;
        }
    }
    bounds
};

/// Changes of a batch, which ends at about a thousand ([`ITERATION_WEIGHT_MAX`](crate::limits::ITERATION_WEIGHT_MAX)).
pub(super) const CHANGES: Bounds<11> = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000];

/// Of one worker. What is observed costs two additions. The bounds are an argument, so that they take no memory.
pub struct Histogram<const N: usize> {
    buckets: [Counter; N],
    /// What exceeds all bounds.
    beyond: Counter,
    sum: Counter,
}

impl<const N: usize> Default for Histogram<N> {
    fn default() -> Self {
        let (beyond, sum) = Default::default();
        Self { buckets: array::from_fn(|_| Counter::default()), beyond, sum }
    }
}

impl<const N: usize> Histogram<N> {
    /// Takes a value that was observed so many times.
    #[inline]
    pub(super) fn observe(&self, bounds: &Bounds<N>, value: u64, times: u64) {
        let bucket = bounds.iter().zip(&self.buckets).find(|(bound, _)| value <= **bound);
        bucket.map_or(&self.beyond, |(_, bucket)| bucket).add_u64(times);
        self.sum.add_u64(value.saturating_mul(times));
    }

    /// The sum of what was observed.
    pub(super) fn sum(&self) -> u64 {
        self.sum.get()
    }
}

/// The histograms of all workers, added up.
pub(super) struct Total<const N: usize> {
    /// The last is what exceeds all bounds.
    pub buckets: Vec<u64>,
    pub sum: u64,
}

impl<const N: usize> Total<N> {
    pub(super) fn of<'a>(histograms: impl Iterator<Item = &'a Histogram<N>>) -> Self {
        let mut total = Self { buckets: vec![0; N + 1], sum: 0 };
        for histogram in histograms {
            let counters = histogram.buckets.iter().chain([&histogram.beyond]);
            total.buckets.iter_mut().zip(counters).for_each(|(bucket, counter)| *bucket += counter.get());
            total.sum += histogram.sum();
        }
        total
    }
}

/// As many nanoseconds as fit, which is 584 years.
pub(super) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_in_the_first_bucket_that_holds_it() {
        let [some, other] = [(); 2].map(|()| Histogram::default());
        some.observe(&CHANGES, 1, 1);
        some.observe(&CHANGES, 3, 2);
        other.observe(&CHANGES, 5, 1);
        other.observe(&CHANGES, 2001, 1);
        let Total { buckets, sum } = Total::of([&some, &other].into_iter());
        assert_eq!(buckets, [1, 0, 3, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
        assert_eq!(sum, 1 + 2 * 3 + 5 + 2001);
    }

    #[test]
    fn bounds_are_round_numbers_in_order() {
        assert_eq!(WORK_NANOS[..4], [1_000, 2_000, 5_000, 10_000]);
        assert_eq!((RESPONSE_NANOS[0], RESPONSE_NANOS[15]), (10_000, 1_000_000_000));
        assert!(WORK_NANOS.is_sorted() && CHANGES.is_sorted());
    }
}
