//! `results.json`: all that was measured, and all that it takes to measure it again.

use serde::{Deserialize, Serialize};

use super::cell::{Ability, Cell};
use super::cpu::Cores;
use super::host::Host;
use super::scale::{Name, Scale};
use super::suite::Suite;
use crate::report::Report;

/// A whole comparison.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// Our own command line.
    pub command: String,
    /// The version of this program.
    pub version: String,
    /// What `git describe` says of the folder it ran in.
    pub commit: Option<String>,
    /// RFC 3339, in UTC.
    pub began: String,
    pub seconds: f64,
    pub suite: Suite,
    /// What the second generator calls itself.
    #[serde(default)]
    pub wrk: Option<String>,
    /// The version of the etcd that each cluster has.
    #[serde(default)]
    pub etcd: Option<String>,
    pub host: Host,
    pub cores: Cores,
    pub scales: Vec<Scale>,
    /// In the order of the command line; ratios are to the first.
    pub servers: Vec<Contender>,
    /// In the order in which they were taken.
    pub samples: Vec<Sample>,
}

/// A server that takes part.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contender {
    pub name: String,
    pub command: String,
    pub ability: Ability,
    /// What it calls itself.
    pub version: Option<String>,
}

/// A cell, played once.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    pub scale: Name,
    pub cell: Cell,
    pub server: String,
    pub outcome: Outcome,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(clippy::large_enum_variant, reason = "nearly all outcomes are of the large one")]
pub enum Outcome {
    Measured(Report),
    /// The server was given up after so many seconds.
    OverLimit {
        seconds: f64,
    },
    /// The generator ended with this, a wrong answer for example.
    Failed {
        error: String,
    },
}

impl Comparison {
    /// The outcomes of one cell at one server, round by round.
    pub fn outcomes(&self, scale: Name, cell: Cell, server: &str) -> impl Iterator<Item = &Outcome> {
        let is_wanted =
            move |sample: &&Sample| (sample.scale, sample.cell) == (scale, cell) && sample.server == server;
        self.samples.iter().filter(is_wanted).map(|sample| &sample.outcome)
    }

    /// What went wrong, each error once, with the server and the cell where it came first.
    pub fn failures(&self) -> Vec<String> {
        let mut failures: Vec<String> = Vec::new();
        let mut seen: Vec<&str> = Vec::new();
        for Sample { scale, cell, server, outcome, .. } in &self.samples {
            if let Outcome::Failed { error } = outcome
                && !seen.contains(&&**error)
            {
                seen.push(error);
                failures.push(format!("{server}, {cell} at {scale}: {error}"));
            }
        }
        failures
    }
}

#[cfg(test)]
pub mod tests {
    use super::super::scale::S;
    use super::*;
    use crate::report::tests::report;

    /// Three servers at S: lookups, a disconnect that the first does not finish, and a failure of the second.
    pub fn comparison() -> Comparison {
        let scale = S;
        let contender = |name: &str, ability| Contender {
            name: name.into(),
            command: format!("{name} {{tcp}}"),
            ability,
            version: Some("1.3.0".into()),
        };
        let sample =
            |cell, server: &str, outcome| Sample { scale: scale.name, cell, server: server.into(), outcome };
        let mut samples = Vec::new();
        for (server, rates) in
            [("stock", [100.0, 400.0, 200.0]), ("ringlookupd", [900.0, 1_000.0, 1_100.0]), ("floor", [4_000.0; 3])]
        {
            samples.extend(
                rates.map(|rate| sample(Cell::Lookup, server, Outcome::Measured(report(rate, server == "floor")))),
            );
        }
        let error = "wrong answer to GET /nodes".to_owned();
        samples.extend([
            sample(Cell::Disconnect, "stock", Outcome::OverLimit { seconds: 30.0 }),
            sample(Cell::Disconnect, "ringlookupd", Outcome::Measured(report(1.0, false))),
            sample(Cell::Churn, "ringlookupd", Outcome::Measured(report(1.0, false))),
            sample(Cell::Nodes, "ringlookupd", Outcome::Failed { error: error.clone() }),
            sample(Cell::Nodes, "ringlookupd", Outcome::Failed { error }),
        ]);
        Comparison {
            command: "lookupd-perf compare".into(),
            version: "0.1.0".into(),
            commit: None,
            began: "2026-01-01T00:00:00Z".into(),
            seconds: 12.5,
            suite: Suite::Quick,
            wrk: Some("wrk 4.1.0".into()),
            etcd: Some("3.5.0".into()),
            host: Host {
                kernel: "Linux 6.18".into(),
                cpu: "Some CPU".into(),
                cores: 2,
                memory_bytes: 1 << 34,
                load_average: 0.25,
            },
            cores: Cores { server: 1, load: 0 },
            scales: vec![scale],
            servers: vec![
                contender("stock", Ability::Registry),
                contender("ringlookupd", Ability::Registry),
                contender("floor", Ability::Answers),
            ],
            samples,
        }
    }

    #[test]
    fn the_json_holds_everything() {
        let comparison = comparison();
        let text = serde_json::to_string_pretty(&comparison).unwrap();
        assert_eq!(serde_json::from_str::<Comparison>(&text).unwrap(), comparison);
        let json: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(json["scales"][0]["producers"], 200);
        assert_eq!(json["servers"][1]["ability"], "registry");
        assert_eq!(json["samples"][9]["outcome"]["over_limit"]["seconds"], 30.0);
        assert_eq!(json["samples"][0]["outcome"]["measured"]["scenario"], "lookup");
    }

    #[test]
    fn a_failure_is_told_once() {
        assert_eq!(comparison().failures(), ["ringlookupd, /nodes at S: wrong answer to GET /nodes"]);
    }
}
