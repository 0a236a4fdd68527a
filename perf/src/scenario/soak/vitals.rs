//! Whether a server is at the end what it was at the beginning.

use std::time::Duration;

use crate::failure::{Failure, Result};
use crate::measure::Latencies;

/// The time of a run in slices. The first two are its warm-up.
const SLICES: usize = 20;
/// The slices that stand for the beginning or the end, a tenth of the time.
const WINDOW: usize = 2;
/// Memory may have grown by this share of the beginning's, or by so many bytes if that is more.
const RSS_GROWTH: f64 = 0.2;
const RSS_GROWTH_BYTES: f64 = 16.0 * 1024.0 * 1024.0;
/// The lookups' p99 may be so many times the beginning's and so much more.
const P99_TIMES: f64 = 3.0;
const P99_MORE_US: f64 = 2_000.0;
/// With fewer lookups in a window, its p99 is a handful of samples.
const LOOKUPS_MIN: u64 = 1_000;

/// What was seen in a slice of the time.
#[derive(Default)]
struct Slice {
    latencies: Latencies,
    rss_bytes: Vec<u64>,
}

/// What was seen of the server during a run.
pub struct Vitals {
    time: Duration,
    slices: Vec<Slice>,
}

/// The beginning or the end.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Window {
    pub lookups: u64,
    pub p99_us: Option<f64>,
    /// The mean.
    pub rss_bytes: Option<f64>,
}

impl Vitals {
    /// Of a run that is to take so long.
    pub fn of(time: Duration) -> Self {
        Self { time, slices: (0..SLICES).map(|_| Slice::default()).collect() }
    }

    /// A lookup that ended so long after the start.
    pub fn lookup(&mut self, elapsed: Duration, latency: Duration) {
        if let Some(slice) = self.slice(elapsed) {
            slice.latencies.record(latency);
        }
    }

    /// The server's memory so long after the start.
    pub fn rss(&mut self, elapsed: Duration, bytes: u64) {
        if let Some(slice) = self.slice(elapsed) {
            slice.rss_bytes.push(bytes);
        }
    }

    fn slice(&mut self, elapsed: Duration) -> Option<&mut Slice> {
        let complete = self.complete(elapsed);
        self.slices.get_mut(complete)
    }

    /// Slices that have passed.
    fn complete(&self, elapsed: Duration) -> usize {
        let passed = elapsed.as_nanos() * SLICES as u128 / self.time.as_nanos().max(1);
        usize::try_from(passed).unwrap_or(usize::MAX)
    }

    /// All lookups.
    pub fn latencies(&self) -> Latencies {
        sum(&self.slices)
    }

    /// The beginning, after the warm-up, and the end of a run that took so long. `None` when it was too short for
    /// both.
    pub fn windows(&self, elapsed: Duration) -> Option<(Window, Window)> {
        let complete = self.complete(elapsed).min(SLICES);
        let last = complete.checked_sub(WINDOW).filter(|&last| last >= 2 * WINDOW)?;
        Some((window(&self.slices[WINDOW..2 * WINDOW]), window(&self.slices[last..complete])))
    }
}

fn sum(slices: &[Slice]) -> Latencies {
    let mut latencies = Latencies::default();
    for slice in slices {
        latencies.add(&slice.latencies);
    }
    latencies
}

#[expect(clippy::cast_precision_loss, reason = "a mean")]
fn window(slices: &[Slice]) -> Window {
    let latencies = sum(slices);
    let rss: Vec<_> = slices.iter().flat_map(|slice| &slice.rss_bytes).map(|&bytes| bytes as f64).collect();
    Window {
        lookups: latencies.count(),
        p99_us: latencies.summary().map(|latency| latency.p99),
        rss_bytes: (!rss.is_empty()).then(|| rss.iter().sum::<f64>() / rss.len() as f64),
    }
}

/// Holds the end against the beginning.
///
/// # Errors
/// In what it is worse by more than may be.
pub fn compare(first: Window, last: Window) -> Result<()> {
    if let (Some(before), Some(after)) = (first.rss_bytes, last.rss_bytes)
        && after - before > (before * RSS_GROWTH).max(RSS_GROWTH_BYTES)
    {
        let mebibytes = |bytes: f64| bytes / 1024.0 / 1024.0;
        return Err(Failure::Degraded(format!(
            "resident memory grew from {:.1} to {:.1} MiB during the soak",
            mebibytes(before),
            mebibytes(after)
        )));
    }
    if let (Some(before), Some(after)) = (first.p99_us, last.p99_us)
        && first.lookups.min(last.lookups) >= LOOKUPS_MIN
        && after > before * P99_TIMES + P99_MORE_US
    {
        return Err(Failure::Degraded(format!(
            "the lookups' p99 rose from {before:.0} to {after:.0} us during the soak"
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn the_windows_are_tenths_after_the_warm_up_and_at_the_end() {
        let mut vitals = Vitals::of(MINUTE);
        for second in 0..60 {
            let elapsed = Duration::from_secs(second);
            vitals.rss(elapsed, second);
            vitals.lookup(elapsed, Duration::from_micros(second + 1));
        }
        vitals.rss(MINUTE * 2, 1 << 40);
        let rss = |elapsed| vitals.windows(elapsed).map(|(first, last)| (first.rss_bytes, last.rss_bytes));
        assert_eq!(rss(MINUTE), Some((Some(8.5), Some(56.5))));
        assert_eq!(rss(MINUTE * 2), rss(MINUTE), "what comes after the time is not looked at");
        assert_eq!(rss(MINUTE / 2), Some((Some(8.5), Some(26.5))), "it was ended early");
        assert_eq!(rss(MINUTE / 4), None);
        assert_eq!(vitals.latencies().count(), 60);
        assert_eq!(vitals.windows(MINUTE).unwrap().0.lookups, 6);
    }

    #[test]
    fn a_worse_end_is_named() {
        let window = |mebibytes: f64, p99_us: f64, lookups| Window {
            lookups,
            p99_us: Some(p99_us),
            rss_bytes: Some(mebibytes * 1024.0 * 1024.0),
        };
        let first = window(100.0, 500.0, 5_000);
        let problem = |last| compare(first, last).err().map(|failure| failure.to_string()).unwrap_or_default();
        assert_eq!(problem(window(119.0, 3_400.0, 5_000)), "");
        assert!(problem(window(121.0, 500.0, 5_000)).contains("grew from 100.0 to 121.0 MiB"));
        assert!(problem(window(100.0, 3_600.0, 5_000)).contains("rose from 500 to 3600 us"));
        assert_eq!(problem(window(100.0, 3_600.0, 999)), "", "too few to tell");
        assert!(compare(window(10.0, 1.0, 1), window(25.0, 1.0, 1)).is_ok(), "a small server may grow by 16 MiB");
    }
}
