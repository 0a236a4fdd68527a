//! Restarts of a server while lookups run: what each did to the lookups, and the same as a table for people.

use std::fmt::Write;

use serde::{Deserialize, Serialize};

use super::Latency;
use crate::unit::{grouped, time};

/// A restart, from its command to that of the next.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Restart {
    /// Lookups that were sent over a new connection each.
    pub new_connections: Lookups,
    /// Lookups over kept connections. One that the server has closed is opened again and asked once more.
    pub kept_connections: Lookups,
    /// Tenths of a second with an incomplete response, as seconds.
    pub seconds_incomplete: f64,
    /// Tenths of a second with a lookup that was refused or failed, as seconds.
    pub seconds_failed: f64,
    /// From the start of the command to the first of the complete responses that were not interrupted any more; 0 when
    /// they never were, `None` when that was not reached in time.
    pub seconds_until_complete: Option<f64>,
    /// Responses stayed complete and all nsqds were connected in time.
    pub is_settled: bool,
}

/// What became of lookups.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Lookups {
    /// All of them, however they ended.
    pub asked: u64,
    /// Nobody listened.
    pub refused: u64,
    /// The connection ended before the whole response.
    pub broken: u64,
    /// There was no connection or no response in time.
    pub timed_out: u64,
    /// The status was neither 200 nor 404.
    pub error_status: u64,
    /// A live producer of the topic or a channel was missing, or the topic was unknown (404).
    pub incomplete: u64,
    /// A producer was listed twice.
    pub with_duplicates: u64,
    /// Of the lookups with a response, from when they were due.
    pub latency_us: Option<Latency>,
}

impl Lookups {
    /// Those without a usable response, beside the refused.
    pub fn failed(&self) -> u64 {
        self.broken + self.timed_out + self.error_status
    }
}

const TITLES: [&str; 10] =
    ["restart", "lookups", "refused", "failed", "incomplete", "for", "until complete", "p50", "p99", "longest"];

/// The table for people: a line for each restart, those of kept connections below it where there are any.
pub fn table(restarts: &[Restart]) -> Vec<String> {
    let mut lines = vec![TITLES.map(str::to_owned)];
    for (number, restart) in (1..).zip(restarts) {
        let Restart { new_connections, kept_connections, seconds_incomplete, seconds_until_complete, .. } =
            restart;
        let until = seconds_until_complete.map_or("not reached".to_owned(), time);
        let mut line = cells(&format!("{number}"), new_connections);
        (line[5], line[6]) = (time(*seconds_incomplete), until);
        lines.push(line);
        if kept_connections.asked > 0 {
            lines.push(cells("  kept connections", kept_connections));
        }
    }
    aligned(&lines)
}

fn cells(name: &str, lookups: &Lookups) -> [String; 10] {
    let latency =
        |of: fn(Latency) -> f64| lookups.latency_us.map_or("-".to_owned(), |latency| time(of(latency) / 1e6));
    let [asked, refused, failed, incomplete] =
        [lookups.asked, lookups.refused, lookups.failed(), lookups.incomplete].map(grouped);
    let quantiles = [latency(|all| all.p50), latency(|all| all.p99), latency(|all| all.max)];
    let [p50, p99, max] = quantiles;
    [name.to_owned(), asked, refused, failed, incomplete, String::new(), String::new(), p50, p99, max]
}

/// Lines of columns: names to the left, values to the right.
fn aligned(lines: &[[String; 10]]) -> Vec<String> {
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
    let line = |cells: &[String; 10]| {
        let mut text = format!("{:width$}", cells[0], width = width(0));
        for (column, cell) in cells.iter().enumerate().skip(1) {
            write!(text, "  {cell:>width$}", width = width(column)).expect("a String takes everything");
        }
        text
    };
    lines.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_restart_is_a_line_with_its_kept_connections_below() {
        let latency_us = Some(Latency { p50: 100.0, p90: 150.0, p99: 200.0, p999: 300.0, max: 1500.0 });
        let new_connections = Lookups {
            asked: 31_000,
            refused: 12,
            broken: 1,
            timed_out: 2,
            error_status: 3,
            incomplete: 14_500,
            with_duplicates: 0,
            latency_us,
        };
        let kept_connections = Lookups { asked: 900, ..Lookups::default() };
        let first = Restart {
            new_connections,
            kept_connections,
            seconds_incomplete: 14.9,
            seconds_failed: 0.1,
            seconds_until_complete: Some(15.0),
            is_settled: true,
        };
        let restarts = [first, Restart::default()];
        let expected = "\
restart             lookups  refused  failed  incomplete     for  until complete     p50     p99  longest
1                    31,000       12       6      14,500  14.9 s          15.0 s  100 us  200 us  1.50 ms
  kept connections      900        0       0           0                               -       -        -
2                         0        0       0           0    0 us     not reached       -       -        -";
        assert_eq!(table(&restarts).join("\n"), expected);
    }
}
