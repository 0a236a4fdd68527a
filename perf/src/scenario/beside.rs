//! `beside`: lookups while somebody else fetches an answer as large as the registry.

mod reader;

use std::rc::Rc;
use std::time::Duration;

use super::load::{Consumers, Questions, parse_rate};
use super::lookup::{Asking, parse_path};
use super::phase::{Pace, quantiles};
use super::populate::launched;
use super::{Context, allow_connections};
use crate::failure::Result;
use crate::population::Population;
use crate::report::Report;
use reader::{Expected, Reader};

#[derive(Debug, clap::Args)]
pub struct Options {
    #[command(flatten)]
    pub population: Population,
    #[command(flatten)]
    pub asking: Asking,
    /// Connections of the lookups
    #[arg(short, long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..1_000_000))]
    pub connections: u32,
    /// Lookups a second, in both phases
    #[arg(short, long, value_name = "N", default_value = "1000", value_parser = parse_rate)]
    pub rate: f64,
    /// The large answer
    #[arg(long, value_name = "TARGET", default_value = "/nodes", value_parser = parse_path)]
    pub path: String,
    /// How long each of the two phases takes: lookups alone, then beside the large answer
    #[arg(short = 'd', long = "for", value_name = "DURATION", default_value = "10s", value_parser = humantime::parse_duration)]
    pub time: Duration,
}

/// # Errors
/// A wrong answer; one is a large answer that is not whole.
pub async fn run(context: Rc<Context>, options: &Options) -> Result<()> {
    let Options { population, ref asking, connections, .. } = *options;
    population.validate()?;
    allow_connections(connections + 1 + if asking.populate { population.producers } else { 0 })?;
    if asking.populate {
        let (mut fleet, complete) = launched(&context, population, 1).await?;
        if complete { fleet.alongside(measure(&context, options)).await } else { Ok(()) }
    } else {
        measure(&context, options).await
    }
}

async fn measure(context: &Rc<Context>, options: &Options) -> Result<()> {
    let &Options { population, ref asking, connections, rate, ref path, time } = options;
    let questions = Questions::lookups(context.run_of(asking.populate)?, population, asking.zipf);
    let consumers = Rc::new(Consumers { context: Rc::clone(context), questions, connections, seed: asking.seed });
    let pace = Pace { scenario: "beside", rate, time };

    let alone = pace.phase("lookups alone", &consumers, async { Ok(()) }).await?;
    let mut figures: std::collections::BTreeMap<_, _> =
        alone.latency_us.into_iter().flat_map(|latency| quantiles("lookup_alone", latency)).collect();
    figures.insert("rate".into(), rate);
    if context.stop.is_cancelled() {
        return context.print(&Report { figures, ..alone });
    }

    let mut reader = Reader::start(context, path, Expected::of(path, &context.run, &population))?;
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
