//! A process that runs until this is dropped, and that is started again when it ends if that is wanted: what a service
//! manager does.

use std::fmt::{self, Debug, Formatter};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};

/// How often it is started again: more than any scenario asks for. One that ends by itself at once is not started for
/// ever.
const STARTS_MAX: u32 = 1_000;

/// How the process is started, the same each time.
pub type Spawn = Box<dyn FnMut() -> io::Result<Child> + Send>;

pub struct Service {
    shared: Arc<Mutex<Shared>>,
    manager: Option<JoinHandle<()>>,
}

struct Shared {
    process: Child,
    spawn: Spawn,
    is_wanted: bool,
}

impl Service {
    /// # Errors
    /// When the process cannot be started.
    pub fn start(mut spawn: Spawn) -> io::Result<Self> {
        let process = spawn()?;
        Ok(Self { shared: Arc::new(Mutex::new(Shared { process, spawn, is_wanted: true })), manager: None })
    }

    /// Starts the process again from now on whenever it ends, and writes its id to the file.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn restart_always(&mut self, pid_file: PathBuf) -> io::Result<()> {
        write_pid(&pid_file, self.pid())?;
        let shared = Arc::clone(&self.shared);
        self.manager = Some(std::thread::spawn(move || manage(&shared, &pid_file)));
        Ok(())
    }

    pub fn pid(&self) -> u32 {
        lock(&self.shared).process.id()
    }

    /// Whether the process is gone.
    pub fn has_ended(&self) -> bool {
        !matches!(lock(&self.shared).process.try_wait(), Ok(None))
    }
}

impl Debug for Service {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_struct("Service").field("pid", &self.pid()).finish_non_exhaustive()
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let mut shared = lock(&self.shared);
        shared.is_wanted = false;
        // It keeps nothing that would be lost, and draining a registry can take minutes.
        let _ = shared.process.kill();
        drop(shared);
        if let Some(manager) = self.manager.take() {
            let _ = manager.join();
        }
        let _ = lock(&self.shared).process.wait();
    }
}

/// A command that ends the process of the file with SIGTERM, and itself when the next one was started.
pub fn restart_command(pid_file: &Path) -> String {
    let file = pid_file.to_string_lossy();
    let file = shlex::try_quote(&file).unwrap_or_default();
    format!("p=$(cat {file}); kill -TERM $p; while [ $(cat {file}) = $p ]; do sleep 0.01; done")
}

/// Waits for each process in turn and starts the next, until none is wanted any more.
fn manage(shared: &Mutex<Shared>, pid_file: &Path) {
    for _ in 0..STARTS_MAX {
        let pid = Pid::from_child(&lock(shared).process);
        // The id stays its own until it is waited for below, under the lock: whoever kills by it kills no other.
        let _ = waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT);
        let mut shared = lock(shared);
        if !shared.is_wanted {
            return;
        }
        let _ = shared.process.wait();
        match (shared.spawn)() {
            Ok(process) => shared.process = process,
            // The scenario finds nobody listening, and reports so.
            Err(_) => return,
        }
        if write_pid(pid_file, shared.process.id()).is_err() {
            return;
        }
    }
}

/// Whole or not at all: it is read meanwhile.
fn write_pid(file: &Path, pid: u32) -> io::Result<()> {
    let new = file.with_extension("new");
    std::fs::write(&new, pid.to_string())?;
    std::fs::rename(new, file)
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    // Nothing is half done while it is locked.
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    fn sleeper() -> Service {
        Service::start(Box::new(|| Command::new("sleep").arg("600").spawn())).unwrap()
    }

    fn is_there(pid: u32) -> bool {
        Path::new(&format!("/proc/{pid}")).exists()
    }

    #[test]
    fn a_process_is_started_again_until_it_is_not_wanted_any_more() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a pid");
        let mut service = sleeper();
        service.restart_always(file.clone()).unwrap();
        let mut pids = vec![service.pid()];
        for _ in 0..3 {
            let restart = restart_command(&file);
            assert!(Command::new("sh").args(["-c", &restart]).status().unwrap().success());
            assert!(!is_there(*pids.last().unwrap()), "the old one is gone when the command ends");
            pids.push(service.pid());
            assert_eq!(std::fs::read_to_string(&file).unwrap(), service.pid().to_string());
        }
        assert!(is_there(service.pid()) && !service.has_ended());
        drop(service);
        assert!(pids.into_iter().all(|pid| !is_there(pid)));
    }

    #[test]
    fn a_process_that_nobody_restarts_ends_once() {
        let service = sleeper();
        let pid = service.pid();
        assert!(Command::new("kill").arg(pid.to_string()).status().unwrap().success());
        while !service.has_ended() {
            std::thread::yield_now();
        }
        drop(service);
        assert!(!is_there(pid));
    }
}
