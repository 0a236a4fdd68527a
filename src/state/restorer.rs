//! A state on its way into a registry.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use super::folder::{Folder, Restored};
use super::format::{FormatError, decode};
use super::lock::FolderError;
use crate::change_log;
use crate::clock::{Clock, wall};
use crate::limits::{BIND_PATIENCE, BIND_PAUSE};
use crate::log::Log;
use crate::registry::{Change, Registry, Restore};
use crate::retry::retry;

/// Puts what another process, or an earlier one, had into an empty registry.
pub struct Restorer<'a> {
    pub registry: &'a Registry,
    /// For so long its producers are expected back.
    pub grace: Duration,
    pub clock: &'a Clock,
    pub log: &'a Log,
}

impl Restorer<'_> {
    /// Restores what a folder holds, and returns for how long nobody kept it; `None` where there is nothing.
    #[must_use]
    pub fn restore(&self, folder: &mut Folder) -> Option<Duration> {
        apart(|| folder.read(wall(), self.log).map(|restored| self.apply(restored)))
    }

    /// The same with the bytes of a state.
    ///
    /// # Errors
    /// They are none that can be used.
    pub fn restore_bytes(&self, bytes: Vec<u8>) -> Result<Duration, FormatError> {
        apart(|| {
            let decoded = decode(&bytes)?;
            drop(bytes);
            Ok(self.apply(Restored { saved: decoded.saved, wall: decoded.wall }))
        })
    }

    fn apply(&self, restored: Restored) -> Duration {
        let (now, gone) = (self.clock.now(), restored.gone(wall()));
        let restore = Restore { saved: restored.saved, gone, grace_end: now.after(self.grace) };
        let change = Change::Restore(Box::new(restore));
        let outcome = self.registry.commit(|writer| writer.apply(&change, now));
        change_log::write(&change, &outcome, self.log);
        gone
    }
}

/// In a thread that ends with it: the allocator returns what it used in between, which is as much as the registry, to the system.
fn apart<T: Send>(restore: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| scope.spawn(restore).join().expect("it does not panic"))
}

/// Takes the folder of the state, with its lock where another process has handed that over.
///
/// # Errors
/// There is no such folder, or another process has it.
pub fn open(path: &str, lock: Option<OwnedFd>) -> Result<Folder, FolderError> {
    let path = Path::new(path);
    match lock.map(|lock| Folder::inherit(path, lock)) {
        // The path has changed in between.
        None | Some(Err(FolderError::OtherLock(_))) => {
            // The server before may still be ending, as for a port.
            let passes = |error: &FolderError| matches!(error, FolderError::Taken(..));
            retry(Instant::now() + BIND_PATIENCE, BIND_PAUSE, passes, || Folder::open(path))
        }
        Some(result) => result,
    }
}
