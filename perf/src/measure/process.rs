//! What `/proc` tells of a process (proc(5)).

use std::fmt::Display;
use std::io;
use std::time::Duration;

use rustix::param::clock_ticks_per_second;

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
        self.read("stat", cpu_ticks).map(|ticks| Duration::from_secs(ticks) / ticks_per_second())
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

fn ticks_per_second() -> u32 {
    u32::try_from(clock_ticks_per_second()).expect("the kernel's clock is at most 1 kHz")
}

/// User and system time out of `stat`, where the name comes second, in parentheses, and may hold anything.
fn cpu_ticks(stat: &str) -> Option<u64> {
    let (_, after_name) = stat.rsplit_once(')')?;
    let mut fields = after_name.split_ascii_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse::<u64>().ok();
    Some(ticks()? + ticks()?)
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
    fn cpu_time_is_found_behind_any_name() {
        let stat = "42 (a) b (c)) S 1 42 42 0 -1 4194560 900 0 7 0 123 45 6 7 20 0 3 0 1234 5678 90";
        assert_eq!(cpu_ticks(stat), Some(168));
        assert_eq!(cpu_ticks("42 (x) S 1"), None);
        assert_eq!(cpu_ticks(""), None);
    }

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
        assert!(error.contains("/proc/4294967295/stat") && error.contains("--server-pid"), "{error}");
    }
}
