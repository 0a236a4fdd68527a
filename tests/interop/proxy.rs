//! nginx and HAProxy in front of a server.

use std::fs;
use std::io::{BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

use crate::daemon::Daemon;
use crate::programs;
use crate::wait;

/// A proxy that listens on a Unix socket.
pub struct Proxy {
    /// Killed before its socket is removed.
    _daemon: Daemon,
    _folder: TempDir,
    listening: PathBuf,
}

impl Proxy {
    /// nginx with these locations in its only server. `None` where `NGINX_BIN` is unset.
    pub fn nginx(locations: &str) -> Option<Self> {
        let mut command = Command::new(programs::nginx()?);
        // Of these two nginx has a default outside the folder.
        command.args(["-e", "stderr", "-g", "daemon off;", "-c"]);
        Some(Self::start(command, |folder, socket| {
            let (folder, socket) = (folder.display(), socket.display());
            let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
                .map(|kind| format!("  {kind}_temp_path {folder}/{kind};\n"))
                .concat();
            format!(
                "pid {folder}/pid;\nevents {{}}\nhttp {{\n  access_log off;\n{temporary}  server {{\n    \
                 listen unix:{socket};\n{locations}\n  }}\n}}\n"
            )
        }))
    }

    /// HAProxy with a file that is given the address to listen at. `None` where `HAPROXY_BIN` is unset.
    pub fn haproxy(configure: impl Fn(&str) -> String) -> Option<Self> {
        let mut command = Command::new(programs::haproxy()?);
        command.arg("-f");
        Some(Self::start(command, |_, socket| configure(&format!("unix@{}", socket.display()))))
    }

    /// `configure` is given the folder and the socket.
    fn start(mut command: Command, configure: impl Fn(&Path, &Path) -> String) -> Self {
        let folder = TempDir::new().expect("a temporary directory");
        let (file, listening) = (folder.path().join("proxy.conf"), folder.path().join("http"));
        fs::write(&file, configure(folder.path(), &listening)).expect("the folder is ours");
        let daemon = Daemon::start(command.arg(&file).stdin(Stdio::null()));
        wait::until("the proxy", || UnixStream::connect(&listening).map_err(|error| error.to_string()));
        Self { _daemon: daemon, _folder: folder, listening }
    }

    pub fn send(&self, request: &str) -> BufReader<UnixStream> {
        let mut stream = UnixStream::connect(&self.listening).expect("the proxy runs");
        stream.write_all(request.as_bytes()).expect("the proxy reads");
        BufReader::new(stream)
    }
}
