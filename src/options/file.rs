//! The TOML file: the flags' names with underscores, each with a string, a boolean or a number.

use std::fs;

use toml::{Table, Value};

use super::flags::settings;
use super::nearest::nearest;
use super::{Given, OptionsError};

/// Reads the file at `path`. Unlike stock, which ignores unknown keys, this refuses them: a misspelled key would
/// leave a default in force that nobody chose.
pub(super) fn load(path: &str) -> Result<Given, OptionsError> {
    let text = fs::read_to_string(path)
        .map_err(|error| OptionsError::File(format!("cannot read -config {path:?}: {error}")))?;
    parse(&text).map_err(|reason| OptionsError::File(format!("in -config {path:?}: {reason}")))
}

fn parse(text: &str) -> Result<Given, String> {
    let table: Table = toml::from_str(text).map_err(|error| syntax_error(text, &error))?;
    let mut given = Given::default();
    for (key, value) in &table {
        let setting = settings().find(|setting| setting.key == key).ok_or_else(|| unknown(key))?;
        (setting.set)(&mut given, value)
            .map_err(|reason| format!("invalid value {} for {key}: {reason}", show(value)))?;
    }
    Ok(given)
}

fn unknown(key: &str) -> String {
    let keys: Vec<_> = settings().map(|setting| setting.key).collect();
    let guess =
        nearest(key, keys.iter().copied()).map_or_else(String::new, |known| format!("did you mean {known}? "));
    format!("unknown key {key:?}: {guess}use {}", keys.join(", "))
}

/// A value for an error of one line: a table or an array could be long.
fn show(value: &Value) -> String {
    match value {
        Value::String(text) => format!("{text:?}"),
        Value::Integer(number) => number.to_string(),
        Value::Float(number) => number.to_string(),
        Value::Boolean(truth) => truth.to_string(),
        Value::Datetime(time) => time.to_string(),
        Value::Array(_) | Value::Table(_) => format!("of type {}", value.type_str()),
    }
}

/// The parser's own display draws the line and points at the place, over several lines.
fn syntax_error(text: &str, error: &toml::de::Error) -> String {
    let message = error.message().replace('\n', ", ");
    match error.span() {
        Some(span) => {
            let line = text[..span.start].matches('\n').count() + 1;
            format!("line {line}: {message}")
        }
        None => message,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::io::{Choice, Interface};
    use crate::limits::Limit;
    use crate::log::Level;

    #[test]
    fn every_key_is_read() {
        let given = parse(
            r#"
            # A comment.
            log_level = "WARN"
            log_prefix = "p "
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
        assert_eq!(given.tcp_address.unwrap().to_string(), "127.0.0.1:1");
        assert_eq!(given.http_address.unwrap().to_string(), ":2");
        assert_eq!(given.broadcast_address.as_deref(), Some(""));
        assert_eq!(given.inactive_producer_timeout, Some(Duration::from_secs(90)));
        assert_eq!(given.tombstone_lifetime, Some(Duration::from_millis(1500)));
        assert_eq!(given.workers.unwrap().get(), 3);
        assert_eq!(given.pin_workers, Some(true));
        assert_eq!(given.io, Some(Choice::Only(Interface::Epoll)));
        let limits =
            [(Limit::Topics, 7), (Limit::IdleTimeout, 120_000_000_000), (Limit::DrainTimeout, 1_500_000_000)];
        assert_eq!(given.limits, limits.into());
    }

    #[test]
    fn texts_stand_for_numbers_and_booleans_as_in_stock() {
        let given = parse("workers = '3'\npin_workers = 'F'").unwrap();
        assert_eq!(given.workers.unwrap().get(), 3);
        assert_eq!(given.pin_workers, Some(false));
    }

    #[test]
    fn an_unknown_key_is_told_what_is_allowed() {
        let keys = "log_level, log_prefix, verbose, tcp_address, http_address, broadcast_address, \
            inactive_producer_timeout, tombstone_lifetime, workers, pin_workers, io, busy_poll, max_command_size, ";
        for (text, advice) in [
            ("tcp-address = ':1'", format!(r#""tcp-address": did you mean tcp_address? use {keys}"#)),
            ("data_path = ''", format!(r#""data_path": use {keys}"#)),
            ("config = 'x'", format!(r#""config": use {keys}"#)),
            ("[nsqlookupd]\nworkers = 1", format!(r#""nsqlookupd": use {keys}"#)),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.starts_with(&format!("unknown key {advice}")), "{error}");
        }
    }

    #[test]
    fn a_value_that_is_not_allowed_is_named() {
        for (text, start) in [
            ("log_level = 'loud'", r#"invalid value "loud" for log_level: use debug"#),
            ("log_level = 1", "invalid value 1 for log_level: use debug"),
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
            let error = parse(text).unwrap_err();
            assert!(error.starts_with(start), "{error}");
            assert!(!error.contains('\n'), "{error}");
        }
    }

    #[test]
    fn what_is_not_toml_is_named_by_its_line() {
        for (text, line) in [
            ("workers = 1\n\ntcp_address", "line 3: "),
            ("workers = 1\nworkers = 2", "line 2: "),
            ("log_level = 'info", "line 1: "),
            ("log_level = debug", "line 1: "),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.starts_with(line), "{error}");
            assert!(!error.contains('\n'), "{error}");
        }
    }
}
