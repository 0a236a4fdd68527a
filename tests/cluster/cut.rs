//! An instance whose network to etcd is gone, while that to its nsqds is not: with a network namespace of its own, which two
//! pairs of virtual interfaces connect. The one to etcd goes down.
//!
//! Where no namespace can be made (only root can), the test says so and is skipped; `faults.rs` does the same with a proxy.

use std::io::{self, Write as _};
use std::net::TcpListener;
use std::process::Command;

use crate::basics::names;
use crate::etcd::{Etcd, programs};
use crate::instances::{Instance, LATE, Node, until};
use crate::proxy::Proxy;
use crate::support::{DEFAULTS, Server};

/// A network namespace. It is gone when dropped, if no process is in it.
struct Namespace {
    name: String,
    /// Tells its interfaces and addresses from those of another run.
    number: u32,
}

impl Namespace {
    /// `None` where none can be made.
    fn new() -> Option<Self> {
        let number = std::process::id() % 60;
        let namespace = Self { name: format!("ringlookupd-{number}"), number };
        if !ip(&["netns", "add", &namespace.name]) {
            let _ = writeln!(io::stderr(), "cut: skipped, `ip netns add` makes no network namespace here");
            return None;
        }
        for (interface, nth) in [("nsq", 0), ("etcd", 1)] {
            let (here, there) = (namespace.interface(interface), format!("{interface}-there"));
            let in_it = ["-n", &namespace.name];
            let [own, peer] = [1, 2].map(|host| format!("{}/30", namespace.address(nth, host)));
            let is_made =
                ip(&["link", "add", &here, "type", "veth", "peer", "name", &there, "netns", &namespace.name])
                    && ip(&["addr", "add", &own, "dev", &here])
                    && ip(&["link", "set", &here, "up"])
                    && ip(&[&in_it[..], &["addr", "add", &peer, "dev", &there]].concat())
                    && ip(&[&in_it[..], &["link", "set", &there, "up"]].concat());
            if !is_made {
                let _ = writeln!(io::stderr(), "cut: skipped, no virtual interface can be made here");
                return None;
            }
        }
        Some(namespace)
    }

    fn interface(&self, name: &str) -> String {
        format!("rl{}-{name}", self.number)
    }

    /// In the range for tests of networks (RFC 2544).
    fn address(&self, nth: u32, host: u32) -> String {
        format!("198.18.{}.{}", self.number, 4 * nth + host)
    }

    /// Whether what is sent to etcd arrives.
    fn set_up(&self, is_up: bool) {
        assert!(ip(&["link", "set", &self.interface("etcd"), if is_up { "up" } else { "down" }]));
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        ip(&["netns", "del", &self.name]);
        // They go with it, but not at once.
        for name in ["nsq", "etcd"] {
            ip(&["link", "del", &self.interface(name)]);
        }
    }
}

fn ip(arguments: &[&str]) -> bool {
    Command::new("ip").args(arguments).output().is_ok_and(|output| output.status.success())
}

#[test]
fn an_instance_without_its_network_to_etcd_serves_on_and_catches_up() {
    let Some(programs) = programs() else { return };
    let Some(namespace) = Namespace::new() else { return };
    let etcd = Etcd::start(&programs);
    let listener = TcpListener::bind((namespace.address(1, 1), 0)).expect("a port");
    let proxy = Proxy::start_on(listener, &etcd);
    let a = Instance::start(&etcd.address(), "a", &[]);
    let here = namespace.address(0, 2);
    let mut command = Command::new("ip");
    command.args(["netns", "exec", &namespace.name, env!("CARGO_BIN_EXE_ringlookupd")]).args(DEFAULTS).args([
        format!("-tcp-address={here}:0"),
        format!("-http-address={here}:0"),
        format!("-cluster={}", proxy.address()),
        "-cluster-node=b".to_owned(),
    ]);
    let b = Instance { server: Server::start_command(&mut command), name: "b" };
    b.wait_until_ready("OK");
    let mut nodes = [Node::new("x", &a, &["t"]), Node::new("y", &b, &["t"])];
    for instance in [&a, &b] {
        instance.wait_for("t", &["x", "y"]);
    }

    namespace.set_up(false);
    nodes[0].register("behind");
    nodes[1].register("meanwhile");
    assert_eq!((a.lookup("behind"), b.lookup("meanwhile")), (names(&["x"]), names(&["y"])));
    until("it says so, and its lease is over", LATE, || {
        assert_eq!((a.lookup("t"), b.lookup("t")), (names(&["x", "y"]), names(&["x", "y"])));
        let (ready, instances) = (b.ready(), a.metric("instances"));
        (ready == (200, "OK, cut off".to_owned()) && instances == 1, (ready, instances))
    });
    assert_eq!((a.lookup("meanwhile"), b.lookup("behind")), (names(&[]), names(&[])));

    namespace.set_up(true);
    until("both have caught up", LATE, || {
        assert_eq!((a.lookup("t"), b.lookup("t")), (names(&["x", "y"]), names(&["x", "y"])));
        let seen = (a.lookup("meanwhile"), b.lookup("behind"));
        (seen == (names(&["y"]), names(&["x"])), (seen, b.server.log()))
    });
    b.wait_until_ready("OK");
    a.wait_for_metric("instances", 2);
    nodes[1].disconnect();
    a.wait_for("t", &["x"]);
}
