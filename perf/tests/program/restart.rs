//! `restart`: what a restart does to lookups is reported as it was.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;
use std::{fs, thread};

use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::Value;

use crate::lookupd::{Fault, Lookupd};
use crate::support::{SMALL, against, failure, generator, report};

/// Two restarts of a server whose nsqds notice soon.
const TWICE: [&str; 14] = [
    "restart",
    "--restarts",
    "2",
    "--heartbeat",
    "50ms",
    "--settle",
    "200ms",
    "--rate",
    "500",
    "--connections",
    "8",
    "--kept",
    "2",
    "--json",
];

/// Restarts, each with the sum of a count over both kinds of connections.
fn counts(report: &Value, name: &str) -> Vec<u64> {
    let restarts = report["restarts"].as_array().unwrap_or_else(|| panic!("no restarts in {report}"));
    let count = |restart: &Value, kind: &str| restart[kind][name].as_u64().unwrap_or_else(|| panic!("{restart}"));
    restarts.iter().map(|restart| count(restart, "new_connections") + count(restart, "kept_connections")).collect()
}

fn figure(report: &Value, name: &str) -> f64 {
    report["figures"][name].as_f64().unwrap_or_else(|| panic!("no {name} in {report}"))
}

/// Runs the generator to its end; the server is restarted whenever `file` is there, which the command makes.
fn restarted(server: &mut Lookupd, mut command: Command, file: &Path) -> Output {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    while child.try_wait().unwrap().is_none() {
        if file.exists() {
            server.restart();
            fs::remove_file(file).unwrap();
        }
        thread::sleep(Duration::from_millis(5));
    }
    child.wait_with_output().unwrap()
}

#[test]
fn a_server_that_forgets_its_producers_is_incomplete_until_all_have_reconnected() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("restart");
    let name = file.to_str().unwrap();
    let restart = format!("touch {name}; while [ -e {name} ]; do sleep 0.01; done");
    let mut server = Lookupd::start(Fault::None);
    let command = against(&server, &[TWICE.as_slice(), &["--command", &restart], &SMALL].concat());
    let output = restarted(&mut server, command, &file);
    let report = report(&output);
    assert_eq!(report["scenario"], "restart");
    assert!(counts(&report, "incomplete").iter().all(|count| *count > 0), "{report}");
    assert!(counts(&report, "asked").iter().all(|count| *count > 0), "{report}");
    for restart in report["restarts"].as_array().unwrap() {
        assert_eq!(restart["is_settled"], true, "{report}");
        assert!(restart["seconds_until_complete"].as_f64().unwrap() > 0.0, "{report}");
        assert!(restart["new_connections"]["latency_us"]["p50"].as_f64().unwrap() > 0.0, "{report}");
    }
    assert!(figure(&report, "nsqd_reconnects") >= 8.0, "four nsqds, twice: {report}");
    assert!(figure(&report, "kept_connections_found_closed") >= 2.0, "{report}");
    assert!(figure(&report, "seconds_with_incomplete_responses") >= 0.2, "a tenth each at least: {report}");
    assert_eq!(server.topics(), [""; 0], "what it has made is deleted");
}

#[test]
fn a_command_that_interrupts_nothing_is_reported_so() {
    let server = Lookupd::start(Fault::None);
    let output = against(&server, &[TWICE.as_slice(), &["--command", "true"], &SMALL].concat()).output().unwrap();
    let report = report(&output);
    for name in ["refused", "broken", "timed_out", "error_status", "incomplete", "with_duplicates"] {
        assert_eq!(counts(&report, name), [0, 0], "{name}: {report}");
    }
    assert!(figure(&report, "seconds_until_complete_max") <= 0.0, "{report}");
    assert!(figure(&report, "restarts_not_settled") <= 0.0, "{report}");
}

#[test]
fn restarts_are_a_table_for_people() {
    let server = Lookupd::start(Fault::None);
    let flags = &TWICE[..TWICE.len() - 1];
    let output = against(&server, &[flags, &["--command", "true"], &SMALL].concat()).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    for part in ["\nRestarts\n  restart ", "incomplete", "\n  2 ", "kept connections", "refused connections"] {
        assert!(text.contains(part), "{part:?} is not in: {text}");
    }
}

#[test]
fn a_command_that_fails_ends_the_run() {
    let server = Lookupd::start(Fault::None);
    let output =
        against(&server, &[TWICE.as_slice(), &["--command", "exit 3"], &SMALL].concat()).output().unwrap();
    assert!(failure(&output).contains("--command `exit 3` ended with exit status: 3"));
    let output =
        generator(&["restart", "--command", "true", "--server-pid", &std::process::id().to_string()]).output();
    assert!(failure(&output.unwrap()).contains("leave --server-pid out"));
    let output = generator(&["restart", "--command", "true", "--rate", "9"]).output();
    assert!(failure(&output.unwrap()).contains("--rate 9 is too low"));
    let output = generator(&["restart", "--command", "true", "--kept", "65"]).output();
    assert!(failure(&output.unwrap()).contains("--kept 65 is more than --connections 64"));
}

#[test]
fn a_server_that_is_never_complete_is_not_restarted() {
    let server = Lookupd::start(Fault::DropsAProducer);
    let flags = ["--command", "exit 3", "--settle-timeout", "300ms"];
    let text = failure(&against(&server, &[TWICE.as_slice(), &flags, &SMALL].concat()).output().unwrap());
    assert!(text.contains("not complete for 200ms within 300ms before the first restart"), "{text}");
}

#[test]
fn a_wrong_response_ends_the_run() {
    let server = Lookupd::start(Fault::JunkAfterBody);
    let flags = ["--command", "true"];
    let text = failure(&against(&server, &[TWICE.as_slice(), &flags, &SMALL].concat()).output().unwrap());
    assert!(text.contains("wrong answer to GET /lookup"), "{text}");
    let server = Lookupd::start(Fault::RefusesToRegister);
    let text = failure(&against(&server, &[TWICE.as_slice(), &flags, &SMALL].concat()).output().unwrap());
    assert!(text.contains("wrong answer to REGISTER"), "{text}");
}

/// A server that a shell starts again whenever it ends, as a service manager does; ended with the test.
struct Service(Child);

impl Service {
    fn start(program: &Path, flags: [String; 3], pid_file: &str) -> Self {
        let text = format!(
            "while :; do \"$0\" \"$@\" & echo $! > {pid_file}.new; mv {pid_file}.new {pid_file}; wait $! || exit; done"
        );
        let mut command = Command::new("sh");
        command.args(["-c", &text]).arg(program).args(flags).process_group(0);
        Self(command.stderr(Stdio::null()).spawn().unwrap())
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = kill_process_group(Pid::from_child(&self.0), Signal::KILL);
        let _ = self.0.wait();
    }
}

/// ringlookupd itself, where the workspace has built it, without a state to come back with.
#[test]
fn a_real_server_is_restarted_by_a_signal() {
    let program = Path::new(env!("CARGO_BIN_EXE_lookupd-perf")).with_file_name("ringlookupd");
    if !program.exists() {
        eprintln!("skipped: {} is not built", program.display());
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let pid_file = folder.path().join("pid");
    let file = pid_file.to_str().unwrap();
    let [tcp, http] = [(), ()].map(|()| std::net::TcpListener::bind("127.0.0.1:0").unwrap());
    let [tcp, http] = [tcp, http].map(|listener| listener.local_addr().unwrap().to_string());
    let flags = [format!("-tcp-address={tcp}"), format!("-http-address={http}"), "-log-level=error".into()];
    let _service = Service::start(&program, flags, file);
    while std::net::TcpStream::connect(&http).is_err() || std::net::TcpStream::connect(&tcp).is_err() {
        thread::sleep(Duration::from_millis(5));
    }
    let restart = format!("p=$(cat {file}); kill -TERM $p; while [ $(cat {file}) = $p ]; do sleep 0.01; done");
    let flags = ["--command", &restart, "--tcp", &tcp, "--http", &http];
    let report = report(&generator(&[TWICE.as_slice(), &flags, &SMALL].concat()).output().unwrap());
    assert!(counts(&report, "incomplete").iter().all(|count| *count > 0), "{report}");
    assert!(figure(&report, "restarts_not_settled") <= 0.0, "{report}");
}
