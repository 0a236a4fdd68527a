//! The lock of a folder: two processes that write the same files would take turns at losing each other's state.
//!
//! It is a `flock` of `nsqlookupd.lock`, which the kernel releases when the last descriptor of it closes, however the process
//! ends. The descriptor can be given to another process, which then holds the lock too: the folder changes hands without a
//! moment in which a third one could take it. The file has the number of the process that took the lock last, for the operator.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Seek, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::{fmt, fs, process};

use rustix::fs::{FlockOperation, flock};

/// The lock's file.
pub const LOCK: &str = "nsqlookupd.lock";

/// Held until it is dropped, here and in every process that its descriptor was given to.
#[derive(Debug)]
pub struct Lock(File);

/// Why a folder cannot be used.
#[derive(Debug)]
pub enum FolderError {
    /// There is no such folder.
    Missing(PathBuf),
    /// Another process has it, whose number the lock's file says.
    Taken(PathBuf, Option<u32>),
    /// What was handed over is not the lock of this folder.
    OtherLock(PathBuf),
    Io(PathBuf, io::Error),
}

impl fmt::Display for FolderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing(path) => {
                write!(f, "{}: no such folder; make it, for the server's user alone", path.display())
            }
            Self::Taken(path, pid) => {
                write!(f, "{}: another server", path.display())?;
                pid.map_or(Ok(()), |pid| write!(f, " (process {pid})"))?;
                f.write_str(" uses this folder; stop it, or give this one a folder of its own")
            }
            Self::OtherLock(path) => {
                write!(f, "{}: the lock that was handed over is not that of this folder", path.display())
            }
            Self::Io(path, error) => write!(f, "{}: {error}", path.display()),
        }
    }
}

impl std::error::Error for FolderError {}

impl Lock {
    /// Takes the lock of a folder, or fails at once.
    pub fn take(folder: &Path) -> Result<Self, FolderError> {
        let path = folder.join(LOCK);
        Self::new(folder, open(&path).map_err(|error| io_error(&path, error))?)
    }

    /// The lock of a folder that another process holds and has handed over.
    pub fn inherit(folder: &Path, lock: OwnedFd) -> Result<Self, FolderError> {
        let (path, file) = (folder.join(LOCK), File::from(lock));
        let same = file.metadata().and_then(|held| Ok(id(&held) == id(&fs::metadata(&path)?)));
        if !same.map_err(|error| io_error(&path, error))? {
            return Err(FolderError::OtherLock(folder.to_owned()));
        }
        Self::new(folder, file)
    }

    fn new(folder: &Path, file: File) -> Result<Self, FolderError> {
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {
                // For the operator. On a full or read-only disk the lock is as good without.
                let _ = write_pid(&file);
                Ok(Self(file))
            }
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let text = fs::read_to_string(folder.join(LOCK)).unwrap_or_default();
                Err(FolderError::Taken(folder.to_owned(), text.trim().parse().ok()))
            }
            Err(error) => Err(io_error(&folder.join(LOCK), error.into())),
        }
    }
}

/// To hand over.
impl AsFd for Lock {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl From<Lock> for OwnedFd {
    fn from(lock: Lock) -> Self {
        lock.0.into()
    }
}

fn open(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).custom_flags(libc::O_NOFOLLOW).mode(0o600);
    match options.clone().write(true).create(true).truncate(false).open(path) {
        // What is in the folder can be read all the same.
        Err(error) if error.kind() == ErrorKind::ReadOnlyFilesystem => options.open(path),
        result => result,
    }
}

fn write_pid(mut file: &File) -> io::Result<()> {
    file.set_len(0)?;
    file.rewind()?;
    writeln!(file, "{}", process::id())
}

/// What no two files of a machine have.
fn id(metadata: &fs::Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}

fn io_error(path: &Path, error: io::Error) -> FolderError {
    FolderError::Io(path.to_owned(), error)
}
