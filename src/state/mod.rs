//! The registry on disk, so that a restart loses nothing.
//!
//! A folder holds the last [`Saved`](crate::registry::Saved) of the registry and the one before. A server takes the folder at
//! its start with [`Folder::open`], whose lock refuses a second one, and reads it with [`Folder::read`].
//!
//! - [`format`]: the bytes of a state, and [`decode`]; `check`: what the registry can rely on when they were read.
//! - `stamp`: that the process was alive, and how silent each producer was.
//! - `folder`: the files of a folder, the order in which they are written, and which is read; `files`: the operations on
//!   them, as a trait, so that tests can fail at each; `lock`: the folder's lock.
//!
//! After a crash or a loss of power the folder has the state of the last write that was completed, or the one that was
//! being written: `tests/state` ends the process at every operation. A file that cannot be used is renamed, never removed.

mod check;
mod files;
mod folder;
pub mod format;
mod lock;
mod stamp;

pub use files::{Disk, Files};
pub use folder::{Folder, PREVIOUS, Restored, STAMP, STATE};
pub use format::{Decoded, Encoder, FormatError, Written, decode, encode};
pub use lock::{FolderError, LOCK, Lock};
pub use stamp::Stamp;
