//! Wakes a worker that waits in its backend, from any thread.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{EventfdFlags, eventfd};
use rustix::io::{Errno, read, retry_on_intr, write};

/// An eventfd that the worker's backend polls. A wake-up is an [`Event::Woken`](super::Event::Woken), several at once may
/// be one; one that comes before the worker waits ends its next wait.
#[derive(Debug)]
pub struct Waker(OwnedFd);

impl Waker {
    pub fn new() -> io::Result<Self> {
        Ok(Self(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?))
    }

    /// Wakes the worker.
    ///
    /// # Panics
    /// Never: an eventfd takes every addition for which its counter has room.
    pub fn wake(&self) {
        match retry_on_intr(|| write(&self.0, &1_u64.to_ne_bytes())) {
            // The counter is at its end: the worker is being woken already.
            Ok(_) | Err(Errno::AGAIN) => {}
            Err(error) => panic!("an eventfd that cannot be written: {error}"),
        }
    }

    /// Notes that the worker is awake: only what wakes it after this wakes it again. Whether anything has woken it.
    pub fn reset(&self) -> bool {
        retry_on_intr(|| read(&self.0, &mut [0; size_of::<u64>()])).is_ok()
    }
}

impl AsFd for Waker {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
