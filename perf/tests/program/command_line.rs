//! What a person meets before anything is measured.

use std::process::Command;

use crate::support::{failure, generator};

/// Instances that nobody connects to.
const TWO: [&str; 5] = ["cluster", "--tcp", "localhost:1,localhost:2", "--http", "localhost:1,localhost:2"];

#[test]
fn each_bad_argument_is_one_line_that_says_what_to_do() {
    let table: [(&[&str], &str); 21] = [
        (&[], "see --help"),
        (&["destroy"], "unrecognized subcommand 'destroy'"),
        (&["lookup", "--rte", "5"], "'--rate'"),
        (&["lookup", "--rate", "0"], "a rate is a number a second"),
        (&["lookup", "--rate", "5", "--pipeline", "2"], "cannot be used with"),
        (&["lookup", "--for", "never"], "--for"),
        (&["lookup", "--path", "nodes"], "begin with /"),
        (&["lookup", "-r", "0"], "a rate is a number a second"),
        (&["soak", "-d", "never"], "--for"),
        (&["idle", "-c", "0"], "--connections"),
        (&["populate", "--run", "a_b"], "an id is 1 to 20 letters"),
        (&["lookup"], "give the run of the `populate` that holds one as --run ID"),
        (&["plot", "--from", "/dev/null"], "/dev/null is not the results.json of a comparison"),
        (&["beside", "--path", "nodes"], "begin with /"),
        (&["lookup", "--http", "4161"], "--http 4161 leads nowhere"),
        (&["storm", "--topics", "10"], "--topics-per-producer 50 is more than there are"),
        (&["idle"], "--server-pid"),
        (&["cluster", "--tcp", "localhost:1", "--http", "localhost:1"], "a cluster has several instances"),
        (&["cluster", "--tcp", "localhost:1,localhost:2", "--http", "localhost:1"], "give both of each instance"),
        (&[TWO.as_slice(), &["--server-pid", "1"]].concat(), "--server-pid has 1 processes for 2 instances"),
        (&[TWO.as_slice(), &["--lookups-at", "3"]].concat(), "--lookups-at 3 is none of 2 instances"),
    ];
    for (arguments, part) in table {
        let text = failure(&generator(arguments).output().unwrap());
        assert!(text.starts_with("lookupd-perf: ") && text.contains(part), "{arguments:?}: {text}");
    }
}

#[test]
fn help_holds_examples() {
    for arguments in [["--help"].as_slice(), &["lookup", "--help"], &["disconnect", "--help"], &["soak", "--help"]]
    {
        let output = generator(arguments).output().unwrap();
        assert!(output.status.success());
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(text.contains("Example") && text.contains("  lookupd-perf "), "{text}");
        assert!(!text.contains("allow-debug"), "{text}");
    }
}

#[test]
#[cfg(debug_assertions)]
fn a_debug_build_refuses_to_measure() {
    let output = Command::new(env!("CARGO_BIN_EXE_lookupd-perf")).arg("storm").output().unwrap();
    let text = failure(&output);
    assert!(text.contains("build with cargo build --release"), "{text}");
}

#[test]
fn an_open_file_limit_that_is_too_low_is_named() {
    let program = env!("CARGO_BIN_EXE_lookupd-perf");
    let script = format!("ulimit -n 100 && exec {program} --allow-debug populate --producers 500");
    let text = failure(&Command::new("sh").args(["-c", &script]).output().unwrap());
    assert!(text.contains("564 open files are needed and the limit (RLIMIT_NOFILE) is 100"), "{text}");
    assert!(text.contains("`ulimit -Hn 564`"), "{text}");
}
