//! What `-data-path` keeps: a restart, in order or by SIGKILL, is one that no consumer notices.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use ringlookupd::registry::Saved;
use ringlookupd::state::decode;
use rustix::process::Signal;
use tempfile::TempDir;

use crate::support::clients::{Nsqd, connect, exchange, get, post, request};
use crate::support::{DEFAULTS, PATIENCE, Server};
use crate::wait_until;

/// Kills of a server at random moments; `RINGLOOKUPD_KILLS` sets another number.
const KILLS: usize = 10;

/// A folder, and how a server that uses it is started.
struct Kept {
    folder: TempDir,
    flags: Vec<String>,
}

impl Kept {
    fn new(flags: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let flags = flags.iter().map(|&flag| flag.to_owned());
        let path = format!("-data-path={}", folder.path().display());
        Self { flags: flags.chain([path, "-state-interval=10ms".to_owned()]).collect(), folder }
    }

    fn start(&self) -> Server {
        Server::start(&self.flags)
    }

    /// The log of a server that does not start.
    fn refused(&self) -> String {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ringlookupd"));
        let output = command.args(DEFAULTS).args(&self.flags).output().expect("the program runs");
        assert!(!output.status.success());
        String::from_utf8(output.stderr).expect("UTF-8")
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Waits until this is on the disk.
    fn wait_until_saved(&self, mut is_it: impl FnMut(&Saved) -> bool) {
        wait_until("it is saved", || {
            let bytes = fs::read(self.file("nsqlookupd.state")).unwrap_or_default();
            decode(&bytes).is_ok_and(|decoded| is_it(&decoded.saved))
        });
    }
}

fn ask(server: &Server, target: &str) -> String {
    let response = get(&mut connect(server.http), target);
    response.split_once("\r\n\r\n").expect("a head").1.to_owned()
}

fn change(server: &Server, target: &str) {
    let response = post(&mut connect(server.http), target);
    assert!(response.starts_with("HTTP/1.1 200 OK\r\n"), "{response}");
}

fn metric(server: &Server, name: &str) -> u64 {
    let metrics = ask(server, "/metrics");
    let line =
        metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')).expect("the metric is there");
    line.parse().expect("a whole number")
}

/// Whether a server is ready, and why not.
fn ready(server: &Server) -> String {
    get(&mut connect(server.http), "/ready").lines().next().expect("a status line").to_owned()
}

fn nsqd(server: &Server, name: &str, commands: &[&str]) -> Nsqd {
    let mut nsqd = Nsqd::identified(server.tcp, name, 0);
    for command in commands {
        assert_eq!(nsqd.ask(format!("{command}\n").as_bytes()), b"OK", "{command}");
    }
    nsqd
}

const QUESTIONS: [&str; 7] = [
    "/lookup?topic=t",
    "/lookup?topic=u",
    "/channels?topic=t",
    "/channels?topic=kept",
    "/topics",
    "/nodes",
    "/debug",
];

/// All documents are as before from the first request on, whichever way the server ended, but for the time of day at which a
/// producer was last heard.
#[test]
fn every_document_is_as_before() {
    for signal in [Signal::TERM, Signal::KILL] {
        let kept = Kept::new(&["-inactive-producer-timeout=1h"]);
        let mut server = kept.start();
        assert!(ready(&server).contains("503"), "nothing is known of producers yet");
        let _a = nsqd(&server, "a", &["REGISTER t c", "REGISTER t d", "REGISTER u"]);
        let _b = nsqd(&server, "b", &["REGISTER t"]);
        change(&server, "/topic/create?topic=kept");
        change(&server, "/channel/create?topic=kept&channel=k");
        change(&server, "/topic/tombstone?topic=u&node=a:2");
        let answers = |server: &Server| QUESTIONS.map(|question| without_times(&ask(server, question)));
        let before = answers(&server);
        // The tombstone is the last change.
        kept.wait_until_saved(|saved| saved.topics.iter().any(|topic| !topic.tombstones.is_empty()));
        server.signal(signal);
        assert!(server.wait_for_exit(PATIENCE).is_some());
        let server = kept.start();
        assert_eq!(answers(&server), before);
        assert!(ready(&server).contains("200 OK"), "it knows all producers");
        assert_eq!(metric(&server, "nsqlookupd_producers_expected"), 2);
    }
}

/// Without what changes: the times in `/debug`.
fn without_times(document: &str) -> String {
    let mut parts = document.split("\"last_update\":");
    let mut all = parts.next().expect("split yields something").to_owned();
    for part in parts {
        all.push_str(part.trim_start_matches(|byte: char| byte.is_ascii_digit()));
    }
    let mut parts = all.split("\"tombstoned_at\":");
    let first = parts.next().expect("split yields something").to_owned();
    parts.fold(first, |all, part| all + part.trim_start_matches(|byte: char| byte.is_ascii_digit()))
}

#[test]
fn nsqd_nodes_that_are_not_back_within_the_grace_are_unlisted() {
    let kept = Kept::new(&["-restore-grace=500ms"]);
    let server = kept.start();
    let nodes =
        (nsqd(&server, "back", &["REGISTER t c", "REGISTER gone"]), nsqd(&server, "away", &["REGISTER t"]));
    server.stop();
    drop(nodes);
    let server = kept.start();
    assert_eq!(ask(&server, "/lookup?topic=t").matches("broadcast_address").count(), 2);
    let _back = nsqd(&server, "back", &["REGISTER t c"]);
    wait_until("the grace is over", || metric(&server, "nsqlookupd_producers_expected") == 0);
    let lookup = ask(&server, "/lookup?topic=t");
    assert!(lookup.contains("\"back\"") && !lookup.contains("\"away\""), "{lookup}");
    wait_until("what was not registered again is gone", || !ask(&server, "/lookup?topic=gone").contains("back"));
    assert!(ask(&server, "/topics").contains("gone"), "a name stays");
    server.wait_for_log("-restore-grace is over: producers that did not come back:1, topics that were not registered again by others:1");
}

#[test]
fn a_second_server_does_not_get_the_folder() {
    let kept = Kept::new(&[]);
    let _first = kept.start();
    let log = kept.refused();
    assert!(log.contains("uses this folder; stop it, or give this one"), "{log}");
}

#[test]
fn a_folder_has_to_exist() {
    let kept = Kept::new(&[]);
    fs::remove_dir(kept.folder.path()).expect("it is empty");
    let log = kept.refused();
    assert!(log.contains("no such folder; make it, for the server's user alone"), "{log}");
}

/// A file that cannot be read is put aside, and the one before is used.
#[test]
fn a_damaged_file_is_put_aside() {
    let kept = Kept::new(&[]);
    let server = kept.start();
    for (count, topic) in [(1, "kept"), (2, "last")] {
        change(&server, &format!("/topic/create?topic={topic}"));
        kept.wait_until_saved(|saved| saved.topics.len() == count);
    }
    server.stop();
    let state = kept.file("nsqlookupd.state");
    let mut bytes = fs::read(&state).expect("it was written");
    *bytes.last_mut().expect("some bytes") ^= 1;
    fs::write(&state, &bytes).expect("space");
    let server = kept.start();
    server.wait_for_log("corrupt");
    assert!(ask(&server, "/topics").contains("\"kept\""), "{}", server.log());
    let aside = |path: &Path| path.to_string_lossy().contains(".corrupt-");
    let found = fs::read_dir(kept.folder.path()).expect("a folder").filter(|entry| {
        entry.as_ref().is_ok_and(|entry| aside(&entry.path()) && fs::read(entry.path()).is_ok_and(|b| b == bytes))
    });
    assert_eq!(found.count(), 1);
}

/// Names are made one after the other while the server is killed at random moments. What it has then is what was there at some
/// moment: all names up to one of them, none after it, and those that had been written before the kill.
#[test]
fn a_kill_loses_the_last_moment_alone() {
    let kills = std::env::var("RINGLOOKUPD_KILLS").map_or(KILLS, |kills| kills.parse().expect("a number"));
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let kept = Kept::new(&[]);
    let (mut made, mut server) = (0, kept.start());
    for kill in 0..kills {
        let mut client = connect(server.http);
        for _ in 0..random.usize(1..20) {
            made += 1;
            let target = format!("/topic/create?topic={made}");
            exchange(&mut client, &request("POST", &target)).expect("the server is there");
        }
        let is_written = random.bool();
        if is_written {
            kept.wait_until_saved(|saved| saved.topics.len() == made);
        }
        server.signal(Signal::KILL);
        assert!(server.wait_for_exit(PATIENCE).is_some());
        server = kept.start();
        let topics = ask(&server, "/topics");
        let mut found: Vec<usize> = topics.split('"').filter_map(|name| name.parse().ok()).collect();
        found.sort_unstable();
        assert!(found.iter().copied().eq(1..=found.len()), "kill {kill}: {found:?}");
        assert!(
            found.len() <= made && !(is_written && found.len() < made),
            "kill {kill}: {} of {made}",
            found.len()
        );
        made = found.len();
        assert!(!server.log().contains("WARNING"), "{}", server.log());
    }
}
