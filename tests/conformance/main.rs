//! Plays the cases recorded from stock nsqlookupd against the server: each file of `cases/` is two
//! tests, one for each way into the kernel, named as the file is, with a fresh server process.
//! README.md documents the format.

#[path = "../support/both_drivers.rs"]
#[expect(unused_macros, reason = "the tests are made when the program runs")]
mod both_drivers;
mod case;
mod normal;
mod player;
mod selftest;
#[path = "../support/mod.rs"]
mod support;
mod wire;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use libtest_mimic::{Arguments, Failed, Trial};

use both_drivers::BACKENDS;
use case::Case;
use ringlookupd::io::Backend;
use support::Server;

/// Names another server program to play the cases against: stock's, to verify this player.
const SERVER_VARIABLE: &str = "RINGLOOKUPD_CONFORMANCE_SERVER";

fn main() -> ExitCode {
    if let Some(why) = both_drivers::missing(Backend::Uring) {
        eprintln!("uring:: is skipped: {why}");
    }
    let mut trials = recorded_cases();
    trials.extend(selftest::trials());
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

/// # Panics
/// If there are no cases: a suite that finds nothing must not pass.
fn recorded_cases() -> Vec<Trial> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/conformance/cases");
    let mut paths: Vec<PathBuf> = fs::read_dir(&folder)
        .and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect())
        .unwrap_or_else(|err| panic!("{}: {err}", folder.display()));
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "json"));
    assert!(!paths.is_empty(), "no cases in {}", folder.display());
    paths.sort();
    targets().into_iter().flat_map(|target| paths.iter().map(move |path| target.trial(path))).collect()
}

/// What the cases are played against.
#[derive(Clone, Copy)]
enum Target {
    /// This package's server.
    Own(Backend),
    /// Another server, which does not know our flags.
    Other,
}

fn targets() -> Vec<Target> {
    match std::env::var_os(SERVER_VARIABLE) {
        Some(_) => vec![Target::Other],
        None => BACKENDS.map(Target::Own).into(),
    }
}

impl Target {
    fn trial(self, path: &Path) -> Trial {
        let case = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let path = path.to_owned();
        match self {
            Self::Other => Trial::test(case, move || play_file(&path, &[])),
            Self::Own(backend) => {
                let name = format!("{}::{case}", both_drivers::name(backend));
                let missing = both_drivers::missing(backend);
                Trial::test(name, move || play_file(&path, &[both_drivers::flag(backend)]))
                    .with_ignored_flag(missing.is_some())
            }
        }
    }
}

fn play_file(path: &Path, flags: &[String]) -> Result<(), Failed> {
    let mut case: Case = serde_json::from_str(&fs::read_to_string(path)?)?;
    if path.file_stem().is_none_or(|stem| stem != case.name.as_str()) {
        return Err(format!("the case is called {}", case.name).into());
    }
    case.flags.extend_from_slice(flags);
    play_case(&case).map_err(|wrong| format!("{}\n{wrong}", case.why).into())
}

/// Plays `case` against a server of its own; the error tells what differed.
fn play_case(case: &Case) -> Result<(), String> {
    let mut server = match std::env::var_os(SERVER_VARIABLE) {
        Some(program) => Server::start_program(Path::new(&program), &case.flags),
        None => Server::start(&case.flags),
    };
    let played = player::play(case, server.tcp, server.http);
    match server.exited() {
        Some(status) => Err(format!("the server died ({status}); {played:?}; its log:\n{}", server.log())),
        None => played,
    }
}
