//! Loads any nsqlookupd the way a real cluster does: many nsqds that register, many consumers that ask, and every
//! answer checked. In the order a run meets them:
//!
//! - `cli`: the command line, and which scenario it starts.
//! - `scenario`: one module for each subcommand, and what they share: a fleet of nsqds, a load of lookups, a pacer.
//! - `population`: who registers what, from indices alone.
//! - `wire`: both protocols from the client's side, over tokio-uring.
//! - `answers`: what an answer must hold.
//! - `measure`: latencies, CPU time, memory, and who was the bottleneck.
//! - `report`: the outcome, for programs and for people; `unit`: values with their units.
//! - `compare`: several servers under the same scenarios, side by side; `floor`: the least that a server can do.
//! - `ring`: the runtime of the scenarios; `document`: what the floor and other servers without a registry answer.
//! - `progress`, `open_files`, `failure`: what a person sees of long work and of what went wrong.

mod answers;
mod cli;
mod compare;
mod document;
mod failure;
mod floor;
mod measure;
mod open_files;
mod population;
mod progress;
mod report;
mod ring;
mod scenario;
mod unit;
mod wire;

pub use cli::{Cli, run};
