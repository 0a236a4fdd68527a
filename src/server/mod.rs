//! The process's life: bind, start the workers, wait for a signal, drain.

mod listening;
mod upgrading;

use std::ffi::OsString;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use std::{fmt, io};

use self::listening::{listen_all, places, take_over};
use crate::VERSION;
use crate::access::{AccessError, Policy};
use crate::admission::Room;
use crate::clock::Clock;
use crate::cluster::etcd::EtcdConfigError;
use crate::cluster::keys::TopicOrChannel;
use crate::cluster::{self, Cluster};
use crate::context::{ServerInfo, Shared, WorkerContext};
use crate::io::Backend;
use crate::io::availability::NoRing;
use crate::json;
use crate::limits::{CONNECTIONS_FEW, Limit, Limits};
use crate::listen::{Inherited, InheritedError, Listener, Protocol, Service};
use crate::log::Log;
use crate::mailbox::{Mailbox, Message, send_to_all};
use crate::options::{GoDuration, ListenAddress, Options};
use crate::process::{Asked, ProcessSignals, open_files, raise_open_file_limit};
use crate::readiness::NotReady;
use crate::registry::{Name, Registered, Registry};
use crate::reload::{Reloader, warn_of_hidden_channels};
use crate::service_manager::ServiceManager;
use crate::state::{self, Folder, FolderError, RegistrySource, Restorer, Saver};
use crate::threads::{End, Threads, Work};
use crate::topology::{self, TopologyError};
use crate::transport::{TlsConfigError, TlsConfigs};
use crate::upgrade::{Estate, Predecessor, Program};
use crate::worker::Worker;

/// Why the server did not start, or stopped: one line for the operator.
#[derive(Debug)]
pub enum ServerError {
    /// A socket that the service manager passed cannot be used.
    Inherited(InheritedError),
    /// There is no address for clients of this protocol.
    NoListener(Protocol),
    /// The certificate cannot be used.
    Tls(TlsConfigError),
    /// The file of tokens cannot be used.
    Access(AccessError),
    /// The topology file cannot be used.
    Topology(TopologyError),
    /// etcd cannot be asked.
    Cluster(EtcdConfigError),
    /// The folder of the state cannot be used.
    State(FolderError),
    /// What another process has left is not there.
    Handover(io::Error),
    /// A port is taken, or an address is not this machine's.
    Listen { address: ListenAddress, error: io::Error },
    /// The kernel gives us no ring, and nothing else may serve.
    NoRing(NoRing),
    /// A thread, an eventfd, a signal handler: something that does not fail on a machine that works.
    Start { what: &'static str, error: io::Error },
    /// A worker's backend failed while it served.
    Io(io::Error),
    /// A worker ended by a panic, whose message says more.
    Panicked,
}

impl fmt::Display for ServerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Listen { address, error } => {
                write!(f, "listen ({address}) failed - listen tcp {address}: {}", describe(error))
            }
            Self::Inherited(why) => why.fmt(f),
            Self::NoListener(Protocol::V1) => {
                f.write_str("nsqd has nowhere to connect: set -tcp-address or -tcp-tls-address")
            }
            Self::NoListener(Protocol::Http) => {
                f.write_str("HTTP clients have nowhere to connect: set -http-address or -https-address")
            }
            Self::Tls(why) => why.fmt(f),
            Self::Access(why) => why.fmt(f),
            Self::Cluster(why) => why.fmt(f),
            Self::State(why) => write!(f, "-data-path {why}"),
            Self::Handover(error) => write!(f, "the process that started this one does not leave to it - {error}"),
            Self::Topology(why) => why.fmt(f),
            Self::NoRing(why) => why.fmt(f),
            Self::Start { what, error } => write!(f, "cannot start {what} - {error}"),
            Self::Io(error) => write!(f, "a worker's loop failed - {error}"),
            Self::Panicked => f.write_str("a worker panicked"),
        }
    }
}

/// Errors of bind as Go words them.
fn describe(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => "bind: address already in use".into(),
        io::ErrorKind::AddrNotAvailable => "bind: cannot assign requested address".into(),
        io::ErrorKind::PermissionDenied => "bind: permission denied".into(),
        _ => error.to_string(),
    }
}

/// A server that is listening.
pub struct Server {
    log: Log,
    clock: Clock,
    listeners: Vec<Listener>,
    workers: Vec<JoinHandle<End>>,
    /// A worker has failed.
    worker_failed: Arc<AtomicBool>,
    mailboxes: Vec<Arc<Mailbox>>,
    signals: ProcessSignals,
    registry: Arc<Registry>,
    shared: Arc<Shared>,
    reloader: Reloader,
    manager: ServiceManager,
    program: Program,
    /// The process that this one has taken over from, until it knows that this one serves.
    predecessor: Option<Predecessor>,
    /// With `-data-path`.
    saver: Option<Saver>,
    /// With `-cluster`.
    cluster: Option<Cluster>,
    /// A signal asked for it while something else was waited for.
    is_to_stop: bool,
}

impl Server {
    /// Binds the ports that are not inherited and starts the workers. Returns when all of them serve. `arguments` are the
    /// command line from which `options` were read, for a reload.
    pub fn start(
        options: &Options,
        arguments: Vec<OsString>,
        inherited: Inherited,
        log: &Log,
    ) -> Result<Self, ServerError> {
        // Before anything that a signal should end in order.
        let signals = ProcessSignals::take().map_err(starting("signal handling"))?;
        let mut predecessor = Predecessor::from_env();
        let places = places(options, inherited.listeners().map_err(ServerError::Inherited)?)?;
        let speaks_tls = places.iter().any(|place| place.service().is_tls());
        // The sockets that another process leaves are not known yet.
        let is_for_tls = speaks_tls || (predecessor.is_some() && !options.tls.cert.is_empty());
        let tls = is_for_tls.then(|| TlsConfigs::load(&options.tls)).transpose().map_err(ServerError::Tls)?;
        let access = Policy::load(&options.access, 1).map_err(ServerError::Access)?;
        let topology = topology::load(&options.topology_file).map_err(ServerError::Topology)?;
        let cluster = cluster::Plan::load(&options.cluster).map_err(ServerError::Cluster)?;
        let (count, connections, limits) = within_open_files(raise_open_file_limit(), places.len(), options, log);
        let threads = Threads::start(count, options, log)?;
        let backend = threads.backend;
        let estate = predecessor.as_mut().map(Predecessor::receive).transpose().map_err(ServerError::Handover)?;
        let mut estate = estate.unwrap_or_default();
        let folder = folder(options, &mut estate).map_err(ServerError::State)?;
        let places = take_over(places, std::mem::take(&mut estate.sockets), log);
        let (listeners, sockets) = listen_all(places, count, &limits, tls.as_ref())?;
        let info = Arc::new(server_info(options, &listeners, backend));
        let shared = Arc::<Shared>::default();
        shared.options.store(Arc::new(Options { limits, ..options.clone() }));
        warn_of_hidden_channels(&access, log);
        shared.access.store(Arc::new(access));
        let registry = Arc::new(Registry::new(options.lifetimes()));
        let clock = Clock::start();
        let restorer = Restorer { registry: &registry, grace: options.restore_grace, clock: &clock, log };
        let (folder, knows_all) = restore(&restorer, folder, estate, options)?;
        if knows_all {
            shared.readiness.complete();
        }
        topology.put_in_force(&shared.topology, (&registry, &limits), log, clock.now());
        let mailboxes: Vec<_> = (0..count)
            .map(|_| Mailbox::new().map(Arc::new))
            .collect::<io::Result<_>>()
            .map_err(starting("workers"))?;
        let worker_failed = Arc::<AtomicBool>::default();
        let work = (0..).zip(sockets).zip(&mailboxes).map(|((number, sockets), mailbox)| {
            let (registry, info, shared) = (Arc::clone(&registry), Arc::clone(&info), Arc::clone(&shared));
            let context = WorkerContext::new(registry, info, limits, shared, log.clone(), clock.now());
            let worker = Worker::new(number, context, Arc::clone(mailbox), &listeners);
            Work { worker, sockets, clock: clock.clone(), failed: Arc::clone(&worker_failed) }
        });
        let prepared = threads.prepare(work.collect())?;
        if let Some(predecessor) = &mut predecessor {
            predecessor.restored().map_err(ServerError::Handover)?;
        }
        // Before anybody can change something.
        let cluster = cluster.map(|plan| {
            plan.start(&registry, &shared.cluster, &clock, log, is_kept(&shared), on_complete(&shared))
        });
        let cluster = cluster.transpose().map_err(starting("the threads of -cluster"))?;
        let workers = prepared.serve();
        log.info(format_args!(
            "backend {}, {count} workers, at most {} connections",
            backend.full_name(),
            limits.size(Limit::Connections)
        ));
        let reloader = Reloader::new(arguments, connections, log, (&registry, &shared), tls, &mailboxes);
        let program = Program::new(reloader.arguments().to_vec());
        let (log, manager) = (log.clone(), ServiceManager::from_env(log));
        #[rustfmt::skip]
        let mut server = Self {
            log, clock, listeners, workers, worker_failed, mailboxes, signals, registry, shared, reloader, manager, program,
            predecessor, saver: None, cluster, is_to_stop: false,
        };
        let saver = folder.map(|folder| server.keep(folder)).transpose();
        server.saver = saver.map_err(starting("the thread that writes the state"))?;
        Ok(server)
    }

    /// Writes what changes from now on into a folder.
    fn keep(&self, folder: Folder) -> io::Result<Saver> {
        let (interval, figures) = (self.shared.options.load().state_interval, self.shared.metrics.state());
        Saver::start(folder, self.source(), interval, self.clock.clone(), figures, &self.log)
    }

    /// What another process restores, from a folder or from this one.
    fn source(&self) -> impl state::Source + use<> {
        let shared = Arc::clone(&self.shared);
        let is_known = move |topic: &Name, channel: Option<&Name>| shared.topology.load().has(topic, channel);
        RegistrySource { registry: Arc::clone(&self.registry), is_known }
    }

    /// Serves until SIGINT or SIGTERM, then finishes the replies in hand.
    pub fn run(mut self) -> Result<(), ServerError> {
        for Listener { address, service, .. } in &self.listeners {
            self.log.info(format_args!("{}: listening on {address}", stock_name(*service)));
        }
        self.shared.readiness.serve(self.clock.now(), self.shared.options.load().warm_up);
        if let Some(predecessor) = self.predecessor.take() {
            self.log.info(format_args!("upgrade: this process has taken over from process {}", predecessor.pid()));
            predecessor.wait_to_be_main();
        }
        self.manager.ready(self.status());
        let has_handed_over = self.serve();
        if !has_handed_over {
            self.wait_for_shutdown_delay();
        }
        // The nsqds whose connections end now are not gone: they connect to another instance.
        if let Some(cluster) = self.cluster.take() {
            cluster.stop();
        }
        if !has_handed_over {
            send_to_all(&self.mailboxes, Message::Stop);
        }
        let ends: Vec<_> = self.workers.into_iter().map(JoinHandle::join).collect();
        // Its lock is held to the end.
        let _folder = self.saver.and_then(Saver::finish);
        for Listener { address, service, .. } in &self.listeners {
            self.log.info(format_args!("{}: closing {address}", stock_name(*service)));
        }
        ends.into_iter().try_for_each(|end| end.unwrap_or(Err(ServerError::Panicked)))
    }

    /// Serves until a signal ends it, or another process has taken over: whether one has.
    fn serve(&mut self) -> bool {
        while !self.is_to_stop {
            let asked = self.handle_signals(None);
            self.is_to_stop |= asked.stop;
            if !self.is_to_stop && asked.upgrade && self.upgrade() {
                return true;
            }
        }
        false
    }

    /// Waits for signals, but not for longer than `timeout`, and reloads when one asks for it. Meanwhile the service manager
    /// is told what it expects.
    fn handle_signals(&mut self, timeout: Option<Duration>) -> Asked {
        let timeout = timeout.into_iter().chain(self.manager.period()).min();
        let asked = self.signals.wait(timeout);
        if asked.reload {
            self.manager.reloading();
            self.reloader.reload(self.clock.now());
            self.manager.ready(self.status());
        }
        let is_alive = self.is_alive();
        self.manager.report(self.status(), is_alive);
        asked
    }

    /// Lets everything go on for a time in which `/ready` says that the server stops. A second signal ends it, and so does
    /// the end of a worker.
    fn wait_for_shutdown_delay(&mut self) {
        self.shared.readiness.stop();
        self.manager.stopping();
        let delay = self.shared.options.load().shutdown_delay;
        let Some(until) = Instant::now().checked_add(delay) else { return };
        if !delay.is_zero() && !self.worker_failed.load(Relaxed) {
            self.log.info(format_args!("stopping in {}, a second signal stops at once", GoDuration(delay)));
        }
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() || self.worker_failed.load(Relaxed) {
                return;
            }
            let asked = self.signals.wait(Some(left));
            if asked.reload {
                self.reloader.reload(self.clock.now());
            }
            if asked.stop {
                return;
            }
        }
    }

    /// Whether every worker has had an iteration within the watchdog's time.
    fn is_alive(&self) -> bool {
        let Some(patience) = self.manager.patience() else { return true };
        let now = self.clock.now();
        let stuck = self.shared.metrics.heartbeats().into_iter().position(|at| now.since(at) >= patience);
        if let Some(number) = stuck {
            self.log.error(format_args!(
                "worker {number} is stuck: no iteration for {}, the watchdog's time",
                GoDuration(patience)
            ));
        }
        stuck.is_none()
    }

    /// What the server serves, for the service manager.
    fn status(&self) -> String {
        let Registered { topics, .. } = self.registry.registered();
        let producers = self.registry.producers();
        let warming_up = self.shared.readiness.check(self.clock.now()) == Err(NotReady::WarmingUp);
        format!("{producers} producers, {topics} topics{}", if warming_up { ", warming up" } else { "" })
    }
}

/// What stock's log and nsqd's call a listener.
fn stock_name(service: Service) -> &'static str {
    match service {
        Service::Tcp => "TCP",
        Service::Http => "HTTP",
        Service::TcpTls => "TCP with TLS",
        Service::Https => "HTTPS",
    }
}

/// The folder of the state, if there is to be one.
fn folder(options: &Options, estate: &mut Estate) -> Result<Option<Folder>, FolderError> {
    let path = Some(options.data_path.as_str()).filter(|path| !path.is_empty());
    path.map(|path| state::open(path, estate.lock.take())).transpose()
}

/// Restores what another process has left, or what the folder holds. Whether that has all producers.
fn restore(
    restorer: &Restorer<'_>,
    folder: Option<Folder>,
    estate: Estate,
    options: &Options,
) -> Result<(Option<Folder>, bool), ServerError> {
    if !estate.state.is_empty() {
        let gone = restorer.restore_bytes(estate.state);
        gone.map_err(|error| ServerError::Handover(io::Error::other(error)))?;
        return Ok((folder, estate.is_ready));
    }
    let Some(mut folder) = folder else { return Ok((None, false)) };
    let gone = restorer.restore(&mut folder);
    Ok((Some(folder), gone.is_some_and(|gone| gone < options.inactive_producer_timeout)))
}

/// Whether the topology file has a name, so that it cannot be deleted.
fn is_kept(shared: &Arc<Shared>) -> impl Fn(&TopicOrChannel) -> bool + Send + use<> {
    let shared = Arc::clone(shared);
    move |name| shared.topology.load().has(&name.topic, name.channel.as_ref())
}

/// Notes that all producers of the others are known.
fn on_complete(shared: &Arc<Shared>) -> impl FnOnce() + Send + use<> {
    let shared = Arc::clone(shared);
    move || shared.readiness.complete()
}

/// How many workers serve, how many connections there may be, and the operator's limits, with no more workers and
/// connections than there are descriptors for. `most` files may be open; the process has opened its own.
fn within_open_files(most: usize, listeners: usize, options: &Options, log: &Log) -> (usize, usize, Limits) {
    let mut limits = options.limits;
    let free = most.saturating_sub(open_files());
    let Room { workers, connections } = Room::within(free, options.workers.get(), listeners);
    let asked = [options.workers.get() as u64, limits.value(Limit::Connections)];
    let is_few = limits.size(Limit::Connections) > connections && connections < CONNECTIONS_FEW;
    limits.cap(Limit::Connections, connections);
    let given = [workers as u64, limits.value(Limit::Connections)];
    if is_few || given[0] < asked[0] || given[1] < asked[1] {
        let text = |flag: usize| match (given[flag], asked[flag]) {
            (given, asked) if given < asked => format!("{given} instead of {asked}"),
            (given, _) => given.to_string(),
        };
        let (workers, connections) = (text(0), text(1));
        log.warn(format_args!(
            "-workers is {workers} and -max-connections is {connections}: there may be no more than {most} open files; \
             raise the limit (ulimit -n)"
        ));
    }
    (workers, connections, limits)
}

/// The response to IDENTIFY has the ports of the first listener of each protocol, which is without TLS if one is: nsqd asks
/// without.
fn server_info(options: &Options, listeners: &[Listener], backend: Backend) -> ServerInfo {
    let port = |protocol| {
        let of_protocol = listeners.iter().filter(|listener| listener.service.protocol() == protocol);
        of_protocol.min_by_key(|listener| listener.service.is_tls()).map_or(0, |listener| listener.address.port())
    };
    let string = |text: &str| {
        let mut out = Vec::new();
        json::string(&mut out, text);
        String::from_utf8(out).expect("JSON of a string is UTF-8")
    };
    let hostname = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let (address, hostname, version) = (string(&options.broadcast_address), string(&hostname), string(VERSION));
    let (tcp_port, http_port) = (port(Protocol::V1), port(Protocol::Http));
    let identify_reply = format!(
        "{{\"broadcast_address\":{address},\"hostname\":{hostname},\"http_port\":{http_port},\"tcp_port\":{tcp_port},\"version\":{version}}}"
    );
    let info = format!("{{\"version\":{version}}}");
    let addresses = Service::ALL.map(|service| {
        let of_service = listeners.iter().filter(|listener| listener.service == service);
        of_service.map(|listener| listener.address.to_string()).collect::<Vec<_>>().join(", ")
    });
    let backend = backend.full_name();
    let https = listeners.iter().find(|listener| listener.service == Service::Https);
    ServerInfo {
        identify_reply: identify_reply.into_bytes(),
        info: info.into_bytes(),
        addresses,
        https_port: https.map(|listener| listener.address.port()),
        backend,
    }
}

pub(crate) fn starting(what: &'static str) -> impl Fn(io::Error) -> ServerError {
    move |error| ServerError::Start { what, error }
}
