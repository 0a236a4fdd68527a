//! An etcd for the instances of one server, with a folder of its own.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use super::probe;
use super::program::{Program, failed, free_addresses};
use crate::failure::Result;

/// etcd wants an address for other members, of which there are none.
const NO_PEER: &str = "http://127.0.0.1:1";

/// A member that runs alone until this is dropped.
#[derive(Debug)]
pub struct Etcd {
    /// Where its clients connect.
    pub address: SocketAddr,
    /// Dropped before its folder.
    _program: Program,
    /// Not kept until the comparison ends: an empty etcd takes 64 MB.
    _data: TempDir,
}

/// What a program says that it is, if it is there.
pub fn version(program: &Path) -> Option<String> {
    let output = Command::new(program).arg("--version").output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    text.lines().next()?.strip_prefix("etcd Version: ").map(str::to_owned)
}

impl Etcd {
    /// Starts one on `core`, for a server of this name, and waits until it takes requests.
    ///
    /// # Errors
    /// When it cannot be started, ends, or is not healthy in time.
    pub fn start(server: &str, program: &Path, core: usize, folder: &Path) -> Result<Self> {
        let name = format!("the etcd of {server}");
        let data = tempfile::tempdir_in(folder).map_err(|error| failed(&name, "make a folder", error))?;
        let ports = free_addresses(1).map_err(|error| failed(&name, "find a free port", error))?;
        let client = format!("http://{}", ports[0]);
        let flags = [
            ("data-dir", &*data.path().to_string_lossy()),
            ("listen-client-urls", &client),
            ("advertise-client-urls", &client),
            ("listen-peer-urls", "http://127.0.0.1:0"),
            ("initial-advertise-peer-urls", NO_PEER),
            ("initial-cluster", &format!("default={NO_PEER}")),
        ];
        let mut command = Command::new(program);
        command.args(flags.map(|(flag, value)| format!("--{flag}={value}")));
        let program = Program::start(&name, command, core, folder.join(format!("{server}-etcd.log")))?;
        program.until(|| probe::responds(ports[0], "/health", None))?;
        Ok(Self { address: ports[0], _program: program, _data: data })
    }
}
