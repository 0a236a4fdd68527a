//! A real etcd for a test, on ports of the kernel's choice and with data of its own, gone when the test is.
//!
//! `ETCD_BIN` and `ETCDCTL_BIN` name the programs:
//!
//!     eval "$(.ci/etcd)" && cargo test --test cluster

#![allow(dead_code, reason = "more tests are to use it")]

use std::env;
use std::fs;
use std::io::{self, Write as _};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use ringlookupd::cluster::etcd::EtcdFiles;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::certificates::{Authority, Certified};
use crate::support::{Log, PATIENCE};

/// The programs of etcd.
#[derive(Clone)]
pub struct Programs {
    etcd: PathBuf,
    etcdctl: PathBuf,
}

/// An etcd of one member. Killed when dropped.
pub struct Etcd {
    programs: Programs,
    flags: Vec<String>,
    folder: TempDir,
    /// What clients have to show.
    tls: Option<Tls>,
    port: u16,
    running: Option<Running>,
}

/// TLS for the clients of an etcd: it wants to see a certificate.
pub struct Tls {
    pub authority: Authority,
    /// etcd's own.
    server: Certified,
    /// What a client may show.
    pub client: Certified,
}

struct Running {
    child: Child,
    log: Arc<Log>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.child.kill().and_then(|()| self.child.wait()).expect("the process is our child");
    }
}

/// Where the programs are. `None` where `ETCD_BIN` is unset; the test is then to return at once.
///
/// # Panics
/// When they are not there.
pub fn programs() -> Option<Programs> {
    let Some(etcd) = env::var_os("ETCD_BIN").map(PathBuf::from) else {
        // Written past libtest's capture, which would hide from a passing run that it proved nothing.
        let _ = writeln!(
            io::stderr(),
            "{}: skipped, ETCD_BIN does not name etcd's program (see .ci/etcd)",
            thread::current().name().unwrap_or("cluster"),
        );
        return None;
    };
    let etcdctl = env::var_os("ETCDCTL_BIN").map(PathBuf::from).expect("ETCDCTL_BIN names etcdctl, see .ci/etcd");
    for program in [&etcd, &etcdctl] {
        assert!(program.exists(), "{} is missing: get it with `.ci/etcd`", program.display());
    }
    Some(Programs { etcd, etcdctl })
}

impl Tls {
    pub fn new() -> Self {
        let authority = Authority::new();
        let (server, client) = (authority.certify("etcd"), authority.certify("client"));
        Self { authority, server, client }
    }

    /// What a client is to be given.
    pub fn files(&self) -> EtcdFiles {
        let path = |path: &Path| path.to_str().expect("UTF-8").to_owned();
        EtcdFiles {
            ca: path(&self.authority.file()),
            cert: path(&self.client.cert),
            key: path(&self.client.key),
            user: String::new(),
        }
    }

    fn flags(&self) -> Vec<String> {
        let path = |path: &Path| path.to_str().expect("UTF-8").to_owned();
        vec![
            format!("--cert-file={}", path(&self.server.cert)),
            format!("--key-file={}", path(&self.server.key)),
            format!("--trusted-ca-file={}", path(&self.authority.file())),
            "--client-cert-auth".to_owned(),
        ]
    }
}

impl Etcd {
    /// Starts one with etcd's defaults.
    pub fn start(programs: &Programs) -> Self {
        Self::start_with(programs, &[])
    }

    /// Starts one with flags of etcd.
    pub fn start_with(programs: &Programs, flags: &[&str]) -> Self {
        Self::start_on(programs, flags.iter().map(ToString::to_string).collect(), None)
    }

    /// Starts one that speaks TLS.
    pub fn start_tls(programs: &Programs, tls: Tls) -> Self {
        Self::start_on(programs, tls.flags(), Some(tls))
    }

    fn start_on(programs: &Programs, flags: Vec<String>, tls: Option<Tls>) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let port = free_port();
        let mut etcd = Self { programs: programs.clone(), flags, folder, tls, port, running: None };
        etcd.restart();
        etcd
    }

    /// `HOST:PORT`, with a host that a certificate can have.
    pub fn endpoint(&self) -> String {
        let host = if self.tls.is_some() { "localhost" } else { "127.0.0.1" };
        format!("{host}:{}", self.port)
    }

    /// The value of `-cluster`.
    pub fn address(&self) -> String {
        let scheme = if self.tls.is_some() { "etcds" } else { "etcd" };
        format!("{scheme}://{}", self.endpoint())
    }

    /// The TLS that it was started with.
    pub fn tls(&self) -> &Tls {
        self.tls.as_ref().expect("it was started with TLS")
    }

    /// Kills it, as a failing machine does.
    pub fn stop(&mut self) {
        self.running = None;
    }

    /// Starts it again, on the port and with the data that it had; stops it before, if it runs.
    ///
    /// # Panics
    /// When it does not serve within [`PATIENCE`]; the message holds its log.
    pub fn restart(&mut self) {
        self.stop();
        let until = Instant::now() + PATIENCE;
        // Another process may have got the port meanwhile, for a connection of its own.
        loop {
            let running = self.spawn();
            let is_ready =
                running.log.wait_for(|log| log.contains("ready to serve client requests").then_some(()));
            if is_ready.is_some() {
                self.running = Some(running);
                return;
            }
            let log = running.log.text();
            assert!(
                log.contains("address already in use") && Instant::now() < until,
                "etcd does not serve:\n{log}"
            );
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Stops it, deletes its data, and starts it again: an etcd that was set up anew.
    pub fn wipe(&mut self) {
        self.stop();
        fs::remove_dir_all(self.data()).expect("it is ours");
        self.restart();
    }

    /// Has it do nothing until [`Etcd::resume`], while its connections stay.
    pub fn pause(&self) {
        self.signal(Signal::STOP);
    }

    pub fn resume(&self) {
        self.signal(Signal::CONT);
    }

    /// Runs etcdctl, and gives what it prints.
    ///
    /// # Panics
    /// When it fails.
    pub fn ctl<A: AsRef<str>>(&self, arguments: &[A]) -> String {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        let mut command = Command::new(&self.programs.etcdctl);
        command.env("ETCDCTL_API", "3").arg(format!("--endpoints={scheme}://{}", self.endpoint()));
        if let Some(tls) = &self.tls {
            let flag = |name: &str, path: &Path| format!("--{name}={}", path.display());
            command.arg(flag("cacert", &tls.authority.file()));
            command.args([flag("cert", &tls.client.cert), flag("key", &tls.client.key)]);
        }
        let output = command.args(arguments.iter().map(AsRef::as_ref)).output().expect("etcdctl runs");
        assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("UTF-8")
    }

    fn signal(&self, signal: Signal) {
        let running = self.running.as_ref().expect("it runs");
        kill_process(Pid::from_child(&running.child), signal).expect("the process is our child");
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn spawn(&self) -> Running {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        // Of other members, which there are not: nobody asks at the address that it announces.
        let peer = "http://127.0.0.1:1";
        let mut child = Command::new(&self.programs.etcd)
            .arg(format!("--data-dir={}", self.data().display()))
            .arg(format!("--listen-client-urls={scheme}://127.0.0.1:{}", self.port))
            .arg(format!("--advertise-client-urls={scheme}://{}", self.endpoint()))
            .arg("--listen-peer-urls=http://127.0.0.1:0")
            .arg(format!("--initial-advertise-peer-urls={peer}"))
            .arg(format!("--initial-cluster=default={peer}"))
            // Of which the cluster's number is made.
            .arg(format!("--initial-cluster-token={}", self.port))
            .args(&self.flags)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{}: {error}", self.programs.etcd.display()));
        let log = Log::drain(child.stderr.take().expect("stderr is piped"));
        Running { child, log }
    }
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("it is bound").port()
}
