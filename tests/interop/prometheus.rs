//! A real Prometheus scrapes ringlookupd, and has an answer to every query of the dashboard. promtool finds nothing to
//! complain of in the metrics, and the alerts fire when they should.

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use crate::daemon::Daemon;
use crate::programs::prometheus;
use crate::support::Server;
use crate::support::clients::{Nsqd, connect, exchange, get};
use crate::support::contrib::{Query, dashboard_queries, file};
use crate::wait;

const JOB: &str = "nsqlookupd";

/// Prometheus with one target.
struct Prometheus {
    _daemon: Daemon,
    _folder: TempDir,
    api: TcpStream,
}

impl Prometheus {
    fn start(program: &Path, target: SocketAddr) -> Self {
        let folder = TempDir::new().expect("a temporary directory");
        let configuration = folder.path().join("prometheus.yml");
        let text = format!(
            "global:\n  scrape_interval: 1s\nscrape_configs:\n  - job_name: {JOB}\n    static_configs:\n      \
             - targets: ['{target}']\n"
        );
        fs::write(&configuration, text).expect("the folder is ours");
        let mut command = Command::new(program);
        command
            .arg(format!("--config.file={}", configuration.display()))
            .arg(format!("--storage.tsdb.path={}", folder.path().join("data").display()))
            .arg("--web.listen-address=127.0.0.1:0")
            .stdin(Stdio::null());
        let daemon = Daemon::start(&mut command);
        let mut api = connect(daemon.logged("msg=\"Listening on\" address="));
        wait::until("Prometheus", || {
            let response = get(&mut api, "/-/ready");
            if response.starts_with("HTTP/1.1 200") { Ok(()) } else { Err(response) }
        });
        Self { _daemon: daemon, _folder: folder, api }
    }

    /// What the API says at a path.
    fn ask(&mut self, path: &str) -> Value {
        let response = get(&mut self.api, path);
        let (_, body) = response.split_once("\r\n\r\n").expect("a body");
        let answer: Value =
            serde_json::from_str(body).unwrap_or_else(|error| panic!("{path}: {error}: {response}"));
        assert_eq!(answer["status"], "success", "{path}: {answer}");
        answer["data"].clone()
    }

    /// How many series a query has.
    fn series(&mut self, expression: &str) -> usize {
        let mut path = "/api/v1/query?query=".to_owned();
        for byte in expression.bytes() {
            write!(path, "%{byte:02x}").expect("a String takes every write");
        }
        let data = self.ask(&path);
        data["result"].as_array().map_or(0, Vec::len)
    }
}

/// What an instance's dashboard would ask of our job.
fn filled_in(Query { expression, .. }: &Query) -> String {
    let text = expression.replace("$job", JOB).replace("$instance", ".*").replace("$__rate_interval", "10s");
    assert!(!text.contains('$'), "{text} has another variable");
    text
}

#[test]
fn every_query_of_the_dashboard_has_an_answer() {
    let Some(programs) = prometheus() else { return };
    let server = Server::start(&["-workers=2"]);
    let mut prometheus = Prometheus::start(&programs.prometheus, server.http);
    wait::until("the target", || {
        let targets = prometheus.ask("/api/v1/targets");
        let health = &targets["activeTargets"][0]["health"];
        if health == "up" { Ok(()) } else { Err(targets.to_string()) }
    });
    let (mut nsqd, mut consumer) = (Nsqd::identified(server.tcp, "node", 1), connect(server.http));
    let mut open = dashboard_queries();
    let mut round = 0;
    wait::until("data for every panel", || {
        round += 1;
        nsqd.register(&format!("topic-{round} channel"));
        for _ in 0..3 {
            get(&mut consumer, &format!("/lookup?topic=topic-{round}"));
        }
        open.retain(|query| prometheus.series(&filled_in(query)) == 0);
        match open.first() {
            None => Ok(()),
            Some(query) => Err(format!("nothing for {}: {}", query.panel, query.expression)),
        }
    });
    // Only in OpenMetrics is this a type, and the name without its suffix.
    let metadata = prometheus.ask("/api/v1/metadata?metric=nsqlookupd_build");
    assert_eq!(metadata["nsqlookupd_build"][0]["type"], "info", "{metadata}");
}

#[test]
fn promtool_finds_nothing_to_complain_of() {
    let Some(programs) = prometheus() else { return };
    let server = Server::start::<&str>(&[]);
    let _nsqd = {
        let mut nsqd = Nsqd::identified(server.tcp, "node", 1);
        nsqd.register("topic#ephemeral channel");
        nsqd
    };
    let mut client = connect(server.http);
    get(&mut client, "/lookup?topic=nothing");
    for path in ["/metrics", "/metrics/topics"] {
        let request = format!("GET {path} HTTP/1.1\r\nHost: h\r\n\r\n");
        let response = exchange(&mut client, &request).expect("a response");
        let (_, metrics) = response.split_once("\r\n\r\n").expect("a body");
        let mut command = Command::new(&programs.promtool);
        command.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut check = command.spawn().expect("it is there");
        check.stdin.take().expect("a pipe").write_all(metrics.as_bytes()).expect("it reads");
        let output = check.wait_with_output().expect("our child");
        let complaints = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert!(output.status.success() && complaints.is_empty(), "{path}: {complaints}");
    }
}

#[test]
fn alerts_fire_when_they_should() {
    let Some(programs) = prometheus() else { return };
    for (verb, name) in [("check", "prometheus/alerts.yml"), ("test", "prometheus/alerts_test.yml")] {
        let output =
            Command::new(&programs.promtool).args([verb, "rules"]).arg(file(name)).output().expect("it is there");
        let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert!(output.status.success(), "{name}: {text}");
    }
}
