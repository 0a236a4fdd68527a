//! `hot`: one topic with very many producers, which leave it and come back one after the other. Each change makes
//! another answer of a megabyte, so that its cost is held against that of sending one that does not change.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::{Duration, Instant};

use memchr::memmem::{self, Finder};
use tokio::task::JoinSet;

use super::fleet::{HEARTBEAT, register};
use super::load::lookup_target;
use super::options::For;
use super::phase::quantiles;
use super::{Context, allow_connections};
use crate::answers::{self, Checker};
use crate::failure::Result;
use crate::measure::Latencies;
use crate::population::{Identity, Population, Run, producer_name};
use crate::progress::{Goal, Progress};
use crate::report::Report;
use crate::wire::{http, v1};

/// The only one.
const TOPIC: u32 = 0;
/// Producers that connect at the same time.
const CONNECTING: usize = 64;
/// One answer in so many is read as JSON and checked to the last field. All others are only counted: reading a
/// megabyte takes longer than a server needs to send it.
const READ_ONE_IN: u64 = 500;

#[derive(Debug, clap::Args)]
#[command(mut_arg("time", |arg| arg.help("How long each of the two phases takes: lookups alone, then a lookup after each change")))]
pub struct Options {
    /// Simulated nsqds, all in one topic
    #[arg(long, value_name = "N", default_value_t = 5000, value_parser = clap::value_parser!(u32).range(2..1_000_000))]
    pub producers: u32,
    /// Channels of the topic
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(0..1_000))]
    pub channels: u32,
    #[command(flatten)]
    pub phase: For,
}

/// # Errors
/// A wrong answer; one is that a lookup does not show the change before it, or anything else than that.
pub async fn run(context: Rc<Context>, options: &Options) -> Result<()> {
    let &Options { producers, channels, phase: For { time } } = options;
    allow_connections(producers)?;
    let population = Population { producers, topics_per_producer: 1, topics: 1, channels };
    let connecting = Topic::fill(&context, population);
    let Some(mut topic) = context.stop.run_until_cancelled(connecting).await.transpose()? else {
        return Ok(());
    };
    let still = topic.phase("lookups alone", &context, time, false).await?;
    let mut figures = BTreeMap::from([("producers".to_owned(), f64::from(producers))]);
    figures.insert("lookups_alone_per_second".into(), still.per_second);
    figures.extend(still.latency_us.into_iter().flat_map(|latency| quantiles("lookup_alone", latency)));
    let report = if context.stop.is_cancelled() {
        still
    } else {
        let changing = topic.phase("changes and lookups", &context, time, true).await?;
        figures.extend(compared(&still, &changing));
        changing
    };
    #[expect(clippy::cast_precision_loss, reason = "some megabytes")]
    figures.insert("answer_bytes".into(), topic.answer_bytes as f64);
    context.print(&Report { figures, ..report })
}

/// What a cycle costs as a multiple of a lookup that nothing was changed before.
fn compared(still: &Report, changing: &Report) -> Vec<(String, f64)> {
    let mut figures = Vec::new();
    if let (Some(still), Some(changing)) = (still.latency_us, changing.latency_us) {
        figures.push(("cycle_to_send_latency_ratio".into(), changing.p50 / still.p50));
    }
    let cost = |report: &Report| {
        let rate = report.server.map(|server| server.operations_per_cpu_second).filter(|&rate| rate > 0.0);
        rate.map(|rate| 1e6 / rate)
    };
    if let (Some(send), Some(cycle)) = (cost(still), cost(changing)) {
        figures.push(("server_cpu_us_per_lookup_alone".into(), send));
        figures.push(("server_cpu_us_per_cycle".into(), cycle));
        figures.push(("cycle_to_send_ratio".into(), cycle / send));
    }
    figures
}

/// The topic's producers, and a consumer that looks.
struct Topic {
    run: Run,
    population: Population,
    nsqds: Vec<Nsqd>,
    /// Whose turn it is to leave and to come back.
    turn: usize,
    /// Whether it has left.
    is_absent: bool,
    /// Who was silent for longest: heartbeats go round, too.
    silent: usize,
    consumer: http::Client,
    checker: Checker,
    looks: u64,
    answer_bytes: usize,
}

struct Nsqd {
    index: u32,
    client: v1::Client,
    heard: Instant,
}

impl Topic {
    async fn fill(context: &Rc<Context>, population: Population) -> Result<Self> {
        context.makes_all_of(population);
        let progress = Progress::show("registering", "producers", Goal::Count(population.producers.into()));
        let registered = progress.counter();
        let (mut connecting, mut nsqds) = (JoinSet::new(), Vec::new());
        let mut waiting = 0..population.producers;
        loop {
            for index in waiting.by_ref().take(CONNECTING - connecting.len()) {
                let context = Rc::clone(context);
                connecting.spawn_local(async move { Nsqd::connect(&context, population, index).await });
            }
            let Some(connected) = connecting.join_next().await else { break };
            nsqds.push(connected.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))?);
            registered.set(nsqds.len() as u64);
        }
        nsqds.sort_unstable_by_key(|nsqd| nsqd.index);
        let (consumer, checker) = (context.consumer().await?, Checker::new(population));
        Ok(Self {
            run: context.run.clone(),
            population,
            nsqds,
            turn: 0,
            is_absent: false,
            silent: 0,
            consumer,
            checker,
            looks: 0,
            answer_bytes: 0,
        })
    }

    /// Looks again and again, each time after a change if there are to be changes. The first and the last answer
    /// are checked to the last field.
    async fn phase(
        &mut self,
        name: &'static str,
        context: &Context,
        time: Duration,
        changes: bool,
    ) -> Result<Report> {
        let progress = Progress::show(name, "answers", Goal::Time(time));
        let (answers, mut latencies) = (progress.counter(), Latencies::default());
        self.look(true).await?;
        let meter = context.meter()?;
        let began = Instant::now();
        while began.elapsed() < time && !context.stop.is_cancelled() {
            let sent = Instant::now();
            if changes {
                self.change().await?;
            }
            self.look(self.looks.is_multiple_of(READ_ONE_IN)).await?;
            latencies.record(sent.elapsed());
            answers.set(answers.get() + 1);
            self.beat().await?;
        }
        let report = meter.read()?.report("hot", answers.get(), &latencies, BTreeMap::new())?;
        self.look(true).await?;
        Ok(report)
    }

    /// Who left comes back; when all are there, the next leaves.
    async fn change(&mut self) -> Result<()> {
        let nsqd = &mut self.nsqds[self.turn];
        if self.is_absent {
            nsqd.register(&self.run, self.population).await?;
            self.turn = (self.turn + 1) % self.nsqds.len();
        } else {
            nsqd.client.command(&format!("UNREGISTER {}", self.run.topic(TOPIC))).await?;
        }
        self.is_absent = !self.is_absent;
        Ok(())
    }

    /// One lookup, which must show everybody but who is absent.
    async fn look(&mut self, read: bool) -> Result<()> {
        let absent = self.is_absent.then(|| self.nsqds[self.turn].index);
        let Self { run, population, consumer, checker, looks, answer_bytes, .. } = self;
        let check = |answer: http::Answer<'_>| {
            *answer_bytes = answer.body.len();
            counted(answer, population.producers, absent)?;
            match absent {
                _ if !read => Ok(()),
                None => checker.complete(TOPIC, answer),
                // Nobody twice, nobody strange, and so many: everybody else.
                Some(_) => checker.listed(TOPIC, answer).map(|_| ()),
            }
        };
        consumer.get(&lookup_target(run, TOPIC), check).await?;
        *looks += 1;
        Ok(())
    }

    /// The heartbeats that are due.
    async fn beat(&mut self) -> Result<()> {
        while self.nsqds[self.silent].heard.elapsed() >= HEARTBEAT {
            let nsqd = &mut self.nsqds[self.silent];
            nsqd.client.command("PING").await?;
            nsqd.heard = Instant::now();
            self.silent = (self.silent + 1) % self.nsqds.len();
        }
        Ok(())
    }
}

impl Nsqd {
    async fn connect(context: &Context, population: Population, index: u32) -> Result<Self> {
        let mut client = context.nsqd().await?;
        client.identify(Identity::named(&producer_name(index))).await?;
        let mut nsqd = Self { index, client, heard: Instant::now() };
        nsqd.register(&context.run, population).await?;
        Ok(nsqd)
    }

    async fn register(&mut self, run: &Run, population: Population) -> Result<()> {
        for command in population.commands(self.index).map(|registration| register(run, registration)) {
            self.client.command(&command).await?;
        }
        Ok(())
    }
}

/// Whether an answer names as many producers as it must, and not who is absent; a megabyte in some ten microseconds.
///
/// # Errors
/// What it shows instead.
fn counted(answer: http::Answer<'_>, producers: u32, absent: Option<u32>) -> Result<(), String> {
    answers::ok(answer)?;
    if let Some(name) = absent.map(producer_name)
        && Finder::new(&format!("\"{name}\"")).find(answer.body).is_some()
    {
        return Err(format!("producer {name} is listed after the OK to its UNREGISTER"));
    }
    let listed = memmem::find_iter(answer.body, "\"broadcast_address\":").count();
    let due = producers as usize - usize::from(absent.is_some());
    if listed == due { Ok(()) } else { Err(format!("{listed} producers where {due} were due")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_shows_everybody_but_who_is_absent() {
        let body = |producers: &[u32]| {
            let entry = |index: &u32| format!(r#"{{"broadcast_address":"{}"}}"#, producer_name(*index));
            format!(r#"{{"producers":[{}]}}"#, producers.iter().map(entry).collect::<Vec<_>>().join(","))
        };
        let check = |producers: &[u32], absent| {
            counted(http::Answer { status: 200, body: body(producers).as_bytes() }, 3, absent)
        };
        assert_eq!(check(&[0, 1, 2], None), Ok(()));
        assert_eq!(check(&[0, 2], Some(1)), Ok(()));
        assert!(check(&[0, 2], None).unwrap_err().contains("2 producers where 3"));
        assert!(check(&[0, 1], Some(1)).unwrap_err().contains("nsqd-000001.perf is listed"));
        assert!(check(&[0], Some(1)).is_err());
        assert!(counted(http::Answer { status: 404, body: b"" }, 3, None).is_err());
    }
}
