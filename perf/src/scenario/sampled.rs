//! Lookups that are repeated until they show what they are to show.

use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::load::lookup_target;
use super::{Context, Tasks, finished};
use crate::failure::Result;
use crate::wire::http::{self, Answer};

/// Which topics are looked at, and for how long.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct Watching {
    /// Topics whose lookups are watched, spread over all
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..1_000_000))]
    pub sample: u32,
    /// Connections that look
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..1_000))]
    pub probes: u32,
    /// Fail when it takes longer
    #[arg(long, value_name = "DURATION", default_value = "2m", value_parser = humantime::parse_duration)]
    pub within: Duration,
}

/// Looks each topic up until `is_done` is true of an answer, from `began` on, and counts the topics that are.
///
/// # Errors
/// A wrong answer, by the word of `is_done` too.
pub async fn until_each(
    context: &Rc<Context>,
    probes: u32,
    topics: Vec<u32>,
    done: Rc<Cell<u64>>,
    is_done: impl Fn(u32, Answer<'_>) -> Result<bool, String> + Clone + 'static,
) -> Result<()> {
    let began = Instant::now();
    let topics = Rc::new(topics);
    let next = Rc::new(Cell::new(0));
    let mut tasks = Tasks::new();
    for _ in 0..probes {
        let mut client = context.consumer().await?;
        let (run, topics, next, done, is_done) =
            (context.run.clone(), Rc::clone(&topics), Rc::clone(&next), Rc::clone(&done), is_done.clone());
        tasks.spawn_local(async move {
            while let Some(&topic) = topics.get(next.get()) {
                next.set(next.get() + 1);
                until(&mut client, &lookup_target(&run, topic), began, |answer| is_done(topic, answer)).await?;
                done.set(done.get() + 1);
            }
            Ok(())
        });
    }
    finished(&mut tasks).await
}

/// Asks for one target until `is_done` is true of an answer.
///
/// # Errors
/// A wrong answer, by the word of `is_done` too.
pub async fn until(
    client: &mut http::Client,
    target: &str,
    began: Instant,
    is_done: impl Fn(Answer<'_>) -> Result<bool, String>,
) -> Result<()> {
    while !client.get(target, &is_done).await? {
        tokio::time::sleep(pause(began.elapsed())).await;
    }
    Ok(())
}

/// How long to wait before asking again: a twentieth of what has passed, so that asking is no load and the time
/// found is true to 5 %.
fn pause(elapsed: Duration) -> Duration {
    (elapsed / 20).clamp(Duration::from_millis(1), Duration::from_millis(100))
}
