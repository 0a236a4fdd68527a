//! The registry against a naive model of stock's. Random steps are done to both, restarts among them, and every
//! answer of the registry must be the model's.
//!
//! `RINGLOOKUPD_SEEDS=n` runs n seeds of each profile; `RINGLOOKUPD_SEED=n` replays the one of a failure.

mod answers;
mod model;
mod restarts;
mod run;
mod steps;
mod threads;

use std::env;
use std::panic::{self, AssertUnwindSafe};

use steps::{Profile, Run};

/// Two topics, one of them ephemeral, so that rare states are met: an ephemeral topic that went and left a
/// channel, say.
const TINY: Profile = Profile {
    topics: 2,
    channels: 2,
    slots: 2,
    nodes: 3,
    topic_bytes: 0,
    hostname_bytes: 0,
    populated: 0,
    steps: 400,
    batch: 3,
    ask_all_every: 10,
};

/// Names collide at every other step.
const SMALL: Profile = Profile {
    topics: 5,
    channels: 3,
    slots: 5,
    nodes: 3,
    topic_bytes: 0,
    hostname_bytes: 4,
    populated: 0,
    steps: 400,
    batch: 3,
    ask_all_every: 25,
};

/// Every stream has several pages.
const LARGE: Profile = Profile {
    topics: 1000,
    channels: 4,
    slots: 60,
    nodes: 30,
    topic_bytes: 64,
    hostname_bytes: 1000,
    populated: 30,
    steps: 120,
    batch: 20,
    ask_all_every: 200,
};

/// A lookup is in parts, and each node has two connections.
const WIDE: Profile = Profile {
    topics: 2,
    channels: 2,
    slots: 600,
    nodes: 300,
    topic_bytes: 0,
    hostname_bytes: 0,
    populated: 2,
    steps: 150,
    batch: 4,
    ask_all_every: 8,
};

#[test]
fn two_names() {
    check_seeds(TINY, 40);
}

#[test]
fn few_names() {
    check_seeds(SMALL, 40);
}

#[test]
fn many_names() {
    check_seeds(LARGE, 1);
}

#[test]
fn many_producers() {
    check_seeds(WIDE, 5);
}

fn check_seeds(profile: Profile, default: u64) {
    match variable("RINGLOOKUPD_SEED") {
        Some(seed) => check(profile, seed),
        None => (0..variable("RINGLOOKUPD_SEEDS").unwrap_or(default)).for_each(|seed| check(profile, seed)),
    }
}

fn variable(name: &str) -> Option<u64> {
    let value = env::var(name).ok()?;
    Some(value.parse().unwrap_or_else(|_| panic!("{name} is a number, not {value}")))
}

fn check(profile: Profile, seed: u64) {
    let mut failing = Run::new(profile, seed);
    if passes(&failing) {
        return;
    }
    let hook = panic::take_hook();
    panic::set_hook(Box::new(|_| ()));
    shrink(&mut failing);
    panic::set_hook(hook);
    eprintln!("RINGLOOKUPD_SEED={seed} fails. Fewest steps found, with {:?}:", failing.lifetimes);
    failing.steps.iter().for_each(|step| eprintln!("    {step:?}"));
    run::run(&failing);
    unreachable!("a run fails whenever it is repeated");
}

fn passes(run: &Run) -> bool {
    panic::catch_unwind(AssertUnwindSafe(|| run::run(run))).is_ok()
}

/// Leaves out steps without which it fails too: halves first, then quarters, down to single ones.
fn shrink(failing: &mut Run) {
    let mut length = failing.steps.len() / 2;
    while length > 0 {
        let mut from = 0;
        while from < failing.steps.len() {
            let steps = failing.steps.clone();
            failing.steps.drain(from..steps.len().min(from + length));
            if passes(failing) {
                failing.steps = steps;
                from += length;
            }
        }
        length /= 2;
    }
}
