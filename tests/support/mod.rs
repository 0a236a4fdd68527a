//! A server process for integration tests: started on ports of the kernel's choice, its log readable while it
//! runs, and gone when the test is.

#![allow(dead_code, reason = "each test target uses a part of this module")]

pub mod clients;
pub mod contrib;
pub mod observed;

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::retry_on_intr;
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};

/// How long a server may take to start, to log what is waited for, or to end: far more than it needs.
pub const PATIENCE: Duration = Duration::from_secs(15);

/// The flags that every server is started with; a later one of the same name counts.
pub const DEFAULTS: [&str; 3] = ["-tcp-address=127.0.0.1:0", "-http-address=127.0.0.1:0", "-log-level=info"];

/// Ends what runs until this is set, after a failure too.
pub struct Ends<'a>(pub &'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A running server; dropping it kills the process.
pub struct Server {
    process: Child,
    log: Arc<Log>,
    /// Where nsqd nodes connect.
    pub tcp: SocketAddr,
    /// Where the HTTP API listens.
    pub http: SocketAddr,
}

impl Server {
    /// Starts this package's `ringlookupd` on free ports of 127.0.0.1, at log level info, with `flags` added.
    ///
    /// # Panics
    /// If it does not listen within [`PATIENCE`]; the message holds its log.
    pub fn start<F: AsRef<OsStr>>(flags: &[F]) -> Self {
        Self::start_program(Path::new(env!("CARGO_BIN_EXE_ringlookupd")), flags)
    }

    /// Starts `program`, which takes nsqlookupd's flags and logs where it listens as nsqlookupd does.
    ///
    /// # Panics
    /// As [`Server::start`].
    pub fn start_program<F: AsRef<OsStr>>(program: &Path, flags: &[F]) -> Self {
        Self::start_command(Command::new(program).args(DEFAULTS).args(flags))
    }

    /// Starts a command that ends in such a program, and in no other process.
    ///
    /// # Panics
    /// As [`Server::start`].
    pub fn start_command(command: &mut Command) -> Self {
        let mut process = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|err| panic!("{}: {err}", command.get_program().display()));
        let log = Log::drain(process.stderr.take().expect("stderr is piped"));
        let listening = log.wait_for(|text| {
            Some((logged_address(text, "TCP: listening on ")?, logged_address(text, "HTTP: listening on ")?))
        });
        let Some((tcp, http)) = listening else {
            end(&mut process);
            panic!("{} does not listen; its log:\n{}", command.get_program().display(), log.text());
        };
        Self { process, log, tcp, http }
    }

    /// Starts `program` with its log going where the test does not see it. The ports are those that a server
    /// before it had.
    ///
    /// # Panics
    /// As [`Server::start`].
    pub fn start_unlogged(program: &Path, flags: &[&str], stderr: impl Into<Stdio>) -> Self {
        let before = Self::start_program(program, flags);
        let (tcp, http) = (before.tcp, before.http);
        before.stop();
        let mut command = Command::new(program);
        command.args(flags).args([format!("-tcp-address={tcp}"), format!("-http-address={http}")]);
        let process = command.stdin(Stdio::null()).stderr(stderr).spawn().expect("it started before");
        let server = Self { process, log: Arc::default(), tcp, http };
        let begun = Instant::now();
        while TcpStream::connect(http).is_err() {
            assert!(begun.elapsed() < PATIENCE, "it does not listen");
            thread::sleep(Duration::from_millis(5));
        }
        server
    }

    /// All complete lines of the log so far.
    pub fn log(&self) -> String {
        self.log.text()
    }

    /// Waits until the log contains `needle`.
    ///
    /// # Panics
    /// If it does not within [`PATIENCE`], or before the process ends; the message holds the log.
    pub fn wait_for_log(&self, needle: &str) {
        let found = self.log.wait_for(|text| text.contains(needle).then_some(()));
        assert!(found.is_some(), "no {needle:?} in the log:\n{}", self.log());
    }

    /// The process id.
    pub fn pid(&self) -> Pid {
        Pid::from_child(&self.process)
    }

    /// Sends `signal` to the process.
    ///
    /// # Panics
    /// If the kernel refuses.
    pub fn signal(&self, signal: Signal) {
        // Until the child is waited for, its pid cannot be another process's.
        kill_process(self.pid(), signal).expect("the process is our child");
    }

    /// How the process ended, if it has.
    ///
    /// # Panics
    /// If the kernel refuses to tell.
    pub fn exited(&mut self) -> Option<ExitStatus> {
        self.process.try_wait().expect("the process is our child")
    }

    /// Waits at most `patience` for the process to end by itself.
    ///
    /// # Panics
    /// If the kernel refuses to wait.
    pub fn wait_for_exit(&mut self, patience: Duration) -> Option<ExitStatus> {
        if let Some(status) = self.exited() {
            return Some(status);
        }
        let pidfd = pidfd_open(self.pid(), PidfdFlags::empty()).expect("the process is our child");
        let patience = Timespec::try_from(patience).expect("some seconds");
        retry_on_intr(|| poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&patience)))
            .expect("poll of one pidfd");
        self.exited()
    }

    /// Ends the process with SIGTERM, or after [`PATIENCE`] with SIGKILL; the status tells which it was.
    ///
    /// # Panics
    /// If the kernel refuses to signal or to wait.
    pub fn stop(mut self) -> ExitStatus {
        if let Some(status) = self.exited() {
            return status;
        }
        self.signal(Signal::TERM);
        self.wait_for_exit(PATIENCE).unwrap_or_else(|| end(&mut self.process))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        end(&mut self.process);
    }
}

/// Kills the process if it still runs, and reaps it.
fn end(process: &mut Child) -> ExitStatus {
    process.kill().and_then(|()| process.wait()).expect("the process is our child")
}

/// The address after `announcement` in the log, be it text or JSON.
pub fn logged_address(log: &str, announcement: &str) -> Option<SocketAddr> {
    let (_, rest) = log.split_once(announcement)?;
    rest.split(['\n', '"']).next()?.trim().parse().ok()
}

/// What a process has written to stderr, or to stdout.
#[derive(Default)]
pub struct Log {
    written: Mutex<Written>,
    changed: Condvar,
}

#[derive(Default)]
struct Written {
    text: String,
    ended: bool,
}

impl Log {
    /// Reads `pipe` to its end in a thread, so that the process never blocks on a full one.
    pub fn drain(pipe: impl Read + Send + 'static) -> Arc<Self> {
        let log = Arc::new(Self::default());
        let reader = Arc::clone(&log);
        thread::spawn(move || {
            let mut pipe = BufReader::new(pipe);
            let mut line = Vec::new();
            while pipe.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
                reader.change(|written| written.text.push_str(&String::from_utf8_lossy(&line)));
                line.clear();
            }
            reader.change(|written| written.ended = true);
        });
        log
    }

    fn change(&self, edit: impl FnOnce(&mut Written)) {
        edit(&mut self.written.lock().expect("no holder panics"));
        self.changed.notify_all();
    }

    /// All complete lines so far.
    pub fn text(&self) -> String {
        self.written.lock().expect("no holder panics").text.clone()
    }

    /// Waits until `find` finds something in the text, the text is at its end, or [`PATIENCE`] is.
    pub fn wait_for<T>(&self, mut find: impl FnMut(&str) -> Option<T>) -> Option<T> {
        let mut found = None;
        let written = self.written.lock().expect("no holder panics");
        drop(self.changed.wait_timeout_while(written, PATIENCE, |written| {
            found = find(&written.text);
            found.is_none() && !written.ended
        }));
        found
    }
}
