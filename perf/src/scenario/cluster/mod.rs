//! `cluster`: nsqds register and unregister topics at one instance of a cluster, or at all of them, and the others are
//! looked at. Measured are the time from the `OK` at one instance until each other one lists the change, the time until
//! all list a population that is spread over them, and what the changes do to lookups. A change that does not arrive
//! fails the run. With one instance nothing has to arrive: lookups and changes are its own.

mod arrivals;
mod messages;
mod observers;
mod writers;

use std::cell::Cell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::fleet::Fleet;
use super::load::{Consumers, Pacing, Questions, parse_pacing, parse_rate};
use super::options::For;
use super::phase::{Pace, quantiles};
use super::populate::Registering;
use super::sampled::{until, until_each};
use super::{Context, allow_connections};
use crate::answers::Checker;
use crate::failure::{Failure, Result};
use crate::measure::{Latencies, Meter, Process};
use crate::progress::{Goal, Progress};
use crate::report::Report;
use crate::unit::approximate;
use crate::wire::http::Answer;
use arrivals::Arrivals;
use observers::{By, Observers};
use writers::{Writer, change_topics, rest};

/// From one check whether every change has arrived in time to the next.
const POLL: Duration = Duration::from_millis(5);
/// Connections that look at each instance while the population is registered.
const PROBES: u32 = 2;

#[derive(Debug, clap::Args)]
#[command(mut_arg("topics", |arg| arg.default_value("100")))]
#[command(mut_arg("producers", |arg| arg.default_value("20").help("Simulated nsqds that stay, spread over the instances in turn")))]
#[command(mut_arg("time", |arg| arg.help("How long each phase takes: lookups without changes if there are lookups, then changes")))]
pub struct Options {
    #[command(flatten)]
    pub registering: Registering,
    /// How long the population may take until every instance lists all of it
    #[arg(long, value_name = "DURATION", default_value = "2m", value_parser = humantime::parse_duration)]
    pub populated_within: Duration,
    /// Topics whose lookups tell whether an instance lists the population, spread over all
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..1_000_000))]
    pub sample: u32,
    /// Changes a second: an nsqd registers or unregisters a topic
    #[arg(short, long, value_name = "N", default_value = "100", value_parser = parse_rate)]
    pub rate: f64,
    #[command(flatten)]
    pub phase: For,
    /// nsqds that do so, beside the population; each instance gets an nsqd's changes together
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..10_000))]
    pub writers: u32,
    /// Topics of the population that each of them changes in turn
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..10_000))]
    pub changed_topics: u32,
    /// Change topics at all instances in turn [default: at the first]
    #[arg(long)]
    pub everywhere: bool,
    /// How changes are seen at the other instances
    #[arg(long, value_enum, default_value = "watch")]
    pub by: By,
    /// From one round of lookups to the next, by --by lookup
    #[arg(long, value_name = "DURATION", default_value = "2ms", value_parser = humantime::parse_duration)]
    pub pause: Duration,
    /// Fail when a change has not arrived at each other instance so long after its OK
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = humantime::parse_duration)]
    pub within: Duration,
    /// Lookups a second beside it, whose latency counts from when a lookup was due; or `max`: as fast as responses come
    /// [default: none]
    #[arg(long, value_name = "N|max", value_parser = parse_pacing)]
    pub lookups: Option<Pacing>,
    /// The instance that they ask, the first of which is 1 [default: the second, or the only one]
    #[arg(long, value_name = "N")]
    pub lookups_at: Option<usize>,
    /// Connections of the lookups
    #[arg(short, long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..100_000))]
    pub connections: u32,
    /// Of the order in which topics are looked up
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
}

impl Options {
    fn validate(&self, instances: usize) -> Result<()> {
        let refused = |text: String| Err(Failure::Refused(text));
        let Self { registering: Registering { population, .. }, writers, .. } = self;
        population.validate()?;
        if instances < 2 && self.lookups.is_none() {
            return refused(
                "a cluster has several instances: give --tcp and --http of each, with commas, or --lookups for those \
                 of an instance alone"
                    .into(),
            );
        }
        let lookups_at = self.lookups_at(instances);
        if !(1..=instances).contains(&lookups_at) {
            return refused(format!("--lookups-at {lookups_at} is none of {instances} instances"));
        }
        if self.everywhere && (*writers as usize) < instances {
            return refused(format!(
                "--writers {writers} are too few for {instances} instances: give one for each"
            ));
        }
        let lookups = if self.lookups.is_some() { self.connections } else { 0 };
        let each = 1 + PROBES + self.changed_topics.div_ceil(100);
        let looking = each * u32::try_from(instances).expect("a few instances");
        allow_connections(population.producers + writers + lookups + looking)
    }

    fn lookups_at(&self, instances: usize) -> usize {
        self.lookups_at.unwrap_or(instances.min(2))
    }

    /// The instance that a writer is connected to.
    fn home(&self, writer: u32, instances: usize) -> usize {
        if self.everywhere { writer as usize % instances } else { 0 }
    }
}

/// # Errors
/// A wrong response or event; a change that does not arrive at every other instance in time.
pub async fn run(instances: &[Rc<Context>], options: &Options) -> Result<()> {
    options.validate(instances.len())?;
    let mut figures = BTreeMap::from([("instances".to_owned(), approximate(instances.len() as u64))]);
    figures.extend(memory(instances, "before")?);
    let context = &instances[0];
    let populating = populate(instances, options, &mut figures);
    let Some(mut fleet) = context.stop.run_until_cancelled(populating).await.transpose()? else { return Ok(()) };
    figures.extend(memory(instances, "populated")?);
    fleet.alongside(Box::pin(measure(instances, options, figures))).await
}

/// Registers the population, while every instance is looked at until it lists all of it.
async fn populate(
    instances: &[Rc<Context>],
    options: &Options,
    figures: &mut BTreeMap<String, f64>,
) -> Result<Fleet> {
    let Registering { population, pipeline } = options.registering;
    let topics = population.sample(options.sample);
    figures.insert("topics_sampled".into(), approximate(topics.len() as u64));
    let progress = Progress::show("registering", "registrations", Goal::Count(population.registrations()));
    let began = Instant::now();
    let mut fleet = Fleet::launch_at(instances, population, pipeline, progress.counter());
    let registered = fleet.registered();
    let registered = async {
        registered.await;
        Ok(began.elapsed())
    };
    let listed = async {
        let (complete, checker) = (Rc::new(Cell::new(0)), Rc::new(Checker::new(population)));
        let mut last = Duration::ZERO;
        // At once: the first would otherwise be done before the second is looked at.
        let mut tasks = tokio::task::JoinSet::new();
        for context in instances {
            let (context, topics) = (Rc::clone(context), topics.clone());
            let (complete, checker) = (Rc::clone(&complete), Rc::clone(&checker));
            tasks.spawn_local(async move {
                let is_complete = move |topic, answer: Answer<'_>| checker.is_complete(topic, answer);
                until_each(&context, PROBES, topics, complete, is_complete).await
            });
        }
        while let Some(ended) = tasks.join_next().await {
            ended.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))?;
            last = began.elapsed();
        }
        Ok(last)
    };
    let work = fleet.alongside(async { tokio::try_join!(registered, listed) });
    let (registered, listed) = in_time(options.populated_within, work).await?;
    for (name, time) in [
        ("seconds_until_registered", registered),
        ("seconds_until_listed_everywhere", listed),
        ("seconds_from_registered_to_listed_everywhere", listed.saturating_sub(registered)),
    ] {
        figures.insert(name.into(), time.as_secs_f64());
    }
    Ok(fleet)
}

/// # Errors
/// When what is registered is not listed everywhere within the time.
async fn in_time<T>(limit: Duration, work: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::time::timeout(limit, work).await.unwrap_or_else(|_| {
        Err(Failure::Late(format!(
            "not every instance lists all that is registered within {limit:?}: give the server longer with \
             --populated-within, or see whether they are one cluster"
        )))
    })
}

async fn measure(instances: &[Rc<Context>], options: &Options, mut figures: BTreeMap<String, f64>) -> Result<()> {
    let context = &instances[0];
    let connecting = Cluster::connect(instances, options);
    let Some((mut observers, mut cluster)) = context.stop.run_until_cancelled(connecting).await.transpose()?
    else {
        return Ok(());
    };
    figures.insert("changes_wanted_per_second".into(), options.rate);
    let report = observers.alongside(cluster.phases(&mut figures)).await?;
    figures.extend(memory(instances, "after_changes")?);
    context.print(&Report { figures, ..report })
}

/// Writers that are connected, and what there is to be found of their changes.
struct Cluster<'a> {
    instances: &'a [Rc<Context>],
    options: &'a Options,
    arrivals: Rc<Arrivals>,
    writers: Vec<Writer>,
}

impl<'a> Cluster<'a> {
    /// Connects writers, and observers once every instance lists what they have registered.
    async fn connect(instances: &'a [Rc<Context>], options: &'a Options) -> Result<(Observers, Self)> {
        let Options { registering: Registering { population, .. }, by, pause, .. } = *options;
        let home = |writer| options.home(writer, instances.len());
        let addresses = instances.iter().map(|context| context.http.to_string()).collect();
        let run = &instances[0].run;
        let arrivals = Arrivals::new(run, population, options.changed_topics, options.writers, addresses, home);
        let arrivals = Rc::new(arrivals);
        let mut writers = Vec::new();
        for writer in 0..options.writers {
            writers.push(Writer::connect(&instances[home(writer)], writer, &arrivals).await?);
        }
        let mut observers = Observers::new();
        for (instance, context) in instances.iter().enumerate() {
            if instance == 0 && !options.everywhere {
                continue;
            }
            let mut client = context.consumer().await?;
            let began = Instant::now();
            let all = async {
                for place in 0..arrivals.count() {
                    let target = format!("/lookup?topic={}", arrivals.name(place));
                    let is_right = |answer: Answer<'_>| arrivals.is_as_at_first(instance, place, answer);
                    until(&mut client, &target, began, is_right).await?;
                }
                Ok(())
            };
            in_time(options.populated_within, all).await?;
            observers.add(context, instance, &arrivals, by, pause).await?;
        }
        Ok((observers, Self { instances, options, arrivals, writers }))
    }

    /// Lookups alone if there are any, then changes.
    async fn phases(&mut self, figures: &mut BTreeMap<String, f64>) -> Result<Report> {
        let &Options { phase: For { time }, connections, seed, .. } = self.options;
        let population = self.options.registering.population;
        let asked = &self.instances[self.options.lookups_at(self.instances.len()) - 1];
        let stop = &self.instances[0].stop;
        let questions = Questions::lookups(&asked.run, population, None);
        let consumers = Rc::new(Consumers { context: Rc::clone(asked), questions, connections, seed });
        let pace = self.options.lookups.map(|pacing| Pace { scenario: "cluster", pacing, time });
        let mut calm = None;
        if let Some(pace) = pace {
            let resting = rest(&self.instances[0], &mut self.writers, time);
            let without = pace.phase("lookups without changes", &consumers, resting).await?;
            if stop.is_cancelled() {
                return Ok(without);
            }
            figures.extend(lookups("without_changes", &without));
            calm = Some(without);
        }
        let client = Meter::start(None)?;
        let meters: Vec<_> = self.instances.iter().map(|context| context.meter()).collect::<Result<_>>()?;
        let writers = std::mem::take(&mut self.writers);
        let with = tokio::select! {
            Err(late) = until_late(&self.arrivals, self.options.within) => Err(late),
            result = self.change(pace, &consumers, writers) => result,
        }?;
        figures.extend(with.iter().flat_map(|with| lookups("with_changes", with)));
        let latency = |report: Option<Report>| report?.latency_us;
        if let (Some(without), Some(with)) = (latency(calm), latency(with)) {
            figures.insert("lookup_p50_with_to_without_ratio".into(), with.p50 / without.p50);
            figures.insert("lookup_p99_with_to_without_ratio".into(), with.p99 / without.p99);
        }
        self.report(&client, &meters, figures)
    }

    /// Changes until all of them have arrived, and lookups beside them if there are any, whose report is returned.
    async fn change(
        &self,
        pace: Option<Pace>,
        consumers: &Rc<Consumers>,
        writers: Vec<Writer>,
    ) -> Result<Option<Report>> {
        let &Options { rate, phase: For { time }, .. } = self.options;
        let (context, arrivals) = (&self.instances[0], &self.arrivals);
        // The writers stay until every change has arrived: a disconnect is a change, too.
        let (mut _connected, mut lookups) = (Vec::new(), None);
        if let Some(pace) = pace {
            let changing = async {
                _connected = change_topics(context, writers, arrivals, rate, time, &Rc::default()).await?;
                Ok(())
            };
            lookups = Some(pace.phase("lookups and changes", consumers, changing).await?);
        } else {
            let progress = Progress::show("changes", "changes", Goal::Time(time));
            _connected = change_topics(context, writers, arrivals, rate, time, &progress.counter()).await?;
        }
        while arrivals.under_way() > 0 {
            tokio::time::sleep(POLL).await;
        }
        Ok(lookups)
    }

    fn report(&self, client: &Meter, meters: &[Meter], figures: &mut BTreeMap<String, f64>) -> Result<Report> {
        let found = self.arrivals.found();
        let usage = client.read()?;
        figures.extend(found.counts());
        figures.insert("changes_per_second".into(), approximate(found.changes) / usage.seconds);
        for (name, latencies) in [("up_after_ok", &found.up), ("down_after_ok", &found.down), ("ok", &found.oks)] {
            figures.extend(latencies.summary().into_iter().flat_map(|latency| quantiles(name, latency)));
        }
        for (number, meter) in (1..).zip(meters) {
            let cpu = meter.read()?.server_cpu_seconds().filter(|_| found.changes > 0);
            let each = cpu.map(|seconds| seconds * 1e6 / approximate(found.changes));
            figures.extend(each.map(|micros| (format!("instance_{number}_cpu_us_per_change"), micros)));
        }
        let mut all = Latencies::default();
        all.add(&found.up);
        all.add(&found.down);
        usage.report("cluster", found.arrivals, &all, BTreeMap::new())
    }
}

/// Ends when a change is late, by that error.
async fn until_late(arrivals: &Arrivals, within: Duration) -> Result<()> {
    loop {
        arrivals.check_all_in_time(within, Instant::now())?;
        tokio::time::sleep(POLL).await;
    }
}

/// Latency and cost of lookups in a phase.
fn lookups<'a>(phase: &'a str, report: &Report) -> impl Iterator<Item = (String, f64)> + use<'a> {
    let name = format!("lookup_{phase}");
    let latency =
        report.latency_us.into_iter().flat_map(move |latency| quantiles(&name, latency).collect::<Vec<_>>());
    let cost = report.server.map(|server| server.operations_per_cpu_second).filter(|&rate| rate > 0.0);
    latency.chain(cost.map(|rate| (format!("lookups_per_cpu_second_{phase}"), rate)))
}

/// Resident memory of the instances whose process is known.
fn memory(instances: &[Rc<Context>], when: &str) -> Result<Vec<(String, f64)>> {
    let known = (1..).zip(instances).filter_map(|(number, context)| Some((number, context.server?)));
    let figure = |(number, process): (u32, Process)| {
        Ok((format!("instance_{number}_rss_bytes_{when}"), approximate(process.rss_bytes()?)))
    };
    known.map(figure).collect()
}
