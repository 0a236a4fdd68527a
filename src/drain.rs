//! The end of a worker after SIGINT or SIGTERM, step by step.
//!
//! The listening sockets close first, so that new clients turn to another server at once. A connection without a request
//! in hand may send one for [`DRAIN_GRACE`] more. From then on each connection ends as soon as it is owed nothing, and
//! after `-drain-timeout` all of them do.

use std::time::Duration;

use crate::clock::Timestamp;
use crate::limits::DRAIN_GRACE;

/// A drain that has begun.
pub struct Drain {
    step: Step,
    until: Timestamp,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Step {
    /// The listening sockets close, and what is in their queues is accepted.
    Closing,
    Grace {
        until: Timestamp,
    },
    /// Connections end.
    Finishing,
}

impl Drain {
    pub fn new(now: Timestamp, timeout: Duration) -> Self {
        Self { step: Step::Closing, until: now.after(timeout) }
    }

    /// Begins the grace when no more connections can come, and ends it in time, but not while some of what was received
    /// has not been looked at. Returns whether it has just ended.
    pub fn advance(&mut self, now: Timestamp, listeners_closed: bool, all_looked_at: bool) -> bool {
        match self.step {
            Step::Closing if listeners_closed => self.step = Step::Grace { until: now.after(DRAIN_GRACE) },
            Step::Grace { until } if now >= until && all_looked_at => {
                self.step = Step::Finishing;
                return true;
            }
            _ => {}
        }
        false
    }

    /// Whether a connection that is owed nothing is to end.
    pub fn is_finishing(&self) -> bool {
        self.step == Step::Finishing
    }

    /// When the grace ends.
    pub fn grace_end(&self) -> Option<Timestamp> {
        match self.step {
            Step::Grace { until } => Some(until),
            Step::Closing | Step::Finishing => None,
        }
    }

    /// Whether the worker is to end, whatever is left.
    pub fn is_over(&self, now: Timestamp) -> bool {
        now >= self.until
    }
}
