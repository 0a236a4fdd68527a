//! This program once more, in a process of its own: another scenario with a population, at the same server.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

use super::Context;
use crate::failure::{Failure, Result};
use crate::population::Population;

/// A process that is ended when this is dropped.
pub struct Running(pub Child);

impl Running {
    /// # Errors
    /// When the process cannot be started.
    pub fn start(command: &mut Command) -> Result<Self> {
        command.spawn().map(Self).map_err(not_started)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // One that has ended is not killed again.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A scenario on topics of the same run, which this process deletes.
///
/// # Errors
/// When this program cannot be found.
pub fn command(context: &Context, scenario: &str, population: Population) -> Result<Command> {
    let mut command = Command::new(std::env::current_exe().map_err(not_started)?);
    command.arg(scenario);
    if cfg!(debug_assertions) {
        command.arg("--allow-debug");
    }
    command.args(["--tcp", &context.tcp.to_string(), "--http", &context.http.to_string()]);
    command.args(["--run", context.run.id(), "--keep"]).args(population.arguments());
    // A group of its own: Ctrl-C is for this process.
    command.stdin(Stdio::null()).process_group(0);
    Ok(command)
}

fn not_started(error: io::Error) -> Failure {
    Failure::io("start this program again", error, "mount /proc and see ulimit -u")
}
