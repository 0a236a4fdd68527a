//! The plan is played. All servers of a visit live at once, each with a population of its own, and take turns under
//! load: while one is asked, the others have heartbeats at most.

use std::collections::HashMap;
use std::time::Duration;

use super::cell::{Ability, Cell, Setting};
use super::generator::{Generator, Scenario};
use super::progress::Progress;
use super::record::{Contender, Outcome, Sample};
use super::scale::Name;
use super::server::{Recipe, Server, Site};
use super::suite::{Step, Visit, order};
use crate::failure::Result;

/// What a scenario does before its own clock starts: connecting, and looking whether all is as it should be.
const PREPARING: Duration = Duration::from_secs(10);

/// What every turn needs.
pub struct Stage<'a> {
    pub recipes: &'a [Recipe],
    /// The same servers, and what they turned out to be.
    pub contenders: &'a [Contender],
    pub generator: &'a Generator,
    pub site: Site<'a>,
}

/// A server as a cell finds it.
struct Set {
    /// Dropped first: after its producers it would have a mass disconnect to work on.
    server: Server,
    /// Whoever holds the population, if there is one.
    holder: Option<Scenario>,
    /// Who asks in slices, by cell, and waits between them.
    askers: HashMap<Cell, Scenario>,
}

/// A population at a server, by its place.
type Key = (Name, usize);

/// A visit that is being played.
struct Playing<'a> {
    stage: &'a Stage<'a>,
    sets: HashMap<Key, Set>,
    /// Cells that took too long: they are not tried again.
    beaten: HashMap<(Key, Cell), Outcome>,
    progress: &'a Progress,
    taken: &'a mut dyn FnMut(Sample),
}

impl Stage<'_> {
    /// Plays visits, and hands over each sample when it is taken.
    ///
    /// # Errors
    /// When a server or a scenario cannot be started, or a signal came.
    pub fn play(&self, visits: &[Visit], progress: &Progress, taken: &mut dyn FnMut(Sample)) -> Result<()> {
        for visit in visits {
            let (sets, beaten) = (HashMap::new(), HashMap::new());
            let mut playing = Playing { stage: self, sets, beaten, progress, taken };
            for act in &visit.acts {
                for round in 0..=act.rounds {
                    for step in act.steps_of(round) {
                        for place in order(self.contenders.len(), round) {
                            playing.turn(step, place, round)?;
                        }
                    }
                }
            }
        }
        Ok(())
    }

    /// How many turns that takes.
    pub fn turns(&self, visits: &[Visit]) -> usize {
        let able = |step: &Step| self.contenders.iter().filter(|contender| step.is_for(contender.ability)).count();
        let acts = visits.iter().flat_map(|visit| &visit.acts);
        acts.flat_map(|act| (0..=act.rounds).flat_map(|round| act.steps_of(round))).map(able).sum()
    }

    fn start(&self, step: &Step, place: usize) -> Result<Set> {
        let document = self.contenders[place].ability == Ability::Document;
        let bytes = step.scale.answer_bytes();
        let mut server = Server::start(&self.recipes[place], document, bytes, self.site)?;
        if step.cell == Cell::Sigterm {
            server.restart_always()?;
        }
        Ok(Set { server, holder: None, askers: HashMap::new() })
    }
}

impl Playing<'_> {
    /// A cell at one server, if it means anything there. A server that is spent or given up is followed by a new one.
    fn turn(&mut self, step: &Step, place: usize, round: u32) -> Result<()> {
        let Contender { name, ability, .. } = &self.stage.contenders[place];
        if !step.is_for(*ability) {
            return Ok(());
        }
        self.progress.next(format_args!("{}, {name}: {}", step.scale.name, step.cell));
        let key = (step.scale.name, place);
        if self.beaten.contains_key(&(key, step.cell)) {
            return Ok(());
        }
        if step.cell.setting() == Setting::Fresh {
            self.sets.remove(&key);
        }
        let outcome = match self.set(step, place)? {
            Ok(set) => self.play(set, step, place, round)?,
            Err(outcome) => outcome,
        };
        if matches!(outcome, Outcome::OverLimit { .. }) {
            self.beaten.insert((key, step.cell), outcome.clone());
        }
        if round > 0 || !matches!(outcome, Outcome::Measured(_)) {
            self.took(step, place, outcome);
        }
        Ok(())
    }

    fn took(&mut self, step: &Step, place: usize, outcome: Outcome) {
        let server = self.stage.contenders[place].name.clone();
        (self.taken)(Sample { scale: step.scale.name, cell: step.cell, server, outcome });
    }

    /// The server that is there, or a new one with the population that the cell is to meet, or how that went wrong.
    fn set(&mut self, step: &Step, place: usize) -> Result<Result<Set, Outcome>> {
        let key = (step.scale.name, place);
        if let Some(set) = self.sets.remove(&key) {
            return Ok(Ok(set));
        }
        let populating = step.populating();
        // What cannot be populated in time has no time for the rest either.
        if let Some(outcome) = self.beaten.get(&(key, Cell::Populate)) {
            return Ok(Err(outcome.clone()));
        }
        let mut set = self.stage.start(step, place)?;
        let ability = self.stage.contenders[place].ability;
        if step.cell.setting() == Setting::Empty || !populating.is_for(ability) {
            return Ok(Ok(set));
        }
        let arguments =
            [populating.arguments(ability, None), set.server.arguments(populating.cell).to_vec()].concat();
        let mut holder = self.stage.generator.start(&arguments)?;
        let outcome = self.stage.generator.outcome(&mut holder, populating.limit, populating.limit)?;
        self.took(&populating, place, outcome.clone());
        if let Outcome::Measured(_) = outcome {
            set.holder = Some(holder);
            return Ok(Ok(set));
        }
        self.beaten.insert((key, Cell::Populate), outcome.clone());
        Ok(Err(outcome))
    }

    /// Plays the cell, and keeps the server if it is still of use.
    fn play(&mut self, mut set: Set, step: &Step, place: usize, round: u32) -> Result<Outcome> {
        let generator = self.stage.generator;
        let mut scenario = if let Some(asker) = set.askers.remove(&step.cell) {
            asker
        } else {
            let ability = self.stage.contenders[place].ability;
            let arguments = step.arguments(ability, set.holder.as_ref().map(Scenario::pid));
            generator.start(&[arguments, set.server.arguments(step.cell).to_vec()].concat())?
        };
        if step.cell.in_slices() {
            scenario.ask(step.slice(round));
        }
        let patience = if step.cell.keeps_time() { step.limit + PREPARING } else { step.limit };
        let outcome = generator.outcome(&mut scenario, step.limit, patience)?;
        if matches!(outcome, Outcome::Measured(_)) && matches!(step.cell.setting(), Setting::Kept | Setting::Fresh)
        {
            if step.cell.in_slices() {
                set.askers.insert(step.cell, scenario);
            }
            self.sets.insert((step.scale.name, place), set);
        }
        Ok(outcome)
    }
}
