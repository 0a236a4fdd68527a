//! The command that restarts the server.

use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};

use crate::failure::{Failure, Result};

/// From one look whether it has ended to the next.
const POLL: Duration = Duration::from_millis(2);

/// Runs a command of the shell to its end. What it prints goes to standard error, as the report alone is on standard
/// output. It has a process group of its own: what it starts in the background outlives Ctrl-C.
///
/// # Errors
/// An exit code other than 0, and a command that takes longer than the limit: its process group is killed.
pub async fn run(text: &str, limit: Duration) -> Result<()> {
    let failed = |error| Failure::io(format_args!("run `{text}`"), error, "give another --command");
    let errors = std::io::stderr().as_fd().try_clone_to_owned().map_err(failed)?;
    let mut command = Command::new("sh");
    command.args(["-c", text]).stdin(Stdio::null()).stdout(errors).process_group(0);
    let mut process = command.spawn().map_err(failed)?;
    let began = Instant::now();
    loop {
        if let Some(status) = process.try_wait().map_err(failed)? {
            let refused =
                || Failure::Refused(format!("--command `{text}` ended with {status}: it must end with 0"));
            return status.success().then_some(()).ok_or_else(refused);
        }
        if began.elapsed() >= limit {
            // It has not been waited for: the id is still its own.
            let _ = kill_process_group(Pid::from_child(&process), Signal::KILL);
            let _ = process.wait();
            return Err(Failure::Refused(format!(
                "--command `{text}` has not ended within {limit:?}: let what it starts run in the background, or \
                 give it longer with --command-timeout"
            )));
        }
        tokio::time::sleep(POLL).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(text: &str, limit: Duration) -> Result<(), String> {
        crate::ring::run(run(text, limit)).unwrap().map_err(|failure| failure.to_string())
    }

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn a_command_is_to_end_well() {
        assert_eq!(outcome("true", LONG), Ok(()));
        let error = outcome("exit 3", LONG).unwrap_err();
        assert_eq!(error, "--command `exit 3` ended with exit status: 3: it must end with 0");
    }

    #[test]
    fn a_command_may_leave_a_server_behind() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("pid");
        let file = file.to_str().unwrap();
        assert_eq!(outcome(&format!("sleep 60 & echo $! > {file}"), LONG), Ok(()));
        let pid = std::fs::read_to_string(file).unwrap();
        assert_eq!(outcome(&format!("kill {pid}"), LONG), Ok(()), "it runs");
    }

    #[test]
    fn a_command_that_does_not_end_is_killed_with_what_it_started() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("pid");
        let file = file.to_str().unwrap();
        let limit = Duration::from_millis(500);
        let error = outcome(&format!("sleep 60 & echo $! > {file}; wait"), limit).unwrap_err();
        assert!(error.contains("has not ended within 500ms"), "{error}");
        let pid = std::fs::read_to_string(file).unwrap();
        // The kernel ends it in its own time, and somebody else waits for it.
        while std::fs::read_to_string(format!("/proc/{}/stat", pid.trim()))
            .is_ok_and(|stat| !stat.contains(") Z "))
        {
            std::thread::sleep(POLL);
        }
    }
}
