//! Tells the program what it was built from: the commit, the target and the compiler's version.
//!
//! The values depend on the source and the toolchain alone, so a build can be reproduced. A source archive has no
//! commit: RINGLOOKUPD_COMMIT in the build's environment gives it one.

use std::env;
use std::path::Path;
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=RINGLOOKUPD_COMMIT");
    let commit = env::var("RINGLOOKUPD_COMMIT").ok().or_else(commit);
    let rustc = env::var("RUSTC").ok().and_then(|rustc| output(&rustc, &["--version"]));
    // "rustc 1.95.0 (59807616e 2026-04-14)"
    let version = rustc.as_deref().and_then(|line| line.split(' ').nth(1));
    let target = env::var("TARGET").ok();
    for (name, value) in [("COMMIT", commit.as_deref()), ("RUSTC", version), ("TARGET", target.as_deref())] {
        println!("cargo::rustc-env=RINGLOOKUPD_{name}={}", value.unwrap_or("unknown"));
    }
}

/// The commit of this repository, if this is one. A repository around it that has it as a part has other commits.
fn commit() -> Option<String> {
    if !Path::new(".git").exists() {
        return None;
    }
    // Both change with the commit: one by a checkout, the other also by a commit on a branch.
    for name in ["HEAD", "logs/HEAD"] {
        let path = output("git", &["rev-parse", "--git-path", name])?;
        if Path::new(&path).exists() {
            println!("cargo::rerun-if-changed={path}");
        }
    }
    output("git", &["rev-parse", "--short=12", "HEAD"])
}

/// What a program prints, without the line's end.
fn output(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8(output.stdout).ok()?.trim_end().to_owned())
}
