//! `storm`: a whole cluster comes back at once, as after a restart of nsqlookupd.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::fleet::Fleet;
use super::populate::Registering;
use super::sampled::{Watching, until, until_each};
use super::{Context, allow_connections, within};
use crate::answers::{self, Checker};
use crate::failure::{Failure, Result};
use crate::progress::{Goal, Progress};

/// How long the server may take to notice that the producers of an earlier run are gone.
const EARLIER_PRODUCERS: Duration = Duration::from_secs(30);

#[derive(Debug, clap::Args)]
pub struct Options {
    #[command(flatten)]
    pub registering: Registering,
    #[command(flatten)]
    pub watching: Watching,
    /// Look nothing up: time the registration alone
    #[arg(long)]
    pub unwatched: bool,
}

/// Lets all producers connect and register at once, while the sampled topics are looked up again and again; a topic
/// once complete stays so, and the last to become so ends the run.
///
/// # Errors
/// A wrong answer, or not all complete in the time given.
pub async fn run(context: Rc<Context>, options: &Options) -> Result<()> {
    let Options { registering, watching, unwatched } = *options;
    let population = registering.population;
    population.validate()?;
    allow_connections(population.producers + watching.probes)?;
    if !unwatched {
        let waiting = earlier_producers_are_gone(&context, watching.within.min(EARLIER_PRODUCERS));
        if context.stop.run_until_cancelled(waiting).await.transpose()?.is_none() {
            return Ok(());
        }
    }
    let checker = Rc::new(Checker::new(population));
    let topics = if unwatched { Vec::new() } else { population.sample(watching.sample) };
    let complete = Rc::new(Cell::new(0));
    #[expect(clippy::cast_precision_loss, reason = "less than a million")]
    let mut figures = BTreeMap::from([("topics_watched".to_owned(), topics.len() as f64)]);

    let progress = Progress::show("storm", "registrations", Goal::Count(population.registrations()));
    let meter = context.meter()?;
    let began = Instant::now();
    let mut fleet = Fleet::launch(&context, population, registering.pipeline, progress.counter());
    let watched =
        Box::pin(until_each(&context, watching.probes, topics, Rc::clone(&complete), move |topic, answer| {
            checker.is_complete(topic, answer)
        }));
    let registered = fleet.registered();
    let registered = async {
        registered.await;
        Ok(began.elapsed())
    };
    let watched = async { watched.await.map(|()| began.elapsed()) };
    let work = fleet.alongside(async { tokio::try_join!(registered, watched) });
    let times = context.stop.run_until_cancelled(within(watching.within, "complete", work)).await.transpose()?;
    drop(progress);
    if let Some((registered, complete)) = times {
        figures.insert("seconds_until_registered".into(), registered.as_secs_f64());
        if !unwatched {
            figures.insert("seconds_until_complete".into(), complete.as_secs_f64());
        }
    }
    #[expect(clippy::cast_precision_loss, reason = "less than a million")]
    figures.insert("topics_complete".into(), complete.get() as f64);
    let report = meter.read()?.report("storm", fleet.done(), &fleet.latencies(), figures)?;
    context.print(&report)
}

/// Waits until the server lists no producer that this program simulates. Its end of an earlier run would be work that
/// is taken for this one's.
async fn earlier_producers_are_gone(context: &Context, limit: Duration) -> Result<()> {
    let mut client = context.consumer().await?;
    let listed = Cell::new(0);
    let gone = until(&mut client, "/nodes", Instant::now(), |answer| {
        listed.set(answers::simulated_nodes(answer)?);
        Ok(listed.get() == 0)
    });
    tokio::time::timeout(limit, gone).await.unwrap_or_else(|_| {
        Err(Failure::Refused(format!(
            "{} producers of an earlier run are listed after {limit:?}: end the lookupd-perf that holds them, or wait \
             until the server has noticed that they are gone",
            listed.get()
        )))
    })
}
