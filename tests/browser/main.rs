//! The page at `/ui/` in Chromium, beside real nsqd nodes: `page.mjs` has the tests, and runs under node.
//!
//! Skipped, with the reason, where the variables that `.ci/browser` and `.ci/interop-programs` print are unset.

use std::env;
use std::io::{self, Write};
use std::path::Path;
use std::process::Command;

const VARIABLES: [&str; 3] = ["CHROMIUM_BIN", "BROWSER_NODE_MODULES", "NSQ_BIN"];

#[test]
fn the_page_shows_what_happens() {
    if let Some(unset) = VARIABLES.into_iter().find(|variable| env::var_os(variable).is_none()) {
        // Written past libtest's capture, which would hide from a passing run that it proved nothing.
        let _ = writeln!(io::stderr(), "the_page_shows_what_happens: skipped, {unset} is unset (see .ci/browser)");
        return;
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/browser/page.mjs");
    let mut node = Command::new("node");
    node.arg("--test").arg(script).env("RINGLOOKUPD", env!("CARGO_BIN_EXE_ringlookupd"));
    let output = node.output().expect("node starts");
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{out}{err}");
}
