//! Where the real programs and client libraries are.

use std::env;
use std::ffi::OsString;
use std::io::{self, Write};
use std::net::SocketAddr;
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

/// The folder that `NSQ_BIN` names.
pub struct Programs {
    bin: PathBuf,
}

impl Programs {
    /// `None` where `NSQ_BIN` is unset; the test is then to return at once.
    pub fn find() -> Option<Self> {
        if let Some(bin) = env::var_os("NSQ_BIN") {
            return Some(Self { bin: bin.into() });
        }
        // Written past libtest's capture, which would hide from a passing run that it proved nothing.
        let _ = writeln!(
            io::stderr(),
            "{}: skipped, NSQ_BIN does not name a folder with the NSQ programs (see tests/interop/README.md)",
            thread::current().name().unwrap_or("interop"),
        );
        None
    }

    /// A program of `NSQ_BIN`.
    ///
    /// # Panics
    /// When it is not there.
    pub fn command(&self, name: &str) -> Command {
        let program = self.bin.join(name);
        require(&program, "NSQ_BIN", "go install tool");
        quiet(Command::new(program))
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
        lookupds: &[SocketAddr],
    ) -> Command {
        let clients = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/interop/clients");
        let mut command = match client {
            Client::GoNsq => self.command("interop_consumer"),
            Client::Pynsq => {
                let python = named_by("INTEROP_PYTHON", "python3 -m venv, then pip install -r requirements.txt");
                let mut command = quiet(Command::new(python));
                command.arg(clients.join("consumer.py"));
                command
            }
            Client::Nsqjs => {
                let modules = PathBuf::from(named_by("INTEROP_NODE_MODULES", "npm ci"));
                require(&modules.join("nsqjs"), "INTEROP_NODE_MODULES", "npm ci");
                let mut command = quiet(Command::new("node"));
                command.arg(clients.join("consumer.js")).env("NODE_PATH", modules);
                command
            }
        };
        command.args([topic, channel, &count.to_string()]).args(lookupds.iter().map(SocketAddr::to_string));
        command
    }
}

/// The server under test, with the flag that another server would not know.
pub fn lookupd(backend: Backend) -> (PathBuf, Vec<String>) {
    match env::var_os("RINGLOOKUPD_SERVER") {
        Some(other) => (other.into(), Vec::new()),
        None => (env!("CARGO_BIN_EXE_ringlookupd").into(), vec![flag(backend)]),
    }
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
