//! The command line.
//!
//! Source of the syntax: Go's package flag. One or two dashes, `-name=value` or `-name value`, a boolean's value only
//! behind `=`, the last of repeated flags wins, `--` ends the flags. Stock ignores what follows the flags; here it is
//! an error, since a flag that lost its dash would be ignored with it.

use std::ffi::OsString;

use toml::Value;

use super::suggest::suggest;
use super::table::{Flag, all};
use super::{OptionsError, Overrides};

/// Reads the arguments, which do not include the program's name. `None` asks for the help.
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
            ("-mem-queue-size", r#""-mem-queue-size": -help lists the flags"#),
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
        let addresses =
            "use host:port, [IPv6]:port or :port, with a port from 0 to 65535, or an empty text for none";
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
}
