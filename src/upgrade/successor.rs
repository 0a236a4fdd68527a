//! The old process's side.

use std::env;
use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::{self, Path, PathBuf};
use std::process::{Child, Command, ExitStatus, id};
use std::time::Duration;

use super::VARIABLE;
use super::protocol::{HandedSocket, PREPARED, RESTORED, SERVE, send};
use crate::limits::HANDOVER_PATIENCE;

/// What is started to take over.
pub struct Program {
    /// Where this program was found when it started: later there may be another one.
    path: io::Result<PathBuf>,
    /// Without the program's name.
    arguments: Vec<OsString>,
}

/// A process that is to take over.
pub struct Successor {
    child: Child,
    socket: UnixStream,
}

/// Why it did not: a line for the operator.
#[derive(Debug)]
pub enum Failure {
    /// The program's path is not known.
    NoPath(io::Error),
    /// The program cannot be started.
    Spawn(PathBuf, io::Error),
    /// It has ended; its log says why.
    Ended(Option<ExitStatus>),
    /// It is another program, or a version that this one does not understand.
    Protocol,
    /// It, or a worker of this process, takes too long.
    TimedOut(&'static str),
    /// This process was asked to stop meanwhile.
    Stopped,
    Io(io::Error),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoPath(error) => write!(f, "the program's path is not known: {error}"),
            Self::Spawn(path, error) => write!(f, "cannot start {}: {error}", path.display()),
            Self::Ended(Some(status)) => write!(f, "the new process has ended ({status}), and its log says why"),
            Self::Ended(None) => f.write_str("the new process has ended, and its log says why"),
            Self::Protocol => {
                f.write_str("the new program does not take over from this version: restart the server")
            }
            Self::TimedOut(what) => write!(f, "{what} takes too long"),
            Self::Stopped => f.write_str("the server stops"),
            Self::Io(error) => error.fmt(f),
        }
    }
}

impl Program {
    /// This program with these arguments. To be called at the start.
    #[must_use]
    pub fn new(arguments: Vec<OsString>) -> Self {
        let path = env::current_exe();
        // The kernel's path is that behind all symbolic links. One may be what an upgrade changes.
        let named = env::args_os().next().map(PathBuf::from).filter(|named| named.components().count() > 1);
        let linked = named.filter(|named| path.as_ref().is_ok_and(|path| is_same(named, path)));
        Self { path: linked.and_then(|named| path::absolute(named).ok()).map_or(path, Ok), arguments }
    }

    /// Starts it.
    pub fn start(&self) -> Result<Successor, Failure> {
        let path = self.path.as_ref().map_err(|error| Failure::NoPath(error.kind().into()))?;
        let (socket, theirs) = UnixStream::pair().map_err(Failure::Io)?;
        let mut command = Command::new(path);
        command.args(&self.arguments).stdin(OwnedFd::from(theirs)).env(VARIABLE, id().to_string());
        // It is this process's number.
        command.env_remove("WATCHDOG_PID");
        let child = command.spawn().map_err(|error| Failure::Spawn(path.clone(), error))?;
        Ok(Successor { child, socket })
    }
}

fn is_same(one: &Path, other: &Path) -> bool {
    let id = |path| fs::metadata(path).map(|found| (found.dev(), found.ino())).ok();
    id(one).is_some() && id(one) == id(other)
}

impl Successor {
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits for so long until the new process is prepared; false when it is not yet.
    pub fn is_prepared(&mut self, wait: Duration) -> Result<bool, Failure> {
        match self.expect(PREPARED, wait) {
            Err(Failure::TimedOut(_)) => Ok(false),
            result => result.map(|()| true),
        }
    }

    /// Leaves everything to the new process, and returns when it is to serve: it has all that this process had.
    pub fn leave(
        &mut self,
        sockets: &[HandedSocket],
        lock: Option<BorrowedFd<'_>>,
        state: &[u8],
        is_ready: bool,
    ) -> Result<(), Failure> {
        self.socket.set_write_timeout(Some(HANDOVER_PATIENCE)).map_err(Failure::Io)?;
        match send(&mut self.socket, sockets, lock, state, is_ready) {
            Ok(()) => {
                self.expect(RESTORED, HANDOVER_PATIENCE)?;
                self.socket.write_all(&SERVE).map_err(Self::failure)
            }
            Err(error) => Err(Self::failure(error)),
        }
    }

    /// Ends the new process, and returns why it has not taken over.
    #[must_use]
    pub fn end(mut self, failure: Failure) -> Failure {
        // The status of one that ends by itself is set before its end of the connection closes.
        let _ = self.child.kill();
        match (failure, self.child.wait()) {
            (Failure::Ended(_), status) => Failure::Ended(status.ok()),
            (failure, _) => failure,
        }
    }

    fn expect(&mut self, message: [u8; 4], wait: Duration) -> Result<(), Failure> {
        self.socket.set_read_timeout(Some(wait)).map_err(Failure::Io)?;
        let mut received = [0; 4];
        match self.socket.read_exact(&mut received) {
            Ok(()) if received == message => Ok(()),
            Ok(()) => Err(Failure::Protocol),
            Err(error) => Err(Self::failure(error)),
        }
    }

    fn failure(error: io::Error) -> Failure {
        match error.kind() {
            ErrorKind::WouldBlock | ErrorKind::TimedOut => Failure::TimedOut("the new process"),
            ErrorKind::UnexpectedEof | ErrorKind::BrokenPipe | ErrorKind::ConnectionReset => Failure::Ended(None),
            _ => Failure::Io(error),
        }
    }
}
