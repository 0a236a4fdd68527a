//! nsqds in a process of their own, on topics of their own: they are stopped for a while, during which the server is
//! to keep them, and killed, after which it is to let them go.

use std::io;
use std::process::Stdio;
use std::rc::Rc;
use std::time::Duration;

use rand::RngExt;
use rustix::process::{Pid, Signal, kill_process};

use super::{ASK_AGAIN, Stage, count};
use crate::answers::Checker;
use crate::failure::{Failure, Result};
use crate::population::{Population, Run, channel_name};
use crate::scenario::again::{self, Running};
use crate::scenario::sampled::until_each;
use crate::scenario::within;
use crate::wire::http::Answer;

/// What a child registers.
const POPULATION: Population = Population { producers: 8, topics_per_producer: 5, topics: 20, channels: 1 };
const PROBES: u32 = 2;
/// For how long a child is left alone, or stopped, at most. Far from any inactivity timeout.
const LONGEST_PAUSE: Duration = Duration::from_secs(3);
/// A child ends itself when this process could not.
const LONGEST_LIFE: &str = "10m";

/// The names that children register.
pub fn topics(run: &Run) -> impl Iterator<Item = String> + use<> {
    let run = run.clone();
    (0..POPULATION.topics).map(move |topic| run.topic(topic))
}

/// One child after the other, until the end.
///
/// # Errors
/// A wrong answer, and a server that does not notice in time that a child is there or gone.
pub async fn run(stage: &Rc<Stage>) -> Result<()> {
    let mut random = stage.random("child", 0);
    let longest = LONGEST_PAUSE.min(stage.options.load.period.time / 10);
    while !stage.ended.is_cancelled() {
        let mut child = Populate::start(stage)?;
        // Not ended by the end: topics that are half registered would be nothing to compare with.
        watch(stage, "registered", Checker::is_complete).await?;
        register(stage);
        count(&stage.counts.children);
        let mut is_stopped = false;
        for _ in 0..random.random_range(1..4) {
            stage.pause(longest.mul_f64(random.random())).await;
            is_stopped = !is_stopped;
            child.signal(if is_stopped { Signal::STOP } else { Signal::CONT })?;
            watch(stage, "looked up", |checker, topic, answer| checker.complete(topic, answer).map(|()| true))
                .await?;
        }
        // Stopped or not, it is killed.
        child.kill().await?;
        watch(stage, "gone", |checker, topic, answer| Ok(checker.listed(topic, answer)? == 0)).await?;
    }
    Ok(())
}

/// Topics and channels outlive the child.
fn register(stage: &Stage) {
    let mut model = stage.model.borrow_mut();
    for topic in topics(&stage.context.run) {
        assert!(model.begin_exclusive(&topic), "nobody else has its name");
        model.created(&topic, None);
        for channel in (0..POPULATION.channels).map(channel_name) {
            assert!(model.begin_exclusive(&topic), "nobody else has its name");
            model.created(&topic, Some(&channel));
        }
    }
}

async fn watch(
    stage: &Stage,
    what: &str,
    is_done: fn(&Checker, u32, Answer<'_>) -> Result<bool, String>,
) -> Result<()> {
    let checker = Rc::new(Checker::new(POPULATION));
    let topics = POPULATION.sample(POPULATION.topics);
    let all = until_each(&stage.context, PROBES, topics, Rc::clone(&stage.answers), move |topic, answer| {
        is_done(&checker, topic, answer)
    });
    within(stage.options.within, what, all).await
}

/// A `populate` that lives until this is dropped.
struct Populate(Running);

impl Populate {
    fn start(stage: &Stage) -> Result<Self> {
        let mut command = again::command(&stage.context, "populate", POPULATION)?;
        command.args(["--for", LONGEST_LIFE]).stdout(Stdio::null()).stderr(Stdio::null());
        Running::start(&mut command).map(Self)
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        kill_process(Pid::from_child(&self.0.0), signal)
            .map_err(|error| Failure::io("signal a child", io::Error::from(error), "leave it to this process"))
    }

    /// Kills it and waits until it is no more, which takes as long as the kernel needs to end its connections.
    async fn kill(&mut self) -> Result<()> {
        let failed = |error| Failure::io("end a child", error, "leave it to this process");
        self.0.0.kill().map_err(failed)?;
        while self.0.0.try_wait().map_err(failed)?.is_none() {
            tokio::time::sleep(ASK_AGAIN).await;
        }
        Ok(())
    }
}
