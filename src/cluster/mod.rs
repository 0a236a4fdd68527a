//! Several instances that know the nsqds of all of them, through etcd.
//!
//! Each instance writes what its own nsqds have registered, and puts what the others have written into its registry, from which it
//! answers as ever: no request waits for another machine. Without `-cluster` nothing of this runs.
//!
//! - What is written, and where: `keys`, `record`.
//! - What is asked of etcd: `store`, and over the network: `etcd`.
//! - What an instance does: `member`, with its `lease`, how it does `follow` etcd, its `outbox` of what it writes, and the `mirror` of
//!   what the others have written; `notes` is how it learns what changes here, `nodes` which of two producers of one node is listed,
//!   `registered` what the registry has of them.
//! - Its thread: `thread`; what others see of it: `status`.

pub mod etcd;
mod follow;
pub mod keys;
mod lease;
pub mod member;
mod mirror;
mod nodes;
pub mod notes;
mod outbox;
pub mod record;
mod registered;
mod status;
pub mod store;
mod thread;

use std::time::Duration;

use self::etcd::{ClusterAddress, EtcdFiles};
pub use self::status::Status;
pub use self::thread::{Cluster, Plan};

/// What an operator sets of the cluster.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ClusterOptions {
    /// Where etcd is; without, there is no cluster.
    pub address: Option<ClusterAddress>,
    /// What the others call this instance.
    pub node: String,
    /// When it has been cut off for so long, producers of others are not listed any more; zero is never.
    pub stale: Duration,
    pub files: EtcdFiles,
}

impl Default for ClusterOptions {
    fn default() -> Self {
        let node = rustix::system::uname().nodename().to_string_lossy().into_owned();
        Self { address: None, node, stale: Duration::ZERO, files: EtcdFiles::default() }
    }
}
