//! Which core a process runs on.

use std::process::{Child, Command};

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::failure::{Failure, Result};

/// The server's core, and the one for everything that loads it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Cores {
    pub server: usize,
    pub load: usize,
}

impl Cores {
    /// The cores asked for, or the last and the first that this process may use: where hyperthreads are, these
    /// are not two of one core.
    ///
    /// # Errors
    /// When that is one core, or none that may be used.
    pub fn choose(server: Option<usize>, load: Option<usize>) -> Result<Self> {
        let usable = sched_getaffinity(None).map_err(|error| {
            Failure::io("ask which cores may be used", error.into(), "allow sched_getaffinity")
        })?;
        let usable: Vec<usize> = (0..CpuSet::MAX_CPU).filter(|core| usable.is_set(*core)).collect();
        Self::among(&usable, server, load)
    }

    /// Moves this thread and those it starts to the load's core: the server's is for the server.
    ///
    /// # Errors
    /// When the kernel forbids it.
    pub fn stay_with_the_load(self) -> Result<()> {
        sched_setaffinity(None, &only(self.load))
            .map_err(|error| Failure::io("choose a core", error.into(), "allow sched_setaffinity"))
    }

    fn among(usable: &[usize], server: Option<usize>, load: Option<usize>) -> Result<Self> {
        let (Some(first), Some(last)) = (usable.first(), usable.last()) else {
            return Err(Failure::Refused("no core may be used: ask taskset for two".into()));
        };
        let cores = Self { server: server.unwrap_or(*last), load: load.unwrap_or(*first) };
        if let Some(core) = [cores.server, cores.load].iter().find(|core| !usable.contains(core)) {
            return Err(Failure::Refused(format!("core {core} may not be used: choose among {usable:?}")));
        }
        if cores.server == cores.load {
            return Err(Failure::Refused(format!(
                "server and load would share core {}: give two cores, with --server-core and --load-core or taskset",
                cores.load
            )));
        }
        Ok(cores)
    }
}

/// Starts a process that is on its core from its first instruction on, so that runtimes which count their cores
/// when they start (Go's does) count one.
///
/// # Errors
/// When it cannot be started.
pub fn spawn_on(core: usize, command: &mut Command) -> std::io::Result<Child> {
    // A child inherits the affinity of the thread that starts it.
    std::thread::scope(|scope| {
        let spawning = scope.spawn(|| {
            sched_setaffinity(None, &only(core))?;
            command.spawn()
        });
        spawning.join().expect("spawning does not panic")
    })
}

fn only(core: usize) -> CpuSet {
    let mut cores = CpuSet::new();
    cores.set(core);
    cores
}

#[cfg(test)]
pub mod tests {
    use std::process::Stdio;

    use super::*;

    /// A core that may be used.
    pub fn any_core() -> usize {
        let usable = sched_getaffinity(None).unwrap();
        (0..CpuSet::MAX_CPU).find(|core| usable.is_set(*core)).unwrap()
    }

    #[test]
    fn two_cores_far_apart_are_chosen() {
        assert_eq!(Cores::among(&[2, 3, 6, 7], None, None).unwrap(), Cores { server: 7, load: 2 });
        assert_eq!(Cores::among(&[0, 1, 2], Some(1), None).unwrap(), Cores { server: 1, load: 0 });
    }

    #[test]
    fn one_core_for_both_is_refused() {
        let text = |result: Result<Cores>| result.unwrap_err().to_string();
        assert!(text(Cores::among(&[3], None, None)).starts_with("server and load would share core 3"));
        assert!(text(Cores::among(&[0, 1], None, Some(1))).contains("share core 1"));
        assert!(text(Cores::among(&[0, 1], Some(9), None)).starts_with("core 9 may not be used"));
        assert!(text(Cores::among(&[], None, None)).starts_with("no core"));
    }

    #[test]
    fn a_process_sees_its_core_alone() {
        let usable = sched_getaffinity(None).unwrap();
        let core = any_core();
        let mut command = Command::new("grep");
        command.args(["Cpus_allowed_list", "/proc/self/status"]).stdout(Stdio::piped());
        let output = spawn_on(core, &mut command).unwrap().wait_with_output().unwrap();
        assert_eq!(String::from_utf8(output.stdout).unwrap(), format!("Cpus_allowed_list:\t{core}\n"));
        assert_eq!(sched_getaffinity(None).unwrap(), usable, "we ourselves stay where we were");
    }
}
