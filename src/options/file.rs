//! The TOML file: the flags' names with underscores, each with a string, a boolean or a number.

use std::fs;

use toml::de::DeTable;
use toml::{Table, Value};

use super::suggest::suggest;
use super::table::settings;
use super::{OptionsError, Overrides};
use crate::toml_error::{self, excerpt, line_at, syntax_error};

/// Reads the file at `path`. Unlike stock, which ignores unknown keys, this refuses them: a misspelled key would
/// leave a default in force that nobody chose.
pub(super) fn load(path: &str) -> Result<Overrides, OptionsError> {
    let bytes =
        fs::read(path).map_err(|error| OptionsError::File(format!("cannot read -config {path:?}: {error}")))?;
    parse(&bytes).map_err(|reason| OptionsError::File(format!("in -config {path:?}: {reason}")))
}

fn parse(bytes: &[u8]) -> Result<Overrides, String> {
    let text = toml_error::text(bytes)?;
    let table: Table = toml::from_str(text).map_err(|error| syntax_error(text, error))?;
    let mut given = Overrides::default();
    for (key, value) in &table {
        read(key, value, &mut given).map_err(|reason| format!("line {}: {reason}", line_of(key, text)))?;
    }
    Ok(given)
}

fn read(key: &str, value: &Value, given: &mut Overrides) -> Result<(), String> {
    let setting = settings().find(|setting| setting.key == key).ok_or_else(|| unknown(key))?;
    (setting.set)(given, value).map_err(|reason| format!("invalid value {} for {key}: {reason}", show(value)))
}

/// The number of the line that a key of a well-formed file is on.
fn line_of(key: &str, text: &str) -> usize {
    let (table, _) = DeTable::parse_recoverable(text);
    let at = table
        .get_ref()
        .iter()
        .find(|(found, _)| found.get_ref() == key)
        .map_or(0, |(found, _)| found.span().start);
    line_at(text, at)
}

fn unknown(key: &str) -> String {
    let keys: Vec<_> = settings().map(|setting| setting.key).collect();
    let guess =
        suggest(key, keys.iter().copied()).map_or_else(String::new, |known| format!("did you mean {known}? "));
    format!("unknown key {}: {guess}use {}", excerpt(key), keys.join(", "))
}

/// A value for an error of one line: a table or an array could be long.
fn show(value: &Value) -> String {
    match value {
        Value::String(text) => excerpt(text),
        Value::Integer(number) => number.to_string(),
        Value::Float(number) => number.to_string(),
        Value::Boolean(truth) => truth.to_string(),
        Value::Datetime(time) => time.to_string(),
        Value::Array(_) | Value::Table(_) => format!("of type {}", value.type_str()),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::io::{Backend, BackendChoice};
    use crate::limits::Limit;
    use crate::log::{Format, Level};

    #[test]
    fn every_key_is_read() {
        let given = parse(
            br#"
            # A comment.
            log_level = "WARN"
            log_prefix = "p "
            log_format = "json"
            verbose = true
            tcp_address = "127.0.0.1:1"
            http_address = ":2"
            broadcast_address = ""
            inactive_producer_timeout = "1m30s"
            tombstone_lifetime = 1500
            workers = 3
            pin_workers = true
            io = "epoll"
            max_topics = 7
            idle_timeout = "2m"
            drain_timeout = 1500
            "#,
        )
        .unwrap();
        assert_eq!(given.log_level, Some(Level::Warn));
        assert_eq!(given.log_prefix.as_deref(), Some("p "));
        assert_eq!(given.log_format, Some(Format::Json));
        assert_eq!(given.tcp_address.unwrap().unwrap().to_string(), "127.0.0.1:1");
        assert_eq!(given.http_address.unwrap().unwrap().to_string(), ":2");
        assert_eq!(given.broadcast_address.as_deref(), Some(""));
        assert_eq!(given.inactive_producer_timeout, Some(Duration::from_secs(90)));
        assert_eq!(given.tombstone_lifetime, Some(Duration::from_millis(1500)));
        assert_eq!(given.workers.unwrap().get(), 3);
        assert_eq!(given.pin_workers, Some(true));
        assert_eq!(given.io, Some(BackendChoice::Only(Backend::Epoll)));
        let limits =
            [(Limit::Topics, 7), (Limit::IdleTimeout, 120_000_000_000), (Limit::DrainTimeout, 1_500_000_000)];
        assert_eq!(given.limits, limits.into());
    }

    #[test]
    fn texts_stand_for_numbers_and_booleans_as_in_stock() {
        let given = parse(b"workers = '3'\npin_workers = 'F'").unwrap();
        assert_eq!(given.workers.unwrap().get(), 3);
        assert_eq!(given.pin_workers, Some(false));
    }

    #[test]
    fn an_unknown_key_is_told_what_is_allowed() {
        let keys = "log_level, log_prefix, log_format, verbose, tcp_address, http_address, tcp_tls_address, https_address, broadcast_address, \
            inactive_producer_timeout, tombstone_lifetime, forget_ephemeral_after, forget_unused_after, supersede_silent, data_path, state_interval, restore_grace, topology_file, watch, max_watch_age, \
            workers, pin_workers, io, busy_poll, warm_up, shutdown_delay, allow_config_from_cidr, tcp_allow, http_allow, http_admin_allow, auth_token_file, ui, nsqadmin_url, tls_cert, tls_key, tls_root_ca_file, tls_client_auth_policy, tls_min_version, \
            cluster, cluster_node, cluster_stale, cluster_user_file, cluster_ca_file, cluster_cert, cluster_key, max_command_size, ";
        for (text, advice) in [
            ("tcp-address = ':1'", format!(r#""tcp-address": did you mean tcp_address? use {keys}"#)),
            ("mem_queue_size = 1", format!(r#""mem_queue_size": use {keys}"#)),
            ("config = 'x'", format!(r#""config": use {keys}"#)),
            ("[nsqlookupd]\nworkers = 1", format!(r#""nsqlookupd": use {keys}"#)),
        ] {
            let error = parse(text.as_bytes()).unwrap_err();
            assert!(error.starts_with(&format!("line 1: unknown key {advice}")), "{error}");
        }
    }

    #[test]
    fn a_value_that_is_not_allowed_is_named() {
        for (text, start) in [
            ("log_level = 'loud'", r#"invalid value "loud" for log_level: use debug"#),
            ("log_level = 1", "invalid value 1 for log_level: use debug"),
            ("log_format = 'JSON'", r#"invalid value "JSON" for log_format: use text or json"#),
            ("log_prefix = false", "invalid value false for log_prefix: use a string"),
            ("tcp_address = 4160", "invalid value 4160 for tcp_address: use host:port"),
            ("tcp_address = '4160'", r#"invalid value "4160" for tcp_address: missing port, use host:port"#),
            ("tombstone_lifetime = -1", "invalid value -1 for tombstone_lifetime: negative, use"),
            ("tombstone_lifetime = 1.5", "invalid value 1.5 for tombstone_lifetime: use a duration"),
            ("tombstone_lifetime = '45'", r#"invalid value "45" for tombstone_lifetime: missing unit"#),
            ("workers = 0", "invalid value 0 for workers: use a whole number"),
            ("workers = 1025", "invalid value 1025 for workers: use a whole number"),
            ("max_topics = -1", "invalid value -1 for max_topics: use a whole number, or 0 for no limit"),
            ("max_command_size = 0", "invalid value 0 for max_command_size: use a whole number of bytes from 1"),
            ("idle_timeout = '60'", r#"invalid value "60" for idle_timeout: missing unit"#),
            ("pin_workers = 1", "invalid value 1 for pin_workers: use true or false"),
            ("io = 'mio'", r#"invalid value "mio" for io: use auto, uring or epoll"#),
            ("workers = [1,\n2]", "invalid value of type array for workers: use"),
            ("workers.x = 1", "invalid value of type table for workers: use"),
            ("workers = 2026-11-22", "invalid value 2026-11-22 for workers: use"),
        ] {
            let error = parse(format!("# A comment.\nverbose = true\n{text}").as_bytes()).unwrap_err();
            assert!(error.starts_with(&format!("line 3: {start}")), "{error}");
            assert!(!error.contains('\n'), "{error}");
        }
    }

    #[test]
    fn what_is_not_toml_is_named_by_line_key_and_text() {
        for (text, expected) in [
            (
                "workers = 1\ntcp_address = 0.0.0.0:4160",
                r#"line 2, key "tcp_address": invalid float, in "tcp_address = 0.0.0.0:4160""#,
            ),
            (
                "log_level = debug # no quotes\r\n",
                r#"line 1, key "log_level": string values must be quoted, expected literal string, in "log_level = debug # no quotes""#,
            ),
            (
                "\u{feff}workers = 3x",
                r#"line 1, key "workers": string values must be quoted, expected literal string, in "#,
            ),
            ("workers = 1\n\ntcp_address\n\n", r#"line 3: key with no value, expected `=`, in "tcp_address""#),
            (
                "log_level: 'info'",
                r#"line 1: invalid unquoted key, expected letters, numbers, `-`, `_`, in "log_level: 'info'""#,
            ),
            (
                "io = 'epoll'\nlog_level = \n",
                r#"line 2, key "log_level": string values must be quoted, expected literal string, in "log_level =""#,
            ),
            ("workers == 5", r#"line 1, key "workers": extra `=`, in "workers == 5""#),
            ("= 5", r#"line 1: unquoted keys cannot be empty, expected letters, numbers, `-`, `_`, in "= 5""#),
            ("workers = 1\nworkers = 2", r#"line 2, key "workers": duplicate key, in "workers = 2""#),
            ("workers.x = 1\nworkers = 2", r#"line 2, key "workers": duplicate key, in "workers = 2""#),
            ("workers = 01", r#"line 1, key "workers": unexpected leading zero, in "workers = 01""#),
            ("workers = 1__0", r#"line 1, key "workers": `_` may only go between digits, in "workers = 1__0""#),
            (
                "workers = 99999999999999999999",
                r#"line 1, key "workers": invalid type: integer `99999999999999999999` as i128, expected any valid TOML value, in "workers = 9"#,
            ),
            (
                "workers = 2026-13-45",
                r#"line 1, key "workers": invalid date, expected month between 01 and 12, in "workers = 2026-13-45""#,
            ),
            (
                "log_level = 'info",
                r#"line 1, key "log_level": invalid literal string, expected `'`, in "log_level = 'info""#,
            ),
            (
                "log_prefix = \"a\nb\"\n",
                r#"line 1, key "log_prefix": invalid basic string, expected `"`, in "log_prefix = \"a""#,
            ),
            (
                "log_prefix = \"\"\"a\n\nb\n\n",
                r#"line 3, key "log_prefix": invalid multi-line basic string, expected `"`, in "b""#,
            ),
            ("log_prefix = \"\\q\"", r#"line 1, key "log_prefix": missing escaped value, expected "#),
            (
                "workers = [\n 1,\n bad,\n 3]\n",
                r#"line 3, key "workers": string values must be quoted, expected literal string, in "bad,""#,
            ),
            ("workers = [1,\n2\n", r#"line 2, key "workers": unclosed array, expected `]`, in "2""#),
            (
                "workers = {a=1\n",
                r#"line 1, key "workers": unclosed inline table, expected `}`, in "workers = {a=1""#,
            ),
            ("io = 'epoll'\n[workers\n", r#"line 2: unclosed table, expected `]`, in "[workers""#),
            (
                "[a]\nworkers = x",
                r#"line 2, key "workers": string values must be quoted, expected literal string, in "workers = x""#,
            ),
            (
                "io = 'a\u{1b}[31mb'",
                r#"line 1, key "io": invalid literal string, expected non-single-quote visible characters, in "io = 'a\u{1b}[31mb'""#,
            ),
            (
                "\u{202e}io = 1",
                r#"line 1, key "\u{202e}io": invalid unquoted key, expected letters, numbers, `-`, `_`, in "\u{202e}io = 1""#,
            ),
            (
                "io = 1\rworkers = 1",
                r#"line 1, key "workers": carriage return must be followed by newline, expected newline, in "io = 1\rworkers = 1""#,
            ),
        ] {
            let error = parse(text.as_bytes()).unwrap_err();
            assert!(error.starts_with(expected), "{error}");
            assert!(!error.contains(char::is_control), "{error:?}");
        }
    }

    #[test]
    fn what_is_not_utf_8_is_named_by_line_and_key() {
        for (text, expected) in [
            (
                &b"io = 'epoll'\nlog_prefix = 'caf\xe9'\n"[..],
                "line 2, key \"log_prefix\": not UTF-8, in \"log_prefix = 'caf\u{fffd}'\"",
            ),
            (b"\xff\xfei\0o\0", "line 1: not UTF-8, in \"\u{fffd}\u{fffd}i\\0o\\0\""),
        ] {
            assert_eq!(parse(text).unwrap_err(), expected);
        }
    }

    /// However long a line, a key or a value is.
    #[test]
    fn an_error_is_short() {
        let long = "x".repeat(1 << 14);
        for text in [
            format!("log_level = {long}"),
            format!("{long} = y"),
            format!("{long} = 1"),
            format!("log_level = '{long}'"),
            format!("workers = {}", "9".repeat(1 << 14)),
        ] {
            let error = parse(text.as_bytes()).unwrap_err();
            assert!(error.len() < 2048, "{} bytes", error.len());
        }
    }
}
