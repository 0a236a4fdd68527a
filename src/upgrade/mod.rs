//! Another process takes over, without a refused connection and without a lookup that lacks a producer: the old one starts the
//! program on the disk (which a package upgrade has replaced, say) and leaves to it its listening sockets and the registry.
//!
//! ```text
//! old                                     new
//! starts the program                 -->  reads settings, starts its threads
//!                                    <--  prepared
//! pauses its workers: nothing is accepted, received or changed
//! sockets, lock, registry            -->  restores the registry
//!                                    <--  restored
//! serve                              -->  accepts
//! ends its connections                    is the main process from now on
//! ```
//!
//! Until it has sent `serve` the old process can go on as if nothing had happened, whatever fails, and the new one has accepted
//! nothing.
//!
//! - `pause`: where the workers wait. `protocol`: what the two say to each other, and the sockets that go along.
//! - `successor`: the old process's side. `predecessor`: the new process's side.

mod pause;
mod predecessor;
mod protocol;
mod successor;

pub use pause::{Decision, Pause};
pub use predecessor::Predecessor;
pub use protocol::{Estate, HandedSocket};
pub use successor::{Failure, Program, Successor};

/// In the environment of a process that is to take over: the number of the process that started it. Its standard input is the
/// socket between the two.
const VARIABLE: &str = "RINGLOOKUPD_UPGRADE";
