//! Which figures of a cell are shown, and what a server's samples say of each.

use super::record::{Comparison, Contender, Outcome};
use super::statistics::Spread;
use super::suite::{Cell, Name};
use crate::report::{Latency, Report};

/// A figure in the reports of a cell.
#[derive(Clone, Copy, Debug)]
pub struct Measure {
    pub cell: Cell,
    pub label: &'static str,
    pub unit: Unit,
    pub of: fn(&Report) -> Option<f64>,
}

/// What a value counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// For each CPU second of the server.
    PerCpuSecond,
    /// For each second that passed: the client can be the limit of this.
    PerSecond,
    Bytes,
    Seconds,
}

/// All that are shown, in the order of the table.
pub const MEASURES: [Measure; 19] = {
    use Cell::{Churn, Disconnect, Idle, Lookup, Nodes, Pipelined, Populate, Reconnecting, Storm};
    use Unit::{Bytes, PerCpuSecond, PerSecond, Seconds};
    [
        new(Lookup, "lookups for each server CPU second", PerCpuSecond, per_cpu_second),
        new(Lookup, "lookups a second", PerSecond, |report| Some(report.per_second)),
        new(Lookup, "lookup p50, closed loop", Seconds, |report| latency(report, |latency| latency.p50)),
        new(Lookup, "lookup p99, closed loop", Seconds, |report| latency(report, |latency| latency.p99)),
        new(Pipelined, "lookups for each server CPU second, pipelined", PerCpuSecond, per_cpu_second),
        new(Reconnecting, "lookups for each server CPU second, a connection each", PerCpuSecond, per_cpu_second),
        new(Nodes, "`/nodes` p50", Seconds, |report| latency(report, |latency| latency.p50)),
        new(Churn, "lookup p50, without churn", Seconds, |report| micros(report, "lookup_without_writes_us_p50")),
        new(Churn, "lookup p99, without churn", Seconds, |report| micros(report, "lookup_without_writes_us_p99")),
        new(Churn, "lookup p50, with churn", Seconds, |report| latency(report, |latency| latency.p50)),
        new(Churn, "lookup p99, with churn", Seconds, |report| latency(report, |latency| latency.p99)),
        new(Churn, "from OK to the first lookup, p50", Seconds, |report| {
            micros(report, "visible_after_ok_us_p50")
        }),
        new(Populate, "registrations for each server CPU second, pipelined", PerCpuSecond, per_cpu_second),
        new(Populate, "memory with all registered", Bytes, memory),
        new(Storm, "storm, until every lookup is complete", Seconds, |report| {
            figure(report, "seconds_until_complete")
        }),
        new(Storm, "storm, server CPU time", Seconds, cpu_seconds),
        new(Disconnect, "mass disconnect, until no lookup shows it", Seconds, |report| {
            figure(report, "seconds_until_no_lookup")
        }),
        new(Idle, "memory for each idle connection", Bytes, |report| figure(report, "rss_bytes_per_connection")),
        new(Idle, "CPU time for each heartbeat", Seconds, |report| {
            per_cpu_second(report).map(|heartbeats| 1.0 / heartbeats)
        }),
    ]
};

const fn new(cell: Cell, label: &'static str, unit: Unit, of: fn(&Report) -> Option<f64>) -> Measure {
    Measure { cell, label, unit, of }
}

fn figure(report: &Report, name: &str) -> Option<f64> {
    report.figures.get(name).copied()
}

/// A figure in microseconds, as seconds.
fn micros(report: &Report, name: &str) -> Option<f64> {
    figure(report, name).map(|micros| micros / 1e6)
}

fn latency(report: &Report, quantile: fn(Latency) -> f64) -> Option<f64> {
    report.latency_us.map(|latency| quantile(latency) / 1e6)
}

/// `None` when there was nothing to do.
fn per_cpu_second(report: &Report) -> Option<f64> {
    report.server.map(|server| server.operations_per_cpu_second).filter(|rate| *rate > 0.0)
}

fn cpu_seconds(report: &Report) -> Option<f64> {
    report.server.map(|server| server.cpu_seconds)
}

#[expect(clippy::cast_precision_loss, reason = "memory is not exact to the byte")]
fn memory(report: &Report) -> Option<f64> {
    report.server.map(|server| server.rss_bytes as f64)
}

/// What a server's samples of a cell say of a measure.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Score {
    /// The cell needs what the server does not have, or was not reached.
    Absent,
    /// The reports do not hold it.
    Unknown,
    Measured {
        spread: Spread,
        /// The client was the bottleneck in most samples.
        is_client_bound: bool,
    },
    /// So many samples of so many were given up after these seconds.
    OverLimit { seconds: f64, over: usize, of: usize },
    /// A sample ended with an error.
    Failed,
}

impl Score {
    /// How `server` did.
    pub fn of(comparison: &Comparison, scale: Name, measure: &Measure, server: &Contender) -> Self {
        let outcomes: Vec<_> = comparison.outcomes(scale, measure.cell, &server.name).collect();
        let mut reports = Vec::new();
        let mut limits = Vec::new();
        for outcome in &outcomes {
            match outcome {
                Outcome::Measured(report) => reports.push(report),
                Outcome::OverLimit { seconds } => limits.push(*seconds),
                Outcome::Failed { .. } => return Self::Failed,
            }
        }
        if let Some(Spread { max: seconds, .. }) = Spread::of(limits.iter().copied()) {
            return Self::OverLimit { seconds, over: limits.len(), of: outcomes.len() };
        }
        let bound = reports.iter().filter(|report| report.client_bound).count();
        match Spread::of(reports.iter().filter_map(|report| (measure.of)(report))) {
            Some(spread) => Self::Measured { spread, is_client_bound: bound * 2 > reports.len() },
            None if outcomes.is_empty() => Self::Absent,
            None => Self::Unknown,
        }
    }

    pub fn spread(&self) -> Option<Spread> {
        if let Self::Measured { spread, .. } = self { Some(*spread) } else { None }
    }

    /// How many times `first`'s median this one's is, when both were measured.
    pub fn ratio_to(&self, first: &Self) -> Option<f64> {
        self.spread()?.ratio_to(&first.spread()?)
    }
}

#[cfg(test)]
pub mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::report::{Client, Server};

    /// A report of so many lookups for each CPU second.
    pub fn report(per_cpu_second: f64, client_bound: bool) -> Report {
        let server = Server {
            pid: 1,
            cpu_seconds: 1.0,
            operations_per_cpu_second: per_cpu_second,
            rss_bytes: 64 << 20,
            open_files: 9,
        };
        let names = ["seconds_until_no_lookup", "lookup_without_writes_us_p50", "lookup_without_writes_us_p99"];
        Report {
            scenario: "lookup".into(),
            command: "lookupd-perf lookup".into(),
            seconds: 1.0,
            operations: 1000,
            per_second: 1000.0,
            latency_us: Some(Latency { p50: 100.0, p90: 200.0, p99: 400.0, p999: 800.0, max: 1600.0 }),
            server: Some(server),
            client: Client { cpu_seconds: 1.0, busy: 1.0 },
            client_bound,
            figures: names.map(|name| (name.to_owned(), 0.5)).into_iter().collect::<BTreeMap<_, _>>(),
        }
    }

    #[test]
    fn scores_follow_from_outcomes() {
        let comparison = super::super::record::tests::comparison();
        let scale = comparison.scales[0].name;
        let score = |label: &str, server: usize| {
            let measure = MEASURES.iter().find(|measure| measure.label == label).unwrap();
            Score::of(&comparison, scale, measure, &comparison.servers[server])
        };
        let stock = score("lookups a second", 0);
        let spread = Spread { median: 1000.0, min: 1000.0, max: 1000.0 };
        assert_eq!(stock, Score::Measured { spread, is_client_bound: false });
        assert_eq!(score("lookups a second", 2), Score::Measured { spread, is_client_bound: true });
        assert_eq!(score("`/nodes` p50", 0), Score::Absent);
        assert_eq!(score("`/nodes` p50", 1), Score::Failed);
        assert_eq!(score("from OK to the first lookup, p50", 1), Score::Unknown);
        let drained = "mass disconnect, until no lookup shows it";
        assert_eq!(score(drained, 0), Score::OverLimit { seconds: 30.0, over: 1, of: 1 });
        assert_eq!(score(drained, 1).ratio_to(&score(drained, 0)), None, "the first has no median");
        let half = Spread { median: 500.0, ..spread };
        let half = Score::Measured { spread: half, is_client_bound: false };
        assert_eq!(half.ratio_to(&stock), Some(0.5));
    }
}
