//! `beside`: lookups while somebody else fetches an answer as large as the registry.

mod reader;

use std::rc::Rc;

use super::Context;
use super::load::Pacing;
use super::lookup::parse_path;
use super::options::{Lookups, Rate};
use super::phase::{Pace, quantiles};
use crate::failure::Result;
use crate::report::Report;
use reader::{Expected, Reader};

#[derive(Debug, clap::Args)]
#[command(mut_arg("connections", |arg| arg.help("Connections of the lookups")))]
#[command(mut_arg("time", |arg| arg.help("How long each of the two phases takes: lookups alone, then beside the large answer")))]
pub struct Options {
    #[command(flatten)]
    pub lookups: Lookups,
    #[command(flatten)]
    pub rate: Rate,
    /// The large answer
    #[arg(long, value_name = "TARGET", default_value = "/nodes", value_parser = parse_path)]
    pub path: String,
}

/// # Errors
/// A wrong answer; one is a large answer that is not whole.
pub async fn run(context: Rc<Context>, options: &Options) -> Result<()> {
    options.lookups.hold(&context, 1, measure(&context, options)).await
}

async fn measure(context: &Rc<Context>, options: &Options) -> Result<()> {
    let &Options { lookups, rate: Rate { rate }, ref path } = options;
    let time = lookups.load.period.time;
    let consumers = lookups.consumers(context, lookups.questions(context)?);
    let pace = Pace { scenario: "beside", pacing: Pacing::Rate(rate), time };

    let alone = pace.phase("lookups alone", &consumers, async { Ok(()) }).await?;
    let mut figures: std::collections::BTreeMap<_, _> =
        alone.latency_us.into_iter().flat_map(|latency| quantiles("lookup_alone", latency)).collect();
    figures.insert("rate".into(), rate);
    if context.stop.is_cancelled() {
        return context.print(&Report { figures, ..alone });
    }

    let mut reader = Reader::start(context, path, Expected::of(path, &context.run, &lookups.population))?;
    let fetching = async {
        tokio::select! {
            ended = reader.ended() => ended.map(|_| ()),
            _ = context.is_stopped_within(time) => Ok(()),
        }
    };
    let report = pace.phase("lookups beside a large answer", &consumers, fetching).await?;
    reader.stop();
    figures.extend(reader.ended().await?.figures());
    if let (Some(alone), Some(beside)) = (alone.latency_us, report.latency_us) {
        figures.insert("lookup_us_max_more".into(), beside.max - alone.max);
    }
    context.print(&Report { figures, ..report })
}
