//! What the operator asks for: the command line, then the TOML file, then the defaults, as in stock nsqlookupd.
//!
//! Every error is one line that names the flag, or the file and key, with the value and what is allowed.

mod address;
mod address_range;
mod duration;
mod file;
mod flags;
mod help;
mod restart;
mod setting;
mod suggest;
mod table;
mod web_address;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::num::NonZeroUsize;
use std::thread;
use std::time::Duration;

pub use address::{AddressError, ListenAddress};
pub use address_range::AddressRange;
pub use duration::{DurationError, GoDuration, parse_duration};
pub use help::{FlagHelp, Group, flags};
pub use setting::SettingValue;
pub use web_address::WebAddress;

use crate::access::{AccessOptions, AddressRanges};
use crate::cluster::ClusterOptions;
use crate::cluster::etcd::{ClusterAddress, EtcdFiles};
use crate::io;
use crate::limits::{Limit, Limits, WORKERS_MAX};
use crate::log::{Format, Level, LogOptions};
use crate::registry::Lifetimes;
use crate::transport::{ClientAuth, MinVersion, TlsOptions};
use crate::version_lines;

/// The settings of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Where nsqd nodes connect.
    pub tcp_address: Option<ListenAddress>,
    /// Where HTTP clients connect.
    pub http_address: Option<ListenAddress>,
    /// Where nsqd nodes connect with TLS.
    pub tcp_tls_address: Option<ListenAddress>,
    /// Where HTTP clients connect with TLS.
    pub https_address: Option<ListenAddress>,
    /// Certificates, and what is asked of clients, where TLS is spoken.
    pub tls: TlsOptions,
    /// How this node names itself in the response to IDENTIFY. Kept as given, even if empty, as in stock.
    pub broadcast_address: String,
    /// For how long after its last ping a producer is listed. Less than 2^63 ns.
    pub inactive_producer_timeout: Duration,
    /// For how long a tombstone hides a producer. Less than 2^63 ns.
    pub tombstone_lifetime: Duration,
    /// How long after its last producer has gone an ephemeral topic or channel is forgotten; zero is never. `None` is
    /// as long as the inactive producer timeout.
    pub forget_ephemeral_after: Option<Duration>,
    /// The same for every other topic or channel.
    pub forget_unused_after: Duration,
    /// After how long without a PING an older connection of a node is not listed; zero is never.
    pub supersede_silent: Duration,
    /// The folder of the state; empty for none.
    pub data_path: String,
    /// At most so often the state is written.
    pub state_interval: Duration,
    /// For how long after a start producers from before are listed that have not come back.
    pub restore_grace: Duration,
    /// The file of topics and channels that are known beforehand; empty for none.
    pub topology_file: String,
    /// Whether responses have tags, and clients may wait for changes.
    pub watch: bool,
    /// For how long a client may watch before it has to connect again; zero is for ever.
    pub max_watch_age: Duration,
    /// The least severe level that is logged.
    pub log_level: Level,
    /// The start of every log line of text.
    pub log_prefix: String,
    /// How log lines are written.
    pub log_format: Format,
    /// How many threads serve, at most [`WORKERS_MAX`].
    pub workers: NonZeroUsize,
    /// Whether each worker keeps to a core of its own.
    pub pin_workers: bool,
    /// How the workers talk to the kernel.
    pub io: io::BackendChoice,
    /// For how long a worker looks out for what comes next before it sleeps.
    pub busy_poll: Duration,
    /// How long everything still works after SIGTERM, while `/ready` says that the server stops.
    pub shutdown_delay: Duration,
    /// How long after the start the server is not ready.
    pub warm_up: Duration,
    /// Who may use `/config`.
    pub allow_config_from_cidr: AddressRange,
    /// Who may do what.
    pub access: AccessOptions,
    /// Whether the page is served.
    pub ui: bool,
    /// Where the page's links to nsqadmin lead.
    pub nsqadmin_url: WebAddress,
    /// The other instances that share the registry.
    pub cluster: ClusterOptions,
    /// What clients may do.
    pub limits: Limits,
}

/// What the command line asks the program to do.
#[derive(Debug)]
pub enum Invocation {
    /// Serve.
    Run(Box<Options>),
    /// Print this text, which ends in a line feed, to standard output and exit with success.
    Print(String),
}

/// Why the settings cannot be used: one line for the operator, about the command line or the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OptionsError {
    CommandLine(String),
    File(String),
}

impl OptionsError {
    /// What the process exits with: 2 for the command line, as Go's package flag has it, otherwise 1 (stock).
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::CommandLine(_) => 2,
            Self::File(_) => 1,
        }
    }
}

impl fmt::Display for OptionsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CommandLine(line) | Self::File(line) => f.write_str(line),
        }
    }
}

impl std::error::Error for OptionsError {}

/// What one source says; `None` leaves the choice to the next one.
#[expect(clippy::option_option, reason = "the inner one is an address or none")]
#[derive(Debug, Default)]
struct Overrides {
    config: Option<String>,
    version: Option<bool>,
    log_level: Option<Level>,
    log_prefix: Option<String>,
    log_format: Option<Format>,
    tcp_address: Option<Option<ListenAddress>>,
    http_address: Option<Option<ListenAddress>>,
    tcp_tls_address: Option<Option<ListenAddress>>,
    https_address: Option<Option<ListenAddress>>,
    tls_cert: Option<String>,
    tls_key: Option<String>,
    tls_root_ca_file: Option<String>,
    tls_client_auth_policy: Option<ClientAuth>,
    tls_min_version: Option<MinVersion>,
    broadcast_address: Option<String>,
    inactive_producer_timeout: Option<Duration>,
    tombstone_lifetime: Option<Duration>,
    forget_ephemeral_after: Option<Duration>,
    forget_unused_after: Option<Duration>,
    supersede_silent: Option<Duration>,
    data_path: Option<String>,
    state_interval: Option<Duration>,
    restore_grace: Option<Duration>,
    topology_file: Option<String>,
    watch: Option<bool>,
    max_watch_age: Option<Duration>,
    workers: Option<NonZeroUsize>,
    pin_workers: Option<bool>,
    io: Option<io::BackendChoice>,
    busy_poll: Option<Duration>,
    shutdown_delay: Option<Duration>,
    warm_up: Option<Duration>,
    allow_config_from_cidr: Option<AddressRange>,
    tcp_allow: Option<AddressRanges>,
    http_allow: Option<AddressRanges>,
    http_admin_allow: Option<AddressRanges>,
    auth_token_file: Option<String>,
    ui: Option<bool>,
    nsqadmin_url: Option<WebAddress>,
    cluster: Option<Option<ClusterAddress>>,
    cluster_node: Option<String>,
    cluster_stale: Option<Duration>,
    cluster_user_file: Option<String>,
    cluster_ca_file: Option<String>,
    cluster_cert: Option<String>,
    cluster_key: Option<String>,
    limits: BTreeMap<Limit, u64>,
}

impl Options {
    /// How long producers, tombstones and unused names are kept.
    pub fn lifetimes(&self) -> Lifetimes {
        Lifetimes {
            inactive_producer_timeout: self.inactive_producer_timeout,
            tombstone_lifetime: self.tombstone_lifetime,
            forget_ephemeral_after: self.forget_ephemeral_after.unwrap_or(self.inactive_producer_timeout),
            forget_unused_after: self.forget_unused_after,
            supersede_silent: self.supersede_silent,
        }
    }

    /// Reads the arguments, without the program's name, and the file that they name.
    ///
    /// # Errors
    /// An unknown flag or key, a value that is not allowed, a stray argument, or a file that cannot be read.
    pub fn from_args(args: impl Iterator<Item = OsString>) -> Result<Invocation, OptionsError> {
        let Some(given) = flags::parse(args)? else {
            return Ok(Invocation::Print(help::usage()));
        };
        if given.version == Some(true) {
            return Ok(Invocation::Print(version_lines().join("\n") + "\n"));
        }
        let file = match given.config.as_deref() {
            // Stock: an empty path is no file.
            None | Some("") => Overrides::default(),
            Some(path) => file::load(path)?,
        };
        Ok(Invocation::Run(Box::new(given.apply_to(file.apply_to(Self::default())))))
    }

    /// What is set of the log.
    pub fn log(&self) -> LogOptions {
        LogOptions { level: self.log_level, prefix: self.log_prefix.clone(), format: self.log_format }
    }
}

impl Overrides {
    /// What is given here, and for the rest what `base` holds.
    fn apply_to(self, base: Options) -> Options {
        let mut limits = base.limits;
        self.limits.into_iter().for_each(|(limit, value)| limits.set(limit, value));
        Options {
            tcp_address: self.tcp_address.unwrap_or(base.tcp_address),
            http_address: self.http_address.unwrap_or(base.http_address),
            tcp_tls_address: self.tcp_tls_address.unwrap_or(base.tcp_tls_address),
            https_address: self.https_address.unwrap_or(base.https_address),
            tls: TlsOptions {
                cert: self.tls_cert.unwrap_or(base.tls.cert),
                key: self.tls_key.unwrap_or(base.tls.key),
                root_ca_file: self.tls_root_ca_file.unwrap_or(base.tls.root_ca_file),
                client_auth: self.tls_client_auth_policy.unwrap_or(base.tls.client_auth),
                min_version: self.tls_min_version.unwrap_or(base.tls.min_version),
            },
            broadcast_address: self.broadcast_address.unwrap_or(base.broadcast_address),
            inactive_producer_timeout: self.inactive_producer_timeout.unwrap_or(base.inactive_producer_timeout),
            tombstone_lifetime: self.tombstone_lifetime.unwrap_or(base.tombstone_lifetime),
            forget_ephemeral_after: self.forget_ephemeral_after.or(base.forget_ephemeral_after),
            forget_unused_after: self.forget_unused_after.unwrap_or(base.forget_unused_after),
            supersede_silent: self.supersede_silent.unwrap_or(base.supersede_silent),
            data_path: self.data_path.unwrap_or(base.data_path),
            state_interval: self.state_interval.unwrap_or(base.state_interval),
            restore_grace: self.restore_grace.unwrap_or(base.restore_grace),
            topology_file: self.topology_file.unwrap_or(base.topology_file),
            watch: self.watch.unwrap_or(base.watch),
            max_watch_age: self.max_watch_age.unwrap_or(base.max_watch_age),
            log_level: self.log_level.unwrap_or(base.log_level),
            log_prefix: self.log_prefix.unwrap_or(base.log_prefix),
            log_format: self.log_format.unwrap_or(base.log_format),
            workers: self.workers.unwrap_or(base.workers),
            pin_workers: self.pin_workers.unwrap_or(base.pin_workers),
            io: self.io.unwrap_or(base.io),
            busy_poll: self.busy_poll.unwrap_or(base.busy_poll),
            shutdown_delay: self.shutdown_delay.unwrap_or(base.shutdown_delay),
            warm_up: self.warm_up.unwrap_or(base.warm_up),
            allow_config_from_cidr: self.allow_config_from_cidr.unwrap_or(base.allow_config_from_cidr),
            access: AccessOptions {
                tcp_allow: self.tcp_allow.or(base.access.tcp_allow),
                http_allow: self.http_allow.or(base.access.http_allow),
                http_admin_allow: self.http_admin_allow.or(base.access.http_admin_allow),
                auth_token_file: self.auth_token_file.unwrap_or(base.access.auth_token_file),
            },
            ui: self.ui.unwrap_or(base.ui),
            nsqadmin_url: self.nsqadmin_url.unwrap_or(base.nsqadmin_url),
            cluster: ClusterOptions {
                address: self.cluster.unwrap_or(base.cluster.address),
                node: self.cluster_node.unwrap_or(base.cluster.node),
                stale: self.cluster_stale.unwrap_or(base.cluster.stale),
                files: EtcdFiles {
                    user: self.cluster_user_file.unwrap_or(base.cluster.files.user),
                    ca: self.cluster_ca_file.unwrap_or(base.cluster.files.ca),
                    cert: self.cluster_cert.unwrap_or(base.cluster.files.cert),
                    key: self.cluster_key.unwrap_or(base.cluster.files.key),
                },
            },
            limits,
        }
    }
}

impl Default for Options {
    /// Stock's defaults, with a worker for each core that this process may use.
    fn default() -> Self {
        let address = |text: &str| Some(text.parse().expect("a default is well-formed"));
        let log = LogOptions::default();
        Self {
            tcp_address: address("0.0.0.0:4160"),
            http_address: address("0.0.0.0:4161"),
            tcp_tls_address: None,
            https_address: None,
            tls: TlsOptions::default(),
            broadcast_address: rustix::system::uname().nodename().to_string_lossy().into_owned(),
            inactive_producer_timeout: Duration::from_secs(5 * 60),
            tombstone_lifetime: Duration::from_secs(45),
            forget_ephemeral_after: None,
            forget_unused_after: Duration::ZERO,
            // Two of nsqd's heartbeats.
            supersede_silent: Duration::from_secs(30),
            data_path: String::new(),
            state_interval: Duration::from_secs(1),
            // As long as nsqd takes at most to notice that its connection is lost and to connect again, twice.
            restore_grace: Duration::from_secs(60),
            topology_file: String::new(),
            watch: true,
            // So that watchers spread over the instances behind a load balancer.
            max_watch_age: Duration::from_secs(60 * 60),
            log_level: log.level,
            log_prefix: log.prefix,
            log_format: log.format,
            workers: thread::available_parallelism().map_or(NonZeroUsize::MIN, |cores| cores.min(WORKERS_MAX)),
            pin_workers: false,
            io: io::BackendChoice::Auto,
            busy_poll: Duration::ZERO,
            shutdown_delay: Duration::ZERO,
            // Two of nsqd's heartbeats.
            warm_up: Duration::from_secs(30),
            allow_config_from_cidr: AddressRange::default(),
            access: AccessOptions::default(),
            ui: true,
            nsqadmin_url: WebAddress::default(),
            cluster: ClusterOptions::default(),
            limits: Limits::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(args: &[&str]) -> Options {
        match Options::from_args(args.iter().map(OsString::from)) {
            Ok(Invocation::Run(options)) => *options,
            other => panic!("{args:?}: {other:?}"),
        }
    }

    #[test]
    fn the_defaults_are_stocks() {
        let options = run(&[]);
        assert_eq!(options, Options::default());
        let shown = |address: &Option<ListenAddress>| address.as_ref().map(ToString::to_string);
        assert_eq!(shown(&options.tcp_address).as_deref(), Some("0.0.0.0:4160"));
        assert_eq!(shown(&options.http_address).as_deref(), Some("0.0.0.0:4161"));
        assert_eq!((&options.tcp_tls_address, &options.https_address), (&None, &None));
        assert!(!options.broadcast_address.is_empty());
        assert_eq!(options.inactive_producer_timeout, Duration::from_secs(5 * 60));
        assert_eq!(options.tombstone_lifetime, Duration::from_secs(45));
        assert_eq!((options.forget_ephemeral_after, options.forget_unused_after), (None, Duration::ZERO));
        assert_eq!(options.log_level, Level::Info);
        assert_eq!(options.log_prefix, "[nsqlookupd] ");
        assert_eq!(options.log_format, Format::Text);
        assert_eq!(options.log(), LogOptions::default());
        assert!(!options.pin_workers);
        assert_eq!(options.io, io::BackendChoice::Auto);
    }

    #[test]
    fn the_example_file_holds_the_defaults() {
        assert_eq!(run(&["-config", "contrib/nsqlookupd.cfg.example"]), Options::default());
    }

    #[test]
    fn the_command_line_goes_before_a_file_and_a_file_before_a_default() {
        let given = |level, prefix: Option<&str>| Overrides {
            log_level: level,
            log_prefix: prefix.map(str::to_owned),
            ..Overrides::default()
        };
        let flags = given(Some(Level::Debug), None);
        let file = given(Some(Level::Fatal), Some("file "));
        let options = flags.apply_to(file.apply_to(Options::default()));
        assert_eq!(options.log_level, Level::Debug);
        assert_eq!(options.log_prefix, "file ");
        assert_eq!(options.tombstone_lifetime, Options::default().tombstone_lifetime);
    }

    #[test]
    fn an_empty_broadcast_address_is_kept_and_an_empty_config_is_none() {
        let options = run(&["-broadcast-address=", "-config="]);
        assert_eq!(options.broadcast_address, "");
    }
}
