//! What the process has of the system: signals, open files, cores.

use std::{fs, io};

use nix::sys::signal::SigSet;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use signal_hook::consts::{
    SIGALRM, SIGHUP, SIGINT, SIGIO, SIGPROF, SIGTERM, SIGUSR1, SIGUSR2, SIGVTALRM, SIGXCPU, SIGXFSZ,
};
use signal_hook::iterator::Signals;

use crate::limits::PROCESS_DESCRIPTORS;

/// Signals that stop the server.
const STOP: [i32; 2] = [SIGINT, SIGTERM];

/// Signals whose default action ends a process, and which a Go program takes and ignores. SIGHUP is one more: stock
/// ends at it.
const IGNORED: [i32; 10] =
    [SIGHUP, SIGUSR1, SIGUSR2, SIGALRM, SIGVTALRM, SIGPROF, SIGIO, SIGXCPU, SIGXFSZ, libc::SIGPWR];

/// The signals that this process takes.
pub struct ProcessSignals(Signals);

impl ProcessSignals {
    /// Takes them from now on. To be called before the workers start, which inherit the signal mask.
    pub fn take() -> io::Result<Self> {
        let real_time = libc::SIGRTMIN()..=libc::SIGRTMAX();
        let signals = Signals::new(STOP.into_iter().chain(IGNORED).chain(real_time))?;
        // A process inherits the mask of its parent, which may have blocked them for itself.
        SigSet::all().thread_unblock()?;
        Ok(Self(signals))
    }

    /// Waits for one that stops the server.
    pub fn wait_for_stop(&mut self) {
        self.0.forever().find(|signal| STOP.contains(signal));
    }
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
