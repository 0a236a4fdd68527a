//! Two lookupds behind HAProxy are restarted in turn, as an operator does for an upgrade, and no request fails: a
//! stopping server responds on the connections that it has accepted, and refuses new ones at once, so that HAProxy
//! tries the other.
//!
//! `RINGLOOKUPD_RESTARTS=1000` sets the number of restarts.

use std::env;
use std::fs;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use ringlookupd::io::Backend;
use tempfile::TempDir;

use crate::daemon::Daemon;
use crate::programs::{self, haproxy};
use crate::support::Server;
use crate::support::clients::{ask, exchange, introduce, request};
use crate::wait;

on_both_drivers!(rolling_restarts_fail_no_request);

/// Default number of restarts.
const RESTARTS: usize = 4;

/// The longest that a request may take, on top of the slowest response that HAProxy makes itself.
const LONGEST_WAIT: Duration = Duration::from_millis(300);

/// Between a client's requests.
const PACE: Duration = Duration::from_millis(1);

/// Longer than a restart takes, as nsqd's 15 s is.
const PING_INTERVAL: Duration = Duration::from_millis(500);

/// HAProxy responds to this path itself: the time that takes is the machine's share in a wait.
const OWN_PATH: &str = "/haproxy";

/// The target of health checks, which no client uses.
const CHECK: &str = "/ping?check";

fn rolling_restarts_fail_no_request(backend: Backend) {
    let Some(program) = haproxy() else {
        return;
    };
    let restarts = env::var("RINGLOOKUPD_RESTARTS").map_or(RESTARTS, |count| count.parse().expect("a number"));
    let mut lookupds = [0, 1].map(|_| Lookupd::start(backend, &[]));
    let haproxy = Haproxy::start(&program, &lookupds);
    let over = Arc::new(AtomicBool::new(false));
    let producers = lookupds.each_ref().map(|lookupd| {
        let (over, tcp) = (Arc::clone(&over), lookupd.server.tcp);
        thread::spawn(move || produce(tcp, &over))
    });
    for lookupd in &lookupds {
        haproxy.await_health(lookupd);
    }
    let client = |keeps, paths| Client::start(&haproxy.listening, &over, keeps, paths);
    let clients = [true, true, false, false].map(|keeps| client(keeps, &PATHS));
    let witness = client(true, &[OWN_PATH]);

    for nth in 0..restarts {
        let lookupd = &mut lookupds[nth % 2];
        lookupd.restart(backend);
        haproxy.await_health(lookupd);
    }

    over.store(true, Ordering::Relaxed);
    let seen = clients.map(|client| client.join().expect("a client fails by its report"));
    let late = witness.join().expect("a client fails by its report").longest;
    drop(lookupds);
    for producer in producers {
        producer.join().expect("every reply was right");
    }
    let total: usize = seen.iter().map(|seen| seen.requests).sum();
    let longest = seen.iter().map(|seen| seen.longest).max().unwrap_or_default();
    let failures: Vec<_> = seen.into_iter().flat_map(|seen| seen.failures).collect();
    println!("{restarts} restarts, {total} requests, longest wait {longest:?}, HAProxy's own {late:?}");
    assert!(failures.is_empty(), "{} of {total} requests failed: {failures:#?}", failures.len());
    assert!(longest <= LONGEST_WAIT + late, "a request waited {longest:?}, HAProxy's own {late:?}");
}

/// Both servers respond 200. To `/lookup` 404 is right too: a server that has just started knows no topic.
const PATHS: [&str; 4] = ["/ping", "/topics", "/nodes", "/lookup?topic=orders"];

struct Lookupd {
    server: Server,
}

impl Lookupd {
    fn start(backend: Backend, addresses: &[String]) -> Self {
        let (program, io) = programs::lookupd(backend);
        // Requests are logged at debug.
        let level = ["-log-level=debug".to_owned()];
        Self { server: Server::start_program(&program, &[&io[..], &level, addresses].concat()) }
    }

    /// Stops the server and starts it again, on the ports that it had.
    fn restart(&mut self, backend: Backend) {
        let server = &mut self.server;
        let addresses = [format!("-tcp-address={}", server.tcp), format!("-http-address={}", server.http)];
        server.signal(rustix::process::Signal::TERM);
        let status = server.wait_for_exit(wait::PATIENCE).expect("it ends");
        assert!(status.success(), "{status}; its log:\n{}", server.log());
        *self = Self::start(backend, &addresses);
    }
}

struct Haproxy {
    /// Killed before its sockets are removed.
    _daemon: Daemon,
    folder: TempDir,
    listening: PathBuf,
}

impl Haproxy {
    fn start(program: &Path, lookupds: &[Lookupd; 2]) -> Self {
        let folder = TempDir::new().expect("a temporary directory");
        let path = |name: &str| folder.path().join(name);
        let [one, two] = lookupds.each_ref().map(|lookupd| lookupd.server.http);
        let (listening, admin) = (path("http"), path("admin"));
        // After a refused connection HAProxy tries again at once, or after the connect timeout if it has found
        // meanwhile that only one server is left.
        let configuration = format!(
            "global\n  stats socket {admin}\n\
             defaults\n  mode http\n  timeout connect 100ms\n  timeout client 1m\n  timeout server 1m\n  timeout check 10s\n\
             \x20 retries 3\n  option redispatch\n  retry-on conn-failure empty-response\n\
             frontend consumers\n  bind unix@{listening}\n\
             \x20 http-request return status 200 if {{ path {OWN_PATH} }}\n  default_backend lookupds\n\
             backend lookupds\n  option httpchk GET {CHECK}\n  default-server check inter 50ms rise 1\n\
             \x20 server one {one}\n  server two {two}\n",
            admin = admin.display(),
            listening = listening.display(),
        );
        fs::write(path("haproxy.cfg"), configuration).expect("the folder is ours");
        let daemon = Daemon::start(Command::new(program).arg("-f").arg(path("haproxy.cfg")).stdin(Stdio::null()));
        wait::until("HAProxy", || UnixStream::connect(&listening).map_err(|error| error.to_string()));
        Self { _daemon: daemon, folder, listening }
    }

    /// Waits until HAProxy knows that both servers are healthy, as an operator has to before the next restart. Its
    /// second check proves that it has seen the response to the first.
    fn await_health(&self, lookupd: &Lookupd) {
        wait::until("two checks", || match lookupd.server.log().matches(CHECK).count() {
            2.. => Ok(()),
            few => Err(format!("{few} checks")),
        });
        wait::until("healthy servers", || {
            let mut admin =
                UnixStream::connect(self.folder.path().join("admin")).map_err(|error| error.to_string())?;
            let mut table = String::new();
            admin.write_all(b"show stat\n").and_then(|()| admin.read_to_string(&mut table)).expect("HAProxy runs");
            let up = table.lines().filter(|line| is_up(line)).count();
            if up == 2 { Ok(()) } else { Err(table) }
        });
    }
}

/// Whether the line of the table is that of a healthy server.
fn is_up(line: &str) -> bool {
    let mut fields = line.split(',');
    fields.next() == Some("lookupds") && fields.next() != Some("BACKEND") && fields.any(|field| field == "UP")
}

/// A producer that acts as nsqd does: its next PING finds out that the connection has ended, and it connects and
/// registers again.
fn produce(lookupd: SocketAddr, over: &AtomicBool) {
    let mut connection = None;
    while !over.load(Ordering::Relaxed) {
        connection = match connection {
            None => register(lookupd).ok(),
            Some(mut connection) => ask(&mut connection, b"PING\n").is_ok().then_some(connection),
        };
        thread::sleep(PING_INTERVAL);
    }
}

fn register(lookupd: SocketAddr) -> io::Result<TcpStream> {
    let mut connection = introduce(lookupd, "node", 0)?;
    let reply = ask(&mut connection, b"REGISTER orders archive\n")?;
    assert_eq!(reply, b"OK", "{}", reply.escape_ascii());
    Ok(connection)
}

/// What a client saw.
#[derive(Default)]
struct Seen {
    requests: usize,
    failures: Vec<String>,
    longest: Duration,
}

struct Client {
    haproxy: PathBuf,
    connection: Option<UnixStream>,
    seen: Seen,
}

impl Client {
    /// Asks for the paths in turn until it is over; on one connection, if it `keeps` it.
    fn start(haproxy: &Path, over: &Arc<AtomicBool>, keeps: bool, paths: &[&'static str]) -> JoinHandle<Seen> {
        let (over, paths) = (Arc::clone(over), paths.to_vec());
        let mut client = Self { haproxy: haproxy.to_owned(), connection: None, seen: Seen::default() };
        thread::spawn(move || {
            for path in paths.iter().cycle() {
                if over.load(Ordering::Relaxed) {
                    break;
                }
                client.get(path);
                if !keeps {
                    client.connection = None;
                }
                thread::sleep(PACE);
            }
            client.seen
        })
    }

    fn get(&mut self, path: &str) {
        let begun = Instant::now();
        let status = self.try_get(path);
        let waited = begun.elapsed();
        self.seen.requests += 1;
        self.seen.longest = self.seen.longest.max(waited);
        let failure = match status {
            Ok(status) if status == "200" || status == "404" && path.starts_with("/lookup") => return,
            Ok(status) => status,
            Err(error) => {
                self.connection = None;
                error.to_string()
            }
        };
        self.seen.failures.push(format!("{path}: {failure} after {waited:?}"));
    }

    /// The status of the response.
    fn try_get(&mut self, path: &str) -> io::Result<String> {
        let connection = match &mut self.connection {
            Some(connection) => connection,
            none => none.insert(UnixStream::connect(&self.haproxy)?),
        };
        connection.set_read_timeout(Some(wait::PATIENCE))?;
        let response = exchange(connection, &request("GET", path))?;
        Ok(response.get(9..12).unwrap_or_default().to_owned())
    }
}
