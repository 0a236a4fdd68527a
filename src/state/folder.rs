//! The folder of a server's state: which files are in it, and in which order they are written and read.
//!
//! | file | content |
//! | --- | --- |
//! | `nsqlookupd.state` | the last state |
//! | `nsqlookupd.state.prev` | the one before |
//! | `nsqlookupd.stamp` | that the process was alive, see `stamp` |
//! | `nsqlookupd.lock` | see `lock` |
//! | `*.tmp` | what was being written |
//! | `*.corrupt-SECONDS`, `*.newer-vVERSION-SECONDS` | what could not be used when it was read, at this Unix time |
//!
//! A file is written beside the one that it replaces, synced, and renamed. At every moment one of the first two is a whole
//! state, and both are but for the moment between two renames. The names are synced before a write counts as done, so that
//! a loss of power undoes none that does.

use std::fmt;
use std::io::{self, ErrorKind, Write};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use super::files::{Disk, Files};
use super::format::{Decoded, Encoder, FormatError, Written, decode};
use super::lock::{FolderError, Lock};
use super::stamp::Stamp;
use crate::log::Log;
use crate::registry::Saved;

/// The last state.
pub const STATE: &str = "nsqlookupd.state";
/// The one before.
pub const PREVIOUS: &str = "nsqlookupd.state.prev";
/// The sign of life.
pub const STAMP: &str = "nsqlookupd.stamp";
const STATE_TEMPORARY: &str = "nsqlookupd.state.tmp";
const STAMP_TEMPORARY: &str = "nsqlookupd.stamp.tmp";

/// A folder that this process alone uses.
pub struct Folder<F = Disk> {
    files: F,
    /// None in tests.
    lock: Option<Lock>,
    /// Files that cannot be used and could not be renamed.
    unsettled: Vec<Unsettled>,
}

/// What is to be renamed before anything can take its name.
struct Unsettled {
    name: &'static str,
    aside: String,
}

/// What a folder held.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Restored {
    pub saved: Saved,
    /// When it was known to be so for the last time, since the Unix epoch: the times in `saved` are those of this moment.
    pub wall: Duration,
}

impl Restored {
    /// How long nobody was there to see it, by a system's clock that may have been set meanwhile.
    pub fn gone(&self, wall: Duration) -> Duration {
        wall.saturating_sub(self.wall)
    }
}

impl Folder {
    /// Takes a folder that exists.
    pub fn open(path: &Path) -> Result<Self, FolderError> {
        Self::locked(path, || Lock::take(path))
    }

    /// Takes the folder of another process that has handed over its lock.
    pub fn inherit(path: &Path, lock: OwnedFd) -> Result<Self, FolderError> {
        Self::locked(path, || Lock::inherit(path, lock))
    }

    fn locked(path: &Path, lock: impl FnOnce() -> Result<Lock, FolderError>) -> Result<Self, FolderError> {
        let disk = Disk::open(path).map_err(|error| match error.kind() {
            ErrorKind::NotFound => FolderError::Missing(path.to_owned()),
            _ => FolderError::Io(path.to_owned(), error),
        })?;
        let lock = lock()?;
        Ok(Self { lock: Some(lock), ..Self::with(disk) })
    }

    /// To hand over.
    pub fn lock(&self) -> Option<&Lock> {
        self.lock.as_ref()
    }
}

impl<F: Files> Folder<F> {
    /// Without a lock. What a process that was killed has left unfinished is removed, and the names that it has left are
    /// synced, so that what is read from now on is what a loss of power would leave.
    pub fn with(mut files: F) -> Self {
        // Where nothing can be written, the first write says so.
        for name in [STATE_TEMPORARY, STAMP_TEMPORARY] {
            let _ = files.remove(name);
        }
        let _ = files.sync_folder();
        Self { files, lock: None, unsettled: Vec::new() }
    }

    pub fn path(&self) -> &Path {
        self.files.path()
    }

    /// Reads the last state, or the one before if that cannot be used. A file that cannot be used is renamed, never
    /// removed.
    pub fn read(&mut self, wall: Duration, log: &Log) -> Option<Restored> {
        let mut is_empty = true;
        for name in [STATE, PREVIOUS] {
            let why = match self.files.read(name) {
                Ok(bytes) => match decode(&bytes) {
                    Ok(decoded) => return Some(self.stamped(decoded)),
                    Err(error) => Unusable::Format(error),
                },
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                Err(error) => Unusable::Io(error),
            };
            is_empty = false;
            self.set_aside(name, &why, wall, log);
        }
        if !is_empty {
            let path = self.path().display();
            log.warn(format_args!("no state in {path} can be used: the server starts without one"));
        }
        None
    }

    /// A state as of the last sign of life.
    fn stamped(&mut self, Decoded { wall, checksum, mut saved }: Decoded) -> Restored {
        let stamp = self.files.read(STAMP).ok().and_then(|bytes| Stamp::decode(&bytes));
        let is_of_it = |stamp: &Stamp| stamp.state == checksum && stamp.silences.len() == saved.producers.len();
        let Some(stamp) = stamp.filter(is_of_it) else { return Restored { saved, wall } };
        for (producer, silence) in saved.producers.iter_mut().zip(stamp.silences) {
            producer.silence = silence;
        }
        saved.age(stamp.wall.saturating_sub(wall));
        Restored { saved, wall: stamp.wall }
    }

    fn set_aside(&mut self, name: &'static str, why: &Unusable, wall: Duration, log: &Log) {
        let kind = match why {
            Unusable::Format(FormatError::Newer(version)) => format!("newer-v{version}"),
            _ => "corrupt".to_owned(),
        };
        let aside = format!("{name}.{kind}-{}", wall.as_secs());
        let moved = self.move_aside(name, &aside);
        let path = self.path().display();
        match &moved {
            Ok(aside) => {
                log.warn(format_args!("{path}/{name} cannot be used - {why}; it is kept as {aside}"));
            }
            Err(error) => log.warn(format_args!(
                "{path}/{name} cannot be used - {why}; nothing is written until it can be renamed to {aside} - {error}"
            )),
        }
        if moved.is_err() {
            self.unsettled.push(Unsettled { name, aside });
        }
    }

    /// Renames what cannot be used to a name that is free, and returns it. The new name reaches the disk before anything
    /// takes the old one.
    fn move_aside(&mut self, name: &str, wanted: &str) -> io::Result<String> {
        let mut aside = wanted.to_owned();
        let mut nth = 1;
        while self.files.exists(&aside)? {
            nth += 1;
            aside = format!("{wanted}-{nth}");
        }
        optional(self.files.rename(name, &aside))?;
        self.files.sync_folder()?;
        Ok(aside)
    }

    fn settle(&mut self) -> io::Result<()> {
        while let Some(Unsettled { name, aside }) = self.unsettled.pop() {
            if let Err(error) = self.move_aside(name, &aside) {
                self.unsettled.push(Unsettled { name, aside });
                return Err(error);
            }
        }
        Ok(())
    }

    /// Writes a state that is taken at this time; the one that was there becomes the previous one.
    pub fn write<T>(
        &mut self,
        wall: Duration,
        save: impl FnOnce(&mut Encoder<'_>) -> io::Result<T>,
    ) -> io::Result<(Written, T)> {
        self.settle()?;
        let written = self.write_temporary(STATE_TEMPORARY, |file| {
            let mut encoder = Encoder::new(file, wall)?;
            let saved = save(&mut encoder)?;
            Ok((encoder.finish()?, saved))
        })?;
        optional(self.files.rename(STATE, PREVIOUS))?;
        self.files.rename(STATE_TEMPORARY, STATE)?;
        self.files.sync_folder()?;
        Ok(written)
    }

    /// Writes a stamp.
    pub fn stamp(&mut self, stamp: &[u8]) -> io::Result<()> {
        self.write_temporary(STAMP_TEMPORARY, |file| file.write_all(stamp))?;
        self.files.rename(STAMP_TEMPORARY, STAMP)?;
        self.files.sync_folder()
    }

    /// A file that is whole and on the disk when this returns. What failed takes no room of a disk that is full.
    fn write_temporary<T>(
        &mut self,
        name: &str,
        write: impl FnOnce(&mut F::File) -> io::Result<T>,
    ) -> io::Result<T> {
        let mut file = self.files.create(name)?;
        let written = write(&mut file).and_then(|written| self.files.sync(&mut file).map(|()| written));
        if written.is_err() {
            let _ = self.files.remove(name);
        }
        written
    }
}

/// Why a file cannot be used.
enum Unusable {
    Format(FormatError),
    Io(io::Error),
}

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Format(error) => error.fmt(f),
            Self::Io(error) => error.fmt(f),
        }
    }
}

/// What is not there need not be renamed.
fn optional(renamed: io::Result<()>) -> io::Result<()> {
    match renamed {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        result => result,
    }
}
