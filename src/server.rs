//! The process's life: bind, start the workers, wait for a signal, drain.

use std::fmt;
use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::thread::JoinHandle;

use crate::admission::Room;
use crate::clock::Clock;
use crate::context::{ServerInfo, Shared, WorkerContext};
use crate::io::Backend;
use crate::io::availability::NoRing;
use crate::json;
use crate::limits::{CONNECTIONS_FEW, Limit, Limits};
use crate::listen::{Listener, Protocol, bind};
use crate::log::Log;
use crate::mailbox::{Mailbox, Message};
use crate::options::{ListenAddress, Options};
use crate::process::{ProcessSignals, open_files, raise_open_file_limit};
use crate::registry::{Lifetimes, Registry};
use crate::threads::{End, Threads, Work};
use crate::worker::Worker;
use crate::{VERSION, transport};

/// Why the server did not start, or stopped: one line for the operator.
#[derive(Debug)]
pub enum ServerError {
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
    listeners: Vec<Listener>,
    workers: Vec<JoinHandle<End>>,
    mailboxes: Vec<Arc<Mailbox>>,
    signals: ProcessSignals,
}

impl Server {
    /// Binds both ports and starts the workers. Returns when all of them serve.
    pub fn start(options: &Options, log: &Log) -> Result<Self, ServerError> {
        // Before anything that a signal should end in order.
        let signals = ProcessSignals::take().map_err(starting("signal handling"))?;
        let places = [(&options.tcp_address, Protocol::V1), (&options.http_address, Protocol::Http)];
        let (count, limits) = within_open_files(raise_open_file_limit(), places.len(), options, log);
        let threads = Threads::start(count, options, log)?;
        let backend = threads.backend;
        let (listeners, sockets) = bind_all(&places, count, &limits)?;
        let info = Arc::new(server_info(options, &listeners, backend));
        let shared = Arc::<Shared>::default();
        let registry = Arc::new(Registry::new(Lifetimes {
            inactive_producer_timeout: options.inactive_producer_timeout,
            tombstone_lifetime: options.tombstone_lifetime,
            forget_ephemeral_after: options.forget_ephemeral_after.unwrap_or(options.inactive_producer_timeout),
            forget_unused_after: options.forget_unused_after,
        }));
        let clock = Clock::start();
        let mailboxes: Vec<_> = (0..count)
            .map(|_| Mailbox::new().map(Arc::new))
            .collect::<io::Result<_>>()
            .map_err(starting("workers"))?;
        let work = (0..).zip(sockets).zip(&mailboxes).map(|((number, sockets), mailbox)| {
            let (registry, info, shared) = (Arc::clone(&registry), Arc::clone(&info), Arc::clone(&shared));
            let context = WorkerContext::new(registry, info, limits, shared, log.clone(), clock.now());
            let worker = Worker::new(number, context, Arc::clone(mailbox), &listeners);
            Work { worker, sockets, clock: clock.clone() }
        });
        let workers = threads.serve(work.collect())?;
        let connections = limits.size(Limit::Connections);
        log.info(format_args!(
            "backend {}, {count} workers, at most {connections} connections",
            backend.full_name()
        ));
        Ok(Self { log: log.clone(), listeners, workers, mailboxes, signals })
    }

    /// Serves until SIGINT or SIGTERM, then finishes the replies in hand.
    pub fn run(mut self) -> Result<(), ServerError> {
        for Listener { address, protocol, .. } in &self.listeners {
            self.log.info(format_args!("{}: listening on {address}", stock_name(*protocol)));
        }
        self.signals.wait_for_stop();
        for mailbox in &self.mailboxes {
            let sent = mailbox.send(Message::Stop);
            debug_assert!(sent.is_ok(), "a queue holds each message once, and has room for every kind");
        }
        let ends: Vec<_> = self.workers.into_iter().map(JoinHandle::join).collect();
        for Listener { address, protocol, .. } in &self.listeners {
            self.log.info(format_args!("{}: closing {address}", stock_name(*protocol)));
        }
        ends.into_iter().try_for_each(|end| end.unwrap_or(Err(ServerError::Panicked)))
    }
}

/// What stock's log calls a listener of a protocol.
fn stock_name(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::V1 => "TCP",
        Protocol::Http => "HTTP",
    }
}

/// The listeners, and for each worker its sockets, in the order of the listeners.
fn bind_all(
    places: &[(&ListenAddress, Protocol)],
    workers: usize,
    limits: &Limits,
) -> Result<(Vec<Listener>, Vec<Vec<TcpListener>>), ServerError> {
    let mut listeners = Vec::new();
    let mut sockets: Vec<_> = (0..workers).map(|_| Vec::new()).collect();
    for &(address, protocol) in places {
        let (address, bound) = bind(address, workers, limits)
            .map_err(|error| ServerError::Listen { address: address.clone(), error })?;
        listeners.push(Listener { address, protocol, transport: transport::Kind::Plain });
        for (own, socket) in sockets.iter_mut().zip(bound) {
            own.push(socket);
        }
    }
    Ok((listeners, sockets))
}

/// How many workers serve, and the operator's limits, with no more workers and connections than there are descriptors
/// for. `most` files may be open; the process has opened its own.
fn within_open_files(most: usize, listeners: usize, options: &Options, log: &Log) -> (usize, Limits) {
    let mut limits = options.limits;
    let free = most.saturating_sub(open_files());
    let Room { workers, connections } = Room::within(free, options.workers.get(), listeners);
    let asked = [options.workers.get() as u64, limits.value(Limit::Connections)];
    let is_few = limits.size(Limit::Connections) > connections && connections < CONNECTIONS_FEW;
    if limits.size(Limit::Connections) > connections {
        limits.set(Limit::Connections, connections as u64);
    }
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
    (workers, limits)
}

/// The response to IDENTIFY has the ports of the first listener of each protocol.
fn server_info(options: &Options, listeners: &[Listener], backend: Backend) -> ServerInfo {
    let of = |protocol| listeners.iter().filter(move |listener| listener.protocol == protocol);
    let port = |protocol| of(protocol).next().map_or(0, |listener| listener.address.port());
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
    let addresses = Protocol::ALL
        .map(|protocol| of(protocol).map(|listener| listener.address.to_string()).collect::<Vec<_>>().join(", "));
    let backend = backend.full_name();
    ServerInfo { identify_reply: identify_reply.into_bytes(), info: info.into_bytes(), addresses, backend }
}

pub(crate) fn starting(what: &'static str) -> impl Fn(io::Error) -> ServerError {
    move |error| ServerError::Start { what, error }
}
