//! A child process whose output can be waited for, and which never outlives its test.

use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use crate::support::{Log, logged_address};
use crate::wait;

/// A running child, killed when dropped, on panic too.
pub struct Daemon {
    name: String,
    child: Child,
    stdout: Arc<Log>,
    stderr: Arc<Log>,
}

impl Daemon {
    /// # Panics
    /// When the program cannot be started.
    pub fn start(command: &mut Command) -> Self {
        let name = format!("{command:?}");
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {name}: {error}"));
        let stdout = Log::drain(child.stdout.take().expect("stdout is piped"));
        let stderr = Log::drain(child.stderr.take().expect("stderr is piped"));
        Self { name, child, stdout, stderr }
    }

    /// The address in the log line `PROTOCOL: listening on ADDRESS`, which every NSQ server writes.
    ///
    /// # Panics
    /// When there is no such line in time.
    pub fn listening(&self, protocol: &str) -> SocketAddr {
        self.logged(&format!(" {protocol}: listening on "))
    }

    /// The address that follows an announcement in the log.
    ///
    /// # Panics
    /// When there is no such line in time.
    pub fn logged(&self, announcement: &str) -> SocketAddr {
        self.stderr
            .wait_for(|log| logged_address(log, announcement))
            .unwrap_or_else(|| self.fail(&format!("does not log {announcement:?}")))
    }

    /// Waits until the log contains one of these.
    ///
    /// # Panics
    /// When it does not in time.
    pub fn wait_for_log(&self, needles: &[&str]) {
        let found = self.stderr.wait_for(|log| needles.iter().any(|needle| log.contains(needle)).then_some(()));
        found.unwrap_or_else(|| self.fail(&format!("logs none of {needles:?}")));
    }

    /// The lines of standard output, sorted, once there are `count` of them.
    ///
    /// # Panics
    /// When they do not come in time.
    pub fn printed(&self, count: usize) -> Vec<String> {
        self.stdout
            .wait_for(|text| {
                let lines = sorted_lines(text);
                (lines.len() >= count).then_some(lines)
            })
            .unwrap_or_else(|| self.fail(&format!("did not print {count} lines")))
    }

    /// All lines of standard output, sorted, once the program has exited with success.
    ///
    /// # Panics
    /// When it fails, or does not exit in time.
    pub fn finish(mut self) -> Vec<String> {
        let status = wait::until(&self.name, || {
            let status = self.child.try_wait().expect("the process is our child");
            status.ok_or_else(|| format!("running, log:\n{}", self.stderr.text()))
        });
        if !status.success() {
            self.fail(&format!("ended with {status}"));
        }
        // The pipe may still hold lines: nothing is what only its end stops waiting for.
        self.stdout.wait_for(|_| None::<()>);
        sorted_lines(&self.stdout.text())
    }

    /// Fails the test with what the program has printed and logged.
    pub fn fail(&self, complaint: &str) -> ! {
        panic!("{} {complaint}\nstdout:\n{}\nstderr:\n{}", self.name, self.stdout.text(), self.stderr.text())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.child.kill().and_then(|()| self.child.wait()).expect("the process is our child");
    }
}

fn sorted_lines(text: &str) -> Vec<String> {
    let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
    lines.sort();
    lines
}
