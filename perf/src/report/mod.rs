//! What a run reports: the JSON that `compare` reads, and the same for people (`text`).

mod restarts;
mod text;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use restarts::{Lookups, Restart};

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
    /// Of `restart` alone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub restarts: Vec<Restart>,
    /// For people alone.
    #[serde(skip)]
    pub histogram: Vec<Bar>,
}

/// Latencies up to a limit, and above that of the bar before.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bar {
    pub up_to_us: f64,
    pub count: u64,
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
            restarts: Vec::new(),
            histogram: Vec::new(),
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

        let restarted = Report { restarts: vec![Restart::default()], ..report };
        let text = serde_json::to_string(&restarted).unwrap();
        assert_eq!(serde_json::from_str::<Report>(&text).unwrap(), restarted);
    }
}
