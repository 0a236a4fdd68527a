//! `watch`: every change reaches every watcher, by each of the three ways; what is missing or wrong fails the run.

use serde_json::Value;

use crate::lookupd::{Fault, Lookupd};
use crate::support::{SMALL, against, failure, report};

const WATCH: [&str; 11] =
    ["watch", "--watchers", "12", "--rate", "200", "--for", "400ms", "--wait", "150ms", "--interval", "10ms"];

fn run(server: &Lookupd, flags: &[&str]) -> Value {
    report(&against(server, &[WATCH.as_slice(), &SMALL, flags, &["--json"]].concat()).output().unwrap())
}

fn figure(report: &Value, name: &str) -> f64 {
    report["figures"][name].as_f64().unwrap_or_else(|| panic!("no {name} in {report}"))
}

fn assert_nothing_is_lost(report: &Value) {
    let figures = &report["figures"];
    assert!(figures["events_received"].is_number(), "{report}");
    assert_eq!(figures["events_received"], figures["events_expected"], "{report}");
}

/// What the run says of a server with a fault.
fn failed(fault: Fault, flags: &[&str]) -> String {
    let server = Lookupd::start(fault);
    let arguments = [WATCH.as_slice(), &SMALL, flags, &["--within", "500ms"]].concat();
    failure(&against(&server, &arguments).output().unwrap())
}

#[test]
fn every_change_reaches_every_watcher() {
    for mode in ["stream", "poll", "interval"] {
        let server = Lookupd::start(Fault::None);
        let report = run(&server, &["--mode", mode]);
        // Two watchers of each of the six topics.
        let events = report["operations"].as_u64().unwrap();
        assert!(events >= 40 && events.is_multiple_of(2), "{report}");
        assert_nothing_is_lost(&report);
        assert!(figure(&report, "changes_per_second") > 20.0, "{report}");
        let (ok, sent) =
            (report["latency_us"]["p50"].as_f64().unwrap(), figure(&report, "up_after_register_us_p50"));
        assert!(ok <= sent && sent > 0.0, "{report}");
        assert!(figure(&report, "down_after_ok_us_max") >= 0.0);
        assert_eq!(server.topics(), [""; 0], "what it has made is deleted");
    }
}

#[test]
fn lookups_are_measured_without_watchers_and_with_them_and_so_is_memory() {
    let own = std::process::id().to_string();
    let flags = ["--lookups", "300", "--connections", "2", "--deaf", "2", "--server-pid", &own];
    let report = run(&Lookupd::start(Fault::None), &flags);
    let names = [
        "lookup_without_watchers_us_p99",
        "lookup_with_watchers_us_p99",
        "lookup_p99_with_to_without_ratio",
        "rss_bytes_before_watchers",
        "rss_bytes_with_watchers",
        "server_cpu_us_per_event",
    ];
    for name in names {
        assert!(figure(&report, name) > 0.0, "{name}: {report}");
    }
    assert!(figure(&report, "rss_bytes_per_watcher") >= 0.0);
    assert_nothing_is_lost(&report);
}

#[test]
fn an_event_that_is_lost_fails_the_run() {
    let text = failed(Fault::LosesAnEvent, &[]);
    assert!(text.contains("wrong answer to GET /watch?topic=perf_"), "{text}");
    assert!(text.contains("an event is missing or wrong: due was that watch-0000"), "{text}");

    let text = failed(Fault::SendsNoEvent, &[]);
    assert!(text.contains("events have not reached 12 watchers; the first that was due: watch-0000"), "{text}");
}

#[test]
fn an_event_that_is_wrong_fails_the_run() {
    let text = failed(Fault::NamesAnother, &[]);
    assert!(text.contains("nsqd-000000.perf has neither registered nor unregistered"), "{text}");
    assert!(text.contains("event: down"), "{text}");
}

#[test]
fn a_change_that_is_not_listed_fails_polls() {
    for mode in ["poll", "interval"] {
        let text = failed(Fault::ForgetsToUnregister, &["--mode", mode]);
        assert!(text.contains("[watch-0000"), "{text}");
    }
    let text = failed(Fault::DropsAProducer, &["--mode", "poll"]);
    assert!(text.contains("is missing"), "{text}");
    let text = failed(Fault::DoesNotWait, &["--mode", "poll"]);
    assert!(text.contains("it ended after ") && text.contains(" of 150ms"), "{text}");
}

#[test]
fn a_server_that_has_no_watches_is_polled_from_time_to_time() {
    for mode in ["stream", "poll"] {
        let text = failed(Fault::DoesNotWatch, &["--mode", mode]);
        assert!(text.contains("see --mode interval"), "{text}");
    }
    let report = run(&Lookupd::start(Fault::DoesNotWatch), &["--mode", "interval"]);
    assert_nothing_is_lost(&report);
    let text = failed(Fault::DoesNotWatch, &["--mode", "interval", "--deaf", "1"]);
    assert!(text.contains("--deaf needs /watch"), "{text}");
}
