//! `idle`: connections that only send heartbeats.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::options::{For, Load};
use super::{Context, Tasks, allow_connections, finished};
use crate::failure::{Failure, Result};
use crate::measure::Latencies;
use crate::population::Identity;
use crate::progress::{Goal, Progress};
use crate::wire::v1;

#[derive(Debug, clap::Args)]
#[command(mut_arg("connections", |arg| arg.default_value("1000")))]
#[command(mut_arg("time", |arg| arg.default_value("60s").help("How long to measure, once all are connected")))]
pub struct Options {
    #[command(flatten)]
    pub load: Load,
    /// From one heartbeat of a connection to the next
    #[arg(long, value_name = "DURATION", default_value = "15s", value_parser = interval)]
    pub heartbeat: Duration,
}

/// Reads how often something is done.
///
/// # Errors
/// What is none, and what would leave no time in between.
pub fn interval(text: &str) -> Result<Duration, String> {
    let interval = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    if interval.is_zero() { Err("an interval is longer than that".into()) } else { Ok(interval) }
}

/// Needs the server's process: what it costs is all there is to see.
///
/// # Errors
/// A wrong answer, or an unknown process.
pub async fn run(context: Rc<Context>, options: &Options) -> Result<()> {
    let Some(server) = context.server else {
        return Err(Failure::Refused("idle measures the server's process: name it with --server-pid".into()));
    };
    let Load { connections, period: For { time } } = options.load;
    allow_connections(connections)?;
    let before = server.rss_bytes()?;
    let connecting = connect(&context, connections);
    let Some(nsqds) = context.stop.run_until_cancelled(connecting).await.transpose()? else {
        return Ok(());
    };
    let progress = Progress::show("idle", "heartbeats", Goal::Time(time));
    let (answers, latencies) = (progress.counter(), Rc::new(RefCell::default()));
    let mut tasks = Tasks::new();
    for (index, nsqd) in (0..).zip(nsqds) {
        // Spread, as the heartbeats of nsqds that were started one by one are.
        let first = options.heartbeat.mul_f64(f64::from(index) / f64::from(connections));
        let (answers, latencies) = (Rc::clone(&answers), Rc::clone(&latencies));
        tasks.spawn_local(beat(nsqd, first, options.heartbeat, answers, latencies));
    }
    let meter = context.meter()?;
    tokio::select! {
        result = finished(&mut tasks) => result?,
        _ = context.is_stopped_within(time) => {}
    }
    drop(progress);
    let usage = meter.read()?;
    let report = usage.report("idle", answers.get(), &latencies.borrow(), BTreeMap::new())?;
    let figures = report.server.map(|server| {
        let connections = f64::from(connections);
        let each_minute = server.cpu_seconds * 1e6 * 60.0 / report.seconds / connections;
        #[expect(clippy::cast_precision_loss, reason = "memory is not exact to the byte")]
        let each = server.rss_bytes.saturating_sub(before) as f64 / connections;
        [("rss_bytes_per_connection", each), ("cpu_us_per_connection_and_minute", each_minute)]
    });
    let figures = figures.into_iter().flatten().map(|(name, value)| (name.to_owned(), value)).collect();
    context.print(&crate::report::Report { figures, ..report })
}

/// Connects and identifies one after the other.
async fn connect(context: &Context, connections: u32) -> Result<Vec<v1::Client>> {
    let progress = Progress::show("connecting", "connections", Goal::Count(connections.into()));
    let connected = progress.counter();
    let mut nsqds = Vec::new();
    for index in 0..connections {
        let mut nsqd = context.nsqd().await?;
        nsqd.identify(Identity::named(&format!("idle-{index:06}.perf"))).await?;
        nsqds.push(nsqd);
        connected.set(nsqds.len() as u64);
    }
    Ok(nsqds)
}

async fn beat(
    mut nsqd: v1::Client,
    first: Duration,
    interval: Duration,
    answers: Rc<Cell<u64>>,
    latencies: Rc<RefCell<Latencies>>,
) -> Result<()> {
    tokio::time::sleep(first).await;
    loop {
        let sent = Instant::now();
        nsqd.command("PING").await?;
        latencies.borrow_mut().record(sent.elapsed());
        answers.set(answers.get() + 1);
        tokio::time::sleep(interval).await;
    }
}
