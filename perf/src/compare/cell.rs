//! Cells: what is measured at once, and by which scenario.

use std::fmt::{self, Display, Formatter};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::scale::{Name, Scale};
use crate::population::Run;
use crate::scenario::lookup_target;

/// The id of the runs, so that one finds what another holds.
pub const RUN: &str = "c";

/// What a server is able to answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ability {
    /// HTTP, one document whatever the request.
    Document,
    /// Both protocols, without keeping what it is told.
    Answers,
    /// An nsqlookupd.
    Registry,
    /// One that announces changes, by `/watch` and by lookups that wait.
    Watches,
    /// Several instances of such a server with one registry.
    Cluster,
}

/// What is measured at once, and shares a run of the generator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cell {
    /// Registering the population, pipelined; what then is held is what the following cells meet.
    Populate,
    /// Lookups of all topics in a closed loop over 64 kept connections.
    Lookup,
    /// The same over 1,000.
    Crowded,
    /// The same over 64, 16 requests in a write.
    Pipelined,
    /// The same, a connection for each request.
    Reconnecting,
    /// The same over 64, of a single topic.
    OneTopic,
    /// The same as [`Self::Lookup`] at a server that was never asked before.
    Cold,
    /// Lookups of a single topic over 64 kept connections, by wrk.
    Wrk,
    /// Lookups one after the other.
    RoundTrip,
    /// `/nodes`, one after the other.
    Nodes,
    /// `/topics`, one after the other.
    Topics,
    /// Lookups at a fixed rate, first alone, then beside registrations that come and go.
    Churn,
    /// The end of all producers at once.
    Disconnect,
    /// All producers at once on an empty server, each command a round trip as nsqd does it, until all lookups are
    /// complete.
    Storm,
    /// The same, until all is registered.
    Restart,
    /// Lookups at a fixed rate while the server is ended by SIGTERM and started again, until all nsqds are back.
    Sigterm,
    /// Connections that only send heartbeats.
    Idle,
    /// Changes at a fixed rate and watchers by server-sent events, beside lookups.
    Watch,
    /// The same by long polls.
    LongPoll,
    /// The same by a lookup each second.
    Poll,
    /// A population that registers at all instances, then changes at a fixed rate at the first, until each is listed by
    /// the others.
    Cluster,
    /// Lookups in a closed loop beside such changes: at another instance, or at the server that has the changes too.
    BesideChanges,
}

impl Display for Cell {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Populate => "populate",
            Self::Lookup => "lookup",
            Self::Crowded => "lookup, 1,000 connections",
            Self::Pipelined => "lookup, pipelined",
            Self::Reconnecting => "lookup, a connection each",
            Self::OneTopic => "lookup, one topic",
            Self::Cold => "lookup, cold",
            Self::Wrk => "lookup, under wrk",
            Self::RoundTrip => "round trip",
            Self::Nodes => "/nodes",
            Self::Topics => "/topics",
            Self::Churn => "churn",
            Self::Disconnect => "disconnect",
            Self::Storm => "storm",
            Self::Restart => "restart",
            Self::Sigterm => "restart by SIGTERM",
            Self::Idle => "idle",
            Self::Watch => "watch",
            Self::LongPoll => "watch by long polls",
            Self::Poll => "watch by polls",
            Self::Cluster => "cluster",
            Self::BesideChanges => "lookup, beside changes",
        })
    }
}

/// How a cell wants its server, and leaves it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Setting {
    /// One that holds the population, and goes on to hold it.
    Kept,
    /// The same, just populated.
    Fresh,
    /// One that holds the population, and is of no use afterwards.
    Spent,
    /// One without any population, of no use afterwards.
    Empty,
}

impl Cell {
    /// What a server must be able to if the cell is to mean anything.
    pub fn needs(self) -> Ability {
        match self {
            Self::Lookup | Self::Crowded | Self::Pipelined | Self::OneTopic | Self::Wrk | Self::RoundTrip => {
                Ability::Document
            }
            Self::Restart | Self::Idle => Ability::Answers,
            Self::Watch | Self::LongPoll => Ability::Watches,
            Self::Cluster => Ability::Cluster,
            _ => Ability::Registry,
        }
    }

    pub fn setting(self) -> Setting {
        match self {
            Self::Cold => Setting::Fresh,
            Self::Disconnect => Setting::Spent,
            Self::Storm
            | Self::Restart
            | Self::Sigterm
            | Self::Idle
            | Self::Watch
            | Self::LongPoll
            | Self::Poll
            | Self::Cluster
            | Self::BesideChanges => Setting::Empty,
            _ => Setting::Kept,
        }
    }

    /// Whether it is played in short slices by one process, which waits between them.
    pub fn in_slices(self) -> bool {
        matches!(
            self,
            Self::Lookup | Self::Crowded | Self::Pipelined | Self::Reconnecting | Self::OneTopic | Self::RoundTrip
        )
    }

    /// Whether what a slice finds depends on which topics those before it have asked for.
    pub fn asks_for_all_topics(self) -> bool {
        self.in_slices() && self != Self::OneTopic
    }

    /// Whether it reports by itself that its limit has passed, from the moment on that matters.
    pub fn keeps_time(self) -> bool {
        matches!(self, Self::Disconnect | Self::Storm | Self::Restart)
    }

    /// Whether its scenario is given all instances of a cluster. Others meet the first alone.
    pub fn is_of_all_instances(self) -> bool {
        matches!(self, Self::Cluster | Self::BesideChanges)
    }

    /// The scenario and its options for a server of that ability. `time` is how long is measured, where the cell
    /// itself knows no end, `limit` when the server is given up; `holder` is the process of [`Self::Populate`].
    pub fn arguments(
        self,
        scale: &Scale,
        ability: Ability,
        time: Duration,
        limit: Duration,
        holder: Option<u32>,
    ) -> Vec<String> {
        let time = humantime::format_duration(time).to_string();
        let limit = humantime::format_duration(limit).to_string();
        let (lookups, writes) = rates(scale.name);
        let holder = holder.unwrap_or_default().to_string();
        let line = match self {
            Self::Populate => "populate --pipeline 64",
            Self::Lookup | Self::Cold => "lookup",
            Self::Crowded => "lookup --connections 1000",
            Self::Pipelined => "lookup --pipeline 16",
            Self::Reconnecting => "lookup --no-keep-alive",
            Self::OneTopic => "lookup --among 1",
            Self::Wrk => "wrk --threads 1 --connections 64",
            Self::RoundTrip => "lookup --connections 1",
            Self::Nodes => "lookup --connections 1 --path /nodes",
            Self::Topics => "lookup --connections 1 --path /topics",
            Self::Churn => "churn --writers 32",
            Self::Disconnect => "disconnect --sample 200",
            Self::Storm => "storm",
            Self::Restart => "storm --unwatched",
            Self::Sigterm => "restart --restarts 1 --rate 1000",
            Self::Idle => "idle --connections 15000",
            Self::Watch => "watch --mode stream",
            Self::LongPoll => "watch --mode poll",
            Self::Poll => "watch --mode interval --interval 1s",
            Self::Cluster => "cluster --pipeline 64 --rate 100",
            Self::BesideChanges => "cluster --pipeline 64 --rate 100 --lookups max --connections 64",
        };
        let mut arguments: Vec<String> = line.split(' ').map(str::to_owned).collect();
        let mut add = |words: &[&str]| arguments.extend(words.iter().map(|&word| word.to_owned()));
        match self {
            Self::Populate => {}
            _ if self.in_slices() => add(&["--on-demand"]),
            Self::Disconnect => add(&["--populated-by", &holder, "--within", &limit]),
            Self::Watch | Self::LongPoll | Self::Poll => {
                let (watchers, rate) = watching(scale.name);
                let (watchers, rate) = (watchers.to_string(), rate.to_string());
                add(&["--watchers", &watchers, "--rate", &rate, "--lookups", "500", "--for", &time]);
            }
            Self::Storm | Self::Restart => add(&["--within", &limit]),
            Self::Sigterm => add(&["--settle", &time, "--heartbeat", heartbeat(scale.name)]),
            Self::Churn => {
                add(&["--rate", &lookups.to_string(), "--writes", &writes.to_string(), "--for", &time]);
            }
            _ => add(&["--for", &time]),
        }
        if (self.in_slices() || self == Self::Wrk) && ability < Ability::Registry {
            add(&["--path", &lookup_target(&Run::of(RUN), 0)]);
        }
        if self != Self::Idle {
            arguments.extend(scale.population.arguments());
        }
        arguments
    }
}

/// Lookups and writes a second. At S, M and L those that stock is able to answer on one core, with room to spare:
/// above what a server is able to, an open loop measures only the length of the run. K is for those who can.
fn rates(name: Name) -> (u32, u32) {
    match name {
        Name::K => (20_000, 5_000),
        Name::S => (2_000, 200),
        Name::M => (500, 100),
        Name::L => (50, 20),
        Name::Xs | Name::One | Name::Ten | Name::W => (200, 100),
    }
}

/// Watchers, and changes a second. At TEN each change is one of all watchers.
fn watching(name: Name) -> (u32, u32) {
    match name {
        Name::Xs => (12, 100),
        Name::K => (10_000, 100),
        Name::Ten => (1_000, 10),
        _ => (1_000, 100),
    }
}

/// nsqd's own, but where the machinery is tested.
fn heartbeat(name: Name) -> &'static str {
    if name == Name::Xs { "100ms" } else { "15s" }
}

#[cfg(test)]
mod tests {
    use super::super::scale::S;
    use super::*;

    #[test]
    fn a_server_without_a_registry_is_asked_for_its_document() {
        let text = |cell: Cell, ability| {
            let (time, limit) = (Duration::from_millis(1500), Duration::from_secs(30));
            cell.arguments(&S, ability, time, limit, Some(7)).join(" ")
        };
        let population = "--producers 200 --topics-per-producer 50 --topics 200 --channels 1";
        assert_eq!(text(Cell::Lookup, Ability::Registry), format!("lookup --on-demand {population}"));
        assert!(
            text(Cell::OneTopic, Ability::Document).contains("--path /lookup?topic=perf_c_000000 --producers")
        );
        assert!(text(Cell::Wrk, Ability::Answers).contains("--for 1s 500ms --path /lookup?topic=perf_c_000000"));
        assert!(
            text(Cell::Wrk, Ability::Registry).starts_with("wrk --threads 1 --connections 64 --for 1s 500ms --p")
        );
        assert!(text(Cell::Cold, Ability::Registry).starts_with("lookup --for 1s 500ms --producers"));
        assert!(text(Cell::Disconnect, Ability::Registry).contains("--populated-by 7 --within 30s"));
        let restart = "restart --restarts 1 --rate 1000 --settle 1s 500ms --heartbeat 15s --producers 200";
        assert!(text(Cell::Sigterm, Ability::Registry).starts_with(restart));
        assert!(text(Cell::Idle, Ability::Answers).ends_with("--for 1s 500ms"));
        let watch = "watch --mode stream --watchers 1000 --rate 100 --lookups 500 --for 1s 500ms --producers 200";
        assert!(text(Cell::Watch, Ability::Watches).starts_with(watch));
        let beside =
            "cluster --pipeline 64 --rate 100 --lookups max --connections 64 --for 1s 500ms --producers 200";
        assert!(text(Cell::BesideChanges, Ability::Registry).starts_with(beside));
    }
}
