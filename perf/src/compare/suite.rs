//! What is played: populations, cells, and how much time each gets.

use std::fmt::{self, Display, Formatter};
use std::time::Duration;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use super::server::Ability;
use crate::population::{Identity, Population, channel_name, producer_name, topic_name};

/// A named plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Suite {
    /// Every population, in under two minutes for three servers
    Quick,
    /// Every cell, in under twenty minutes for four servers
    Full,
    /// Each cell for a moment: a test of the machinery
    #[value(hide = true)]
    Smoke,
}

/// A population by its name in tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scale {
    pub name: Name,
    #[serde(flatten)]
    pub population: Population,
}

/// The size of a population, ascending.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Name {
    Xs,
    S,
    M,
    L,
}

impl Display for Name {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Xs => "XS",
            Self::S => "S",
            Self::M => "M",
            Self::L => "L",
        })
    }
}

impl Display for Cell {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Populate => "populate",
            Self::Lookup => "lookup",
            Self::Pipelined => "lookup, pipelined",
            Self::Reconnecting => "lookup, a connection each",
            Self::Nodes => "/nodes",
            Self::Churn => "churn",
            Self::Disconnect => "disconnect",
            Self::Storm => "storm",
            Self::Idle => "idle",
        })
    }
}

/// What is measured at once, and shares a run of the generator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cell {
    /// Registering the population, pipelined; what then is held is what the following cells meet.
    Populate,
    /// Lookups in a closed loop over 64 kept connections.
    Lookup,
    /// The same, 16 requests in a write.
    Pipelined,
    /// The same, a connection for each request.
    Reconnecting,
    /// `/nodes`, one after the other.
    Nodes,
    /// Lookups at a fixed rate, first alone, then beside registrations that come and go.
    Churn,
    /// The end of all producers at once.
    Disconnect,
    /// All producers at once on an empty server, each command a round trip as nsqd does it.
    Storm,
    /// Connections that only send heartbeats.
    Idle,
}

/// A cell of a plan with its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    pub cell: Cell,
    /// How long is measured, where the cell itself knows no end.
    pub time: Duration,
    /// When the server is given up.
    pub limit: Duration,
}

/// Cells that are played in this order for each server in turn, so many rounds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Visit {
    pub scale: Scale,
    pub rounds: u32,
    /// How each server gets the population that the cells meet, if they are to meet any.
    pub populate: Option<Step>,
    pub steps: Vec<Step>,
}

const fn scale(name: Name, producers: u32, topics_per_producer: u32, topics: u32) -> Scale {
    Scale { name, population: Population { producers, topics_per_producer, topics, channels: 1 } }
}

const XS: Scale = scale(Name::Xs, 4, 3, 6);
const S: Scale = scale(Name::S, 200, 50, 200);
const M: Scale = scale(Name::M, 1_000, 100, 10_000);
const L: Scale = scale(Name::L, 2_000, 500, 100_000);

/// What is given up after this long is far from what anybody would wait for.
const LIMIT: Duration = Duration::from_secs(30);

const fn step(cell: Cell, time: Duration) -> Step {
    Step { cell, time, limit: LIMIT }
}

impl Suite {
    pub fn visits(self) -> Vec<Visit> {
        let second = Duration::from_secs(1);
        match self {
            Self::Quick => {
                let [lookup, churn, disconnect] =
                    [Cell::Lookup, Cell::Churn, Cell::Disconnect].map(|cell| step(cell, second));
                vec![
                    Visit::populated(S, &[lookup, disconnect]),
                    Visit::populated(M, &[lookup, churn, disconnect]),
                    Visit::populated(L, &[lookup]),
                ]
            }
            Self::Full => {
                let held = [
                    step(Cell::Lookup, 2 * second),
                    step(Cell::Pipelined, 2 * second),
                    step(Cell::Reconnecting, 2 * second),
                    step(Cell::Churn, 3 * second),
                    step(Cell::Disconnect, second),
                ];
                // Apart, as a server that does not answer in time is of no use to what follows.
                let nodes = [step(Cell::Nodes, 2 * second)];
                let storm = [step(Cell::Storm, second)];
                let visits = [S, M, L].into_iter().flat_map(|scale| {
                    [Visit::populated(scale, &held), Visit::populated(scale, &nodes), Visit::empty(scale, &storm)]
                });
                visits.chain([Visit::empty(S, &[step(Cell::Idle, 10 * second)])]).collect()
            }
            Self::Smoke => {
                let moment = |cell| step(cell, second / 10);
                let held = [
                    Cell::Lookup,
                    Cell::Pipelined,
                    Cell::Reconnecting,
                    Cell::Nodes,
                    Cell::Churn,
                    Cell::Disconnect,
                ];
                let empty = [Cell::Storm, Cell::Idle];
                vec![Visit::populated(XS, &held.map(moment)), Visit::empty(XS, &empty.map(moment))]
            }
        }
    }
}

impl Visit {
    fn empty(scale: Scale, steps: &[Step]) -> Self {
        Self { scale, rounds: 3, populate: None, steps: steps.to_vec() }
    }

    fn populated(scale: Scale, steps: &[Step]) -> Self {
        let populate = Step { limit: 2 * LIMIT, ..step(Cell::Populate, Duration::ZERO) };
        Self { populate: Some(populate), ..Self::empty(scale, steps) }
    }

    /// The steps that mean anything for a server of that ability.
    pub fn steps_for(&self, ability: Ability) -> impl Iterator<Item = &Step> {
        self.steps.iter().filter(move |step| ability >= step.cell.needs())
    }
}

impl Cell {
    /// What a server must be able to if the cell is to mean anything.
    pub fn needs(self) -> Ability {
        match self {
            Self::Lookup | Self::Pipelined => Ability::Document,
            Self::Idle => Ability::Answers,
            Self::Populate | Self::Reconnecting | Self::Nodes | Self::Churn | Self::Disconnect | Self::Storm => {
                Ability::Registry
            }
        }
    }

    /// Whether it reports by itself that its limit has passed, from the moment on that matters.
    pub fn keeps_time(self) -> bool {
        matches!(self, Self::Disconnect | Self::Storm)
    }

    /// Whether the server is of no use afterwards.
    pub fn spends_the_server(self) -> bool {
        matches!(self, Self::Disconnect | Self::Storm | Self::Idle)
    }
}

impl Step {
    /// The scenario and its options for a server of that ability; `holder` is the process of [`Cell::Populate`].
    pub fn arguments(&self, scale: &Scale, ability: Ability, holder: Option<u32>) -> Vec<String> {
        let time = humantime::format_duration(self.time).to_string();
        let limit = humantime::format_duration(self.limit).to_string();
        let (lookups, writes) = rates(scale.name);
        let (lookups, writes) = (lookups.to_string(), writes.to_string());
        let holder = holder.unwrap_or_default().to_string();
        let fixed = format!("/lookup?topic={}", topic_name(0));
        let mut words: Vec<&str> = match self.cell {
            Cell::Populate => vec!["populate", "--pipeline", "64"],
            Cell::Lookup => vec!["lookup", "--for", &time],
            Cell::Pipelined => vec!["lookup", "--pipeline", "16", "--for", &time],
            Cell::Reconnecting => vec!["lookup", "--no-keep-alive", "--for", &time],
            Cell::Nodes => vec!["lookup", "--path", "/nodes", "--connections", "1", "--for", &time],
            Cell::Churn => vec!["churn", "--rate", &lookups, "--writes", &writes, "--for", &time],
            Cell::Disconnect => {
                vec!["disconnect", "--populated-by", &holder, "--sample", "200", "--within", &limit]
            }
            Cell::Storm => vec!["storm", "--within", &limit],
            Cell::Idle => vec!["idle", "--connections", "2000", "--heartbeat", "1s", "--for", &time],
        };
        if ability < Ability::Registry && matches!(self.cell, Cell::Lookup | Cell::Pipelined) {
            words.extend(["--path", &fixed]);
        }
        let mut arguments: Vec<String> = words.into_iter().map(str::to_owned).collect();
        if self.cell != Cell::Idle {
            arguments.extend(population_arguments(&scale.population));
        }
        arguments
    }
}

/// Lookups and writes a second that stock is able to answer at that size on one core, with room to spare: above
/// what a server is able to, an open loop measures only the length of the run.
fn rates(name: Name) -> (u32, u32) {
    match name {
        Name::Xs => (200, 100),
        Name::S => (2_000, 200),
        Name::M => (500, 100),
        Name::L => (50, 20),
    }
}

fn population_arguments(population: &Population) -> Vec<String> {
    let Population { producers, topics_per_producer, topics, channels } = *population;
    let pairs = [
        ("--producers", producers),
        ("--topics-per-producer", topics_per_producer),
        ("--topics", topics),
        ("--channels", channels),
    ];
    pairs.into_iter().flat_map(|(flag, value)| [flag.to_owned(), value.to_string()]).collect()
}

impl Scale {
    /// The length of an nsqlookupd's answer to a lookup, which servers without a registry answer with too.
    pub fn answer_bytes(&self) -> usize {
        let population = self.population;
        let producers: Vec<_> = population
            .producers_of(0)
            .map(|producer| {
                let identity = serde_json::to_value(Identity::named(&producer_name(producer)));
                let mut identity = identity.expect("names and numbers are JSON");
                identity["remote_address"] = "127.0.0.1:50000".into();
                identity
            })
            .collect();
        let channels: Vec<_> = (0..population.channels).map(channel_name).collect();
        serde_json::json!({"channels": channels, "producers": producers}).to_string().len()
    }
}

/// The order of `count` servers in a round: each in turn is the first, so that over as many rounds as there are
/// servers a machine that grows slower treats all alike.
pub fn order(count: usize, round: u32) -> impl Iterator<Item = usize> {
    (0..count).map(move |place| (place + round as usize) % count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_take_turns() {
        let orders: Vec<Vec<usize>> = (0..3).map(|round| order(3, round).collect()).collect();
        assert_eq!(orders, [[0, 1, 2], [1, 2, 0], [2, 0, 1]]);
        assert_eq!(order(1, 7).collect::<Vec<_>>(), [0]);
        assert_eq!(order(0, 0).count(), 0);
    }

    #[test]
    fn every_cell_is_played_three_times_at_least() {
        for suite in [Suite::Quick, Suite::Full, Suite::Smoke] {
            for visit in suite.visits() {
                assert!(visit.rounds >= 3, "{suite:?}");
                visit.scale.population.validate().unwrap();
            }
        }
    }

    #[test]
    fn suites_cover_what_they_promise() {
        let names = |suite: Suite| {
            let mut names: Vec<_> = suite.visits().iter().map(|visit| visit.scale.name).collect();
            names.sort_unstable();
            names.dedup();
            names
        };
        assert_eq!(names(Suite::Quick), [Name::S, Name::M, Name::L]);
        assert_eq!(names(Suite::Full), [Name::S, Name::M, Name::L]);
        let registrations = [S, M, L].map(|scale| scale.population.registrations());
        assert_eq!(registrations, [10_000, 100_000, 1_000_000]);
    }

    #[test]
    fn a_server_without_a_registry_is_asked_for_its_document() {
        let text =
            |cell, ability| step(cell, Duration::from_millis(1500)).arguments(&S, ability, Some(7)).join(" ");
        let population = "--producers 200 --topics-per-producer 50 --topics 200 --channels 1";
        assert_eq!(text(Cell::Lookup, Ability::Registry), format!("lookup --for 1s 500ms {population}"));
        assert!(text(Cell::Lookup, Ability::Document).contains("--path /lookup?topic=topic_000000 --producers"));
        assert!(text(Cell::Disconnect, Ability::Registry).contains("--populated-by 7"));
        assert!(text(Cell::Idle, Ability::Answers).ends_with("--for 1s 500ms"));
    }
}
