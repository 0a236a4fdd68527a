//! `compare`: several servers under the same loads, side by side. Each module uses those above it alone:
//!
//! - `statistics`: medians and ranges.
//! - `cpu`, `host`: which core a process runs on; the machine.
//! - `progress`: how far the plan is.
//! - `scale`: the populations.
//! - `cell`: what is measured at once, and by which scenario.
//! - `suite`: which cells at which populations, how often and for how long.
//! - `service`: a process that is started again when it ends.
//! - `server`: what is compared, and how it is started.
//! - `record`: every sample, with what it takes to get it again.
//! - `generator`: scenarios as processes, and their reports.
//! - `play`: servers take turns.
//! - `measure`: which figures are shown.
//! - `score`: what samples say of a figure.
//! - `table`: they are shown as text.
//! - `chart`, `plot`: they are shown as pictures.

mod cell;
mod chart;
mod cpu;
mod generator;
mod host;
mod measure;
mod play;
mod plot;
mod progress;
mod record;
mod scale;
mod score;
mod server;
mod service;
mod statistics;
mod suite;
mod table;

use std::cell::Cell;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use signal_hook::consts::{SIGINT, SIGTERM};

use crate::failure::{Failure, Result};
use crate::scenario::wrk;
use cpu::Cores;
use generator::Generator;
use host::Host;
use play::Stage;
use progress::Progress;
use record::{Comparison, Contender};
use server::{Recipe, Server};
use suite::{Suite, Visit};

#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// What to play
    #[arg(long, value_enum, default_value = "quick")]
    suite: Suite,
    /// A server, started with its two addresses in place of {tcp} and {http}, and a folder of its own in place of
    /// {data}, which is empty at first and outlives a restart; the first is what the others' ratios are to
    #[arg(long = "server", value_name = "NAME=COMMAND", required = true)]
    servers: Vec<Recipe>,
    /// A server that answers every request with one document, on {http}; {body} is how long it is to be, {conf} a
    /// configuration that makes nginx such a server
    #[arg(long = "static", value_name = "NAME=COMMAND")]
    statics: Vec<Recipe>,
    /// The folder for results.json, table.md and the plots
    #[arg(long, value_name = "FOLDER", default_value = "results")]
    out: PathBuf,
    /// The core that servers run on [default: the last there is]
    #[arg(long, value_name = "N")]
    server_core: Option<usize>,
    /// The core that the load runs on [default: the first there is]
    #[arg(long, value_name = "N")]
    load_core: Option<usize>,
    /// The program whose scenarios are the load, in place of this one
    #[arg(long, value_name = "PROGRAM", hide = true)]
    generator: Option<PathBuf>,
}

#[derive(Clone, Debug, clap::Args)]
pub struct Plotting {
    /// The results.json of a comparison
    #[arg(long, value_name = "FILE", default_value = "results/results.json")]
    from: PathBuf,
    /// The folder for table.md and the plots
    #[arg(long, value_name = "FOLDER", default_value = "results")]
    out: PathBuf,
}

/// Writes the table and the plots of an earlier comparison again.
///
/// # Errors
/// A file that is not the results.json of this program, and what cannot be written.
pub fn plot(options: &Plotting) -> Result<()> {
    let Plotting { from, out } = options;
    let text = std::fs::read_to_string(from).map_err(|error| {
        Failure::io(
            format_args!("read {}", from.display()),
            error,
            "give the results.json of a comparison as --from",
        )
    })?;
    let comparison: Comparison = serde_json::from_str(&text).map_err(|error| {
        Failure::Refused(format!("{} is not the results.json of a comparison: {error}", from.display()))
    })?;
    std::fs::create_dir_all(out).map_err(|error| unwritable(out, error))?;
    show(&comparison, out)
}

/// Plays a suite, prints the table, and writes everything down; `scenario_options` go to every scenario.
///
/// # Errors
/// A server that does not start, a cell that failed, a signal. What was measured by then is printed and written all
/// the same.
pub fn run(options: Options, scenario_options: Vec<String>) -> Result<()> {
    let cores = Cores::choose(options.server_core, options.load_core)?;
    cores.stay_with_the_load()?;
    let folder = tempfile::tempdir()
        .map_err(|error| Failure::io("make a temporary folder", error, "set TMPDIR to where there is room"))?;
    std::fs::create_dir_all(&options.out).map_err(|error| unwritable(&options.out, error))?;
    let recipes = [options.servers, options.statics.clone()].concat();
    if let Some(name) = repeated(&recipes) {
        return Err(Failure::Refused(format!("two servers are called {name}: give each a name of its own")));
    }
    let wrk = wrk::version();
    let mut visits = options.suite.visits();
    if wrk.is_none() {
        visits = visits.into_iter().map(|visit| visit.without(cell::Cell::Wrk)).collect();
        // A closed pipe is no reason to stop.
        let message = "is left out: wrk is not in PATH (Debian's package wrk)";
        let _ = writeln!(std::io::stderr(), "\"{}\" {message}", cell::Cell::Wrk);
    }
    let first_static = recipes.len() - options.statics.len();
    let contenders = recipes.iter().enumerate().map(|(place, recipe)| {
        let document = place >= first_static;
        contender(recipe, document, cores, folder.path())
    });
    let contenders = contenders.collect::<Result<Vec<_>>>()?;
    let generator = Generator {
        program: options.generator.map_or_else(own_program, Ok)?,
        core: cores.load,
        folder: folder.path().to_owned(),
        options: scenario_options,
        stop: Arc::default(),
        started: Cell::default(),
    };
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&generator.stop))
            .map_err(|error| Failure::io("listen for signals", error, "allow sigaction"))?;
    }

    let mut comparison = Comparison { wrk, ..empty(options.suite, &visits, contenders.clone(), cores) };
    let began = Instant::now();
    let stage =
        Stage { recipes: &recipes, contenders: &contenders, generator: &generator, cores, folder: folder.path() };
    let progress = Progress::show(stage.turns(&visits));
    let played = stage.play(&visits, &progress, &mut |sample| comparison.samples.push(sample));
    drop(progress);
    comparison.seconds = began.elapsed().as_secs_f64();
    print!("{}", table::markdown(&comparison));
    write(&comparison, &options.out)?;
    played?;
    match comparison.failures().len() {
        0 => Ok(()),
        failed => Err(Failure::Refused(format!("{failed} of the cells failed: see below the table"))),
    }
}

/// What a server turns out to be when it is started to see.
fn contender(recipe: &Recipe, document: bool, cores: Cores, folder: &Path) -> Result<Contender> {
    let server = Server::start(recipe, document, 2, cores.server, folder)?;
    let Recipe { name, command } = recipe.clone();
    Ok(Contender { name, command, ability: server.ability, version: server.version.clone() })
}

/// A comparison before its first sample.
fn empty(suite: Suite, visits: &[Visit], servers: Vec<Contender>, cores: Cores) -> Comparison {
    let mut scales: Vec<_> = visits.iter().flat_map(Visit::steps).map(|step| step.scale).collect();
    scales.sort_by_key(|scale| scale.name);
    scales.dedup();
    let words: Vec<_> = std::env::args().skip(1).collect();
    let words = shlex::try_join(words.iter().map(|word| &**word)).unwrap_or_else(|_| words.join(" "));
    Comparison {
        command: format!("{} {words}", env!("CARGO_PKG_NAME")),
        version: env!("CARGO_PKG_VERSION").into(),
        commit: host::commit(),
        began: humantime::format_rfc3339_seconds(SystemTime::now()).to_string(),
        seconds: 0.0,
        suite,
        wrk: None,
        host: Host::here(),
        cores,
        scales,
        servers,
        samples: Vec::new(),
    }
}

fn repeated(recipes: &[Recipe]) -> Option<&str> {
    let mut names: Vec<_> = recipes.iter().map(|recipe| &*recipe.name).collect();
    names.sort_unstable();
    names.windows(2).find(|pair| pair[0] == pair[1]).map(|pair| pair[0])
}

fn own_program() -> Result<PathBuf> {
    std::env::current_exe().map_err(|error| Failure::io("find this program", error, "mount /proc"))
}

/// Writes results.json and what it shows.
fn write(comparison: &Comparison, folder: &Path) -> Result<()> {
    let json = serde_json::to_string_pretty(comparison).expect("text and numbers are JSON");
    let path = folder.join("results.json");
    std::fs::write(&path, json + "\n").map_err(|error| unwritable(&path, error))?;
    show(comparison, folder)
}

/// Writes table.md and the plots.
fn show(comparison: &Comparison, folder: &Path) -> Result<()> {
    let path = folder.join("table.md");
    std::fs::write(&path, table::markdown(comparison)).map_err(|error| unwritable(&path, error))?;
    chart::charts(comparison).iter().try_for_each(|chart| plot::draw(chart, folder))
}

fn unwritable(path: &Path, error: std::io::Error) -> Failure {
    Failure::io(format_args!("write {}", path.display()), error, "give another folder as --out")
}
