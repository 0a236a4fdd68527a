//! Waiting for a condition, never for a time.

use std::fmt::Debug;
use std::thread;
use std::time::{Duration, Instant};

/// How long a condition may take before its test fails. nsqd sends a heartbeat every 15 s and some conditions want
/// two of them; everything else takes milliseconds.
pub const PATIENCE: Duration = Duration::from_secs(40);

/// Polls `probe` until it gives a value.
///
/// # Panics
/// When `PATIENCE` is over, with the last thing that `probe` saw instead.
pub fn until<T>(what: &str, probe: impl FnMut() -> Result<T, String>) -> T {
    until_within(PATIENCE, what, probe)
}

/// The same, for a condition that has a patience of its own.
///
/// # Panics
/// When it is over.
pub fn until_within<T>(patience: Duration, what: &str, mut probe: impl FnMut() -> Result<T, String>) -> T {
    let deadline = Instant::now() + patience;
    loop {
        match probe() {
            Ok(value) => return value,
            Err(seen) if Instant::now() > deadline => {
                panic!("{what}: not within {patience:?}, last seen: {seen}")
            }
            Err(_) => thread::sleep(Duration::from_millis(20)),
        }
    }
}

/// Polls `actual` until it equals `expected`.
///
/// # Panics
/// As [`until`].
pub fn until_eq<T: PartialEq + Debug>(what: &str, expected: &T, mut actual: impl FnMut() -> T) {
    until(what, || {
        let actual = actual();
        if actual == *expected { Ok(()) } else { Err(format!("{actual:?}, not {expected:?}")) }
    });
}
