//! What the kernel tells of a process.

use std::fmt::Display;
use std::io;
use std::time::Duration;

use nix::errno::Errno;
use nix::time::ClockId;
use nix::unistd::Pid;

use crate::failure::{Failure, Result};

/// A process that was there when it was looked for.
#[derive(Clone, Copy, Debug)]
pub struct Process {
    pid: u32,
}

impl Process {
    /// # Errors
    /// When there is no such process.
    pub fn new(pid: u32) -> Result<Self> {
        let process = Self { pid };
        process.cpu()?;
        Ok(process)
    }

    pub fn pid(self) -> u32 {
        self.pid
    }

    /// CPU time of all its threads, the ended ones too.
    ///
    /// # Errors
    /// When it is gone, as with all that follow.
    pub fn cpu(self) -> Result<Duration> {
        // `/proc/PID/stat` has it too, but to a hundredth of a second: too coarse for what is measured in one.
        // To the clock, 0 and what is negative would be ourselves.
        let pid = i32::try_from(self.pid).ok().filter(|pid| *pid > 0).map(Pid::from_raw).ok_or(Errno::ESRCH);
        let time = pid.and_then(ClockId::pid_cpu_clock_id).and_then(ClockId::now);
        let what = format_args!("the CPU clock of process {}", self.pid);
        time.map(Duration::from).map_err(|error| unreadable(what, error.into()))
    }

    /// Resident memory.
    pub fn rss_bytes(self) -> Result<u64> {
        self.read("status", |status| field(status, "VmRSS")?.strip_suffix(" kB")?.parse().ok())
            .map(|kibibytes: u64| kibibytes << 10)
    }

    /// How many cores it may use.
    pub fn cores(self) -> Result<f64> {
        self.read("status", |status| core_count(field(status, "Cpus_allowed_list")?)).map(f64::from)
    }

    /// The name of its program, cut to 15 bytes by the kernel.
    pub fn name(self) -> Result<String> {
        self.read("comm", |comm| Some(comm.trim_end().to_owned()))
    }

    /// How many file descriptors it holds. Files that are registered with a ring alone are not among them.
    pub fn open_files(self) -> Result<u64> {
        let path = format!("/proc/{}/fd", self.pid);
        let entries = std::fs::read_dir(&path).map_err(|error| unreadable(&path, error))?;
        Ok(entries.count() as u64)
    }

    fn read<T>(self, file: &str, parse: impl FnOnce(&str) -> Option<T>) -> Result<T> {
        let path = format!("/proc/{}/{file}", self.pid);
        let text = std::fs::read_to_string(&path).map_err(|error| unreadable(&path, error))?;
        parse(&text).ok_or_else(|| unreadable(&path, io::ErrorKind::InvalidData.into()))
    }
}

fn unreadable(path: impl Display, error: io::Error) -> Failure {
    Failure::io(format_args!("read {path}"), error, "give the id of the running server as --server-pid")
}

/// The value of a line `Key:  value` of `status`.
fn field<'a>(status: &'a str, key: &str) -> Option<&'a str> {
    status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':')).map(str::trim)
}

/// How many cores a list such as `0-2,5` names.
fn core_count(ranges: &str) -> Option<u32> {
    ranges
        .split(',')
        .map(|range| {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            (last.parse::<u32>().ok()? + 1).checked_sub(first.parse().ok()?)
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_fields_are_found_by_their_whole_key() {
        let status = "Name:\tx\nVmRSSX:\t1 kB\nVmRSS:\t     123 kB\nCpus_allowed_list:\t0-1,4\n";
        assert_eq!(field(status, "VmRSS"), Some("123 kB"));
        assert_eq!(field(status, "Cpus_allowed_list").and_then(core_count), Some(3));
        assert_eq!(field(status, "Threads"), None);
    }

    #[test]
    fn core_lists_are_counted() {
        for (list, cores) in [("0", Some(1)), ("0-63", Some(64)), ("0,2,4-5", Some(4)), ("", None), ("3-1", None)]
        {
            assert_eq!(core_count(list), cores, "{list}");
        }
    }

    #[test]
    fn a_process_sees_itself_and_none_that_is_not_there() {
        let process = Process::new(std::process::id()).unwrap();
        assert!(process.cores().unwrap() >= 1.0);
        assert!(process.open_files().unwrap() >= 3);
        assert!(!process.name().unwrap().is_empty());
        let error = Process::new(u32::MAX).unwrap_err().to_string();
        assert!(error.contains("process 4294967295") && error.contains("--server-pid"), "{error}");
    }
}
