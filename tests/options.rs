//! An operator starts the program with a mistake: it must end at once, with one line that says what to change, before
//! anything listens. Asked for its version or its flags, it must answer on standard output and succeed.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::process::{Command, Output};

fn run(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ringlookupd")).args(args).output().unwrap()
}

/// Stock's exit codes for a command line and for a file that cannot be used.
const COMMAND_LINE: i32 = 2;
const FILE: i32 = 1;

/// What the program says when it refuses a command line or a file: one line, and nothing else.
fn refusal(output: &Output, exit_code: i32) -> String {
    let text = str::from_utf8(&output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(exit_code), "{text}");
    assert!(output.stdout.is_empty());
    let line = text.strip_suffix('\n').expect("a whole line");
    assert!(!line.contains(char::is_control), "{text:?}");
    line.strip_prefix("nsqlookupd: ").expect("the program's name").to_owned()
}

fn printed(args: &[&str]) -> String {
    let output = run(args);
    assert!(output.status.success());
    assert!(output.stderr.is_empty());
    String::from_utf8(output.stdout).unwrap()
}

/// A configuration file that goes when it is dropped.
struct ConfigFile(PathBuf);

impl ConfigFile {
    fn new(name: &str, text: &[u8]) -> Self {
        let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}.cfg", std::process::id()));
        fs::write(&path, text).unwrap();
        Self(path)
    }

    fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

impl Drop for ConfigFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

#[test]
fn a_refused_flag_is_named_with_its_value_and_what_is_allowed() {
    for (args, line) in [
        (
            &["-log-level=loud"][..],
            r#"invalid value "loud" for -log-level: use debug, info, warn, error or fatal"#,
        ),
        (&["--workers", "0"], r#"invalid value "0" for -workers: use a whole number from 1 to 1024"#),
        (&["-verbose=maybe"], r#"invalid value "maybe" for -verbose: use true or false"#),
        (
            &["-tcp-address", "localhost\n"],
            r#"invalid value "localhost\n" for -tcp-address: missing port, use host:port, [IPv6]:port or :port, with a port from 0 to 65535, or an empty text for none"#,
        ),
        (&["-tcp-adress=:0"], r#"unknown flag "-tcp-adress": did you mean -tcp-address?"#),
        (&["-config"], "no value for -config: use a string"),
        (
            &["tcp-address=:0"],
            r#"unexpected argument "tcp-address=:0": only flags are allowed, and a boolean takes its value as -pin-workers=false"#,
        ),
    ] {
        assert_eq!(refusal(&run(args), COMMAND_LINE), line);
    }
}

#[test]
fn an_argument_that_is_not_utf_8_is_refused() {
    let argument = std::ffi::OsStr::from_bytes(b"-log-prefix=\xff");
    let output = Command::new(env!("CARGO_BIN_EXE_ringlookupd")).arg(argument).output().unwrap();
    assert_eq!(refusal(&output, COMMAND_LINE), "argument \"-log-prefix=\u{fffd}\" is not UTF-8");
}

#[test]
fn a_refused_key_is_named_with_its_file() {
    let file = ConfigFile::new("refused-key", b"tombstone_lifetime = \"45\"\n");
    assert_eq!(
        refusal(&run(&["-config", file.path()]), FILE),
        format!(
            "in -config {:?}: line 1: invalid value \"45\" for tombstone_lifetime: missing unit, \
             use a duration from 0s to 292 years such as 300s, 1m30s or 1.5h (ns, us, ms, s, m, h)",
            file.path()
        )
    );
}

#[test]
fn a_key_is_checked_even_if_a_flag_goes_before_it() {
    let file = ConfigFile::new("overruled-key", b"log_level = \"loud\"\n");
    assert!(refusal(&run(&["-log-level=info", "-config", file.path()]), FILE).contains("for log_level: "));
}

#[test]
fn an_unknown_key_is_refused() {
    let file = ConfigFile::new("unknown-key", b"tcp_adress = \":0\"\n");
    let line = refusal(&run(&["-config", file.path()]), FILE);
    assert!(line.contains(r#"unknown key "tcp_adress": did you mean tcp_address? use log_level, "#), "{line}");
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let line = refusal(&run(&["-config=/nonexistent/nsqlookupd.cfg"]), FILE);
    assert!(line.starts_with(r#"cannot read -config "/nonexistent/nsqlookupd.cfg": "#), "{line}");
}

#[test]
fn a_broken_line_is_shown_with_its_number_and_its_key() {
    for (name, text, line) in [
        (
            "unquoted",
            &b"workers = 1\ntcp_address = 0.0.0.0:4160\n"[..],
            r#"line 2, key "tcp_address": invalid float, in "tcp_address = 0.0.0.0:4160""#,
        ),
        (
            "torn",
            b"workers = 1\nlog_level = \"info\n",
            r#"line 2, key "log_level": invalid basic string, expected `"`, in "log_level = \"info""#,
        ),
        ("binary", b"\xff\xfe", "line 1: not UTF-8, in \"\u{fffd}\u{fffd}\""),
    ] {
        let file = ConfigFile::new(name, text);
        assert_eq!(
            refusal(&run(&["-config", file.path()]), FILE),
            format!("in -config {:?}: {line}", file.path())
        );
    }
}

/// Programs read the first line by the form that Go gives it: `nsqlookupd v1.2.3 (built w/go1.2.3)`.
#[test]
fn the_version_is_stocks_line_and_then_our_own() {
    for args in [&["-version"][..], &["--version=true"], &["-version", "-config=/nonexistent"]] {
        let text = printed(args);
        let lines: Vec<_> = text.lines().collect();
        let [stocks, own] = lines[..] else { panic!("{text}") };
        let compiler = stocks.strip_prefix("nsqlookupd v1.3.0 (built w/rustc").expect("stock's form");
        let compiler: Vec<_> = compiler.strip_suffix(")").expect("the end").split('.').collect();
        assert_eq!(compiler.len(), 3, "{stocks}");
        assert!(compiler[..2].iter().all(|number| number.parse::<u32>().is_ok()), "{stocks}");
        let build = own.strip_prefix(concat!("ringlookupd ", env!("CARGO_PKG_VERSION"), " (")).expect("our name");
        let (commit, target) = build.strip_suffix(")").and_then(|build| build.split_once(", ")).expect("a build");
        assert!(commit == "unknown" || commit.bytes().all(|byte| byte.is_ascii_hexdigit()), "{own}");
        assert!(target.contains("-linux-"), "{own}");
    }
}

#[test]
fn help_goes_to_standard_output() {
    for arg in ["-h", "-help", "--help"] {
        let text = printed(&[arg]);
        assert!(text.starts_with("Usage of nsqlookupd:\n"), "{text}");
        assert!(text.contains("\n\nProducers and names:\n"), "{text}");
        assert!(text.contains("  -tombstone-lifetime duration\n"), "{text}");
    }
}
