//! The servers under comparison: how each is started, what it is able to answer, and its end.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::str::FromStr;
use std::time::{Duration, Instant};

use super::cell::Ability;
use super::cpu::spawn_on;
use super::service::{self, Service};
use crate::document::{BODY_BYTES, document};
use crate::failure::{Failure, Result};
use crate::wire::http::Decoder;

/// How long a server may take until it accepts connections, and to say what it is.
const STARTING: Duration = Duration::from_secs(10);
/// From one attempt to connect to the next, until the server listens.
const POLL: Duration = Duration::from_millis(5);

/// `NAME=COMMAND`, as on the command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recipe {
    pub name: String,
    /// With its placeholders: `{tcp}` and `{http}` are addresses, `{body}` is a number of bytes, `{conf}` a file
    /// that makes nginx answer every request with as many, `{data}` a folder.
    pub command: String,
}

impl FromStr for Recipe {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, command) = text.split_once('=').ok_or("write it as NAME='COMMAND'")?;
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        if name.is_empty() || !name.bytes().all(is_plain) {
            return Err(format!("\"{name}\" is no name: use letters, digits, '-', '_' and '.'"));
        }
        match shlex::split(command) {
            Some(words) if !words.is_empty() => Ok(Self { name: name.into(), command: command.into() }),
            _ => Err(format!("\"{command}\" is no command: give a program and its flags, with quotes in pairs")),
        }
    }
}

/// A server that runs until this is dropped.
#[derive(Debug)]
pub struct Server {
    service: Service,
    /// Where scenarios that restart it find its process id.
    pid_file: PathBuf,
    is_restarted: bool,
    tcp: SocketAddr,
    http: SocketAddr,
    pub ability: Ability,
    /// What it calls itself: the version in `/info`, or the Server field of any answer.
    pub version: Option<String>,
}

impl Server {
    /// Starts a server on `core` and on ports of the kernel's choice; what it prints goes to a file in `folder`.
    /// One that is to answer a `document` only is not asked for more, otherwise what it is able to is found out.
    ///
    /// # Errors
    /// When it cannot be started, ends, or does not listen in time, with the last line that it printed.
    pub fn start(recipe: &Recipe, document: bool, body_bytes: usize, core: usize, folder: &Path) -> Result<Self> {
        let failed = |what: &str, error| {
            Failure::io(format_args!("{what} for {}", recipe.name), error, "see what the command does by itself")
        };
        let [tcp, http] = free_addresses().map_err(|error| failed("find a free port", error))?;
        let conf = folder.join(format!("{}.conf", recipe.name));
        // Of its own: an earlier server of the same name has left its state behind.
        let data = tempfile::tempdir_in(folder).map_err(|error| failed("make a folder", error))?.keep();
        let [conf_path, data_path] = [&conf, &data].map(|path| path.to_string_lossy());
        let words = words(&recipe.command, tcp, http, body_bytes, &conf_path, &data_path);
        if recipe.command.contains("{conf}") {
            std::fs::write(&conf, nginx_conf(http, body_bytes, folder))
                .map_err(|error| failed("write the configuration", error))?;
        }
        let log = folder.join(format!("{}.log", recipe.name));
        let spawn = {
            let (words, log) = (words.clone(), log.clone());
            move || {
                let output = || File::options().create(true).append(true).open(&log).map(Stdio::from);
                let mut command = Command::new(&words[0]);
                command.args(&words[1..]).env(BODY_BYTES, body_bytes.to_string()).stdin(Stdio::null());
                spawn_on(core, command.stdout(output()?).stderr(output()?))
            }
        };
        let service = Service::start(Box::new(spawn))
            .map_err(|error| failed(&format!("start `{}`", words.join(" ")), error))?;
        let pid_file = data.with_extension("pid");
        let mut server =
            Self { service, pid_file, tcp, http, ability: Ability::Document, version: None, is_restarted: false };
        server.settle(document).map_err(|problem| {
            let said = std::fs::read_to_string(&log).unwrap_or_default();
            let said = said.lines().last().unwrap_or("nothing");
            Failure::Refused(format!("{} {problem}; `{}` said: {said}", recipe.name, words.join(" ")))
        })?;
        Ok(server)
    }

    /// Starts it again from now on whenever it ends, as a service manager does.
    ///
    /// # Errors
    /// When its process id cannot be written down.
    pub fn restart_always(&mut self) -> Result<()> {
        self.is_restarted = true;
        self.service.restart_always(self.pid_file.clone()).map_err(|error| {
            Failure::io(
                format_args!("write {}", self.pid_file.display()),
                error,
                "set TMPDIR to where there is room",
            )
        })
    }

    /// What tells a scenario where it is, and its process or how to restart it.
    pub fn arguments(&self) -> [String; 6] {
        let (tcp, http) = (self.tcp.to_string(), self.http.to_string());
        let [flag, value] = if self.is_restarted {
            ["--command".into(), service::restart_command(&self.pid_file)]
        } else {
            ["--server-pid".into(), self.service.pid().to_string()]
        };
        ["--tcp".into(), tcp, "--http".into(), http, flag, value]
    }

    /// Waits until the server listens, and finds out what it is.
    fn settle(&mut self, document: bool) -> Result<(), String> {
        let ports = if document { vec![self.http] } else { vec![self.http, self.tcp] };
        let began = Instant::now();
        while let Some(stalled) = ports.iter().find(|port| TcpStream::connect(port).is_err()) {
            if self.service.has_ended() {
                return Err("ended before it listened".into());
            }
            if began.elapsed() > STARTING {
                return Err(format!("does not listen on {stalled}"));
            }
            std::thread::sleep(POLL);
        }
        let info = info(self.http).map_err(|problem| format!("does not answer /info: {problem}"))?;
        self.version = info.version.or(info.software);
        self.ability = match (document, info.is_nsqlookupd) {
            (true, _) => Ability::Document,
            (false, true) if watches(self.http) => Ability::Watches,
            (false, true) => Ability::Registry,
            (false, false) => Ability::Answers,
        };
        Ok(())
    }
}

/// The words of a command, its placeholders filled in.
fn words(
    command: &str,
    tcp: SocketAddr,
    http: SocketAddr,
    body_bytes: usize,
    conf: &str,
    data: &str,
) -> Vec<String> {
    let fill = |word: String| {
        word.replace("{tcp}", &tcp.to_string())
            .replace("{http}", &http.to_string())
            .replace("{body}", &body_bytes.to_string())
            .replace("{conf}", conf)
            .replace("{data}", data)
    };
    shlex::split(command).into_iter().flatten().map(fill).collect()
}

/// Two ports that nobody listens on at this moment.
fn free_addresses() -> std::io::Result<[SocketAddr; 2]> {
    let listeners = [TcpListener::bind("127.0.0.1:0")?, TcpListener::bind("127.0.0.1:0")?];
    Ok([listeners[0].local_addr()?, listeners[1].local_addr()?])
}

/// nginx as one process that answers everything with a document, and does nothing else.
fn nginx_conf(http: SocketAddr, body_bytes: usize, folder: &Path) -> String {
    // nginx takes no parameter above 4 KB, but a long value made of short ones.
    const PIECE: usize = 1024;
    let document = document(body_bytes).replace(&" ".repeat(PIECE), "${piece}");
    format!(
        "daemon off;\n\
         master_process off;\n\
         error_log stderr crit;\n\
         pid {folder}/nginx.pid;\n\
         events {{ worker_connections 16384; }}\n\
         http {{\n\
         access_log off;\n\
         keepalive_requests 1000000000;\n\
         keepalive_timeout 1h;\n\
         server {{\n\
         listen {http} backlog=4096;\n\
         default_type application/json;\n\
         set $piece '{piece}';\n\
         return 200 '{document}';\n\
         }}\n\
         }}\n",
        folder = folder.display(),
        piece = " ".repeat(PIECE)
    )
}

/// What `/info` tells.
struct Info {
    is_nsqlookupd: bool,
    version: Option<String>,
    /// The Server field of the answer.
    software: Option<String>,
}

fn info(http: SocketAddr) -> Result<Info, String> {
    let answer = ask(http, "/info").map_err(|error| error.to_string())?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let version = serde_json::from_str::<serde_json::Value>(body)
        .ok()
        .and_then(|info| info.get("version")?.as_str().map(str::to_owned));
    let software = head.lines().find_map(|line| line.strip_prefix("Server: ")).map(str::to_owned);
    Ok(Info { is_nsqlookupd: version.is_some(), version, software })
}

/// Whether a stream of events begins at `/watch`.
fn watches(http: SocketAddr) -> bool {
    let head = || {
        let mut stream = TcpStream::connect(http)?;
        stream.set_read_timeout(Some(STARTING))?;
        stream.write_all(format!("GET /watch HTTP/1.1\r\nHost: {http}\r\n\r\n").as_bytes())?;
        let mut status = [0; "HTTP/1.1 200".len()];
        stream.read_exact(&mut status).map(|()| status)
    };
    head().is_ok_and(|status: [u8; 12]| &status == b"HTTP/1.1 200")
}

/// The whole answer to a GET, head and body.
fn ask(http: SocketAddr, target: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(http)?;
    stream.set_read_timeout(Some(STARTING))?;
    stream.write_all(format!("GET {target} HTTP/1.1\r\nHost: {http}\r\n\r\n").as_bytes())?;
    let (mut answer, mut piece) = (Vec::new(), [0; 4096]);
    loop {
        match Decoder::default().decode(&answer) {
            Ok(Some(_)) => return Ok(String::from_utf8_lossy(&answer).into_owned()),
            Ok(None) => {}
            Err(malformed) => return Err(std::io::Error::other(malformed.to_string())),
        }
        #[expect(clippy::disallowed_methods, reason = "it is made again below")]
        match stream.read(&mut piece) {
            Ok(0) => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => answer.extend_from_slice(&piece[..read]),
            // A signal came first: the kernel does not go on by itself where a timeout is set (signal(7)).
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};

    use super::*;

    fn recipe(text: &str) -> Recipe {
        text.parse().unwrap()
    }

    /// What listens on two ports and answers every request with the same bytes, until the tests end.
    fn fake(answer: &'static str) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let (mut head, mut input) = (String::new(), BufReader::new(stream.try_clone().unwrap()));
                while input.read_line(&mut head).unwrap() > "\r\n".len() {}
                if !head.is_empty() {
                    stream.write_all(answer.as_bytes()).unwrap();
                }
            }
        });
        address
    }

    #[test]
    fn recipes_are_a_name_and_a_command() {
        let stock = recipe("stock='nsqlookupd' -tcp-address={tcp} -x=y");
        assert_eq!((&*stock.name, &*stock.command), ("stock", "'nsqlookupd' -tcp-address={tcp} -x=y"));
        for bad in ["stock", "=nginx", "a b=c", "stock=", "stock='x"] {
            assert!(bad.parse::<Recipe>().is_err(), "{bad}");
        }
    }

    #[test]
    fn placeholders_are_filled_after_the_words_are_parted() {
        let [tcp, http] = ["127.0.0.1:1", "127.0.0.1:2"].map(|address| address.parse().unwrap());
        let words = words("'a b' -t={tcp} {http} -b {body} {conf} -d={data}", tcp, http, 7, "/with a space", "/d");
        assert_eq!(words, ["a b", "-t=127.0.0.1:1", "127.0.0.1:2", "-b", "7", "/with a space", "-d=/d"]);
    }

    #[test]
    fn what_a_server_is_shows_in_its_info() {
        let lookupd = info(fake("HTTP/1.1 200 OK\r\nContent-Length: 19\r\n\r\n{\"version\":\"1.3.0\"}")).unwrap();
        assert!(lookupd.is_nsqlookupd && lookupd.version.as_deref() == Some("1.3.0"));
        let nginx = info(fake("HTTP/1.1 200 OK\r\nServer: nginx/1\r\nContent-Length: 2\r\n\r\n{}")).unwrap();
        assert!(!nginx.is_nsqlookupd && nginx.software.as_deref() == Some("nginx/1"));
        assert!(watches(fake("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")));
        assert!(!watches(fake("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")));
    }

    #[test]
    fn a_command_that_ends_is_quoted_with_its_last_words() {
        let folder = tempfile::tempdir().unwrap();
        let core = super::super::cpu::tests::any_core();
        let start = |command: &str| {
            let started = Server::start(&recipe(command), false, 10, core, folder.path());
            started.unwrap_err().to_string()
        };
        let error = start("x=sh -c 'echo port taken >&2; exit 1'");
        assert!(error.starts_with("x ended before it listened") && error.ends_with("said: port taken"), "{error}");
        assert!(start("x=/nowhere/nsqlookupd").contains("start `/nowhere/nsqlookupd` for x"));
    }
}
