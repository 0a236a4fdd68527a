//! Latencies, to three digits, in a histogram.

use std::time::Duration;

use hdrhistogram::Histogram;

use crate::report::{Bar, Latency};

/// Longer ones are counted as this.
const LONGEST: Duration = Duration::from_secs(60 * 60);
const DIGITS: u8 = 3;
/// Where the bars of a histogram end, in each power of ten.
const BAR_ENDS: [u64; 5] = [1, 2, 3, 5, 7];

/// A distribution of latencies, kept in nanoseconds.
pub struct Latencies(Histogram<u64>);

impl Default for Latencies {
    fn default() -> Self {
        let longest = u64::try_from(LONGEST.as_nanos()).expect("an hour fits");
        Self(Histogram::new_with_bounds(1, longest, DIGITS).expect("the bounds are constants in order"))
    }
}

impl Latencies {
    pub fn record(&mut self, latency: Duration) {
        self.0.saturating_record(u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX));
    }

    /// Takes in what another has recorded.
    ///
    /// # Panics
    /// Never: all have the same bounds.
    pub fn add(&mut self, other: &Self) {
        self.0.add(&other.0).expect("the bounds are the same");
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        self.0.len()
    }

    /// The quantiles of a report, unless there are no latencies.
    pub fn summary(&self) -> Option<Latency> {
        (!self.0.is_empty()).then(|| Latency {
            p50: self.quantile(0.5),
            p90: self.quantile(0.9),
            p99: self.quantile(0.99),
            p999: self.quantile(0.999),
            max: microseconds(self.0.max()),
        })
    }

    /// A histogram of a few bars for each power of ten, from the shortest latency to the longest.
    pub fn bars(&self) -> Vec<Bar> {
        let ends = (0..).flat_map(|power| BAR_ENDS.map(|end| end * 10_u64.pow(power)));
        let (mut from, mut bars) = (0, Vec::new());
        for end in ends {
            if from >= self.0.max() {
                return bars;
            }
            let count = self.0.count_between(from + 1, end);
            if count > 0 || !bars.is_empty() {
                bars.push(Bar { up_to_us: microseconds(end), count });
            }
            from = end;
        }
        unreachable!("the longest latency has an end")
    }

    fn quantile(&self, quantile: f64) -> f64 {
        // The upper end of a bucket can lie above the largest latency that is in it.
        microseconds(self.0.value_at_quantile(quantile).min(self.0.max()))
    }
}

#[expect(clippy::cast_precision_loss, reason = "three digits are kept")]
fn microseconds(nanoseconds: u64) -> f64 {
    nanoseconds as f64 / 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_microseconds_to_three_digits() {
        let mut latencies = Latencies::default();
        assert_eq!(latencies.summary(), None);
        for micros in 1..=1000 {
            latencies.record(Duration::from_micros(micros));
        }
        let Latency { p50, p90, p99, p999, max } = latencies.summary().unwrap();
        for (value, exact) in [(p50, 500.0), (p90, 900.0), (p99, 990.0), (p999, 999.0), (max, 1000.0)] {
            assert!((value - exact).abs() <= exact / 1000.0, "{value} for {exact}");
        }
        assert_eq!(latencies.count(), 1000);
    }

    #[test]
    fn bars_reach_from_the_shortest_latency_to_the_longest() {
        let mut latencies = Latencies::default();
        assert!(latencies.bars().is_empty());
        for micros in [120, 150, 180, 450, 460] {
            latencies.record(Duration::from_micros(micros));
        }
        let bars: Vec<_> = latencies.bars().iter().map(|bar| (bar.up_to_us, bar.count)).collect();
        assert_eq!(bars, [(200.0, 3), (300.0, 0), (500.0, 2)]);
    }

    #[test]
    fn beyond_the_longest_is_counted_as_the_longest() {
        let mut latencies = Latencies::default();
        latencies.record(Duration::from_secs(1 << 40));
        assert!(latencies.summary().unwrap().max >= 3.6e9);
    }
}
