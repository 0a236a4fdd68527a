//! What a run costs: latencies as the client sees them, CPU time on both sides.

mod latency;
mod process;

pub use latency::Latencies;
pub use process::Process;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeVal;
use rustix::time::{ClockId, clock_gettime};

use crate::failure::{Failure, Result};
use crate::report::{Client, Report, Server};

/// A core this busy has no time to spare: the rest is what sleeping and waking lose.
const BUSY: f64 = 0.9;

/// Clocks read at the beginning of what is measured.
pub struct Meter {
    began: Instant,
    client_cpu: Duration,
    server: Option<(Process, Duration)>,
}

/// What was used between a meter's start and its reading.
pub struct Usage {
    pub seconds: f64,
    pub client: Client,
    /// Its process, CPU seconds, and how many of its cores were busy, as a share.
    server: Option<(Process, f64, f64)>,
}

impl Meter {
    /// # Errors
    /// When the server's process is gone.
    pub fn start(server: Option<Process>) -> Result<Self> {
        let server = server.map(|server| Ok((server, server.cpu()?))).transpose()?;
        Ok(Self { began: Instant::now(), client_cpu: own_cpu(), server })
    }

    /// What was used since the start.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn read(&self) -> Result<Usage> {
        let seconds = self.began.elapsed().as_secs_f64().max(1e-9);
        let cpu_seconds = own_cpu().saturating_sub(self.client_cpu).as_secs_f64();
        let client = Client { cpu_seconds, busy: cpu_seconds / seconds };
        let server = self.server.map(|(process, before)| {
            let cpu_seconds = process.cpu()?.saturating_sub(before).as_secs_f64();
            Ok((process, cpu_seconds, cpu_seconds / seconds / process.cores()?))
        });
        Ok(Usage { seconds, client, server: server.transpose()? })
    }
}

impl Usage {
    /// With so many CPU seconds more of the client's, in a process that it has started.
    pub fn and_of_a_child(mut self, cpu_seconds: f64) -> Self {
        self.client.cpu_seconds += cpu_seconds;
        self.client.busy += cpu_seconds / self.seconds;
        self
    }

    /// CPU seconds of the server, if its process is known.
    pub fn server_cpu_seconds(&self) -> Option<f64> {
        self.server.map(|(_, cpu_seconds, _)| cpu_seconds)
    }

    /// Whether the client had no time to spare and the server did. Of an unknown server the second is assumed.
    fn is_client_bound(&self) -> bool {
        self.client.busy >= BUSY && self.server.is_none_or(|(_, _, busy)| busy < BUSY)
    }

    /// Everything in the form of a report.
    ///
    /// # Errors
    /// When the server's process is gone.
    #[expect(clippy::cast_precision_loss, reason = "rates are not exact")]
    pub fn report(
        &self,
        scenario: &str,
        operations: u64,
        latencies: &Latencies,
        figures: BTreeMap<String, f64>,
    ) -> Result<Report> {
        let server = self.server.map(|(process, cpu_seconds, _)| {
            let rate = if cpu_seconds > 0.0 { operations as f64 / cpu_seconds } else { 0.0 };
            Ok(Server {
                pid: process.pid(),
                cpu_seconds,
                operations_per_cpu_second: rate,
                rss_bytes: process.rss_bytes()?,
                open_files: process.open_files()?,
            })
        });
        Ok(Report {
            scenario: scenario.to_owned(),
            command: command_line(),
            seconds: self.seconds,
            operations,
            per_second: operations as f64 / self.seconds,
            latency_us: latencies.summary(),
            server: server.transpose()?,
            client: self.client,
            client_bound: self.is_client_bound(),
            figures,
            restarts: Vec::new(),
            histogram: latencies.bars(),
        })
    }
}

/// The command line, by the program's name alone.
fn command_line() -> String {
    let arguments = std::env::args().skip(1);
    std::iter::once(env!("CARGO_PKG_NAME").to_owned()).chain(arguments).collect::<Vec<_>>().join(" ")
}

/// CPU time of children that have ended and were waited for.
///
/// # Errors
/// When the kernel does not tell.
pub fn children_cpu() -> Result<Duration> {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN)
        .map_err(|error| Failure::io("ask for the CPU time of children", error.into(), "allow getrusage"))?;
    let micros = |time: TimeVal| time.tv_sec() * 1_000_000 + time.tv_usec();
    let micros = micros(usage.user_time()) + micros(usage.system_time());
    Ok(Duration::from_micros(u64::try_from(micros).expect("CPU time is not negative")))
}

/// CPU time of all threads of this process.
fn own_cpu() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::try_from(time).expect("CPU time is not negative")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_client_is_the_bottleneck_when_only_its_core_is_busy() {
        let process = Process::new(std::process::id()).unwrap();
        let is_bound = |client: f64, server: Option<f64>| {
            let client = Client { cpu_seconds: client, busy: client };
            let server = server.map(|busy| (process, busy, busy));
            Usage { seconds: 1.0, client, server }.is_client_bound()
        };
        assert!(is_bound(0.97, Some(0.6)));
        assert!(!is_bound(0.97, Some(0.99)));
        assert!(!is_bound(0.5, Some(0.5)));
        assert!(is_bound(0.97, None));
    }

    #[test]
    fn a_meter_sees_its_own_process() {
        let meter = Meter::start(Some(Process::new(std::process::id()).unwrap())).unwrap();
        let usage = meter.read().unwrap();
        let report = usage.report("lookup", 7, &Latencies::default(), BTreeMap::new()).unwrap();
        assert_eq!(report.operations, 7);
        assert_eq!(report.latency_us, None, "nothing was timed");
        assert!(report.server.unwrap().rss_bytes > 0);
    }
}
