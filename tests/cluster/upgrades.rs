//! Instances of an old version and of this one make one cluster, so that it can be upgraded one instance at a time, and taken back.
//!
//! `RINGLOOKUPD_OLD` names the old program, the first that had `-cluster`:
//!
//!     eval "$(.ci/etcd)" && eval "$(.ci/old-version)" && cargo test --test cluster upgrades

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::RwLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::basics::names;
use crate::etcd::{Etcd, programs};
use crate::instances::{Instance, LATE, Node, SOON, address, keys, named_or_skipped, shared_etcd, until};
use crate::support::{Ends, PATIENCE};

/// The two programs.
struct Versions {
    old: PathBuf,
    new: PathBuf,
}

impl Versions {
    /// `None` where `RINGLOOKUPD_OLD` is unset; the test is then to return at once.
    ///
    /// # Panics
    /// When both are of one commit: what they do together would prove nothing.
    fn find() -> Option<Self> {
        let old = named_or_skipped("RINGLOOKUPD_OLD", "an old version's program", ".ci/old-version")?;
        let versions = Self { old, new: PathBuf::from(env!("CARGO_BIN_EXE_ringlookupd")) };
        let version = |program: &Path| {
            let output = Command::new(program).arg("-version").output().expect("it starts");
            String::from_utf8(output.stdout).expect("UTF-8")
        };
        assert_ne!(version(&versions.old), version(&versions.new));
        Some(versions)
    }
}

fn start(program: &Path, cluster: &str, name: &'static str, flags: &[&str]) -> Instance {
    let instance = Instance::begin_command(&mut Command::new(program), cluster, name, flags);
    instance.wait_until_ready("OK");
    instance
}

/// Whatever one of these instances is asked for, all of them know.
fn know_the_same(cluster: &str, programs: [&Path; 3]) {
    let instances: Vec<_> = ["a", "b", "c"]
        .into_iter()
        .zip(programs)
        .map(|(name, program)| start(program, cluster, name, &["-tombstone-lifetime=1h"]))
        .collect();
    // Of two nodes, one at each version. Their records have more than one part, and are compressed.
    let many: Vec<_> = (0..2010).map(|nth| format!("t{nth:04} c")).collect();
    let many: Vec<_> = many.iter().map(String::as_str).collect();
    let mut nodes: Vec<_> = ["x", "y", "z"]
        .into_iter()
        .zip(&instances)
        .zip([&many[..], &many, &[]])
        .map(|((name, instance), many)| Node::new(name, instance, &[&["t", "u c"], many].concat()))
        .collect();
    let all = ["x", "y", "z"];
    for instance in &instances {
        instance.wait_for_metric("instances", 3);
        instance.wait_for("t", &all);
        instance.wait_for("t0000", &["x", "y"]);
        instance.wait_for("t2009", &["x", "y"]);
        assert_eq!((instance.channels("u"), instance.nodes()), (names(&["c"]), names(&all)));
        until("all topics of all are listed", SOON, || {
            let counts = all
                .map(|name| instance.node(name).map_or(0, |node| node["topics"].as_array().map_or(0, Vec::len)));
            (counts == [2012, 2012, 2], counts)
        });
    }

    // Names that are made and deleted over HTTP, each at every instance.
    for (asked, instance) in instances.iter().enumerate() {
        let made = format!("made-{}", instance.name);
        instance.post(&format!("/channel/create?topic={made}&channel=one"));
        for instance in &instances {
            instance.wait_for_channel(&made, "one", true);
        }
        instances[(asked + 1) % 3].post(&format!("/channel/delete?topic={made}&channel=one"));
        for instance in &instances {
            instance.wait_for_channel(&made, "one", false);
            instance.wait_for_topic(&made, true);
        }
        instances[(asked + 2) % 3].post(&format!("/topic/delete?topic={made}"));
        // What others have registered, too.
        let topic = format!("t000{asked}");
        instance.post(&format!("/topic/delete?topic={topic}"));
        for instance in &instances {
            instance.wait_for_topic(&made, false);
            instance.wait_for_topic(&topic, false);
        }
        let again = (asked + 1) % 3;
        nodes[again].register(&format!("{topic} c"));
        for instance in &instances {
            instance.wait_for(&topic, &[all[again]]);
        }
    }

    // A tombstone of a node elsewhere, by each.
    for (asked, instance) in instances.iter().enumerate() {
        instances[(asked + 1) % 3].post(&format!("/topic/tombstone?topic=t&node={}:2", all[asked]));
        for instance in &instances {
            instance.wait_for("t", &all[asked + 1..]);
        }
        assert_eq!(instance.lookup("u"), names(&all));
    }

    // One that starts reads what both have written.
    for program in programs {
        let later = start(program, cluster, "later", &["-tombstone-lifetime=1h"]);
        later.wait_for("t", &[]);
        assert_eq!((later.lookup("u"), later.nodes()), (names(&all), names(&all)));
        assert_eq!(later.lookup("t0002"), names(&["x"]));
    }

    // To an instance of the other version, and away.
    for (nth, node) in nodes.iter_mut().enumerate() {
        node.connect(&instances[(nth + 1) % 3]);
        let newest = node.local_address();
        for instance in &instances {
            until("its new connection is listed", SOON, || {
                let address = instance.node(&node.name).map(|node| node["remote_address"].clone());
                let is = (address, instance.lookup("u"));
                (is.0.as_ref().is_some_and(|address| *address == newest) && is.1 == names(&all), is)
            });
        }
    }
    nodes[1].unregister("u");
    for instance in &instances {
        instance.wait_for("u", &["x", "z"]);
    }
    for mut node in nodes {
        node.disconnect();
    }
    for instance in &instances {
        instance.wait_for("t2009", &[]);
        assert_eq!(instance.nodes(), names(&[]));
        assert_eq!(instance.metric("lost"), 0, "{}", instance.server.log());
        assert!(!instance.server.log().contains("WARNING: CLUSTER"), "{}", instance.server.log());
    }
}

#[test]
fn an_instance_that_is_upgraded_shares_with_old_ones() {
    let Some(Versions { old, new }) = Versions::find() else { return };
    let Some(etcd) = shared_etcd() else { return };
    know_the_same(&address(&etcd, "first-new"), [&old, &new, &old]);
}

#[test]
fn an_old_instance_shares_with_upgraded_ones() {
    let Some(Versions { old, new }) = Versions::find() else { return };
    let Some(etcd) = shared_etcd() else { return };
    know_the_same(&address(&etcd, "last-old"), [&new, &old, &new]);
}

fn lists_newest(instance: &Instance, nodes: &mut [(Node, usize)]) {
    for (node, _) in nodes {
        let newest = node.local_address();
        until("the newest connection is listed", SOON, || {
            let address = instance.node(&node.name).map(|node| node["remote_address"].clone());
            (address.as_ref().is_some_and(|address| *address == newest), address)
        });
    }
}

/// All three, one after the other, and back again. The lock is a load balancer, which sends nobody to an instance that stops.
#[test]
fn an_upgrade_one_by_one_lacks_no_node() {
    let Some(Versions { old, new }) = Versions::find() else { return };
    let Some(etcd) = shared_etcd() else { return };
    let cluster = address(&etcd, "upgrade");
    let slots = ["a", "b", "c"].map(|name| RwLock::new(Some(start(&old, &cluster, name, &[]))));
    let in_slot = |nth: usize, connect: &mut dyn FnMut(&Instance)| {
        connect(slots[nth].read().expect("no writer panics").as_ref().expect("it is in"));
    };
    let all = ["w", "x", "y", "z"];
    let (mut nodes, mut placed) = (Vec::new(), 0);
    for (nth, name) in all.into_iter().enumerate() {
        in_slot(nth % 3, &mut |instance| nodes.push((Node::new(name, instance, &["t c"]), nth % 3)));
    }
    for nth in 0..3 {
        in_slot(nth, &mut |instance| instance.wait_for("t", &all));
    }
    let (is_over, lookups) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        let _ends = Ends(&is_over);
        let clients: Vec<_> = (0..2)
            .map(|client| {
                let (slots, is_over, lookups) = (&slots, &is_over, &lookups);
                scope.spawn(move || {
                    for turn in client.. {
                        if is_over.load(Relaxed) {
                            return;
                        }
                        let slot = slots[turn % 3].read().expect("no writer panics");
                        if let Some(instance) = slot.as_ref() {
                            let (listed, channels) = (instance.lookup("t"), instance.channels("t"));
                            let right = (names(&all), names(&["c"]));
                            assert_eq!((listed, channels), right, "{}\n{}", instance.name, instance.server.log());
                            lookups.fetch_add(1, Relaxed);
                        }
                        drop(slot);
                        thread::sleep(Duration::from_millis(5));
                    }
                })
            })
            .collect();
        for program in [&new, &old] {
            for (nth, name) in ["a", "b", "c"].into_iter().enumerate() {
                let stopping = slots[nth].write().expect("no reader panics").take().expect("it is in");
                assert!(stopping.server.stop().success());
                for (node, at) in nodes.iter_mut().filter(|(_, at)| *at == nth) {
                    // Not all to the same.
                    *at = (nth + 1 + placed % 2) % 3;
                    placed += 1;
                    in_slot(*at, &mut |instance| node.connect(instance));
                }
                // An old version that starts may list a node by a record that does not have all topics yet.
                for other in [(nth + 1) % 3, (nth + 2) % 3] {
                    in_slot(other, &mut |instance| lists_newest(instance, &mut nodes));
                }
                *slots[nth].write().expect("no reader panics") = Some(start(program, &cluster, name, &[]));
                let made = format!("made-{name}-{}", program == &new);
                in_slot(nth, &mut |instance| instance.post(&format!("/topic/create?topic={made}")));
                for other in 0..3 {
                    in_slot(other, &mut |instance| {
                        instance.wait_for_topic(&made, true);
                        instance.wait_for_metric("instances", 3);
                    });
                }
            }
        }
        assert!(clients.iter().all(|client| !client.is_finished()), "a lookup has failed");
    });
    assert!(lookups.load(Relaxed) > 100, "{lookups:?}");
    until("the records of the old connections are gone", LATE, || {
        let left = keys(&etcd, "upgrade", "p/");
        (left.len() == all.len(), left)
    });
}

/// What an instance leaves behind is removed by those of the other version.
#[test]
fn one_that_was_killed_is_cleaned_up_by_the_other_version() {
    let Some(Versions { old, new }) = Versions::find() else { return };
    let Some(programs) = programs() else { return };
    // Not the shared one: it is to end while this goes on.
    let etcd = Etcd::start(&programs);
    let clusters = [("old-killed", &old, &new), ("new-killed", &new, &old)];
    let mut clusters = clusters.map(|(prefix, killed, other)| {
        let cluster = address(&etcd, prefix);
        let killed = start(killed, &cluster, "killed", &[]);
        let other = start(other, &cluster, "other", &[]);
        let nodes = [Node::new("x", &killed, &["t"]), Node::new("y", &killed, &["t"])];
        other.wait_for("t", &["x", "y"]);
        (prefix, killed, other, nodes)
    });
    for (_, killed, other, nodes) in &mut clusters {
        killed.server.signal(Signal::KILL);
        assert!(killed.server.wait_for_exit(PATIENCE).is_some());
        nodes[0].connect(other);
    }
    let (mut over, mut gone) = (BTreeMap::new(), BTreeMap::new());
    until("what was not taken over is gone", LATE, || {
        for (prefix, _, other, _) in &clusters {
            if other.metric("instances") == 1 {
                over.entry(*prefix).or_insert_with(Instant::now);
            }
            let listed = other.lookup("t");
            if listed == names(&["x"]) {
                gone.entry(*prefix).or_insert_with(Instant::now);
            } else {
                assert_eq!(listed, names(&["x", "y"]), "{prefix}");
            }
        }
        (gone.len() == clusters.len(), (over.clone(), gone.clone()))
    });
    for (prefix, _, other, _) in &clusters {
        let grace = gone[prefix].duration_since(over[prefix]);
        assert!(grace.as_secs() >= 55, "{prefix}: {grace:?}");
        until("nothing is left of it", SOON, || {
            let left = (keys(&etcd, prefix, "p/"), keys(&etcd, prefix, "i/"));
            ((left.0.len(), left.1.len()) == (1, 1), left)
        });
        assert_eq!(other.nodes(), names(&["x"]));
    }
}
