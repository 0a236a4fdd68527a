//! A server that answers wrongly is caught, with what it answered, and the run fails.

use std::net::TcpListener;

use crate::lookupd::{Fault, Lookupd};
use crate::support::{SMALL, SOAK, against, failure, generator};

/// What a scenario says of a server with a fault, as parts of one line.
fn assert_caught(fault: Fault, scenario: &[&str], parts: &[&str]) {
    let server = Lookupd::start(fault);
    let arguments = [scenario, &SMALL, &["--timeout", "2s"]].concat();
    let text = failure(&against(&server, &arguments).output().unwrap());
    for part in parts {
        assert!(text.contains(part), "{fault:?}: {part:?} is not in: {text}");
    }
}

const LOOKUP: [&str; 6] = ["lookup", "--populate", "--connections", "2", "--for", "20s"];

#[test]
fn a_dropped_producer_is_named_and_the_answer_shown() {
    let parts = ["GET /lookup?topic=perf_", "producer nsqd-00000", "is missing", r"HTTP/1.1 200 Status\r\n"];
    assert_caught(Fault::DropsAProducer, &LOOKUP, &parts);
    assert_caught(Fault::DropsAProducer, &[LOOKUP.as_slice(), &["--pipeline", "3"]].concat(), &parts);
    assert_caught(Fault::DropsAProducer, &[LOOKUP.as_slice(), &["--rate", "100"]].concat(), &parts);
    assert_caught(Fault::DropsAProducer, &[LOOKUP.as_slice(), &["--no-keep-alive"]].concat(), &parts);
    assert_caught(Fault::DropsAProducer, &["churn", "--populate", "--for", "20s"], &parts);
    assert_caught(Fault::DropsAProducer, &["disconnect"], &parts);
    assert_caught(Fault::DropsAProducer, &["storm", "--within", "1s"], &["not complete within 1s"]);
}

#[test]
fn a_mangled_frame_is_shown() {
    for scenario in ["populate", "storm", "disconnect"] {
        let parts = ["wrong answer to REGISTER perf_", "a frame of 1330318602 bytes", r#""OK\r\n"#];
        assert_caught(Fault::MangledFrame, &[scenario], &parts);
    }
}

#[test]
fn a_refused_command_is_shown_with_the_refusal() {
    assert_caught(Fault::RefusesToRegister, &["populate"], &["REGISTER perf_", "OK was due", r#""E_BAD_TOPIC""#]);
    assert_caught(Fault::IdentifyWithoutInfo, &["populate"], &["IDENTIFY", "not what nsqd reads", r#""OK""#]);
}

#[test]
fn a_wrong_status_is_shown() {
    assert_caught(Fault::WrongStatus, &LOOKUP, &["status 500 where 200 was due", r"HTTP/1.1 500 Status\r\n"]);
    assert_caught(Fault::WrongStatus, &["storm"], &["status 500 where 200 was due"]);
}

#[test]
fn a_body_shorter_than_its_length_is_shown_as_far_as_it_came() {
    assert_caught(Fault::TruncatedBody, &LOOKUP, &["closed before its end", r#"\r\n\r\n{\"channels\":"#]);
}

#[test]
fn bytes_behind_an_answer_are_shown() {
    let text = "more follows than the answer; the answer: \"junk";
    assert_caught(Fault::JunkAfterBody, &LOOKUP, &["GET /lookup", text]);
    let text = "more follows where the connection was to be closed";
    assert_caught(Fault::JunkAfterBody, &[LOOKUP.as_slice(), &["--no-keep-alive"]].concat(), &[text, "junk"]);
}

#[test]
fn a_stall_is_reported_after_the_timeout() {
    assert_caught(Fault::Stalls, &LOOKUP, &["GET /lookup", "stalled, nothing came for 2s", "the answer: \"\""]);
    assert_caught(Fault::Stalls, &[LOOKUP.as_slice(), &["--rate", "100"]].concat(), &["stalled"]);
}

#[test]
fn a_write_that_the_next_lookup_does_not_show_is_wrong() {
    let parts = ["after the OK to Unregister", "of churn-00000", "shown"];
    assert_caught(Fault::ForgetsToUnregister, &["churn", "--populate", "--for", "1s", "--writes", "50"], &parts);
}

#[test]
fn a_hot_topic_must_show_each_change_and_nothing_else() {
    let hot = |fault, part| {
        let server = Lookupd::start(fault);
        let text = failure(&against(&server, &["hot", "--producers", "5", "--for", "200ms"]).output().unwrap());
        assert!(text.contains(part), "{fault:?}: {text}");
    };
    hot(Fault::ForgetsToUnregister, "nsqd-000000.perf is listed after the OK to its UNREGISTER");
    hot(Fault::DropsAProducer, "4 producers where 5 were due");
}

#[test]
fn a_large_answer_must_be_whole() {
    let part = r#"GET /nodes: "broadcast_address": 3 times where 4 were due"#;
    assert_caught(Fault::DropsANode, &["beside", "--populate", "--for", "200ms"], &[part]);
}

/// Nothing but the end tells: it asks for no topic while it runs.
#[test]
fn what_was_forgotten_is_found_at_the_end_of_a_soak() {
    let server = Lookupd::start(Fault::ForgetsToUnregisterOne);
    let flags = [
        "soak",
        "--seed",
        "7",
        "--producers",
        "4",
        "--topics",
        "40",
        "--topics-per-producer",
        "3",
        "--writes",
        "200",
        "--rate",
        "0.001",
        "--storms",
        "1h",
        "--no-hostile",
        "--no-children",
        "--for",
        "2s",
        "--within",
        "500ms",
    ];
    let output = against(&server, &flags).output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{text}");
    let (seed, failure) = text.trim_end().split_once('\n').unwrap();
    assert_eq!(seed, "soak: --seed 7");
    let problem = "wrong answer to GET /nodes: at the end of the soak of node soak-000001.perf:1: topic perf_";
    assert!(failure.contains(problem), "{failure}");
}

/// A lookup in between tells at once.
#[test]
fn a_wrong_answer_ends_a_soak() {
    let server = Lookupd::start(Fault::DropsAProducer);
    let output = against(&server, &[SOAK.as_slice(), &["--for", "1m"]].concat()).output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("wrong answer to GET /lookup?topic="), "{text}");
    assert!(text.contains("is missing; the answer:"), "{text}");
}

#[test]
fn producers_that_never_go_are_reported_at_the_limit() {
    assert_caught(Fault::ForgetsToDisconnect, &["disconnect", "--within", "500ms"], &["not gone within 500ms"]);
}

#[test]
fn a_server_that_is_not_there_is_no_wrong_answer() {
    // Bound and not listened to any more: refused, and nobody else's.
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let text = failure(&generator(&["populate", "--tcp", &closed, "--http", &closed]).output().unwrap());
    assert!(text.contains(&format!("cannot connect to {closed}")), "{text}");
    assert!(text.contains("is nsqlookupd running there?"), "{text}");
}
