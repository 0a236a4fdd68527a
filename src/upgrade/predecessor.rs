//! The new process's side.

use std::env;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::parent_id;

use super::VARIABLE;
use super::protocol::{Estate, PREPARED, SERVING, receive};
use crate::limits::{HANDOVER_PATIENCE, UPGRADE_PATIENCE};

/// The process that leaves everything to this one.
pub struct Predecessor {
    pid: u32,
    socket: UnixStream,
}

impl Predecessor {
    /// The process that has started this one to take over, if that is why it runs.
    #[must_use]
    pub fn from_env() -> Option<Self> {
        let pid = env::var(VARIABLE).ok()?.parse().ok().filter(|&pid| pid == parent_id())?;
        let socket = io::stdin().as_fd().try_clone_to_owned().ok()?;
        Some(Self { pid, socket: socket.into() })
    }

    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Says that this process is prepared, and receives what it is left.
    ///
    /// # Errors
    /// The other process has ended, or has another protocol.
    pub fn receive(&mut self) -> io::Result<Estate> {
        self.socket.set_read_timeout(Some(UPGRADE_PATIENCE))?;
        self.socket.write_all(&PREPARED)?;
        receive(&mut self.socket)
    }

    /// Says that this process serves, and waits until the other has said so to the service manager: what this process sends to it
    /// before that does not count.
    ///
    /// # Errors
    /// The other process has ended, or goes on: it did not wait for so long.
    pub fn serving(mut self) -> io::Result<()> {
        self.socket.set_read_timeout(Some(HANDOVER_PATIENCE))?;
        self.socket.write_all(&SERVING)?;
        match self.socket.read_to_end(&mut Vec::new())? {
            0 => Ok(()),
            _ => Err(io::ErrorKind::InvalidData.into()),
        }
    }
}
