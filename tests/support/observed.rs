//! What /proc knows of a process.

use std::fs;
use std::time::Duration;

use nix::time::{ClockId, clock_getcpuclockid};
use rustix::process::Pid;

/// A process that runs.
#[derive(Clone, Copy)]
pub struct Observed(pub Pid);

impl Observed {
    fn file(self, name: &str) -> String {
        fs::read_to_string(format!("/proc/{}/{name}", self.0)).expect("it runs")
    }

    pub fn descriptors(self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.0)).expect("it runs").count()
    }

    /// The clock of the process's time on a processor, to the nanosecond.
    pub fn cpu_clock(self) -> ClockId {
        clock_getcpuclockid(nix::unistd::Pid::from_raw(self.0.as_raw_nonzero().get())).expect("it runs")
    }

    /// Time on a processor, all threads together. USER_HZ is 100.
    pub fn cpu(self) -> Duration {
        let stat = self.file("stat");
        let (_, fields) = stat.rsplit_once(") ").expect("the name is in parentheses");
        let ticks: u64 = fields.split(' ').skip(11).take(2).map(|time| time.parse::<u64>().expect("ticks")).sum();
        Duration::from_millis(10 * ticks)
    }

    /// Resident bytes.
    pub fn resident(self) -> usize {
        self.status("VmRSS:")
    }

    /// The most resident bytes since the process began.
    pub fn peak_resident(self) -> usize {
        self.status("VmHWM:")
    }

    fn status(self, field: &str) -> usize {
        let status = self.file("status");
        let value = status.lines().find_map(|line| line.strip_prefix(field)).expect("a field of every process");
        1024 * value.trim().trim_end_matches(" kB").parse::<usize>().expect("kilobytes")
    }
}
