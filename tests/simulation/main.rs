//! The workers, without a kernel: one seed decides what clients do, when the kernel completes what, and how
//! time passes, and everything that a client reads is checked.
//!
//! Clients split their bytes anywhere, pipeline, half-close, reset, stop reading, vanish. The kernel completes
//! late and in any order, ends multishots, runs out of buffers and of descriptors, sends short, fails. Asserted:
//! the worker keeps its side of the contract in `ringlookupd::io` (`kernel.rs`); every nsqd reads exactly its
//! replies, every HTTP client well-formed answers in order (`client.rs`); what was answered OK is in every lookup
//! that is sent later, on any worker, and what is gone is in none, nor in the registry after any step (`world.rs`);
//! nothing is left at the end, no connection, no socket, no producer.
//!
//! A failure prints its seed:
//! - `RINGLOOKUPD_SEED=7 cargo test --test simulation` plays that seed alone and traces what happens;
//! - `RINGLOOKUPD_CROWDS=20` plays so many seeds with thousands of clients;
//! - `RINGLOOKUPD_SEEDS=5000` or `RINGLOOKUPD_SECONDS=60` play many that nobody has played before.

mod backpressure;
mod client;
mod drain;
mod fault_profile;
mod http;
mod kernel;
mod link;
mod rng;
mod v1;
mod visibility;
mod watching;
mod world;

use std::env;
use std::hash::{BuildHasher, RandomState};
use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

/// Seeds that every run of the tests plays.
const SEEDS: u64 = 100;

/// What a canary plants.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// A byte of what an nsqd reads.
    WrongReply,
    /// An answer to a lookup that lists nobody.
    Unlisted,
    /// Requests that the worker did not make.
    DoubleClose,
    DoubleReceive,
    /// A request that gets lost.
    LostClose,
    /// A completion that gets lost.
    LostCompletion,
    /// A wake-up that gets lost.
    LostWakeUp,
    /// A command that is taken for another.
    OtherTopic,
    /// A lookup that knows less than was answered OK before it.
    Stale,
}

/// Says which seed has failed.
struct Blame(u64, &'static str);

impl Drop for Blame {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("failed: RINGLOOKUPD_SEED={} cargo test --test simulation {}", self.0, self.1);
        }
    }
}

fn number(variable: &str) -> Option<u64> {
    env::var(variable).ok().map(|value| value.parse().expect("a number"))
}

/// Whether to print what happens: for the replay of one seed.
fn is_traced() -> bool {
    static TRACED: OnceLock<bool> = OnceLock::new();
    *TRACED.get_or_init(|| number("RINGLOOKUPD_SEED").is_some())
}

#[test]
fn seeds() {
    let (seed, seeds) = (number("RINGLOOKUPD_SEED"), number("RINGLOOKUPD_SEEDS"));
    let seconds = number("RINGLOOKUPD_SECONDS").map(Duration::from_secs);
    let fresh = || RandomState::new().hash_one(0) >> 16;
    let (first, count) = match (seed, seeds, seconds) {
        (Some(seed), ..) => (seed, 1),
        (_, Some(seeds), _) => (fresh(), seeds),
        (_, _, Some(_)) => (fresh(), u64::MAX),
        _ => (0, SEEDS),
    };
    let (begun, mut events, mut played) = (Instant::now(), 0, 0);
    while played < count && seconds.is_none_or(|limit| begun.elapsed() < limit) {
        let blame = Blame(first.wrapping_add(played), "seeds");
        events += world::run(blame.0, world::FEW, None);
        played += 1;
    }
    println!("{played} seeds from {first}, {events} events");
}

/// Thousands of clients at once.
#[test]
fn crowds() {
    let first = number("RINGLOOKUPD_SEED");
    let count = first.map_or(number("RINGLOOKUPD_CROWDS").unwrap_or(2), |_| 1);
    for seed in (first.unwrap_or(0)..).take(usize::try_from(count).expect("some")) {
        let blame = Blame(seed, "crowds");
        let events = world::run(blame.0, world::CROWD, None);
        println!("seed {seed}, {events} events");
    }
}

/// The harness notices what it is there for. Seeds that do not get to the fault pass; one of these must not.
fn notices(fault: Fault) {
    (0..30).for_each(|seed| {
        world::run(seed, world::FEW, Some(fault));
    });
}

#[test]
#[should_panic(expected = "replies come in order")]
fn canary_wrong_reply() {
    notices(Fault::WrongReply);
}

#[test]
#[should_panic(expected = "has read OK and is not listed")]
fn canary_unlisted() {
    notices(Fault::Unlisted);
}

#[test]
#[should_panic(expected = "no request after the close")]
fn canary_double_close() {
    notices(Fault::DoubleClose);
}

#[test]
#[should_panic(expected = "one receive at a time")]
fn canary_double_receive() {
    notices(Fault::DoubleReceive);
}

#[test]
#[should_panic(expected = "connections are left")]
fn canary_lost_close() {
    notices(Fault::LostClose);
}

#[test]
#[should_panic(expected = "connection")]
fn canary_lost_completion() {
    notices(Fault::LostCompletion);
}

#[test]
#[should_panic(expected = "the drain does not end")]
fn canary_lost_wake_up() {
    notices(Fault::LostWakeUp);
}

#[test]
#[should_panic(expected = "has read OK")]
fn canary_other_topic() {
    notices(Fault::OtherTopic);
}

#[test]
#[should_panic(expected = "listed")]
fn canary_stale() {
    notices(Fault::Stale);
}
