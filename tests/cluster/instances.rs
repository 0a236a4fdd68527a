//! Instances of the server that share an etcd, and nsqds that connect to them.

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::etcd::{Etcd, Programs, programs};
use crate::support::clients::{Nsqd, connect, get, post};
use crate::support::{DEFAULTS, Log, Server};

/// How long what takes milliseconds may take on a busy machine.
pub const SOON: Duration = Duration::from_secs(30);
/// The same of what waits for a lease, a grace or a timeout.
pub const LATE: Duration = Duration::from_secs(150);

/// Waits until something is so.
///
/// # Panics
/// If it is not so in time. What `is_so` has last seen is in the message.
pub fn until<T: std::fmt::Debug>(what: &str, limit: Duration, mut is_so: impl FnMut() -> (bool, T)) {
    let begun = Instant::now();
    loop {
        let (is, seen) = is_so();
        if is {
            return;
        }
        assert!(begun.elapsed() < limit, "{what}: not so, but {seen:?}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// The file that a variable names. `None` where it is unset; the test is then to return at once.
///
/// # Panics
/// When it is not there.
pub fn named_or_skipped(variable: &str, what: &str, script: &str) -> Option<PathBuf> {
    let Some(path) = env::var_os(variable).map(PathBuf::from) else {
        // Written past libtest's capture, which would hide from a passing run that it proved nothing.
        let test = thread::current();
        let test = test.name().unwrap_or("cluster");
        let _ = writeln!(io::stderr(), "{test}: skipped, {variable} does not name {what} (see {script})");
        return None;
    };
    assert!(path.exists(), "{} is missing: get it with `{script}`", path.display());
    Some(path)
}

/// An etcd that tests share which do it no harm. It ends with the last of them.
pub fn shared_etcd() -> Option<Arc<Etcd>> {
    static SHARED: Mutex<Weak<Etcd>> = Mutex::new(Weak::new());
    let programs = programs()?;
    let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
    Some(shared.upgrade().unwrap_or_else(|| {
        let etcd = Arc::new(Etcd::start(&programs));
        *shared = Arc::downgrade(&etcd);
        etcd
    }))
}

/// The value of `-cluster` for a test of this name.
pub fn address(etcd: &Etcd, prefix: &str) -> String {
    format!("{}/{prefix}", etcd.address())
}

/// An etcd of a test's own, which may break it, and two instances.
pub fn two_of(programs: &Programs, flags: &[&str]) -> (Etcd, Instance, Instance) {
    let etcd = Etcd::start(programs);
    let [a, b] = ["a", "b"].map(|name| Instance::start(&etcd.address(), name, flags));
    (etcd, a, b)
}

/// Two instances of the shared etcd, under a prefix of their own.
pub fn two(prefix: &str, flags: &[&str]) -> Option<(Arc<Etcd>, Instance, Instance)> {
    let etcd = shared_etcd()?;
    let address = address(&etcd, prefix);
    let [a, b] = ["a", "b"].map(|name| Instance::start(&address, name, flags));
    Some((etcd, a, b))
}

/// An instance of a cluster.
pub struct Instance {
    pub server: Server,
    pub name: &'static str,
}

impl Instance {
    /// Starts one, and waits until it knows what etcd has.
    pub fn start(cluster: &str, name: &'static str, flags: &[&str]) -> Self {
        let instance = Self::begin(cluster, name, flags);
        instance.wait_until_ready("OK");
        instance
    }

    /// Starts one.
    pub fn begin(cluster: &str, name: &'static str, flags: &[&str]) -> Self {
        Self::begin_command(&mut Command::new(env!("CARGO_BIN_EXE_ringlookupd")), cluster, name, flags)
    }

    /// Starts a program of another version, or in another environment, as one.
    pub fn begin_command(command: &mut Command, cluster: &str, name: &'static str, flags: &[&str]) -> Self {
        let own = [format!("-cluster={cluster}"), format!("-cluster-node={name}"), "-workers=2".to_owned()];
        Self { server: Server::start_command(command.args(DEFAULTS).args(own).args(flags)), name }
    }

    /// The body of a response.
    pub fn ask(&self, target: &str) -> String {
        let response = get(&mut connect(self.server.http), target);
        response.split_once("\r\n\r\n").expect("a head").1.to_owned()
    }

    pub fn json(&self, target: &str) -> Value {
        let body = self.ask(target);
        serde_json::from_str(&body).unwrap_or_else(|error| panic!("{target}: {error}: {body}"))
    }

    /// Has a client change something.
    pub fn post(&self, target: &str) {
        let response = post(&mut connect(self.server.http), target);
        assert!(response.starts_with("HTTP/1.1 200 OK\r\n"), "{}: {response}", self.name);
    }

    /// The status code of `/ready` and its body.
    pub fn ready(&self) -> (u16, String) {
        let response = get(&mut connect(self.server.http), "/ready");
        let (head, body) = response.split_once("\r\n\r\n").expect("a head");
        (head[9..12].parse().expect("a status code"), body.to_owned())
    }

    pub fn wait_until_ready(&self, body: &str) {
        self.wait_until_ready_in(body, SOON);
    }

    pub fn wait_until_ready_in(&self, body: &str, limit: Duration) {
        until(&format!("{} is ready: {body:?}", self.name), limit, || {
            let (status, is) = self.ready();
            (status == 200 && is == body, (status, is, self.server.log()))
        });
    }

    /// Who is listed for a topic, by broadcast address; empty where the topic is not known.
    pub fn lookup(&self, topic: &str) -> BTreeSet<String> {
        self.listed(&format!("/lookup?topic={topic}")).into_keys().collect()
    }

    /// Who is listed in `/nodes`.
    pub fn nodes(&self) -> BTreeSet<String> {
        self.listed("/nodes").into_keys().collect()
    }

    /// The entry of a node in `/nodes`.
    pub fn node(&self, name: &str) -> Option<Value> {
        self.listed("/nodes").remove(name)
    }

    /// The producers of a response, each once. A node that has just connected here is listed beside its old connection until the
    /// thread of the cluster has seen it: that must be over soon.
    fn listed(&self, target: &str) -> BTreeMap<String, Value> {
        let mut listed = BTreeMap::new();
        until(&format!("{}: each is listed once in {target}", self.name), SOON, || {
            let response = self.json(target);
            let all = response["producers"].as_array().cloned().unwrap_or_default();
            let count = all.len();
            let name = |producer: &Value| producer["broadcast_address"].as_str().expect("a name").to_owned();
            listed = all.into_iter().map(|producer| (name(&producer), producer)).collect();
            (listed.len() == count, response)
        });
        listed
    }

    pub fn topics(&self) -> BTreeSet<String> {
        texts(&self.json("/topics")["topics"])
    }

    pub fn channels(&self, topic: &str) -> BTreeSet<String> {
        texts(&self.json(&format!("/channels?topic={topic}"))["channels"])
    }

    /// A figure of the cluster.
    pub fn metric(&self, name: &str) -> u64 {
        let metrics = self.ask("/metrics");
        let name = format!("nsqlookupd_cluster_{name}");
        let value = |line: &str| {
            let rest = line.strip_prefix(name.as_str())?;
            rest.strip_prefix("_total").unwrap_or(rest).strip_prefix(' ')?.parse().ok()
        };
        metrics.lines().find_map(value).unwrap_or_else(|| panic!("no {name} in {metrics}"))
    }

    /// Waits for a figure: those of what is there are counted once a second.
    pub fn wait_for_metric(&self, name: &str, value: u64) {
        until(&format!("{} has {value} {name}", self.name), SOON, || {
            let is = self.metric(name);
            (is == value, is)
        });
    }

    /// Waits until these are listed for a topic, and nobody else.
    pub fn wait_for(&self, topic: &str, names: &[&str]) {
        self.wait_for_in(topic, names, SOON);
    }

    pub fn wait_for_in(&self, topic: &str, names: &[&str], limit: Duration) {
        until(&format!("{} lists {names:?} for {topic}", self.name), limit, || {
            let is = self.lookup(topic);
            (is.iter().eq(names), (is, self.server.log()))
        });
    }

    /// Waits until it lists a topic, or does not.
    pub fn wait_for_topic(&self, topic: &str, is_there: bool) {
        until(&format!("{} has topic {topic}: {is_there}", self.name), SOON, || {
            let topics = self.topics();
            (topics.contains(topic) == is_there, topics)
        });
    }

    pub fn wait_for_channel(&self, topic: &str, channel: &str, is_there: bool) {
        until(&format!("{} has channel {channel} of {topic}: {is_there}", self.name), SOON, || {
            let channels = self.channels(topic);
            (channels.contains(channel) == is_there, channels)
        });
    }

    /// What is streamed to a client that watches.
    pub fn watch(&self, query: &str) -> Arc<Log> {
        let mut stream = connect(self.server.http);
        stream.set_read_timeout(None).expect("a socket");
        write!(stream, "GET /watch{query} HTTP/1.1\r\nHost: h\r\n\r\n").expect("the server reads");
        Log::drain(stream)
    }

    /// A response with its `ETag`, asked for with the one that a client has.
    pub fn tagged(&self, target: &str, tag: Option<&str>) -> (u16, Option<String>, String) {
        tagged(self.server.http, target, tag)
    }
}

/// A response with its `ETag`, asked for with the one that a client has.
pub fn tagged(http: SocketAddr, target: &str, tag: Option<&str>) -> (u16, Option<String>, String) {
    let tag = tag.map(|tag| format!("If-None-Match: {tag}\r\n")).unwrap_or_default();
    let mut stream = connect(http);
    stream.set_read_timeout(Some(LATE)).expect("a socket");
    // 304 has no length.
    let request = format!("GET {target} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n{tag}\r\n");
    let response = exchange_to_end(&mut stream, &request);
    let (head, body) = response.split_once("\r\n\r\n").expect("a head");
    let tag = head.lines().find_map(|line| line.strip_prefix("ETag: ")).map(str::to_owned);
    (head[9..12].parse().expect("a status code"), tag, body.to_owned())
}

fn exchange_to_end(stream: &mut std::net::TcpStream, request: &str) -> String {
    stream.write_all(request.as_bytes()).expect("the server reads");
    let bytes = crate::support::clients::read_to_end(stream).expect("a response");
    String::from_utf8(bytes).expect("UTF-8")
}

/// An nsqd: what it has registered, and its connection, if it has one.
pub struct Node {
    pub name: String,
    registered: Vec<String>,
    connection: Option<Nsqd>,
}

impl Node {
    /// One that is connected, and has registered these: topics, or topics with a channel.
    pub fn new(name: &str, at: &Instance, registered: &[&str]) -> Self {
        let registered = registered.iter().map(ToString::to_string).collect();
        let mut node = Self { name: name.to_owned(), registered, connection: None };
        node.connect(at);
        node
    }

    /// Connects, instead of where it was connected, and registers what it has, as an nsqd does. Whatever ends the old connection,
    /// the new one is there first.
    pub fn connect(&mut self, at: &Instance) {
        let mut nsqd = Nsqd::identified(at.server.tcp, &self.name, 0);
        for registered in &self.registered {
            nsqd.register(registered);
        }
        self.connection = Some(nsqd);
    }

    pub fn disconnect(&mut self) {
        self.connection = None;
    }

    pub fn register(&mut self, what: &str) {
        self.registered.push(what.to_owned());
        self.nsqd().register(what);
    }

    pub fn unregister(&mut self, what: &str) {
        self.registered.retain(|registered| registered != what);
        assert_eq!(self.nsqd().ask(format!("UNREGISTER {what}\n").as_bytes()), b"OK");
    }

    pub fn ping(&mut self) {
        assert_eq!(self.nsqd().ask(b"PING\n"), b"OK");
    }

    /// Its side of the connection.
    pub fn local_address(&mut self) -> String {
        self.nsqd().0.local_addr().expect("it is connected").to_string()
    }

    fn nsqd(&mut self) -> &mut Nsqd {
        self.connection.as_mut().expect("it is connected")
    }
}

fn texts(all: &Value) -> BTreeSet<String> {
    all.as_array().into_iter().flatten().map(|text| text.as_str().expect("a name").to_owned()).collect()
}

/// The keys that etcd has under a prefix of the test's own and behind `v1/`.
pub fn keys(etcd: &Etcd, prefix: &str, kind: &str) -> Vec<String> {
    let range = format!("{prefix}/v1/{kind}");
    let printed = etcd.ctl(&["get", "--prefix", "--keys-only", &range]);
    printed.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect()
}
