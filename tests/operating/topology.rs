//! Topics and channels that are known beforehand: they exist as long as the topology file names them, whatever clients do, and are
//! ordinary names from then on.

use std::fs;
use std::process::Command;

use rustix::process::Signal;
use tempfile::NamedTempFile;

use crate::support::Server;
use crate::support::clients::{Nsqd, connect, get, post};
use crate::wait_until;

const REFUSED: &str = "HTTP/1.1 409 Conflict\r\n";
const REFUSAL: &str = r#"{"message":"IN_TOPOLOGY_FILE","reason":"the file of -topology-file names it: take it out of there and reload the server, then delete it"}"#;

/// A server with a topology file.
struct Scene {
    file: NamedTempFile,
    server: Server,
}

impl Scene {
    fn start(topology: &str, flags: &[&str]) -> Self {
        let file = NamedTempFile::new().expect("a file");
        fs::write(file.path(), topology).expect("space for a file");
        let own = format!("-topology-file={}", file.path().display());
        let server = Server::start(&[&[own.as_str()], flags].concat());
        Self { file, server }
    }

    /// Reloads with this file, which the server takes or refuses.
    fn reload(&self, topology: &str, result: &str) {
        fs::write(self.file.path(), topology).expect("space for a file");
        let done = || count(&self.server, &format!("nsqlookupd_reloads_total{{result=\"{result}\"}} "));
        let before = done();
        self.server.signal(Signal::HUP);
        wait_until("reloaded", || done() == before + 1);
    }

    fn body(&self, target: &str) -> String {
        get(&mut connect(self.server.http), target).split_once("\r\n\r\n").expect("a body").1.to_owned()
    }

    fn channels(&self, topic: &str) -> String {
        self.body(&format!("/channels?topic={topic}"))
    }

    fn post(&self, target: &str) -> String {
        post(&mut connect(self.server.http), target)
    }

    fn is_deleted(&self, target: &str) -> bool {
        let response = self.post(target);
        let is_refused = response.starts_with(REFUSED) && response.ends_with(REFUSAL);
        assert!(is_refused || response.starts_with("HTTP/1.1 200 OK\r\n"), "{target}: {response}");
        !is_refused
    }
}

/// The value of a sample of `/metrics`; 0 where there is none.
fn count(server: &Server, sample: &str) -> u64 {
    let text = get(&mut connect(server.http), "/metrics");
    text.lines().find_map(|line| line.strip_prefix(sample)).map_or(0, |value| value.parse().expect("a number"))
}

#[test]
fn its_names_are_there_from_the_first_request_on() {
    let scene = Scene::start("[topics]\norders = ['mail', 'billing']\nclicks = []\n", &[]);
    scene
        .server
        .wait_for_log("INFO: topology file: topics:2 channels:2 always exist, topics:0 channels:0 no longer\n");
    assert_eq!(scene.channels("orders"), r#"{"channels":["billing","mail"]}"#);
    assert_eq!(scene.channels("clicks"), r#"{"channels":[]}"#);
    assert_eq!(scene.body("/lookup?topic=orders"), r#"{"channels":["billing","mail"],"producers":[]}"#);
    assert!(!scene.server.log().contains("DB: adding"), "{}", scene.server.log());
    assert_eq!(scene.body("/config/topology_file"), scene.file.path().display().to_string());
}

#[test]
fn none_of_them_can_be_deleted_over_http() {
    let scene = Scene::start("[topics]\norders = ['billing']\n", &["-http-admin-allow=127.0.0.1/32"]);
    let mut nsqd = Nsqd::identified(scene.server.tcp, "node", 1);
    nsqd.register("orders billing");
    nsqd.register("orders tail");
    nsqd.register("other billing");
    assert!(!scene.is_deleted("/topic/delete?topic=orders"));
    assert!(!scene.is_deleted("/channel/delete?topic=orders&channel=billing"));
    let lookup = scene.body("/lookup?topic=orders");
    assert!(lookup.starts_with(r#"{"channels":["billing","tail"],"producers":[{"#), "{lookup}");
    // Counted and logged like other requests for a change.
    assert_eq!(count(&scene.server, "nsqlookupd_http_requests_total{route=\"/topic/delete\",code=\"409\"} "), 1);
    assert_eq!(count(&scene.server, "nsqlookupd_http_requests_total{route=\"/channel/delete\",code=\"409\"} "), 1);
    scene.server.wait_for_log("POST /topic/delete topic(orders): 409\n");
    scene.server.wait_for_log("POST /channel/delete topic(orders) channel(billing): 409\n");
    assert!(!scene.server.log().contains("DB: removing"), "{}", scene.server.log());
    // Everything else can be: a channel that the file does not name, and topics, whatever their channels.
    assert!(scene.is_deleted("/channel/delete?topic=orders&channel=tail"));
    assert!(scene.is_deleted("/channel/delete?topic=other&channel=billing"));
    assert!(scene.is_deleted("/topic/delete?topic=other"));
    assert!(scene.is_deleted("/topic/delete?topic=none"));
    assert!(scene.post("/channel/delete?topic=orders&channel=none").contains("CHANNEL_NOT_FOUND"));
    assert!(scene.post("/topic/tombstone?topic=orders&node=node:2").starts_with("HTTP/1.1 200 OK\r\n"));
    assert_eq!(scene.body("/lookup?topic=orders"), r#"{"channels":["billing"],"producers":[]}"#);
}

#[test]
fn clients_make_and_leave_them_as_any_others() {
    let scene = Scene::start("[topics]\norders = ['billing']\n", &["-forget-unused-after=1ms"]);
    let mut nsqd = Nsqd::identified(scene.server.tcp, "node", 1);
    nsqd.register("orders billing");
    nsqd.register("orders unused");
    assert!(scene.post("/channel/create?topic=orders&channel=billing").starts_with("HTTP/1.1 200 OK\r\n"));
    assert_eq!(nsqd.ask(b"UNREGISTER orders billing\n"), b"OK");
    assert_eq!(nsqd.ask(b"UNREGISTER orders\n"), b"OK");
    drop(nsqd);
    wait_until("the other channel is forgotten", || scene.channels("orders") == r#"{"channels":["billing"]}"#);
}

#[test]
fn a_reload_takes_the_file_as_it_is_then() {
    let scene = Scene::start("[topics]\norders = ['billing', 'mail']\nclicks = ['ads']\n", &[]);
    scene.reload("[topics]\norders = ['billing', 'archive']\nnews = []\n", "success");
    scene
        .server
        .wait_for_log("INFO: topology file: topics:2 channels:2 always exist, topics:1 channels:2 no longer\n");
    assert_eq!(scene.channels("orders"), r#"{"channels":["archive","billing","mail"]}"#);
    assert!(scene.body("/topics").contains("\"news\""));
    assert!(!scene.is_deleted("/topic/delete?topic=news"));
    assert!(!scene.is_deleted("/channel/delete?topic=orders&channel=archive"));
    // What the file lacks is still there, and can be deleted.
    assert_eq!(scene.channels("clicks"), r#"{"channels":["ads"]}"#);
    assert!(scene.is_deleted("/channel/delete?topic=orders&channel=mail"));
    assert!(scene.is_deleted("/topic/delete?topic=clicks"));
    // A file that says the same is no news.
    scene.reload("[topics]\nnews = []\norders = ['archive', 'billing']\n", "success");
    assert_eq!(scene.server.log().matches("always exist").count(), 2);
    assert_eq!(scene.body("/topics").matches("clicks").count(), 0);
}

#[test]
fn a_broken_file_changes_nothing_at_a_reload() {
    let scene = Scene::start("[topics]\norders = ['billing']\n", &[]);
    for (broken, reason) in [
        (
            "[topics]\nnews = []\norders = 'billing'\n",
            "line 3: invalid value of type string for topic orders: use a list",
        ),
        (
            "[topics]\nnews = ['a b']\n",
            "line 2: invalid name \"a b\" of a channel of topic news: use 1 to 64 letters",
        ),
        ("[topics]\nnews = [\n", "line 2, key \"news\": "),
        (
            "[topics]\n'news#ephemeral' = []\n",
            "line 2: invalid name \"news#ephemeral\" of a topic: what is #ephemeral goes",
        ),
    ] {
        scene.reload(broken, "failure");
        let path = scene.file.path().display().to_string();
        scene.server.wait_for_log(&format!(
            "WARNING: reload failed, the settings stay as they were - in -topology-file {path:?}: {reason}"
        ));
        assert_eq!(scene.body("/topics"), r#"{"topics":["orders"]}"#);
        assert!(!scene.is_deleted("/channel/delete?topic=orders&channel=billing"));
    }
}

#[test]
fn what_is_taken_out_is_forgotten_when_it_is_unused() {
    let scene = Scene::start(
        "[topics]\norders = ['billing', 'mail']\nclicks = ['ads']\nused = []\n",
        &["-forget-unused-after=1ms"],
    );
    let mut nsqd = Nsqd::identified(scene.server.tcp, "node", 1);
    nsqd.register("used");
    scene.reload("[topics]\norders = ['billing']\n", "success");
    wait_until("the topic is forgotten", || !scene.body("/topics").contains("clicks"));
    wait_until("the channel is forgotten", || scene.channels("orders") == r#"{"channels":["billing"]}"#);
    assert!(scene.body("/topics").contains("\"used\""));
    drop(nsqd);
    wait_until("it is unused, too", || scene.body("/topics") == r#"{"topics":["orders"]}"#);
}

/// The flag may come and go with the file of settings, which a reload reads first.
#[test]
fn without_a_file_nothing_is_known() {
    let topology = NamedTempFile::new().expect("a file");
    fs::write(topology.path(), "[topics]\norders = []\n").expect("space for a file");
    let settings = NamedTempFile::new().expect("a file");
    let server = Server::start(&[format!("-config={}", settings.path().display())]);
    let set = |text: &str, known: &str| {
        fs::write(settings.path(), text).expect("space for a file");
        server.signal(Signal::HUP);
        server.wait_for_log(known);
    };
    let delete = || post(&mut connect(server.http), "/topic/delete?topic=orders");
    set(
        &format!("topology_file = {:?}\n", topology.path().display().to_string()),
        "topics:1 channels:0 always exist",
    );
    assert!(delete().starts_with(REFUSED));
    set("", "topics:0 channels:0 always exist, topics:1 channels:0 no longer");
    assert!(delete().starts_with("HTTP/1.1 200 OK\r\n"));
}

#[test]
fn limits_of_clients_do_not_refuse_it() {
    let scene = Scene::start("[topics]\na = []\nb = []\n", &["-max-topics=1"]);
    scene.server.wait_for_log(
        "WARNING: topics:2 channels:0 with those of -topology-file are more than -max-topics or -max-channels: clients can \
         make no new ones; raise the limit\n",
    );
    assert_eq!(scene.body("/topics").matches('"').count(), 6);
    assert!(scene.post("/topic/create?topic=c").contains("TOO_MANY_TOPICS"));
    assert!(scene.post("/topic/create?topic=a").starts_with("HTTP/1.1 200 OK\r\n"));
}

#[test]
fn a_server_does_not_start_with_a_broken_file() {
    let file = NamedTempFile::new().expect("a file");
    fs::write(file.path(), "topics = []\n").expect("space for a file");
    let path = file.path().display().to_string();
    let run = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ringlookupd"));
        command.args(["-tcp-address=127.0.0.1:0", "-http-address=127.0.0.1:0", "-log-level=warn"]);
        let output = command.arg(format!("-topology-file={path}")).output().expect("it starts");
        (output.status.code(), String::from_utf8(output.stderr).expect("UTF-8"))
    };
    let fails = |reason: &str| {
        let (code, log) = run();
        let line = format!("FATAL: failed to instantiate nsqlookupd - {reason}\n");
        assert!(code == Some(1) && log.ends_with(&line) && log.lines().count() == 1, "{code:?}: {log}");
    };
    fails(&format!(
        "in -topology-file {path:?}: line 1: invalid value of type array for topics: use a table, [topics]"
    ));
    fs::remove_file(file.path()).expect("it is there");
    fails(&format!("cannot read -topology-file {path:?}: No such file or directory (os error 2)"));
}
