//! A ring before it serves: set up, and proven by use.

use std::io;

use io_uring::{IoUring, Probe, opcode};

use super::availability::{Call, NoRing};
use super::buffers::BufferRing;
use super::uring::Sizes;

/// A ring that works. To be made on the thread that uses it (SINGLE_ISSUER).
pub struct IdleRing {
    // Dropped first: the kernel releases the buffers when the ring is closed.
    pub(super) uring: IoUring,
    pub(super) buffers: BufferRing,
}

impl IdleRing {
    /// Sets up a ring, and makes each of the three system calls that it needs: a sandbox may forbid any of them.
    pub fn new(sizes: Sizes, busy_poll: bool) -> Result<Self, NoRing> {
        let mut uring = set_up(sizes, busy_poll).map_err(Call::Setup.failed())?;
        let buffers = register(&uring, sizes).map_err(Call::Register.failed())?;
        enter(&mut uring).map_err(Call::Enter.failed())?;
        Ok(Self { uring, buffers })
    }
}

fn set_up(sizes: Sizes, busy_poll: bool) -> io::Result<IoUring> {
    let mut builder = IoUring::builder();
    builder.setup_cqsize(sizes.completions).setup_submit_all();
    let plain = builder.clone();
    builder.setup_single_issuer().setup_defer_taskrun();
    if busy_poll {
        builder.setup_taskrun_flag();
    }
    builder.build(sizes.submissions).or_else(|error| match error.raw_os_error() {
        Some(libc::EINVAL) => plain.build(sizes.submissions),
        _ => Err(error),
    })
}

#[expect(unsafe_code, reason = "the kernel is given memory")]
fn register(uring: &IoUring, sizes: Sizes) -> io::Result<BufferRing> {
    // Multishot receives cannot be asked for; this operation is as old as they are (6.0).
    let mut probe = Probe::new();
    uring.submitter().register_probe(&mut probe)?;
    if !probe.is_supported(opcode::SendZc::CODE) {
        return Err(io::ErrorKind::Unsupported.into());
    }
    // SAFETY: the buffers are dropped with the ring: unused in an `IdleRing`, and in a `Ring` after its drop has
    // cancelled every request.
    unsafe { BufferRing::register(uring, sizes.receive_buffers, sizes.receive_buffer_bytes) }
}

/// Submits an operation that does nothing, and waits for its completion.
fn enter(uring: &mut IoUring) -> io::Result<()> {
    push_nop(uring);
    while let Err(error) = uring.submit_and_wait(1) {
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
    assert_eq!(uring.completion().count(), 1, "one operation was submitted");
    Ok(())
}

#[expect(unsafe_code, reason = "a submission can hold pointers")]
fn push_nop(uring: &mut IoUring) {
    // SAFETY: this one holds none.
    unsafe { uring.submission().push(&opcode::Nop::new().build()) }.expect("the queue is empty");
}
