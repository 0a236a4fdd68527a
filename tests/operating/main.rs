//! The program as an operator runs it: reloaded, watched by a service manager, taken out of a load balancer, restarted under
//! load.

#[path = "../support/inherited_sockets.rs"]
mod inherited_sockets;
#[path = "../support/mod.rs"]
mod support;

mod activation;
mod config;
mod readiness;
mod reload;
mod service_manager;
mod state;
mod topology;
mod upgrade;

use std::thread;
use std::time::{Duration, Instant};

use support::PATIENCE;

/// Waits until something that happens elsewhere is so.
fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < PATIENCE, "{what}: not so");
        thread::sleep(Duration::from_millis(5));
    }
}
