//! The new process's side.

use std::env;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::parent_id;

use super::VARIABLE;
use super::protocol::{Estate, PREPARED, RESTORED, SERVE, receive};
use rustix::stdio::dup2_stdin;

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
        dup2_stdin(File::open("/dev/null").ok()?).ok()?;
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

    /// Says that this process has that, and waits until it is to serve.
    ///
    /// # Errors
    /// The other process has ended, or goes on.
    pub fn restored(&mut self) -> io::Result<()> {
        self.socket.set_read_timeout(Some(HANDOVER_PATIENCE))?;
        self.socket.write_all(&RESTORED)?;
        let mut received = [0; 4];
        self.socket.read_exact(&mut received)?;
        if received == SERVE { Ok(()) } else { Err(io::ErrorKind::InvalidData.into()) }
    }

    /// Waits until the other process has said to the service manager that this one is the main process: what this process sends to
    /// it before that does not count. Nothing else depends on it.
    pub fn wait_to_be_main(mut self) {
        let _ = self.socket.read_to_end(&mut Vec::new());
    }
}
