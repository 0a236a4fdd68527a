//! What the kernel knows of the process. Where /proc does not tell, the metric is absent.

use std::fs;
use std::time::Duration;

use rustix::process::{Resource, getrlimit};
use rustix::time::{ClockId, clock_gettime};

use crate::clock::wall;

/// When the process started, as near as it can say itself.
pub(super) struct Started(Duration);

impl Default for Started {
    fn default() -> Self {
        Self(wall())
    }
}

impl Started {
    /// Seconds since the Unix epoch.
    pub(super) fn seconds(&self) -> f64 {
        self.0.as_secs_f64()
    }
}

/// User and system time of all threads.
#[expect(clippy::cast_precision_loss, reason = "seconds with fractions")]
pub(super) fn cpu_seconds() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// Bytes of memory that are resident, and of address space.
pub(super) fn memory() -> Option<[u64; 2]> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let bytes = |name: &str| {
        let kilobytes = status.lines().find_map(|line| line.strip_prefix(name))?.trim().strip_suffix(" kB")?;
        kilobytes.parse::<u64>().ok()?.checked_mul(1024)
    };
    Some([bytes("VmRSS:")?, bytes("VmSize:")?])
}

/// How many files are open. The kernel tells as the folder's size since Linux 6.2; before, they are counted.
pub(super) fn open_files() -> Option<u64> {
    match fs::metadata("/proc/self/fd").ok()?.len() {
        // One of them is the folder.
        0 => fs::read_dir("/proc/self/fd").ok().map(|open| open.count() as u64 - 1),
        open => Some(open),
    }
}

/// How many may be open; none where there is no limit.
pub(super) fn open_files_max() -> Option<u64> {
    getrlimit(Resource::Nofile).current
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_process_has_used_something_of_everything() {
        let [resident, virtual_memory] = memory().expect("/proc is there");
        assert!(resident > 0 && virtual_memory > resident && cpu_seconds() > 0.0);
        let (open, max) = (open_files().expect("/proc is there"), open_files_max().unwrap_or(u64::MAX));
        assert!((3..=max).contains(&open), "{open} of {max}");
    }
}
