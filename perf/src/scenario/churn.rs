//! `churn`: topics and channels come and go while lookups run.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Instant;

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use super::fleet::HEARTBEAT;
use super::load::{Pacing, lookup_target, parse_rate};
use super::options::{Lookups, Rate};
use super::pacer::Pacer;
use super::phase::{Pace, quantiles};
use super::{Context, Tasks, finished};
use crate::answers;
use crate::failure::Result;
use crate::measure::Latencies;
use crate::population::{Identity, Run};
use crate::report::Report;
use crate::wire::{http, v1};

#[derive(Debug, clap::Args)]
#[command(mut_arg("connections", |arg| arg.help("Connections of the lookups")))]
#[command(mut_arg("time", |arg| arg.help("How long each of the two phases takes: lookups alone, then lookups and writes")))]
pub struct Options {
    #[command(flatten)]
    pub lookups: Lookups,
    #[command(flatten)]
    pub rate: Rate,
    /// Registrations and unregistrations a second, in the second phase
    #[arg(long, value_name = "N", default_value = "100", value_parser = parse_rate)]
    pub writes: f64,
    /// nsqds that register and unregister, beside the population
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..100_000))]
    pub writers: u32,
}

/// # Errors
/// A wrong answer; one is that a lookup sent after the `OK` to a write does not show what was written.
pub async fn run(context: Rc<Context>, options: &Options) -> Result<()> {
    options.lookups.hold(&context, 2 * options.writers, measure(&context, options)).await
}

async fn measure(context: &Rc<Context>, options: &Options) -> Result<()> {
    let &Options { lookups, rate: Rate { rate }, writes, writers } = options;
    let consumers = lookups.consumers(context, lookups.questions(context)?);
    let mut connected = Vec::new();
    for index in 0..writers {
        connected.push(Writer::connect(context, index).await?);
    }

    let pace = Pace { scenario: "churn", pacing: Pacing::Rate(rate), time: lookups.load.period.time };
    let calm = pace.phase("lookups alone", &consumers, async { Ok(()) }).await?;
    let mut figures = BTreeMap::from([("rate".to_owned(), rate), ("writes_wanted_per_second".to_owned(), writes)]);
    if let Some(latency) = calm.latency_us {
        figures.extend(quantiles("lookup_without_writes", latency));
    }
    if context.stop.is_cancelled() {
        return context.print(&Report { figures, ..calm });
    }

    let written = Rc::new(Written::default());
    let churning = churn(context, connected, options, &written);
    let report = pace.phase("lookups and writes", &consumers, churning).await?;
    #[expect(clippy::cast_precision_loss, reason = "rates are not exact")]
    let per_second = written.writes.borrow().count() as f64 / report.seconds;
    figures.insert("writes_per_second".into(), per_second);
    for (name, latencies) in [("write", &written.writes), ("visible_after_ok", &written.visible)] {
        figures.extend(latencies.borrow().summary().into_iter().flat_map(|latency| quantiles(name, latency)));
    }
    context.print(&Report { figures, ..report })
}

/// What writers found.
#[derive(Default)]
struct Written {
    /// From a write's due time to its `OK`.
    writes: RefCell<Latencies>,
    /// From the `OK` to the end of the first lookup after it, which must show the write.
    visible: RefCell<Latencies>,
}

async fn churn(
    context: &Rc<Context>,
    writers: Vec<Writer>,
    options: &Options,
    written: &Rc<Written>,
) -> Result<()> {
    let pacer = Rc::new(Pacer::start(options.writes));
    let mut tasks = Tasks::new();
    for mut writer in writers {
        let (pacer, written) = (Rc::clone(&pacer), Rc::clone(written));
        let (context, lookups) = (Rc::clone(context), options.lookups);
        tasks.spawn_local(async move { writer.write(&context.run, &pacer, &written, lookups).await });
    }
    let end = async { _ = context.is_stopped_within(options.lookups.load.period.time).await };
    tokio::try_join!(pacer.run(end), finished(&mut tasks)).map(|_| ())
}

/// An nsqd that comes to topics of the population and leaves them again, and a consumer that looks.
struct Writer {
    index: u32,
    name: String,
    /// Ephemeral, so that it is gone when this producer, its only one, leaves it; named after this process, because
    /// a disconnect leaves it behind (as stock does) and another run must not find it.
    channel: String,
    nsqd: v1::Client,
    consumer: http::Client,
}

/// What a writer does to a topic, in this order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Step {
    RegisterTopic,
    RegisterChannel,
    UnregisterChannel,
    UnregisterTopic,
}

const STEPS: [Step; 4] =
    [Step::RegisterTopic, Step::RegisterChannel, Step::UnregisterChannel, Step::UnregisterTopic];

impl Step {
    fn command(self, topic: &str, channel: &str) -> String {
        match self {
            Self::RegisterTopic => format!("REGISTER {topic}"),
            Self::RegisterChannel => format!("REGISTER {topic} {channel}"),
            Self::UnregisterChannel => format!("UNREGISTER {topic} {channel}"),
            Self::UnregisterTopic => format!("UNREGISTER {topic}"),
        }
    }

    /// Whether the topic's lookup shows the producer and its channel after this.
    fn shows(self) -> (bool, bool) {
        (self != Self::UnregisterTopic, self == Self::RegisterChannel)
    }
}

impl Writer {
    async fn connect(context: &Context, index: u32) -> Result<Self> {
        let name = format!("churn-{index:06}.perf");
        let (mut nsqd, consumer) = (context.nsqd().await?, context.consumer().await?);
        nsqd.identify(Identity::named(&name)).await?;
        Ok(Self {
            index,
            name,
            channel: format!("churn_{}_{index}#ephemeral", std::process::id()),
            nsqd,
            consumer,
        })
    }

    /// Writes at the pacer's moments until they end, each time with a lookup after the `OK`.
    async fn write(&mut self, run: &Run, pacer: &Pacer, written: &Written, lookups: Lookups) -> Result<()> {
        let mut random = SmallRng::seed_from_u64(lookups.seed.wrapping_add(self.index.into()));
        let mut heard = Instant::now();
        loop {
            let topic = random.random_range(0..lookups.population.topics);
            let (name, target) = (run.topic(topic), lookup_target(run, topic));
            for step in STEPS {
                let Some(due) = pacer.next().await else { return self.leave(&name).await };
                self.nsqd.command(&step.command(&name, &self.channel)).await?;
                let ok = Instant::now();
                written.writes.borrow_mut().record(ok - due);
                let (writer, channel) = (&self.name, &self.channel);
                self.consumer.get(&target, |answer| shows(answer, writer, channel, step)).await?;
                written.visible.borrow_mut().record(ok.elapsed());
            }
            if heard.elapsed() >= HEARTBEAT {
                self.nsqd.command("PING").await?;
                heard = Instant::now();
            }
        }
    }

    /// Leaves nothing of its own on the topic it was at.
    async fn leave(&mut self, topic: &str) -> Result<()> {
        for step in [Step::UnregisterChannel, Step::UnregisterTopic] {
            self.nsqd.command(&step.command(topic, &self.channel)).await?;
        }
        Ok(())
    }
}

/// # Errors
/// What a lookup shows of a writer and should not after its step, or does not and should.
fn shows(answer: http::Answer<'_>, writer: &str, channel: &str, step: Step) -> Result<(), String> {
    let lookup = answers::lookup(answer)?;
    let shown = (
        lookup.producers.iter().any(|producer| producer.broadcast_address == writer),
        lookup.channels.iter().any(|listed| listed == channel),
    );
    let tell = |shown| if shown { "shown" } else { "not shown" };
    if shown == step.shows() {
        return Ok(());
    }
    Err(format!(
        "after the OK to {step:?} of {writer}, it is {} and its channel {channel} is {}",
        tell(shown.0),
        tell(shown.1)
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lookup_must_show_the_last_step() {
        let writer = "churn-000000.perf";
        let mut producer = serde_json::to_value(Identity::named(writer)).unwrap();
        producer["remote_address"] = "127.0.0.1:1".into();
        let body = |listed: bool, channel: bool| {
            let producers = if listed { vec![&producer] } else { Vec::new() };
            let channels = if channel { vec!["c#ephemeral"] } else { Vec::new() };
            serde_json::json!({"channels": channels, "producers": producers}).to_string()
        };
        for (step, right) in STEPS.into_iter().zip([(true, false), (true, true), (true, false), (false, false)]) {
            for (listed, channel) in [(false, false), (false, true), (true, false), (true, true)] {
                let body = body(listed, channel);
                let answer = http::Answer { status: 200, body: body.as_bytes() };
                let result = shows(answer, writer, "c#ephemeral", step);
                assert_eq!(result.is_ok(), (listed, channel) == right, "{step:?} {listed} {channel}");
            }
        }
    }
}
