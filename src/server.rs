//! The process's life: bind, start the workers, wait for a signal, drain.

use std::fmt;
use std::io::{self, PipeReader, PipeWriter};
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use signal_hook::low_level::raise;
use socket2::{Domain, Protocol, Socket, TcpKeepalive, Type};

use crate::VERSION;
use crate::admission::connections_within;
use crate::clock::Clock;
use crate::io::support::{fallback, refusal};
use crate::io::uring::Ring;
use crate::io::{Choice, Driver, Interface, Service};
use crate::limits::{BACKLOG, BIND_PATIENCE, BIND_PAUSE, Limit, Limits};
use crate::log::Log;
use crate::options::{ListenAddress, Options};
use crate::registry::{Lifetimes, Registry, write_json_string};
use crate::turn::{ServerInfo, Turn, Watch};
use crate::worker::Worker;

/// Why the server did not start, or stopped: one line for the operator.
#[derive(Debug)]
pub enum ServerError {
    /// A port is taken, or an address is not this machine's.
    Listen { address: ListenAddress, error: io::Error },
    /// The kernel gives us no ring, and nothing else may serve.
    NoRing(io::Error),
    /// A thread, a pipe, a signal handler: something that does not fail on a machine that works.
    Start { what: &'static str, error: io::Error },
    /// A worker's way into the kernel failed while it served.
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
            Self::NoRing(error) => f.write_str(&refusal(error)),
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
    addresses: [SocketAddr; Service::ALL.len()],
    workers: Vec<JoinHandle<Result<(), ServerError>>>,
    /// Closed to stop the workers.
    stop: PipeWriter,
    signals: Signals,
}

impl Server {
    /// Binds both ports and starts the workers. Returns when all of them serve.
    pub fn start(options: &Options, log: &Log) -> Result<Self, ServerError> {
        let limits = limits_within(raise_open_file_limit(), options, log);
        // Before anything that a signal should end in order.
        let signals = Signals::new([SIGINT, SIGTERM]).map_err(starting("signal handling"))?;
        let count = options.workers.get();
        let (v1_address, v1) = listeners(&options.tcp_address, count)?;
        let (http_address, http) = listeners(&options.http_address, count)?;
        let addresses = [v1_address, http_address];
        let info = Arc::new(server_info(options, addresses));
        let watch = Arc::<Watch>::default();
        let registry = Arc::new(Registry::new(Lifetimes {
            inactive_producer_timeout: options.inactive_producer_timeout,
            tombstone_lifetime: options.tombstone_lifetime,
        }));
        let cores = if options.pin_workers { cores().map_err(starting("pinned workers"))? } else { Vec::new() };
        let interface = interface(options.io, log);
        let clock = Clock::start();
        let (stopped, stop) = io::pipe().map_err(starting("workers"))?;
        let (ready, all_ready) = mpsc::channel();
        let mut workers = Vec::with_capacity(count);
        for ((number, v1), http) in (0..).zip(v1).zip(http) {
            let thread = WorkerThread {
                worker: Worker::new(
                    number,
                    Turn::new(
                        Arc::clone(&registry),
                        Arc::clone(&info),
                        limits,
                        Arc::clone(&watch),
                        log.clone(),
                        clock.now(),
                    ),
                ),
                listeners: [v1, http],
                stopped: stopped.try_clone().map_err(starting("workers"))?,
                interface,
                core: cores.get(number as usize % cores.len().max(1)).copied(),
                busy_poll: options.busy_poll,
                clock: clock.clone(),
            };
            let ready = ready.clone();
            let builder = thread::Builder::new().name(format!("worker-{number}"));
            workers.push(builder.spawn(move || thread.run(&ready)).map_err(starting("workers"))?);
        }
        drop(ready);
        for _ in 0..count {
            all_ready.recv().map_err(|_| ServerError::Panicked)??;
        }
        Ok(Self { log: log.clone(), addresses, workers, stop, signals })
    }

    /// Serves until SIGINT or SIGTERM, then finishes the replies in hand.
    pub fn run(mut self) -> Result<(), ServerError> {
        let named = ["TCP", "HTTP"].into_iter().zip(self.addresses);
        for (name, address) in named.clone() {
            self.log.info(format_args!("{name}: listening on {address}"));
        }
        self.signals.wait();
        drop(self.stop);
        let ends: Vec<_> = self.workers.into_iter().map(JoinHandle::join).collect();
        for (name, address) in named {
            self.log.info(format_args!("{name}: closing {address}"));
        }
        ends.into_iter().try_for_each(|end| end.unwrap_or(Err(ServerError::Panicked)))
    }
}

/// What a worker's thread begins with.
struct WorkerThread {
    worker: Worker,
    listeners: [TcpListener; Service::ALL.len()],
    stopped: PipeReader,
    interface: Interface,
    core: Option<usize>,
    busy_poll: Duration,
    clock: Clock,
}

impl WorkerThread {
    fn run(self, ready: &mpsc::Sender<Result<(), ServerError>>) -> Result<(), ServerError> {
        if let Some(core) = self.core {
            let mut set = CpuSet::new();
            set.set(core);
            // A core that went away since the mask was read: serve unpinned.
            let _ = sched_setaffinity(None, &set);
        }
        let driver = match Driver::new(self.interface, self.listeners, self.stopped.into(), self.busy_poll) {
            Ok(driver) => driver,
            Err(error) => {
                let error = match self.interface {
                    Interface::Uring => ServerError::NoRing(error),
                    Interface::Epoll => starting("workers")(error),
                };
                // Nobody listens any more when another worker has failed first.
                let _ = ready.send(Err(error));
                return Ok(());
            }
        };
        let _ = ready.send(Ok(()));
        let _stop = StopAll;
        turns(self.worker, driver, &self.clock).map_err(ServerError::Io)
    }
}

/// One worker less would leave its connections unserved: when one ends, be it by a panic, the others stop too,
/// and main says why.
struct StopAll;

impl Drop for StopAll {
    fn drop(&mut self) {
        let _ = raise(SIGTERM);
    }
}

/// The loop.
fn turns(mut worker: Worker, mut driver: Driver, clock: &Clock) -> io::Result<()> {
    loop {
        worker.begin_turn(clock.now());
        worker.look_ahead(driver.received());
        while !worker.is_full()
            && let Some(event) = driver.next_event()
        {
            worker.handle(event);
        }
        if worker.end_turn(SystemTime::now) {
            driver.sweep()?;
        }
        if worker.is_finished() {
            return Ok(());
        }
        for request in worker.requests() {
            driver.submit(request)?;
        }
        driver.wait(worker.timeout())?;
    }
}

/// What all workers use, decided once.
fn interface(choice: Choice, log: &Log) -> Interface {
    match choice {
        Choice::Only(interface) => interface,
        Choice::Auto => match Ring::probe() {
            Ok(()) => Interface::Uring,
            Err(error) => {
                log.warn(format_args!("{}", fallback(&error)));
                Interface::Epoll
            }
        },
    }
}

/// One listening socket for each worker; the kernel spreads connections over them.
fn listeners(address: &ListenAddress, count: usize) -> Result<(SocketAddr, Vec<TcpListener>), ServerError> {
    let listeners = || {
        let at = address.resolve()?;
        let patience = Instant::now() + BIND_PATIENCE;
        // Another server of the same user could join the group that SO_REUSEPORT makes, and the two would share
        // the connections. Bound without it, the first socket finds the port taken, as stock would. None listens
        // yet: a client's connection would die with a socket that was only made to look.
        let first = bind_patiently(at, false, patience)?;
        first.set_reuse_port(count > 1)?;
        let at = first.local_addr()?.as_socket().expect("an IP address was bound");
        let mut sockets = vec![first];
        for _ in 1..count {
            sockets.push(bind_patiently(at, true, patience)?);
        }
        for socket in &sockets {
            socket.listen(BACKLOG)?;
        }
        Ok((at, sockets.into_iter().map(TcpListener::from).collect()))
    };
    listeners().map_err(|error| ServerError::Listen { address: address.clone(), error })
}

/// The kernel takes a ring down some time after its process is gone, and the ring's accepts hold their
/// sockets until then: a server that is started right after it was killed finds its own ports taken.
fn bind_patiently(at: SocketAddr, shared: bool, patience: Instant) -> io::Result<Socket> {
    loop {
        match bind(at, shared) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && Instant::now() < patience => {
                thread::sleep(BIND_PAUSE);
            }
            result => return result,
        }
    }
}

fn bind(at: SocketAddr, shared: bool) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(at), Type::STREAM, Some(Protocol::TCP))?;
    if at.is_ipv6() {
        // [::] takes IPv4 as well, as Go's listeners do.
        socket.set_only_v6(false)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(shared)?;
    // Inherited by what is accepted. The keepalive is Go's: it ends connections of hosts that vanished.
    socket.set_tcp_nodelay(true)?;
    let period = Duration::from_secs(15);
    let keepalive = TcpKeepalive::new().with_time(period).with_interval(period).with_retries(9);
    socket.set_tcp_keepalive(&keepalive)?;
    socket.bind(&at.into())?;
    Ok(socket)
}

/// As Go's runtime does: a connection is a descriptor, and the soft limit is often 1,024. Returns what it is now.
fn raise_open_file_limit() -> usize {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current < maximum {
        // Refused: then the limit stays.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    }
    let limit = getrlimit(Resource::Nofile).current;
    limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX))
}

/// The operator's limits, with no more connections than there are descriptors for.
fn limits_within(open_files: usize, options: &Options, log: &Log) -> Limits {
    let (mut limits, room) = (options.limits, connections_within(open_files, options.workers.get()));
    let wanted = limits.value(Limit::Connections);
    if limits.size(Limit::Connections) > room {
        limits.set(Limit::Connections, room as u64);
    }
    if wanted > room as u64 {
        log.warn(format_args!(
            "-max-connections is {room} instead of {wanted}: there may be no more than {open_files} open files (ulimit -n)"
        ));
    }
    limits
}

/// The cores this process may run on.
fn cores() -> io::Result<Vec<usize>> {
    let set = sched_getaffinity(None)?;
    Ok((0..CpuSet::MAX_CPU).filter(|&core| set.is_set(core)).collect())
}

fn server_info(options: &Options, [v1, http]: [SocketAddr; 2]) -> ServerInfo {
    let string = |text: &str| {
        let mut out = Vec::new();
        write_json_string(&mut out, text);
        String::from_utf8(out).expect("JSON of a string is UTF-8")
    };
    let hostname = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let (address, hostname, version) = (string(&options.broadcast_address), string(&hostname), string(VERSION));
    let (tcp_port, http_port) = (v1.port(), http.port());
    let identify_reply = format!(
        "{{\"broadcast_address\":{address},\"hostname\":{hostname},\"http_port\":{http_port},\"tcp_port\":{tcp_port},\"version\":{version}}}"
    );
    let info = format!("{{\"version\":{version}}}");
    let addresses = [v1, http].map(|address| address.to_string());
    ServerInfo { identify_reply: identify_reply.into_bytes(), info: info.into_bytes(), addresses }
}

fn starting(what: &'static str) -> impl Fn(io::Error) -> ServerError {
    move |error| ServerError::Start { what, error }
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;

    use super::*;

    fn at(text: &str) -> ListenAddress {
        text.parse().expect("an address")
    }

    #[test]
    fn a_port_is_taken_whatever_the_number_of_workers() {
        for (first, second) in [(1, 2), (2, 1), (2, 2)] {
            let (address, _listeners) = listeners(&at("127.0.0.1:0"), first).expect("a port");
            let refused = listeners(&at(&address.to_string()), second).expect_err("it is taken");
            assert!(refused.to_string().contains("already in use"), "{refused}");
        }
    }

    /// Whoever gets through while the sockets are made is among those that wait to be accepted.
    #[test]
    fn no_connection_is_lost_at_the_start() {
        let port = TcpListener::bind("127.0.0.2:0").expect("a port").local_addr().expect("bound").port();
        let address = SocketAddr::from(([127, 0, 0, 2], port));
        for _ in 0..500 {
            let (trying, tried) = mpsc::channel();
            let client = thread::spawn(move || {
                loop {
                    if let Ok(stream) = TcpStream::connect(address) {
                        return stream;
                    }
                    let _ = trying.send(());
                }
            });
            tried.recv().expect("nobody listens yet");
            let (_, listeners) = listeners(&at(&address.to_string()), 4).expect("the port is free");
            let client = client.join().expect("connected");
            let us = client.local_addr().expect("connected");
            let accepted = listeners.iter().any(|listener| {
                listener.set_nonblocking(true).expect("a socket");
                listener.accept().is_ok_and(|(_, peer)| peer == us)
            });
            assert!(accepted, "{us} hangs in the air");
        }
    }
}
