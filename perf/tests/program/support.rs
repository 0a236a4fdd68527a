//! The program, started and checked.

use std::process::{Command, Output};

use crate::lookupd::Lookupd;

/// A population that is registered at once.
pub const SMALL: [&str; 8] =
    ["--producers", "4", "--topics-per-producer", "3", "--topics", "6", "--channels", "2"];

/// A soak of a few nsqds.
pub const SOAK: [&str; 15] = [
    "soak",
    "--seed",
    "7",
    "--producers",
    "8",
    "--topics",
    "12",
    "--topics-per-producer",
    "3",
    "--writes",
    "200",
    "--rate",
    "200",
    "--connections",
    "4",
];

/// The generator with these arguments, before it is started.
pub fn generator(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lookupd-perf"));
    command.arg("--allow-debug").args(arguments);
    command
}

/// The generator against a server.
pub fn against(server: &Lookupd, arguments: &[&str]) -> Command {
    let mut command = generator(arguments);
    command.args(["--tcp", &server.tcp.to_string(), "--http", &server.http.to_string()]);
    command
}

/// Standard error of a run that was to fail, which is one line.
pub fn failure(output: &Output) -> String {
    let text = String::from_utf8(output.stderr.clone()).expect("errors are text");
    // 3 tells a server that is too slow from one that is wrong.
    let code = if text.contains("give the server longer") { 3 } else { 1 };
    assert_eq!(output.status.code(), Some(code), "{text}");
    assert_eq!(text.trim_end().lines().count(), 1, "{text}");
    text
}

/// The report of a run that was to succeed.
pub fn report(output: &Output) -> serde_json::Value {
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
    serde_json::from_slice(&output.stdout).expect("one JSON object")
}
