//! Whether clients should be sent to this server, for `/ready`. The other endpoints respond all the time.

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering::Relaxed};
use std::time::Duration;

use crate::clock::Timestamp;

/// What the server knows of its own readiness. Shared by all workers.
#[derive(Debug)]
pub struct Readiness {
    /// Nanoseconds of the [`Timestamp`] from which on it is ready; `MAX` until it serves.
    ready_from: AtomicI64,
    is_stopping: AtomicBool,
    /// It knows all producers, however short it has served.
    is_complete: AtomicBool,
}

/// Why the server is not ready.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NotReady {
    /// It does not serve yet.
    Starting,
    /// It serves, and may not know all producers yet: nsqd nodes connect again within two of their heartbeats, so that for
    /// so long a lookup may lack some.
    WarmingUp,
    /// It will close its ports soon.
    Stopping,
}

impl Default for Readiness {
    /// That of a server that does not serve yet.
    fn default() -> Self {
        Self {
            ready_from: AtomicI64::new(Timestamp::MAX.nanos()),
            is_stopping: AtomicBool::new(false),
            is_complete: AtomicBool::new(false),
        }
    }
}

impl Readiness {
    /// The server serves, and is ready when it has had so long to learn which producers there are.
    pub fn serve(&self, now: Timestamp, warm_up: Duration) {
        self.ready_from.store(now.after(warm_up).nanos(), Relaxed);
    }

    /// The server knows all producers, from before its start or from others: it is ready as soon as it serves.
    pub fn complete(&self) {
        self.is_complete.store(true, Relaxed);
    }

    /// The server is about to stop. It is not ready again.
    pub fn stop(&self) {
        self.is_stopping.store(true, Relaxed);
    }

    /// For how much longer the server is not ready because it may not know all producers yet.
    pub fn warm_up_left(&self, now: Timestamp) -> Option<Duration> {
        let ready_from = Timestamp::from_nanos(self.ready_from.load(Relaxed));
        (self.check(now) == Err(NotReady::WarmingUp)).then(|| ready_from.since(now))
    }

    /// Whether it is ready.
    ///
    /// # Errors
    /// Why it is not.
    pub fn check(&self, now: Timestamp) -> Result<(), NotReady> {
        let ready_from = Timestamp::from_nanos(self.ready_from.load(Relaxed));
        if self.is_stopping.load(Relaxed) {
            Err(NotReady::Stopping)
        } else if ready_from == Timestamp::MAX {
            Err(NotReady::Starting)
        } else if now < ready_from && !self.is_complete.load(Relaxed) {
            Err(NotReady::WarmingUp)
        } else {
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_ready_between_the_warm_up_and_the_stop() {
        let (readiness, start, warm_up) =
            (Readiness::default(), Timestamp::from_nanos(5), Duration::from_nanos(3));
        assert_eq!(readiness.check(start), Err(NotReady::Starting));
        readiness.serve(start, warm_up);
        assert_eq!(readiness.check(Timestamp::from_nanos(7)), Err(NotReady::WarmingUp));
        assert_eq!(readiness.warm_up_left(Timestamp::from_nanos(7)), Some(Duration::from_nanos(1)));
        assert_eq!(readiness.warm_up_left(Timestamp::from_nanos(8)), None);
        assert_eq!(readiness.check(Timestamp::from_nanos(8)), Ok(()));
        readiness.stop();
        assert_eq!(readiness.check(Timestamp::from_nanos(9)), Err(NotReady::Stopping));
    }

    #[test]
    fn without_a_warm_up_it_is_ready_when_it_serves() {
        let (readiness, start) = (Readiness::default(), Timestamp::from_nanos(5));
        readiness.serve(start, Duration::ZERO);
        assert_eq!(readiness.check(start), Ok(()));
    }
}
