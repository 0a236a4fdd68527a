//! The runtime of the scenarios: tokio-uring on a ring that suits many thousand connections.

use std::mem::ManuallyDrop;

use crate::failure::{Failure, Result};

/// Submissions of one turn; more than that only leave earlier.
const ENTRIES: u32 = 4096;
/// Completions that wait: one for each of many thousand connections.
const COMPLETIONS: u32 = 1 << 15;

/// Runs `work` on a ring of its own. What it leaves under way is the kernel's until the process ends.
///
/// # Errors
/// When the kernel has no such ring.
///
/// # Panics
/// When `work` does.
// Futures of tokio-uring 0.5 may be dropped at any time, as timeouts, select! and aborted tasks do: an operation owns
// its buffer and a share of its socket on the heap, and when dropped early hands both to the driver, which keeps them
// until the completion. Only the driver itself frees those before it cancels, while the kernel may still write to
// them. So it is never dropped, by a panic neither.
pub fn run<T>(work: impl Future<Output = T>) -> Result<T> {
    let mut ring = tokio_uring::uring_builder();
    // One thread submits, and what the kernel has to do for it waits until it calls, instead of interrupting it.
    ring.setup_single_issuer().setup_coop_taskrun().setup_cqsize(COMPLETIONS);
    let mut builder = tokio_uring::builder();
    builder.entries(ENTRIES).uring_builder(&ring);
    let runtime = tokio_uring::Runtime::new(&builder).map_err(|error| {
        Failure::io("set up an io_uring", error, "the kernel must be 6.0 or newer and kernel.io_uring_disabled 0")
    })?;
    Ok(ManuallyDrop::new(runtime).block_on(work))
}
