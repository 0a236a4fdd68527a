//! Figures for the operator, asked for at `/metrics`.
//!
//! Each worker counts in cache lines of its own (`worker`, `requests`): an increment is a load and a store, without a
//! lock prefix and without a neighbour. Only a scrape adds them up (`exposition`), and the crate of the Prometheus project
//! writes them (`families`), in the `format` that the client has asked for.
//!
//! All of it costs 40 ns an iteration, most of which is the clock's second reading, and nothing that can be measured for
//! each of several lookups in one iteration.

mod counter;
mod exposition;
mod families;
mod format;
mod histogram;
mod process;
mod recurrent;
mod requests;
mod state;
#[cfg(test)]
mod tests;
mod worker;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use self::exposition::{Process, Scrape};
use self::process::Started;
use self::recurrent::Recurrent;
use crate::clock::Timestamp;
use crate::limits::Limit;
use crate::listen::Service;

pub use self::counter::Counter;
pub use self::format::Format;
pub use self::state::StateFigures;
pub use self::worker::Counters;

/// The counters of all workers and of the process, and when what they count was last logged.
#[derive(Default)]
pub struct Metrics {
    workers: Mutex<Vec<Arc<Counters>>>,
    started: Started,
    reloads_succeeded: AtomicU64,
    reloads_failed: AtomicU64,
    last_reload_failed: AtomicBool,
    upgrades_failed: AtomicU64,
    exceeded_lines: [Recurrent; Limit::ALL.len()],
    accept_lines: Recurrent,
    wrong_port_lines: [Recurrent; Service::ALL.len()],
    tls_failure_lines: [Recurrent; Service::ALL.len()],
    state: Arc<StateFigures>,
}

/// What others count, or what is not counted but is so at the moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Gauges {
    pub now: Timestamp,
    /// The same moment by the system's clock, since the Unix epoch. The two part when the process was paused.
    pub wall: Duration,
    /// The name of what serves.
    pub backend: &'static str,
    pub ready: bool,
    /// Active or not.
    pub producers: usize,
    /// Those among them that were restored and are not back.
    pub expected: usize,
    pub topics: usize,
    pub channels: usize,
    /// Of the topics and channels, those without producers.
    pub unused_topics: usize,
    pub unused_channels: usize,
    pub tombstones: usize,
    pub log_lines_dropped: u64,
    /// Clients that watch or wait.
    pub watches: usize,
    pub log_write_errors: u64,
    pub cluster: ClusterFigures,
}

/// How the cluster is; all 0 without one.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ClusterFigures {
    /// What changes in etcd comes here.
    pub is_connected: bool,
    /// etcd takes what this instance writes.
    pub is_writable: bool,
    /// Those that live.
    pub instances: usize,
    /// Of other instances.
    pub remote: usize,
    /// Those of them whose instance is dead.
    pub orphans: usize,
    /// For whose node another stands.
    pub shadowed: usize,
    /// What is to be written.
    pub pending: usize,
    /// Records.
    pub written: u64,
    /// Keys.
    pub changes: u64,
    pub reads: u64,
    pub failures: u64,
    /// Values that cannot be read, and what was dropped.
    pub lost: u64,
    pub revision: u64,
}

impl Metrics {
    /// Counters for one more worker.
    pub fn worker(&self, now: Timestamp) -> Arc<Counters> {
        let counters = Arc::<Counters>::default();
        counters.begin_iteration(now);
        self.workers().push(Arc::clone(&counters));
        counters
    }

    /// When each worker has begun its last iteration, in the order of their numbers. One that waits for events begins
    /// an iteration every [`TICK`](crate::limits::TICK).
    pub fn heartbeats(&self) -> Vec<Timestamp> {
        self.workers().iter().map(|counters| counters.last_iteration()).collect()
    }

    /// The configuration was reloaded.
    pub fn reload_succeeded(&self) {
        self.reloads_succeeded.fetch_add(1, Relaxed);
        self.last_reload_failed.store(false, Relaxed);
    }

    /// Another process was to take over, and did not.
    pub fn upgrade_failed(&self) {
        self.upgrades_failed.fetch_add(1, Relaxed);
    }

    /// It was to be reloaded, and stayed as it was.
    pub fn reload_failed(&self) {
        self.reloads_failed.fetch_add(1, Relaxed);
        self.last_reload_failed.store(true, Relaxed);
    }

    /// Those of the state file, for the thread that writes it.
    pub fn state(&self) -> Arc<StateFigures> {
        Arc::clone(&self.state)
    }

    /// When a line about the limit is due: how often it was exceeded since the last.
    pub fn exceeded_to_log(&self, limit: Limit, now: Timestamp) -> Option<u64> {
        let place = limit as usize;
        self.exceeded_lines[place].due(now, || self.total(|counters| &counters.exceeded[place..=place]))
    }

    /// The same for failures to accept.
    pub fn accept_failures_to_tell(&self, now: Timestamp) -> Option<u64> {
        self.accept_lines.due(now, || self.total(|counters| &counters.accept_failures))
    }

    /// The same for connections to the wrong port.
    pub fn wrong_ports_to_tell(&self, service: Service, now: Timestamp) -> Option<u64> {
        let place = service as usize;
        self.wrong_port_lines[place].due(now, || self.total(|counters| &counters.wrong_ports[place..=place]))
    }

    /// The same for TLS that cannot be served.
    pub fn tls_failures_to_tell(&self, service: Service, now: Timestamp) -> Option<u64> {
        let place = service as usize;
        self.tls_failure_lines[place].due(now, || self.total(|counters| &counters.tls_failures[place..=place]))
    }

    /// Everything.
    pub fn render(&self, format: Format, gauges: Gauges) -> String {
        let scrape = Scrape {
            workers: self.workers().clone(),
            gauges,
            reloads: [self.reloads_succeeded.load(Relaxed), self.reloads_failed.load(Relaxed)],
            last_reload_failed: self.last_reload_failed.load(Relaxed),
            upgrades_failed: self.upgrades_failed.load(Relaxed),
            state: self.state(),
        };
        format.encode(&exposition::registry(scrape, Process { started: self.started.seconds() }))
    }

    /// How often clients have exceeded a limit.
    pub fn exceeded(&self, limit: Limit) -> u64 {
        let place = limit as usize;
        self.total(|counters| &counters.exceeded[place..=place])
    }

    /// When the process has started, in seconds since the Unix epoch.
    pub fn started(&self) -> f64 {
        self.started.seconds()
    }

    fn total<'a>(&self, of: impl Fn(&Counters) -> &[Counter] + 'a) -> u64 {
        self.workers().iter().flat_map(|counters| of(counters)).map(Counter::get).sum()
    }

    fn workers(&self) -> MutexGuard<'_, Vec<Arc<Counters>>> {
        self.workers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
