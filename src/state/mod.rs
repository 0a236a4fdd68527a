//! The registry on disk, so that a restart loses nothing.
//!
//! A folder (`-data-path`) holds the last [`Saved`](crate::registry::Saved) of the registry and the one before. A server
//! takes the folder at its start and reads it:
//!
//! ```text
//! let mut folder = open(path, None)?;               // its lock: a second server is refused
//! let gone = restorer.restore(&mut folder);         // into an empty registry; for how long nobody kept it
//! let saver = Saver::start(folder, source, ...)?;   // a thread that writes what changes
//! ```
//!
//! and at its end writes once more with [`Saver::finish`], or leaves the folder to another process with
//! [`Saver::hand_over`], whose [`Folder::lock`] has the descriptor that goes there; that process takes it with
//! [`Folder::inherit`]. What has to be saved comes from a [`Source`], which gives one snapshot of the registry to an
//! [`Encoder`], record by record: writing takes no memory in proportion to the registry, and no lock.
//!
//! - [`mod@format`]: the bytes of a state, and [`decode`]; `check`: what the registry can rely on when they were read.
//! - `stamp`: that the process was alive, and how silent each producer was.
//! - `folder`: the files of a folder, the order in which they are written, and which is read; `files`: the operations on
//!   them, as a trait, so that tests can fail at each; `lock`: the folder's lock.
//! - `writer`: when something is written, and what happens when that fails; `saver`: the thread that does it; `source`: the
//!   registry as what it writes.
//! - `restorer`: a state on its way into a registry, from a folder or from another process.
//!
//! After a crash or a loss of power the folder has the state of the last write that was completed, or the one that was
//! being written: `tests/state` ends the process at every operation. A file that cannot be used is renamed, never removed.

mod check;
mod files;
mod folder;
pub mod format;
mod lock;
mod restorer;
mod saver;
mod source;
mod stamp;
mod writer;

pub use files::{Disk, Files};
pub use folder::{Folder, PREVIOUS, Restored, STAMP, STATE};
pub use format::{Decoded, Encoder, FormatError, Written, decode, encode};
pub use lock::{FolderError, LOCK, Lock};
pub use restorer::{Restorer, open};
pub use saver::Saver;
pub use source::RegistrySource;
pub use stamp::Stamp;
pub use writer::{Moment, Source, Time, Writer};
