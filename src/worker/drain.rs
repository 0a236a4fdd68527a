//! The end of a worker after SIGINT or SIGTERM, step by step.
//!
//! The listening sockets close first, so that new clients turn to another server at once. A connection without a request
//! in hand may send one for a grace more, of [`DRAIN_GRACE`](crate::limits::DRAIN_GRACE) as a rule. From then on each connection ends as soon as it is owed nothing, and
//! after `-drain-timeout` all of them do.

use std::time::Duration;

use super::Worker;
use crate::cause::Cause;
use crate::clock::Timestamp;
use crate::connection::Connection;
use crate::context::Stage;
use crate::limits::Limit;

/// A drain that has begun.
pub(super) struct Drain {
    step: Step,
    grace: Duration,
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
    pub(super) fn new(now: Timestamp, grace: Duration, timeout: Duration) -> Self {
        Self { step: Step::Closing, grace, until: now.after(timeout) }
    }

    /// Begins the grace when no more connections can come, and ends it in time, but not while some of what was received
    /// has not been looked at. Returns whether it has just ended.
    pub(super) fn advance(&mut self, now: Timestamp, listeners_closed: bool, all_looked_at: bool) -> bool {
        match self.step {
            Step::Closing if listeners_closed => self.step = Step::Grace { until: now.after(self.grace) },
            Step::Grace { until } if now >= until && all_looked_at => {
                self.step = Step::Finishing;
                return true;
            }
            _ => {}
        }
        false
    }

    /// Whether a connection that is owed nothing is to end.
    pub(super) fn is_finishing(&self) -> bool {
        self.step == Step::Finishing
    }

    /// When the grace ends.
    pub(super) fn grace_end(&self) -> Option<Timestamp> {
        match self.step {
            Step::Grace { until } => Some(until),
            Step::Closing | Step::Finishing => None,
        }
    }

    /// Whether the worker is to end, whatever is left.
    pub(super) fn is_over(&self, now: Timestamp) -> bool {
        now >= self.until
    }
}

impl Worker {
    pub(super) fn begin_drain(&mut self, grace: Duration) {
        let is_kept = !self.context.shared.options.load().data_path.is_empty();
        // The state that is written when all workers have ended is to have the producers.
        let stage = if is_kept { Stage::LeavingProducers } else { Stage::Draining };
        self.context.stage = self.context.stage.max(stage);
        let (now, timeout) = (self.context.now, self.context.limits.time(Limit::DrainTimeout));
        self.drain.get_or_insert_with(|| Drain::new(now, grace, timeout));
        self.wake_all();
    }

    /// Goes to the next step when it is time. From the end of the grace on it ends connections that are owed nothing:
    /// before the commit, so that their producers are gone when the sockets close.
    pub(super) fn advance_drain(&mut self) {
        let (now, closed) = (self.context.now, self.listeners.are_closed());
        let all_looked_at = !self.context.batch.is_full() && self.handshakes.is_empty();
        let Some(drain) = &mut self.drain else { return };
        let idle = if drain.advance(now, closed, all_looked_at) {
            self.slots.tokens(Connection::is_waiting)
        } else if drain.is_finishing() {
            // Only those that something has happened to can have become idle.
            let slots = &mut self.slots;
            self.dirty.iter().copied().filter(|&token| slots.get(token).is_waiting()).collect()
        } else {
            return;
        };
        for token in idle {
            self.shut_down(token, Cause::Shutdown);
        }
    }

    /// When the time for the drain is over, logs which connections were still open.
    pub(super) fn log_drain_timeout(&mut self) {
        if self.drain.as_ref().is_some_and(|drain| drain.is_over(self.context.now)) {
            for token in self.slots.tokens(|_| true) {
                self.context.exceeded(Limit::DrainTimeout, self.slots.get(token).session.peer());
            }
        }
    }
}
