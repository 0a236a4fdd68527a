//! Options that several scenarios have, each declared once. A scenario flattens them, and has its own help and default
//! by `mut_arg` where those differ.

use std::rc::Rc;
use std::time::Duration;

use super::load::{Consumers, Questions, parse_exponent, parse_rate};
use super::populate::{Registering, launched};
use super::{Context, allow_connections};
use crate::failure::Result;
use crate::population::Population;

#[derive(Clone, Copy, Debug, clap::Args)]
pub struct For {
    /// How long to ask
    #[arg(short = 'd', long = "for", value_name = "DURATION", default_value = "10s", value_parser = humantime::parse_duration)]
    pub time: Duration,
}

#[derive(Clone, Copy, Debug, clap::Args)]
pub struct Load {
    /// Connections
    #[arg(short, long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..1_000_000))]
    pub connections: u32,
    #[command(flatten)]
    pub period: For,
}

#[derive(Clone, Copy, Debug, clap::Args)]
pub struct Rate {
    /// Lookups a second, in both phases
    #[arg(short, long, value_name = "N", default_value = "1000", value_parser = parse_rate)]
    pub rate: f64,
}

/// What lookups ask for, and of whom.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct Lookups {
    #[command(flatten)]
    pub population: Population,
    /// Ask for the first topics most, by a power law of this exponent; without, for all alike
    #[arg(long, value_name = "EXPONENT", value_parser = parse_exponent)]
    pub zipf: Option<f64>,
    /// Of the order in which topics are asked for
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
    /// Register the population first and hold it; without, a `populate` with the same options holds it, whose run is
    /// to be given as --run
    #[arg(long)]
    pub populate: bool,
    #[command(flatten)]
    pub load: Load,
}

impl Lookups {
    /// Does the work while the population is held. `others` are its connections beside those of the lookups.
    ///
    /// # Errors
    /// An impossible population, a producer's first failure, and that of the work.
    pub async fn hold<W: Future<Output = Result<()>>>(
        &self,
        context: &Rc<Context>,
        others: u32,
        work: W,
    ) -> W::Output {
        let Self { population, populate, load, .. } = *self;
        population.validate()?;
        allow_connections(load.connections + others + if populate { population.producers } else { 0 })?;
        if !populate {
            return work.await;
        }
        let (mut fleet, complete) = launched(context, Registering { population, pipeline: 1 }).await?;
        if complete { fleet.alongside(work).await } else { Ok(()) }
    }

    /// # Errors
    /// When nobody says which run's topics to ask for.
    pub fn questions(&self, context: &Context) -> Result<Questions> {
        Ok(Questions::lookups(context.run_of(self.populate)?, self.population, self.zipf))
    }

    pub fn consumers(&self, context: &Rc<Context>, questions: Questions) -> Rc<Consumers> {
        let context = Rc::clone(context);
        Rc::new(Consumers { context, questions, connections: self.load.connections, seed: self.seed })
    }
}
