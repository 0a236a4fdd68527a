//! The servers of an NSQ cluster, on ports of the kernel's choice.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;

use minreq::{Method, Response};
use ringlookupd::io::Backend;
use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

use crate::daemon::Daemon;
use crate::programs::{self, Programs};
use crate::support::Server;
use crate::wait;

/// A server, and the flags for its backend.
type Program = (PathBuf, Vec<String>);

/// The server under test.
pub struct Lookupd {
    program: Program,
    flags: Vec<String>,
    pub server: Server,
    pub tcp: SocketAddr,
    pub http: SocketAddr,
}

impl Lookupd {
    pub fn start(backend: Backend) -> Self {
        Self::start_with(backend, &[])
    }

    pub fn start_with(backend: Backend, flags: &[String]) -> Self {
        Self::start_program(programs::lookupd(backend), flags)
    }

    /// Starts any program that takes nsqlookupd's flags.
    pub fn start_program(program: Program, flags: &[String]) -> Self {
        let own = [
            // nsqd asks for a new topic's channels at this address.
            "-broadcast-address=127.0.0.1",
            // At debug level each HTTP request has a line.
            "-log-level=debug",
        ];
        let all = [&own.map(str::to_owned), &program.1[..], flags].concat();
        let server = Server::start_program(&program.0, &all);
        Self { program, flags: flags.to_vec(), tcp: server.tcp, http: server.http, server }
    }

    /// Ends the process with SIGKILL.
    pub fn kill(&mut self) {
        self.server.signal(Signal::KILL);
        let status = self.server.wait_for_exit(wait::PATIENCE);
        assert!(status.is_some(), "SIGKILL leaves no choice");
    }

    /// Kills the server and starts it again, on the ports that it had.
    pub fn restart(mut self) -> Self {
        self.kill();
        let program = self.program.clone();
        self.replace_by(program)
    }

    /// Stops the server and starts a program in its place, on the ports that it had.
    pub fn replace_by(self, program: Program) -> Self {
        self.server.stop();
        let addresses = [format!("-tcp-address={}", self.tcp), format!("-http-address={}", self.http)];
        Self::start_program(program, &[self.flags.as_slice(), &addresses].concat())
    }

    pub fn topics(&self) -> BTreeSet<String> {
        names(&get(self.http, "/topics")["topics"])
    }

    pub fn channels(&self, topic: &str) -> BTreeSet<String> {
        names(&get(self.http, &format!("/channels?topic={topic}"))["channels"])
    }

    /// The topics of each node that `/nodes` lists.
    pub fn node_topics(&self) -> BTreeMap<SocketAddr, BTreeSet<String>> {
        self.nodes().iter().map(|node| (address(node), names(&node["topics"]))).collect()
    }

    /// The TCP addresses of the topic's producers, none for an unknown topic.
    pub fn producers(&self, topic: &str) -> BTreeSet<SocketAddr> {
        self.lookup(topic).0
    }

    /// The TCP addresses of the topic's producers, and its channels.
    pub fn lookup(&self, topic: &str) -> (BTreeSet<SocketAddr>, BTreeSet<String>) {
        let response = send(Method::Get, self.http, &format!("/lookup?topic={topic}"), "");
        if response.status_code == 404 {
            return Default::default();
        }
        let answer = json(&response);
        (addresses(&answer["producers"]), names(&answer["channels"]))
    }

    pub fn nodes(&self) -> Vec<Value> {
        let nodes = get(self.http, "/nodes");
        nodes["producers"].as_array().expect("an array").clone()
    }

    /// How many commands of this name it has had from nsqd.
    pub fn commands(&self, command: &str) -> u64 {
        self.metric(&format!("nsqlookupd_commands_total{{command=\"{command}\"}} "))
    }

    /// How many connections a listener has accepted.
    pub fn accepted(&self, listener: &str) -> u64 {
        self.metric(&format!("nsqlookupd_connections_accepted_total{{listener=\"{listener}\"}} "))
    }

    /// The value of a sample in `/metrics`, which is named up to its value.
    pub fn metric(&self, sample: &str) -> u64 {
        let metrics = send(Method::Get, self.http, "/metrics", "");
        let text = metrics.as_str().expect("text");
        let value = text.lines().find_map(|line| line.strip_prefix(sample)).expect("it is counted");
        value.parse().expect("a number")
    }

    /// Waits until `/lookup` names these producers and no others.
    pub fn await_producers(&self, topic: &str, nsqds: &[&Nsqd]) {
        wait::until_eq(&format!("the producers of {topic}"), &tcp_addresses(nsqds), || self.producers(topic));
    }

    /// Waits until this nsqd asks here for the channels of a topic that it makes. It does once it has registered a topic that it
    /// made after its connection; the first of two may be one that it registers with the connection.
    pub fn await_asking(&self, nsqd: &Nsqd) {
        for topic in ["asking", "asking-again"] {
            nsqd.create_topic(topic);
            wait::until(&format!("{topic} is registered"), || {
                let producers = self.producers(topic);
                if producers.contains(&nsqd.tcp) { Ok(()) } else { Err(format!("{producers:?}")) }
            });
        }
    }

    /// Waits until `/nodes` lists these nsqd and no others.
    pub fn await_nodes(&self, nsqds: &[&Nsqd]) {
        wait::until_eq("the nodes", &tcp_addresses(nsqds), || addresses(&Value::Array(self.nodes())));
    }

    /// Waits until `/channels` has these names and no others.
    pub fn await_channels(&self, topic: &str, channels: &[&str]) {
        wait::until_eq(&format!("the channels of {topic}"), &set(channels), || self.channels(topic));
    }
}

/// A real nsqd with a data path of its own.
pub struct Nsqd {
    _daemon: Daemon,
    // Declared after the process, and so removed after it has gone.
    _data: TempDir,
    pub tcp: SocketAddr,
    /// nsqadmin names a node by this address.
    pub http: SocketAddr,
}

impl Nsqd {
    /// Any of the `lookupds` may be dead: nsqd tries again with each heartbeat.
    pub fn start(programs: &Programs, lookupds: &[&Lookupd]) -> Self {
        Self::start_with(programs, lookupds, &[])
    }

    pub fn start_with(programs: &Programs, lookupds: &[&Lookupd], args: &[&str]) -> Self {
        let addresses: Vec<_> = lookupds.iter().map(|lookupd| lookupd.tcp).collect();
        Self::start_at(programs, &addresses, args)
    }

    /// The same, by the addresses for nsqd.
    pub fn start_at(programs: &Programs, lookupds: &[SocketAddr], args: &[&str]) -> Self {
        let data = TempDir::new().expect("a temporary directory");
        let daemon = Daemon::start(
            programs
                .command("nsqd")
                .args(["-tcp-address=127.0.0.1:0", "-http-address=127.0.0.1:0"])
                .arg("-broadcast-address=127.0.0.1")
                .arg("-data-path")
                .arg(data.path())
                .args(lookupds.iter().map(|lookupd| format!("-lookupd-tcp-address={lookupd}")))
                .args(args),
        );
        Self { tcp: daemon.listening("TCP"), http: daemon.listening("HTTP"), _daemon: daemon, _data: data }
    }

    /// From now on it registers with these.
    pub fn use_lookupds(&self, lookupds: &[&Lookupd]) {
        self.use_addresses(&lookupds.iter().map(|lookupd| lookupd.tcp).collect::<Vec<_>>());
    }

    /// The same, by the addresses for nsqd.
    pub fn use_addresses(&self, lookupds: &[SocketAddr]) {
        let addresses: Vec<_> = lookupds.iter().map(ToString::to_string).collect();
        ok(send(
            Method::Put,
            self.http,
            "/config/nsqlookupd_tcp_addresses",
            &serde_json::json!(addresses).to_string(),
        ));
    }

    pub fn create_topic(&self, topic: &str) {
        post(self.http, &format!("/topic/create?topic={topic}"), "");
    }

    pub fn delete_topic(&self, topic: &str) {
        post(self.http, &format!("/topic/delete?topic={topic}"), "");
    }

    pub fn create_channel(&self, topic: &str, channel: &str) {
        post(self.http, &format!("/channel/create?topic={topic}&channel={channel}"), "");
    }

    pub fn publish(&self, topic: &str, bodies: &[&str]) {
        post(self.http, &format!("/mpub?topic={topic}"), &bodies.join("\n"));
    }

    /// The messages of a channel that no consumer has finished; `None` where nsqd has no such channel.
    pub fn unfinished(&self, topic: &str, channel: &str) -> Option<u64> {
        let channel = self.channel(topic, channel);
        Some(channel["depth"].as_u64()? + channel["in_flight_count"].as_u64()?)
    }

    /// How many consumers a channel has; `None` where nsqd has no such channel.
    pub fn consumers(&self, topic: &str, channel: &str) -> Option<u64> {
        self.channel(topic, channel)["client_count"].as_u64()
    }

    /// Where the consumers of a channel have connected from.
    pub fn connections(&self, topic: &str, channel: &str) -> BTreeSet<String> {
        let channel = self.channel(topic, channel);
        let clients = channel["clients"].as_array().into_iter().flatten();
        clients.map(|client| client["remote_address"].as_str().expect("an address").to_owned()).collect()
    }

    fn channel(&self, topic: &str, channel: &str) -> Value {
        let stats = get(self.http, &format!("/stats?format=json&topic={topic}&channel={channel}"));
        stats["topics"][0]["channels"][0].clone()
    }
}

/// A real nsqadmin, asked as its pages ask it.
pub struct Nsqadmin {
    _daemon: Daemon,
    http: SocketAddr,
}

impl Nsqadmin {
    pub fn start(programs: &Programs, lookupds: &[&Lookupd]) -> Self {
        let args: Vec<_> =
            lookupds.iter().map(|lookupd| format!("-lookupd-http-address={}", lookupd.http)).collect();
        Self::start_with(programs, &args)
    }

    pub fn start_with(programs: &Programs, args: &[String]) -> Self {
        let daemon = Daemon::start(programs.command("nsqadmin").arg("-http-address=127.0.0.1:0").args(args));
        Self { http: daemon.listening("HTTP"), _daemon: daemon }
    }

    pub fn page(&self, path: &str) -> String {
        let response = ok(send(Method::Get, self.http, path, ""));
        response.as_str().expect("a page is UTF-8").to_owned()
    }

    /// # Panics
    /// When the answer holds a warning: nsqadmin puts the failures of some of its lookupds there.
    pub fn get(&self, path: &str) -> Value {
        without_warning(get(self.http, path))
    }

    /// # Panics
    /// As [`Nsqadmin::get`].
    pub fn act(&self, method: Method, path: &str, body: &Value) {
        without_warning(json(&self.try_act(method, path, body)));
    }

    pub fn try_act(&self, method: Method, path: &str, body: &Value) -> Response {
        send(method, self.http, path, &body.to_string())
    }
}

/// A port that refuses connections: it was free a moment ago.
pub fn closed_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    listener.local_addr().expect("a bound port").port()
}

pub fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|&name| name.to_owned()).collect()
}

/// The strings of a JSON array.
pub fn names(array: &Value) -> BTreeSet<String> {
    let names = array.as_array().expect("an array").iter();
    names.map(|name| name.as_str().expect("a name").to_owned()).collect()
}

/// The TCP addresses of producers in a response.
pub fn addresses(producers: &Value) -> BTreeSet<SocketAddr> {
    let producers = producers.as_array().expect("an array").iter();
    producers.map(address).collect()
}

fn address(producer: &Value) -> SocketAddr {
    let host = producer["broadcast_address"].as_str().expect("an address");
    let address = format!("{host}:{}", producer["tcp_port"]);
    address.parse().expect("an address")
}

pub fn tcp_addresses(nsqds: &[&Nsqd]) -> BTreeSet<SocketAddr> {
    nsqds.iter().map(|nsqd| nsqd.tcp).collect()
}

fn get(address: SocketAddr, path: &str) -> Value {
    json(&send(Method::Get, address, path, ""))
}

fn post(address: SocketAddr, path: &str, body: &str) {
    ok(send(Method::Post, address, path, body));
}

fn json(response: &Response) -> Value {
    let body = response.as_str().expect("JSON is UTF-8");
    assert_eq!(response.status_code, 200, "{}: {body}", response.url);
    serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {body}"))
}

fn ok(response: Response) -> Response {
    assert_eq!(response.status_code, 200, "{}", response.url);
    response
}

fn without_warning(answer: Value) -> Value {
    assert_eq!(answer["message"], "", "{answer}");
    answer
}

fn send(method: Method, address: SocketAddr, path: &str, body: &str) -> Response {
    minreq::Request::new(method, format!("http://{address}{path}"))
        .with_body(body)
        .with_timeout(wait::PATIENCE.as_secs())
        .send()
        .unwrap_or_else(|error| panic!("{address}{path}: {error}"))
}
