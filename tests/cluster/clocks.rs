//! Instances whose clocks are hours apart make one cluster: no rule compares the clocks of two hosts.
//!
//! libfaketime, which `FAKETIME_LIB` names, sets the clock of a process. What it sets is the time of day; the monotonic clock stays,
//! as on a host whose time is wrong:
//!
//!     eval "$(.ci/etcd)" && eval "$(.ci/faketime)" && cargo test --test cluster clocks

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use chrono::{DateTime, TimeDelta, Utc};
use rustix::process::Signal;
use serde_json::Value;

use crate::basics::names;
use crate::etcd::{Etcd, programs};
use crate::instances::{Instance, LATE, Node, SOON, address, keys, named_or_skipped, shared_etcd, until};
use crate::support::PATIENCE;
use crate::support::clients::{connect, get};

/// Where libfaketime is. `None` where `FAKETIME_LIB` is unset; the test is then to return at once.
fn library() -> Option<PathBuf> {
    named_or_skipped("FAKETIME_LIB", "libfaketime", ".ci/faketime")
}

/// An instance whose clock is so many hours ahead, or behind.
fn start(library: &PathBuf, hours: i64, cluster: &str, name: &'static str, flags: &[&str]) -> Instance {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringlookupd"));
    command
        .env("LD_PRELOAD", library)
        .env("FAKETIME", format!("{hours:+}h"))
        .env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
    let instance = Instance::begin_command(&mut command, cluster, name, flags);
    instance.wait_until_ready("OK");
    let response = get(&mut connect(instance.server.http), "/ping");
    let date = response.lines().find_map(|line| line.strip_prefix("Date: ")).expect("a date");
    assert_is_off(&instance, hours, DateTime::parse_from_rfc2822(date).expect("a date").to_utc());
    instance
}

/// Without a shifted clock these tests would prove nothing.
fn assert_is_off(instance: &Instance, hours: i64, time: DateTime<Utc>) {
    let off = time - (Utc::now() + TimeDelta::hours(hours));
    assert!(off.abs() < TimeDelta::minutes(5), "the clock of {} is {off} from {hours} h", instance.name);
}

/// When an instance heard of a node, by the clock that its rules have.
fn last_update(instance: &Instance, name: &str) -> DateTime<Utc> {
    let debug = instance.json("/debug");
    let all = debug
        .as_object()
        .expect("registrations")
        .values()
        .flat_map(|producers| producers.as_array().expect("producers"));
    let mut times =
        all.filter(|producer| producer["broadcast_address"] == name).map(|producer| &producer["last_update"]);
    DateTime::from_timestamp_nanos(times.next().and_then(Value::as_i64).expect("nanoseconds"))
}

#[test]
fn what_one_is_asked_holds_on_all() {
    const LIFETIME: Duration = Duration::from_secs(20);
    /// etcd counts the rest of a tombstone in whole seconds.
    const ROUNDED: Duration = Duration::from_secs(2);
    let Some(library) = library() else { return };
    let Some(etcd) = shared_etcd() else { return };
    let cluster = address(&etcd, "clocks");
    let folder = tempfile::tempdir().expect("a folder");
    let (lifetime, saved) = ("-tombstone-lifetime=20s", format!("-data-path={}", folder.path().display()));
    let begin = |hours, name| start(&library, hours, &cluster, name, &[lifetime]);
    let begin_ahead = || start(&library, 1, &cluster, "ahead", &[lifetime, &saved]);
    let (behind, even, mut ahead) = (begin(-1, "behind"), begin(0, "even"), begin_ahead());
    let mut x = Node::new("x", &behind, &["t", "of-x c"]);
    let _y = Node::new("y", &even, &["t"]);
    let mut z = Node::new("z", &ahead, &["t", "of-z"]);
    for (instance, hours) in [(&behind, -1), (&even, 0), (&ahead, 1)] {
        instance.wait_for("t", &["x", "y", "z"]);
        for name in ["x", "y", "z"] {
            assert_is_off(instance, hours, last_update(instance, name));
        }
    }

    for (asked, deleted, registered) in [(&ahead, "of-x", "of-x c"), (&behind, "of-z", "of-z")] {
        asked.post(&format!("/topic/delete?topic={deleted}"));
        for instance in [&behind, &even, &ahead] {
            instance.wait_for_topic(deleted, false);
        }
        let node = if deleted == "of-x" { &mut x } else { &mut z };
        node.register(registered);
        for instance in [&behind, &even, &ahead] {
            instance.wait_for(deleted, &[&node.name]);
        }
    }
    behind.post("/topic/create?topic=made");
    ahead.wait_for_topic("made", true);
    ahead.post("/topic/delete?topic=made");
    behind.wait_for_topic("made", false);

    let asked = Instant::now();
    behind.post("/topic/tombstone?topic=t&node=y:2");
    even.post("/topic/tombstone?topic=t&node=z:2");
    ahead.post("/topic/tombstone?topic=t&node=x:2");
    // One that comes later asks etcd how old they are.
    let later = begin(2, "later");
    let all = [&behind, &even, &ahead, &later];
    for instance in all {
        instance.wait_for("t", &[]);
    }
    let (mut first, mut last) = (BTreeMap::new(), BTreeMap::new());
    until("all are listed again by all", LATE, || {
        for instance in all {
            let listed = instance.lookup("t").len();
            if listed > 0 {
                first.entry(instance.name).or_insert_with(|| asked.elapsed());
            }
            if listed == 3 {
                last.entry(instance.name).or_insert_with(|| asked.elapsed());
            }
        }
        (last.len() == all.len(), last.clone())
    });
    assert!(first.values().all(|after| *after + ROUNDED >= LIFETIME), "{first:?}");
    assert!(last.values().all(|after| *after <= LIFETIME + SOON), "{last:?}");

    // One starts again, with a state file, whose times are those of its clock.
    for signal in [Signal::TERM, Signal::KILL] {
        ahead.server.signal(signal);
        assert!(ahead.server.wait_for_exit(PATIENCE).is_some());
        for instance in [&behind, &even, &later] {
            assert_eq!(instance.lookup("t"), names(&["x", "y", "z"]), "{}", instance.name);
        }
        ahead = begin_ahead();
        assert_eq!(ahead.lookup("t"), names(&["x", "y", "z"]));
        z.connect(&ahead);
        let newest = z.local_address();
        for instance in [&behind, &even, &ahead, &later] {
            until("its new connection is listed", SOON, || {
                assert_eq!(
                    instance.lookup("t"),
                    names(&["x", "y", "z"]),
                    "{}: {}",
                    instance.name,
                    instance.server.log()
                );
                let node = instance.node("z");
                (node.as_ref().is_some_and(|node| node["remote_address"] == newest), node)
            });
        }
    }
}

#[test]
fn the_producers_of_one_that_was_killed_are_listed_for_a_grace() {
    let Some(library) = library() else { return };
    let Some(programs) = programs() else { return };
    // Not the shared one: it is to end while this goes on.
    let etcd = Etcd::start(&programs);
    let begin = |hours, name| start(&library, hours, &etcd.address(), name, &[]);
    let (behind, even, mut ahead) = (begin(-1, "behind"), begin(0, "even"), begin(1, "ahead"));
    let mut nodes = [Node::new("x", &ahead, &["t"]), Node::new("y", &ahead, &["t"])];
    let both = [&behind, &even];
    for instance in both {
        instance.wait_for("t", &["x", "y"]);
    }
    ahead.server.signal(Signal::KILL);
    assert!(ahead.server.wait_for_exit(PATIENCE).is_some());
    nodes[0].connect(&behind);
    until("its lease is over", LATE, || {
        let instances = both.map(|instance| {
            assert_eq!(instance.lookup("t"), names(&["x", "y"]), "{}", instance.name);
            instance.metric("instances")
        });
        (instances == [2, 2], instances)
    });
    let over = Instant::now();
    let mut after = BTreeMap::new();
    until("what was not taken over is gone", LATE, || {
        for instance in both {
            if instance.lookup("t") == names(&["x"]) {
                after.entry(instance.name).or_insert_with(|| over.elapsed());
            }
        }
        (after.len() == both.len(), after.clone())
    });
    assert!(after.values().all(|after| after.as_secs() >= 55), "{after:?}");
    until("nothing is left of it", SOON, || {
        let left = keys(&etcd, "ringlookupd", "p/");
        (left.len() == 1, left)
    });
}
