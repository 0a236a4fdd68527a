//! Latencies, to three digits, in a histogram.

use std::time::Duration;

use hdrhistogram::Histogram;

use crate::report::Latency;

/// Longer ones are counted as this.
const LONGEST: Duration = Duration::from_secs(60 * 60);
const DIGITS: u8 = 3;

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
    fn beyond_the_longest_is_counted_as_the_longest() {
        let mut latencies = Latencies::default();
        latencies.record(Duration::from_secs(1 << 40));
        assert!(latencies.summary().unwrap().max >= 3.6e9);
    }
}
