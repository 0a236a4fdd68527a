//! Consumers that ask, as fast as answers come or at a fixed rate.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Instant;

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use rand_distr::{Distribution, Zipf};

use super::pacer::Pacer;
use super::{Context, Tasks, finished};
use crate::answers::{self, Checker};
use crate::failure::Result;
use crate::measure::Latencies;
use crate::population::{Population, Run};
use crate::wire::http;

/// What consumers ask for.
pub enum Questions {
    /// Lookups of a population's topics.
    Lookups { checker: Checker, targets: Vec<String>, zipf: Option<Zipf<f64>> },
    /// One target, whose answer is to have status 200.
    Path(String),
}

impl Questions {
    /// Lookups of all topics alike, or so that the first is asked for most, by a power law.
    ///
    /// # Panics
    /// An exponent that [`parse_exponent`] does not give.
    pub fn lookups(run: &Run, population: Population, exponent: Option<f64>) -> Self {
        let law =
            |exponent| Zipf::new(population.topics.into(), exponent).expect("a finite exponent of 0 or more");
        Self::Lookups {
            checker: Checker::new(population),
            targets: (0..population.topics).map(|topic| lookup_target(run, topic)).collect(),
            zipf: exponent.map(law),
        }
    }

    /// Lookups of the first `count` topics at most, all alike.
    pub fn among(mut self, count: u32) -> Self {
        if let Self::Lookups { targets, .. } = &mut self {
            targets.truncate(count as usize);
        }
        self
    }

    /// The next question, by its number.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "from 1 to the number of topics")]
    fn next(&self, random: &mut SmallRng) -> u32 {
        match self {
            Self::Lookups { zipf: Some(zipf), .. } => zipf.sample(random) as u32 - 1,
            Self::Lookups { targets, .. } => random.random_range(0..targets.len() as u32),
            Self::Path(_) => 0,
        }
    }

    pub fn target(&self, question: u32) -> &str {
        match self {
            Self::Lookups { targets, .. } => &targets[question as usize],
            Self::Path(path) => path,
        }
    }

    /// # Errors
    /// What is wrong with the answer to a question.
    pub fn check(&self, question: u32, answer: http::Answer<'_>) -> Result<(), String> {
        match self {
            Self::Lookups { checker, .. } => checker.complete(question, answer),
            Self::Path(_) => answers::ok(answer),
        }
    }
}

/// The target of a topic's lookup.
pub fn lookup_target(run: &Run, topic: u32) -> String {
    format!("/lookup?topic={}", run.topic(topic))
}

/// Reads the exponent of a power law.
///
/// # Errors
/// What is none.
pub fn parse_exponent(text: &str) -> Result<f64, String> {
    let exponent = text.parse().ok().filter(|exponent: &f64| exponent.is_finite() && *exponent >= 0.0);
    exponent.ok_or_else(|| "an exponent is a number of 0 or more, as in 1.1".into())
}

/// Reads a rate.
///
/// # Errors
/// What is none.
pub fn parse_rate(text: &str) -> Result<f64, String> {
    let rate = text.parse().ok().filter(|rate: &f64| (1e-3..=1e7).contains(rate));
    rate.ok_or_else(|| "a rate is a number a second, from 0.001 to 10000000".into())
}

/// How often consumers ask.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Pacing {
    /// So many times a second.
    Rate(f64),
    /// As fast as responses come.
    Max,
}

/// Reads a rate, or `max`.
///
/// # Errors
/// What is neither.
pub fn parse_pacing(text: &str) -> Result<Pacing, String> {
    if text == "max" { Ok(Pacing::Max) } else { parse_rate(text).map(Pacing::Rate) }
}

/// What consumers found.
#[derive(Default)]
pub struct Tally {
    pub latencies: RefCell<Latencies>,
    /// Right answers, as shown by a progress bar.
    pub answers: Rc<Cell<u64>>,
}

impl Tally {
    fn record(&self, since: Instant, now: Instant) {
        self.latencies.borrow_mut().record(now.saturating_duration_since(since));
        self.answers.set(self.answers.get() + 1);
    }
}

/// Consumers that share questions and a tally.
pub struct Consumers {
    pub context: Rc<Context>,
    pub questions: Questions,
    pub connections: u32,
    pub seed: u64,
}

impl Consumers {
    fn random(&self, consumer: u32) -> SmallRng {
        SmallRng::seed_from_u64(self.seed.wrapping_add(consumer.into()))
    }

    /// Opens all connections, or none yet when each request is to have its own.
    ///
    /// # Errors
    /// The first connection that fails.
    pub async fn connect(&self, keep_alive: bool) -> Result<Vec<Option<http::Client>>> {
        let mut clients = Vec::new();
        for _ in 0..self.connections {
            clients.push(if keep_alive { Some(self.context.consumer().await?) } else { None });
        }
        Ok(clients)
    }

    /// Asks as fast as answers come until the end, over kept connections `pipeline` times in one write.
    ///
    /// # Errors
    /// The first failure of any consumer.
    pub async fn closed_loop(
        self: &Rc<Self>,
        clients: Vec<Option<http::Client>>,
        pipeline: u32,
        tally: &Rc<Tally>,
        end: impl Future<Output = ()>,
    ) -> Result<()> {
        let ended = Rc::new(Cell::new(false));
        let mut tasks = Tasks::new();
        for (consumer, client) in (0..).zip(clients) {
            let (this, tally, ended) = (Rc::clone(self), Rc::clone(tally), Rc::clone(&ended));
            tasks.spawn_local(async move {
                match client {
                    Some(client) => this.pipelined(consumer, client, pipeline, &tally, &ended).await,
                    None => this.one_each(consumer, &tally, &ended).await,
                }
            });
        }
        let end = async {
            end.await;
            ended.set(true);
            Ok(())
        };
        tokio::try_join!(end, finished(&mut tasks)).map(|_| ())
    }

    async fn pipelined(
        &self,
        consumer: u32,
        mut client: http::Client,
        depth: u32,
        tally: &Tally,
        ended: &Cell<bool>,
    ) -> Result<()> {
        let mut random = self.random(consumer);
        let mut asked = Vec::with_capacity(depth as usize);
        let mut now = Instant::now();
        while !ended.get() {
            asked.clear();
            asked.extend((0..depth).map(|_| self.questions.next(&mut random)));
            for &question in &asked {
                client.ask(self.questions.target(question));
            }
            let sent = now;
            for &question in &asked {
                self.answer(&mut client, question).await?;
                now = Instant::now();
                tally.record(sent, now);
            }
            client.is_quiet(self.questions.target(asked[asked.len() - 1]))?;
        }
        Ok(())
    }

    async fn one_each(&self, consumer: u32, tally: &Tally, ended: &Cell<bool>) -> Result<()> {
        let mut random = self.random(consumer);
        while !ended.get() {
            let began = Instant::now();
            self.ask_alone(self.questions.next(&mut random)).await?;
            tally.record(began, Instant::now());
        }
        Ok(())
    }

    /// Asks at the given rate until the end. What was due by then and nobody was free to ask is recorded as having
    /// waited until all is answered, and counted in what is returned.
    ///
    /// # Errors
    /// The first failure of any consumer.
    pub async fn open_loop(
        self: &Rc<Self>,
        clients: Vec<Option<http::Client>>,
        rate: f64,
        tally: &Rc<Tally>,
        end: impl Future<Output = ()>,
    ) -> Result<u64> {
        let pacer = Rc::new(Pacer::start(rate));
        let mut tasks = Tasks::new();
        for (consumer, client) in (0..).zip(clients) {
            let (this, tally, pacer) = (Rc::clone(self), Rc::clone(tally), Rc::clone(&pacer));
            tasks.spawn_local(async move { this.paced(consumer, client, &tally, &pacer).await });
        }
        tokio::try_join!(pacer.run(end), finished(&mut tasks))?;
        let now = Instant::now();
        let mut latencies = tally.latencies.borrow_mut();
        let unasked = pacer.overdue().map(|due| latencies.record(now - due)).count();
        Ok(unasked as u64)
    }

    async fn paced(
        &self,
        consumer: u32,
        mut client: Option<http::Client>,
        tally: &Tally,
        pacer: &Pacer,
    ) -> Result<()> {
        let mut random = self.random(consumer);
        while let Some(due) = pacer.next().await {
            let question = self.questions.next(&mut random);
            match &mut client {
                Some(client) => {
                    client.ask(self.questions.target(question));
                    self.answer(client, question).await?;
                    client.is_quiet(self.questions.target(question))?;
                }
                None => self.ask_alone(question).await?,
            }
            tally.record(due, Instant::now());
        }
        Ok(())
    }

    async fn answer(&self, client: &mut http::Client, question: u32) -> Result<()> {
        let check = |answer: http::Answer<'_>| self.questions.check(question, answer);
        client.answer(self.questions.target(question), check).await
    }

    /// One question over a connection of its own.
    async fn ask_alone(&self, question: u32) -> Result<()> {
        let mut client = http::Client::open_for_one(self.context.http, self.context.patience).await?;
        let target = self.questions.target(question);
        client.ask(target);
        self.answer(&mut client, question).await?;
        client.ends(target).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POPULATION: Population = Population { producers: 100, topics_per_producer: 1, topics: 100, channels: 0 };

    fn asked(exponent: Option<f64>, seed: u64) -> Vec<u32> {
        let questions = Questions::lookups(&Run::unique(), POPULATION, exponent);
        let mut random = SmallRng::seed_from_u64(seed);
        (0..10_000).map(|_| questions.next(&mut random)).collect()
    }

    #[test]
    fn the_seed_decides_the_questions() {
        for exponent in [None, Some(1.1)] {
            assert_eq!(asked(exponent, 1), asked(exponent, 1));
            assert_ne!(asked(exponent, 1), asked(exponent, 2));
        }
    }

    #[test]
    fn questions_may_be_among_the_first_topics_alone() {
        let questions = Questions::lookups(&Run::unique(), POPULATION, None).among(3);
        let mut random = SmallRng::seed_from_u64(1);
        let mut asked: Vec<_> = (0..100).map(|_| questions.next(&mut random)).collect();
        asked.sort_unstable();
        asked.dedup();
        assert_eq!(asked, [0, 1, 2]);
    }

    #[test]
    fn zipf_prefers_the_first_topics_and_uniform_none() {
        let share_of_first_ten = |exponent| {
            let first_ten = asked(exponent, 7).iter().filter(|&&topic| topic < 10).count();
            assert!(asked(exponent, 7).iter().all(|&topic| topic < 100));
            first_ten
        };
        assert!((900..1_100).contains(&share_of_first_ten(None)));
        // The sum of 1/k over the first 10 is 56 % of that over 100.
        assert!((5_500..5_800).contains(&share_of_first_ten(Some(1.0))));
    }

    #[test]
    fn a_rate_and_an_exponent_are_numbers_in_bounds() {
        assert_eq!(parse_rate("2.5"), Ok(2.5));
        assert_eq!(parse_exponent("0"), Ok(0.0));
        assert_eq!([parse_pacing("2.5"), parse_pacing("max")], [Ok(Pacing::Rate(2.5)), Ok(Pacing::Max)]);
        for text in ["0", "-1", "inf", "nan", "x", "1e9"] {
            assert!(parse_rate(text).is_err(), "{text}");
        }
        for text in ["-1", "inf", "nan", "x"] {
            assert!(parse_exponent(text).is_err(), "{text}");
        }
    }
}
