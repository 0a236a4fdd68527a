//! One half of a comparison within a run: lookups, alone or beside other work.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use super::load::{Consumers, Pacing, Tally};
use crate::failure::Result;
use crate::progress::{Goal, Progress};
use crate::report::{Latency, Report};
use crate::wire::http;

/// What both halves have in common.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// The subcommand.
    pub scenario: &'static str,
    /// Of the lookups.
    pub pacing: Pacing,
    /// How long each half takes.
    pub time: Duration,
}

impl Pace {
    /// Lookups beside other work, which ends when they do.
    ///
    /// # Errors
    /// A wrong answer, or the failure of the other work.
    pub async fn phase(
        self,
        name: &'static str,
        consumers: &Rc<Consumers>,
        beside: impl Future<Output = Result<()>>,
    ) -> Result<Report> {
        let clients = consumers.connect(true).await?;
        // They are among the server's open files until those are counted.
        let _open: Vec<_> = clients.iter().flatten().map(http::Client::link).collect();
        let progress = Progress::show(name, "answers", Goal::Time(self.time));
        let tally = Rc::new(Tally { answers: progress.counter(), ..Tally::default() });
        let end = async { _ = consumers.context.is_stopped_within(self.time).await };
        let meter = consumers.context.meter()?;
        let asking = async {
            match self.pacing {
                Pacing::Rate(rate) => consumers.open_loop(clients, rate, &tally, end).await.map(|_| ()),
                Pacing::Max => consumers.closed_loop(clients, 1, &tally, end).await,
            }
        };
        tokio::try_join!(asking, beside)?;
        let usage = meter.read()?;
        usage.report(self.scenario, tally.answers.get(), &tally.latencies.borrow(), BTreeMap::new())
    }
}

/// Latencies as figures, the quantile and the unit in each name.
pub fn quantiles(name: &str, latency: Latency) -> impl Iterator<Item = (String, f64)> {
    let Latency { p50, p90, p99, p999, max } = latency;
    let values = [("p50", p50), ("p90", p90), ("p99", p99), ("p999", p999), ("max", max)];
    values.map(|(quantile, value)| (format!("{name}_us_{quantile}"), value)).into_iter()
}
