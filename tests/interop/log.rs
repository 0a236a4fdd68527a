//! What the log says of nsqd nodes, compared with what real nsqlookupd says of the same.

use std::fs;
use std::io::Write;
use std::net::Shutdown;

use ringlookupd::io::Backend;

use crate::programs::{self, Programs};
use crate::support::Server;
use crate::support::clients::{Nsqd, connect, get, post, reset};
use crate::wait;

on_both_drivers!(lines_about_nodes_are_stocks);

/// `docs/differences.md` has what is filtered out here: requests are logged at debug, and a disconnect in one
/// line. Of the lines that are added, stock has none.
fn lines_about_nodes_are_stocks(backend: Backend) {
    let Some(programs) = Programs::find() else {
        return;
    };
    let stock = programs.command("nsqlookupd").get_program().to_owned();
    assert!(fs::exists(&stock).is_ok_and(|exists| exists), "{} comes with nsqd", stock.display());
    let expected = play(&Server::start_program(stock.as_ref(), &[] as &[&str]));
    let (program, io) = programs::lookupd(backend);
    let actual = play(&Server::start_program(&program, &io));
    assert_eq!(actual, expected, "ours, then stock's");
}

/// The lines of a scene, sorted: stock names channels in any order.
fn play(server: &Server) -> Vec<String> {
    let mut registered = Nsqd::identified(server.tcp, "registered", 1);
    for channel in ["a", "b", "c"] {
        registered.register(&format!("t {channel}"));
    }
    registered.register("u d");
    assert_eq!(registered.ask(b"UNREGISTER t b\n"), b"OK");
    // With channels, and of what is not there any more.
    for _ in 0..2 {
        assert_eq!(registered.ask(b"UNREGISTER t\n"), b"OK");
    }
    for target in [
        "/channel/create?topic=v&channel=e",
        "/channel/delete?topic=u&channel=d",
        "/topic/delete?topic=u",
        "/topic/delete?topic=t",
        "/topic/delete?topic=none",
        "/topic/tombstone?topic=v&node=nobody:1",
    ] {
        let answer = post(&mut connect(server.http), target);
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    }

    let mut clients = vec![registered.0];
    for (begin, reply) in [
        (b"".as_slice(), ""),
        (b"REGIS", ""),
        (b"IDENTIFY\n", "E_BAD_BODY IDENTIFY failed to read body size"),
        (b"IDENTIFY\n\0\0", "E_BAD_BODY IDENTIFY failed to read body size"),
        (b"IDENTIFY\n\0\0\0\x05", "E_BAD_BODY IDENTIFY failed to read body"),
        (b"IDENTIFY\n\0\0\0\x05{", "E_BAD_BODY IDENTIFY failed to read body"),
        (b"FOO bar\n", "E_INVALID invalid command FOO"),
        (b"REGISTER t\n", "E_INVALID client must IDENTIFY"),
    ] {
        let mut nsqd = Nsqd::connect(server.tcp);
        nsqd.0.write_all(begin).expect("a connection");
        if begin.starts_with(b"IDENTIFY") {
            // A half-close: stock logs a reply that it cannot write.
            nsqd.0.shutdown(Shutdown::Write).expect("a connection");
        }
        if !reply.is_empty() {
            assert_eq!(nsqd.ask(b""), reply.as_bytes());
        }
        clients.push(nsqd.0);
    }
    let addresses: Vec<_> = clients.iter().map(|client| client.local_addr().expect("it is connected")).collect();
    drop(clients);
    let vanishing = Nsqd::identified(server.tcp, "reset", 1);
    let last = vanishing.0.local_addr().expect("it is connected");
    reset(vanishing.0);
    for address in addresses.iter().chain([&last]) {
        server.wait_for_log(&format!("ERROR: client({address}) - "));
    }
    // A disconnect is logged when it is committed, which is a moment later.
    wait::until("every producer is gone", || match get(&mut connect(server.http), "/nodes") {
        nodes if nodes.ends_with(r#"{"producers":[]}"#) => Ok(()),
        nodes => Err(nodes),
    });
    let addresses = addresses.into_iter().chain([last]);
    let names: Vec<_> =
        addresses.zip(1..).map(|(address, number)| (address.to_string(), format!("nsqd-{number}"))).collect();
    let log = server.log();
    let mut lines: Vec<_> = log.lines().filter_map(|line| comparable(line, server, &names)).collect();
    lines.sort();
    lines
}

/// A line without time and addresses; `None` for one that differs on purpose.
fn comparable(line: &str, server: &Server, names: &[(String, String)]) -> Option<String> {
    let mut message = line.splitn(4, ' ').nth(3)?.to_owned();
    for (address, name) in names {
        let read_from = format!("read tcp {}->{address}: ", server.tcp);
        message = message.replace(&read_from, "").replace(address, name);
    }
    let of_a_node = ["CLIENT(", "client(", "PROTOCOL(", "DB: ", "ERROR: ["];
    let differs = [" UNREGISTER category:client ", " was deleted while ", " no tombstone set"];
    let has = |parts: &[&str]| parts.iter().any(|part| message.contains(part));
    (has(&of_a_node) && !has(&differs)).then_some(message)
}
