//! The client of etcd, over the JSON gateway that etcd has beside gRPC (`/v3`, since 3.4).
//!
//! Requests are blocking, on threads of their own: one for each lane, and one for each watch. What they bring goes to one
//! function, from any of the threads. A thread is ended by shutting its sockets down, so nothing waits for the network when a watch
//! is stopped or the client is dropped.
//!
//! - `address`: where etcd is.
//! - `config`: what else is to be known, from files.
//! - `encode` and `decode`: JSON; `refusal`: errors.
//! - `client`: a request; `watch`: a watch.

mod address;
mod client;
mod config;
mod decode;
mod encode;
mod refusal;
mod watch;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;

pub use address::{ClusterAddress, ClusterAddressError};
pub use config::{EtcdConfig, EtcdConfigError, EtcdFiles, UserFileError};

use self::client::{Client, Reads, Shared};
use super::store::{Failure, Incoming, Lane, Request, Revision, Store, Watched};

/// A client of etcd. Dropped, it reports nothing more.
pub struct Etcd {
    shared: Arc<Shared>,
    incoming: Arc<dyn Fn(Incoming) + Send + Sync>,
    lanes: Vec<LaneThread>,
    watch: Option<Stoppable>,
}

struct LaneThread {
    lane: Lane,
    requests: Sender<Request>,
    /// Ends the thread when it is dropped.
    _thread: Stoppable,
}

/// What ends a thread.
struct Stoppable {
    client: Client,
    is_stopped: Arc<AtomicBool>,
}

impl Stoppable {
    fn new(shared: &Arc<Shared>, reads: Reads) -> Self {
        Self { client: Client::new(shared, reads), is_stopped: Arc::default() }
    }
}

impl Drop for Stoppable {
    fn drop(&mut self) {
        self.is_stopped.store(true, Ordering::Release);
        self.client.shut_down();
    }
}

impl Etcd {
    /// Starts a thread for each lane. Nothing is connected before something is asked.
    ///
    /// # Errors
    /// A thread cannot be started.
    pub fn start(config: EtcdConfig, incoming: impl Fn(Incoming) + Send + Sync + 'static) -> io::Result<Self> {
        let shared = Arc::new(Shared::new(config));
        let incoming: Arc<dyn Fn(Incoming) + Send + Sync> = Arc::new(incoming);
        let mut lanes = Vec::new();
        for lane in Lane::ALL {
            let (requests, received) = mpsc::channel();
            let thread = Stoppable::new(&shared, Reads::Answer);
            let report = reporter(&incoming, &thread.is_stopped);
            let client = thread.client.clone();
            let name = format!("etcd-{lane:?}").to_lowercase();
            thread::Builder::new().name(name).spawn(move || serve(lane, &client, &received, report))?;
            lanes.push(LaneThread { lane, requests, _thread: thread });
        }
        Ok(Self { shared, incoming, lanes, watch: None })
    }
}

impl Store for Etcd {
    fn ask(&mut self, lane: Lane, request: Request) {
        let found = self.lanes.iter().find(|thread| thread.lane == lane);
        let sent = found.is_some_and(|thread| thread.requests.send(request).is_ok());
        debug_assert!(sent, "the thread of a lane ends when this is dropped");
    }

    fn watch(&mut self, number: u64, prefix: &str, from: Revision) {
        self.stop_watch();
        let thread = Stoppable::new(&self.shared, Reads::Watch);
        let report = reporter(&self.incoming, &thread.is_stopped);
        let (client, prefix) = (thread.client.clone(), prefix.to_owned());
        let run = move || {
            let watched = |watched| report(Incoming::Watched(number, watched));
            watched(watch::run(&client, &prefix, from, watched));
        };
        if let Err(error) = thread::Builder::new().name("etcd-watch".to_owned()).spawn(run) {
            let failure = Failure::Unreachable(format!("no thread for a watch: {error}"));
            (self.incoming)(Incoming::Watched(number, Watched::Failed(failure)));
        }
        self.watch = Some(thread);
    }

    fn stop_watch(&mut self) {
        self.watch = None;
    }
}

/// Reports what comes, until the thread is stopped: what then comes is that its sockets were shut down.
fn reporter(
    incoming: &Arc<dyn Fn(Incoming) + Send + Sync>,
    is_stopped: &Arc<AtomicBool>,
) -> impl Fn(Incoming) + use<> {
    let (incoming, is_stopped) = (Arc::clone(incoming), Arc::clone(is_stopped));
    move |what| {
        if !is_stopped.load(Ordering::Acquire) {
            incoming(what);
        }
    }
}

/// The thread of a lane.
fn serve(lane: Lane, client: &Client, requests: &Receiver<Request>, report: impl Fn(Incoming)) {
    for request in requests {
        report(Incoming::Answer(lane, client.ask(&request)));
    }
}
