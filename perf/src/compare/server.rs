//! The servers under comparison: how each is started, what it is able to answer, and its end.

use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::str::FromStr;

use super::cell::{Ability, Cell};
use super::cpu::Cores;
use super::etcd::Etcd;
use super::program::{Program, failed, free_addresses};
use super::{probe, service};
use crate::document::{BODY_BYTES, document};
use crate::failure::{Failure, Result};

/// Instances of a cluster.
const INSTANCES: usize = 3;

/// `NAME=COMMAND`, as on the command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recipe {
    pub name: String,
    /// With its placeholders: `{tcp}` and `{http}` are addresses, `{body}` is a number of bytes, `{conf}` a file
    /// that makes nginx answer every request with as many, `{data}` a folder, `{etcd}` the address of an etcd, `{node}`
    /// the number of an instance.
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

impl Recipe {
    /// Whether it is for several instances, which share an etcd.
    pub fn is_cluster(&self) -> bool {
        self.command.contains("{etcd}")
    }

    /// The words of the command, with values in place of placeholders.
    fn words(&self, values: &[(&str, String)]) -> Vec<String> {
        let fill = |word| values.iter().fold(word, |word: String, (name, value)| word.replace(name, value));
        shlex::split(&self.command).into_iter().flatten().map(fill).collect()
    }
}

/// Where servers run.
#[derive(Clone, Copy, Debug)]
pub struct Site<'a> {
    pub cores: Cores,
    /// For what servers print and keep.
    pub folder: &'a Path,
    /// The program for clusters. It runs on the load's core: what it uses is not the server's.
    pub etcd: &'a Path,
}

/// A server that runs until this is dropped: one process, or the instances of a cluster.
#[derive(Debug)]
pub struct Server {
    /// One at least; dropped before their etcd.
    instances: Vec<Instance>,
    _etcd: Option<Etcd>,
    is_restarted: bool,
    pub ability: Ability,
    /// What it calls itself: the version in `/info`, or the Server field of any answer.
    pub version: Option<String>,
}

#[derive(Debug)]
struct Instance {
    program: Program,
    tcp: SocketAddr,
    http: SocketAddr,
    /// Where scenarios that restart it find its process id.
    pid_file: PathBuf,
}

impl Server {
    /// Starts a server on ports of the kernel's choice. One that is to answer a `document` only is not asked for more,
    /// otherwise what it is able to is found out.
    ///
    /// # Errors
    /// When it cannot be started, ends, or does not serve in time, with the last line that it printed.
    pub fn start(recipe: &Recipe, document: bool, body_bytes: usize, site: Site<'_>) -> Result<Self> {
        let etcd = recipe
            .is_cluster()
            .then(|| Etcd::start(&recipe.name, site.etcd, site.cores.load, site.folder))
            .transpose()?;
        let count = if etcd.is_some() { INSTANCES } else { 1 };
        let ports = free_addresses(2 * count).map_err(|error| failed(&recipe.name, "find a free port", error))?;
        let etcd_address = etcd.as_ref().map(|etcd| etcd.address.to_string()).unwrap_or_default();
        let start = |(node, ports): (usize, &[SocketAddr])| {
            let values = [
                ("{tcp}", ports[0].to_string()),
                ("{http}", ports[1].to_string()),
                ("{body}", body_bytes.to_string()),
                ("{etcd}", etcd_address.clone()),
                ("{node}", node.to_string()),
            ];
            Instance::start(recipe, (ports[0], ports[1]), body_bytes, values.into(), site)
        };
        let instances = (1..).zip(ports.chunks_exact(2)).map(start).collect::<Result<Vec<_>>>()?;
        let mut server =
            Self { instances, _etcd: etcd, is_restarted: false, ability: Ability::Document, version: None };
        server.settle(document)?;
        Ok(server)
    }

    /// Starts it again from now on whenever it ends, as a service manager does; of a cluster the first instance.
    ///
    /// # Errors
    /// When its process id cannot be written down.
    pub fn restart_always(&mut self) -> Result<()> {
        self.is_restarted = true;
        let Instance { program, pid_file, .. } = &mut self.instances[0];
        program.service.restart_always(pid_file.clone()).map_err(|error| {
            Failure::io(format_args!("write {}", pid_file.display()), error, "set TMPDIR to where there is room")
        })
    }

    /// What tells a cell's scenario where the server is, and its process or how to restart it. Of a cluster that is the
    /// first instance, or all where the cell is about all.
    pub fn arguments(&self, cell: Cell) -> [String; 6] {
        let count = if cell.is_of_all_instances() { self.instances.len() } else { 1 };
        let list =
            |of: fn(&Instance) -> String| self.instances[..count].iter().map(of).collect::<Vec<_>>().join(",");
        let (tcp, http) = (list(|instance| instance.tcp.to_string()), list(|instance| instance.http.to_string()));
        let [flag, value] = if self.is_restarted {
            ["--command".into(), service::restart_command(&self.instances[0].pid_file)]
        } else {
            ["--server-pid".into(), list(|instance| instance.program.service.pid().to_string())]
        };
        ["--tcp".into(), tcp, "--http".into(), http, flag, value]
    }

    /// Waits until all of it serves, and finds out what it is.
    fn settle(&mut self, document: bool) -> Result<()> {
        for instance in &self.instances {
            instance.listens(document)?;
        }
        let is_cluster = self.instances.len() > 1;
        if is_cluster {
            for Instance { program, http, .. } in &self.instances {
                // Any other body tells what an instance lacks, such as its etcd.
                program.until(|| probe::responds(*http, "/ready", Some("OK")))?;
            }
        }
        let Instance { program, http, .. } = &self.instances[0];
        let info = program.until(|| probe::info(*http))?;
        self.version = info.version.or(info.software);
        self.ability = match (document, info.is_nsqlookupd) {
            (true, _) => Ability::Document,
            (false, true) if probe::watches(*http) && is_cluster => Ability::Cluster,
            (false, true) if probe::watches(*http) => Ability::Watches,
            (false, true) => Ability::Registry,
            (false, false) => Ability::Answers,
        };
        Ok(())
    }
}

impl Instance {
    /// Starts the command on the server's core, a folder of its own among the values.
    fn start(
        recipe: &Recipe,
        (tcp, http): (SocketAddr, SocketAddr),
        body_bytes: usize,
        mut values: Vec<(&'static str, String)>,
        site: Site<'_>,
    ) -> Result<Self> {
        let Recipe { name, command } = recipe;
        let Site { folder, cores, .. } = site;
        let failed = |what: &str, error| failed(name, what, error);
        let conf = folder.join(format!("{name}.conf"));
        if command.contains("{conf}") {
            std::fs::write(&conf, nginx_conf(http, body_bytes, folder))
                .map_err(|error| failed("write the configuration", error))?;
        }
        // Of its own: an earlier server of the same name has left its state behind.
        let data = tempfile::tempdir_in(folder).map_err(|error| failed("make a folder", error))?.keep();
        for (placeholder, path) in [("{conf}", &conf), ("{data}", &data)] {
            values.push((placeholder, path.to_string_lossy().into_owned()));
        }
        let words = recipe.words(&values);
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).env(BODY_BYTES, body_bytes.to_string());
        let program = Program::start(name, command, cores.server, folder.join(format!("{name}.log")))?;
        Ok(Self { program, tcp, http, pid_file: data.with_extension("pid") })
    }

    /// Waits until it listens.
    fn listens(&self, document: bool) -> Result<()> {
        let ports = if document { vec![self.http] } else { vec![self.http, self.tcp] };
        self.program.until(|| {
            let stalled = ports.iter().find(|port| TcpStream::connect(port).is_err());
            stalled.map_or(Ok(()), |port| Err(format!("does not listen on {port}")))
        })
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn recipe(text: &str) -> Recipe {
        text.parse().unwrap()
    }

    #[test]
    fn recipes_are_a_name_and_a_command() {
        let stock = recipe("stock='nsqlookupd' -tcp-address={tcp} -x=y");
        assert_eq!((&*stock.name, &*stock.command), ("stock", "'nsqlookupd' -tcp-address={tcp} -x=y"));
        for bad in ["stock", "=nginx", "a b=c", "stock=", "stock='x"] {
            assert!(bad.parse::<Recipe>().is_err(), "{bad}");
        }
        assert!(!stock.is_cluster() && recipe("a=b -cluster=etcd://{etcd}").is_cluster());
    }

    #[test]
    fn placeholders_are_filled_after_the_words_are_parted() {
        let values = [("{tcp}", "127.0.0.1:1"), ("{conf}", "/with a space"), ("{node}", "2")];
        let values = values.map(|(name, value)| (name, value.to_owned()));
        let words = recipe("x='a b' -t={tcp} {tcp} -n {node} {conf}").words(&values);
        assert_eq!(words, ["a b", "-t=127.0.0.1:1", "127.0.0.1:1", "-n", "2", "/with a space"]);
    }

    #[test]
    fn a_command_that_ends_is_quoted_with_its_last_words() {
        let folder = tempfile::tempdir().unwrap();
        let core = super::super::cpu::tests::any_core();
        let site = Site {
            cores: Cores { server: core, load: core },
            folder: folder.path(),
            etcd: Path::new("/nowhere/etcd"),
        };
        let start = |command: &str| Server::start(&recipe(command), false, 10, site).unwrap_err().to_string();
        let error = start("x=sh -c 'echo port taken >&2; exit 1'");
        assert!(error.starts_with("x ended before it listened") && error.ends_with("said: port taken"), "{error}");
        assert!(start("x=/nowhere/nsqlookupd").contains("start `/nowhere/nsqlookupd` for x"));
        assert!(start("x=true {etcd}").contains("start `/nowhere/etcd --data-dir="));
    }
}
