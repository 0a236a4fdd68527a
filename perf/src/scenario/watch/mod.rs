//! `watch`: nsqds register and unregister topics that others watch. Measured are the time from a change to each watcher,
//! the cost of a watcher, and what watchers do to lookups. A change that does not reach a watcher fails the run.

mod apart;
mod board;
mod script;
mod watchers;
mod writers;

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::load::parse_rate;
use super::options::For;
use super::phase::quantiles;
use super::populate::{Registering, launched};
use super::{Context, allow_connections};
use crate::failure::{Failure, Result};
use crate::measure::{Process, Usage};
use crate::population::Population;
use crate::progress::{Goal, Progress};
use crate::report::{Latency, Report};
use crate::unit::approximate;
use apart::Apart;
use board::{Board, Found};
use watchers::{Mode, Watchers, Watching};
use writers::{Group, change_topics};

/// From one check whether every change has arrived to the next.
const POLL: Duration = Duration::from_millis(5);
/// Of the registration, which is not what is measured.
const PIPELINE: u32 = 64;

#[derive(Debug, clap::Args)]
#[command(mut_arg("topics", |arg| arg.default_value("100")))]
#[command(mut_arg("producers", |arg| arg.default_value("20").help("Simulated nsqds that stay")))]
#[command(mut_arg("time", |arg| arg.help("How long each phase takes: changes and lookups without watchers if there are lookups, then with them")))]
pub struct Options {
    #[command(flatten)]
    pub population: Population,
    #[command(flatten)]
    pub watching: Watching,
    /// Changes a second: an nsqd registers or unregisters a topic
    #[arg(short, long, value_name = "N", default_value = "100", value_parser = parse_rate)]
    pub rate: f64,
    #[command(flatten)]
    pub phase: For,
    /// Lookups a second beside it; latency counts from when a lookup was due [default: none]
    #[arg(long, value_name = "N", value_parser = parse_rate)]
    pub lookups: Option<f64>,
    /// Connections of the lookups
    #[arg(short, long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..100_000))]
    pub connections: u32,
    /// Fail when a change has not reached each watcher so long after the last change
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = humantime::parse_duration)]
    pub within: Duration,
    /// Of the order in which topics are looked up
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
}

impl Options {
    fn validate(&self) -> Result<()> {
        let Self { population, watching, lookups, connections, .. } = self;
        population.validate()?;
        if watching.deaf > 0 && watching.mode == Mode::Interval {
            return Err(Failure::Refused("--deaf needs /watch: omit it with --mode interval".into()));
        }
        let lookups = if lookups.is_some() { *connections } else { 0 };
        let others = lookups + writers::connections(population.topics);
        allow_connections(population.producers + watching.watchers + watching.deaf + others)
    }
}

/// # Errors
/// A wrong response or event; one is a change that does not reach a watcher.
pub async fn run(context: Rc<Context>, options: &Options) -> Result<()> {
    options.validate()?;
    let registering = Registering { population: options.population, pipeline: PIPELINE };
    let (mut fleet, complete) = launched(&context, registering).await?;
    if complete { fleet.alongside(Box::pin(measure(&context, options))).await } else { Ok(()) }
}

async fn measure(context: &Rc<Context>, options: &Options) -> Result<()> {
    let &Options { population, watching, rate, phase: For { time }, connections, seed, .. } = options;
    let board = Rc::new(Board::new(&context.run, population));
    let beside = Beside { context, board: &board, rate };
    let apart = options.lookups.map(|rate| Apart { population, rate, connections, seed, time });
    let mut groups = Group::connect_all(context, population.topics).await?;

    let mut figures = BTreeMap::from([("changes_wanted_per_second".to_owned(), rate)]);
    let mut calm = None;
    if let Some(apart) = apart {
        let without = beside.phase("changes and lookups without watchers", apart, groups).await?;
        groups = without.groups;
        // A signal.
        let Some(lookups) = without.lookups else { return Ok(()) };
        calm = lookups.latency_us;
        figures.extend(calm.into_iter().flat_map(|latency| quantiles("lookup_without_watchers", latency)));
    }
    let before = Memory::of(context)?;
    let connecting = Watchers::connect(context, &board, watching);
    let Some(mut watchers) = context.stop.run_until_cancelled(connecting).await.transpose()? else {
        return Ok(());
    };
    let connected = Memory::of(context)?;

    let (meter, changes) = (context.meter()?, board.all_changes());
    let measuring = async {
        // The nsqds stay until every change has arrived: a disconnect is a change, too.
        let (lookups, _groups) = match apart {
            Some(apart) => {
                let with = beside.phase("changes and lookups with watchers", apart, groups).await?;
                (with.lookups.and_then(|lookups| lookups.latency_us), with.groups)
            }
            None => (None, beside.changes_alone(groups, time).await?),
        };
        until_all_have_arrived(&board, options.within).await.map(|()| lookups)
    };
    let with = watchers.alongside(measuring).await?;
    let usage = meter.read()?;
    figures.extend(lookups(calm, with));
    figures.extend(Memory::figures(before, connected, Memory::of(context)?, watching));
    let changes = approximate(board.all_changes() - changes);
    figures.insert("changes_per_second".into(), changes / usage.seconds);
    context.print(&report(&usage, &board.found(), figures)?)
}

/// Changes, and lookups beside them.
struct Beside<'a> {
    context: &'a Context,
    board: &'a Rc<Board>,
    rate: f64,
}

/// The outcome of a phase.
struct Phase {
    lookups: Option<Report>,
    groups: Vec<Group>,
}

impl Beside<'_> {
    async fn phase(&self, name: &'static str, apart: Apart, groups: Vec<Group>) -> Result<Phase> {
        let _progress = Progress::show(name, "changes", Goal::Time(apart.time));
        let changing = change_topics(self.context, groups, self.board, self.rate, apart.time);
        let (lookups, groups) = tokio::try_join!(apart.ask(self.context), changing)?;
        Ok(Phase { lookups, groups })
    }

    async fn changes_alone(&self, groups: Vec<Group>, time: Duration) -> Result<Vec<Group>> {
        let _progress = Progress::show("changes with watchers", "changes", Goal::Time(time));
        change_topics(self.context, groups, self.board, self.rate, time).await
    }
}

/// # Errors
/// When a change does not reach a watcher within the time.
async fn until_all_have_arrived(board: &Board, within: Duration) -> Result<()> {
    let began = Instant::now();
    while let Err(missing) = board.all_have_arrived() {
        if began.elapsed() >= within {
            return Err(Failure::wrong("watchers", format_args!("after {within:?} {missing}"), b""));
        }
        tokio::time::sleep(POLL).await;
    }
    Ok(())
}

/// Resident memory of the server, if its process is known.
#[derive(Clone, Copy)]
struct Memory(Option<u64>);

impl Memory {
    fn of(context: &Context) -> Result<Self> {
        context.server.map(Process::rss_bytes).transpose().map(Self)
    }

    /// Memory of each watcher, the deaf ones included, once they are connected and after the changes.
    fn figures(before: Self, connected: Self, after: Self, watching: Watching) -> Vec<(String, f64)> {
        let (Some(before), Some(connected), Some(after)) = (before.0, connected.0, after.0) else {
            return Vec::new();
        };
        let all = f64::from(watching.watchers) + f64::from(watching.deaf);
        let each = |bytes: u64| approximate(bytes.saturating_sub(before)) / all;
        let figures = [
            ("rss_bytes_before_watchers", approximate(before)),
            ("rss_bytes_with_watchers", approximate(connected)),
            ("rss_bytes_after_changes", approximate(after)),
            ("rss_bytes_per_watcher", each(connected)),
            ("rss_bytes_per_watcher_after_changes", each(after)),
        ];
        figures.map(|(name, value)| (name.to_owned(), value)).into()
    }
}

fn lookups(without: Option<Latency>, with: Option<Latency>) -> BTreeMap<String, f64> {
    let mut figures: BTreeMap<_, _> =
        with.into_iter().flat_map(|latency| quantiles("lookup_with_watchers", latency)).collect();
    if let (Some(without), Some(with)) = (without, with) {
        figures.insert("lookup_p50_with_to_without_ratio".into(), with.p50 / without.p50);
        figures.insert("lookup_p99_with_to_without_ratio".into(), with.p99 / without.p99);
    }
    figures
}

fn report(usage: &Usage, found: &Found, mut figures: BTreeMap<String, f64>) -> Result<Report> {
    let counts = [
        ("events_expected", found.expected),
        ("events_received", found.received),
        ("events_before_ok", found.before_ok),
        ("events_repeated", found.repeated),
        ("changes_coalesced", found.coalesced),
        ("snapshots_instead_of_events", found.snapshots),
    ];
    figures.extend(counts.map(|(name, count)| (name.to_owned(), approximate(count))));
    for (name, latencies) in [("up_after_register", &found.up_after_sent), ("down_after_ok", &found.down_after_ok)]
    {
        figures.extend(latencies.summary().into_iter().flat_map(|latency| quantiles(name, latency)));
    }
    let report = usage.report("watch", found.received, &found.up_after_ok, figures)?;
    let each = report.server.filter(|_| found.received > 0);
    let each = each.map(|server| server.cpu_seconds * 1e6 / approximate(found.received));
    let mut figures = report.figures;
    figures.extend(each.map(|micros| ("server_cpu_us_per_event".to_owned(), micros)));
    Ok(Report { figures, ..report })
}
