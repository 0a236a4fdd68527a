//! The scenarios, and what they share: the server under load, the end of a run, the tasks in it.

mod again;
pub mod beside;
pub mod churn;
pub mod cluster;
pub mod disconnect;
mod fleet;
pub mod hot;
pub mod idle;
mod load;
pub mod lookup;
mod options;
mod pacer;
mod phase;
pub mod populate;
pub mod restart;
mod sampled;
pub mod soak;
pub mod storm;
pub mod tidy;
pub mod watch;
pub mod wrk;

use std::cell::RefCell;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::failure::{Failure, Result};
use crate::measure::{Meter, Process};
use crate::open_files::allow_connections;
use crate::population::{Population, Run};
use crate::report::Report;
use crate::wire::{http, v1};
pub use load::lookup_target;

/// What every scenario has at hand.
pub struct Context {
    pub tcp: SocketAddr,
    pub http: SocketAddr,
    /// How long an answer may take.
    pub patience: Duration,
    pub server: Option<Process>,
    /// Whether the report is printed as JSON.
    pub json: bool,
    /// What the topics are called.
    pub run: Run,
    /// Whether the command line says so, which other processes then know.
    pub is_named: bool,
    /// The topics that this run makes, to be deleted at its end.
    pub made: RefCell<Vec<Names>>,
    /// Cancelled by a signal: what was measured so far is to be reported.
    pub stop: CancellationToken,
}

/// Names that are only made when they are needed: there can be a million.
pub type Names = Box<dyn Iterator<Item = String>>;

/// The tasks of a run, one for each simulated nsqd or consumer.
type Tasks = JoinSet<Result<()>>;

impl Context {
    /// A new connection as nsqd's.
    async fn nsqd(&self) -> Result<v1::Client> {
        v1::Client::open(self.tcp, self.patience).await
    }

    /// A new connection as a consumer's.
    async fn consumer(&self) -> Result<http::Client> {
        http::Client::open(self.http, self.patience).await
    }

    /// The run whose population is met: this one that registers it, or the one that holds it.
    ///
    /// # Errors
    /// When nobody says which one that is.
    fn run_of(&self, registers: bool) -> Result<&Run> {
        if registers || self.is_named {
            return Ok(&self.run);
        }
        Err(Failure::Refused(
            "a population is needed: give the run of the `populate` that holds one as --run ID, or let this one \
             register it with --populate"
                .into(),
        ))
    }

    /// Notes topics of this run before they are made.
    fn makes(&self, topics: impl Iterator<Item = String> + 'static) {
        self.made.borrow_mut().push(Box::new(topics));
    }

    /// The same of a whole population.
    fn makes_all_of(&self, population: Population) {
        let run = self.run.clone();
        self.makes((0..population.topics).map(move |topic| run.topic(topic)));
    }

    fn meter(&self) -> Result<Meter> {
        Meter::start(self.server)
    }

    /// Prints the report, at once even into a pipe: `populate` goes on afterwards.
    fn print(&self, report: &Report) -> Result<()> {
        let mut text = if self.json {
            serde_json::to_string(report).expect("text and numbers are JSON")
        } else {
            report.to_string()
        };
        text.push('\n');
        let mut stdout = io::stdout().lock();
        stdout
            .write_all(text.as_bytes())
            .and_then(|()| stdout.flush())
            .map_err(|error| Failure::io("print the report", error, "read it to its end"))
    }

    /// Waits for the time to pass or a signal; true when the signal came first.
    async fn is_stopped_within(&self, time: Duration) -> bool {
        self.stop.run_until_cancelled(tokio::time::sleep(time)).await.is_none()
    }
}

/// Waits until every task has ended.
///
/// # Errors
/// The first failure among them.
///
/// # Panics
/// With a task that panicked.
async fn finished(tasks: &mut Tasks) -> Result<()> {
    while let Some(ended) = tasks.join_next().await {
        match ended {
            Ok(result) => result?,
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    }
    Ok(())
}

/// Waits for the time at most.
///
/// # Errors
/// When the work is not done by then.
async fn within<T>(time: Duration, what: &str, work: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::time::timeout(time, work).await.unwrap_or_else(|_| {
        Err(Failure::Late(format!("not {what} within {time:?}: give the server longer with --within")))
    })
}
