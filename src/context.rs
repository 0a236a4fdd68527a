//! What the sessions of a worker share: the time, the registry, the log, the batch of changes for the next commit.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::SystemTime;

use arc_swap::ArcSwap;

use crate::access::{Denials, Policy, Reason};
use crate::admission::{Admission, Permits};
use crate::api;
use crate::batch::Batch;
use crate::change_log;
use crate::clock::{Timestamp, wall};
use crate::cluster::Status;
use crate::limits::{FORGOTTEN_TOGETHER, Limit, Limits, MISSING_TOGETHER};
use crate::listen::Service;
use crate::log::{About, Log};
use crate::metrics::{Counters, Format, Gauges, Metrics};
use crate::options::Options;
use crate::readiness::{NotReady, Readiness};
use crate::registry::{
    CacheUse, Change, Forgotten, Lifetimes, Name, Outcome, Producer, ProducerId, Reader, Registered, Registry,
    Writer,
};
use crate::response_head::ResponseHead;
use crate::topology::Topology;
use crate::transport::TlsError;
use crate::ui::{Journal, Ui};
use crate::upgrade::Pause;
use crate::watch::{Hub, Sent, WatchOptions, Watchers};

/// The state of a worker that is not one connection's.
pub struct WorkerContext {
    /// The time, read once an iteration of the loop.
    pub now: Timestamp,
    pub log: Log,
    pub reader: Reader,
    pub server: Arc<ServerInfo>,
    pub limits: Limits,
    pub lifetimes: Lifetimes,
    pub access: Arc<Policy>,
    /// This worker's.
    pub counters: Arc<Counters>,
    pub shared: Arc<Shared>,
    pub response_head: ResponseHead,
    /// Whether the page is served, and what it shows is kept.
    pub has_ui: bool,
    pub stage: Stage,
    pub registry: Arc<Registry>,
    pub batch: Batch,
    pub watch: WatchOptions,
    /// This worker's clients that wait.
    pub watchers: Watchers,
    /// Space for what a transport decrypts, empty between two connections.
    pub scratch: Vec<u8>,
}

/// How far a worker is on its way to the end. What holds of a stage holds of those after it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Stage {
    Serving,
    /// The server stops: an HTTP response says that its connection closes.
    Draining,
    /// Another server expects the producers: a connection that is closed removes none.
    LeavingProducers,
    /// Another process has the registry: this one's is answered from, and changed no more.
    HandedOver,
}

/// The result of giving a session input.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Advance {
    /// Bytes that the session has consumed.
    pub used: usize,
    /// The connection is to be closed when its output is out.
    pub close: bool,
}

/// How the server describes itself.
#[derive(Default)]
pub struct ServerInfo {
    /// The response to IDENTIFY.
    pub identify_reply: Vec<u8>,
    /// The response to `/info`.
    pub info: Vec<u8>,
    /// Where clients of each [`Service`] connect, as the log shows it; empty where it is not served.
    pub addresses: [String; Service::ALL.len()],
    /// Where HTTPS is served, if it is.
    pub https_port: Option<u16>,
    /// The name of what serves, io_uring or epoll.
    pub backend: &'static str,
}

/// The state that all workers share beside the registry: permits for connections, counters, rendered documents, and what
/// the operator asks for.
#[derive(Default)]
pub struct Shared {
    /// The settings in force. A worker takes them when it is told to reload.
    pub options: ArcSwap<Options>,
    /// Who may do what. Taken together with the settings.
    pub access: ArcSwap<Policy>,
    /// The topics and channels that no client can delete. It changes under the registry's writer lock.
    pub topology: ArcSwap<Topology>,
    pub denials: Denials,
    pub readiness: Readiness,
    /// Who is to be informed of commits.
    pub watch: Arc<Hub>,
    pub watches: Watches,
    pub pause: Pause,
    pub admission: Admission,
    pub metrics: Metrics,
    pub documents: api::Cache,
    pub ui: Arc<Ui>,
    pub cluster: Arc<Status>,
}

/// The permits for clients that wait or watch.
pub struct Watches(pub Arc<Permits>);

impl Default for Watches {
    fn default() -> Self {
        Self(Arc::new(Permits::new(Limit::Watches, Limit::WatchesPerAddress)))
    }
}

/// A topic or channel cannot be deleted, since the topology file names it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct InTopologyFile;

impl WorkerContext {
    pub fn new(
        registry: Arc<Registry>,
        server: Arc<ServerInfo>,
        limits: Limits,
        shared: Arc<Shared>,
        log: Log,
        now: Timestamp,
    ) -> Self {
        let watch = WatchOptions::of(&shared.options.load());
        let watchers = Watchers::new(Arc::clone(&shared.watch), Arc::clone(&registry));
        Self {
            now,
            log,
            reader: registry.reader(),
            server,
            limits,
            lifetimes: registry.lifetimes(),
            access: shared.access.load_full(),
            counters: shared.metrics.worker(now),
            has_ui: shared.options.load().ui,
            shared,
            response_head: ResponseHead::new(SystemTime::UNIX_EPOCH),
            stage: Stage::Serving,
            batch: Batch::new(Arc::clone(&registry)),
            watch,
            watchers,
            scratch: Vec::new(),
            registry,
        }
    }

    /// Takes the settings that have changed, for whatever begins from now on.
    pub fn reload(&mut self) {
        let options = self.shared.options.load();
        self.limits = options.limits;
        self.has_ui = options.ui;
        self.lifetimes = self.registry.lifetimes();
        self.access = self.shared.access.load_full();
        self.watch = WatchOptions::of(&self.shared.options.load());
    }

    /// What keeps the joins and departures for the page, if it is served.
    pub fn journal(&self) -> Option<&Journal> {
        self.has_ui.then_some(&self.shared.ui.journal)
    }

    /// Counts that a client has exceeded a limit, and logs it once a minute at most.
    pub fn exceeded(&self, limit: Limit, client: impl fmt::Display) {
        self.exceeded_by(limit, format_args!("client({client})"), self.log.client(&client));
    }

    /// As [`WorkerContext::exceeded`], with a description of the client and its request, and `log` with the same as fields.
    pub fn exceeded_by(&self, limit: Limit, who: fmt::Arguments<'_>, log: About<'_>) {
        self.counters.exceeded[limit as usize].increment();
        if let Some(journal) = self.journal() {
            journal.exceeded(limit, self.now);
        }
        if let Some(times) = self.shared.metrics.exceeded_to_log(limit, self.now) {
            let name = limit.name();
            log.warn(format_args!(
                "{who} exceeded the limit -{name} ({times} times since the last such line); see /metrics"
            ));
        }
    }

    /// Counts that access was refused, and logs it once a minute for each address; `attempt` is what it tried.
    pub fn denied(&self, reason: Reason, client: SocketAddr, attempt: impl fmt::Display) {
        self.counters.denied[reason as usize].increment();
        if let Some(times) = self.shared.denials.to_log(client.ip(), self.now) {
            let why = reason.text();
            self.log.client(&client).warn(format_args!(
                "client({client}) may not {attempt}: {why} (times since the last such line: {times}); see /metrics"
            ));
        }
    }

    /// Logs that two nsqd nodes call themselves the same, both of which PING.
    pub fn share_an_address(&self, older: &Producer, newer: ProducerId) {
        let Some(newer) = self.registry.snapshot().producer(newer).cloned() else { return };
        let (client, other, node) = (older.remote_address(), newer.remote_address(), older.node());
        self.log.client(&client).warn(format_args!(
            "client({client}) and client({other}) are both node {node}: two nsqd nodes with one -broadcast-address; \
             consumers reach one of them; give each its own"
        ));
    }

    /// Notes that a client of one service's port speaks another one. A log line says now and then which port is the
    /// right one.
    pub fn wrong_port(&self, service: Service, spoken: Service, client: impl fmt::Display) {
        self.counters.wrong_ports[service as usize].increment();
        let Some(times) = self.shared.metrics.wrong_ports_to_tell(service, self.now) else { return };
        let language = match spoken {
            Service::Tcp => "nsqd's protocol",
            Service::Http => "HTTP",
            Service::TcpTls | Service::Https => "TLS",
        };
        let (wrong, right) = (&self.server.addresses[service as usize], &self.server.addresses[spoken as usize]);
        let right = if right.is_empty() { "not open" } else { right };
        self.log.client(&client).warn(format_args!(
            "client({client}) speaks {language} to {wrong}: the right port is {right} (times since the last such line: {times})"
        ));
    }

    /// Notes that the TLS of a client cannot be served. A log line says now and then why.
    pub fn tls_failed(&self, service: Service, client: impl fmt::Display, error: &TlsError) {
        self.counters.tls_failures[service as usize].increment();
        if let Some(times) = self.shared.metrics.tls_failures_to_tell(service, self.now) {
            self.log.client(&client).warn(format_args!(
                "client({client}) failed the TLS handshake - {error} (times since the last such line: {times})"
            ));
        }
    }

    /// The document of `/metrics`.
    pub fn metrics(&self, format: Format) -> String {
        let Self { registry, log, server, now, .. } = self;
        let Registered { topics, channels } = registry.registered();
        let unused = registry.without_producers();
        let gauges = Gauges {
            now: *now,
            wall: wall(),
            backend: server.backend,
            ready: self.shared.readiness.check(self.now).is_ok(),
            producers: registry.producers(),
            expected: registry.expected(),
            topics,
            channels,
            unused_topics: unused.topics,
            unused_channels: unused.channels,
            tombstones: registry.tombstones(*now),
            log_lines_dropped: log.dropped(),
            watches: self.shared.watches.0.taken(),
            cluster: self.shared.cluster.figures(),
            log_write_errors: log.write_errors(),
        };
        self.shared.metrics.render(format, gauges)
    }

    /// Whether the whole batch and one REGISTER more fit the limits of all topics and channels, whatever is new
    /// in them. What other workers have not committed yet is not known here, so that together they may exceed a
    /// limit by their batches.
    pub fn has_room(&mut self) -> bool {
        let Registered { topics, channels } = self.reader.registered();
        let batch = self.batch.len();
        topics + batch < self.limits.size(Limit::Topics) && channels + batch < self.limits.size(Limit::Channels)
    }

    /// Commits the batch and one change more, whose outcome is needed at once.
    pub fn change_now(&mut self, change: &Change) -> Outcome {
        let now = self.now;
        let outcome = self.write(1, |writer| writer.apply(change, now));
        change_log::write(change, &outcome, &self.log);
        if let Some(journal) = self.journal() {
            journal.write(change, &outcome, now);
        }
        outcome
    }

    /// Commits the batch, and compares a REGISTER with the limits: for a REGISTER that may exceed one. Returns what the
    /// producer has registered.
    pub fn check_quota(
        &mut self,
        producer: &Producer,
        topic: Name,
        channel: Option<Name>,
    ) -> Result<Registered, Limit> {
        let limits = self.limits;
        self.write(0, |writer| writer.check_quota(&limits, Some(producer), topic, channel))
    }

    /// Commits the batch, and makes a topic or a channel that keeps to the limits.
    pub fn create(&mut self, topic: Name, channel: Option<Name>) -> Result<(), Limit> {
        let (limits, now, change) = (self.limits, self.now, Change::Create { topic, channel });
        let created = self.write(1, |writer| {
            writer.check_quota(&limits, None, topic, channel).map(|_| writer.apply(&change, now))
        });
        created.map(|outcome| change_log::write(&change, &outcome, &self.log))
    }

    /// Commits the batch, and deletes a topic or a channel that the topology file does not name.
    pub fn delete(&mut self, topic: Name, channel: Option<Name>) -> Result<Outcome, InTopologyFile> {
        let (shared, now, change) = (Arc::clone(&self.shared), self.now, Change::Delete { topic, channel });
        let deleted = self.write(1, |writer| {
            let is_known = shared.topology.load().has(&topic, channel.as_ref());
            if is_known { Err(InTopologyFile) } else { Ok(writer.apply(&change, now)) }
        });
        deleted.inspect(|outcome| change_log::write(&change, outcome, &self.log))
    }

    /// Makes the batch visible to all readers. The iteration is over.
    pub fn commit(&mut self) {
        if !self.batch.is_empty() {
            self.write(0, |_| ());
        }
        self.batch.end_iteration();
        // Whoever commits while this worker sleeps need not copy what it has.
        self.reader.release();
    }

    /// Counts what the iteration has done, which ends at this time.
    pub fn measure(&mut self, now: Timestamp) {
        let CacheUse { hits, misses } = self.reader.take_cache_use();
        self.counters.cache_hits.add(hits);
        self.counters.cache_misses.add(misses);
        if !self.watchers.is_empty() {
            let Sent { events, states } = self.watchers.take_sent();
            self.counters.watch_events.add(events);
            self.counters.watch_states.add(states);
        }
        self.counters.end_iteration(now.since(self.now));
    }

    /// Commits the batch, with something more to do under the writer lock, which makes so many changes.
    fn write<T>(&mut self, more_changes: usize, more: impl FnOnce(&mut Writer<'_>) -> T) -> T {
        // A commit copies what a reader holds.
        self.reader.release();
        let changes = self.batch.len() + more_changes;
        let (result, took) = self.batch.commit(self.now, &self.log, more);
        self.counters.committed(changes, took);
        result
    }

    /// For once in a while: keeps what is derived from time current.
    pub fn tick(&mut self, wall: SystemTime) {
        self.response_head = ResponseHead::new(wall);
        self.reader.age();
        self.registry.catch_up();
        if !self.watchers.is_empty() {
            self.watchers.tick(self.now, self.is_settled());
        }
        if self.stage == Stage::HandedOver {
            return;
        }
        if self.registry.has_unused(self.now) {
            self.forget_unused();
        }
        if self.registry.is_grace_over(self.now) {
            self.change_now(&Change::EndGrace { most: MISSING_TOGETHER });
        }
    }

    /// What is said from now on of whether it is settled.
    pub fn look_whether_settled(&mut self) {
        let is_settled = self.is_settled();
        self.watchers.set_settled(is_settled);
    }

    /// Whether nsqd nodes have had the time to connect again after the start.
    pub fn is_settled(&self) -> bool {
        !matches!(self.shared.readiness.check(self.now), Err(NotReady::Starting | NotReady::WarmingUp))
    }

    /// Forgets some of the names that no producer has had for long enough; the rest wait for the next tick.
    fn forget_unused(&mut self) {
        if let Outcome::Forgotten(Forgotten { count, .. }) =
            self.change_now(&Change::Forget { most: FORGOTTEN_TOGETHER })
        {
            self.counters.forgotten_topics.add(count.topics);
            self.counters.forgotten_channels.add(count.channels);
        }
    }
}
