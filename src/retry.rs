//! Trying again for a while what another process is about to leave.

use std::thread;
use std::time::{Duration, Instant};

/// Tries again, after a pause each time, as long as the error passes and the time is not over.
pub fn retry<T, E>(
    until: Instant,
    pause: Duration,
    passes: impl Fn(&E) -> bool,
    attempt: impl Fn() -> Result<T, E>,
) -> Result<T, E> {
    loop {
        match attempt() {
            Err(error) if passes(&error) && Instant::now() < until => thread::sleep(pause),
            result => return result,
        }
    }
}
