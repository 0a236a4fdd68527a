//! The table of everything that can be set.

use std::num::NonZeroUsize;
use std::time::Duration;

use toml::Value;

use super::help::{FILE, FOLDER, Group};
use super::setting::{self, Setting, SettingValue};
use super::{AddressRange, ListenAddress, Options, Overrides, WebAddress};
use crate::access::AddressRanges;
use crate::cluster::etcd::ClusterAddress;
use crate::io::BackendChoice;
use crate::limits::Limit;
use crate::log::{Format, Level};
use crate::transport::{ClientAuth, MinVersion};

/// One flag. Those of [`settings`] are keys of the file too.
pub(super) struct Flag {
    pub(super) name: &'static str,
    /// The name in the file.
    pub(super) key: &'static str,
    pub(super) group: Group,
    pub(super) argument: &'static str,
    /// The values, where they are names.
    pub(super) values: fn() -> Vec<&'static str>,
    pub(super) allowed: &'static str,
    pub(super) meaning: &'static str,
    /// The default, as the operator would type it.
    pub(super) default: fn(&Options) -> Option<String>,
    /// The default in words, where it depends on the machine or on another flag; otherwise empty.
    pub(super) default_in_words: &'static str,
    /// The value as `/config` shows it; `None` for what is no setting.
    pub(super) value: fn(&Options) -> Option<SettingValue>,
    /// Reads a value into its place; the error says what is wrong with the value and what is allowed.
    pub(super) set: fn(&mut Overrides, &Value) -> Result<(), String>,
}

/// A flag without a default.
macro_rules! choice {
    ($group:ident, $name:literal, $field:ident: $type:ty, $meaning:literal) => {
        Flag {
            name: $name,
            key: stringify!($field),
            group: Group::$group,
            argument: <$type>::ARGUMENT,
            values: <$type>::values,
            allowed: <$type>::ALLOWED,
            meaning: $meaning,
            default: |_| None,
            value: |_| None,
            default_in_words: "",
            set: |given, value| {
                given.$field = Some(<$type>::read(value)?);
                Ok(())
            },
        }
    };
}

/// A flag whose value has a default, in a field of the same name in [`Overrides`] and [`Options`].
macro_rules! setting {
    ($group:ident, $name:literal, $field:ident: $type:ty, $meaning:literal) => {
        Flag {
            default: |options| Some(options.$field.show()),
            value: |options| Some(options.$field.value()),
            ..choice!($group, $name, $field: $type, $meaning)
        }
    };
}

/// A flag of TLS, whose value is a field of [`TlsOptions`](crate::transport::TlsOptions).
macro_rules! tls {
    ($name:literal, $field:ident: $type:ty, $of:ident, $meaning:literal) => {
        Flag {
            default: |options| Some(options.tls.$of.show()),
            value: |options| Some(options.tls.$of.value()),
            ..choice!(Tls, $name, $field: $type, $meaning)
        }
    };
}

/// A flag of the cluster, whose value is a field of [`ClusterOptions`](crate::cluster::ClusterOptions) or its files.
macro_rules! cluster {
    ($name:literal, $field:ident: $type:ty, $($of:ident).+, $meaning:literal) => {
        Flag {
            default: |options| Some(options.cluster.$($of).+.show()),
            value: |options| Some(options.cluster.$($of).+.value()),
            ..choice!(Cluster, $name, $field: $type, $meaning)
        }
    };
}

/// A flag of ranges of addresses, which may be repeated: each adds to those before.
macro_rules! ranges {
    ($name:literal, $field:ident, $default:literal, $meaning:literal) => {
        Flag {
            value: |options| {
                let ranges = options.access.$field.as_ref();
                Some(ranges.map_or_else(|| SettingValue::Json("null".to_owned()), Setting::value))
            },
            default_in_words: $default,
            set: |given, value| {
                let ranges = given.$field.get_or_insert_default();
                ranges.add(AddressRanges::read(value)?).map_err(|_| AddressRanges::ALLOWED.to_owned())
            },
            ..choice!(Access, $name, $field: AddressRanges, $meaning)
        }
    };
}

/// The flag of a limit, as its row says.
macro_rules! limit {
    ($group:ident, $limit:ident) => {
        Flag {
            name: Limit::$limit.row().flag,
            key: Limit::$limit.row().key,
            group: Group::$group,
            argument: setting::limit_argument(Limit::$limit.row().unit),
            values: Vec::new,
            allowed: setting::limit_allowed(Limit::$limit.row().unit),
            meaning: Limit::$limit.row().meaning,
            default: |options| Some(setting::show_limit(Limit::$limit, options.limits.value(Limit::$limit))),
            value: |options| Some(SettingValue::Json(options.limits.value(Limit::$limit).to_string())),
            default_in_words: "",
            set: |given, value| {
                given.limits.insert(Limit::$limit, setting::read_limit(Limit::$limit, value)?);
                Ok(())
            },
        }
    };
}

const COMMAND_LINE_ONLY: [Flag; 2] = [
    Flag {
        argument: FILE,
        ..choice!(
            General, "config",
            config: String,
            "TOML file of settings; its keys are the flags with underscores, and flags win"
        )
    },
    choice!(General, "version", version: bool, "print the version and exit"),
];

const SETTINGS: [Flag; 45] = [
    setting!(
        Logging, "log-level",
        log_level: Level,
        "least severe messages to log: debug, info, warn, error or fatal"
    ),
    setting!(Logging, "log-prefix", log_prefix: String, "start of every log line of text"),
    setting!(
        Logging, "log-format",
        log_format: Format,
        "how log lines are written: text, as in nsqlookupd, or json, one object a line"
    ),
    Flag {
        name: "verbose",
        key: "verbose",
        group: Group::Logging,
        argument: bool::ARGUMENT,
        values: bool::values,
        allowed: bool::ALLOWED,
        meaning: "no effect (deprecated: use -log-level)",
        default: |_| None,
        value: |_| None,
        default_in_words: "",
        set: |_, value| bool::read(value).map(|_| ()),
    },
    setting!(Listening, "tcp-address", tcp_address: Option<ListenAddress>, "where to listen for nsqd, as host:port"),
    setting!(
        Listening, "http-address",
        http_address: Option<ListenAddress>,
        "where to listen for HTTP clients, as host:port"
    ),
    setting!(
        Listening, "tcp-tls-address",
        tcp_tls_address: Option<ListenAddress>,
        "where to listen for nsqd behind a TLS proxy, as host:port"
    ),
    setting!(
        Listening, "https-address",
        https_address: Option<ListenAddress>,
        "where to listen for HTTPS clients, as host:port"
    ),
    Flag {
        default_in_words: "the hostname",
        ..setting!(
            Listening, "broadcast-address",
            broadcast_address: String,
            "name or address of this node, in the response to IDENTIFY"
        )
    },
    setting!(
        Producers, "inactive-producer-timeout",
        inactive_producer_timeout: Duration,
        "time after its last ping for which a producer is listed"
    ),
    setting!(
        Producers, "tombstone-lifetime",
        tombstone_lifetime: Duration,
        "time for which a tombstone hides a producer that stays registered"
    ),
    Flag {
        value: |options| Some(options.lifetimes().forget_ephemeral_after.value()),
        default_in_words: "that of -inactive-producer-timeout",
        ..choice!(
            Producers, "forget-ephemeral-after",
            forget_ephemeral_after: Duration,
            "time after which an ephemeral topic or channel without producers is forgotten, 0 for never"
        )
    },
    setting!(
        Producers, "forget-unused-after",
        forget_unused_after: Duration,
        "time after which any other topic or channel without producers is forgotten, 0 for never"
    ),
    setting!(
        Producers, "supersede-silent",
        supersede_silent: Duration,
        "time without a ping after which an older connection of the same node is not listed, 0 for never"
    ),
    Flag {
        argument: FOLDER,
        ..setting!(
            State, "data-path",
            data_path: String,
            "folder in which topics, channels and producers are kept across restarts, or an empty text for none"
        )
    },
    setting!(State, "state-interval", state_interval: Duration, "shortest time between two writes of the state"),
    setting!(
        State, "restore-grace",
        restore_grace: Duration,
        "time after a start for which producers of before are listed that have not come back"
    ),
    Flag {
        argument: FILE,
        ..setting!(
            Producers, "topology-file",
            topology_file: String,
            "TOML file of topics and channels that always exist, such as orders = [\"billing\", \"mail\"] below [topics]"
        )
    },
    setting!(
        Watching, "watch",
        watch: bool,
        "give responses tags, and let clients wait for changes and watch; -watch=false does as nsqlookupd does"
    ),
    setting!(
        Watching, "max-watch-age",
        max_watch_age: Duration,
        "time after which a watching client is asked to connect again, give or take a tenth; 0 for never"
    ),
    Flag {
        default_in_words: "the usable cores",
        ..setting!(Workers, "workers", workers: NonZeroUsize, "threads that serve, 1 to 1024")
    },
    setting!(Workers, "pin-workers", pin_workers: bool, "keep each worker on a core of its own"),
    setting!(Workers, "io", io: BackendChoice, "backend: auto (io_uring, or epoll where io_uring is not available), uring or epoll"),
    setting!(
        Workers, "busy-poll",
        busy_poll: Duration,
        "time for which a worker polls before it sleeps: lower latency at the cost of a busy core"
    ),
    setting!(
        StartAndStop, "warm-up",
        warm_up: Duration,
        "time after the start for which /ready responds 503: not all nsqd nodes may have connected again"
    ),
    setting!(
        StartAndStop, "shutdown-delay",
        shutdown_delay: Duration,
        "time after SIGINT or SIGTERM for which everything still works and /ready responds 503"
    ),
    setting!(
        Access, "allow-config-from-cidr",
        allow_config_from_cidr: AddressRange,
        "addresses from which /config may be read and changed"
    ),
    ranges!("tcp-allow", tcp_allow, "everybody", "ranges of addresses from which nsqd may connect"),
    ranges!(
        "http-allow",
        http_allow,
        "everybody, or nobody with -auth-token-file",
        "ranges of addresses that may read over HTTP without a token"
    ),
    ranges!(
        "http-admin-allow",
        http_admin_allow,
        "those of -http-allow, or nobody with -auth-token-file",
        "ranges of addresses that may read and change over HTTP without a token"
    ),
    Flag {
        argument: FILE,
        default: |options| Some(options.access.auth_token_file.show()),
        value: |options| Some(options.access.auth_token_file.value()),
        ..choice!(
            Access, "auth-token-file",
            auth_token_file: String,
            "file of those who may use HTTP with a token or a certificate: NAME ROLE TOKEN or NAME ROLE cert:CN a line"
        )
    },
    setting!(Page, "ui", ui: bool, "serve the page at /ui/"),
    setting!(
        Page, "nsqadmin-url",
        nsqadmin_url: WebAddress,
        "address of nsqadmin, such as http://nsqadmin.example:4171, to which the page links"
    ),
    tls!("tls-cert", tls_cert: String, cert, "file of the server's certificate and those that vouch for it, in PEM"),
    tls!("tls-key", tls_key: String, key, "file of the certificate's private key, in PEM"),
    tls!(
        "tls-root-ca-file",
        tls_root_ca_file: String,
        root_ca_file,
        "file of the certificates that vouch for clients', in PEM"
    ),
    tls!(
        "tls-client-auth-policy",
        tls_client_auth_policy: ClientAuth,
        client_auth,
        "what is asked of TLS clients: require (a certificate) or require-verify (one that -tls-root-ca-file vouches for)"
    ),
    tls!("tls-min-version", tls_min_version: MinVersion, min_version, "oldest version of TLS: tls1.2 or tls1.3"),
    cluster!(
        "cluster",
        cluster: Option<ClusterAddress>,
        address,
        "etcd through which instances share what they know: etcd://HOST:PORT[,HOST:PORT...][/PREFIX], or etcds:// for TLS"
    ),
    Flag {
        default_in_words: "the hostname",
        ..cluster!("cluster-node", cluster_node: String, node, "name of this instance, for the others' logs")
    },
    cluster!(
        "cluster-stale",
        cluster_stale: Duration,
        stale,
        "time without etcd after which producers of other instances are not listed any more; 0 for never"
    ),
    Flag {
        argument: FILE,
        ..cluster!("cluster-user-file", cluster_user_file: String, files.user, "file of the user of etcd: NAME:PASSWORD")
    },
    Flag {
        argument: FILE,
        ..cluster!(
            "cluster-ca-file",
            cluster_ca_file: String,
            files.ca,
            "file of the certificates that vouch for etcd's, in PEM"
        )
    },
    Flag {
        argument: FILE,
        ..cluster!("cluster-cert", cluster_cert: String, files.cert, "file of the certificate to show to etcd, in PEM")
    },
    Flag {
        argument: FILE,
        ..cluster!("cluster-key", cluster_key: String, files.key, "file of that certificate's private key, in PEM")
    },
];

const LIMITS: [Flag; Limit::ALL.len()] = [
    limit!(Limits, CommandSize),
    limit!(Limits, IdentifySize),
    limit!(Limits, RequestHeadSize),
    limit!(Limits, RequestHeaders),
    limit!(Limits, RequestBodySize),
    limit!(Limits, Connections),
    limit!(Limits, ConnectionsPerAddress),
    limit!(Watching, Watches),
    limit!(Watching, WatchesPerAddress),
    limit!(Limits, Topics),
    limit!(Limits, Channels),
    limit!(Limits, TopicsPerProducer),
    limit!(Limits, ChannelsPerProducer),
    limit!(Limits, OutputSize),
    limit!(Timeouts, HandshakeTimeout),
    limit!(Timeouts, IdentifyTimeout),
    limit!(Timeouts, RequestTimeout),
    limit!(Timeouts, IdleTimeout),
    limit!(Timeouts, OutputTimeout),
    limit!(Timeouts, DeadPeerTimeout),
    limit!(StartAndStop, DrainTimeout),
];

/// What the command line and the file can set.
pub(super) fn settings() -> impl Iterator<Item = &'static Flag> {
    SETTINGS.iter().chain(&LIMITS)
}

/// Every flag but `-help`.
pub(super) fn all() -> impl Iterator<Item = &'static Flag> {
    COMMAND_LINE_ONLY.iter().chain(settings())
}
