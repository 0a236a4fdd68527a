//! Lookups by a process of their own: in this one they would wait behind the events that watchers receive.

use std::fs::File;
use std::io::Read;
use std::process::Stdio;
use std::time::Duration;

use super::Context;
use crate::failure::{Failure, Result};
use crate::population::Population;
use crate::report::Report;
use crate::scenario::again::{self, Running};

/// What they ask, and how often.
#[derive(Clone, Copy)]
pub struct Apart {
    pub population: Population,
    /// Lookups a second.
    pub rate: f64,
    pub connections: u32,
    pub seed: u64,
    pub time: Duration,
}

/// From one look at the process to the next.
const POLL: Duration = Duration::from_millis(5);

impl Apart {
    /// Asks for that time, and returns the report of it; `None` when a signal has ended it.
    ///
    /// # Errors
    /// A wrong answer, of which the process has said more, or no process.
    pub async fn ask(self, context: &Context) -> Result<Option<Report>> {
        let failed =
            |error| Failure::io("wait for lookups in a process of their own", error, "leave it to this process");
        let mut command = again::command(context, "lookup", self.population)?;
        command.args(["--json", "--timeout", &humantime::format_duration(context.patience).to_string()]);
        command.args(["--seed", &self.seed.to_string()]);
        command.args(["--rate", &self.rate.to_string(), "--connections", &self.connections.to_string()]);
        command.args(["--for", &humantime::format_duration(self.time).to_string()]);
        let mut asking = Running::start(command.stdout(Stdio::piped()))?;
        let status = loop {
            if let Some(status) = asking.0.try_wait().map_err(failed)? {
                break status;
            }
            if context.is_stopped_within(POLL).await {
                return Ok(None);
            }
        };
        let mut text = String::new();
        let output = asking.0.stdout.take().map(|output| File::from(std::os::fd::OwnedFd::from(output)));
        output.map(|mut output| output.read_to_string(&mut text)).transpose().map_err(failed)?;
        if !status.success() {
            return Err(Failure::Refused(format!("the lookups have failed, {status}")));
        }
        serde_json::from_str(&text)
            .map(Some)
            .map_err(|error| Failure::Refused(format!("the report of the lookups: {error}")))
    }
}
