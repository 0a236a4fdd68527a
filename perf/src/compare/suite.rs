//! What is played: which cells at which populations, how often, and how much time each gets.

use std::time::Duration;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use super::cell::Ability;
use super::cell::Cell::{
    self, BesideChanges, Churn, Cluster, Cold, Crowded, Disconnect, Idle, LongPoll, Lookup, Nodes, OneTopic,
    Pipelined, Poll, Reconnecting, Restart, RoundTrip, Sigterm, Storm, Topics, Watch, Wrk,
};
use super::scale::{K, L, M, ONE, S, Scale, TEN, W, XS};

/// A named plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Suite {
    /// Every population from S to L, in under two minutes for three servers
    Quick,
    /// Every cell but those of restart, watch and cluster, in under twenty minutes for five servers
    Full,
    /// Lookups while each server is restarted by SIGTERM, in two minutes for each server
    Restart,
    /// Watchers by server-sent events, by long polls and by polls, in two minutes for each server
    Watch,
    /// Changes at one instance of a cluster until the others list them, in five minutes for a cluster and an instance alone
    Cluster,
    /// Each cell for a moment: a test of the machinery
    #[value(hide = true)]
    Smoke,
}

/// Acts that share servers: one for each population and contender, which lives until the visit ends or a cell spends it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Visit {
    pub acts: Vec<Act>,
}

/// Steps that are played in this order, each at all servers in turn, so many rounds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Act {
    pub rounds: u32,
    pub steps: Vec<Step>,
}

/// A cell at a population, with its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    pub cell: Cell,
    pub scale: Scale,
    /// How long is measured, where the cell itself knows no end.
    pub time: Duration,
    /// When the server is given up.
    pub limit: Duration,
}

/// Long enough for thousands of answers, short enough that all servers have their turn before a machine changes its
/// speed.
const SLICE: Duration = Duration::from_millis(400);
const SECOND: Duration = Duration::from_secs(1);
/// What a slow client takes for three lookups.
const FOR_EACH_TOPIC: Duration = Duration::from_micros(30);
const ROUNDS: u32 = 5;
/// For what is over in a moment and differs more.
const MANY_ROUNDS: u32 = 7;

impl Suite {
    pub fn visits(self) -> Vec<Visit> {
        match self {
            Self::Quick => quick(),
            Self::Full => full(),
            Self::Restart => vec![visit(&[act(3, &[(Sigterm, S, 2 * SECOND)])])],
            Self::Watch => watch(),
            Self::Cluster => cluster(),
            Self::Smoke => smoke(),
        }
    }
}

fn quick() -> Vec<Visit> {
    vec![
        visit(&[act(ROUNDS, &[(Lookup, S, SLICE)]), act(MANY_ROUNDS, &[(Disconnect, S, SLICE)])]),
        visit(&[
            act(ROUNDS, &[(Lookup, M, SLICE)]),
            act(3, &[(Churn, M, SECOND)]),
            act(ROUNDS, &[(Disconnect, M, SLICE)]),
        ]),
        visit(&[act(ROUNDS, &[(Lookup, L, SLICE)])]),
    ]
}

fn full() -> Vec<Visit> {
    vec![
        visit(&[
            act(ROUNDS, &[(Lookup, ONE, SLICE), (Crowded, ONE, SLICE), (Pipelined, ONE, SLICE)]),
            act(ROUNDS, &[(RoundTrip, ONE, SECOND), (Wrk, ONE, SECOND)]),
        ]),
        visit(&[
            act(ROUNDS, &[(Lookup, S, SLICE), (Pipelined, S, SLICE), (Reconnecting, S, SLICE)]),
            act(MANY_ROUNDS, &[(Disconnect, S, SLICE)]),
        ]),
        visit(&[
            act(ROUNDS, &[(Lookup, M, SLICE), (Pipelined, M, SLICE), (Reconnecting, M, SLICE)]),
            act(ROUNDS, &[(Churn, M, 2 * SECOND)]),
            act(MANY_ROUNDS, &[(Disconnect, M, SLICE)]),
        ]),
        // `/nodes` last: a server that does not answer it in time is of no use to what follows.
        visit(&[
            act(ROUNDS, &[(Cold, L, SECOND), (Topics, L, SLICE), (Nodes, L, SLICE)]),
            act(ROUNDS, &[(OneTopic, TEN, SLICE), (OneTopic, L, SLICE), (Lookup, L, SLICE)]),
            act(ROUNDS, &[(Disconnect, L, SLICE)]),
        ]),
        visit(&[act(ROUNDS, &[(Churn, K, 2 * SECOND)])]),
        visit(&[act(ROUNDS, &[(Storm, M, SECOND)])]),
        visit(&[act(ROUNDS, &[(Restart, W, SECOND)])]),
        visit(&[act(ROUNDS, &[(Idle, W, 10 * SECOND)])]),
    ]
}

fn watch() -> Vec<Visit> {
    let time = 5 * SECOND;
    vec![
        visit(&[act(3, &[(Watch, S, time), (LongPoll, S, time), (Poll, S, time)])]),
        visit(&[act(3, &[(Watch, TEN, time), (LongPoll, TEN, time), (Poll, TEN, time)])]),
        visit(&[act(3, &[(Watch, K, time), (LongPoll, K, time)])]),
    ]
}

fn cluster() -> Vec<Visit> {
    let cells = |scale| {
        visit(&[act(3, &[(Cluster, scale, 10 * SECOND)]), act(ROUNDS, &[(BesideChanges, scale, 3 * SECOND)])])
    };
    vec![cells(S), cells(L)]
}

fn smoke() -> Vec<Visit> {
    let moment = |cell| (cell, XS, SECOND / 20);
    let sliced = [Lookup, Crowded, Pipelined, Reconnecting, OneTopic, RoundTrip];
    vec![
        visit(&[
            act(2, &[Cold, Nodes, Topics].map(moment)),
            act(3, &sliced.map(moment)),
            act(2, &[Wrk, Churn, Disconnect].map(moment)),
        ]),
        visit(&[act(2, &[Storm, Restart, Sigterm].map(moment))]),
        visit(&[act(2, &[Watch, LongPoll, Poll].map(|cell| (cell, XS, SECOND / 2)))]),
        visit(&[act(2, &[Cluster, BesideChanges].map(|cell| (cell, XS, SECOND / 2)))]),
    ]
}

/// What is given up after this long is far from what anybody would wait for.
const fn limit(cell: Cell) -> Duration {
    match cell {
        // Most of the time goes to the client: a million commands, and thousands of connections one by one.
        Cell::Populate | Idle | Watch | LongPoll | Cluster | BesideChanges => Duration::from_secs(60),
        // An nsqd is away for up to 30 s; the scenario itself gives up 90 s after the restart.
        Sigterm => Duration::from_secs(180),
        _ => Duration::from_secs(30),
    }
}

fn visit(acts: &[Act]) -> Visit {
    Visit { acts: acts.to_vec() }
}

fn act(rounds: u32, steps: &[(Cell, Scale, Duration)]) -> Act {
    Act {
        rounds,
        steps: steps.iter().map(|&(cell, scale, time)| Step { cell, scale, time, limit: limit(cell) }).collect(),
    }
}

impl Visit {
    /// Leaves out a cell.
    pub fn without(mut self, cell: Cell) -> Self {
        for act in &mut self.acts {
            act.steps.retain(|step| step.cell != cell);
        }
        self
    }

    pub fn steps(&self) -> impl Iterator<Item = &Step> {
        self.acts.iter().flat_map(|act| &act.steps)
    }
}

impl Act {
    /// What a round plays, the first of which is for warming up: those that are played in slices, uncounted.
    pub fn steps_of(&self, round: u32) -> impl Iterator<Item = &Step> {
        self.steps.iter().filter(move |step| round > 0 || step.cell.in_slices())
    }
}

impl Step {
    /// How a server gets the population that the cell is to meet.
    pub fn populating(&self) -> Self {
        Self { cell: Cell::Populate, limit: limit(Cell::Populate), ..*self }
    }

    /// How long it is played in that round, when in slices. The first, for warming up, is longer by what it takes to
    /// ask for almost every topic a few times, so that caches are as full in the second round as in the last.
    pub fn slice(&self, round: u32) -> Duration {
        let warming = if self.cell.asks_for_all_topics() { self.scale.population.topics } else { 0 };
        self.time + if round == 0 { FOR_EACH_TOPIC * warming } else { Duration::ZERO }
    }

    /// Whether it means anything for a server of that ability.
    pub fn is_for(&self, ability: Ability) -> bool {
        ability >= self.cell.needs()
    }

    /// The scenario and its options, as [`Cell::arguments`].
    pub fn arguments(&self, ability: Ability, holder: Option<u32>) -> Vec<String> {
        self.cell.arguments(&self.scale, ability, self.time, self.limit, holder)
    }
}

/// The order of `count` servers in a round: each in turn is the first, so that over as many rounds as there are
/// servers a machine that grows slower treats all alike.
pub fn order(count: usize, round: u32) -> impl Iterator<Item = usize> {
    (0..count).map(move |place| (place + round as usize) % count)
}

#[cfg(test)]
mod tests {
    use super::super::scale::Name;
    use super::*;

    #[test]
    fn servers_take_turns() {
        let orders: Vec<Vec<usize>> = (0..3).map(|round| order(3, round).collect()).collect();
        assert_eq!(orders, [[0, 1, 2], [1, 2, 0], [2, 0, 1]]);
        assert_eq!(order(1, 7).collect::<Vec<_>>(), [0]);
        assert_eq!(order(0, 0).count(), 0);
    }

    #[test]
    fn every_cell_is_played_as_often_as_promised() {
        let suites =
            [(Suite::Quick, 3), (Suite::Full, 5), (Suite::Restart, 3), (Suite::Watch, 3), (Suite::Cluster, 3)];
        for (suite, rounds) in suites {
            for act in suite.visits().iter().flat_map(|visit| &visit.acts) {
                assert!(act.rounds >= rounds, "{suite:?}: {act:?}");
            }
        }
    }

    #[test]
    fn suites_cover_what_they_promise() {
        let names = |suite: Suite| {
            let visits = suite.visits();
            let mut names: Vec<_> = visits.iter().flat_map(Visit::steps).map(|step| step.scale.name).collect();
            names.sort_unstable();
            names.dedup();
            names
        };
        assert_eq!(names(Suite::Quick), [Name::S, Name::M, Name::L]);
        assert_eq!(names(Suite::Restart), [Name::S]);
        assert_eq!(names(Suite::Watch), [Name::Ten, Name::S, Name::K]);
        assert_eq!(names(Suite::Cluster), [Name::S, Name::L]);
        assert_eq!(names(Suite::Full), [Name::One, Name::Ten, Name::S, Name::M, Name::L, Name::K, Name::W]);
    }

    #[test]
    fn a_cell_may_be_left_out() {
        let cells =
            |visits: Vec<Visit>| visits.iter().flat_map(Visit::steps).map(|step| step.cell).collect::<Vec<_>>();
        let all = cells(Suite::Full.visits());
        let others = cells(Suite::Full.visits().into_iter().map(|visit| visit.without(Wrk)).collect());
        assert!(all.contains(&Wrk) && !others.contains(&Wrk));
        assert_eq!(others.len(), all.len() - 1);
    }

    #[test]
    fn only_slices_are_warmed_up() {
        let mixed = act(1, &[(Lookup, S, SLICE), (Churn, S, SLICE)]);
        let cells = |round| mixed.steps_of(round).map(|step| step.cell).collect::<Vec<_>>();
        assert_eq!(cells(0), [Lookup]);
        assert_eq!(cells(1), [Lookup, Churn]);
        let slices = |scale| [0, 1].map(|round| act(1, &[(Lookup, scale, SECOND)]).steps[0].slice(round));
        assert_eq!(slices(L), [4 * SECOND, SECOND]);
        assert_eq!(slices(ONE), [SECOND + FOR_EACH_TOPIC, SECOND]);
    }
}
