//! `populate`: registers a population and holds it.

use std::collections::BTreeMap;
use std::io::Write;
use std::rc::Rc;

use super::fleet::Fleet;
use super::options::For;
use super::{Context, allow_connections};
use crate::failure::Result;
use crate::population::Population;
use crate::progress::{Goal, Progress};

#[derive(Debug, clap::Args)]
#[command(mut_arg("time", |arg| arg.default_value(None).help("How long to hold it, as in 90s or 5m; without, until a signal")))]
pub struct Options {
    #[command(flatten)]
    pub registering: Registering,
    #[command(flatten)]
    pub hold: Option<For>,
}

/// How a population registers.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct Registering {
    #[command(flatten)]
    pub population: Population,
    /// REGISTER commands in one write; nsqd itself waits for the answer to each
    #[arg(id = "register_pipeline", long = "pipeline", value_name = "N", default_value_t = 1,
        value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub pipeline: u32,
}

/// Reports when all is registered, then holds.
///
/// # Errors
/// A wrong answer, to a heartbeat too.
pub async fn run(context: Rc<Context>, options: &Options) -> Result<()> {
    let Options { registering, hold } = *options;
    registering.population.validate()?;
    allow_connections(registering.population.producers)?;
    let meter = context.meter()?;
    let (mut fleet, complete) = launched(&context, registering).await?;
    let registrations = fleet.done();
    let report = meter.read()?.report("populate", registrations, &fleet.latencies(), BTreeMap::new())?;
    context.print(&report)?;
    if !complete {
        return Ok(());
    }
    // A closed pipe is no reason to stop.
    let _ = writeln!(
        std::io::stderr(),
        "populate: lookup, churn, beside and disconnect find it by --run {}",
        context.run.id()
    );
    let held = async {
        match hold {
            Some(For { time }) => _ = context.is_stopped_within(time).await,
            None => context.stop.cancelled().await,
        }
        Ok(())
    };
    fleet.alongside(held).await
}

/// A fleet that has registered all, or false when a signal came first.
///
/// # Errors
/// The first failure of any producer.
pub async fn launched(context: &Rc<Context>, registering: Registering) -> Result<(Fleet, bool)> {
    let Registering { population, pipeline } = registering;
    let progress = Progress::show("registering", "registrations", Goal::Count(population.registrations()));
    let mut fleet = Fleet::launch(context, population, pipeline, progress.counter());
    let registered = fleet.registered();
    let registered = context.stop.run_until_cancelled(registered);
    let complete = fleet.alongside(async { Ok(registered.await.is_some()) }).await?;
    Ok((fleet, complete))
}
