//! `cluster`: every change arrives at every other instance, of servers that share their registry and of a real cluster.

use std::env;
use std::io::{self, BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Stdio};
use std::thread;

use serde_json::Value;

use crate::lookupd::{Fault, Lookupd};
use crate::support::{SMALL, failure, generator, report};

const CLUSTER: [&str; 5] = ["cluster", "--rate", "200", "--for", "500ms"];

fn figure(report: &Value, name: &str) -> f64 {
    report["figures"][name].as_f64().unwrap_or_else(|| panic!("no {name} in {report}"))
}

/// The generator against several servers.
fn against(addresses: &[(String, String)], flags: &[&str]) -> Command {
    let (tcp, http): (Vec<_>, Vec<_>) = addresses.iter().cloned().unzip();
    let mut command = generator(&[CLUSTER.as_slice(), &SMALL, flags].concat());
    command.args(["--tcp", &tcp.join(","), "--http", &http.join(",")]);
    command
}

fn addresses(servers: &[&Lookupd]) -> Vec<(String, String)> {
    servers.iter().map(|server| (server.tcp.to_string(), server.http.to_string())).collect()
}

/// Three servers with one registry.
fn three(fault: Fault) -> [Lookupd; 3] {
    let first = Lookupd::start(fault);
    let others = (first.another(), first.another());
    [first, others.0, others.1]
}

fn run(flags: &[&str]) -> Value {
    let servers = three(Fault::None);
    let all: Vec<_> = servers.iter().collect();
    let report = report(&against(&addresses(&all), &[flags, &["--json"]].concat()).output().unwrap());
    assert_eq!(servers[0].topics(), [""; 0], "what it has made is deleted");
    report
}

fn failed(servers: &[&Lookupd], flags: &[&str]) -> String {
    failure(&against(&addresses(servers), &[&["--within", "500ms"], flags].concat()).output().unwrap())
}

fn assert_all_has_arrived(report: &Value) {
    let changes = figure(report, "changes");
    assert!(changes >= 10.0, "{report}");
    assert_eq!(report["operations"].as_f64(), Some(2.0 * changes), "at two other instances: {report}");
    assert_eq!(report["figures"]["instances"], 3.0);
    for name in ["up_after_ok_us_p999", "down_after_ok_us_p999", "ok_us_p50", "seconds_until_listed_everywhere"] {
        assert!(figure(report, name) >= 0.0, "{name}: {report}");
    }
}

#[test]
fn every_change_arrives_at_every_other_instance() {
    for by in ["watch", "lookup"] {
        for everywhere in [[].as_slice(), &["--everywhere"]] {
            assert_all_has_arrived(&run(&[&["--by", by], everywhere].concat()));
        }
    }
}

#[test]
fn lookups_are_measured_without_changes_and_with_them_and_so_are_processes() {
    let own = std::process::id().to_string();
    let report = run(&["--lookups", "300", "-c", "2", "--server-pid", &[own.as_str(); 3].join(",")]);
    assert_all_has_arrived(&report);
    for name in [
        "lookup_without_changes_us_p99",
        "lookup_with_changes_us_p99",
        "lookup_p99_with_to_without_ratio",
        "lookups_per_cpu_second_without_changes",
        "lookups_per_cpu_second_with_changes",
        "instance_1_rss_bytes_before",
        "instance_2_rss_bytes_populated",
        "instance_3_rss_bytes_after_changes",
        "instance_3_cpu_us_per_change",
    ] {
        assert!(figure(&report, name) > 0.0, "{name}: {report}");
    }
}

#[test]
fn an_instance_alone_has_lookups_beside_its_own_changes() {
    let (server, own) = (Lookupd::start(Fault::None), std::process::id().to_string());
    let flags = ["--lookups", "max", "-c", "2", "--server-pid", &own, "--json"];
    let report = report(&against(&addresses(&[&server]), &flags).output().unwrap());
    assert_eq!(server.topics(), [""; 0], "what it has made is deleted");
    assert_eq!((report["operations"].as_u64(), &report["latency_us"]), (Some(0), &Value::Null), "{report}");
    for name in ["changes", "lookups_per_cpu_second_with_changes", "instance_1_rss_bytes_populated"] {
        assert!(figure(&report, name) > 0.0, "{name}: {report}");
    }
}

#[test]
fn a_change_that_does_not_arrive_fails_the_run() {
    let servers = three(Fault::ForgetsToUnregister);
    let all: Vec<_> = servers.iter().collect();
    for by in ["watch", "lookup"] {
        let text = failed(&all, &["--by", by]);
        let other = servers[1].http.to_string();
        assert!(text.contains("UNREGISTER perf_") && text.contains(" of cluster-00000"), "{text}");
        assert!(text.contains(&format!("has not arrived at {other} and ")), "{text}");
        assert!(text.contains(" within 500ms"), "{text}");
    }
}

#[test]
fn an_event_that_is_wrong_fails_the_run() {
    let servers = three(Fault::NamesAnother);
    let text = failed(&servers.iter().collect::<Vec<_>>(), &[]);
    assert!(text.contains("nsqd-000000.perf has not unregistered perf_"), "{text}");
}

#[test]
fn servers_that_are_no_cluster_fail_the_run_and_are_tidied() {
    let servers = [Lookupd::start(Fault::None), Lookupd::start(Fault::None)];
    let text = failed(&[&servers[0], &servers[1]], &["--populated-within", "300ms"]);
    assert!(text.contains("not every instance lists all that is registered within 300ms"), "{text}");
    for server in servers {
        assert_eq!(server.topics(), [""; 0]);
    }
}

/// A process that is killed with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.kill().and_then(|()| self.0.wait()).expect("the process is our child");
    }
}

impl Running {
    /// One that has printed a line with all of these.
    fn start(command: &mut Command, needles: &[&str]) -> Self {
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn();
        let mut running = Self(child.unwrap_or_else(|error| panic!("{command:?}: {error}")));
        let mut lines = BufReader::new(running.0.stderr.take().expect("it is piped"));
        let (mut log, mut waiting) = (String::new(), needles.to_vec());
        while !waiting.is_empty() {
            let from = log.len();
            assert!(lines.read_line(&mut log).unwrap() > 0, "{command:?} ended: {log}");
            waiting.retain(|needle| !log[from..].contains(needle));
        }
        thread::spawn(move || drain(&mut lines));
        running
    }
}

/// So that nobody waits for a full pipe.
fn drain(lines: &mut BufReader<ChildStderr>) {
    // It ends with the process.
    let _ = io::copy(lines, &mut io::sink());
}

fn free_address() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("it is bound").to_string()
}

/// etcd and ringlookupd, where they are.
fn programs() -> Option<(PathBuf, PathBuf)> {
    let lookupd = Path::new(env!("CARGO_BIN_EXE_lookupd-perf")).with_file_name("ringlookupd");
    let etcd = env::var_os("ETCD_BIN").map(PathBuf::from);
    let reason = match &etcd {
        None => "ETCD_BIN does not name etcd's program (see .ci/etcd)".to_owned(),
        Some(_) if !lookupd.exists() => format!("{} is not built", lookupd.display()),
        Some(etcd) => return Some((etcd.clone(), lookupd)),
    };
    // Written past libtest's capture, which would hide from a passing run that it proved nothing.
    let _ = writeln!(io::stderr(), "a_real_cluster: skipped, {reason}");
    None
}

#[test]
fn a_real_cluster() {
    let Some((etcd, lookupd)) = programs() else { return };
    let folder = tempfile::tempdir().unwrap();
    let (client, peer) = (format!("http://{}", free_address()), "http://127.0.0.1:1");
    let mut command = Command::new(etcd);
    command.arg(format!("--data-dir={}", folder.path().display()));
    command.args([format!("--listen-client-urls={client}"), format!("--advertise-client-urls={client}")]);
    command.arg("--listen-peer-urls=http://127.0.0.1:0").arg(format!("--initial-advertise-peer-urls={peer}"));
    command.arg(format!("--initial-cluster=default={peer}"));
    let _etcd = Running::start(&mut command, &["ready to serve client requests"]);
    let cluster = format!("-cluster={}", client.replace("http:", "etcd:"));
    let start = |(tcp, http): &(String, String)| {
        let mut command = Command::new(&lookupd);
        command.args([format!("-tcp-address={tcp}"), format!("-http-address={http}"), cluster.clone()]);
        Running::start(&mut command, &["TCP: listening on", "HTTP: listening on"])
    };
    let addresses: Vec<_> = (0..3).map(|_| (free_address(), free_address())).collect();
    let instances: Vec<_> = addresses.iter().map(start).collect();
    let pids: Vec<_> = instances.iter().map(|instance| instance.0.id().to_string()).collect();
    for flags in [["--by", "watch"].as_slice(), &["--by", "lookup", "--everywhere"]] {
        let common = ["--lookups", "100", "--server-pid", &pids.join(","), "--json"];
        let report = report(&against(&addresses, &[&common, flags].concat()).output().unwrap());
        assert_all_has_arrived(&report);
        assert!(figure(&report, "instance_3_rss_bytes_before") > 0.0, "{report}");
    }
}
