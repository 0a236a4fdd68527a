//! Attacks on the log, and on the server through it.

use std::fs::File;
use std::io::{self, Read, Write};

use crate::PROGRAM;
use crate::beside::{Driver, Scene};
use crate::support::Server;
use crate::support::clients::{Nsqd, OK, get, identify_with, said, until_fin};

/// Line ends, terminal sequences and turns of the direction of writing in all that is logged as it was sent.
pub fn forging(driver: Driver) {
    let flags: Vec<_> = driver.flags().chain(["-log-level=debug"]).collect();
    Driver::beside_on(Server::start(&flags), |scene| {
        let evil = "\n[nsqlookupd] forged\r\x1b[31m\u{9b}31m\u{202e}\u{2028}";
        let description = serde_json::json!({
            "broadcast_address": evil, "hostname": evil, "version": evil, "tcp_port": 1, "http_port": 2,
        });
        until_fin(said(scene.server.tcp, b"\nA\n\n"));
        until_fin(said(scene.server.tcp, b"\x1b[2J"));
        for line in ["X\r\x1b[31m", "PING\x0b\x1b", "REGISTER a\rb\x1b[0m"] {
            let mut nsqd = Nsqd::connect(scene.server.tcp);
            assert!(nsqd.ask(&identify_with(description.to_string())).starts_with(b"{"));
            nsqd.ask(format!("{line}\n").as_bytes());
        }
        for target in ["/lookup?topic=\u{9b}31m", "/\u{202e}\u{2028}", "/\u{1b}[31m", "/%0a%1b"] {
            let request = format!("GET {target} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
            until_fin(said(scene.server.http, request.as_bytes()));
        }
        // The last that is logged.
        scene.server.wait_for_log("%0a%1b");
        let log = scene.server.log();
        assert!(log.contains("desired protocol magic '\\nA\\n\\n'"), "{log}");
        assert!(log.contains("forged"), "{log}");
        for line in log.lines() {
            assert!(line.starts_with("[nsqlookupd] "), "{line:?} in {log}");
            assert!(
                !line.contains(|seen: char| seen.is_control() || "\u{202e}\u{2028}".contains(seen)),
                "{line:?}"
            );
            assert!(!line.starts_with("[nsqlookupd] forged"), "{line:?}");
        }
    });
}

/// A log pipe that nobody reads.
pub fn unread(driver: Driver) {
    let (_reader, writer) = io::pipe().expect("a pipe");
    let flags: Vec<_> = driver.flags().chain(["-log-level=debug"]).collect();
    Driver::beside_on(Server::start_unlogged(PROGRAM.as_ref(), &flags, writer), talkative);
}

/// A log on a full disk.
pub fn full_disk(driver: Driver) {
    let full = File::options().write(true).open("/dev/full").expect("every Linux has it");
    let flags: Vec<_> = driver.flags().chain(["-log-level=debug"]).collect();
    Driver::beside_on(Server::start_unlogged(PROGRAM.as_ref(), &flags, full), talkative);
}

/// Has more logged than a pipe and the queue hold.
fn talkative(scene: &Scene) {
    const PINGS: usize = 1000;
    let mut nsqd = Nsqd::identified(scene.server.tcp, "talkative", 1);
    let mut replies = vec![0; PINGS * OK.len()];
    for _ in 0..20 {
        let mut client = said(scene.server.http, b"");
        for _ in 0..50 {
            assert!(get(&mut client, "/ping").ends_with("OK"));
        }
        nsqd.0.write_all(&b"PING\n".repeat(PINGS)).expect("the server reads");
        nsqd.0.read_exact(&mut replies).expect("each is answered");
    }
    scene.stayed_below(32);
}
