//! A host that vanishes without a FIN: whether it is idle or has been sent a reply, its connection ends after
//! `-dead-peer-timeout`, and its topics list it no more.

use std::fs;
use std::io::Write;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use ringlookupd::io::Backend;
use rustix::process::Signal;

use crate::PROGRAM;
use crate::both_drivers::flag;
use crate::support::clients::Nsqd;
use crate::support::{PATIENCE, Server};

on_both_drivers!(a_host_that_vanishes);

/// A network namespace, joined to this one by a pair of interfaces.
struct Net {
    name: String,
    here: &'static str,
    there: &'static str,
}

fn ip(arguments: &str) -> Result<(), String> {
    let output = Command::new("ip").args(arguments.split(' ')).output().map_err(|error| error.to_string())?;
    if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()) }
}

impl Net {
    /// Between two addresses for tests of networks (RFC 2544), in a network of four.
    fn new(name: &str, here: &'static str, there: &'static str) -> Result<Self, String> {
        let name = format!("{name}{}", std::process::id() % 10_000);
        ip(&format!("netns add {name}"))?;
        // From here on dropping it clears up.
        let net = Self { name, here, there };
        let name = &net.name;
        ip(&format!("link add {name}a type veth peer name {name}b netns {name}"))?;
        ip(&format!("address add {here}/30 dev {name}a"))?;
        ip(&format!("link set {name}a up"))?;
        ip(&format!("-n {name} address add {there}/30 dev {name}b"))?;
        ip(&format!("-n {name} link set {name}b up"))?;
        Ok(net)
    }

    /// Nothing that is sent arrives any more, either way.
    fn cut(&self) {
        ip(&format!("link set {}a down", self.name)).expect("it is up");
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        // The interfaces go with it.
        let _ = ip(&format!("netns delete {}", self.name));
    }
}

fn a_host_that_vanishes(backend: Backend) {
    let (name, here, there) = match backend {
        Backend::Uring => ("ringu", "198.18.77.1", "198.18.77.2"),
        Backend::Epoll => ("ringe", "198.18.77.5", "198.18.77.6"),
    };
    let net = match Net::new(name, here, there) {
        Ok(net) => net,
        Err(why) => return eprintln!("skipped: no network namespace ({why})"),
    };
    let mut command = Command::new("ip");
    command.args(["netns", "exec", &net.name, PROGRAM, "-dead-peer-timeout=2s", "-log-level=info"]);
    command.args([&flag(backend), "-workers=1"]);
    command.args(["tcp", "http"].map(|port| format!("-{port}-address={}:0", net.there)));
    let server = Server::start_command(&mut command);
    let [idle, mut asking] = ["idle", "asking"].map(|name| {
        let mut nsqd = Nsqd::identified(server.tcp, name, 1);
        nsqd.register("t");
        nsqd
    });
    // The server has the command, and its reply does not arrive.
    server.signal(Signal::STOP);
    asking.0.write_all(b"PING\n").expect("its kernel takes it");
    wait_until_acknowledged(&asking);
    net.cut();
    server.signal(Signal::CONT);
    for nsqd in [&idle, &asking] {
        let address = nsqd.0.local_addr().expect("bound");
        assert_eq!(address.ip().to_string(), net.here);
        server.wait_for_log(&format!("DB: client({address}) UNREGISTER category:client"));
    }
    server.wait_for_log("exceeded the limit -dead-peer-timeout");
    assert!(server.stop().success());
}

/// What was written has arrived at the other kernel: nothing is in the send queue (proc_net_tcp.txt).
fn wait_until_acknowledged(nsqd: &Nsqd) {
    let begun = Instant::now();
    let port = format!(":{:04X}", nsqd.0.local_addr().expect("bound").port());
    let is_empty = |line: &str| {
        let mut fields = line.split_whitespace().skip(1);
        fields.next().is_some_and(|local| local.ends_with(&port))
            && fields.nth(2).is_some_and(|queues| queues.starts_with("00000000:"))
    };
    while !fs::read_to_string("/proc/net/tcp").expect("IPv4").lines().any(is_empty) {
        assert!(begun.elapsed() < PATIENCE, "it does not arrive");
        thread::sleep(Duration::from_millis(5));
    }
}
