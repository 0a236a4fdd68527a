//! What one worker counts.

use std::sync::atomic::{AtomicI64, Ordering::Relaxed};
use std::time::Duration;

use super::counter::Counter;
use super::histogram::{CHANGES, Histogram, WORK_NANOS, nanos};
use super::requests::Requests;
use crate::access::Reason;
use crate::clock::Timestamp;
use crate::limits::Limit;
use crate::listen::Service;

/// Aligned so that no two workers share a line, nor the pair of lines that is fetched together.
#[derive(Default)]
#[repr(align(128))]
pub struct Counters {
    /// Connections, by [`Service`].
    pub accepted: [Counter; Service::ALL.len()],
    pub closed: [Counter; Service::ALL.len()],
    pub accept_failures: [Counter; Service::ALL.len()],
    /// TLS connections that ended because of what the client's TLS was.
    pub tls_failures: [Counter; Service::ALL.len()],
    /// Connections that began with the other protocol, by that of the listener they came to.
    pub wrong_ports: [Counter; Service::ALL.len()],
    /// Refusals of access, by [`Reason`].
    pub denied: [Counter; Reason::ALL.len()],
    pub pings: Counter,
    pub identifies: Counter,
    pub registers: Counter,
    pub unregisters: Counter,
    /// Producers that became inactive, and those of them that are active again or gone.
    pub silences: Counter,
    pub silences_over: Counter,
    /// Commands that were answered with an error.
    pub command_errors: Counter,
    pub requests: Requests,
    /// Responses to `/lookup` that came from a cache, and those that were rendered.
    pub cache_hits: Counter,
    pub cache_misses: Counter,
    /// Events sent to clients that watch, and states sent to them as a whole.
    pub watch_events: Counter,
    pub watch_states: Counter,
    /// Receives that ended because all provided buffers were in use.
    pub no_buffers: Counter,
    /// Receives that were stopped because the client does not read its responses.
    pub receives_stopped: Counter,
    /// Names that were forgotten because no producer had them.
    pub forgotten_topics: Counter,
    pub forgotten_channels: Counter,
    /// By [`Limit`].
    pub exceeded: [Counter; Limit::ALL.len()],
    pub(super) iterations: Histogram<{ WORK_NANOS.len() }>,
    pub(super) commits: Histogram<{ WORK_NANOS.len() }>,
    pub(super) batches: Histogram<{ CHANGES.len() }>,
    /// Nanoseconds of the [`Timestamp`] at which the last iteration began.
    last_iteration: AtomicI64,
}

impl Counters {
    /// An iteration begins.
    #[inline]
    pub fn begin_iteration(&self, now: Timestamp) {
        self.last_iteration.store(now.nanos(), Relaxed);
    }

    /// An iteration has given its requests to the kernel, so long after it began.
    #[inline]
    pub fn end_iteration(&self, took: Duration) {
        self.iterations.observe(&WORK_NANOS, nanos(took), 1);
        self.requests.observe(took);
    }

    /// So many changes were committed. A commit without any only looks at something under the writer lock.
    pub fn committed(&self, changes: usize, took: Duration) {
        if changes == 0 {
            return;
        }
        self.commits.observe(&WORK_NANOS, nanos(took), 1);
        self.batches.observe(&CHANGES, changes as u64, 1);
    }

    pub(super) fn last_iteration(&self) -> Timestamp {
        Timestamp::from_nanos(self.last_iteration.load(Relaxed))
    }

    /// How many connections are open. What is closed is read first, so that no more are closed than were accepted.
    pub(super) fn open(&self, service: Service) -> u64 {
        let closed = self.closed[service as usize].get();
        self.accepted[service as usize].get().saturating_sub(closed)
    }

    /// HTTP requests and commands.
    pub(super) fn served(&self) -> u64 {
        let commands = [&self.pings, &self.identifies, &self.registers, &self.unregisters];
        self.requests.total() + commands.into_iter().map(Counter::get).sum::<u64>()
    }
}
