//! `restart`: a command restarts the server while lookups go on. It knows of the server what its clients see, so it is
//! the same for every nsqlookupd and for every way to restart one.

mod command;
mod lookups;
mod nsqds;
mod tally;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::options::Rate;
use super::pacer::Pacer;
use super::{Context, allow_connections, finished, idle};
use crate::failure::{Failure, Result};
use crate::measure::Meter;
use crate::population::Population;
use crate::progress::{Goal, Progress};
use crate::report::{Lookups, Report, Restart};
use crate::unit::approximate;
use lookups::Consumers;
use nsqds::{Nsqds, Seen};
use tally::{BUCKET, Tally};

/// From one look whether all is as before to the next.
const POLL: Duration = Duration::from_millis(10);

#[derive(Debug, clap::Args)]
#[command(mut_arg("rate", |arg| arg.help("Lookups a second; latency counts from when a lookup was due")))]
pub struct Options {
    #[command(flatten)]
    pub population: Population,
    /// Restarts the server, as `sh -c` runs it: it is to end with 0 once the old server is gone or replaced
    #[arg(long, value_name = "COMMAND")]
    pub command: String,
    /// How long that may take
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = humantime::parse_duration)]
    pub command_timeout: Duration,
    /// How often to run it
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub restarts: u32,
    /// How long responses stay complete, with all nsqds connected, before the next restart
    #[arg(long, value_name = "DURATION", default_value = "2s", value_parser = idle::interval)]
    pub settle: Duration,
    /// When to go on without that
    #[arg(long, value_name = "DURATION", default_value = "90s", value_parser = idle::interval)]
    pub settle_timeout: Duration,
    /// From one heartbeat of an nsqd to the next: it notices a dead connection at one and reconnects at the one after
    #[arg(long, value_name = "DURATION", default_value = "15s", value_parser = idle::interval)]
    pub heartbeat: Duration,
    #[command(flatten)]
    pub rate: Rate,
    /// Lookups under way at once
    #[arg(short, long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..100_000))]
    pub connections: u32,
    /// How many of them keep their connection, as go-nsq does; the others open one for each lookup, as pynsq does
    #[arg(long, value_name = "N", default_value_t = 16)]
    pub kept: u32,
    /// How long a lookup may take
    #[arg(long, value_name = "DURATION", default_value = "2s", value_parser = idle::interval)]
    pub lookup_timeout: Duration,
    /// Of the order in which topics are asked for
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
}

impl Options {
    fn validate(&self, context: &Context) -> Result<()> {
        let refused = |text: String| Err(Failure::Refused(text));
        if context.server.is_some() {
            return refused("a restarted server is another process: leave --server-pid out".into());
        }
        if self.rate.rate * BUCKET.as_secs_f64() < 1.0 {
            return refused(format!(
                "--rate {} is too low to see each tenth of a second: give 10",
                self.rate.rate
            ));
        }
        if self.kept > self.connections {
            return refused(format!("--kept {} is more than --connections {}", self.kept, self.connections));
        }
        self.population.validate()?;
        allow_connections(self.population.producers + self.connections)
    }
}

/// # Errors
/// A wrong response, a command that fails, and lookups that are not complete before the first restart. What the server
/// does to lookups while it is restarted is the report, and no error.
pub async fn run(context: Rc<Context>, options: &Options) -> Result<()> {
    options.validate(&context)?;
    let mut nsqds = Nsqds::launch(&context, options.population, options.heartbeat);
    let seen = nsqds.seen();
    nsqds.alongside(measure(&context, options, &seen)).await
}

async fn measure(context: &Rc<Context>, options: &Options, seen: &Seen) -> Result<()> {
    let pacer = Rc::new(Pacer::start(options.rate.rate));
    let tally = Rc::new(RefCell::new(Tally::new(Instant::now())));
    let consumers = Consumers::new(context, options.population, &pacer, options.lookup_timeout, &tally);
    let consumers = Rc::new(consumers);
    let mut tasks = consumers.start(options.connections, options.kept, options.seed);
    let progress = Progress::show("restarting", "restarts", Goal::Count(options.restarts.into()));
    let restarts = Restarts { context, options, seen, tally: &tally, done: progress.counter() };
    let meter = context.meter()?;
    let mut result = Ok(());
    let end = async { result = restarts.run().await };
    tokio::try_join!(pacer.run(end), finished(&mut tasks))?;
    drop(progress);
    result?;
    let report = report(options, &meter, &tally.borrow())?;
    let more = [
        ("nsqd_reconnects", seen.reconnects()),
        ("kept_connections_found_closed", consumers.closed.get()),
        ("due_but_never_asked", pacer.overdue().count() as u64),
    ];
    let mut figures = report.figures;
    figures.extend(more.map(|(name, count)| (name.to_owned(), approximate(count))));
    context.print(&Report { figures, ..report })
}

/// The restarts, one after the other.
struct Restarts<'a> {
    context: &'a Context,
    options: &'a Options,
    seen: &'a Seen,
    tally: &'a RefCell<Tally>,
    /// As shown by a progress bar.
    done: Rc<Cell<u64>>,
}

impl Restarts<'_> {
    /// Ends with the last one, or with a signal; a command that was begun is let run to its end.
    async fn run(&self) -> Result<()> {
        let Options { settle_timeout, .. } = *self.options;
        if !self.is_settled(None).await && !self.context.stop.is_cancelled() {
            return Err(Failure::Late(format!(
                "lookups are not complete for {:?} within {settle_timeout:?} before the first restart: give the server \
                 longer with --settle-timeout",
                self.options.settle
            )));
        }
        for _ in 0..self.options.restarts {
            if self.context.stop.is_cancelled() {
                return Ok(());
            }
            self.tally.borrow_mut().begin(Instant::now());
            command::run(&self.options.command, self.options.command_timeout).await?;
            let is_settled = self.is_settled(Some(Instant::now())).await;
            self.tally.borrow_mut().end(is_settled);
            self.done.set(self.done.get() + 1);
        }
        Ok(())
    }

    /// Waits until responses have been complete for some time and all nsqds were heard since the restart; false when
    /// that takes too long, or a signal comes.
    async fn is_settled(&self, restarted: Option<Instant>) -> bool {
        let Options { settle, settle_timeout, .. } = *self.options;
        let began = Instant::now();
        let is_complete = |now: Instant| {
            let since = self.tally.borrow().complete_since();
            since.is_some_and(|since| now.saturating_duration_since(since.max(began)) >= settle)
        };
        let all_are_back = || restarted.is_none_or(|restarted| self.seen.all_since(restarted));
        while !(is_complete(Instant::now()) && all_are_back()) {
            if began.elapsed() >= settle_timeout || self.context.is_stopped_within(POLL).await {
                return false;
            }
        }
        true
    }
}

fn report(options: &Options, meter: &Meter, tally: &Tally) -> Result<Report> {
    let restarts = tally.restarts().to_vec();
    let report = meter.read()?.report(
        "restart",
        tally.complete(),
        tally.latencies(),
        figures(options.rate.rate, &restarts),
    )?;
    Ok(Report { restarts, ..report })
}

/// All restarts together.
fn figures(rate: f64, restarts: &[Restart]) -> BTreeMap<String, f64> {
    let sum = |of: fn(&Restart) -> f64| restarts.iter().map(of).sum();
    let longest = |of: fn(&Restart) -> f64| restarts.iter().map(of).fold(0.0, f64::max);
    let counts = |restart: &Restart, of: fn(&Lookups) -> u64| {
        approximate(of(&restart.new_connections) + of(&restart.kept_connections))
    };
    let all = |of: fn(&Lookups) -> u64| restarts.iter().map(|restart| counts(restart, of)).sum::<f64>();
    // One that was not complete in the end was not so for all of its time.
    let until_complete = restarts.iter().all(|restart| restart.seconds_until_complete.is_some());
    let mut figures: BTreeMap<_, f64> = [
        ("rate", rate),
        ("restarts", approximate(restarts.len() as u64)),
        ("restarts_not_settled", sum(|restart| f64::from(u8::from(!restart.is_settled)))),
        ("lookups_during_restarts", all(|lookups| lookups.asked)),
        ("refused_connections", all(|lookups| lookups.refused)),
        ("failed_lookups", all(Lookups::failed)),
        ("failed_lookups_broken", all(|lookups| lookups.broken)),
        ("failed_lookups_timed_out", all(|lookups| lookups.timed_out)),
        ("failed_lookups_error_status", all(|lookups| lookups.error_status)),
        ("incomplete_responses", all(|lookups| lookups.incomplete)),
        ("responses_with_duplicates", all(|lookups| lookups.with_duplicates)),
        ("seconds_with_incomplete_responses", sum(|restart| restart.seconds_incomplete)),
        ("seconds_with_failed_lookups", sum(|restart| restart.seconds_failed)),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into();
    if until_complete {
        let longest = longest(|restart| restart.seconds_until_complete.unwrap_or_default());
        figures.insert("seconds_until_complete_max".into(), longest);
    }
    figures
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_of_all_restarts_and_of_both_kinds_of_connections() {
        let lookups = |refused, broken, incomplete| Lookups {
            asked: 100,
            refused,
            broken,
            incomplete,
            ..Lookups::default()
        };
        let restart = |seconds_until_complete| Restart {
            new_connections: lookups(3, 2, 10),
            kept_connections: lookups(1, 0, 5),
            seconds_incomplete: 1.5,
            seconds_failed: 0.1,
            seconds_until_complete,
            is_settled: seconds_until_complete.is_some(),
        };
        let both = figures(1000.0, &[restart(Some(2.0)), restart(Some(3.0))]);
        for (name, value) in [
            ("restarts", 2.0),
            ("restarts_not_settled", 0.0),
            ("lookups_during_restarts", 400.0),
            ("refused_connections", 8.0),
            ("failed_lookups", 4.0),
            ("incomplete_responses", 30.0),
            ("seconds_with_incomplete_responses", 3.0),
            ("seconds_until_complete_max", 3.0),
        ] {
            assert!((both[name] - value).abs() < 1e-9, "{name}: {}", both[name]);
        }
        let unfinished = figures(1000.0, &[restart(Some(2.0)), restart(None)]);
        assert!((unfinished["restarts_not_settled"] - 1.0).abs() < 1e-9);
        assert!(!unfinished.contains_key("seconds_until_complete_max"), "nobody knows how long");
    }
}
