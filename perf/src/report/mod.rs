//! What a run reports: the JSON that `compare` reads, and the same for people.

use std::collections::BTreeMap;
use std::fmt::{self, Display, Formatter};

use serde::{Deserialize, Serialize};

/// The outcome of one scenario.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// The subcommand.
    pub scenario: String,
    /// The command line.
    pub command: String,
    /// How long was measured.
    pub seconds: f64,
    /// What was answered and found right in that time.
    pub operations: u64,
    pub per_second: f64,
    pub latency_us: Option<Latency>,
    /// `None` unless the server's process is known.
    pub server: Option<Server>,
    pub client: Client,
    /// The client's core was busy and the server's was not: the figures are the client's.
    pub client_bound: bool,
    /// What only this scenario has; the unit is in the name.
    pub figures: BTreeMap<String, f64>,
}

/// Microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Latency {
    pub p50: f64,
    pub p90: f64,
    pub p99: f64,
    pub p999: f64,
    pub max: f64,
}

/// The server's process: what it used in the time measured, and what it holds at its end.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Server {
    pub pid: u32,
    pub cpu_seconds: f64,
    /// 0 when the server's CPU time did not reach the kernel's resolution.
    pub operations_per_cpu_second: f64,
    pub rss_bytes: u64,
    pub open_files: u64,
}

/// This process in the time measured.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Client {
    pub cpu_seconds: f64,
    /// CPU seconds for each second.
    pub busy: f64,
}

impl Display for Report {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { scenario, seconds, operations, per_second, client, .. } = self;
        writeln!(f, "{scenario}: {operations} operations in {seconds:.2} s, {per_second:.0} a second")?;
        if let Some(Latency { p50, p90, p99, p999, max }) = self.latency_us {
            writeln!(
                f,
                "  latency in us: p50 {p50:.1}, p90 {p90:.1}, p99 {p99:.1}, p99.9 {p999:.1}, max {max:.1}"
            )?;
        }
        if let Some(Server { pid, cpu_seconds, operations_per_cpu_second, rss_bytes, open_files }) = self.server {
            writeln!(
                f,
                "  server {pid}: {cpu_seconds:.2} CPU seconds, {operations_per_cpu_second:.0} operations for each, \
                 {:.1} MiB resident, {open_files} open files",
                mebibytes(rss_bytes)
            )?;
        }
        write!(f, "  client: {:.2} CPU seconds, {:.0} % of a core", client.cpu_seconds, client.busy * 100.0)?;
        for (name, value) in &self.figures {
            write!(f, "\n  {}: {}", name.replace('_', " "), (value * 1e6).round() / 1e6)?;
        }
        if self.client_bound {
            write!(f, "\n  the client was the bottleneck: its core was busy, the server's was not")?;
        }
        Ok(())
    }
}

#[expect(clippy::cast_precision_loss, reason = "shown with one decimal")]
fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

#[cfg(test)]
pub mod tests {
    use serde_json::json;

    use super::*;

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
    fn the_json_is_what_compare_reads() {
        let text = json!({
            "scenario": "lookup", "command": "lookupd-perf lookup", "seconds": 4.0, "operations": 480_000,
            "per_second": 120_000.0,
            "latency_us": {"p50": 1.0, "p90": 2.0, "p99": 3.0, "p999": 4.0, "max": 5.0},
            "server": {"pid": 1, "cpu_seconds": 2.2, "operations_per_cpu_second": 218_000.0, "rss_bytes": 123,
                       "open_files": 70},
            "client": {"cpu_seconds": 3.9, "busy": 0.98}, "client_bound": true,
            "figures": {"seconds_until_complete": 0.25},
        });
        let report: Report = serde_json::from_value(text.clone()).unwrap();
        assert_eq!(serde_json::to_value(&report).unwrap(), text);
        let shown = report.to_string();
        assert!(shown.contains("p99.9 4.0, max 5.0"), "{shown}");
        assert!(shown.contains("seconds until complete: 0.25"), "{shown}");
        assert!(shown.ends_with("the server's was not"), "{shown}");
    }
}
