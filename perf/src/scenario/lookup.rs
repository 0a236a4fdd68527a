//! `lookup`: consumers ask, in a closed or an open loop.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::AsFd;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio_uring::fs::File;

use super::Context;
use super::load::{Consumers, Questions, Tally};
use super::options::{Lookups, Rate};
use crate::answers;
use crate::failure::{Failure, Result};
use crate::progress::{Goal, Progress};
use crate::wire::http::Client;

#[derive(Debug, clap::Args)]
#[command(mut_arg("rate", |arg| arg.default_value(None).help("Open loop: requests a second; latency counts from when a request was due")))]
pub struct Options {
    #[command(flatten)]
    pub lookups: Lookups,
    /// Closed loop: requests in one write
    #[arg(long, value_name = "N", default_value_t = 1, conflicts_with_all = ["rate", "no_keep_alive"],
        value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub pipeline: u32,
    #[command(flatten)]
    pub rate: Option<Rate>,
    /// Open a connection for each request
    #[arg(long)]
    pub no_keep_alive: bool,
    /// Ask for this instead of lookups; any answer with status 200 is right
    #[arg(long, value_name = "TARGET", conflicts_with_all = ["zipf", "populate"], value_parser = parse_path)]
    pub path: Option<String>,
    /// Ask for the first N topics only
    #[arg(long, value_name = "N", conflicts_with = "zipf", value_parser = clap::value_parser!(u32).range(1..))]
    pub among: Option<u32>,
    /// Measure and report once for each line of standard input, for as long as it says, as in 400ms
    #[arg(long)]
    pub on_demand: bool,
}

/// Reads the target of a request.
///
/// # Errors
/// What is none.
pub fn parse_path(text: &str) -> Result<String, String> {
    if text.starts_with('/') && text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Ok(text.to_owned());
    }
    Err("begin with / and escape what is no ASCII".into())
}

/// # Errors
/// A wrong answer.
pub async fn run(context: Rc<Context>, options: &Options) -> Result<()> {
    options.lookups.hold(&context, 0, ask(&context, options)).await
}

async fn ask(context: &Rc<Context>, options: &Options) -> Result<()> {
    let lookups = &options.lookups;
    let questions = match &options.path {
        Some(path) => Questions::Path(path.clone()),
        None => lookups.questions(context)?.among(options.among.unwrap_or(u32::MAX)),
    };
    let consumers = lookups.consumers(context, questions);
    if !options.on_demand {
        return measure(context, options, lookups.load.period.time, &consumers).await;
    }
    let demands = Demands::new()?;
    while let Some(Some(time)) = context.stop.run_until_cancelled(demands.next()).await.transpose()? {
        measure(context, options, time, &consumers).await?;
    }
    Ok(())
}

/// More than any duration takes to write.
const LINE_BYTES: usize = 64;

/// Lines of standard input.
struct Demands(File);

impl Demands {
    fn new() -> Result<Self> {
        let stdin = io::stdin().as_fd().try_clone_to_owned().map_err(unreadable)?;
        Ok(Self(File::from_std(stdin.into())))
    }

    /// Waits for the next and what it says; `None` at the end. They are to be written one at a time.
    async fn next(&self) -> Result<Option<Duration>> {
        let (result, line) = self.0.read_at(vec![0; LINE_BYTES], 0).await;
        if result.map_err(unreadable)? == 0 {
            return Ok(None);
        }
        let line = String::from_utf8_lossy(&line);
        let line = line.trim_end_matches(['\0', '\n']);
        humantime::parse_duration(line).map(Some).map_err(|error| Failure::Refused(format!("\"{line}\": {error}")))
    }
}

fn unreadable(error: io::Error) -> Failure {
    Failure::io("read standard input", error, "leave --on-demand to programs")
}

async fn measure(
    context: &Rc<Context>,
    options: &Options,
    time: Duration,
    consumers: &Rc<Consumers>,
) -> Result<()> {
    let mut figures = BTreeMap::new();
    if let Some(path) = &options.path {
        let mut first = context.consumer().await?;
        let asked = Instant::now();
        first.get(path, answers::ok).await?;
        figures.insert("first_answer_us".into(), asked.elapsed().as_secs_f64() * 1e6);
    }
    let progress = Progress::show("asking", "answers", Goal::Time(time));
    let tally = Rc::new(Tally { answers: progress.counter(), ..Tally::default() });
    let end = async { _ = context.is_stopped_within(time).await };
    let clients = consumers.connect(!options.no_keep_alive).await?;
    // They are among the server's open files until those are counted.
    let _open: Vec<_> = clients.iter().flatten().map(Client::link).collect();
    let meter = context.meter()?;
    match options.rate {
        Some(Rate { rate }) => {
            let unasked = consumers.open_loop(clients, rate, &tally, end).await?;
            figures.insert("rate".into(), rate);
            #[expect(clippy::cast_precision_loss, reason = "shown to people")]
            figures.insert("due_but_never_asked".into(), unasked as f64);
        }
        None => consumers.closed_loop(clients, options.pipeline, &tally, end).await?,
    }
    drop(progress);
    let report = meter.read()?.report("lookup", tally.answers.get(), &tally.latencies.borrow(), figures)?;
    context.print(&report)
}
