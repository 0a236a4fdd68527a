//! The plan is played: servers take turns, and each runs alone, with a population of its own.

use std::path::Path;
use std::time::Duration;

use super::cpu::Cores;
use super::generator::{Generator, Scenario};
use super::progress::Progress;
use super::record::{Contender, Outcome, Sample};
use super::server::{Ability, Recipe, Server};
use super::suite::{Cell, Scale, Visit, order};
use crate::failure::Result;

/// What a scenario does before its own clock starts: connecting, and looking whether all is as it should be.
const PREPARING: Duration = Duration::from_secs(10);

/// What every turn needs.
pub struct Stage<'a> {
    pub recipes: &'a [Recipe],
    /// The same servers, and what they turned out to be.
    pub contenders: &'a [Contender],
    pub generator: &'a Generator,
    pub cores: Cores,
    /// For what servers print.
    pub folder: &'a Path,
}

/// A server as a cell finds it.
struct Set {
    /// Dropped first: after its producers it would have a mass disconnect to work on.
    server: Server,
    /// Whoever holds the population, if there is one.
    holder: Option<Scenario>,
}

impl Stage<'_> {
    /// Plays visits, and hands over each sample when it is taken.
    ///
    /// # Errors
    /// When a server or a scenario cannot be started, or a signal came.
    pub fn play(&self, visits: &[Visit], progress: &Progress, taken: &mut dyn FnMut(Sample)) -> Result<()> {
        for visit in visits {
            for round in 0..visit.rounds {
                for place in order(self.recipes.len(), round) {
                    let contender = &self.contenders[place];
                    let mut took = |cell, outcome| {
                        let (scale, server, round) = (visit.scale.name, contender.name.clone(), round + 1);
                        taken(Sample { scale, cell, server, round, outcome });
                    };
                    self.turn(visit, place, progress, &mut took)?;
                }
            }
        }
        Ok(())
    }

    /// All cells of a visit at one server. One that is spent or given up is followed by a new one.
    fn turn(
        &self,
        visit: &Visit,
        place: usize,
        progress: &Progress,
        took: &mut dyn FnMut(Cell, Outcome),
    ) -> Result<()> {
        let Contender { name, ability, .. } = &self.contenders[place];
        let mut set = None;
        for step in visit.steps_for(*ability) {
            progress.next(format_args!("{}, {name}: {}", visit.scale.name, step.cell));
            let Set { server, holder } = match set.take() {
                Some(set) => set,
                None => match self.set_up(visit, place, took)? {
                    Ok(set) => set,
                    // What cannot be populated in time has no time for the rest either.
                    Err(outcome) => {
                        took(step.cell, outcome);
                        continue;
                    }
                },
            };
            let arguments = step.arguments(&visit.scale, *ability, holder.as_ref().map(Scenario::pid));
            let arguments = [arguments, server.arguments().to_vec()].concat();
            let patience = if step.cell.keeps_time() { step.limit + PREPARING } else { step.limit };
            let (outcome, _) = self.generator.play(&arguments, step.limit, patience)?;
            if matches!(outcome, Outcome::Measured(_)) && !step.cell.spends_the_server() {
                set = Some(Set { server, holder });
            }
            took(step.cell, outcome);
        }
        Ok(())
    }

    /// A new server, with the visit's population if it has one and the server can hold it, or how that went wrong.
    fn set_up(
        &self,
        visit: &Visit,
        place: usize,
        took: &mut dyn FnMut(Cell, Outcome),
    ) -> Result<Result<Set, Outcome>> {
        let Contender { ability, .. } = self.contenders[place];
        let server = self.start(place, &visit.scale)?;
        let Some(populate) = visit.populate.filter(|_| ability == Ability::Registry) else {
            return Ok(Ok(Set { server, holder: None }));
        };
        let arguments = populate.arguments(&visit.scale, ability, None);
        let arguments = [arguments, server.arguments().to_vec()].concat();
        let (outcome, holder) = self.generator.play(&arguments, populate.limit, populate.limit)?;
        took(Cell::Populate, outcome.clone());
        Ok(match outcome {
            Outcome::Measured(_) => Ok(Set { server, holder: Some(holder) }),
            given_up => Err(given_up),
        })
    }

    fn start(&self, place: usize, scale: &Scale) -> Result<Server> {
        let document = self.contenders[place].ability == Ability::Document;
        Server::start(&self.recipes[place], document, scale.answer_bytes(), self.cores.server, self.folder)
    }
}
