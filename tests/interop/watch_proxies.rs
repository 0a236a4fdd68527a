//! Streams of events through nginx and HAProxy with their usual timeouts of about a minute: an event passes at once, and a stream
//! that has nothing to say stays, because of its comments.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;

use ringlookupd::io::Backend;
use tempfile::TempDir;

use crate::both_drivers::{self, BACKENDS};
use crate::daemon::Daemon;
use crate::programs;
use crate::support::Server;
use crate::support::clients::Nsqd;
use crate::wait;

/// One each 15 s: more than a minute in all.
const COMMENTS: usize = 5;

/// A proxy that listens on a Unix socket.
struct Proxy {
    /// Killed before its socket is removed.
    _daemon: Daemon,
    _folder: TempDir,
    listening: PathBuf,
}

impl Proxy {
    /// `configure` is given the folder and the socket.
    fn start(configure: impl Fn(&Path, &Path) -> String, mut command: Command) -> Self {
        let folder = TempDir::new().expect("a temporary directory");
        let (file, listening) = (folder.path().join("proxy.conf"), folder.path().join("http"));
        fs::write(&file, configure(folder.path(), &listening)).expect("the folder is ours");
        let daemon = Daemon::start(command.arg(&file).stdin(Stdio::null()));
        wait::until("the proxy", || UnixStream::connect(&listening).map_err(|error| error.to_string()));
        Self { _daemon: daemon, _folder: folder, listening }
    }

    fn send(&self, request: &str) -> BufReader<UnixStream> {
        let mut stream = UnixStream::connect(&self.listening).expect("the proxy runs");
        stream.write_all(request.as_bytes()).expect("the proxy reads");
        BufReader::new(stream)
    }
}

/// All at once, as each takes more than a minute.
#[test]
fn a_stream_passes_proxies() {
    thread::scope(|scope| {
        for backend in BACKENDS {
            scope.spawn(move || both_drivers::run(backend, nginx));
            scope.spawn(move || both_drivers::run(backend, haproxy));
        }
    });
}

fn nginx(backend: Backend) {
    let Some(program) = programs::nginx() else { return };
    let mut command = Command::new(program);
    // Of these two nginx has a default outside the folder.
    command.args(["-e", "stderr", "-g", "daemon off;", "-c"]);
    check(backend, command, |server, folder, socket| {
        let (folder, socket, http) = (folder.display(), socket.display(), server.http);
        let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|kind| format!("  {kind}_temp_path {folder}/{kind};\n"))
            .concat();
        format!(
            "pid {folder}/pid;\nevents {{}}\nhttp {{\n  access_log off;\n{temporary}  server {{\n    listen unix:{socket};\n    \
             location / {{ proxy_pass http://{http}; proxy_http_version 1.1; }}\n  }}\n}}\n"
        )
    });
}

fn haproxy(backend: Backend) {
    let Some(program) = programs::haproxy() else { return };
    let mut command = Command::new(program);
    command.arg("-f");
    check(backend, command, |server, _, socket| {
        let (socket, http) = (socket.display(), server.http);
        // Those of the distribution's file.
        format!(
            "defaults\n  mode http\n  timeout connect 5000\n  timeout client 50000\n  timeout server 50000\n\
             frontend consumers\n  bind unix@{socket}\n  default_backend lookupds\n\
             backend lookupds\n  server one {http}\n"
        )
    });
}

fn check(backend: Backend, command: Command, configure: impl Fn(&Server, &Path, &Path) -> String) {
    let (program, io) = programs::lookupd(backend);
    let server = Server::start_program(&program, &io);
    let proxy = Proxy::start(|folder, socket| configure(&server, folder, socket), command);
    let mut nsqd = Nsqd::identified(server.tcp, "node", 1);
    let mut events = proxy.send("GET /watch?topic=t HTTP/1.1\r\nHost: h\r\n\r\n");
    let mut line = String::new();
    let mut until = |what: &str| {
        line.clear();
        while !line.contains(what) {
            line.clear();
            assert!(events.read_line(&mut line).expect("the stream goes on") > 0, "it ends before {what}");
        }
    };
    until("event: snapshot");
    nsqd.register("t");
    until("event: up");
    for _ in 0..COMMENTS {
        until(":\n");
        until("\n");
        assert_eq!(nsqd.ask(b"PING\n"), b"OK");
    }
    assert_eq!(nsqd.ask(b"UNREGISTER t\n"), b"OK");
    until("event: down");

    let mut topics = proxy.send("GET /topics HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
    let mut response = String::new();
    topics.read_to_string(&mut response).expect("a response");
    // HAProxy writes names of headers in lower case.
    let headers = response.lines().filter_map(|line| line.split_once(": "));
    let tag = headers.filter(|(name, _)| name.eq_ignore_ascii_case("etag")).map(|(_, tag)| tag).next();
    let tag = tag.expect("it passes the proxy");
    let request =
        format!("GET /topics?wait=1s HTTP/1.1\r\nHost: h\r\nIf-None-Match: {tag}\r\nConnection: close\r\n\r\n");
    let mut response = String::new();
    proxy.send(&request).read_to_string(&mut response).expect("a response");
    assert!(response.starts_with("HTTP/1.1 304 "), "{response}");
}
