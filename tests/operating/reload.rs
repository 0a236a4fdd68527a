//! SIGHUP: the file is read again, whole or not at all, and no client notices.

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::thread;

use rustix::process::Signal;
use tempfile::TempDir;

use crate::support::Server;
use crate::support::clients::{Nsqd, connect, get};
use crate::wait_until;

/// A server with a file of settings.
struct Scene {
    _folder: TempDir,
    file: PathBuf,
    server: Server,
}

impl Scene {
    fn start(settings: &str, flags: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let file = folder.path().join("ringlookupd.toml");
        fs::write(&file, settings).expect("space for a file");
        let mut all = vec![format!("-config={}", file.display())];
        // The level is the file's, and not what every test has.
        all.extend(flags.iter().map(|flag| (*flag).to_owned()));
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_ringlookupd"));
        command.args(["-tcp-address=127.0.0.1:0", "-http-address=127.0.0.1:0"]).args(all);
        Self { _folder: folder, file, server: Server::start_command(&mut command) }
    }

    /// Reloads with these settings, and waits until the server has said so as often as it should have.
    fn reload(&self, settings: &str) {
        fs::write(&self.file, settings).expect("space for a file");
        let before = self.count("reloads_total{result=\"success\"}");
        self.server.signal(Signal::HUP);
        wait_until("reloaded", || self.count("reloads_total{result=\"success\"}") == before + 1);
    }

    /// The value of a metric.
    fn count(&self, metric: &str) -> u64 {
        let metrics = get(&mut connect(self.server.http), "/metrics");
        let line = metrics.lines().find_map(|line| line.strip_prefix("nsqlookupd_")?.strip_prefix(metric));
        line.expect("the metric").trim().parse().expect("a number")
    }

    fn shown(&self, key: &str) -> String {
        let response = get(&mut connect(self.server.http), &format!("/config/{key}"));
        response.split_once("\r\n\r\n").expect("a body").1.to_owned()
    }
}

#[test]
fn settings_take_effect_for_what_begins_from_then_on() {
    let scene = Scene::start("max_topics_per_producer = 1\n", &[]);
    let server = &scene.server;
    let mut nsqd = Nsqd::identified(server.tcp, "node", 1);
    nsqd.register("a");
    assert!(nsqd.ask(b"REGISTER b\n").starts_with(b"E_"));
    scene.reload("max_topics_per_producer = 2\nlog_level = 'debug'\nlog_prefix = 'new '\n");
    // On a connection that was there before, and of a worker that has taken them by now or does so before the next.
    wait_until("the limit is the new one", || nsqd.ask(b"REGISTER b\n") == b"OK");
    assert!(nsqd.ask(b"REGISTER c\n").starts_with(b"E_"));
    get(&mut connect(server.http), "/ping");
    server.wait_for_log("\nnew ");
    server.wait_for_log("200 GET /ping");
    scene.reload("log_format = 'json'\n");
    server.wait_for_log("{\"time\":");
    assert_eq!(scene.shown("max_topics_per_producer"), "100000");
}

/// A response that was rendered before counts under the lifetimes that it was rendered with.
#[test]
fn lifetimes_hold_for_what_is_listed() {
    let scene = Scene::start("", &[]);
    let server = &scene.server;
    let mut nsqd = Nsqd::identified(server.tcp, "node", 1);
    nsqd.register("t");
    let lists = || get(&mut connect(server.http), "/lookup?topic=t").contains("\"node\"");
    assert!(lists() && lists() && lists());
    scene.reload("inactive_producer_timeout = '1ms'\n");
    wait_until("it is not listed", || !lists());
    server.wait_for_log("is silent: last PING");
    scene.reload("inactive_producer_timeout = '1h'\n");
    wait_until("it is listed", lists);
    assert!(get(&mut connect(server.http), "/nodes").contains("\"node\""));
}

#[test]
fn a_flag_wins_over_the_file_at_a_reload_too() {
    let scene = Scene::start("max_topics = 5\n", &["-max-topics=9"]);
    scene.reload("max_topics = 6\nmax_channels = 3\n");
    assert_eq!((scene.shown("max_topics"), scene.shown("max_channels")), ("9".to_owned(), "3".to_owned()));
}

#[test]
fn a_broken_file_changes_nothing() {
    let scene = Scene::start("max_topics = 5\n", &[]);
    for (nth, (broken, reason)) in [
        (
            "max_topics = 6\nmax_channels = 'x'\n",
            "line 2: invalid value \"x\" for max_channels: use a whole number",
        ),
        ("max_topics = 6\n\nmax_topcis = 7\n", "line 3: unknown key \"max_topcis\": did you mean max_topics?"),
        ("max_topics = 6\nlog_level =\n", "line 2, key \"log_level\": "),
    ]
    .into_iter()
    .enumerate()
    {
        fs::write(&scene.file, broken).expect("space for a file");
        scene.server.signal(Signal::HUP);
        scene.server.wait_for_log(reason);
        let warning = format!(
            "WARNING: reload failed, the settings stay as they were - in -config {:?}: {reason}",
            scene.file.display().to_string()
        );
        assert!(scene.server.log().contains(&warning), "{}", scene.server.log());
        assert_eq!(scene.shown("max_topics"), "5");
        assert_eq!(scene.count("reloads_total{result=\"failure\"}"), nth as u64 + 1);
        assert_eq!(scene.count("last_reload_successful"), 0);
    }
    fs::remove_file(&scene.file).expect("it is there");
    scene.server.signal(Signal::HUP);
    scene.server.wait_for_log("cannot read -config");
    scene.reload("max_topics = 6\n");
    assert_eq!(scene.shown("max_topics"), "6");
    assert_eq!(scene.count("last_reload_successful"), 1);
}

#[test]
fn what_needs_a_restart_is_named() {
    let scene = Scene::start("workers = 2\n", &[]);
    scene.reload("workers = 3\nio = 'epoll'\nbusy_poll = '1us'\nmax_topics = 4\n");
    let warning = "WARNING: restart the server for the new value of -workers, -io, -busy-poll";
    scene.server.wait_for_log(warning);
    assert_eq!((scene.shown("workers"), scene.shown("max_topics")), ("2".to_owned(), "4".to_owned()));
    // The value in use is no news.
    scene.reload("workers = 2\n");
    assert_eq!(scene.server.log().matches("restart the server").count(), 1);
}

#[test]
fn the_level_of_the_file_comes_back() {
    let scene = Scene::start("log_level = 'warn'\n", &["-log-level=info"]);
    let level = "PUT /config/log_level HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\ndebug";
    crate::support::clients::http::exchange(&mut connect(scene.server.http), level).expect("a response");
    assert_eq!(scene.shown("log_level"), "1");
    scene.reload("log_level = 'warn'\n");
    assert_eq!(scene.shown("log_level"), "2");
}

/// How often the server is reloaded under load.
const RELOADS: usize = 1000;

/// Each reload changes limits, lifetimes and the log; no connection is lost, and no response is wrong.
#[test]
fn a_thousand_reloads_disturb_nobody() {
    let scene = Scene::start("", &["-workers=2"]);
    let server = &scene.server;
    let (stop, asked) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        let producers = (0..4).map(|number| {
            let (stop, asked) = (&stop, &asked);
            scope.spawn(move || {
                let (name, topic) = (format!("node-{number}"), format!("t{number}"));
                let mut nsqd = Nsqd::identified(server.tcp, &name, 1);
                let mut consumer = connect(server.http);
                nsqd.register(&topic);
                while !stop.load(Relaxed) {
                    assert_eq!(nsqd.ask(b"PING\n"), b"OK");
                    let response = get(&mut consumer, &format!("/lookup?topic={topic}"));
                    let is_right = response.starts_with("HTTP/1.1 200 OK\r\n") && response.contains(&name);
                    assert!(is_right && !response.contains("Connection: close"), "{response}");
                    asked.fetch_add(1, Relaxed);
                }
            })
        });
        let producers: Vec<_> = producers.collect();
        for number in 1..=RELOADS {
            let settings = format!(
                "inactive_producer_timeout = '{}m'\nmax_topics = {}\nlog_level = '{}'\nrequest_timeout = '{}s'\n",
                1 + number % 7,
                10 + number,
                ["info", "debug", "warn"][number % 3],
                60 + number % 5,
            );
            fs::write(&scene.file, settings).expect("space for a file");
            server.signal(Signal::HUP);
            wait_until("reloaded", || scene.shown("max_topics") == (10 + number).to_string());
        }
        stop.store(true, Relaxed);
        for producer in producers {
            producer.join().expect("no wrong response");
        }
    });
    assert_eq!(scene.count("reloads_total{result=\"success\"}"), RELOADS as u64);
    assert_eq!(scene.count("reloads_total{result=\"failure\"}"), 0);
    println!("{} lookups and as many PINGs beside {RELOADS} reloads", asked.load(Relaxed));
}
