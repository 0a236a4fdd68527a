//! `compare`: several servers under the same loads, side by side. Each module uses those above it alone:
//!
//! - `statistics`: medians and ranges.
//! - `cpu`, `host`: which core a process runs on; the machine.
//! - `progress`: how far the plan is.
//! - `scale`: the populations.
//! - `cell`: what is measured at once, and by which scenario.
//! - `suite`: which cells at which populations, how often and for how long.
//! - `service`: a process that is started again when it ends.
//! - `program`, `probe`: whether it serves, and what it is by what it responds.
//! - `etcd`: what a cluster shares.
//! - `server`: what is compared, one process or several, and how it is started.
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
mod etcd;
mod generator;
mod host;
mod measure;
mod play;
mod plot;
mod probe;
mod program;
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
use std::fmt::Display;
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
use server::{Recipe, Server, Site};
use suite::{Suite, Visit};

/// Where nobody names another.
const ETCD: &str = "etcd";

#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// What to play
    #[arg(long, value_enum, default_value = "quick")]
    suite: Suite,
    /// A server, started with its two addresses in place of {tcp} and {http}, and a folder of its own in place of
    /// {data}, which is empty at first and outlives a restart; the first is what the others' ratios are to. One with the
    /// address of an etcd in place of {etcd} is a cluster of three, each with its number in place of {node}
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
    /// The etcd of clusters, each of which has one of its own [default: etcd in PATH]
    #[arg(long, value_name = "PROGRAM", env = "ETCD_BIN", hide_env_values = true)]
    etcd: Option<PathBuf>,
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
    let (servers, etcd) = with_etcd(options.servers, options.etcd.as_deref())?;
    let recipes = [servers, options.statics.clone()].concat();
    if let Some(name) = repeated(&recipes) {
        return Err(Failure::Refused(format!("two servers are called {name}: give each a name of its own")));
    }
    let wrk = wrk::version();
    let visits = visits(options.suite, wrk.is_some());
    let first_static = recipes.len() - options.statics.len();
    let site = Site { cores, folder: folder.path(), etcd: options.etcd.as_deref().unwrap_or(Path::new(ETCD)) };
    let contenders = recipes.iter().enumerate().map(|(place, recipe)| {
        let document = place >= first_static;
        contender(recipe, document, site)
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

    let mut comparison = Comparison { wrk, etcd, ..empty(options.suite, &visits, contenders.clone(), cores) };
    let began = Instant::now();
    let stage = Stage { recipes: &recipes, contenders: &contenders, generator: &generator, site };
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

/// What the suite plays, wrk's part only where wrk is there.
fn visits(suite: Suite, has_wrk: bool) -> Vec<Visit> {
    let visits = suite.visits();
    let needs_wrk = |visit: &Visit| visit.steps().any(|step| step.cell == cell::Cell::Wrk);
    if has_wrk || !visits.iter().any(needs_wrk) {
        return visits;
    }
    left_out(cell::Cell::Wrk, "wrk is not in PATH (Debian's package wrk)");
    visits.into_iter().map(|visit| visit.without(cell::Cell::Wrk)).collect()
}

/// The servers that can be started, and the version of etcd if any of them needs one.
///
/// # Errors
/// A program that was named and is no etcd, and no server at all.
fn with_etcd(servers: Vec<Recipe>, named: Option<&Path>) -> Result<(Vec<Recipe>, Option<String>)> {
    if !servers.iter().any(Recipe::is_cluster) {
        return Ok((servers, None));
    }
    let version = etcd::version(named.unwrap_or(Path::new(ETCD)));
    if let (None, Some(named)) = (&version, named) {
        return Err(Failure::Refused(format!(
            "{} is no etcd: give its program as --etcd or in ETCD_BIN",
            named.display()
        )));
    }
    if version.is_some() {
        return Ok((servers, version));
    }
    let (clusters, others): (Vec<_>, Vec<_>) = servers.into_iter().partition(Recipe::is_cluster);
    for cluster in clusters {
        left_out(&cluster.name, "etcd is not in PATH (Debian's package etcd-server; or give it as --etcd)");
    }
    if others.is_empty() {
        return Err(Failure::Refused("no server is left: give one without {etcd}, or --etcd".into()));
    }
    Ok((others, None))
}

/// Says what is not played, and why.
fn left_out(what: impl Display, why: &str) {
    // A closed pipe is no reason to stop.
    let _ = writeln!(std::io::stderr(), "\"{what}\" is left out: {why}");
}

/// What a server turns out to be when it is started to see.
fn contender(recipe: &Recipe, document: bool, site: Site<'_>) -> Result<Contender> {
    let server = Server::start(recipe, document, 2, site)?;
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
        etcd: None,
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
