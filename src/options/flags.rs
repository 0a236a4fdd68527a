//! The command line, and the table of everything that can be set.
//!
//! Source of the syntax: Go's package flag. One or two dashes, `-name=value` or `-name value`, a boolean's value only
//! behind `=`, the last of repeated flags wins, `--` ends the flags. Stock ignores what follows the flags; here it is
//! an error, since a flag that lost its dash would be ignored with it.

use std::ffi::OsString;
use std::fmt::Write;
use std::num::NonZeroUsize;
use std::time::Duration;

use toml::Value;

use super::setting::{self, Setting, SettingValue};
use super::suggest::suggest;
use super::{AddressRange, ListenAddress, Options, OptionsError, Overrides};
use crate::io::BackendChoice;
use crate::limits::Limit;
use crate::log::{Format, Level};

/// One flag. Those of [`settings`] are keys of the file too.
pub(super) struct Flag {
    name: &'static str,
    /// The name in the file.
    pub(super) key: &'static str,
    argument: &'static str,
    allowed: &'static str,
    meaning: &'static str,
    /// The default as `-help` shows it.
    default: fn(&Options) -> Option<String>,
    /// The value as `/config` shows it; `None` for what is no setting.
    value: fn(&Options) -> Option<SettingValue>,
    /// Reads a value into its place; the error says what is wrong with the value and what is allowed.
    pub(super) set: fn(&mut Overrides, &Value) -> Result<(), String>,
}

/// A flag without a default.
macro_rules! choice {
    ($name:literal, $field:ident: $type:ty, $meaning:literal) => {
        Flag {
            name: $name,
            key: stringify!($field),
            argument: <$type>::ARGUMENT,
            allowed: <$type>::ALLOWED,
            meaning: $meaning,
            default: |_| None,
            value: |_| None,
            set: |given, value| {
                given.$field = Some(<$type>::read(value)?);
                Ok(())
            },
        }
    };
}

/// A flag whose value has a default, in a field of the same name in [`Overrides`] and [`Options`].
macro_rules! setting {
    ($name:literal, $field:ident: $type:ty, $meaning:literal) => {
        Flag {
            default: |options| Some(options.$field.show()),
            value: |options| Some(options.$field.value()),
            ..choice!($name, $field: $type, $meaning)
        }
    };
}

/// The flag of a limit, as its row says.
macro_rules! limit {
    ($limit:ident) => {
        Flag {
            name: Limit::$limit.row().flag,
            key: Limit::$limit.row().key,
            argument: setting::limit_argument(Limit::$limit.row().unit),
            allowed: setting::limit_allowed(Limit::$limit.row().unit),
            meaning: Limit::$limit.row().meaning,
            default: |options| Some(setting::show_limit(Limit::$limit, options.limits.value(Limit::$limit))),
            value: |options| Some(SettingValue::Json(options.limits.value(Limit::$limit).to_string())),
            set: |given, value| {
                given.limits.insert(Limit::$limit, setting::read_limit(Limit::$limit, value)?);
                Ok(())
            },
        }
    };
}

const COMMAND_LINE_ONLY: [Flag; 2] = [
    choice!(
        "config",
        config: String,
        "TOML file of settings; its keys are the flags with underscores, and flags win"
    ),
    choice!("version", version: bool, "print the version and exit"),
];

const SETTINGS: [Flag; 18] = [
    setting!(
        "log-level",
        log_level: Level,
        "least severe messages to log: debug, info, warn, error or fatal"
    ),
    setting!("log-prefix", log_prefix: String, "start of every log line of text"),
    setting!(
        "log-format",
        log_format: Format,
        "how log lines are written: text, as in nsqlookupd, or json, one object a line"
    ),
    Flag {
        name: "verbose",
        key: "verbose",
        argument: bool::ARGUMENT,
        allowed: bool::ALLOWED,
        meaning: "no effect (deprecated: use -log-level)",
        default: |_| None,
        value: |_| None,
        set: |_, value| bool::read(value).map(|_| ()),
    },
    setting!("tcp-address", tcp_address: ListenAddress, "where to listen for nsqd, as host:port"),
    setting!(
        "http-address",
        http_address: ListenAddress,
        "where to listen for HTTP clients, as host:port"
    ),
    setting!(
        "broadcast-address",
        broadcast_address: String,
        "name or address of this node, in the response to IDENTIFY"
    ),
    setting!(
        "inactive-producer-timeout",
        inactive_producer_timeout: Duration,
        "time after its last ping for which a producer is listed"
    ),
    setting!(
        "tombstone-lifetime",
        tombstone_lifetime: Duration,
        "time for which a tombstone hides a producer that stays registered"
    ),
    Flag {
        value: |options| Some(options.lifetimes().forget_ephemeral_after.value()),
        ..choice!(
            "forget-ephemeral-after",
            forget_ephemeral_after: Duration,
            "time after which an ephemeral topic or channel without producers is forgotten, 0 for never; the default is the -inactive-producer-timeout"
        )
    },
    setting!(
        "forget-unused-after",
        forget_unused_after: Duration,
        "time after which any other topic or channel without producers is forgotten, 0 for never"
    ),
    setting!(
        "workers",
        workers: NonZeroUsize,
        "threads that serve, 1 to 1024; the default is one for each usable core"
    ),
    setting!("pin-workers", pin_workers: bool, "keep each worker on a core of its own"),
    setting!("io", io: BackendChoice, "backend: auto (io_uring, or epoll where io_uring is not available), uring or epoll"),
    setting!(
        "busy-poll",
        busy_poll: Duration,
        "time for which a worker polls before it sleeps: lower latency at the cost of a busy core"
    ),
    setting!(
        "warm-up",
        warm_up: Duration,
        "time after the start for which /ready responds 503: not all nsqd nodes may have connected again"
    ),
    setting!(
        "shutdown-delay",
        shutdown_delay: Duration,
        "time after SIGINT or SIGTERM for which everything still works and /ready responds 503"
    ),
    setting!(
        "allow-config-from-cidr",
        allow_config_from_cidr: AddressRange,
        "addresses from which /config may be read and changed"
    ),
];

const LIMITS: [Flag; Limit::ALL.len()] = [
    limit!(CommandSize),
    limit!(IdentifySize),
    limit!(RequestHeadSize),
    limit!(RequestHeaders),
    limit!(RequestBodySize),
    limit!(Connections),
    limit!(ConnectionsPerAddress),
    limit!(Topics),
    limit!(Channels),
    limit!(TopicsPerProducer),
    limit!(ChannelsPerProducer),
    limit!(OutputSize),
    limit!(HandshakeTimeout),
    limit!(IdentifyTimeout),
    limit!(RequestTimeout),
    limit!(IdleTimeout),
    limit!(OutputTimeout),
    limit!(DeadPeerTimeout),
    limit!(DrainTimeout),
];

/// What the command line and the file can set.
pub(super) fn settings() -> impl Iterator<Item = &'static Flag> {
    SETTINGS.iter().chain(&LIMITS)
}

/// The keys of the settings that a reload does not change.
const AT_RESTART: [&str; 8] =
    ["tcp_address", "http_address", "broadcast_address", "workers", "pin_workers", "io", "busy_poll", "warm_up"];

impl Options {
    /// The value of a key of the file, with the JSON types that nsqd's `/config` has; `None` where there is no such key.
    #[must_use]
    pub fn value(&self, key: &str) -> Option<SettingValue> {
        settings().find(|flag| flag.key == key).and_then(|flag| (flag.value)(self))
    }

    /// The flags of the settings that differ from those in force and that only a restart changes.
    #[must_use]
    pub fn changed_at_restart(&self, in_force: &Self) -> Vec<String> {
        let changed = AT_RESTART.into_iter().filter(|key| self.value(key) != in_force.value(key));
        changed.map(|key| format!("-{}", key.replace('_', "-"))).collect()
    }

    /// These settings, but with those in force that only a restart changes.
    #[must_use]
    pub fn with_restart_settings_of(self, in_force: &Self) -> Self {
        Self {
            tcp_address: in_force.tcp_address.clone(),
            http_address: in_force.http_address.clone(),
            broadcast_address: in_force.broadcast_address.clone(),
            workers: in_force.workers,
            pin_workers: in_force.pin_workers,
            io: in_force.io,
            busy_poll: in_force.busy_poll,
            warm_up: in_force.warm_up,
            ..self
        }
    }
}

/// Reads the arguments, which do not include the program's name. `None` asks for [`usage`].
pub(super) fn parse(args: impl Iterator<Item = OsString>) -> Result<Option<Overrides>, OptionsError> {
    let mut args = args.map(|arg| {
        arg.into_string()
            .map_err(|arg| OptionsError::CommandLine(format!("argument {:?} is not UTF-8", arg.to_string_lossy())))
    });
    let mut given = Overrides::default();
    while let Some(arg) = args.next().transpose()? {
        if arg == "--" {
            return match args.next() {
                None => Ok(Some(given)),
                Some(stray) => Err(unexpected(&stray?)),
            };
        }
        let Some(body) = arg.strip_prefix('-').filter(|body| !body.is_empty()) else {
            return Err(unexpected(&arg));
        };
        let body = body.strip_prefix('-').unwrap_or(body);
        let (name, value) = match body.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (body, None),
        };
        if name == "h" || name == "help" {
            return Ok(None);
        }
        let flag = find(&arg, name)?;
        let value = match value {
            Some(value) => value,
            None if flag.argument.is_empty() => "true".to_owned(),
            None => (args.next().transpose()?)
                .ok_or_else(|| OptionsError::CommandLine(format!("no value for -{name}: {}", flag.allowed)))?,
        };
        (flag.set)(&mut given, &Value::String(value.clone())).map_err(|reason| {
            OptionsError::CommandLine(format!("invalid value {value:?} for -{name}: {reason}"))
        })?;
    }
    Ok(Some(given))
}

fn unexpected(arg: &str) -> OptionsError {
    OptionsError::CommandLine(format!(
        "unexpected argument {arg:?}: only flags are allowed, and a boolean takes its value as -pin-workers=false"
    ))
}

fn all() -> impl Iterator<Item = &'static Flag> {
    COMMAND_LINE_ONLY.iter().chain(settings())
}

fn find(arg: &str, name: &str) -> Result<&'static Flag, OptionsError> {
    if name.is_empty() || name.starts_with('-') {
        return Err(OptionsError::CommandLine(format!("bad flag {arg:?}: use -name, -name=value or -name value")));
    }
    all().find(|flag| flag.name == name).ok_or_else(|| {
        let advice = match suggest(name, all().map(|flag| flag.name)) {
            Some(known) => format!("did you mean -{known}?"),
            None => "-help lists the flags".to_owned(),
        };
        OptionsError::CommandLine(format!("unknown flag {:?}: {advice}", format!("-{name}")))
    })
}

/// The text of `-help`: each flag with its type, meaning and default, in the layout of Go's package flag.
pub(super) fn usage(defaults: &Options) -> String {
    let mut text = "Usage of nsqlookupd:\n".to_owned();
    for flag in all() {
        let argument = flag.argument;
        let space = if argument.is_empty() { "" } else { " " };
        let default = (flag.default)(defaults).map_or_else(String::new, |default| format!(" (default {default})"));
        writeln!(text, "  -{}{space}{argument}\n    \t{}{default}", flag.name, flag.meaning)
            .expect("a String takes all");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(args: &[&str]) -> Overrides {
        parse(args.iter().map(OsString::from)).unwrap().expect("no usage asked for")
    }

    fn error(args: &[&str]) -> String {
        parse(args.iter().map(OsString::from)).unwrap_err().to_string()
    }

    #[test]
    fn a_value_follows_in_any_of_gos_forms() {
        for args in [
            &["-log-prefix=p=q"][..],
            &["--log-prefix=p=q"],
            &["-log-prefix", "p=q"],
            &["--log-prefix", "p=q"],
            &["-log-prefix", "overruled", "-log-prefix=p=q", "--"],
        ] {
            assert_eq!(given(args).log_prefix.as_deref(), Some("p=q"), "{args:?}");
        }
        assert_eq!(given(&["-log-prefix="]).log_prefix.as_deref(), Some(""));
        assert_eq!(given(&["-log-prefix", "-version"]).log_prefix.as_deref(), Some("-version"));
        assert_eq!(given(&["-log-prefix", "--"]).log_prefix.as_deref(), Some("--"));
    }

    #[test]
    fn booleans_are_gos() {
        for (arg, value) in [
            ("-pin-workers", true),
            ("--pin-workers", true),
            ("-pin-workers=1", true),
            ("-pin-workers=t", true),
            ("-pin-workers=T", true),
            ("-pin-workers=true", true),
            ("-pin-workers=TRUE", true),
            ("-pin-workers=True", true),
            ("-pin-workers=0", false),
            ("-pin-workers=f", false),
            ("-pin-workers=F", false),
            ("-pin-workers=false", false),
            ("-pin-workers=FALSE", false),
            ("-pin-workers=False", false),
        ] {
            assert_eq!(given(&[arg]).pin_workers, Some(value), "{arg}");
        }
        for arg in ["-pin-workers=", "-pin-workers=yes", "-verbose=tRUE", "-version=2"] {
            assert!(error(&[arg]).ends_with("use true or false"), "{arg}");
        }
        given(&["-verbose", "-verbose=false"]);
    }

    #[test]
    fn help_ends_the_reading() {
        for args in [&["-h"][..], &["--h"], &["-help=x"], &["-version", "--help", "-bogus", "stray"]] {
            assert!(parse(args.iter().map(OsString::from)).unwrap().is_none(), "{args:?}");
        }
    }

    #[test]
    fn an_argument_that_is_no_flag_is_named() {
        for (args, named) in [
            (&["serve"][..], r#""serve""#),
            (&["-verbose", "false"], r#""false""#),
            (&["-"], r#""-""#),
            (&[""], r#""""#),
            (&["--", "-version"], r#""-version""#),
            (&["a\nb"], r#""a\nb""#),
        ] {
            assert!(error(args).starts_with(&format!("unexpected argument {named}: ")), "{args:?}");
        }
        for arg in ["---", "---version", "-=x", "--=x", "-=", "---=x"] {
            assert!(error(&[arg]).starts_with(&format!("bad flag {arg:?}: ")), "{arg}");
        }
    }

    #[test]
    fn an_unknown_flag_is_told_its_neighbour() {
        for (arg, advice) in [
            ("-tcp-adress=:1", r#""-tcp-adress": did you mean -tcp-address?"#),
            ("--log_level", r#""-log_level": did you mean -log-level?"#),
            ("-data-path", r#""-data-path": -help lists the flags"#),
        ] {
            assert_eq!(error(&[arg]), format!("unknown flag {advice}"));
        }
    }

    #[test]
    fn a_flag_at_the_end_misses_its_value() {
        assert_eq!(error(&["-workers"]), "no value for -workers: use a whole number from 1 to 1024");
    }

    #[test]
    fn a_value_that_is_not_allowed_is_told_what_is() {
        let durations = "use a duration from 0s to 292 years such as 300s, 1m30s or 1.5h (ns, us, ms, s, m, h)";
        let addresses = "use host:port, [IPv6]:port or :port, with a port from 0 to 65535";
        let workers = "use a whole number from 1 to 1024";
        for (name, value, advice) in [
            ("log-level", "loud", "use debug, info, warn, error or fatal".to_owned()),
            ("log-level", "", "use debug, info, warn, error or fatal".to_owned()),
            ("tcp-address", "4160", format!("missing port, {addresses}")),
            ("http-address", ":http", format!("invalid port, {addresses}")),
            ("tombstone-lifetime", "-1s", format!("negative, {durations}")),
            ("tombstone-lifetime", "45", format!("missing unit, {durations}")),
            ("inactive-producer-timeout", "1d\n", format!("unknown unit \"d\\n\", {durations}")),
            ("workers", "0", workers.to_owned()),
            ("workers", "1025", workers.to_owned()),
            ("workers", "two", workers.to_owned()),
            ("workers", "-1", workers.to_owned()),
            ("io", "iouring", "use auto, uring or epoll".to_owned()),
        ] {
            assert_eq!(
                error(&[&format!("-{name}"), value]),
                format!("invalid value {value:?} for -{name}: {advice}")
            );
        }
        assert_eq!(given(&["-workers=1024"]).workers.unwrap().get(), 1024);
    }

    #[test]
    fn every_flag_is_in_the_usage_once_with_its_default() {
        let usage = usage(&Options::default());
        for flag in all() {
            let heads =
                usage.lines().filter(|line| line.split_whitespace().next() == Some(&format!("-{}", flag.name)));
            assert_eq!(heads.count(), 1, "{}", flag.name);
            assert_eq!(flag.key, flag.name.replace('-', "_"));
        }
        for limit in Limit::ALL {
            assert!(LIMITS.iter().any(|flag| flag.name == limit.name()), "{limit:?}");
        }
        for default in [
            "-max-command-size bytes\n",
            "(default 65536)",
            "(default 1m0s)",
            r#"(default "0.0.0.0:4160")"#,
            r#"(default "0.0.0.0:4161")"#,
            r#"(default "[nsqlookupd] ")"#,
            "(default 5m0s)",
            "(default 45s)",
            "(default info)",
            "(default auto)",
        ] {
            assert!(usage.contains(default), "{default}");
        }
    }
}
