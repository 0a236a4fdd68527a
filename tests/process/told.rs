//! What the log tells the operator: which program this is.

use crate::support::Server;
use crate::support::clients::{Nsqd, connect, get, identify};

/// The log's lines without what stands before the level.
fn lines(log: &str) -> Vec<&str> {
    let begin = "[nsqlookupd] 2026/11/22 10:37:00.123456 ".len();
    log.lines().map(|line| &line[begin..]).collect()
}

#[test]
fn the_log_begins_with_both_versions() {
    let server = Server::start::<&str>(&[]);
    let log = server.log();
    let [stocks, own] = lines(&log)[..2] else { unreachable!("two of them") };
    assert!(stocks.starts_with("INFO: nsqlookupd v1.3.0 (built w/rustc") && stocks.ends_with(')'), "{stocks}");
    assert!(own.starts_with(concat!("INFO: ringlookupd ", env!("CARGO_PKG_VERSION"), " (")), "{own}");
    let mut client = connect(server.http);
    assert!(get(&mut client, "/info").ends_with("\r\n\r\n{\"version\":\"1.3.0\"}"));
    let identity = Nsqd::connect(server.tcp).ask(&identify("n", 1));
    assert!(identity.ends_with(b",\"version\":\"1.3.0\"}"), "{}", identity.escape_ascii());
}
