//! The nsqds that register and unregister topics, one command at a time each.

use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use super::arrivals::{Arrivals, Registration};
use super::messages::name;
use crate::failure::Result;
use crate::population::Identity;
use crate::scenario::Context;
use crate::scenario::fleet::HEARTBEAT;
use crate::scenario::pacer::Pacer;
use crate::wire::v1;

/// From one look whether a change has arrived to the next.
const POLL: Duration = Duration::from_millis(1);

/// An nsqd that changes its registrations in turn.
pub struct Writer {
    index: u32,
    nsqd: v1::Client,
    /// Which topic it changes next.
    place: u32,
    heard: Instant,
}

impl Writer {
    /// Connects a writer and registers what it has at first.
    ///
    /// # Errors
    /// The first reply that is not OK.
    pub async fn connect(context: &Context, index: u32, arrivals: &Arrivals) -> Result<Self> {
        let mut nsqd = context.nsqd().await?;
        nsqd.identify(Identity::named(&name(index))).await?;
        let commands: Vec<_> =
            arrivals.first_of(index).map(|place| format!("REGISTER {}", arrivals.name(place))).collect();
        for command in &commands {
            nsqd.tell(command);
        }
        for command in &commands {
            nsqd.ok(command).await?;
        }
        Ok(Self { index, nsqd, place: 0, heard: Instant::now() })
    }

    async fn work(mut self, arrivals: &Arrivals, pacer: &Pacer, changes: &Cell<u64>) -> Result<Self> {
        while pacer.next().await.is_some() {
            let registration = Registration { writer: self.index, place: self.place };
            if !arrivals.has_arrived(registration) {
                arrivals.delayed();
                while !arrivals.has_arrived(registration) {
                    tokio::time::sleep(POLL).await;
                }
            }
            let command = arrivals.begin(registration, Instant::now());
            self.nsqd.command(&command).await?;
            arrivals.done(registration, Instant::now());
            changes.set(changes.get() + 1);
            self.place = (self.place + 1) % arrivals.count();
            if self.heard.elapsed() >= HEARTBEAT {
                self.beat().await?;
            }
        }
        Ok(self)
    }

    async fn beat(&mut self) -> Result<()> {
        self.heard = Instant::now();
        self.nsqd.command("PING").await
    }
}

/// Lets the writers change topics at a rate, for some time or until a signal. Each change has its `OK` when it ends.
///
/// # Errors
/// The first reply that is not OK.
pub async fn change_topics(
    context: &Context,
    writers: Vec<Writer>,
    arrivals: &Rc<Arrivals>,
    rate: f64,
    time: Duration,
    changes: &Rc<Cell<u64>>,
) -> Result<Vec<Writer>> {
    let pacer = Rc::new(Pacer::start(rate));
    let mut tasks = JoinSet::new();
    for writer in writers {
        let (arrivals, pacer, changes) = (Rc::clone(arrivals), Rc::clone(&pacer), Rc::clone(changes));
        tasks.spawn_local(async move { writer.work(&arrivals, &pacer, &changes).await });
    }
    let collecting = async {
        let mut writers = Vec::new();
        while let Some(ended) = tasks.join_next().await {
            writers.push(ended.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))?);
        }
        Ok(writers)
    };
    let end = async { _ = context.is_stopped_within(time).await };
    tokio::try_join!(pacer.run(end), collecting).map(|((), writers)| writers)
}

/// Lets the writers send heartbeats and nothing else, for some time or until a signal.
///
/// # Errors
/// The first reply that is not OK.
pub async fn rest(context: &Context, writers: &mut [Writer], time: Duration) -> Result<()> {
    let end = Instant::now() + time;
    loop {
        let remaining = end.saturating_duration_since(Instant::now());
        if remaining.is_zero() || context.is_stopped_within(remaining.min(HEARTBEAT)).await {
            return Ok(());
        }
        for writer in &mut *writers {
            writer.beat().await?;
        }
    }
}
