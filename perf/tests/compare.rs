//! `compare` plays a whole suite with real processes: the floor, which is this program too.

use std::io::{self, Write};
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

const PROGRAM: &str = env!("CARGO_BIN_EXE_lookupd-perf");

fn compare(out: &Path, servers: &[&str]) -> Output {
    let servers = servers.iter().flat_map(|server| ["--server", server]);
    let mut command = Command::new(PROGRAM);
    command.args(["compare", "--allow-debug", "--suite", "smoke", "--out"]).arg(out).args(servers);
    command.output().expect("the program runs")
}

#[test]
fn two_floors_are_compared() {
    let out = tempfile::tempdir().expect("a folder");
    let floor = |name: &str| format!("{name}='{PROGRAM}' floor --allow-debug --tcp {{tcp}} --http {{http}}");
    let output = compare(out.path(), &[&floor("one"), &floor("other")]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));

    let read = |name: &str| std::fs::read_to_string(out.path().join(name)).expect("written");
    let results: Value = serde_json::from_str(&read("results.json")).expect("JSON");
    let samples = results["samples"].as_array().expect("an array");
    for server in ["one", "other"] {
        for (cell, rounds) in
            [("lookup", 3), ("crowded", 3), ("pipelined", 3), ("one_topic", 3), ("round_trip", 3), ("restart", 2)]
        {
            let of_cell = |sample: &&Value| sample["server"] == server && sample["cell"] == cell;
            let played: Vec<_> = samples.iter().filter(of_cell).collect();
            assert_eq!(played.len(), rounds, "{cell} of {server}");
            for sample in played {
                assert!(sample["outcome"]["measured"]["operations"].as_u64() > Some(0), "{sample}");
            }
        }
    }
    // Where it is in PATH.
    let by_wrk = samples.iter().filter(|sample| sample["cell"] == "wrk").count();
    let has_wrk = Command::new("wrk").arg("--version").output().is_ok();
    assert_eq!(by_wrk, if has_wrk { 4 } else { 0 });
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(errors.contains("is left out: wrk is not in PATH"), !has_wrk, "{errors}");
    assert_eq!(samples.len() - by_wrk, 34, "a server without a registry plays no other cell");
    assert_eq!(results["servers"][0]["ability"], "answers");

    let turns: Vec<_> = samples.iter().map(|sample| sample["server"].as_str().expect("a name")).collect();
    assert_eq!(turns[..4], ["other", "one", "other", "one"], "within a round all have their turn");

    let table = read("table.md");
    assert_eq!(String::from_utf8_lossy(&output.stdout), table);
    assert!(table.contains("| one ") && table.contains("| XS  | lookups a second "), "{table}");
    assert!(read("lookups.svg").starts_with("<svg"));

    let again = tempfile::tempdir().expect("a folder");
    let mut plot = Command::new(PROGRAM);
    plot.args(["plot", "--allow-debug", "--from"]).arg(out.path().join("results.json"));
    assert!(plot.arg("--out").arg(again.path()).status().expect("the program runs").success());
    for name in ["table.md", "lookups.svg"] {
        let text = std::fs::read_to_string(again.path().join(name)).expect("written");
        assert_eq!(text, read(name), "without measuring again");
    }
}

/// ringlookupd's command itself, where the workspace has built it.
fn ringlookupd() -> Option<String> {
    let program = Path::new(PROGRAM).with_file_name("ringlookupd");
    if !program.exists() {
        eprintln!("skipped: {} is not built", program.display());
        return None;
    }
    Some(format!("'{}' -tcp-address={{tcp}} -http-address={{http}} -log-level=error", program.display()))
}

fn results(out: &Path, output: &Output) -> Value {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let results = std::fs::read_to_string(out.join("results.json")).expect("written");
    serde_json::from_str(&results).expect("JSON")
}

#[test]
fn a_real_server_plays_every_cell() {
    let Some(command) = ringlookupd() else { return };
    let out = tempfile::tempdir().expect("a folder");
    let output = compare(out.path(), &[&format!("ringlookupd={command}")]);
    let results = results(out.path(), &output);
    let samples = results["samples"].as_array().expect("an array");
    let watched = |cell: &str| {
        let of_cell = samples.iter().filter(|sample| sample["cell"] == cell);
        of_cell.filter(|sample| sample["outcome"]["measured"]["operations"].as_u64() > Some(0)).count()
    };
    assert_eq!([watched("poll"), watched("cluster")], [2, 0]);
    // Those of a server that announces changes.
    let played = if results["servers"][0]["ability"] == "watches" { 2 } else { 0 };
    assert_eq!([watched("watch"), watched("long_poll")], [played; 2]);
    let restarted: Vec<_> = samples.iter().filter(|sample| sample["cell"] == "sigterm").collect();
    assert_eq!(restarted.len(), 2);
    for sample in restarted {
        let report = &sample["outcome"]["measured"];
        assert_eq!(report["restarts"][0]["is_settled"], true, "{sample}");
        assert!(report["figures"]["incomplete_responses"].as_f64() > Some(0.0), "nothing was restored: {sample}");
    }
    assert!(String::from_utf8_lossy(&output.stdout).contains("restart by SIGTERM, incomplete responses"));
}

#[test]
fn a_real_cluster_is_compared_with_an_instance_alone() {
    let Some(command) = ringlookupd() else { return };
    if std::env::var_os("ETCD_BIN").is_none() {
        // Written past libtest's capture, which would hide from a passing run that it proved nothing.
        let reason = "ETCD_BIN does not name etcd's program (see .ci/etcd)";
        let _ = writeln!(io::stderr(), "a_real_cluster_is_compared_with_an_instance_alone: skipped, {reason}");
        return;
    }
    let out = tempfile::tempdir().expect("a folder");
    let cluster = format!("cluster={command} -cluster=etcd://{{etcd}} -cluster-node={{node}}");
    let output = compare(out.path(), &[&format!("alone={command}"), &cluster]);
    let results = results(out.path(), &output);
    let samples = results["samples"].as_array().expect("an array");
    let played = |server: &str, cell: &str| {
        let of_cell = samples.iter().filter(|sample| sample["server"] == server && sample["cell"] == cell);
        of_cell.map(|sample| sample["outcome"]["measured"]["figures"].clone()).collect::<Vec<_>>()
    };
    assert_eq!(played("alone", "cluster").len(), 0);
    let arrivals = played("cluster", "cluster");
    assert_eq!(arrivals.len(), 2);
    for figures in arrivals {
        assert_eq!(figures["instances"], 3.0, "{figures}");
        assert!(figures["changes"].as_f64() > Some(0.0), "{figures}");
    }
    for (server, instances) in [("alone", 1.0), ("cluster", 3.0)] {
        let beside = played(server, "beside_changes");
        assert_eq!(beside.len(), 2);
        for figures in beside {
            assert_eq!(figures["instances"], instances, "{figures}");
            assert!(figures["lookups_per_cpu_second_with_changes"].as_f64() > Some(0.0), "{figures}");
        }
    }
    assert_eq!(results["servers"][1]["ability"], "cluster");
    let table = String::from_utf8_lossy(&output.stdout);
    assert!(table.contains("one for each cluster: etcd 3."), "{table}");
    let line = table.lines().find(|line| line.contains("from OK to REGISTER to each other instance, p50"));
    assert!(line.is_some_and(|line| line.contains("| - ")), "an instance alone has no others: {table}");
    assert!(out.path().join("cluster-xs.svg").exists());
}

#[test]
fn a_cluster_without_etcd_is_left_out() {
    let out = tempfile::tempdir().expect("a folder");
    let mut command = Command::new(PROGRAM);
    command.args(["compare", "--allow-debug", "--suite", "smoke", "--server", "c=x {etcd}", "--out"]);
    command.arg(out.path()).env("PATH", out.path()).env_remove("ETCD_BIN");
    let output = command.output().expect("the program runs");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(errors.contains("\"c\" is left out: etcd is not in PATH"), "{errors}");
    assert!(errors.contains("no server is left"), "{errors}");
    let output = command.args(["--etcd", "/nowhere/etcd"]).output().expect("the program runs");
    assert!(String::from_utf8_lossy(&output.stderr).contains("/nowhere/etcd is no etcd"));
}

#[test]
fn a_server_that_does_not_start_is_named() {
    let out = tempfile::tempdir().expect("a folder");
    let output = compare(out.path(), &["broken=sh -c 'echo port taken; exit 1'"]);
    assert_eq!(output.status.code(), Some(1));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(errors.contains("broken ended before it listened") && errors.contains("port taken"), "{errors}");
}

#[test]
fn two_servers_of_one_name_are_refused() {
    let out = tempfile::tempdir().expect("a folder");
    let output = compare(out.path(), &["a=x", "a=y"]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("two servers are called a"));
}
