//! Who looks at the other instances: streams of events, each event confirmed by a lookup, or lookups again and again.

use std::rc::Rc;
use std::time::{Duration, Instant};

use clap::ValueEnum;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::arrivals::{Arrivals, Registration};
use crate::failure::Result;
use crate::scenario::{Context, Tasks, finished};
use crate::wire::events::Stream;
use crate::wire::http::Client;

/// Topics of one stream at most.
const TOPICS_MAX: usize = 100;
/// How long a server may be silent towards a watcher: it sends a comment every 15 s.
const SILENCE_MAX: Duration = Duration::from_secs(20);

/// How changes are seen at the other instances.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum By {
    /// By server-sent events of /watch; a lookup after each event must show the same
    Watch,
    /// By lookups of what is due, over and over: of any nsqlookupd
    Lookup,
}

/// Observers of some instances. Dropping them ends their connections.
pub struct Observers(Tasks);

impl Observers {
    /// Starts those of one more instance; the streams have had their snapshots when this ends.
    ///
    /// # Errors
    /// A connection that fails, and a listing that is not as all is at first.
    pub async fn add(
        &mut self,
        context: &Rc<Context>,
        instance: usize,
        arrivals: &Rc<Arrivals>,
        by: By,
        pause: Duration,
    ) -> Result<()> {
        let client = context.consumer().await?;
        if by == By::Lookup {
            let poller = Poller { client, instance, arrivals: Rc::clone(arrivals), pause };
            self.0.spawn_local(poller.run());
            return Ok(());
        }
        let (announced, confirming) = unbounded_channel();
        let arrivals = Rc::clone(arrivals);
        let places: Vec<_> = (0..arrivals.count()).collect();
        for places in places.chunks(TOPICS_MAX) {
            let query: Vec<_> = places.iter().map(|&place| format!("topic={}", arrivals.name(place))).collect();
            let target = format!("/watch?{}", query.join("&"));
            let mut stream = Stream::open(context.http, context.patience.max(SILENCE_MAX), target).await?;
            for _ in places {
                stream.next(|event| arrivals.event(instance, event, Instant::now()).map(|_| ())).await?;
            }
            let (arrivals, announced) = (Rc::clone(&arrivals), announced.clone());
            self.0.spawn_local(follow(stream, instance, arrivals, announced));
        }
        self.0.spawn_local(confirm(client, instance, arrivals, confirming));
        Ok(())
    }

    pub fn new() -> Self {
        Self(Tasks::new())
    }

    /// Does something else while they look.
    ///
    /// # Errors
    /// The first failure of any observer, or that of `work`.
    pub async fn alongside<T>(&mut self, work: impl Future<Output = Result<T>>) -> Result<T> {
        tokio::select! {
            biased;
            // They look until they are dropped: they end only by failing.
            Err(failure) = finished(&mut self.0) => Err(failure),
            result = work => result,
        }
    }
}

/// Reads a stream. It ends only by failing.
async fn follow(
    mut stream: Stream,
    instance: usize,
    arrivals: Rc<Arrivals>,
    announced: UnboundedSender<Registration>,
) -> Result<()> {
    loop {
        if let Some(registration) = stream.next(|event| arrivals.event(instance, event, Instant::now())).await? {
            // It fails when the lookups have failed, whose error is the one reported.
            let _ = announced.send(registration);
        }
    }
}

/// Looks up what events have announced.
async fn confirm(
    mut client: Client,
    instance: usize,
    arrivals: Rc<Arrivals>,
    mut announced: UnboundedReceiver<Registration>,
) -> Result<()> {
    while let Some(registration) = announced.recv().await {
        let target = target(&arrivals, registration.place);
        client.get(&target, |answer| arrivals.confirmed(instance, registration, answer)).await?;
        client.is_quiet(&target)?;
    }
    Ok(())
}

/// Looks one instance's topics up for as long as a change of them is due there.
struct Poller {
    client: Client,
    instance: usize,
    arrivals: Rc<Arrivals>,
    pause: Duration,
}

impl Poller {
    /// It ends only by failing.
    async fn run(mut self) -> Result<()> {
        loop {
            let due = self.arrivals.due_at(self.instance);
            let targets: Vec<_> = due.iter().map(|&place| target(&self.arrivals, place)).collect();
            for target in &targets {
                self.client.ask(target);
            }
            for (&place, target) in due.iter().zip(&targets) {
                let read = |answer: crate::wire::http::Answer<'_>| {
                    self.arrivals.listed(self.instance, place, answer, Instant::now())
                };
                self.client.answer(target, read).await?;
            }
            tokio::time::sleep(self.pause).await;
        }
    }
}

fn target(arrivals: &Arrivals, place: u32) -> String {
    format!("/lookup?topic={}", arrivals.name(place))
}
