//! Several instances that know the nsqds of all of them, through etcd.
//!
//! Each instance writes what its own nsqds have registered, and puts what the others have written into its registry, from which it
//! answers as ever: whoever asks waits for nobody. Without `-cluster` nothing of this runs.
//!
//! - What is written, and where: `keys`, `record`.
//! - What is asked of etcd: `store`, and over the network: `etcd`.
//! - What an instance does: `member`, with its `lease`, its `outbox` of what it writes, and the `mirror` of what the others have
//!   written; `notes` is how it learns what changes here, `nodes` which of two producers of one node is listed.

pub mod etcd;
pub mod keys;
mod lease;
pub mod member;
mod mirror;
mod nodes;
pub mod notes;
mod outbox;
pub mod record;
pub mod status;
pub mod store;
