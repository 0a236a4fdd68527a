//! The worker threads: started, agreed on one backend, then given what they serve.
//!
//! A ring is set up on the thread that uses it, and one thread may get a ring where the next does not: the memory that
//! a ring locks counts against a limit of the user. So every thread tries before anything listens. With `-io=auto` one
//! failure makes all of them use epoll.

use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Release};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use signal_hook::consts::SIGTERM;
use signal_hook::low_level::raise;

use crate::clock::Clock;
use crate::io::availability::NoRing;
use crate::io::uring::Sizes;
use crate::io::{Backend, BackendChoice, Driver, IdleRing};
use crate::log::Log;
use crate::options::Options;
use crate::process::{cores, pin_to};
use crate::server::{ServerError, starting};
use crate::worker::Worker;

/// How a worker's thread ends.
pub type End = Result<(), ServerError>;

/// Threads that wait for their [`Work`].
pub struct Threads {
    pub backend: Backend,
    threads: Vec<(Sender<Start>, JoinHandle<End>)>,
}

/// What a thread serves.
pub struct Work {
    pub worker: Worker,
    /// In the order of the worker's listeners.
    pub sockets: Vec<TcpListener>,
    pub clock: Clock,
    /// Set when the thread fails.
    pub failed: Arc<AtomicBool>,
}

struct Start {
    backend: Backend,
    work: Work,
    prepared: Sender<End>,
    serve: Receiver<()>,
}

/// Threads that have all that they need, and wait until they are to serve.
pub struct Prepared(Vec<(Sender<()>, JoinHandle<End>)>);

impl Prepared {
    /// Lets them accept.
    #[must_use]
    pub fn serve(self) -> Vec<JoinHandle<End>> {
        let serve = |(serve, handle): (Sender<()>, JoinHandle<End>)| {
            // Refused by a thread that has panicked, which is noticed when it is joined.
            let _ = serve.send(());
            handle
        };
        self.0.into_iter().map(serve).collect()
    }
}

impl Threads {
    /// Starts the threads and decides for all of them between io_uring and epoll.
    pub fn start(count: usize, options: &Options, log: &Log) -> Result<Self, ServerError> {
        let cores = if options.pin_workers { cores().map_err(starting("pinned workers"))? } else { Vec::new() };
        let (choice, busy_poll) = (options.io, options.busy_poll);
        let (ready, all_ready) = mpsc::channel();
        let start = |number: usize| {
            let (start, started) = mpsc::channel();
            let ready = ready.clone();
            let core = cores.get(number % cores.len().max(1)).copied();
            let builder = thread::Builder::new().name(format!("worker-{number}"));
            let handle = builder.spawn(move || {
                core.into_iter().for_each(pin_to);
                run(choice, busy_poll, ready, &started)
            })?;
            Ok((start, handle))
        };
        let threads = (0..count).map(start).collect::<io::Result<_>>().map_err(starting("workers"))?;
        drop(ready);
        let rings = all(&all_ready, count)?;
        Ok(Self { backend: backend(choice, rings, log)?, threads })
    }

    /// Hands out the work, and returns when nothing is left that can fail.
    ///
    /// # Panics
    /// When there is not as much work as there are threads.
    pub fn prepare(self, work: Vec<Work>) -> Result<Prepared, ServerError> {
        assert_eq!(self.threads.len(), work.len());
        let count = work.len();
        let (prepared, all_prepared) = mpsc::channel();
        let mut threads = Vec::new();
        for ((start, handle), work) in self.threads.into_iter().zip(work) {
            let (serve, serves) = mpsc::channel();
            // Refused by a thread that has panicked, which is noticed below.
            let _ = start.send(Start { backend: self.backend, work, prepared: prepared.clone(), serve: serves });
            threads.push((serve, handle));
        }
        drop(prepared);
        all(&all_prepared, count)??;
        Ok(Prepared(threads))
    }
}

/// What all threads use, once each has reported whether it has its ring.
fn backend(choice: BackendChoice, rings: Result<(), NoRing>, log: &Log) -> Result<Backend, ServerError> {
    match (choice, rings) {
        (BackendChoice::Only(Backend::Epoll), _) => Ok(Backend::Epoll),
        (_, Ok(())) => Ok(Backend::Uring),
        (BackendChoice::Auto, Err(why)) => {
            log.warn(format_args!("{}", why.fallback()));
            Ok(Backend::Epoll)
        }
        (BackendChoice::Only(Backend::Uring), Err(why)) => Err(ServerError::NoRing(why)),
    }
}

/// Waits for so many reports, or for the first failure.
fn all<E>(reports: &Receiver<Result<(), E>>, count: usize) -> Result<Result<(), E>, ServerError> {
    let report = |_| reports.recv().map_err(|_| ServerError::Panicked);
    (0..count).map(report).collect()
}

/// A worker's thread.
fn run(
    choice: BackendChoice,
    busy_poll: Duration,
    ready: Sender<Result<(), NoRing>>,
    started: &Receiver<Start>,
) -> End {
    let has_ring = choice != BackendChoice::Only(Backend::Epoll);
    let ring = has_ring.then(|| IdleRing::new(Sizes::default(), !busy_poll.is_zero())).transpose();
    let (ring, result) = ring.map_or_else(|why| (None, Err(why)), |ring| (ring, Ok(())));
    // Nobody waits any more when another thread has failed first, and nothing is sent when the server does not start.
    let _ = ready.send(result);
    drop(ready);
    let Ok(Start { backend, work, prepared, serve }) = started.recv() else { return Ok(()) };
    let ring = ring.filter(|_| backend == Backend::Uring);
    let Work { worker, sockets, clock, failed } = work;
    let waker = Arc::clone(worker.mailbox().waker());
    let driver = match Driver::new(ring, sockets, waker, busy_poll) {
        Ok(driver) => driver,
        Err(error) => {
            let _ = prepared.send(Err(starting("workers")(error)));
            return Ok(());
        }
    };
    let _ = prepared.send(Ok(()));
    drop(prepared);
    // Nothing is sent when another thread has failed, or another process serves on.
    let Ok(()) = serve.recv() else { return Ok(()) };
    let mut stop = StopAll(Some(failed));
    let end = worker.run(driver, &clock).map_err(ServerError::Io);
    if end.is_ok() {
        // The drain is over, which all workers began together.
        stop.0 = None;
    }
    end
}

/// One worker less would leave its connections unserved: when one fails, be it by a panic, the others stop too,
/// and main says why.
struct StopAll(Option<Arc<AtomicBool>>);

impl Drop for StopAll {
    fn drop(&mut self) {
        if let Some(failed) = &self.0 {
            failed.store(true, Release);
            let _ = raise(SIGTERM);
        }
    }
}
