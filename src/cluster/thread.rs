//! The thread of a member: it waits for etcd, for what changes here, and for time.

use std::hash::{BuildHasher, RandomState};
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use super::ClusterOptions;
use super::etcd::{Etcd, EtcdConfig, EtcdConfigError};
use super::keys::{Keys, TopicOrChannel};
use super::member::{Member, Settings};
use super::notes::Notes;
use super::record::Instance;
use super::status::Status;
use super::store::Incoming;
use crate::clock::Clock;
use crate::limits::{CLUSTER_STOP_PATIENCE, ETCD_TIMEOUT};
use crate::log::Log;
use crate::registry::Registry;

/// How a cluster is joined: what can be wrong with it is known.
pub struct Plan {
    options: ClusterOptions,
    etcd: EtcdConfig,
    prefix: String,
}

/// This instance's part in a cluster.
pub struct Cluster {
    wakes: Sender<Wake>,
    thread: JoinHandle<()>,
}

/// What the thread waits for.
enum Wake {
    Etcd(Incoming),
    /// Something has changed here.
    Noted,
    Stop,
}

impl Plan {
    /// Reads the files that the options name. `None` without `-cluster`.
    ///
    /// # Errors
    /// A file cannot be used.
    pub fn load(options: &ClusterOptions) -> Result<Option<Self>, EtcdConfigError> {
        let Some(address) = &options.address else { return Ok(None) };
        let etcd = EtcdConfig::load(address, &options.files, ETCD_TIMEOUT)?;
        Ok(Some(Self { options: options.clone(), etcd, prefix: address.prefix().to_owned() }))
    }

    /// Joins the cluster. From now on changes of the registry are recorded. `is_kept` says of which names none can be deleted here,
    /// and `on_complete` is called when all is known that etcd has.
    ///
    /// # Errors
    /// A thread cannot be started.
    pub fn start(
        self,
        registry: &Arc<Registry>,
        status: &Arc<Status>,
        clock: &Clock,
        log: &Log,
        is_kept: impl Fn(&TopicOrChannel) -> bool + Send + 'static,
        on_complete: impl FnOnce() + Send + 'static,
    ) -> io::Result<Cluster> {
        let (wakes, received) = channel();
        let to_thread = wakes.clone();
        // Refused by a thread that has ended.
        let etcd = Etcd::start(self.etcd, move |incoming| drop(to_thread.send(Wake::Etcd(incoming))))?;
        let notes = Arc::<Notes>::default();
        let to_thread = wakes.clone();
        notes.wake_by(move || drop(to_thread.send(Wake::Noted)));
        let (node, version) = (self.options.node.into(), env!("CARGO_PKG_VERSION").into());
        let settings = Settings {
            incarnation: incarnation().into(),
            instance: Instance { name: node, version },
            keys: Keys::new(&self.prefix),
            stale: self.options.stale,
            is_kept: Box::new(is_kept),
        };
        let (registry, status) = (Arc::clone(registry), Arc::clone(status));
        let member = Member::new(etcd, registry, notes, Arc::clone(&status), log.clone(), settings, clock.now());
        let clock = clock.clone();
        let run = move || run(member, &received, &clock, &status, on_complete);
        Ok(Cluster { wakes, thread: Builder::new().name("cluster".into()).spawn(run)? })
    }
}

impl Cluster {
    /// Writes what is left to be written, and leaves the cluster. What changes from now on is not written: connections that end with
    /// this process are those of nsqds that live.
    pub fn stop(self) {
        // Refused by a thread that has panicked.
        let _ = self.wakes.send(Wake::Stop);
        let _ = self.thread.join();
    }
}

fn run(
    mut member: Member<Etcd>,
    received: &Receiver<Wake>,
    clock: &Clock,
    status: &Status,
    on_complete: impl FnOnce(),
) {
    let mut on_complete = Some(on_complete);
    let mut until: Option<Instant> = None;
    loop {
        member.step(clock.now());
        if status.has_read.load(Relaxed)
            && let Some(on_complete) = on_complete.take()
        {
            on_complete();
        }
        let left = until.map_or(Duration::MAX, |until| until.saturating_duration_since(Instant::now()));
        if until.is_some() && (member.is_over() || left.is_zero()) {
            return;
        }
        let mut wake = received.recv_timeout(member.patience(clock.now()).min(left));
        loop {
            match wake {
                Ok(Wake::Etcd(incoming)) => member.handle(incoming, clock.now()),
                Ok(Wake::Noted) => {}
                Ok(Wake::Stop) => {
                    until = Some(Instant::now() + CLUSTER_STOP_PATIENCE);
                    member.stop(clock.now());
                }
                Err(RecvTimeoutError::Timeout) => break,
                Err(RecvTimeoutError::Disconnected) => return,
            }
            wake = received.try_recv().map_err(|_| RecvTimeoutError::Timeout);
        }
    }
}

/// Sixteen hexadecimal digits, at random.
fn incarnation() -> String {
    format!("{:016x}", RandomState::new().hash_one(0))
}
