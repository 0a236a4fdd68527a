//! Both ways into the kernel, with queues so small that everything that is rare becomes the rule: the ring's
//! completion queue overflows, its submission queue is full, its receive buffers are out; epoll takes two edges and
//! two connections a turn.
//!
//! The tests play the worker's part with as little as each property needs, and take turns, because they count
//! the process's descriptors.

#[path = "../support/both_drivers.rs"]
#[macro_use]
mod both_drivers;

mod accepting;
mod echo;
mod ending;
mod harness;
mod receiving;
mod sending;
mod waking;
