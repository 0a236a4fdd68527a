//! Every scenario against a server that answers rightly: it ends well and reports what it is for.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::lookupd::{Fault, Lookupd};
use crate::support::{SMALL, SOAK, against, failure, generator, report};

fn run(arguments: &[&str]) -> Value {
    let server = Lookupd::start(Fault::None);
    let output = against(&server, &[arguments, &SMALL, &["--json"]].concat()).output().unwrap();
    report(&output)
}

fn figure(report: &Value, name: &str) -> f64 {
    report["figures"][name].as_f64().unwrap_or_else(|| panic!("no {name} in {report}"))
}

fn signal(child: &Child, signal: Signal) {
    kill_process(Pid::from_child(child), signal).unwrap();
}

/// What is printed first, once it is printed.
fn first_line(child: &mut Child) -> String {
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    line
}

#[test]
fn lookup_reports_latency_cpu_and_memory() {
    let own = std::process::id().to_string();
    let loops: [&[&str]; 5] =
        [&[], &["--pipeline", "5"], &["--rate", "200"], &["--no-keep-alive"], &["--path", "/nodes"]];
    for flags in loops {
        let populate = if flags.contains(&"--path") { [].as_slice() } else { &["--populate"] };
        let common = ["lookup", "--connections", "3", "--for", "300ms", "--server-pid", &own];
        let report = run(&[&common, populate, flags].concat());
        assert_eq!(report["scenario"], "lookup");
        assert!(report["operations"].as_u64().unwrap() > 0, "{report}");
        assert!(report["latency_us"]["p50"].as_f64() <= report["latency_us"]["max"].as_f64(), "{report}");
        assert!(report["server"]["rss_bytes"].as_u64().unwrap() > 0, "{report}");
        assert!(report["command"].as_str().unwrap().starts_with("lookupd-perf "), "{report}");
    }
}

#[test]
fn topics_may_be_asked_for_by_a_power_law() {
    assert!(run(&["lookup", "--populate", "--zipf", "1.1", "--for", "100ms"])["operations"].as_u64().unwrap() > 0);
}

#[test]
fn storm_ends_when_every_lookup_is_complete() {
    let report = run(&["storm", "--pipeline", "4"]);
    assert_eq!(report["operations"], 4 * 3 * 2);
    assert_eq!(report["figures"]["topics_watched"], 6.0);
    assert_eq!(report["figures"]["topics_complete"], 6.0);
    assert!(figure(&report, "seconds_until_complete") > 0.0);
    assert!(figure(&report, "seconds_until_registered") > 0.0);
}

#[test]
fn a_storm_may_be_left_unwatched() {
    let report = run(&["storm", "--unwatched"]);
    assert_eq!(report["operations"], 4 * 3 * 2);
    assert_eq!(report["figures"]["topics_watched"], 0.0);
}

/// `compare` lets several servers take turns so: each has a generator that waits.
#[test]
fn lookup_measures_once_for_each_line_of_its_input() {
    let server = Lookupd::start(Fault::None);
    let demand = ["lookup", "--populate", "--among", "2", "--on-demand", "--json"];
    let mut command = against(&server, &[demand.as_slice(), &SMALL].concat());
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut demands = child.stdin.take().unwrap();
    let mut reports = BufReader::new(child.stdout.take().unwrap()).lines();
    for _ in 0..3 {
        let before = server.lookups();
        demands.write_all(b"50ms\n").unwrap();
        let report: Value = serde_json::from_str(&reports.next().unwrap().unwrap()).unwrap();
        assert_eq!(report["operations"].as_u64().unwrap(), server.lookups() - before);
        assert!((0.05..10.0).contains(&report["seconds"].as_f64().unwrap()), "{report}");
    }
    drop(demands);
    assert!(reports.next().is_none(), "nobody has asked for more");
    assert!(child.wait().unwrap().success());
}

#[test]
fn churn_reports_both_phases_and_when_writes_show() {
    let report = run(&["churn", "--populate", "--rate", "300", "--writes", "100", "--for", "400ms"]);
    assert!(figure(&report, "writes_per_second") > 0.0);
    for name in ["lookup_without_writes_us_p50", "write_us_p99", "visible_after_ok_us_p999"] {
        assert!(figure(&report, name) > 0.0, "{name}");
    }
    assert!(report["latency_us"]["p50"].as_f64().unwrap() > 0.0);
}

#[test]
fn disconnect_ends_when_no_lookup_and_no_node_shows_a_producer() {
    let report = run(&["disconnect"]);
    assert!(figure(&report, "seconds_until_no_lookup") <= figure(&report, "seconds_until_no_node"));
}

#[test]
fn idle_reports_what_each_connection_costs() {
    let server = Lookupd::start(Fault::None);
    let own = std::process::id().to_string();
    let flags = ["--connections", "5", "--heartbeat", "20ms", "--for", "200ms", "--server-pid", &own, "--json"];
    let report = report(&against(&server, &[["idle"].as_slice(), &flags].concat()).output().unwrap());
    assert!(report["operations"].as_u64().unwrap() >= 5, "{report}");
    assert!(figure(&report, "rss_bytes_per_connection") >= 0.0);
    assert!(figure(&report, "cpu_us_per_connection_and_minute") >= 0.0);
}

#[test]
fn what_a_run_has_made_is_deleted_and_nothing_else() {
    const FOREIGN: [&str; 3] = ["orders", "perf_other_000000", "topic_000000"];
    let own = std::process::id().to_string();
    let scenarios: [&[&str]; 7] = [
        &["populate", "-d", "50ms"],
        &["lookup", "--populate", "-d", "50ms"],
        &["churn", "--populate", "-d", "50ms"],
        &["beside", "--populate", "-d", "50ms"],
        &["storm"],
        &["disconnect"],
        &["idle", "--connections", "2", "-d", "50ms", "--server-pid", &own],
    ];
    let scenarios = scenarios.map(|scenario| match scenario[0] {
        "idle" => scenario.to_vec(),
        _ => [scenario, &SMALL].concat(),
    });
    let hot = ["hot", "--producers", "4", "-d", "50ms"].to_vec();
    let soak = [SOAK.as_slice(), &["-d", "500ms"]].concat();
    for scenario in scenarios.into_iter().chain([hot, soak]) {
        let server = Lookupd::start(Fault::None);
        for topic in FOREIGN {
            server.create(topic);
        }
        report(&against(&server, &[scenario.as_slice(), &["--json"]].concat()).output().unwrap());
        assert_eq!(server.topics(), FOREIGN, "{scenario:?}");
    }
}

#[test]
fn topics_are_kept_on_request() {
    let server = Lookupd::start(Fault::None);
    report(
        &against(&server, &["hot", "--producers", "4", "-d", "50ms", "--run", "a", "--keep", "--json"])
            .output()
            .unwrap(),
    );
    assert_eq!(server.topics(), ["perf_a_000000"]);
}

/// A run that fails tells why, and has deleted what it made.
#[test]
fn topics_of_a_run_that_failed_are_deleted() {
    let server = Lookupd::start(Fault::DropsAProducer);
    failure(&against(&server, &["hot", "--producers", "4", "-d", "50ms"]).output().unwrap());
    assert_eq!(server.topics(), [""; 0]);
}

#[test]
fn a_storm_waits_until_earlier_producers_are_gone() {
    let server = Lookupd::start(Fault::None);
    let mut holder = against(&server, &["populate"]).args(SMALL).stdout(Stdio::piped()).spawn().unwrap();
    first_line(&mut holder);
    let storm = |flags: &[&str]| against(&server, &[["storm", "--json"].as_slice(), &SMALL, flags].concat());
    let text = failure(&storm(&["--within", "300ms"]).output().unwrap());
    assert!(text.contains("4 producers of an earlier run are listed after 300ms: end the lookupd-perf"), "{text}");

    let waiting = storm(&[]).stdout(Stdio::piped()).spawn().unwrap();
    signal(&holder, Signal::INT);
    assert!(holder.wait().unwrap().success());
    let report = report(&waiting.wait_with_output().unwrap());
    assert_eq!(report["figures"]["topics_complete"], 6.0);
}

#[test]
fn a_report_for_people_is_in_words_with_a_histogram() {
    let server = Lookupd::start(Fault::None);
    let lookup = [["lookup", "--populate", "-c", "3", "-r", "500", "-d", "200ms"].as_slice(), &SMALL].concat();
    let output = against(&server, &lookup).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    for part in
        ["operations in ", "\nLatency\n  median ", "\nHistogram of latencies\n  up to ", " %  ####", "rate"]
    {
        assert!(text.contains(part), "{part:?} is not in: {text}");
    }
}

#[test]
fn wrk_asks_for_a_topic_that_another_process_holds() {
    if Command::new("wrk").arg("--version").output().is_err() {
        eprintln!("skipped: wrk is not in PATH");
        return;
    }
    let server = Lookupd::start(Fault::None);
    let mut holder =
        against(&server, &["populate", "--run", "a"]).args(SMALL).stdout(Stdio::piped()).spawn().unwrap();
    first_line(&mut holder);
    let own = std::process::id().to_string();
    let wrk = ["wrk", "--run", "a", "-c", "2", "-d", "1s", "--server-pid", &own, "--json"];
    let report = report(&against(&server, &[wrk.as_slice(), &SMALL].concat()).output().unwrap());
    assert!(report["operations"].as_u64().unwrap() > 0, "{report}");
    assert!(report["server"]["cpu_seconds"].as_f64().unwrap() > 0.0, "{report}");
    assert!(report["latency_us"]["p50"].as_f64() <= report["latency_us"]["max"].as_f64(), "{report}");
    signal(&holder, Signal::INT);
    assert!(holder.wait().unwrap().success());
}

/// A population that another process holds: `lookup` knows what it must show, `disconnect` ends it.
#[test]
fn a_population_is_held_for_others_until_it_is_ended() {
    let server = Lookupd::start(Fault::None);
    let populate = [["populate", "--run", "a", "--json"].as_slice(), &SMALL].concat();
    let mut holder = against(&server, &populate).stdout(Stdio::piped()).spawn().unwrap();
    let populated: Value = serde_json::from_str(&first_line(&mut holder)).unwrap();
    assert_eq!(populated["operations"], 4 * 3 * 2);

    let lookup = [["lookup", "--run", "a", "-d", "100ms", "--json"].as_slice(), &SMALL].concat();
    assert!(report(&against(&server, &lookup).output().unwrap())["operations"].as_u64().unwrap() > 0);

    let pid = holder.id().to_string();
    let disconnect = [["disconnect", "--populated-by", &pid, "--run", "a", "--json"].as_slice(), &SMALL].concat();
    figure(&report(&against(&server, &disconnect).output().unwrap()), "seconds_until_no_node");
    assert!(!holder.wait().unwrap().success(), "it was killed");
    assert_eq!(server.topics(), [""; 0], "what it has made is deleted in its place");
}

#[test]
fn a_held_population_ends_well_with_a_signal() {
    let server = Lookupd::start(Fault::None);
    for end in [Signal::INT, Signal::TERM] {
        let mut holder = against(&server, &["populate"]).args(SMALL).stdout(Stdio::piped()).spawn().unwrap();
        let line = first_line(&mut holder);
        assert!(line.starts_with("populate: 24 operations"), "{line}");
        signal(&holder, end);
        assert!(holder.wait().unwrap().success());
        assert_eq!(server.topics(), [""; 0]);
    }
}

#[test]
fn an_interrupt_prints_what_was_measured_so_far() {
    let server = Lookupd::start(Fault::None);
    let arguments = [["lookup", "--populate", "--for", "10m", "--json"].as_slice(), &SMALL].concat();
    let child = against(&server, &arguments).stdout(Stdio::piped()).spawn().unwrap();
    while server.lookups() < 100 {
        thread::sleep(Duration::from_millis(5));
    }
    signal(&child, Signal::INT);
    let report = report(&child.wait_with_output().unwrap());
    assert!(report["operations"].as_u64().unwrap() > 0, "{report}");
    assert!(report["seconds"].as_f64().unwrap() < 600.0, "{report}");
    assert_eq!(server.topics(), [""; 0], "what it has made is deleted all the same");
}

#[test]
fn hot_holds_a_change_and_a_lookup_against_a_lookup() {
    let own = std::process::id().to_string();
    let server = Lookupd::start(Fault::None);
    let flags = ["hot", "--producers", "20", "--for", "300ms", "--server-pid", &own, "--json"];
    let report = report(&against(&server, &flags).output().unwrap());
    assert!(report["operations"].as_u64().unwrap() > 0, "{report}");
    for name in ["cycle_to_send_ratio", "cycle_to_send_latency_ratio", "lookup_alone_us_p50", "answer_bytes"] {
        assert!(figure(&report, name) > 0.0, "{name}");
    }
}

#[test]
fn beside_reports_lookups_and_the_large_answer() {
    for path in ["/nodes", "/topics"] {
        let report = run(&["beside", "--populate", "--rate", "200", "--for", "300ms", "--path", path]);
        assert!(figure(&report, "large_answers") >= 2.0, "{report}");
        for name in ["lookup_alone_us_p999", "first_answer_us_whole", "next_answers_first_byte_us_p50"] {
            assert!(figure(&report, name) > 0.0, "{name}");
        }
    }
}

#[test]
fn soak_finds_in_the_end_what_it_has_registered() {
    let server = Lookupd::start(Fault::None);
    let arguments = [SOAK.as_slice(), &["--for", "3s", "--storms", "500ms", "--json"]].concat();
    let report = report(&against(&server, &arguments).output().unwrap());
    for name in ["lookups", "writes", "reconnects", "storms", "changes_by_http", "children", "hostile_connections"]
    {
        assert!(figure(&report, name) > 0.0, "{name}: {report}");
    }
    assert_eq!(report["figures"]["seed"], 7.0);
}

#[test]
fn an_interrupted_soak_is_checked_to_its_end() {
    let server = Lookupd::start(Fault::None);
    let arguments = [SOAK.as_slice(), &["--for", "10m", "--json"]].concat();
    let child = against(&server, &arguments).stdout(Stdio::piped()).spawn().unwrap();
    while server.lookups() < 100 {
        thread::sleep(Duration::from_millis(5));
    }
    signal(&child, Signal::INT);
    figure(&report(&child.wait_with_output().unwrap()), "seconds_until_quiet");
}

#[test]
fn disconnect_ends_no_process_but_a_generator() {
    let own = std::process::id().to_string();
    let text = failure(&generator(&["disconnect", "--populated-by", &own]).output().unwrap());
    assert!(text.contains(&format!("--populated-by {own} is ")), "{text}");
}
