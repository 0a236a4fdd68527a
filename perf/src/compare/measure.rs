//! Which figures of a cell are shown.

use super::cell::Cell;
use super::scale::Name;
use crate::report::{Latency, Report};
use crate::unit::Unit;

/// A figure in the reports of a cell.
#[derive(Clone, Copy, Debug)]
pub struct Measure {
    pub cell: Cell,
    pub label: &'static str,
    pub unit: Unit,
    pub of: fn(&Report) -> Option<f64>,
}

/// What a server does for each CPU second in one cell, as a multiple of what the same server does in another.
#[derive(Clone, Copy, Debug)]
pub struct Relation {
    pub label: &'static str,
    pub of: (Name, Cell),
    pub to: (Name, Cell),
}

/// All that are shown, in the order of the table.
pub const MEASURES: &[Measure] = {
    use Cell::{
        BesideChanges, Churn, Cluster, Cold, Crowded, Disconnect, Idle, LongPoll, Lookup, Nodes, OneTopic,
        Pipelined, Poll, Populate, Reconnecting, Restart, RoundTrip, Sigterm, Storm, Topics, Watch, Wrk,
    };
    use Unit::{Bytes, Count, PerCpuSecond, PerSecond, Seconds, Share, Times};
    &[
        new(Lookup, "lookups for each server CPU second", PerCpuSecond, per_cpu_second),
        new(Lookup, "lookups a second", PerSecond, |report| Some(report.per_second)),
        new(Lookup, "lookup p50, closed loop", Seconds, p50),
        new(Lookup, "lookup p99, closed loop", Seconds, p99),
        new(Crowded, "lookups for each server CPU second, 1,000 connections", PerCpuSecond, per_cpu_second),
        new(Pipelined, "lookups for each server CPU second, pipelined by 16", PerCpuSecond, per_cpu_second),
        new(Reconnecting, "lookups for each server CPU second, a connection each", PerCpuSecond, per_cpu_second),
        new(OneTopic, "lookups for each server CPU second, one topic", PerCpuSecond, per_cpu_second),
        new(Cold, "lookups for each server CPU second, caches cold", PerCpuSecond, per_cpu_second),
        new(Wrk, "lookups for each server CPU second, under wrk", PerCpuSecond, per_cpu_second),
        new(Wrk, "lookups a second, under wrk", PerSecond, |report| Some(report.per_second)),
        new(RoundTrip, "round trip of one connection, p50", Seconds, p50),
        new(RoundTrip, "round trip of one connection, p99", Seconds, p99),
        new(Nodes, "`/nodes`, the first", Seconds, first_answer),
        new(Nodes, "`/nodes`, again, p50", Seconds, p50),
        new(Topics, "`/topics`, the first", Seconds, first_answer),
        new(Topics, "`/topics`, again, p50", Seconds, p50),
        new(Churn, "lookup p50, without churn", Seconds, |report| calm(report, "p50")),
        new(Churn, "lookup p50, with churn", Seconds, p50),
        new(Churn, "lookup p99, without churn", Seconds, |report| calm(report, "p99")),
        new(Churn, "lookup p99, with churn", Seconds, p99),
        new(Churn, "lookup p99, with churn to without", Times, |report| Some(p99(report)? / calm(report, "p99")?)),
        new(Churn, "lookup p99.9, without churn", Seconds, |report| calm(report, "p999")),
        new(Churn, "lookup p99.9, with churn", Seconds, |report| latency(report, |latency| latency.p999)),
        new(Churn, "registrations and unregistrations a second", PerSecond, |report| {
            figure(report, "writes_per_second")
        }),
        new(Churn, "from OK to the first lookup, p50", Seconds, |report| {
            micros(report, "visible_after_ok_us_p50")
        }),
        new(Populate, "registrations for each server CPU second, pipelined", PerCpuSecond, per_cpu_second),
        new(Populate, "CPU time for each registration, pipelined", Seconds, seconds_each),
        new(Populate, "memory with all registered", Bytes, memory),
        new(Storm, "storm, until every lookup is complete", Seconds, |report| {
            figure(report, "seconds_until_complete")
        }),
        new(Storm, "storm, server CPU time", Seconds, cpu_seconds),
        new(Restart, "restart, registrations a second", PerSecond, |report| Some(report.per_second)),
        new(Restart, "restart, registrations for each server CPU second", PerCpuSecond, per_cpu_second),
        new(Sigterm, "restart by SIGTERM, refused connections", Count, |report| {
            figure(report, "refused_connections")
        }),
        new(Sigterm, "restart by SIGTERM, failed lookups", Count, |report| figure(report, "failed_lookups")),
        new(Sigterm, "restart by SIGTERM, incomplete responses", Count, |report| {
            figure(report, "incomplete_responses")
        }),
        new(Sigterm, "restart by SIGTERM, time with incomplete responses", Seconds, |report| {
            figure(report, "seconds_with_incomplete_responses")
        }),
        new(Sigterm, "restart by SIGTERM, until responses are complete", Seconds, |report| {
            figure(report, "seconds_until_complete_max")
        }),
        new(Sigterm, "restart by SIGTERM, lookup p99", Seconds, p99),
        new(Disconnect, "mass disconnect, until no lookup shows it", Seconds, |report| {
            figure(report, "seconds_until_no_lookup")
        }),
        new(Disconnect, "mass disconnect, until `/nodes` is empty", Seconds, |report| {
            figure(report, "seconds_until_no_node")
        }),
        new(Disconnect, "mass disconnect, server CPU time", Seconds, cpu_seconds),
        new(Watch, "from OK to the event, p50", Seconds, p50),
        new(Watch, "from OK to the event, p99", Seconds, p99),
        new(Watch, "server CPU time for each event, lookups included", Seconds, seconds_each),
        new(Watch, "memory of a watcher", Bytes, |report| figure(report, "rss_bytes_per_watcher")),
        new(Watch, "lookup p99, with watchers to without", Times, lookups_with_watchers),
        new(LongPoll, "from OK to the long poll's response, p50", Seconds, p50),
        new(LongPoll, "from OK to the long poll's response, p99", Seconds, p99),
        new(LongPoll, "server CPU time for each long poll's response, lookups included", Seconds, seconds_each),
        new(LongPoll, "memory of a long poll", Bytes, |report| figure(report, "rss_bytes_per_watcher")),
        new(LongPoll, "lookup p99, with long polls to without", Times, lookups_with_watchers),
        new(Poll, "from OK to a poll each second, p50", Seconds, p50),
        new(Poll, "from OK to a poll each second, p99", Seconds, p99),
        new(Poll, "server CPU time for each change that a poll shows, lookups included", Seconds, seconds_each),
        new(Poll, "memory of a client that polls", Bytes, |report| figure(report, "rss_bytes_per_watcher")),
        new(Poll, "lookup p99, with polls to without", Times, lookups_with_watchers),
        new(Cluster, "from OK to REGISTER to each other instance, p50", Seconds, |report| {
            micros(report, "up_after_ok_us_p50")
        }),
        new(Cluster, "from OK to REGISTER to each other instance, p99", Seconds, |report| {
            micros(report, "up_after_ok_us_p99")
        }),
        new(Cluster, "from OK to UNREGISTER to each other instance, p50", Seconds, |report| {
            micros(report, "down_after_ok_us_p50")
        }),
        new(Cluster, "from OK to UNREGISTER to each other instance, p99", Seconds, |report| {
            micros(report, "down_after_ok_us_p99")
        }),
        new(Cluster, "all register, until every instance lists all", Seconds, |report| {
            figure(report, "seconds_until_listed_everywhere")
        }),
        new(Cluster, "all register, from the last OK until every instance lists all", Seconds, |report| {
            figure(report, "seconds_from_registered_to_listed_everywhere")
        }),
        new(
            Cluster,
            "CPU time of the second instance for each change at the first, heartbeats included",
            Seconds,
            |report| micros(report, "instance_2_cpu_us_per_change"),
        ),
        new(Cluster, "memory of the largest instance after the changes", Bytes, |report| {
            largest(report, |name| name.ends_with("_rss_bytes_after_changes"))
        }),
        new(BesideChanges, "lookups for each CPU second, beside 100 changes a second", PerCpuSecond, |report| {
            figure(report, "lookups_per_cpu_second_with_changes")
        }),
        new(BesideChanges, "memory of the largest instance with all registered", Bytes, |report| {
            largest(report, |name| name.ends_with("_rss_bytes_populated"))
        }),
        new(Idle, "15,000 idle connections, memory for each", Bytes, |report| {
            figure(report, "rss_bytes_per_connection")
        }),
        new(Idle, "15,000 idle connections, share of a core", Share, |report| {
            Some(cpu_seconds(report)? / report.seconds)
        }),
        new(Idle, "CPU time for each heartbeat", Seconds, seconds_each),
    ]
};

/// Shown below them.
pub const RELATIONS: &[Relation] = &[
    Relation {
        label: "lookups of one topic, to those with no other topic there",
        of: (Name::L, Cell::OneTopic),
        to: (Name::Ten, Cell::OneTopic),
    },
    Relation {
        label: "lookups of all topics, to those of one",
        of: (Name::L, Cell::Lookup),
        to: (Name::L, Cell::OneTopic),
    },
    Relation {
        label: "lookups of all topics, caches cold, to those of one",
        of: (Name::L, Cell::Cold),
        to: (Name::L, Cell::OneTopic),
    },
];

const fn new(cell: Cell, label: &'static str, unit: Unit, of: fn(&Report) -> Option<f64>) -> Measure {
    Measure { cell, label, unit, of }
}

fn figure(report: &Report, name: &str) -> Option<f64> {
    report.figures.get(name).copied()
}

/// The largest of some figures.
fn largest(report: &Report, is_one: fn(&str) -> bool) -> Option<f64> {
    let some = report.figures.iter().filter(|(name, _)| is_one(name));
    some.map(|(_, value)| *value).max_by(f64::total_cmp)
}

/// A figure in microseconds, as seconds.
fn micros(report: &Report, name: &str) -> Option<f64> {
    figure(report, name).map(|micros| micros / 1e6)
}

fn latency(report: &Report, quantile: fn(Latency) -> f64) -> Option<f64> {
    report.latency_us.map(|latency| quantile(latency) / 1e6)
}

fn p50(report: &Report) -> Option<f64> {
    latency(report, |latency| latency.p50)
}

fn p99(report: &Report) -> Option<f64> {
    latency(report, |latency| latency.p99)
}

/// Latency of lookups before the writes begin.
fn calm(report: &Report, quantile: &str) -> Option<f64> {
    micros(report, &format!("lookup_without_writes_us_{quantile}"))
}

fn lookups_with_watchers(report: &Report) -> Option<f64> {
    figure(report, "lookup_p99_with_to_without_ratio")
}

fn first_answer(report: &Report) -> Option<f64> {
    micros(report, "first_answer_us")
}

/// `None` when there was nothing to do.
pub fn per_cpu_second(report: &Report) -> Option<f64> {
    report.server.map(|server| server.operations_per_cpu_second).filter(|rate| *rate > 0.0)
}

/// CPU time of one operation.
fn seconds_each(report: &Report) -> Option<f64> {
    per_cpu_second(report).map(|rate| 1.0 / rate)
}

fn cpu_seconds(report: &Report) -> Option<f64> {
    report.server.map(|server| server.cpu_seconds)
}

#[expect(clippy::cast_precision_loss, reason = "memory is not exact to the byte")]
fn memory(report: &Report) -> Option<f64> {
    report.server.map(|server| server.rss_bytes as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_instance_is_the_one_that_counts() {
        let mut report = crate::report::tests::report(1.0, false);
        for (name, bytes) in
            [("1_rss_bytes_populated", 7.0), ("2_rss_bytes_populated", 9.0), ("1_rss_bytes", 11.0)]
        {
            report.figures.insert(format!("instance_{name}"), bytes);
        }
        let populated: fn(&str) -> bool = |name| name.ends_with("_rss_bytes_populated");
        assert_eq!(largest(&report, populated), Some(9.0));
        assert_eq!(largest(&report, |_| false), None);
    }

    #[test]
    fn no_two_lines_of_the_table_are_called_the_same() {
        let mut labels: Vec<_> = MEASURES.iter().map(|measure| measure.label).collect();
        labels.extend(RELATIONS.iter().map(|relation| relation.label));
        let count = labels.len();
        labels.sort_unstable();
        labels.dedup();
        assert_eq!(labels.len(), count);
    }
}
