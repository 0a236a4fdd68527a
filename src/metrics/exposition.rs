//! What `/metrics` shows, in its order.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::registry::Registry;

use super::counter::Counter;
use super::families::{Families, NO_LABELS};
use super::histogram::{CHANGES, RESPONSE_NANOS, Total, WORK_NANOS};
use super::requests::{ROUTES, route_name};
use super::state::StateFigures;
use super::worker::Counters;
use super::{ClusterFigures, Gauges, process};
use crate::access::Reason;
use crate::limits::Limit;
use crate::listen::Service;

/// Nanoseconds of a second.
const NANOS: f64 = 1e9;

/// All figures with the prefix of the program.
pub(super) struct Scrape {
    pub workers: Vec<Arc<Counters>>,
    pub gauges: Gauges,
    /// Successful and failed.
    pub reloads: [u64; 2],
    pub last_reload_failed: bool,
    pub upgrades_failed: u64,
    pub state: Arc<StateFigures>,
}

/// Those of the process, which have no prefix.
#[derive(Debug)]
pub(super) struct Process {
    pub started: f64,
}

/// What the encoder reads.
pub(super) fn registry(scrape: Scrape, process: Process) -> Registry {
    let mut registry = Registry::default();
    registry.sub_registry_with_prefix("nsqlookupd").register_collector(Box::new(scrape));
    registry.register_collector(Box::new(process));
    registry
}

/// The encoder asks for it, and it has no place here.
impl fmt::Debug for Scrape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scrape").finish_non_exhaustive()
    }
}

impl Collector for Scrape {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let families = &mut Families(encoder);
        self.program(families)?;
        self.registry(families)?;
        self.connections(families)?;
        self.commands(families)?;
        self.http(families)?;
        self.watches(families)?;
        self.work(families)?;
        self.state(families)?;
        self.cluster(families)?;
        self.trouble(families)?;
        self.by_worker(families)
    }
}

impl Scrape {
    fn total(&self, of: impl Fn(&Counters) -> &Counter) -> u64 {
        self.workers.iter().map(|worker| of(worker).get()).sum()
    }

    fn program(&self, families: &mut Families<'_>) -> fmt::Result {
        let labels = [
            ("version", env!("CARGO_PKG_VERSION")),
            ("commit", env!("RINGLOOKUPD_COMMIT")),
            ("target", env!("RINGLOOKUPD_TARGET")),
            ("rustc", env!("RINGLOOKUPD_RUSTC")),
            ("backend", self.gauges.backend),
        ];
        families.info("build", "Always 1; the labels say what the program is and what serves.", &labels)?;
        families.gauge("workers", "Worker threads.", self.workers.len())?;
        let ready = "Whether the server is ready: 1, or 0 while it warms up or stops.";
        families.gauge("ready", ready, u64::from(self.gauges.ready))?;
        let [success, failure] = self.reloads;
        let reloads = [([("result", "success")], success), ([("result", "failure")], failure)];
        families.counters("reloads", "Reloads of the configuration, by result.", reloads)?;
        let last = "Whether the last reload succeeded; 1 before the first.";
        families.gauge("last_reload_successful", last, u64::from(!self.last_reload_failed))?;
        let failed = "Upgrades in which the new process did not take over.";
        families.counters("upgrade_failures", failed, [(NO_LABELS, self.upgrades_failed)])
    }

    fn registry(&self, families: &mut Families<'_>) -> fmt::Result {
        let Gauges { producers, topics, channels, unused_topics, unused_channels, .. } = self.gauges;
        // In this order, so that nobody is back who has not been inactive.
        let over = self.total(|all| &all.silences_over);
        let inactive = self.total(|all| &all.silences).saturating_sub(over);
        let connected = producers.saturating_sub(self.gauges.expected);
        let active = (connected as u64).saturating_sub(inactive);
        let states = [([("state", "active")], active), ([("state", "inactive")], inactive)];
        let help = "Connected producers that have identified; inactive ones are not listed.";
        families.gauges("producers", help, states)?;
        let expected = "Producers of before a restart that are listed and have not come back yet.";
        families.gauge("producers_expected", expected, self.gauges.expected)?;
        families.gauge("topics", "Topics, with or without producers.", topics)?;
        families.gauge("channels", "Channels of all topics.", channels)?;
        let unused = [([("kind", "topic")], unused_topics), ([("kind", "channel")], unused_channels)];
        families.gauges(
            "names_without_producers",
            "Topics and channels that no producer has, by kind.",
            unused,
        )?;
        families.gauge("tombstones", "Tombstones that hide a producer from a topic.", self.gauges.tombstones)
    }

    fn connections(&self, families: &mut Families<'_>) -> fmt::Result {
        let open = Service::ALL.map(|service| {
            (listener(service), self.workers.iter().map(|worker| worker.open(service)).sum::<u64>())
        });
        families.gauges("connections", "Open connections, by listener.", open)?;
        let mut by_listener = |name, help, of: fn(&Counters) -> &[Counter; Service::ALL.len()]| {
            let total = |service| self.total(|all| &of(all)[service as usize]);
            families.counters(name, help, Service::ALL.map(|service| (listener(service), total(service))))
        };
        by_listener("connections_accepted", "Connections accepted.", |all| &all.accepted)?;
        by_listener("connections_closed", "Connections closed.", |all| &all.closed)?;
        by_listener("accept_failures", "Failures to accept.", |all| &all.accept_failures)?;
        by_listener("wrong_port", "Connections that spoke another listener's protocol.", |all| &all.wrong_ports)?;
        let help = "TLS connections that ended because the client's TLS could not be served.";
        by_listener("tls_failures", help, |all| &all.tls_failures)
    }

    fn commands(&self, families: &mut Families<'_>) -> fmt::Result {
        let commands = [
            ([("command", "PING")], self.total(|all| &all.pings)),
            ([("command", "IDENTIFY")], self.total(|all| &all.identifies)),
            ([("command", "REGISTER")], self.total(|all| &all.registers)),
            ([("command", "UNREGISTER")], self.total(|all| &all.unregisters)),
        ];
        families.counters("commands", "Commands of nsqd.", commands)?;
        families.counter("command_errors", "Errors sent to nsqd.", self.total(|all| &all.command_errors))?;
        let silences = self.total(|all| &all.silences);
        families.counter("producer_silences", "How often a connected producer became inactive.", silences)?;
        let forgotten = [
            ([("kind", "topic")], self.total(|all| &all.forgotten_topics)),
            ([("kind", "channel")], self.total(|all| &all.forgotten_channels)),
        ];
        let help = "Topics and channels forgotten because no producer had them for long enough, by kind.";
        families.counters("names_forgotten", help, forgotten)
    }

    fn http(&self, families: &mut Families<'_>) -> fmt::Result {
        let by_code = (0..ROUTES).flat_map(|number| {
            let mut counts = BTreeMap::from([(200, 0)]);
            self.workers.iter().for_each(|worker| worker.requests.route(number).add_to(&mut counts));
            counts.into_iter().map(move |(code, count)| {
                let labels = [("route", route_name(number).to_owned()), ("code", code.to_string())];
                (labels, count)
            })
        });
        families.counters("http_requests", "HTTP requests responded to, by route and status.", by_code)?;
        let durations = (0..ROUTES).map(|number| {
            let of_workers = self.workers.iter().map(|worker| &worker.requests.route(number).durations);
            ([("route", route_name(number))], Total::of(of_workers))
        });
        let help = "Time from receiving a request to giving the kernel the response, by route.";
        let bounds = (&RESPONSE_NANOS, NANOS);
        families.histograms("http_request_duration_seconds", help, bounds, durations)?;
        let lookups = [
            ([("result", "hit")], self.total(|all| &all.cache_hits)),
            ([("result", "miss")], self.total(|all| &all.cache_misses)),
        ];
        families.counters(
            "lookup_cache_requests",
            "Lookups of one topic, by whether a cache had the response.",
            lookups,
        )
    }

    fn watches(&self, families: &mut Families<'_>) -> fmt::Result {
        families.gauge("watches", "Clients that watch or wait for a change.", self.gauges.watches)?;
        let events = "Messages of events sent to clients that watch.";
        families.counter("watch_events", events, self.total(|all| &all.watch_events))?;
        let states = "States sent to clients that watch: at their beginning, and in place of events they were too slow for.";
        families.counter("watch_states", states, self.total(|all| &all.watch_states))
    }

    fn work(&self, families: &mut Families<'_>) -> fmt::Result {
        let (workers, bounds) = (&self.workers, (&WORK_NANOS, NANOS));
        let iterations = Total::of(workers.iter().map(|worker| &worker.iterations));
        let commits = Total::of(workers.iter().map(|worker| &worker.commits));
        let batches = Total::of(workers.iter().map(|worker| &worker.batches));
        let help = "Busy time of an iteration of the event loop, without the wait for events.";
        families.histograms("iteration_duration_seconds", help, bounds, [(NO_LABELS, iterations)])?;
        let help = "Time of a commit, the wait for the writer lock included.";
        families.histograms("commit_duration_seconds", help, bounds, [(NO_LABELS, commits)])?;
        families.histograms("commit_changes", "Changes of a commit.", (&CHANGES, 1.0), [(NO_LABELS, batches)])
    }

    fn cluster(&self, families: &mut Families<'_>) -> fmt::Result {
        let ClusterFigures { is_connected, is_writable, instances, remote, orphans, shadowed, pending, .. } =
            self.gauges.cluster;
        let ClusterFigures { written, changes, reads, failures, lost, revision, .. } = self.gauges.cluster;
        let help = "Whether what changes in etcd comes here; 0 without -cluster.";
        families.gauge("cluster_connected", help, u64::from(is_connected))?;
        let help = "Whether etcd takes what this instance writes; 0 without -cluster.";
        families.gauge("cluster_writable", help, u64::from(is_writable))?;
        families.gauge("cluster_instances", "Instances of the cluster that live.", instances)?;
        let help = "Producers known through etcd, by kind; shadowed ones, for whose node another stands, may be this instance's.";
        let producers =
            [([("kind", "remote")], remote), ([("kind", "orphan")], orphans), ([("kind", "shadowed")], shadowed)];
        families.gauges("cluster_producers", help, producers)?;
        let help = "Records of producers, and requests of clients, that etcd does not have yet.";
        families.gauge("cluster_pending", help, pending)?;
        families.gauge("cluster_revision", "Revision of etcd that this instance has followed to.", revision)?;
        families.counter("cluster_records_written", "Records of producers written to etcd.", written)?;
        families.counter("cluster_changes", "Changes of keys that came from etcd.", changes)?;
        families.counter("cluster_reads", "How often all that etcd has was read.", reads)?;
        let help = "Requests that etcd did not do, and connections to it that were lost.";
        families.counter("cluster_failures", help, failures)?;
        let help =
            "Values in etcd that cannot be read, and requests of clients dropped as too many wait for etcd.";
        families.counter("cluster_lost", help, lost)
    }

    fn state(&self, families: &mut Families<'_>) -> fmt::Result {
        let StateFigures { writes, errors, .. } = &*self.state;
        families.counter("state_writes", "Writes of the state file.", writes.get())?;
        let help = "Writes of the state file or its stamp that failed.";
        families.counter("state_write_errors", help, errors.get())?;
        let took = self.state.took().as_secs_f64();
        families.gauge("state_write_seconds", "Time that the last write of the state file took.", took)?;
        families.gauge("state_bytes", "Size of the state file that was written last.", self.state.bytes())?;
        let help = "When the state file or its stamp was written last, since the Unix epoch; 0 is never.";
        families.gauge("state_saved_timestamp_seconds", help, self.state.saved_at().as_secs_f64())
    }

    fn trouble(&self, families: &mut Families<'_>) -> fmt::Result {
        let exceeded =
            Limit::ALL.map(|limit| ([("limit", limit.name())], self.total(|all| &all.exceeded[limit as usize])));
        families.counters("limit_exceeded", "How often clients exceeded a limit, by its flag.", exceeded)?;
        let denied = Reason::ALL
            .map(|reason| ([("reason", reason.name())], self.total(|all| &all.denied[reason as usize])));
        families.counters(
            "access_denied",
            "Requests and connections refused by access control, by reason.",
            denied,
        )?;
        let no_buffers = self.total(|all| &all.no_buffers);
        families.counter("receive_buffers_exhausted", "Receives without a buffer.", no_buffers)?;
        let stopped = self.total(|all| &all.receives_stopped);
        families.counter("receives_stopped", "Receives stopped until the client reads.", stopped)?;
        let Gauges { log_lines_dropped, log_write_errors, .. } = self.gauges;
        families.counter("log_lines_dropped", "Log lines that found the queue full.", log_lines_dropped)?;
        families.counter("log_write_errors", "Writes of the log that failed.", log_write_errors)
    }

    #[expect(clippy::cast_precision_loss, reason = "seconds with fractions")]
    fn by_worker(&self, families: &mut Families<'_>) -> fmt::Result {
        let workers = || self.workers.iter().enumerate().map(|(number, worker)| ([("worker", number)], &**worker));
        let connections = workers().map(|(labels, worker)| {
            (labels, Service::ALL.map(|service| worker.open(service)).iter().sum::<u64>())
        });
        families.gauges("worker_connections", "Open connections, by worker.", connections)?;
        let served = workers().map(|(labels, worker)| (labels, worker.served()));
        families.counters("worker_requests", "HTTP requests and commands of nsqd, by worker.", served)?;
        let busy = workers().map(|(labels, worker)| (labels, worker.iterations.sum() as f64 / NANOS));
        families.counters("worker_busy_seconds", "Busy time of the event loop, by worker.", busy)?;
        let Gauges { now, wall, .. } = self.gauges;
        let last = workers().map(|(labels, worker)| {
            (labels, wall.saturating_sub(now.since(worker.last_iteration())).as_secs_f64())
        });
        let help = "When the last iteration of the event loop began, by worker.";
        families.gauges("worker_last_iteration_timestamp_seconds", help, last)
    }
}

impl Collector for Process {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let families = &mut Families(encoder);
        families.counter("process_cpu_seconds", "User and system CPU time.", process::cpu_seconds())?;
        if let Some([resident, virtual_memory]) = process::memory() {
            families.gauge("process_resident_memory_bytes", "Resident memory.", resident)?;
            families.gauge("process_virtual_memory_bytes", "Address space.", virtual_memory)?;
        }
        if let Some(open) = process::open_files() {
            families.gauge("process_open_fds", "Open files.", open)?;
        }
        if let Some(max) = process::open_files_max() {
            families.gauge("process_max_fds", "Open files that are allowed.", max)?;
        }
        let help = "When the process started, since the Unix epoch.";
        families.gauge("process_start_time_seconds", help, self.started)
    }
}

fn listener(service: Service) -> [(&'static str, &'static str); 1] {
    [("listener", service.label())]
}
