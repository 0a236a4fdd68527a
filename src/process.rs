//! What the process has of the system: signals, open files, cores.

use std::os::unix::net::UnixStream;
use std::time::Duration;
use std::{fs, io};

use nix::sys::signal::SigSet;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, setrlimit};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use signal_hook::consts::{
    SIGALRM, SIGHUP, SIGINT, SIGIO, SIGPROF, SIGTERM, SIGUSR1, SIGUSR2, SIGVTALRM, SIGXCPU, SIGXFSZ,
};
use signal_hook::iterator::backend::SignalDelivery;
use signal_hook::iterator::exfiltrator::SignalOnly;

use crate::limits::PROCESS_DESCRIPTORS;

/// Signals that stop the server.
const STOP: [i32; 2] = [SIGINT, SIGTERM];

/// The signal that asks for a reload. Stock ends at it.
const RELOAD: i32 = SIGHUP;

/// The signal that asks for another process to take over. Stock ignores it.
const UPGRADE: i32 = SIGUSR2;

/// Signals whose default action ends a process, and which a Go program takes and ignores.
const IGNORED: [i32; 8] = [SIGUSR1, SIGALRM, SIGVTALRM, SIGPROF, SIGIO, SIGXCPU, SIGXFSZ, libc::SIGPWR];

/// The signals that this process takes.
pub struct ProcessSignals(SignalDelivery<UnixStream, SignalOnly>);

/// What signals have asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Asked {
    /// SIGINT or SIGTERM.
    pub stop: bool,
    /// SIGHUP.
    pub reload: bool,
    /// SIGUSR2.
    pub upgrade: bool,
}

impl ProcessSignals {
    /// Takes them from now on. To be called before the workers start, which inherit the signal mask.
    pub fn take() -> io::Result<Self> {
        let real_time = libc::SIGRTMIN()..=libc::SIGRTMAX();
        let taken = STOP.into_iter().chain([RELOAD, UPGRADE]).chain(IGNORED).chain(real_time);
        let (read, write) = UnixStream::pair()?;
        let signals = SignalDelivery::with_pipe(read, write, SignalOnly, taken)?;
        // A process inherits the mask of its parent, which may have blocked them for itself.
        SigSet::all().thread_unblock()?;
        Ok(Self(signals))
    }

    /// Waits for signals, but not for longer than `timeout`; without one for ever.
    pub fn wait(&mut self, timeout: Option<Duration>) -> Asked {
        let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
        // It fails only by the interruption that it waits for.
        let _ = poll(&mut [PollFd::new(self.0.get_read(), PollFlags::IN)], timeout.as_ref());
        let mut asked = Asked::default();
        for signal in self.0.pending() {
            asked.stop |= STOP.contains(&signal);
            asked.reload |= signal == RELOAD;
            asked.upgrade |= signal == UPGRADE;
        }
        asked
    }
}

/// Stops another process in order. It may have ended.
pub fn signal_stop(process: u32) {
    let process = i32::try_from(process).ok().and_then(Pid::from_raw);
    let _ = process.map(|process| kill_process(process, Signal::TERM));
}

/// Raises the soft limit of open files to the hard one, as Go's runtime does: a connection is a descriptor, and the soft
/// limit is often 1,024. Returns what it is now.
pub fn raise_open_file_limit() -> usize {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current < maximum {
        // Refused: then the limit stays.
        let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    }
    let limit = getrlimit(Resource::Nofile).current;
    limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX))
}

/// How many files are open now. What the parent left open is among them.
pub fn open_files() -> usize {
    // One of them is the directory.
    fs::read_dir("/proc/self/fd").map_or(PROCESS_DESCRIPTORS, |open| open.count() - 1)
}

/// The cores this process may run on.
pub fn cores() -> io::Result<Vec<usize>> {
    let set = sched_getaffinity(None)?;
    Ok((0..CpuSet::MAX_CPU).filter(|&core| set.is_set(core)).collect())
}

/// Keeps the calling thread on one core. A core that has gone since the mask was read is not used.
pub fn pin_to(core: usize) {
    let mut set = CpuSet::new();
    set.set(core);
    let _ = sched_setaffinity(None, &set);
}
