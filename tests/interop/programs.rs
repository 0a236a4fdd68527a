//! Where the real programs and client libraries are.

use std::env;
use std::ffi::OsString;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;

use ringlookupd::io::Backend;

use crate::both_drivers::flag;

/// A consumer program of ours around somebody else's client library.
#[derive(Clone, Copy, Debug)]
pub enum Client {
    GoNsq,
    Pynsq,
    Nsqjs,
}

impl Client {
    pub const ALL: [Self; 3] = [Self::GoNsq, Self::Pynsq, Self::Nsqjs];
}

/// A consumer that a client of `contrib` keeps connected.
#[derive(Clone, Copy, Debug)]
pub enum Watcher {
    Go,
    Python,
}

/// The folder that `NSQ_BIN` names.
pub struct Programs {
    bin: PathBuf,
}

impl Programs {
    /// `None` where `NSQ_BIN` is unset; the test is then to return at once.
    pub fn find() -> Option<Self> {
        named_or_skipped("NSQ_BIN", "a folder with the NSQ programs").map(|bin| Self { bin })
    }

    /// A program of `NSQ_BIN`.
    ///
    /// # Panics
    /// When it is not there.
    pub fn path(&self, name: &str) -> PathBuf {
        let program = self.bin.join(name);
        require(&program, "NSQ_BIN", "go install tool");
        program
    }

    /// Starts a program of `NSQ_BIN`.
    ///
    /// # Panics
    /// As [`Programs::path`].
    pub fn command(&self, name: &str) -> Command {
        quiet(Command::new(self.path(name)))
    }

    /// A consumer that exits once it has finished `count` messages, and prints the body of each on a line.
    ///
    /// # Panics
    /// When the program or the client library is not there.
    pub fn consumer(
        &self,
        client: Client,
        topic: &str,
        channel: &str,
        count: usize,
        lookupds: &[impl ToString],
    ) -> Command {
        let mut command = match client {
            Client::GoNsq => self.command("interop_consumer"),
            Client::Pynsq => python("consumer.py"),
            Client::Nsqjs => {
                let modules = PathBuf::from(named_by("INTEROP_NODE_MODULES", "npm ci"));
                require(&modules.join("nsqjs"), "INTEROP_NODE_MODULES", "npm ci");
                let mut command = quiet(Command::new("node"));
                command.arg(client_file("consumer.js")).env("NODE_PATH", modules);
                command
            }
        };
        command.args([topic, channel, &count.to_string()]).args(lookupds.iter().map(ToString::to_string));
        command
    }

    /// A consumer of the channel `archive` that prints the body of each message on a line, until it is killed.
    ///
    /// # Panics
    /// As [`Programs::consumer`].
    pub fn watching_consumer(
        &self,
        watcher: Watcher,
        flags: &[String],
        topic: &str,
        lookupds: &[impl ToString],
    ) -> Command {
        let mut command = match watcher {
            Watcher::Go => self.command("watching_consumer"),
            Watcher::Python => {
                let module = Path::new(env!("CARGO_MANIFEST_DIR")).join("contrib/watch-py");
                let mut command = python("watching_consumer.py");
                command.env("PYTHONPATH", module);
                command
            }
        };
        command.args(flags).arg(topic).args(lookupds.iter().map(ToString::to_string));
        command
    }
}

/// A script of `clients/`, to be run by a python that has the client libraries.
///
/// # Panics
/// When `INTEROP_PYTHON` is unset.
pub fn python(script: &str) -> Command {
    let python = named_by("INTEROP_PYTHON", "python3 -m venv, then pip install -r requirements.txt");
    let mut command = quiet(Command::new(python));
    command.arg(client_file(script));
    command
}

/// HAProxy. `None` where `HAPROXY_BIN` is unset; the test is then to return at once.
///
/// # Panics
/// When it is not there.
pub fn haproxy() -> Option<PathBuf> {
    let program = named_or_skipped("HAPROXY_BIN", "HAProxy's program")?;
    require(&program, "HAPROXY_BIN", ".ci/haproxy");
    Some(program)
}

/// nginx's program. `None` where `NGINX_BIN` is unset; the test is then to return at once.
///
/// # Panics
/// When it is not there.
pub fn nginx() -> Option<PathBuf> {
    let program = named_or_skipped("NGINX_BIN", "nginx's program")?;
    require(&program, "NGINX_BIN", ".ci/nginx");
    Some(program)
}

/// Prometheus and promtool.
pub struct Prometheus {
    pub prometheus: PathBuf,
    pub promtool: PathBuf,
}

/// Where they are. `None` where `PROMETHEUS_BIN` is unset; the test is then to return at once.
///
/// # Panics
/// When they are not there.
pub fn prometheus() -> Option<Prometheus> {
    let prometheus = named_or_skipped("PROMETHEUS_BIN", "the program of Prometheus")?;
    let promtool = PathBuf::from(named_by("PROMTOOL_BIN", ".ci/prometheus"));
    require(&prometheus, "PROMETHEUS_BIN", ".ci/prometheus");
    require(&promtool, "PROMTOOL_BIN", ".ci/prometheus");
    Some(Prometheus { prometheus, promtool })
}

/// Another project's program that speaks TLS. `None` where its variable is unset; the test is then to return at once.
///
/// # Panics
/// When it is not there.
pub fn tls_peer(variable: &str) -> Option<Command> {
    let program = named_or_skipped(variable, "a program that speaks TLS")?;
    require(&program, variable, ".ci/tls-peers");
    Some(quiet(Command::new(program)))
}

/// What a variable names. Where it is unset, says that the test is skipped.
fn named_or_skipped(variable: &str, what: &str) -> Option<PathBuf> {
    let named = env::var_os(variable).map(PathBuf::from);
    if named.is_none() {
        // Written past libtest's capture, which would hide from a passing run that it proved nothing.
        let _ = writeln!(
            io::stderr(),
            "{}: skipped, {variable} does not name {what} (see tests/interop/README.md)",
            thread::current().name().unwrap_or("interop"),
        );
    }
    named
}

/// The server under test, with the flag that another server would not know.
pub fn lookupd(backend: Backend) -> (PathBuf, Vec<String>) {
    match env::var_os("RINGLOOKUPD_SERVER") {
        Some(other) => (other.into(), Vec::new()),
        None => (env!("CARGO_BIN_EXE_ringlookupd").into(), vec![flag(backend)]),
    }
}

fn client_file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/interop/clients").join(name)
}

fn quiet(mut command: Command) -> Command {
    command.stdin(Stdio::null());
    command
}

fn named_by(variable: &str, recipe: &str) -> OsString {
    env::var_os(variable)
        .unwrap_or_else(|| panic!("{variable} is unset: get it with `{recipe}`, see tests/interop/README.md"))
}

fn require(path: &Path, variable: &str, recipe: &str) {
    assert!(
        path.exists(),
        "{} is missing from {variable}: get it with `{recipe}`, see tests/interop/README.md",
        path.display(),
    );
}
