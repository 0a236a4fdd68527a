//! ringlookupd: a drop-in replacement for NSQ's nsqlookupd, on io_uring.
//!
//! This library is internal. It is public so that the program, the tests and the benches can use it; it has no stable
//! interface and is not published.
//!
//! The modules in the order in which a byte meets them:
//!
//! - [`options`]: what the operator asked for, on the command line and in the file.
//! - [`limits`]: every cap of the server, in one place.
//! - [`admission`]: permits for connections, in all and for each address.
//! - [`access`]: who may do what, by address, token or certificate.
//! - [`server`]: binds, starts the workers, waits for a signal, drains.
//! - [`reload`]: which settings a running server takes.
//! - [`readiness`]: whether clients should be sent here.
//! - [`service_manager`]: what is reported to systemd.
//! - [`upgrade`]: leaving everything to another process.
//! - [`process`]: signals, the limit of open files, cores.
//! - [`listen`]: the listening sockets, bound or inherited.
//! - [`retry`]: trying again what another process is about to leave.
//! - [`threads`]: the worker threads, and which backend all of them use.
//! - [`io`]: the vocabulary between the core and the kernel, and the ring and epoll that speak it.
//! - [`mailbox`]: what other threads tell a worker.
//! - [`worker`]: the event loop: events in, one commit an iteration, requests out; accepting, the transitions of a
//!   connection, deadlines and the drain.
//! - [`timers`]: when to look at which connection.
//! - [`connection`]: a worker's connections, each with its input, output and phase.
//! - [`transport`]: the bytes of a connection between its socket and its session, plain or within TLS.
//! - [`cause`]: why a connection ends, for the log.
//! - [`v1`]: the protocol of nsqd.
//! - [`http`]: the protocol of consumers and nsqadmin.
//! - [`endpoint`]: the endpoints of the HTTP API.
//! - [`context`]: what a worker's sessions share.
//! - [`batch`]: the changes of an iteration, which wait for its commit.
//! - [`response_head`]: how HTTP responses begin.
//! - [`output`]: what a connection still has to send.
//! - [`registry`]: who produces what, in immutable snapshots; changes in, outcomes out.
//! - [`topology`]: topics and channels that are known beforehand, by a file.
//! - [`state`]: the registry on disk, so that a restart loses nothing.
//! - [`cluster`]: one registry on several machines, which share it in etcd.
//! - [`watch`]: clients that wait for changes, and streams of events.
//! - [`spread`]: what many clients would otherwise do at the same moment.
//! - [`change_log`]: the log's lines of what each change has done.
//! - [`api`]: the documents that grow with the registry, page by page.
//! - [`ui`]: the page for browsers: its files, what it shows, and the joins and departures of late.
//! - [`json`]: strings and lists as Go writes them.
//! - [`whole_file`]: files that an operator writes and the server reads as a whole.
//! - [`toml_error`]: what is wrong in a TOML file, in one line.
//! - [`clock`], [`log`] and [`metrics`]: time, lines and figures for the operator.

pub mod access;
pub mod admission;
pub mod api;
pub mod batch;
pub mod cause;
pub mod change_log;
pub mod clock;
pub mod cluster;
pub mod connection;
pub mod context;
pub mod endpoint;
pub mod http;
pub mod io;
pub mod json;
pub mod limits;
pub mod listen;
pub mod log;
pub mod mailbox;
pub mod metrics;
pub mod options;
pub mod output;
pub mod process;
pub mod readiness;
pub mod registry;
pub mod reload;
pub mod response_head;
pub mod retry;
pub mod server;
pub mod service_manager;
pub mod spread;
pub mod state;
pub mod threads;
pub mod timers;
pub mod toml_error;
pub mod topology;
pub mod transport;
pub mod ui;
pub mod upgrade;
pub mod v1;
pub mod watch;
pub mod whole_file;
pub mod worker;

/// The version in responses: that of the nsqlookupd it stands in for.
pub const VERSION: &str = "1.3.0";

/// What `-version` prints and the log begins with: a line in stock's form, then this program's own version.
pub fn version_lines() -> [String; 2] {
    let (compiler, commit, target) =
        (env!("RINGLOOKUPD_RUSTC"), env!("RINGLOOKUPD_COMMIT"), env!("RINGLOOKUPD_TARGET"));
    [
        format!("nsqlookupd v{VERSION} (built w/rustc{compiler})"),
        format!("ringlookupd {} ({commit}, {target})", env!("CARGO_PKG_VERSION")),
    ]
}
