//! A program on a core of its own: what it prints, and whether it serves yet.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::cpu::spawn_on;
use super::service::Service;
use crate::failure::{Failure, Result};

/// How long a program may take until it serves.
const STARTING: Duration = Duration::from_secs(10);
/// From one look whether it does to the next.
const POLL: Duration = Duration::from_millis(5);

/// A program that runs until this is dropped.
#[derive(Debug)]
pub struct Program {
    pub service: Service,
    /// What errors call it.
    name: String,
    /// Its command line.
    line: String,
    log: PathBuf,
}

impl Program {
    /// Starts a command on `core`; what it prints goes to the end of a file.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(name: &str, mut command: Command, core: usize, log: PathBuf) -> Result<Self> {
        let words = std::iter::once(command.get_program()).chain(command.get_args());
        let line = words.map(OsStr::to_string_lossy).collect::<Vec<_>>().join(" ");
        let service = File::options().create(true).append(true).open(&log).and_then(|output| {
            command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
            Service::start(Box::new(move || spawn_on(core, &mut command)))
        });
        let service = service.map_err(|error| failed(name, &format!("start `{line}`"), error))?;
        Ok(Self { service, name: name.to_owned(), line, log })
    }

    /// Waits until `look` finds what it looks for.
    ///
    /// # Errors
    /// When the program has ended, and what `look` has found to be amiss for too long, with the last line that it
    /// printed.
    pub fn until<T>(&self, mut look: impl FnMut() -> Result<T, String>) -> Result<T> {
        let began = Instant::now();
        loop {
            let problem = match look() {
                Ok(found) => return Ok(found),
                Err(_) if self.service.has_ended() => "ended before it listened".to_owned(),
                Err(problem) if began.elapsed() > STARTING => problem,
                Err(_) => {
                    std::thread::sleep(POLL);
                    continue;
                }
            };
            let said = std::fs::read_to_string(&self.log).unwrap_or_default();
            let said = said.lines().last().unwrap_or("nothing");
            return Err(Failure::Refused(format!("{} {problem}; `{}` said: {said}", self.name, self.line)));
        }
    }
}

/// Why a program cannot be started.
pub fn failed(name: &str, what: &str, error: io::Error) -> Failure {
    Failure::io(format_args!("{what} for {name}"), error, "see what the command does by itself")
}

/// This many ports, all different, on which nothing listens at this moment.
///
/// # Errors
/// When there are none.
pub fn free_addresses(count: usize) -> io::Result<Vec<SocketAddr>> {
    let listeners = (0..count).map(|_| TcpListener::bind("127.0.0.1:0")).collect::<io::Result<Vec<_>>>()?;
    listeners.iter().map(TcpListener::local_addr).collect()
}

#[cfg(test)]
mod tests {
    use super::super::cpu::tests::any_core;
    use super::*;

    fn start(words: &[&str]) -> Result<(Program, tempfile::TempDir)> {
        let folder = tempfile::tempdir().unwrap();
        let mut command = Command::new(words[0]);
        command.args(&words[1..]);
        let program = Program::start("x", command, any_core(), folder.path().join("log"))?;
        Ok((program, folder))
    }

    #[test]
    fn a_command_that_ends_is_quoted_with_its_last_words() {
        let (program, _folder) = start(&["sh", "-c", "echo port taken >&2; exit 1"]).unwrap();
        let error = program.until(|| Err::<(), _>("does not listen".into())).unwrap_err().to_string();
        assert!(error.starts_with("x ended before it listened") && error.ends_with("said: port taken"), "{error}");
        let error = start(&["/nowhere/nsqlookupd"]).unwrap_err().to_string();
        assert!(error.contains("start `/nowhere/nsqlookupd` for x"), "{error}");
    }

    #[test]
    fn it_is_looked_at_until_it_is_as_it_should_be() {
        let (program, _folder) = start(&["sleep", "600"]).unwrap();
        let mut looks = 0;
        let found = program.until(|| {
            looks += 1;
            if looks == 3 { Ok(looks) } else { Err("not yet".into()) }
        });
        assert_eq!(found.unwrap(), 3);
    }

    #[test]
    fn no_port_is_given_twice() {
        let mut addresses = free_addresses(20).unwrap();
        addresses.sort_unstable();
        addresses.dedup();
        assert_eq!(addresses.len(), 20);
    }
}
