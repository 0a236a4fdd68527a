//! A population that is connected: every producer registers what is its own, then sends heartbeats.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::{Context, Tasks, finished};
use crate::failure::Result;
use crate::measure::Latencies;
use crate::population::{Identity, Population, Run, channel_name, producer_name};
use crate::wire::{Link, v1};

/// As nsqd does.
pub const HEARTBEAT: Duration = Duration::from_secs(15);

/// The connections of a population. Dropping it drops them, one after the other.
pub struct Fleet {
    tasks: Tasks,
    state: Rc<State>,
}

struct State {
    /// Producer `p` connects to instance `p % instances`.
    instances: Vec<Rc<Context>>,
    population: Population,
    pipeline: usize,
    /// Registrations answered, as shown by a progress bar.
    done: Rc<Cell<u64>>,
    /// Of a round trip: one command, or a whole pipeline of them.
    latencies: RefCell<Latencies>,
    links: RefCell<Vec<Link>>,
    /// Producers that have not registered all.
    registering: Cell<u32>,
    all_registered: Notify,
}

impl Fleet {
    /// Lets all producers connect at once and register, `pipeline` commands in one write.
    pub fn launch(context: &Rc<Context>, population: Population, pipeline: u32, done: Rc<Cell<u64>>) -> Self {
        Self::launch_at(std::slice::from_ref(context), population, pipeline, done)
    }

    /// The same, spread over instances in turn.
    pub fn launch_at(
        instances: &[Rc<Context>],
        population: Population,
        pipeline: u32,
        done: Rc<Cell<u64>>,
    ) -> Self {
        for context in instances {
            context.makes_all_of(population);
        }
        let state = Rc::new(State {
            instances: instances.to_vec(),
            population,
            pipeline: pipeline as usize,
            done,
            latencies: RefCell::default(),
            links: RefCell::default(),
            registering: Cell::new(population.producers),
            all_registered: Notify::new(),
        });
        let mut tasks = Tasks::new();
        for producer in 0..population.producers {
            let state = Rc::clone(&state);
            tasks.spawn_local(async move { state.live(producer).await });
        }
        Self { tasks, state }
    }

    /// Ends when every registration is answered; to be waited for once, and [`Self::alongside`] the producers.
    pub fn registered(&self) -> impl Future<Output = ()> + use<> {
        let state = Rc::clone(&self.state);
        async move { state.all_registered.notified().await }
    }

    /// Does something else while the producers live.
    ///
    /// # Errors
    /// The first failure of any producer, or that of `work`.
    pub async fn alongside<T>(&mut self, work: impl Future<Output = Result<T>>) -> Result<T> {
        tokio::select! {
            biased;
            // Producers live until the fleet is dropped: they end only by failing.
            Err(failure) = finished(&mut self.tasks) => Err(failure),
            result = work => result,
        }
    }

    /// What was measured while registering.
    pub fn latencies(&self) -> std::cell::Ref<'_, Latencies> {
        self.state.latencies.borrow()
    }

    /// Registrations answered so far.
    pub fn done(&self) -> u64 {
        self.state.done.get()
    }

    /// Ends every connection at once.
    pub fn disconnect(self) {
        self.state.links.borrow().iter().for_each(Link::cut);
    }
}

impl State {
    /// One producer's life. It ends only by failing.
    async fn live(&self, producer: u32) -> Result<()> {
        let context = &self.instances[producer as usize % self.instances.len()];
        let mut nsqd = context.nsqd().await?;
        self.links.borrow_mut().push(nsqd.link());
        nsqd.identify(Identity::named(&producer_name(producer))).await?;
        let mut heard = Instant::now();
        let mut commands = self.population.commands(producer);
        let mut batch = Vec::with_capacity(self.pipeline);
        loop {
            batch.extend(
                commands.by_ref().take(self.pipeline).map(|registration| register(&context.run, registration)),
            );
            if batch.is_empty() {
                break;
            }
            self.register(&mut nsqd, &batch).await?;
            batch.clear();
            // nsqd's heartbeats do not wait for a long list of registrations either.
            if heard.elapsed() >= HEARTBEAT {
                nsqd.command("PING").await?;
                heard = Instant::now();
            }
        }
        self.registering.set(self.registering.get() - 1);
        if self.registering.get() == 0 {
            self.all_registered.notify_one();
        }
        beat(&mut nsqd, HEARTBEAT).await
    }

    async fn register(&self, nsqd: &mut v1::Client, batch: &[String]) -> Result<()> {
        let sent = Instant::now();
        for command in batch {
            nsqd.tell(command);
        }
        for command in batch {
            nsqd.ok(command).await?;
            self.done.set(self.done.get() + 1);
        }
        self.latencies.borrow_mut().record(sent.elapsed());
        nsqd.is_quiet(&batch[batch.len() - 1])
    }
}

/// Sends heartbeats for as long as they are answered.
///
/// # Errors
/// The first reply that is not OK.
pub async fn beat(nsqd: &mut v1::Client, interval: Duration) -> Result<()> {
    loop {
        tokio::time::sleep(interval).await;
        nsqd.command("PING").await?;
    }
}

/// The command for a topic, or a channel of it.
pub fn register(run: &Run, (topic, channel): (u32, Option<u32>)) -> String {
    let topic = run.topic(topic);
    match channel {
        Some(channel) => format!("REGISTER {topic} {}", channel_name(channel)),
        None => format!("REGISTER {topic}"),
    }
}
