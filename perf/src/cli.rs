//! The command line: what it may hold, and which scenario it starts.

use std::cell::RefCell;
use std::ffi::OsString;
use std::io::{self, Write};
use std::net::{SocketAddr, ToSocketAddrs};
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::failure::{Failure, Result};
use crate::measure::Process;
use crate::population::{Run as RunId, parse_run};
use crate::scenario::{
    Context, beside, churn, cluster, disconnect, hot, idle, lookup, populate, restart, soak, storm, tidy, watch,
    wrk,
};
use crate::{compare, floor};

/// Loads any nsqlookupd the way a real cluster does, and measures it
#[derive(Debug, Parser)]
#[command(
    version,
    after_help = "\
Examples:
  lookupd-perf lookup --populate --server-pid $(pidof nsqlookupd)
  lookupd-perf storm --producers 1000 --topics-per-producer 100 --topics 10000
  lookupd-perf lookup --help"
)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
    /// Measure with a debug build all the same
    #[arg(long, global = true, hide = true)]
    allow_debug: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Register a population and hold it
    #[command(after_help = "\
Examples:
  lookupd-perf populate --run a                              200 nsqds with 50 of 200 topics, until Ctrl-C
  lookupd-perf populate --producers 2000 --topics-per-producer 500 --topics 100000 --pipeline 64 --for 5m")]
    Populate(Run<populate::Options>),
    /// Ask for topics, as fast as answers come or at a fixed rate
    #[command(after_help = "\
Examples:
  lookupd-perf lookup --populate                             closed loop, 64 connections, population included
  lookupd-perf lookup --run a -r 20000 -d 30s                open loop over what `populate --run a` holds
  lookupd-perf lookup --populate --zipf 1.1 --pipeline 16    popular topics more often, 16 requests in a write
  lookupd-perf lookup --path /nodes -c 1                     any other target")]
    Lookup(Run<lookup::Options>),
    /// Let all nsqds connect and register at once; time until every lookup is complete
    #[command(after_help = "\
Example:
  lookupd-perf storm --producers 1000 --topics-per-producer 100 --topics 10000 --sample 10000")]
    Storm(Run<storm::Options>),
    /// Register and unregister while lookups run; their latency with and without, and the time until a write shows
    #[command(after_help = "\
Example:
  lookupd-perf churn --populate -r 5000 --writes 500 -d 30s")]
    Churn(Run<churn::Options>),
    /// Let all nsqds go at once; time until no lookup shows them
    #[command(after_help = "\
Examples:
  lookupd-perf disconnect --producers 1000 --topics-per-producer 100 --topics 10000 --within 5m
  lookupd-perf disconnect --populated-by $(pidof lookupd-perf) --run a    end `populate --run a`")]
    Disconnect(Run<disconnect::Options>),
    /// Hold connections that only send heartbeats; CPU and memory for each
    #[command(after_help = "\
Example:
  lookupd-perf idle -c 10000 -d 2m --server-pid $(pidof nsqlookupd)")]
    Idle(Run<idle::Options>),
    /// Let the nsqds of one large topic leave it and come back in turn; what a write and a lookup cost together
    #[command(after_help = "\
Examples:
  lookupd-perf hot --server-pid $(pidof nsqlookupd)
  lookupd-perf hot --producers 500 --channels 4 -d 30s")]
    Hot(Run<hot::Options>),
    /// Ask at a fixed rate while a large answer is fetched again and again; latency with and without
    #[command(after_help = "\
Examples:
  lookupd-perf beside --populate --producers 2000 --topics-per-producer 500 --topics 100000
  lookupd-perf beside --run a --path /topics -r 5000 -d 30s    over what `populate --run a` holds")]
    Beside(Run<beside::Options>),
    /// Restart the server by a command while lookups run; what the restart does to them
    #[command(after_help = "\
Examples:
  lookupd-perf restart --command 'systemctl restart nsqlookupd' --producers 20
  lookupd-perf restart --command 'kill -TERM $(pidof nsqlookupd)' --restarts 50 --heartbeat 1s    something starts it again

Each response is to list every producer of its topic: they are connected, or about to reconnect as nsqd does. The
exit code is 0 when the run came to its end, whatever the server did to the lookups.")]
    Restart(Run<restart::Options>),
    /// Register and unregister topics that are watched; the time until each watcher knows, and what watchers cost
    #[command(after_help = "\
Examples:
  lookupd-perf watch --server-pid $(pidof nsqlookupd)          1,000 watchers of 100 topics, by server-sent events
  lookupd-perf watch --mode poll                               the same by long polls
  lookupd-perf watch --mode interval --interval 1s             the same by a lookup each second, of any nsqlookupd
  lookupd-perf watch --watchers 10000 --topics 1000 --lookups 1000 --deaf 100 -d 30s

Every change is to reach every watcher of its topic, in order: an event that is missing or wrong fails the run.")]
    Watch(Run<watch::Options>),
    /// Register and unregister at one instance of a cluster; the time until the others list it, and what that costs
    #[command(after_help = "\
Examples:
  lookupd-perf cluster --tcp h1:4160,h2:4160,h3:4160 --http h1:4161,h2:4161,h3:4161
  lookupd-perf cluster --tcp h1:4160,h2:4160 --http h1:4161,h2:4161 --everywhere --by lookup -r 50 -d 30s
  lookupd-perf cluster --tcp h1:4160,h2:4160 --http h1:4161,h2:4161 --lookups 1000 --server-pid 71,72
  lookupd-perf cluster --tcp h1:4160 --http h1:4161 --lookups max    an instance alone, to hold others against
  lookupd-perf cluster --tcp h1:4160,h2:4160 --http h1:4161,h2:4161 --pipeline 64 --producers 2000 --topics-per-producer 500 --topics 100000 --keep

A population is registered, spread over the instances in turn, until each instance lists all of it. Then other nsqds
register and unregister some of its topics at one instance, or at each. An arrival is a change at one other instance:
its latency counts from when the OK to REGISTER (up) or UNREGISTER (down) was read to when the event of /watch was read
there, after which a lookup must show the same, or with --by lookup to the first lookup that shows it. Every change is
to arrive at every other instance: one that does not, and one that is undone by nobody, fails the run. A topic that an
nsqd has changed is changed again by that nsqd when all instances list it as it is.")]
    Cluster(Run<cluster::Options, Instances>),
    /// Mix everything for a long time, hostile peers too; nothing may be wrong, lost or leaked in the end
    #[command(after_help = "\
Examples:
  lookupd-perf soak -d 20m --server-pid $(pidof ringlookupd)
  lookupd-perf soak -d 5m --no-hostile                       for a server that hostile peers would end
  lookupd-perf soak --seed 7 --producers 600 --rate 2000 --writes 500

Fails when the answers at the end are not what was registered, or when memory, open files or latency
are not those of the beginning.")]
    Soak(Run<soak::Options>),
    /// Let wrk ask for one topic, as fast as answers come; what that costs the server
    #[command(after_help = "\
Examples:
  lookupd-perf wrk --run a -t 1 -c 64 --server-pid $(pidof nsqlookupd)    a topic of `populate --run a`
  lookupd-perf wrk --path /ping -d 5s

wrk reads the status of an answer and nothing else. It is to be in PATH (Debian's package wrk).")]
    Wrk(Run<wrk::Options>),
    /// Play a suite of scenarios against several servers in turn; a table, plots and every sample
    #[command(after_help = "\
Examples:
  lookupd-perf compare --server stock='nsqlookupd -tcp-address={tcp} -http-address={http} -log-level=error' \\
      --server floor='lookupd-perf floor --tcp {tcp} --http {http}'
  lookupd-perf compare --suite full --server ... --static nginx='nginx -c {conf}' --out perf/results
  lookupd-perf compare --suite cluster --server cluster='ringlookupd -cluster=etcd://{etcd} -tcp-address={tcp} -http-address={http}'")]
    Compare(compare::Options),
    /// Write the table and the plots of an earlier comparison again
    #[command(after_help = "\
Example:
  lookupd-perf plot --from perf/results/results.json --out perf/results")]
    Plot(compare::Plotting),
    /// Answer everything with the same, on a bare io_uring: the limit that other servers are held against
    #[command(after_help = "\
Example:
  lookupd-perf floor --tcp 127.0.0.1:4160 --http 127.0.0.1:4161 --body-bytes 2000")]
    Floor(floor::Options),
}

/// A scenario's options and those that all scenarios share.
#[derive(Debug, Args)]
struct Run<T: Args, S: Args = OneServer> {
    #[command(flatten)]
    options: T,
    #[command(flatten)]
    server: S,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Server and report")]
struct OneServer {
    /// Where the server listens for nsqd
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:4160")]
    tcp: String,
    /// Where the server listens for HTTP
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:4161")]
    http: String,
    /// Its process, whose CPU time, memory and open files are reported
    #[arg(long, value_name = "PID")]
    server_pid: Option<u32>,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Instances and report")]
struct Instances {
    /// Where each instance listens for nsqd
    #[arg(long, value_name = "HOST:PORT,...", value_delimiter = ',', required = true)]
    tcp: Vec<String>,
    /// Where each instance listens for HTTP, in the same order
    #[arg(long, value_name = "HOST:PORT,...", value_delimiter = ',', required = true)]
    http: Vec<String>,
    /// Their processes in the same order, whose CPU time and memory are reported
    #[arg(long, value_name = "PID,...", value_delimiter = ',')]
    server_pid: Vec<u32>,
}

/// What all scenarios share.
#[derive(Clone, Debug, Args)]
struct Common {
    /// How long an answer may take before it counts as wrong
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = humantime::parse_duration)]
    timeout: Duration,
    /// Report as one JSON object on standard output
    #[arg(long)]
    json: bool,
    /// Is in the names of all topics that are made, perf_ID_000000 and so on [default: one of chance]
    #[arg(long, value_name = "ID", value_parser = parse_run)]
    run: Option<String>,
    /// Leave these topics on the server, instead of deleting them at the end
    #[arg(long)]
    keep: bool,
}

/// Does what the command line says; what it fails with is printed on standard error, in one line.
pub fn run(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let (text, code) = match Cli::try_parse_from(arguments).map(execute) {
        Ok(Ok(())) => return ExitCode::SUCCESS,
        Ok(Err(failure)) => (failure.to_string(), failure.exit_code()),
        Err(error) if error.use_stderr() => (one_line(&error), 1),
        Err(help_or_version) => {
            let _ = help_or_version.print();
            return ExitCode::SUCCESS;
        }
    };
    // Not eprintln!: a closed pipe is no reason to panic.
    let _ = writeln!(io::stderr(), "{}: {text}", env!("CARGO_PKG_NAME"));
    code.into()
}

/// What clap has to say, without its paragraphs.
fn one_line(error: &clap::Error) -> String {
    let text = error.render().to_string();
    let lines = text.lines().take_while(|line| !line.starts_with("Usage:") && !line.starts_with("For more"));
    let words: Vec<_> = lines.flat_map(str::split_whitespace).skip_while(|word| *word == "error:").collect();
    format!("{}; see --help", words.join(" "))
}

fn execute(cli: Cli) -> Result<()> {
    if cfg!(debug_assertions) && !cli.allow_debug {
        return Err(Failure::Refused("a debug build measures itself: build with cargo build --release".into()));
    }
    match cli.command {
        Command::Populate(run) => drive(run, async |context, options| populate::run(context, &options).await),
        Command::Lookup(run) => drive(run, async |context, options| lookup::run(context, &options).await),
        Command::Storm(run) => drive(run, async |context, options| storm::run(context, &options).await),
        Command::Churn(run) => drive(run, async |context, options| churn::run(context, &options).await),
        Command::Disconnect(run) => drive(run, async |context, options| disconnect::run(context, &options).await),
        Command::Compare(options) => {
            compare::run(options, if cli.allow_debug { vec!["--allow-debug".into()] } else { Vec::new() })
        }
        Command::Plot(options) => compare::plot(&options),
        Command::Floor(options) => {
            floor::run(&options).map_err(|error| Failure::io("serve", error, "choose ports that are free"))
        }
        Command::Idle(run) => drive(run, async |context, options| idle::run(context, &options).await),
        Command::Hot(run) => drive(run, async |context, options| hot::run(context, &options).await),
        Command::Beside(run) => drive(run, async |context, options| beside::run(context, &options).await),
        Command::Restart(run) => drive(run, async |context, options| restart::run(context, &options).await),
        Command::Watch(run) => drive(run, async |context, options| watch::run(context, &options).await),
        Command::Cluster(run) => drive_all(run),
        Command::Wrk(run) => drive(run, async |context, options| wrk::run(context, &options).await),
        Command::Soak(run) => drive(run, async |context, options| soak::run(context, options).await),
    }
}

/// Runs a scenario on a ring of its own.
fn drive<T: Args>(run: Run<T>, scenario: impl AsyncFnOnce(Rc<Context>, T) -> Result<()>) -> Result<()> {
    let Run { options, server: OneServer { tcp, http, server_pid }, common } = run;
    let keep = common.keep;
    let context = Rc::new(common.context((&tcp, &http), server_pid)?);
    crate::ring::run(async {
        tokio::task::spawn_local(cancel_on_signal(context.stop.clone()));
        let result = scenario(Rc::clone(&context), options).await;
        if keep { result } else { tidy::after(&context, result).await }
    })?
}

/// The same for several instances of one cluster, whose run and end are the same.
fn drive_all(run: Run<cluster::Options, Instances>) -> Result<()> {
    let Run { options, server, common } = run;
    let keep = common.keep;
    let mut instances: Vec<Rc<Context>> = Vec::new();
    for (addresses, pid) in server.each()? {
        let mut context = common.clone().context(addresses, pid)?;
        if let Some(first) = instances.first() {
            context.run = first.run.clone();
            context.stop = first.stop.clone();
        }
        instances.push(Rc::new(context));
    }
    crate::ring::run(async {
        tokio::task::spawn_local(cancel_on_signal(instances[0].stop.clone()));
        let result = cluster::run(&instances, &options).await;
        if keep { result } else { tidy::after_at(&instances, result).await }
    })?
}

impl Instances {
    /// The addresses of each, and its process if that is given.
    fn each(&self) -> Result<impl Iterator<Item = ((&str, &str), Option<u32>)>> {
        let Self { tcp, http, server_pid } = self;
        if tcp.len() != http.len() {
            let counts = format!("{} addresses and --http {}", tcp.len(), http.len());
            return Err(Failure::Refused(format!("--tcp has {counts}: give both of each instance")));
        }
        if !server_pid.is_empty() && server_pid.len() != tcp.len() {
            let counts = format!("{} processes for {} instances", server_pid.len(), tcp.len());
            return Err(Failure::Refused(format!("--server-pid has {counts}: give that of each, or none")));
        }
        let addresses = tcp.iter().map(String::as_str).zip(http.iter().map(String::as_str));
        Ok(addresses.zip(server_pid.iter().copied().map(Some).chain(std::iter::repeat(None))))
    }
}

impl Common {
    fn context(self, (tcp, http): (&str, &str), server_pid: Option<u32>) -> Result<Context> {
        Ok(Context {
            tcp: resolve("--tcp", tcp)?,
            http: resolve("--http", http)?,
            patience: self.timeout,
            server: server_pid.map(Process::new).transpose()?,
            json: self.json,
            is_named: self.run.is_some(),
            run: self.run.map_or_else(RunId::unique, |id| RunId::of(&id)),
            made: RefCell::default(),
            stop: CancellationToken::new(),
        })
    }
}

fn resolve(flag: &str, address: &str) -> Result<SocketAddr> {
    let addresses = address.to_socket_addrs().map(|mut addresses| addresses.next());
    addresses.ok().flatten().ok_or_else(|| {
        Failure::Refused(format!("{flag} {address} leads nowhere: give a host and a port, as in 127.0.0.1:4161"))
    })
}

/// The first SIGINT or SIGTERM ends the measurement, another the process, whatever it has left on the server.
async fn cancel_on_signal(stop: CancellationToken) {
    let (Ok(mut interrupt), Ok(mut terminate)) =
        (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
    else {
        return;
    };
    loop {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        if stop.is_cancelled() {
            std::process::exit(130);
        }
        stop.cancel();
    }
}
