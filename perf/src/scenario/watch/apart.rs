//! Lookups by a process of their own: in this one they would wait behind the events that watchers receive.

use std::fs::File;
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::Context;
use crate::failure::{Failure, Result};
use crate::population::Population;
use crate::report::Report;

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

/// A process that is stopped when it is waited for no more.
struct Asking(Child);

impl Drop for Asking {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Apart {
    /// Asks for that time, and returns the report of it; `None` when a signal has ended it.
    ///
    /// # Errors
    /// A wrong answer, of which the process has said more, or no process.
    pub async fn ask(self, context: &Context) -> Result<Option<Report>> {
        let Self { population: Population { producers, topics_per_producer, topics, channels }, .. } = self;
        let failed = |error| Failure::io("start lookups in a process of their own", error, "mount /proc");
        let mut command = Command::new(std::env::current_exe().map_err(failed)?);
        command.args(["lookup", "--json", "--tcp", &context.tcp.to_string(), "--http", &context.http.to_string()]);
        if cfg!(debug_assertions) {
            command.arg("--allow-debug");
        }
        command.args(["--timeout", &humantime::format_duration(context.patience).to_string()]);
        command.args(["--run", context.run.id(), "--keep", "--seed", &self.seed.to_string()]);
        command.args(["--producers", &producers.to_string(), "--topics", &topics.to_string()]);
        command.args([
            "--topics-per-producer",
            &topics_per_producer.to_string(),
            "--channels",
            &channels.to_string(),
        ]);
        command.args(["--rate", &self.rate.to_string(), "--connections", &self.connections.to_string()]);
        command.args(["--for", &humantime::format_duration(self.time).to_string()]);
        // A group of its own: Ctrl-C is for this process.
        command.stdin(Stdio::null()).stdout(Stdio::piped()).process_group(0);
        let mut asking = Asking(command.spawn().map_err(failed)?);
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
