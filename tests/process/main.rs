//! The program as an operator meets it: it starts and says where it listens, ends when asked, says why when it
//! cannot start, and goes on serving when descriptors, log readers or patience run out.

#[path = "../support/mod.rs"]
mod support;

#[path = "../support/both_drivers.rs"]
#[macro_use]
mod both_drivers;

mod hardship;
mod head;
mod json_log;
mod locked_memory;
mod log_hints;
mod logging;
mod no_ring;
mod paused;
mod refusals;
mod resets;
mod signals;
mod stopping;
mod threads;
mod vanished;
mod workers;

/// The program under test.
const PROGRAM: &str = env!("CARGO_BIN_EXE_ringlookupd");
