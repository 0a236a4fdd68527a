//! Differential test against real nsqlookupd 1.3.0: a seed decides what producers and consumers do, both servers get
//! the same bytes, and every reply is compared byte for byte. After each few steps every read endpoint is compared too.
//!
//! Producers send commands and bodies of IDENTIFY that are valid, odd or wrong, pipelined or cut in pieces; consumers
//! send requests for every route with any method and any encoding of arguments, on connections that are kept or not.
//! Connections end by FIN, half-close or RST, or by an error. `differences.rs` lists what may differ, with the reason;
//! `normal.rs` leaves out the time and the order of Go's maps.
//!
//! Both servers have the same ports, on loopback addresses of their own, and each client connects to both from one
//! address, so ports and addresses in replies are equal too.
//!
//! A failure prints its seed, the steps so far and the two replies:
//! - `RINGLOOKUPD_SEED=7 cargo test --test interop differential` plays that seed alone;
//! - `RINGLOOKUPD_SECONDS=600` plays new random seeds for that time.

mod differences;
mod http;
mod identify;
mod names;
mod normal;
mod session;
mod v1;
mod wire;

use std::env;
use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, Instant};

use ringlookupd::io::Backend;

use crate::programs::{self, Programs};
use session::{Fault, Program};

on_both_drivers!(sessions);

/// Seeds that every run of the tests plays.
const SEEDS: u64 = 20;

fn sessions(backend: Backend) {
    let Some(programs) = Programs::find() else {
        return;
    };
    let number = |variable: &str| env::var(variable).ok().map(|value| value.parse::<u64>().expect("a number"));
    let (seed, seconds) = (number("RINGLOOKUPD_SEED"), number("RINGLOOKUPD_SECONDS"));
    let (first, count) = match (seed, seconds) {
        (Some(seed), _) => (seed, 1),
        (None, Some(_)) => (RandomState::new().hash_one(0) >> 16, u64::MAX),
        (None, None) => (0, SEEDS),
    };
    let (begun, limit) = (Instant::now(), seconds.map(Duration::from_secs));
    let (mut replies, mut played) = (0, 0);
    while played < count && limit.is_none_or(|limit| begun.elapsed() < limit) {
        let seed = first + played;
        replies += play(&programs, backend, seed, None).unwrap_or_else(|wrong| {
            panic!("{wrong}\n\nfailed: RINGLOOKUPD_SEED={seed} cargo test --test interop differential")
        });
        played += 1;
    }
    println!("{played} seeds from {first}, {replies} replies");
}

fn play(programs: &Programs, backend: Backend, seed: u64, fault: Option<Fault>) -> Result<usize, String> {
    let stock = programs.path("nsqlookupd");
    let (path, mut flags) = programs::lookupd(backend);
    // What the program itself adds to stock's responses, and the flags that take it away.
    if !flags.is_empty() {
        flags.extend(["-watch=false".to_owned(), "-ui=false".to_owned()]);
    }
    session::play(&stock, &Program { path: &path, flags }, seed, fault)
}

/// Plants a fault in a session that passes without it, and expects the comparison to notice.
fn notices(fault: Fault, what: &str) {
    let Some(programs) = Programs::find() else {
        return;
    };
    play(&programs, Backend::Epoll, 0, None).expect("this session is right");
    let wrong = play(&programs, Backend::Epoll, 0, Some(fault)).expect_err("the fault is noticed");
    assert!(wrong.contains(what), "{wrong}");
}

#[test]
fn canary_one_bit() {
    notices(Fault::Bit, "reply 1 differs");
}

#[test]
fn canary_one_header() {
    notices(Fault::Header, "reply 1 differs");
}

#[test]
fn canary_topic_on_one_side() {
    notices(Fault::Topic, "GET /topics: reply 1 differs");
}
