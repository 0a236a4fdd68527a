//! `soak`: everything at once for a long time, and in the end the server must know what it knew at each moment, and be
//! what it was at the beginning.
//!
//! - `names`: who and what there is.
//! - `model`: what must be registered; `verify`: answers against it.
//! - `nsqds`, `consumers`, `admin`: those who register, who ask, and who change things by HTTP.
//! - `children`: nsqds in processes of their own, which are stopped and killed.
//! - `hostile`: peers that break every rule.
//! - `vitals`: memory and latency at the beginning and at the end.
//!
//! Against stock a run may end with a topic missing that a producer has just registered: its UNREGISTER looks for
//! other producers of an ephemeral name and removes the name in two steps, between which a REGISTER is lost.

mod admin;
mod children;
mod consumers;
mod hostile;
mod model;
mod names;
mod nsqds;
mod verify;
mod vitals;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io::Write;
use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime};

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use self::model::{Lifetimes, Model};
use self::verify::Foreign;
use self::vitals::Vitals;
use super::idle::interval;
use super::load::parse_rate;
use super::options::{For, Load, Rate};
use super::pacer::Pacer;
use super::tidy::delete;
use super::{Context, Tasks, allow_connections, finished};
use crate::answers;
use crate::failure::{Failure, Result};
use crate::measure::Process;
use crate::population::Run;
use crate::progress::{Goal, Progress};
use crate::wire::http::{self, Answer};
use crate::wire::v1;

/// Connections of this process beside those of nsqds, consumers and hostile peers: admins, probes, one child.
const OTHER_CONNECTIONS: u32 = 64;
const MEMORY_SAMPLE: Duration = Duration::from_millis(100);
/// From one question to the next while something is waited for.
const ASK_AGAIN: Duration = Duration::from_millis(20);

#[derive(Clone, Debug, clap::Args)]
#[command(mut_arg("rate", |arg| arg.default_value("500").help("Lookups a second")))]
#[command(mut_arg("connections", |arg| arg.default_value("32").help("Connections of the lookups")))]
#[command(mut_arg("time", |arg| arg.default_value("5m").help("How long")))]
pub struct Options {
    /// Simulated nsqds
    #[arg(long, value_name = "N", default_value_t = 300, value_parser = clap::value_parser!(u32).range(2..100_000))]
    pub producers: u32,
    /// Topics that an nsqd registers on connecting
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..10_000))]
    pub topics_per_producer: u32,
    /// Topics there are; one in four is ephemeral
    #[arg(long, value_name = "N", default_value_t = 400, value_parser = clap::value_parser!(u32).range(4..1_000_000))]
    pub topics: u32,
    #[command(flatten)]
    pub rate: Rate,
    #[command(flatten)]
    pub load: Load,
    /// Registrations and unregistrations a second
    #[arg(long, value_name = "N", default_value = "200", value_parser = parse_rate)]
    pub writes: f64,
    /// Time from one storm to the next, in which some of the nsqds lose their connections at once and come back
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = interval)]
    pub storms: Duration,
    /// Peers at a time that break the rules
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..1_000))]
    pub hostile_peers: u32,
    /// None of them
    #[arg(long, conflicts_with = "hostile_peers")]
    pub no_hostile: bool,
    /// No processes that are stopped and killed
    #[arg(long)]
    pub no_children: bool,
    /// The server's -tombstone-lifetime
    #[arg(long, value_name = "DURATION", default_value = "45s", value_parser = humantime::parse_duration)]
    pub tombstone_lifetime: Duration,
    /// Of everything that is left to chance, as far as the server's timing lets it be repeated; without, another each
    /// time
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// How long the server may take to become quiet in the end
    #[arg(long, value_name = "DURATION", default_value = "1m", value_parser = humantime::parse_duration)]
    pub within: Duration,
}

/// What all actors share.
struct Stage {
    context: Rc<Context>,
    options: Options,
    seed: u64,
    lifetimes: Lifetimes,
    began: Instant,
    model: RefCell<Model>,
    vitals: RefCell<Vitals>,
    counts: Counts,
    /// Answers found right, as shown by a progress bar.
    answers: Rc<Cell<u64>>,
    /// Wakes nsqds that are idle, when a storm comes.
    storm: Notify,
    /// Cancelled when actors are to leave the stage.
    ended: CancellationToken,
    /// Connections of nsqds that have left it.
    held: RefCell<Vec<v1::Client>>,
}

/// What was done, for the report.
#[derive(Default)]
struct Counts {
    lookups: Cell<u64>,
    writes: Cell<u64>,
    reconnects: Cell<u64>,
    storms: Cell<u64>,
    admin: Cell<u64>,
    children: Cell<u64>,
}

/// Counts one more.
fn count(counter: &Cell<u64>) {
    counter.set(counter.get() + 1);
}

impl Stage {
    /// Chance of an actor's own.
    fn random(&self, role: &str, index: u32) -> SmallRng {
        let role = role.bytes().fold(0_u64, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte.into()));
        SmallRng::seed_from_u64(self.seed ^ (role << 32) ^ u64::from(index))
    }

    /// Waits; false when the end came first.
    async fn pause(&self, time: Duration) -> bool {
        self.ended.run_until_cancelled(tokio::time::sleep(time)).await.is_some()
    }

    /// The name of a topic of the pool.
    fn topic(&self, number: u32) -> String {
        names::topic(&self.context.run, number)
    }

    /// A topic of the pool.
    fn any_topic(&self, random: &mut SmallRng) -> u32 {
        random.random_range(0..self.options.topics)
    }
}

/// # Errors
/// A wrong answer at any time, something that is not registered at the end as it must be, and a server that is not
/// what it was at the beginning.
pub async fn run(context: Rc<Context>, options: Options) -> Result<()> {
    let hostile_peers = if options.no_hostile { 0 } else { options.hostile_peers * hostile::CONNECTIONS_MAX };
    allow_connections(options.producers + options.load.connections + hostile_peers + OTHER_CONNECTIONS)?;
    let seed = options.seed.unwrap_or_else(from_the_clock);
    // A closed pipe is no reason to stop.
    let _ = writeln!(std::io::stderr(), "soak: --seed {seed}");

    let open_files = context.server.map(Process::open_files).transpose()?;
    let foreign = purge(&context, &options).await?;
    let progress = Progress::show("soak", "right answers", Goal::Time(options.load.period.time));
    let stage = Rc::new(Stage {
        lifetimes: Lifetimes { tombstone: options.tombstone_lifetime, leaving: options.within },
        began: Instant::now(),
        model: RefCell::default(),
        vitals: RefCell::new(Vitals::of(options.load.period.time)),
        counts: Counts::default(),
        answers: progress.counter(),
        storm: Notify::new(),
        ended: CancellationToken::new(),
        held: RefCell::default(),
        context: Rc::clone(&context),
        options,
        seed,
    });
    let meter = context.meter()?;
    let hostile_connections = play(&stage).await?;
    let usage = meter.read()?;
    let elapsed = stage.began.elapsed();
    drop(progress);

    let mut figures = figures(&stage);
    figures.insert("hostile_connections".into(), precise(hostile_connections));
    figures.insert("seconds_until_quiet".into(), check_end(&stage, &foreign, open_files).await?.as_secs_f64());
    let vitals = stage.vitals.borrow();
    let windows = vitals.windows(elapsed);
    for (name, window) in windows.into_iter().flat_map(|(first, last)| [("first", first), ("last", last)]) {
        figures.extend(window.p99_us.map(|p99| (format!("lookup_us_p99_{name}"), p99)));
        figures.extend(window.rss_bytes.map(|bytes| (format!("rss_bytes_{name}"), bytes)));
    }
    context.print(&usage.report("soak", stage.answers.get(), &vitals.latencies(), figures)?)?;
    windows.map_or(Ok(()), |(first, last)| vitals::compare(first, last))
}

#[expect(clippy::cast_possible_truncation, reason = "any bits do")]
fn from_the_clock() -> u64 {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(1, |time| time.as_micros() as u64 & 0xffff_ffff)
}

#[expect(clippy::cast_precision_loss, reason = "shown to people")]
fn precise(count: u64) -> f64 {
    count as f64
}

fn figures(stage: &Stage) -> BTreeMap<String, f64> {
    let Counts { lookups, writes, reconnects, storms, admin, children } = &stage.counts;
    let counts = [
        ("lookups", lookups),
        ("writes", writes),
        ("reconnects", reconnects),
        ("storms", storms),
        ("changes_by_http", admin),
        ("children", children),
    ];
    let mut figures: BTreeMap<_, _> =
        counts.into_iter().map(|(name, count)| (name.to_owned(), precise(count.get()))).collect();
    figures.insert("seed".into(), precise(stage.seed));
    figures
}

/// Removes what an earlier soak of the same run has left, and notes what is none of this one's business.
async fn purge(context: &Context, options: &Options) -> Result<Foreign> {
    let mut client = context.consumer().await?;
    let run = context.run.clone();
    let pool = |run: Run| (0..options.topics).map(move |topic| names::topic(&run, topic));
    // What is not listed, too: channels of ephemeral topics outlive them.
    for topic in pool(run.clone()).chain(children::topics(&run)) {
        delete(&mut client, &topic).await?;
    }
    context.makes(pool(run.clone()));
    context.makes(children::topics(&run));
    let topics = client.get("/topics", answers::topic_names).await?;
    Ok(verify::foreign(&run, topics, client.get("/nodes", verify::node_names).await?))
}

/// Everything until the time is over or a signal comes, and until all have left the stage; how many connections
/// hostile peers have made.
async fn play(stage: &Rc<Stage>) -> Result<u64> {
    let Options { producers, rate: Rate { rate }, load, no_hostile, no_children, .. } = stage.options;
    let Load { connections, period: For { time } } = load;
    let pacer = Rc::new(Pacer::start(rate));
    let hostile = (!no_hostile).then(|| hostile::Mob::start(stage)).transpose()?;
    let mut actors = Tasks::new();
    for index in 0..producers {
        actors.spawn_local(nsqds::live(Rc::clone(stage), index));
    }
    for index in 0..connections {
        actors.spawn_local(consumers::ask(Rc::clone(stage), Rc::clone(&pacer), index));
    }
    actors.spawn_local(admin::change(Rc::clone(stage)));
    actors.spawn_local(storms(Rc::clone(stage)));
    actors.spawn_local(watch_memory(Rc::clone(stage)));
    let children = async { if no_children { Ok(()) } else { children::run(stage).await } };
    let end = async {
        _ = stage.context.is_stopped_within(time).await;
        stage.ended.cancel();
    };
    // Children are no task: dropped with this future they are killed, whatever has failed.
    tokio::try_join!(pacer.run(end), finished(&mut actors), children)?;
    Ok(hostile.map_or(0, hostile::Mob::end))
}

/// Takes connections away from nsqds.
async fn storms(stage: Rc<Stage>) -> Result<()> {
    while stage.pause(stage.options.storms).await {
        stage.model.borrow_mut().forget_left(Instant::now(), stage.lifetimes);
        stage.storm.notify_waiters();
        count(&stage.counts.storms);
    }
    Ok(())
}

async fn watch_memory(stage: Rc<Stage>) -> Result<()> {
    let Some(server) = stage.context.server else { return Ok(()) };
    while stage.pause(MEMORY_SAMPLE).await {
        stage.vitals.borrow_mut().rss(stage.began.elapsed(), server.rss_bytes()?);
    }
    Ok(())
}

/// Waits until the server shows what the model has, first with all nsqds connected, then without any, and has closed
/// what it opened. How long the first took.
async fn check_end(stage: &Stage, foreign: &Foreign, open_files: Option<u64>) -> Result<Duration> {
    let mut model = stage.model.take();
    let began = Instant::now();
    agree(stage, &model, foreign).await?;
    let quiet = began.elapsed();

    let began = Instant::now();
    for node in model.nodes().clone() {
        model.left(node, began);
    }
    stage.held.take();
    agree(stage, &model, foreign).await?;
    while let (Some(server), Some(before)) = (stage.context.server, open_files) {
        let after = server.open_files()?;
        if after == before {
            break;
        }
        if began.elapsed() > stage.options.within {
            return Err(Failure::Degraded(format!(
                "{before} open files before the soak and {after} after it, with all its connections closed"
            )));
        }
        tokio::time::sleep(ASK_AGAIN).await;
    }
    Ok(quiet)
}

/// Waits until the server shows what the model has.
///
/// # Errors
/// What it shows instead when the time for it is over.
async fn agree(stage: &Stage, model: &Model, foreign: &Foreign) -> Result<()> {
    let deadline = Instant::now() + stage.options.within;
    let mut client = stage.context.consumer().await?;
    let lifetimes = Lifetimes { leaving: Duration::ZERO, ..stage.lifetimes };
    until_right(&mut client, "/nodes", deadline, |answer| {
        verify::nodes(model, foreign, answer, lifetimes, Instant::now())
    })
    .await?;
    until_right(&mut client, "/topics", deadline, |answer| verify::topics(model, foreign, answer)).await?;
    for (topic, _) in model.topics() {
        let name = names::escaped(topic);
        until_right(&mut client, &format!("/lookup?topic={name}"), deadline, |answer| {
            verify::lookup(model, topic, answer, true, lifetimes, Instant::now())
        })
        .await?;
        until_right(&mut client, &format!("/channels?topic={name}"), deadline, |answer| {
            verify::channels(model, topic, answer, true)
        })
        .await?;
    }
    Ok(())
}

/// Asks until the answer is right.
///
/// # Errors
/// The answer that is wrong when the time is over.
async fn until_right(
    client: &mut http::Client,
    target: &str,
    deadline: Instant,
    verify: impl Fn(Answer<'_>) -> Result<(), String>,
) -> Result<()> {
    loop {
        let is_over = Instant::now() >= deadline;
        let checked = |answer: Answer<'_>| match verify(answer) {
            Err(problem) if is_over => Err(format!("at the end of the soak {problem}")),
            verdict => Ok(verdict.is_ok()),
        };
        if client.get(target, checked).await? {
            return Ok(());
        }
        tokio::time::sleep(ASK_AGAIN).await;
    }
}
