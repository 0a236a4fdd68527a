//! HAProxy with one address for nsqd nodes, and one for everybody who asks, in front of three instances.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};

use tempfile::TempDir;

use crate::cluster::Lookupd;
use crate::daemon::Daemon;
use crate::inherited_sockets::Sockets;
use crate::programs;
use crate::wait;

/// What an operator writes, but for the addresses in capitals, and for shorter times between two checks.
///
/// - A stopping instance responds 503 to `/ready` for its `-shutdown-delay`, which is longer than the checks take to find out.
/// - There is no `on-marked-down shutdown-sessions`: an instance that stops is still to say that its nsqds live.
/// - nsqd is silent for 15 s between two heartbeats, and `/watch` for as long between two comments.
/// - A client asks the same instance again as long as it is there: nsqadmin looks up what it has just made, which the others have
///   some milliseconds later.
/// - A request that a dying instance has not begun to answer goes to the next. All that the API does may be done twice.
const CONFIGURATION: &str = "\
global
  stats socket ADMIN level admin

defaults
  timeout connect 1s
  timeout client 1m
  timeout server 1m
  timeout check 2s
  retries 3
  option redispatch 1

frontend lookupd_tcp
  mode tcp
  bind TCP
  default_backend nsqds

backend nsqds
  mode tcp
  balance leastconn
  server one ONE_TCP track api/one
  server two TWO_TCP track api/two
  server three THREE_TCP track api/three

frontend lookupd_http
  mode http
  bind HTTP
  default_backend api

backend api
  mode http
  balance source
  hash-type consistent
  retry-on conn-failure empty-response
  option httpchk GET /ready
  http-check expect status 200
  default-server check inter 250ms fall 2 rise 1
  server one ONE_HTTP
  server two TWO_HTTP
  server three THREE_HTTP
";

/// A running HAProxy.
pub struct Balancer {
    /// Killed before its sockets are removed.
    _daemon: Daemon,
    folder: TempDir,
    /// Where nsqd nodes connect.
    pub tcp: SocketAddr,
    /// Where the HTTP API is.
    pub http: SocketAddr,
}

impl Balancer {
    /// `None` where `HAPROXY_BIN` is unset.
    pub fn start(instances: [&Lookupd; 3]) -> Option<Self> {
        let program = programs::haproxy()?;
        let folder = TempDir::new().expect("a temporary directory");
        let sockets = Sockets::bind();
        let (tcp, http) = (sockets.tcp(), sockets.http());
        let admin = folder.path().join("admin");
        let mut configuration = CONFIGURATION
            .replace("ADMIN", &admin.display().to_string())
            .replace("bind TCP", "bind fd@4")
            .replace("bind HTTP", "bind fd@3");
        for (name, instance) in ["ONE", "TWO", "THREE"].into_iter().zip(instances) {
            for (protocol, address) in [("TCP", instance.tcp), ("HTTP", instance.http)] {
                configuration = configuration.replace(&format!("{name}_{protocol}"), &address.to_string());
            }
        }
        let file = folder.path().join("haproxy.cfg");
        fs::write(&file, configuration).expect("the folder is ours");
        let mut command: Command = sockets.pass_to(program);
        let daemon = Daemon::start(command.arg("-f").arg(file).stdin(Stdio::null()));
        wait::until("HAProxy", || UnixStream::connect(&admin).map_err(|error| error.to_string()));
        // From now on nobody else answers here.
        drop(sockets);
        TcpStream::connect(tcp).expect("HAProxy listens");
        Some(Self { _daemon: daemon, folder, tcp, http })
    }

    /// Waits until these instances, and no others, get clients.
    pub fn await_up(&self, names: &[&str]) {
        let mut names = names.to_vec();
        names.sort_unstable();
        wait::until_eq("instances that get clients", &names.join(" "), || {
            let table = self.ask("show stat");
            let mut up: Vec<_> = table.lines().filter_map(name_of_healthy).collect();
            up.sort_unstable();
            up.join(" ")
        });
    }

    fn ask(&self, command: &str) -> String {
        let mut admin = UnixStream::connect(self.folder.path().join("admin")).expect("HAProxy runs");
        let mut response = String::new();
        writeln!(admin, "{command}").and_then(|()| admin.read_to_string(&mut response)).expect("HAProxy runs");
        response
    }
}

/// The name of the server that a line of the table is about, if its checks go well.
fn name_of_healthy(line: &str) -> Option<&str> {
    let mut fields = line.strip_prefix("api,")?.split(',');
    let name = fields.next().filter(|name| *name != "BACKEND")?;
    // A server that is about to fall has "UP 1/2".
    fields.any(|field| field == "UP").then_some(name)
}
