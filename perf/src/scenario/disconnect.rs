//! `disconnect`: every producer is gone at once, as when a network fails.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Instant;

use rustix::process::{Pid, Signal, kill_process};

use super::fleet::Fleet;
use super::populate::{Registering, launched};
use super::sampled::{Watching, until, until_each};
use super::{Context, allow_connections, within};
use crate::answers::Checker;
use crate::failure::{Failure, Result};
use crate::measure::{Latencies, Process};
use crate::progress::{Goal, Progress};
use crate::wire::http::Answer;

#[derive(Debug, clap::Args)]
pub struct Options {
    #[command(flatten)]
    pub registering: Registering,
    #[command(flatten)]
    pub watching: Watching,
    /// A `populate` with the same options holds the population; end it with SIGKILL
    #[arg(long, value_name = "PID", conflicts_with = "register_pipeline")]
    pub populated_by: Option<u32>,
}

/// Who holds the population.
enum Holder {
    Fleet(Fleet),
    Process(Process),
}

impl Holder {
    /// Ends all its connections. Nobody waits for anything to be sent first.
    fn disconnect(self) -> Result<()> {
        match self {
            Self::Fleet(fleet) => fleet.disconnect(),
            Self::Process(process) => {
                let pid = i32::try_from(process.pid()).ok().and_then(Pid::from_raw).expect("the kernel knows it");
                kill_process(pid, Signal::KILL).map_err(|error| {
                    Failure::io("end the process of --populated-by", error.into(), "it must be yours")
                })?;
            }
        }
        Ok(())
    }
}

/// # Errors
/// A wrong answer, also when not all is registered at first, or producers that are still shown in the end.
pub async fn run(context: Rc<Context>, options: &Options) -> Result<()> {
    let Options { registering, watching, populated_by } = *options;
    let population = registering.population;
    population.validate()?;
    allow_connections(watching.probes + if populated_by.is_some() { 0 } else { population.producers })?;
    let holder = match populated_by {
        Some(pid) => {
            let holder = generator(pid)?;
            context.run_of(false)?;
            // It has no time to delete them itself.
            context.makes_all_of(population);
            Holder::Process(holder)
        }
        None => match launched(&context, registering).await? {
            (fleet, true) => Holder::Fleet(fleet),
            (_, false) => return Ok(()),
        },
    };
    let checker = Rc::new(Checker::new(population));
    let topics = population.sample(watching.sample);
    let watch = |is_done: fn(&Checker, u32, Answer<'_>) -> Result<bool, String>, done| {
        let checker = Rc::clone(&checker);
        until_each(&context, watching.probes, topics.clone(), done, move |topic, answer| {
            is_done(&checker, topic, answer)
        })
    };
    watch(|checker, topic, answer| checker.complete(topic, answer).map(|()| true), Rc::default()).await?;

    let progress = Progress::show("disconnect", "topics without producers", Goal::Count(topics.len() as u64));
    let mut nodes = context.consumer().await?;
    let meter = context.meter()?;
    let began = Instant::now();
    holder.disconnect()?;
    let mut figures =
        BTreeMap::from([("topics_watched".to_owned(), f64::from(watching.sample.min(population.topics)))]);
    let drained = async {
        watch(|checker, topic, answer| Ok(checker.listed(topic, answer)? == 0), progress.counter()).await?;
        figures.insert("seconds_until_no_lookup".into(), began.elapsed().as_secs_f64());
        until(&mut nodes, "/nodes", began, |answer| Ok(checker.nodes(answer)? == 0)).await?;
        figures.insert("seconds_until_no_node".into(), began.elapsed().as_secs_f64());
        Ok(())
    };
    context.stop.run_until_cancelled(within(watching.within, "gone", drained)).await.transpose()?;
    drop(progress);
    let report =
        meter.read()?.report("disconnect", population.producers.into(), &Latencies::default(), figures)?;
    context.print(&report)
}

/// The process of that id, if it is one of ours.
fn generator(pid: u32) -> Result<Process> {
    let process = Process::new(pid)?;
    let name = process.name()?;
    if name == env!("CARGO_PKG_NAME") {
        return Ok(process);
    }
    Err(Failure::Refused(format!(
        "--populated-by {pid} is {name}: give the id of a running {} populate",
        env!("CARGO_PKG_NAME")
    )))
}
