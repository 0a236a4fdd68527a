//! Lookups at a fixed rate that go on whatever becomes of the server: as pynsq's, each over a connection of its own, and
//! as go-nsq's, over kept connections that are opened again at once.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use super::super::load::lookup_target;
use super::super::pacer::Pacer;
use super::super::{Context, Tasks};
use super::tally::{Outcome, Tally, Via};
use crate::answers::{Checker, Listing};
use crate::failure::{Failure, Loss, Result};
use crate::population::Population;
use crate::wire::http::{Answer, Client};

/// Consumers that share topics, a schedule and a tally.
pub struct Consumers {
    pub context: Rc<Context>,
    pub population: Population,
    checker: Checker,
    targets: Vec<String>,
    pacer: Rc<Pacer>,
    /// How long a lookup may take.
    patience: Duration,
    pub tally: Rc<RefCell<Tally>>,
    /// Kept connections that were found closed.
    pub closed: Cell<u64>,
}

impl Consumers {
    pub fn new(
        context: &Rc<Context>,
        population: Population,
        pacer: &Rc<Pacer>,
        patience: Duration,
        tally: &Rc<RefCell<Tally>>,
    ) -> Self {
        Self {
            context: Rc::clone(context),
            population,
            checker: Checker::new(population),
            targets: (0..population.topics).map(|topic| lookup_target(&context.run, topic)).collect(),
            pacer: Rc::clone(pacer),
            patience,
            tally: Rc::clone(tally),
            closed: Cell::new(0),
        }
    }

    /// Starts so many, of which the first `kept` keep their connections; they end with the pacer.
    pub fn start(self: &Rc<Self>, connections: u32, kept: u32, seed: u64) -> Tasks {
        let mut tasks = Tasks::new();
        for consumer in 0..connections {
            let this = Rc::clone(self);
            let via = if consumer < kept { Via::Kept } else { Via::New };
            let random = SmallRng::seed_from_u64(seed.wrapping_add(consumer.into()));
            tasks.spawn_local(async move { this.ask(via, random).await });
        }
        tasks
    }

    async fn ask(&self, via: Via, mut random: SmallRng) -> Result<()> {
        let mut kept = None;
        while let Some(due) = self.pacer.next().await {
            let topic = random.random_range(0..self.population.topics);
            let outcome = match via {
                Via::New => self.over_a_new_one(topic).await,
                Via::Kept => self.over_a_kept_one(&mut kept, topic).await,
            };
            let (outcome, done) = outcome?;
            self.tally.borrow_mut().record(via, due, done, outcome);
        }
        Ok(())
    }

    async fn over_a_new_one(&self, topic: u32) -> Result<(Outcome, Instant)> {
        let mut opened = None;
        let outcome = self.within(async {
            let client = opened.insert(Client::open_for_one(self.context.http, self.patience).await?);
            self.lookup(client, topic).await
        });
        let outcome = (outcome.await?, Instant::now());
        if let (Some(client), (Outcome::Listed { .. }, _)) = (opened, outcome) {
            // The server closes first, so that no port of this side is waiting. A server that goes down instead of
            // closing has responded all the same.
            let _ = client.ends(&self.targets[topic as usize]).await;
        }
        Ok(outcome)
    }

    /// One that the server has closed meanwhile is replaced at once, as Go's HTTP client does, and costs no lookup.
    async fn over_a_kept_one(&self, kept: &mut Option<Client>, topic: u32) -> Result<(Outcome, Instant)> {
        if let Some(mut client) = kept.take() {
            match self.within(self.lookup(&mut client, topic)).await? {
                Outcome::Lost(Loss::Closed) => self.closed.set(self.closed.get() + 1),
                outcome @ Outcome::Lost(_) => return Ok((outcome, Instant::now())),
                outcome => {
                    *kept = Some(client);
                    return Ok((outcome, Instant::now()));
                }
            }
        }
        let mut opened = None;
        let outcome = self.within(async {
            let client = opened.insert(Client::open(self.context.http, self.patience).await?);
            self.lookup(client, topic).await
        });
        let outcome = outcome.await?;
        *kept = opened.filter(|_| !matches!(outcome, Outcome::Lost(_)));
        Ok((outcome, Instant::now()))
    }

    async fn lookup(&self, client: &mut Client, topic: u32) -> Result<Outcome> {
        client.get(&self.targets[topic as usize], |answer| self.outcome(topic, answer)).await
    }

    fn outcome(&self, topic: u32, answer: Answer<'_>) -> Result<Outcome, String> {
        if !matches!(answer.status, 200 | 404) {
            return Ok(Outcome::ErrorStatus);
        }
        let Listing { is_complete, has_duplicates } = self.checker.listing(topic, answer)?;
        Ok(Outcome::Listed { is_complete, has_duplicates })
    }

    /// A lost connection is an outcome, a wrong response a failure.
    async fn within(&self, lookup: impl Future<Output = Result<Outcome>>) -> Result<Outcome> {
        match tokio::time::timeout(self.patience, lookup).await {
            Err(_) => Ok(Outcome::Lost(Loss::TimedOut)),
            Ok(Err(failure)) => lost(failure),
            Ok(outcome) => outcome,
        }
    }
}

fn lost(failure: Failure) -> Result<Outcome> {
    failure.loss().map(Outcome::Lost).ok_or(failure)
}
