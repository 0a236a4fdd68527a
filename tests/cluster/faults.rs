//! Whatever happens to etcd, or on the way there, each instance serves what it knows, and catches up when it is over.
//!
//! A test that cuts an instance off has a proxy between it and etcd; `cut.rs` does it in a network namespace.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use ringlookupd::limits::CLUSTER_SILENCE_MAX;
use rustix::process::Signal;
use socket2::{Domain, Socket, Type};

use crate::asker::{Asker, user_file};
use crate::basics::names;
use crate::etcd::{Etcd, programs};
use crate::instances::{Instance, LATE, Node, SOON, address, keys, shared_etcd, two_of, until};
use crate::proxy::{Network, Proxy};
use crate::support::PATIENCE;

/// Waits until something is so, while all of these list for a topic what they did.
fn until_listing(what: &str, listing: &[(&Instance, &str, &[&str])], mut is_so: impl FnMut() -> bool) {
    until(what, LATE, || {
        for (instance, topic, expected) in listing {
            let listed = instance.lookup(topic);
            assert!(
                expected.iter().all(|name| listed.contains(*name)),
                "{what}: {} lists {listed:?} for {topic}\n{}",
                instance.name,
                instance.server.log()
            );
        }
        (is_so(), listing.iter().map(|(instance, ..)| instance.server.log()).collect::<Vec<_>>())
    });
}

/// What holds of an instance that cannot have etcd, from its start on.
fn serves_alone(instance: &Instance) {
    let mut node = Node::new("alone", instance, &["t c"]);
    instance.post("/topic/create?topic=made");
    assert_eq!(instance.lookup("t"), names(&["alone"]));
    assert_eq!(instance.topics(), names(&["made", "t"]));
    instance.post("/topic/delete?topic=t");
    assert_eq!(instance.topics(), names(&["made"]));
    node.register("t");
    assert_eq!(instance.lookup("t"), names(&["alone"]));
    assert_eq!((instance.metric("connected"), instance.metric("reads")), (0, 0));
}

fn lines_with(instance: &Instance, needle: &str) -> usize {
    instance.server.log().lines().filter(|line| line.contains(needle)).count()
}

#[test]
fn a_stop_of_etcd_is_survived() {
    let Some(programs) = programs() else { return };
    let (mut etcd, a, b) = two_of(&programs, &[]);
    let mut node = Node::new("x", &a, &["t"]);
    b.wait_for("t", &["x"]);
    etcd.stop();
    node.register("meanwhile");
    let mut other = Node::new("y", &a, &["t"]);
    a.post("/topic/create?topic=made");
    assert_eq!(a.lookup("meanwhile"), names(&["x"]));
    assert_eq!(a.lookup("t"), names(&["x", "y"]));
    b.server.wait_for_log("CLUSTER: etcd cannot be reached");
    if std::env::var_os("RINGLOOKUPD_LONG").is_some() {
        let begun = Instant::now();
        until_listing("a minute is over", &[(&a, "t", &["x", "y"]), (&b, "t", &["x"])], || {
            begun.elapsed() > Duration::from_secs(60)
        });
        for instance in [&a, &b] {
            assert_eq!(instance.ready(), (200, "OK, cut off".to_owned()));
        }
    }
    assert_eq!(b.lookup("t"), names(&["x"]));
    etcd.restart();
    until_listing("it has caught up", &[(&a, "t", &["x", "y"]), (&b, "t", &["x"])], || {
        b.lookup("meanwhile") == names(&["x"]) && b.lookup("t") == names(&["x", "y"])
    });
    b.wait_for_topic("made", true);
    other.disconnect();
    b.wait_for("t", &["x"]);
    for instance in [&a, &b] {
        instance.wait_until_ready("OK");
        assert_eq!(
            lines_with(instance, "WARNING: CLUSTER: etcd cannot be reached"),
            1,
            "{}",
            instance.server.log()
        );
    }
}

#[test]
fn an_etcd_that_was_wiped_is_written_again() {
    let Some(programs) = programs() else { return };
    let (mut etcd, a, b) = two_of(&programs, &[]);
    let mut nodes = [Node::new("x", &a, &["t c"]), Node::new("y", &b, &["t"]), Node::new("z", &a, &["u"])];
    a.post("/topic/create?topic=made");
    a.post("/channel/create?topic=made&channel=one");
    for instance in [&a, &b] {
        instance.wait_for("t", &["x", "y"]);
        instance.wait_for("u", &["z"]);
        instance.wait_for_channel("made", "one", true);
    }
    let listing: [(&Instance, &str, &[&str]); 4] =
        [(&a, "t", &["x", "y"]), (&b, "t", &["x", "y"]), (&a, "u", &["z"]), (&b, "u", &["z"])];
    for _ in 0..2 {
        let reads = [a.metric("reads"), b.metric("reads")];
        etcd.wipe();
        until_listing("both have read it", &listing, || {
            [a.metric("reads"), b.metric("reads")].iter().zip(reads).all(|(is, was)| *is > was)
        });
        until_listing("all is written", &listing, || {
            keys(&etcd, "ringlookupd", "p/").len() == 3
                && keys(&etcd, "ringlookupd", "i/").len() == 2
                && keys(&etcd, "ringlookupd", "t/").len() == 2
        });
        nodes[0].unregister("t c");
        nodes[0].register("t c");
        nodes[2].disconnect();
        b.wait_for("u", &[]);
        nodes[2].connect(&b);
        a.wait_for("u", &["z"]);
        a.wait_for("t", &["x", "y"]);
    }
    for instance in [&a, &b] {
        instance.wait_until_ready("OK");
        instance.wait_for_metric("instances", 2);
        instance.wait_for_metric("producers{kind=\"orphan\"}", 0);
        assert_eq!(instance.channels("made"), names(&["one"]));
    }
}

#[test]
fn what_was_compacted_is_read() {
    let Some(programs) = programs() else { return };
    let etcd = Etcd::start(&programs);
    let proxy = Proxy::start(&etcd);
    let a = Instance::start(&etcd.address(), "a", &[]);
    let b = Instance::start(&proxy.address(), "b", &[]);
    let mut nodes = [Node::new("x", &a, &["t", "old"]), Node::new("y", &a, &["t"])];
    a.post("/topic/create?topic=made");
    let own = Node::new("z", &b, &["t", "deleted"]);
    for instance in [&a, &b] {
        instance.wait_for("t", &["x", "y", "z"]);
        instance.wait_for_topic("made", true);
    }
    proxy.set(Network::Refused);
    nodes[0].unregister("old");
    nodes[0].register("new");
    nodes[1].disconnect();
    a.post("/topic/delete?topic=made");
    a.post("/topic/delete?topic=deleted");
    let revision = |instance: &Instance| instance.metric("revision");
    // What is written comes back to where it comes from.
    until("all is written", SOON, || {
        let is =
            (a.metric("pending"), keys(&etcd, "ringlookupd", "d/").len(), keys(&etcd, "ringlookupd", "p/").len());
        (is == (0, 2, 2), is)
    });
    let newest = revision(&a);
    assert!(newest > revision(&b));
    etcd.ctl(&["compaction", &newest.to_string()]);
    proxy.set(Network::Up);
    b.wait_for("t", &["x", "z"]);
    b.wait_for("new", &["x"]);
    b.wait_for("old", &[]);
    b.wait_for_topic("made", false);
    b.wait_for_topic("deleted", false);
    assert!(b.metric("reads") >= 2);
    // The deletion holds in what it writes, too.
    drop(own);
    a.wait_for("t", &["x"]);
    assert!(!a.topics().contains("made") && !a.topics().contains("deleted"));
}

#[test]
fn an_etcd_that_stalls_is_survived() {
    let Some(programs) = programs() else { return };
    let (etcd, a, b) = two_of(&programs, &[]);
    let mut node = Node::new("x", &a, &["t"]);
    b.wait_for("t", &["x"]);
    etcd.pause();
    let begun = Instant::now();
    node.register("meanwhile");
    let listing: [(&Instance, &str, &[&str]); 3] =
        [(&a, "t", &["x"]), (&a, "meanwhile", &["x"]), (&b, "t", &["x"])];
    until_listing("the stall is over", &listing, || begun.elapsed() > Duration::from_secs(12));
    etcd.resume();
    until_listing("what was registered is known", &listing, || b.lookup("meanwhile") == names(&["x"]));
    node.register("later");
    until_listing("what is registered now is known", &listing, || b.lookup("later") == names(&["x"]));
    for instance in [&a, &b] {
        instance.wait_until_ready("OK");
        assert!(lines_with(instance, "etcd did not answer in time") <= 1, "{}", instance.server.log());
    }
}

#[test]
fn a_slow_etcd_is_enough() {
    let Some(programs) = programs() else { return };
    let etcd = Etcd::start(&programs);
    let proxy = Proxy::start(&etcd);
    let a = Instance::start(&etcd.address(), "a", &[]);
    let b = Instance::start(&proxy.address(), "b", &[]);
    for (delay, round) in [(100, "one"), (2000, "two")] {
        proxy.set(Network::Slow(Duration::from_millis(delay)));
        let failures = b.metric("failures");
        let before: Vec<_> = (0..100).map(|nth| Node::new(&format!("x{nth}"), &a, &[round])).collect();
        let mut own = Node::new("own", &b, &[round, "own"]);
        let mut all: Vec<_> = before.iter().map(|node| node.name.as_str()).collect();
        all.push("own");
        all.sort_unstable();
        // Some requests, each of which waits for the one before.
        let lists = |instance: &Instance, names: &[&str]| {
            until(&format!("{} lists them for {round}", instance.name), LATE, || {
                let listed = instance.lookup(round);
                (listed.iter().eq(names), (listed, b.server.log()))
            });
        };
        lists(&a, &all);
        lists(&b, &all);
        a.post(&format!("/topic/delete?topic={round}"));
        lists(&b, &[]);
        own.register(round);
        lists(&b, &["own"]);
        lists(&a, &["own"]);
        // One that starts has all in time.
        let c = Instance::start(&proxy.address(), "c", &["-warm-up=1h"]);
        assert_eq!(c.lookup(round), names(&["own"]));
        assert_eq!(b.ready(), (200, "OK".to_owned()));
        assert_eq!(b.metric("failures"), failures, "{}", b.server.log());
    }
}

#[test]
fn a_full_etcd_takes_it_when_there_is_room_again() {
    let Some(programs) = programs() else { return };
    let etcd = Etcd::start_with(&programs, &["--quota-backend-bytes=1000000"]);
    let [a, b] = ["a", "b"].map(|name| Instance::start(&etcd.address(), name, &[]));
    let mut node = Node::new("x", &a, &["t"]);
    b.wait_for("t", &["x"]);
    let mut asker = Asker::new(&etcd.address());
    let value = vec![b'x'; 100_000];
    let full = (0..100).find_map(|nth| asker.put(&format!("k{nth}"), &value, 0).err());
    assert!(full.is_some());
    node.register("meanwhile");
    let _other = Node::new("y", &a, &["t"]);
    b.post("/topic/create?topic=made");
    a.server.wait_for_log("WARNING: CLUSTER: etcd takes no more data");
    b.server.wait_for_log("WARNING: CLUSTER: etcd takes no more data");
    assert!(a.metric("pending") > 0);
    assert_eq!((a.lookup("meanwhile"), a.lookup("t")), (names(&["x"]), names(&["x", "y"])));
    // One that starts knows what the others have written before, and one that forgets soon has not forgotten it.
    let c = Instance::begin(&etcd.address(), "c", &["-warm-up=1h", "-cluster-stale=1s"]);
    for instance in [&a, &b, &c] {
        instance.wait_until_ready("OK, read only");
        let metrics = ["connected", "writable"].map(|name| instance.metric(name));
        assert_eq!(metrics, [1, 0]);
    }
    let begun = Instant::now();
    until_listing("the time after which they would be cut off", &[(&b, "t", &["x"]), (&c, "t", &["x"])], || {
        begun.elapsed() > CLUSTER_SILENCE_MAX + Duration::from_secs(3)
    });
    for instance in [&a, &b, &c] {
        assert_eq!(
            (instance.metric("reads"), lines_with(instance, "cut off")),
            (1, 0),
            "{}",
            instance.server.log()
        );
        assert_eq!(instance.ready(), (200, "OK, read only".to_owned()));
    }
    etcd.ctl(&["del", "--prefix", "k"]);
    let revision = etcd.ctl(&["endpoint", "status", "--write-out=json"]);
    let (_, revision) = revision.split_once("\"revision\":").expect("a revision");
    let revision: String = revision.chars().take_while(char::is_ascii_digit).collect();
    etcd.ctl(&["compaction", "--physical", &revision]);
    etcd.ctl(&["defrag"]);
    etcd.ctl(&["alarm", "disarm"]);
    let listing: [(&Instance, &str, &[&str]); 2] = [(&a, "t", &["x", "y"]), (&b, "t", &["x"])];
    until_listing("it has arrived", &listing, || {
        b.lookup("meanwhile") == names(&["x"]) && b.lookup("t") == names(&["x", "y"])
    });
    a.wait_for_topic("made", true);
    until("all is written", SOON, || {
        let pending = (a.metric("pending"), b.metric("pending"));
        (pending == (0, 0), pending)
    });
    for instance in [&a, &b, &c] {
        instance.wait_until_ready("OK");
        assert_eq!(lines_with(instance, "etcd takes no more data"), 1, "{}", instance.server.log());
    }
}

/// An etcd with users, of which `nsq` may do anything under the default prefix.
#[test]
fn wrong_credentials_are_told_and_right_ones_are_enough() {
    let Some(programs) = programs() else { return };
    let etcd = Etcd::start_with(&programs, &["--bcrypt-cost=4"]);
    for arguments in [
        &["user", "add", "root:r00t"][..],
        &["user", "grant-role", "root", "root"],
        &["role", "add", "directory"],
        &["role", "grant-permission", "directory", "--prefix=true", "readwrite", "ringlookupd/"],
        &["role", "add", "reader"],
        &["role", "grant-permission", "reader", "--prefix=true", "read", "ringlookupd/"],
        &["user", "add", "reader:r34der"],
        &["user", "grant-role", "reader", "reader"],
        &["user", "add", "nsq:s3cret"],
        &["user", "grant-role", "nsq", "directory"],
        &["auth", "enable"],
    ] {
        etcd.ctl(arguments);
    }
    let folder = tempfile::tempdir().expect("a folder");
    let user = |name: &str, line: &str| {
        let folder = folder.path().join(name);
        fs::create_dir(&folder).expect("a folder");
        format!("-cluster-user-file={}", user_file(&folder, line))
    };
    let wrong = Instance::begin(&etcd.address(), "wrong", &["-warm-up=0s", &user("wrong", "nsq:guess")]);
    let nobody = Instance::begin(&etcd.address(), "nobody", &["-warm-up=0s"]);
    let elsewhere = format!("{}/elsewhere", etcd.address());
    let right = user("right", "nsq:s3cret");
    let elsewhere = Instance::begin(&elsewhere, "elsewhere", &["-warm-up=0s", &right]);
    let refused = [&wrong, &nobody, &elsewhere];
    for instance in refused {
        instance.wait_until_ready("OK, alone");
        serves_alone(instance);
        instance.server.wait_for_log("CLUSTER: etcd denies access");
    }
    let [a, b] = ["a", "b"].map(|name| Instance::start(&etcd.address(), name, &[&right]));
    let mut node = Node::new("x", &a, &["t"]);
    b.wait_for("t", &["x"]);
    // One that may not write knows what the others have written, and not the other way round.
    let reader = Instance::begin(&etcd.address(), "reader", &["-warm-up=1h", &user("reader", "reader:r34der")]);
    reader.wait_until_ready("OK, read only");
    let _unknown = Node::new("y", &reader, &["t"]);
    assert_eq!(reader.lookup("t"), names(&["x", "y"]));
    node.register("u");
    reader.wait_for("u", &["x"]);
    b.wait_for_metric("instances", 2);
    reader.wait_for_metric("pending", 1);
    assert_eq!(b.lookup("t"), names(&["x"]));
    assert_eq!(lines_with(&reader, "denies access"), 1, "{}", reader.server.log());
    b.post("/topic/delete?topic=t");
    a.wait_for_topic("t", false);
    node.register("t");
    b.post("/topic/tombstone?topic=t&node=x:2");
    a.wait_for("t", &[]);
    for instance in refused {
        // It tries again, and says it once.
        until("it tries again", SOON, || (instance.metric("failures") >= 3, instance.metric("failures")));
        let log = instance.server.log();
        assert_eq!(lines_with(instance, "denies access"), 1, "{log}");
        let line = log.lines().find(|line| line.contains("denies access")).expect("it is there");
        assert!(line.contains("see -cluster-user-file"), "{line}");
    }
}

#[test]
fn an_etcd_without_its_gateway_is_told() {
    let Some(programs) = programs() else { return };
    let etcd = Etcd::start_with(&programs, &["--enable-grpc-gateway=false"]);
    let a = Instance::begin(&etcd.address(), "a", &["-warm-up=0s"]);
    a.server.wait_for_log("WARNING: CLUSTER: no JSON gateway of etcd is there");
    a.server.wait_for_log("--enable-grpc-gateway");
    serves_alone(&a);
    until("it tries again", SOON, || (a.metric("failures") >= 3, a.metric("failures")));
    assert_eq!(lines_with(&a, "no JSON gateway"), 1, "{}", a.server.log());
    assert_eq!(a.ready(), (200, "OK, alone".to_owned()));
}

#[test]
fn an_instance_that_is_cut_off_serves_on_and_catches_up() {
    let Some(programs) = programs() else { return };
    let etcd = Etcd::start(&programs);
    let proxy = Proxy::start(&etcd);
    let hidden = "-tombstone-lifetime=1h";
    let a = Instance::start(&etcd.address(), "a", &[hidden]);
    let b = Instance::start(&proxy.address(), "b", &[hidden]);
    // One whose producers of others are not listed for ever.
    let stale = Instance::start(&proxy.address(), "stale", &["-cluster-stale=1s", hidden]);
    let mut nodes = [Node::new("x", &a, &["t"]), Node::new("y", &a, &["t", "u"])];
    let mut own = Node::new("own", &b, &["t"]);
    let _own_of_stale = Node::new("other", &stale, &["t"]);
    let _tombstoned = [Node::new("dying", &a, &["hidden"]), Node::new("dying-there", &b, &["hidden"])];
    a.wait_for("hidden", &["dying", "dying-there"]);
    a.post("/topic/create?topic=made");
    let all = ["other", "own", "x", "y"];
    for instance in [&a, &b, &stale] {
        instance.wait_for("t", &all);
        instance.wait_for_topic("made", true);
    }

    proxy.set(Network::Cut);
    let begun = Instant::now();
    own.register("meanwhile");
    nodes[0].register("behind");
    nodes[1].disconnect();
    a.post("/topic/delete?topic=made");
    a.post("/topic/delete?topic=u");
    for node in ["dying:2", "dying-there:2"] {
        a.post(&format!("/topic/tombstone?topic=hidden&node={node}"));
    }
    let _late = Node::new("late", &a, &["t"]);
    b.post("/topic/create?topic=made-there");
    let listing: [(&Instance, &str, &[&str]); 3] =
        [(&a, "t", &["x", "late", "own"]), (&b, "t", &all), (&b, "meanwhile", &["own"])];
    until_listing("it says so", &listing, || {
        let ready = b.ready();
        assert!(ready.1 == "OK, cut off" || begun.elapsed() < Duration::from_secs(45), "{ready:?}");
        assert_eq!(ready.0, 200);
        ready.1 == "OK, cut off"
    });
    assert!(begun.elapsed() > Duration::from_secs(10));
    // A thread of its own writes the log.
    b.server.wait_for_log("WARNING: CLUSTER: cut off from etcd");
    assert_eq!(lines_with(&b, "WARNING: CLUSTER: cut off from etcd"), 1, "{}", b.server.log());
    assert_eq!(b.metric("connected"), 0);
    stale.server.wait_for_log("CLUSTER: cut off for longer than -cluster-stale (1s): 5 producers");
    stale.wait_for("t", &["other"]);
    // The others take it for dead.
    until_listing("its lease is over", &listing, || a.metric("instances") == 1);
    assert_eq!((b.lookup("behind"), a.lookup("meanwhile")), (names(&[]), names(&[])));

    proxy.set(Network::Up);
    let listing: [(&Instance, &str, &[&str]); 3] =
        [(&a, "t", &["x", "late", "own"]), (&b, "t", &["x", "own", "other"]), (&b, "meanwhile", &["own"])];
    until_listing("it has caught up", &listing, || {
        b.lookup("behind") == names(&["x"]) && a.lookup("meanwhile") == names(&["own"])
    });
    for instance in [&a, &b, &stale] {
        instance.wait_until_ready("OK");
        instance.wait_for_topic("made-there", true);
        instance.wait_for_topic("made", false);
        instance.wait_for_topic("u", false);
        instance.wait_for("hidden", &[]);
    }
    // When it has seen its own key.
    b.server.wait_for_log("CLUSTER: etcd is back after ");
    let log = b.server.log();
    let back = log.lines().find_map(|line| line.split_once("CLUSTER: etcd is back after ")).expect("it says so").1;
    let seconds: f64 = back.trim_end_matches('s').parse().expect("seconds");
    assert!(seconds > 20.0, "{log}");
    // Who has gone meanwhile is not listed for ever either.
    for instance in [&a, &b, &stale] {
        instance.wait_for_in("t", &["late", "other", "own", "x"], LATE);
    }
    assert!(!a.topics().contains("made"), "it was deleted");
    a.wait_for_metric("instances", 3);
}

#[test]
fn it_is_ready_when_it_has_read_all_or_the_warm_up_is_over() {
    let Some(programs) = programs() else { return };
    let etcd = Etcd::start(&programs);
    let a = Instance::start(&etcd.address(), "a", &[]);
    let _node = Node::new("x", &a, &["t"]);
    until("it is written", SOON, || (a.metric("pending") == 0, a.metric("pending")));

    // Nobody is there: bound and not listening, so that nobody else gets the port.
    let nobody = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    nobody.bind(&"127.0.0.1:0".parse::<std::net::SocketAddr>().expect("an address").into()).expect("a port");
    let port = nobody.local_addr().expect("it is bound").as_socket().expect("IPv4").port();
    let nobody_there = format!("etcd://127.0.0.1:{port}");
    let begun = Instant::now();
    let alone = Instance::begin(&nobody_there, "alone", &["-warm-up=3s"]);
    let first = alone.ready();
    assert!(first.0 == 503 || begun.elapsed() > Duration::from_secs(3), "{first:?}");
    alone.wait_until_ready("OK, alone");
    serves_alone(&alone);
    alone.server.wait_for_log("CLUSTER: etcd cannot be reached");

    etcd.pause();
    let b = Instance::begin(&etcd.address(), "b", &["-warm-up=1h"]);
    for _ in 0..20 {
        let (status, body) = b.ready();
        assert!(status == 503 && body.contains("WARMING_UP"), "{status} {body}");
        thread::sleep(Duration::from_millis(50));
    }
    etcd.resume();
    until("it has read all", SOON, || {
        let (status, body) = b.ready();
        // Whoever is sent here from now on gets all.
        assert!(status == 503 || b.lookup("t") == names(&["x"]));
        (status == 200 && body == "OK", (status, body, b.server.log()))
    });
}

/// What the state file has and what etcd has is one.
#[test]
fn a_restart_with_a_state_file_lists_each_once() {
    let Some(etcd) = shared_etcd() else { return };
    let (cluster, prefix) = (address(&etcd, "state"), "state");
    let folder = tempfile::tempdir().expect("a folder");
    let flags = [format!("-data-path={}", folder.path().display()), "-state-interval=10ms".to_owned()];
    let flags = [flags[0].as_str(), flags[1].as_str()];
    let b = Instance::start(&cluster, "b", &[]);
    let mut a = Instance::start(&cluster, "a", &flags);
    let mut nodes = [Node::new("x", &a, &["t c"]), Node::new("y", &b, &["t"])];
    for (times, signal) in [Signal::TERM, Signal::KILL].into_iter().enumerate() {
        for instance in [&a, &b] {
            instance.wait_for("t", &["x", "y"]);
        }
        a.post(&format!("/topic/create?topic=last{times}"));
        b.wait_for_topic(&format!("last{times}"), true);
        until("it is saved", SOON, || {
            let bytes = fs::read(folder.path().join("nsqlookupd.state")).unwrap_or_default();
            let saved = ringlookupd::state::decode(&bytes).map(|decoded| decoded.saved);
            let topic = format!("last{times}");
            (saved.is_ok_and(|saved| saved.topics.iter().any(|saved| format!("{saved:?}").contains(&topic))), ())
        });
        a.server.signal(signal);
        assert!(a.server.wait_for_exit(PATIENCE).is_some());
        assert_eq!(b.lookup("t"), names(&["x", "y"]));
        a = Instance::start(&cluster, "a", &flags);
        for instance in [&a, &b] {
            instance.wait_for("t", &["x", "y"]);
            assert_eq!((instance.nodes(), instance.channels("t")), (names(&["x", "y"]), names(&["c"])));
        }
        nodes[0].connect(&a);
        let newest = nodes[0].local_address();
        for instance in [&a, &b] {
            until("its new connection is listed", SOON, || {
                assert_eq!((instance.lookup("t"), instance.nodes()), (names(&["x", "y"]), names(&["x", "y"])));
                let node = instance.node("x");
                (node.as_ref().is_some_and(|node| node["remote_address"] == newest), node)
            });
        }
    }
    // Those of the instances that were.
    until("the records of the old connections are gone", LATE, || {
        assert_eq!((a.lookup("t"), b.lookup("t")), (names(&["x", "y"]), names(&["x", "y"])));
        let left = keys(&etcd, prefix, "p/");
        (left.len() == 2, left)
    });
}

/// Fields, keys and names that this version does not know are skipped, and nonsense is reported.
#[test]
fn what_a_later_version_writes_is_skipped() {
    let Some(etcd) = shared_etcd() else { return };
    let cluster = address(&etcd, "later");
    let a = Instance::start(&cluster, "a", &[]);
    let put = |key: &str, value: &str| drop(etcd.ctl(&["put", &format!("later/v1/{key}"), value]));
    let record = r#"{"node":{"hostname":"h","broadcast_address":"later","tcp_port":1,"http_port":2,"version":"9",
        "topology_zone":"z","topology_region":"r","shape":"round"},"remote_address":"127.0.0.9:9","active":true,
        "seen":1,"parts":1,"topics":{"t":["c"]},"since":{"year":2100}}"#;
    let puts = [
        ("z/unknown", "whatever"),
        ("unknown", "whatever"),
        ("i/other", r#"{"name":"other","version":"9","speaks":["v1","v2"]}"#),
        ("i/other/more", "whatever"),
        ("p/other/1/0", record),
        ("p/other/1/0/more", "whatever"),
        ("p/other/1/x", "whatever"),
        ("t/made", r#"{"by":"other","number":7,"why":"because"}"#),
        ("t/no name", r#"{"by":"other"}"#),
    ];
    for (key, value) in puts {
        put(key, value);
    }
    let b = Instance::start(&cluster, "b", &[]);
    for instance in [&a, &b] {
        instance.wait_for("t", &["later"]);
        instance.wait_for_topic("made", true);
        assert_eq!(instance.channels("t"), names(&["c"]));
        assert_eq!(instance.metric("lost"), 0, "{}", instance.server.log());
        instance.wait_for_metric("instances", 3);
        assert!(!instance.server.log().contains("cannot be read"), "{}", instance.server.log());
    }
    // Nonsense where something is expected: a line says where, and the rest is taken.
    put("p/other/2/0", "{\"node\":7}");
    put("t/nonsense", "nonsense");
    let _node = Node::new("x", &a, &["t"]);
    for instance in [&a, &b] {
        instance.wait_for("t", &["later", "x"]);
        instance.wait_for_metric("lost", 2);
        assert_eq!(
            lines_with(instance, "WARNING: CLUSTER: a value in etcd cannot be read, and is left out - later/v1/"),
            2
        );
    }
    let c = Instance::start(&cluster, "c", &[]);
    c.wait_for("t", &["later", "x"]);
    assert_eq!(c.metric("lost"), 2);
}

#[test]
fn a_user_file_that_others_can_read_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = user_file(folder.path(), "nsq:s3cret");
    fs::set_permissions(Path::new(&path), fs::Permissions::from_mode(0o644)).expect("it is ours");
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_ringlookupd"))
        .args(crate::support::DEFAULTS)
        .args(["-cluster=etcd://127.0.0.1:1".to_owned(), format!("-cluster-user-file={path}")])
        .output()
        .expect("the program runs");
    let log = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && log.contains("-cluster-user-file"), "{log}");
}
