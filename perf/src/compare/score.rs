//! What a server's samples say of a measure.

use super::cell::Cell;
use super::measure::{Measure, Relation, per_cpu_second};
use super::record::{Comparison, Contender, Outcome};
use super::scale::Name;
use super::statistics::Spread;
use crate::report::Report;

#[derive(Clone, Debug, PartialEq)]
pub enum Score {
    /// The cell needs what the server does not have, or was not reached.
    Absent,
    /// The reports do not hold it.
    Unknown,
    Measured {
        /// Round by round, one at least.
        samples: Vec<f64>,
        /// The client was the bottleneck in most of them.
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
        Self::in_cell(comparison, (scale, measure.cell), measure.of, server)
    }

    /// How `server` did in one cell by its own measure in another, round by round.
    pub fn between(comparison: &Comparison, relation: &Relation, server: &Contender) -> Self {
        let score = |place| Self::in_cell(comparison, place, per_cpu_second, server);
        match (score(relation.of), score(relation.to)) {
            (Self::Measured { samples, .. }, Self::Measured { samples: others, .. }) => {
                let samples = ratios(&samples, &others);
                if samples.is_empty() { Self::Unknown } else { Self::Measured { samples, is_client_bound: false } }
            }
            (Self::Measured { .. }, other) => other,
            (score, _) => score,
        }
    }

    fn in_cell(
        comparison: &Comparison,
        (scale, cell): (Name, Cell),
        figure: fn(&Report) -> Option<f64>,
        server: &Contender,
    ) -> Self {
        let outcomes: Vec<_> = comparison.outcomes(scale, cell, &server.name).collect();
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
        let samples: Vec<f64> = reports.iter().filter_map(|report| figure(report)).collect();
        match samples.is_empty() {
            false => Self::Measured { samples, is_client_bound: bound * 2 > reports.len() },
            true if outcomes.is_empty() => Self::Absent,
            true => Self::Unknown,
        }
    }

    /// Whether it says anything. What was measured once is no measurement: the machine's noise is as large as it.
    pub fn is_shown(&self) -> bool {
        match self {
            Self::Absent => false,
            Self::Measured { samples, .. } => samples.len() > 1,
            Self::Unknown | Self::OverLimit { .. } | Self::Failed => true,
        }
    }

    pub fn spread(&self) -> Option<Spread> {
        if let Self::Measured { samples, .. } = self { Spread::of(samples.iter().copied()) } else { None }
    }

    /// How many times `first` this one is, when both were measured: the median over rounds, in each of which both
    /// ran within moments, so that a machine that changes its speed does not change the ratio.
    pub fn ratio_to(&self, first: &Self) -> Option<f64> {
        let (Self::Measured { samples, .. }, Self::Measured { samples: others, .. }) = (self, first) else {
            return None;
        };
        Spread::of(ratios(samples, others)).map(|spread| spread.median)
    }
}

fn ratios(samples: &[f64], others: &[f64]) -> Vec<f64> {
    samples.iter().zip(others).filter(|(_, other)| **other > 0.0).map(|(sample, other)| sample / other).collect()
}

#[cfg(test)]
mod tests {
    use super::super::measure::MEASURES;
    use super::super::record::tests::comparison;
    use super::*;

    fn measured(samples: &[f64]) -> Score {
        Score::Measured { samples: samples.to_vec(), is_client_bound: false }
    }

    #[test]
    fn scores_follow_from_outcomes() {
        let comparison = comparison();
        let scale = comparison.scales[0].name;
        let score = |label: &str, server: usize| {
            let measure = MEASURES.iter().find(|measure| measure.label == label).unwrap();
            Score::of(&comparison, scale, measure, &comparison.servers[server])
        };
        assert_eq!(score("lookups a second", 0), measured(&[1000.0; 3]));
        let samples = vec![1000.0; 3];
        assert_eq!(score("lookups a second", 2), Score::Measured { samples, is_client_bound: true });
        assert_eq!(score("`/nodes`, again, p50", 0), Score::Absent);
        assert_eq!(score("`/nodes`, again, p50", 1), Score::Failed);
        assert_eq!(score("from OK to the first lookup, p50", 1), Score::Unknown);
        let drained = "mass disconnect, until no lookup shows it";
        assert_eq!(score(drained, 0), Score::OverLimit { seconds: 30.0, over: 1, of: 1 });
        assert_eq!(score(drained, 1).ratio_to(&score(drained, 0)), None, "the first has no median");
    }

    #[test]
    fn what_was_measured_once_is_not_shown() {
        assert!(measured(&[1.0, 2.0]).is_shown() && !measured(&[1.0]).is_shown());
        assert!(Score::OverLimit { seconds: 30.0, over: 1, of: 1 }.is_shown(), "it is not tried again");
    }

    #[test]
    fn ratios_are_taken_round_by_round() {
        // The machine grows slower by half in the last round, and the ratio stays.
        let (first, other) = (measured(&[100.0, 104.0, 50.0]), measured(&[400.0, 416.0, 200.0]));
        assert_eq!(other.ratio_to(&first), Some(4.0));
        assert_eq!(other.ratio_to(&measured(&[0.0])), None, "nothing has no multiple");
    }

    #[test]
    fn a_relation_is_within_one_server() {
        let mut comparison = comparison();
        let scale = comparison.scales[0].name;
        let relation = Relation { label: "", of: (scale, Cell::Lookup), to: (scale, Cell::Cold) };
        let stock = comparison.servers[0].clone();
        assert_eq!(Score::between(&comparison, &relation, &stock), Score::Absent);
        for mut sample in comparison.samples.clone() {
            sample.cell = Cell::Cold;
            comparison.samples.push(sample);
        }
        comparison.samples.retain(|sample| matches!(sample.outcome, Outcome::Measured(_)));
        assert_eq!(Score::between(&comparison, &relation, &stock), measured(&[1.0; 3]));
    }
}
