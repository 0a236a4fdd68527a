//! `/ready` tells a load balancer whether to send clients, and every other endpoint responds all the time.

use rustix::process::Signal;

use crate::support::clients::{Nsqd, connect, get};
use crate::support::{PATIENCE, Server};
use crate::wait_until;

const OK: &str = "HTTP/1.1 200 OK\r\n";
const UNAVAILABLE: &str = "HTTP/1.1 503 Service Unavailable\r\n";

fn ready(server: &Server) -> String {
    get(&mut connect(server.http), "/ready")
}

fn assert_ready(server: &Server) {
    let response = ready(server);
    assert!(response.starts_with(OK) && response.ends_with("\r\n\r\nOK"), "{response}");
}

fn assert_not_ready(server: &Server, reason: &str) {
    let response = ready(server);
    let body = format!("\r\n\r\n{{\"message\":\"{reason}\"}}");
    assert!(response.starts_with(UNAVAILABLE) && response.ends_with(&body), "{response}");
}

#[test]
fn it_is_ready_when_the_warm_up_is_over() {
    assert_ready(&Server::start(&["-warm-up=0s"]));
    let server = Server::start(&["-warm-up=1h"]);
    assert_not_ready(&server, "WARMING_UP");
    for path in ["/ping", "/health", "/topics"] {
        assert!(get(&mut connect(server.http), path).starts_with(OK), "{path}");
    }
    let server = Server::start(&["-warm-up=300ms"]);
    wait_until("the warm-up is over", || ready(&server).starts_with(OK));
    assert!(server.stop().success());
}

/// Whoever looks after the signal is served as before, until the delay is over.
#[test]
fn everything_works_in_the_shutdown_delay() {
    let mut server = Server::start(&["-warm-up=0s", "-shutdown-delay=1h"]);
    let mut nsqd = Nsqd::identified(server.tcp, "early", 1);
    server.signal(Signal::TERM);
    server.wait_for_log("stopping in 1h0m0s");
    assert_not_ready(&server, "STOPPING");
    nsqd.register("early");
    let mut late = Nsqd::identified(server.tcp, "late", 1);
    late.register("late");
    let mut client = connect(server.http);
    for topic in ["early", "late"] {
        let response = get(&mut client, &format!("/lookup?topic={topic}"));
        assert!(response.starts_with(OK) && !response.contains("Connection: close"), "{response}");
    }
    assert!(get(&mut client, "/ping").ends_with("OK"));
    server.signal(Signal::HUP);
    server.wait_for_log("reloaded the settings");
    assert_not_ready(&server, "STOPPING");
    assert!(server.exited().is_none());
    // Whoever does not want to wait sends the signal again.
    server.signal(Signal::INT);
    assert!(server.wait_for_exit(PATIENCE).is_some_and(|status| status.success()), "{}", server.log());
}

#[test]
fn the_shutdown_delay_ends_by_itself() {
    let mut server = Server::start(&["-shutdown-delay=200ms"]);
    server.signal(Signal::TERM);
    assert!(server.wait_for_exit(PATIENCE).is_some_and(|status| status.success()), "{}", server.log());
}

/// As in stock.
#[test]
fn without_a_delay_it_stops_at_once() {
    let mut server = Server::start::<&str>(&[]);
    server.signal(Signal::TERM);
    assert!(server.wait_for_exit(PATIENCE).is_some_and(|status| status.success()));
    assert!(!server.log().contains("stopping in"), "{}", server.log());
}
