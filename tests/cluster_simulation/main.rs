//! Several registries and a simulated etcd, without a network: one seed decides who changes what, what is delayed or lost, and
//! when leases end, etcd is compacted or wiped, and instances are cut off, die and come back.
//!
//! At each moment an instance lists the nsqds that it has listed before, as long as they are connected to an instance that etcd takes
//! for alive, and for the grace after that. After each time of trouble all calms down, and then: all instances list the same; an nsqd that is connected is listed once,
//! with what it has registered; a topic that was deleted, and not registered again since, is nowhere; nothing is left of what is
//! gone.
//!
//! A failure prints its seed: `RINGLOOKUPD_SEED=7 cargo test --test cluster_simulation` plays that alone, and
//! `RINGLOOKUPD_SEEDS=5000` plays so many that nobody has played before.

mod etcd;
mod world;

use std::collections::BTreeSet;
use std::env;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::Duration;

use ringlookupd::registry::Change;
use world::{Topics, World, name};

/// Seeds that every run of the tests plays.
const SEEDS: u64 = 150;

#[test]
fn all_instances_come_to_list_the_same() {
    let number = |name: &str| env::var(name).ok().map(|text| text.parse::<u64>().expect("a number"));
    if let Some(seed) = number("RINGLOOKUPD_SEED") {
        return play(seed);
    }
    let new = number("RINGLOOKUPD_SEEDS");
    let from = new.map_or(0, |_| fastrand::u64(..1 << 60));
    for seed in from..from + new.unwrap_or(SEEDS) {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| play(seed))) {
            eprintln!("it was seed {seed}: RINGLOOKUPD_SEED={seed} plays it again");
            resume_unwind(panic);
        }
    }
}

/// What has happened in a time of trouble.
#[derive(Default)]
struct Trouble {
    /// Topics that were deleted, and those that were registered after that.
    deleted: BTreeSet<String>,
    again: BTreeSet<String>,
    /// Names that were made over HTTP: another instance may have been asked to delete them at the same time.
    made: BTreeSet<String>,
    /// Topics and channels of which a channel was deleted.
    touched: BTreeSet<String>,
    /// A deletion may have been lost with etcd or an instance.
    is_lossy: bool,
    /// Names without producers may be gone with the instance or the etcd that knew them.
    forgets: bool,
}

fn play(seed: u64) {
    let mut world = World::new(seed, 3, 6);
    // What was made over HTTP and not deleted since.
    let mut created = BTreeSet::new();
    let mut has_forgotten = false;
    let rounds = 2 + world.rng.u32(..3);
    for _ in 0..rounds {
        let mut trouble = trouble(&mut world, &mut created);
        calm(&mut world, &mut trouble, seed);
        check(&world, &trouble, &created);
        has_forgotten |= trouble.forgets;
        if !has_forgotten {
            check_names(&world);
        }
        // What was lost with an etcd or an instance is not expected later.
        created.retain(|made: &String| world.living().iter().all(|&at| world.topics(at).contains(made)));
        // Of what was deleted while it was registered, an nsqd has what the instances have made of that.
        let listed = world.listed(world.living()[0]);
        for nsqd in world.nsqds.iter_mut().filter(|nsqd| nsqd.at.is_some()) {
            nsqd.topics = listed[&nsqd.name].clone();
        }
    }
}

fn trouble(world: &mut World, created: &mut BTreeSet<String>) -> Trouble {
    let mut trouble = Trouble::default();
    for _ in 0..world.rng.u32(200..1500) {
        match world.rng.u32(..60) {
            0 | 1 => act(world, &mut trouble, created),
            2 => {
                let time = Duration::from_millis(world.rng.u64(1..2000));
                world.pass(time);
            }
            3 if world.rng.u32(..20) == 0 => fail(world, &mut trouble),
            _ => world.happen(false),
        }
    }
    trouble
}

/// A client does something.
fn act(world: &mut World, trouble: &mut Trouble, created: &mut BTreeSet<String>) {
    let living = world.living();
    let at = living[world.rng.usize(..living.len())];
    let nsqd = world.rng.usize(..world.nsqds.len());
    let topic = format!("t{}", world.rng.u32(..4));
    let channel = format!("c{}", world.rng.u32(..2));
    match world.rng.u32(..12) {
        0..=2 => {
            if world.nsqds[nsqd].at.is_none() {
                trouble.again.extend(world.nsqds[nsqd].topics.keys().cloned());
                world.connect(nsqd, at);
            }
        }
        3 => world.disconnect(nsqd),
        4..=7 => {
            let channels = world.nsqds[nsqd].topics.entry(topic.clone()).or_default();
            channels.insert(channel.clone());
            if let Some((at, producer)) = world.nsqds[nsqd].at.clone() {
                trouble.again.insert(topic.clone());
                world.register(at, &producer, &topic, [channel.as_str()].into_iter());
            }
        }
        8 => {
            world.nsqds[nsqd].topics.remove(&topic);
            if let Some((at, producer)) = world.nsqds[nsqd].at.clone() {
                world.change(at, &Change::Unregister { producer, topic: name(&topic), channel: None });
            }
        }
        9 => {
            let made = format!("made{}", world.rng.u32(..3));
            let topic = if world.rng.bool() { topic } else { made };
            // As nsqadmin does, the nsqds forget it, too.
            world.nsqds.iter_mut().for_each(|nsqd| drop(nsqd.topics.remove(&topic)));
            world.change(at, &Change::Delete { topic: name(&topic), channel: None });
            created.remove(&topic);
            trouble.again.remove(&topic);
            // Another instance may have made it before, and etcd learns of that later.
            if topic.starts_with("made") && !world.nodes.iter().flatten().all(|node| node.member.is_settled()) {
                trouble.again.insert(topic.clone());
            }
            trouble.deleted.insert(topic);
            // What was deleted before an instance has joined is no matter to what was registered there.
            trouble.is_lossy |= !world.nodes.iter().flatten().all(|node| node.member.has_joined());
        }
        10 => {
            for nsqd in &mut world.nsqds {
                nsqd.topics.get_mut(&topic).map(|channels| channels.remove(&channel));
            }
            world.change(at, &Change::Delete { topic: name(&topic), channel: Some(name(&channel)) });
            trouble.touched.insert(topic);
        }
        _ => {
            let made = format!("made{}", world.rng.u32(..3));
            world.change(at, &Change::Create { topic: name(&made), channel: None });
            trouble.made.insert(made.clone());
            created.insert(made);
        }
    }
}

/// Something goes wrong.
fn fail(world: &mut World, trouble: &mut Trouble) {
    let living = world.living();
    let at = living[world.rng.usize(..living.len())];
    match world.rng.u32(..8) {
        0 => world.etcd.compact(),
        1 => {
            world.wipe();
            (trouble.is_lossy, trouble.forgets) = (true, true);
        }
        2 | 3 => {
            let node = world.nodes[at].as_mut().expect("it lives");
            node.is_cut = !node.is_cut;
        }
        4 => {
            let key = format!("test/v1/i/{}", world.nodes[at].as_ref().expect("it lives").incarnation);
            world.etcd.end_lease_of(&key);
        }
        5 => {
            let time = Duration::from_secs(world.rng.u64(10..40));
            world.pass(time);
        }
        6 => world.etcd.is_full = !world.etcd.is_full,
        _ => {
            world.kill(at);
            (trouble.is_lossy, trouble.forgets) = (true, true);
            let node = world.start();
            world.nodes[at] = Some(node);
        }
    }
}

/// Everything works again, for long enough; and every nsqd that has lost its connection has another.
fn calm(world: &mut World, trouble: &mut Trouble, seed: u64) {
    world.nodes.iter_mut().flatten().for_each(|node| node.is_cut = false);
    world.etcd.is_full = false;
    for nsqd in 0..world.nsqds.len() {
        if world.nsqds[nsqd].at.is_none() && world.rng.bool() {
            let living = world.living();
            let at = living[world.rng.usize(..living.len())];
            trouble.again.extend(world.nsqds[nsqd].topics.keys().cloned());
            world.connect(nsqd, at);
        }
    }
    // The grace of what has died in it, twice.
    for _ in 0..300 {
        for _ in 0..60 {
            world.happen(true);
        }
        world.pass(Duration::from_millis(500));
    }
    for _ in 0..20_000 {
        if world.is_settled() {
            return;
        }
        world.happen(true);
        if world.rng.u32(..50) == 0 {
            world.pass(Duration::from_millis(50));
        }
    }
    panic!("seed {seed}: the instances do not come to rest");
}

fn check(world: &World, trouble: &Trouble, created: &BTreeSet<String>) {
    let living = world.living();
    let listed = world.listed(living[0]);
    for &other in &living[1..] {
        assert_eq!(world.listed(other), listed, "instance {other} lists others than {}", living[0]);
    }
    let connected = world.nsqds.iter().filter(|nsqd| nsqd.at.is_some());
    let names: BTreeSet<_> = connected.clone().map(|nsqd| nsqd.name.clone()).collect();
    assert_eq!(
        listed.keys().cloned().collect::<BTreeSet<_>>(),
        names,
        "who is connected is listed, and nobody else"
    );
    for nsqd in connected {
        let (is, want) = (&listed[&nsqd.name], &nsqd.topics);
        // A registration at one instance and a deletion at another at the same time: either is right, if all agree.
        let is_certain = |topic: &String| !trouble.deleted.contains(topic) && !trouble.touched.contains(topic);
        let certain = |topics: &Topics| {
            topics
                .iter()
                .filter(|(topic, _)| is_certain(topic))
                .map(|(a, b)| (a.clone(), b.clone()))
                .collect::<Topics>()
        };
        assert_eq!(certain(is), certain(want), "{} has registered", nsqd.name);
    }
    for &at in &living {
        let topics = world.topics(at);
        if !trouble.is_lossy {
            let gone =
                trouble.deleted.difference(&trouble.again).filter(|deleted| !trouble.made.contains(*deleted));
            for deleted in gone {
                assert!(!topics.contains(deleted), "{deleted} was deleted, and is back");
            }
        }
        if !trouble.forgets {
            let made: BTreeSet<_> = topics.iter().filter(|topic| topic.starts_with("made")).cloned().collect();
            let certain: BTreeSet<_> = created.difference(&trouble.deleted).cloned().collect();
            assert!(certain.is_subset(&made), "{certain:?} were made, {made:?} are there");
        }
    }
    let incarnations: BTreeSet<_> =
        living.iter().map(|&at| world.nodes[at].as_ref().expect("it lives").incarnation.as_str()).collect();
    let stale = world.etcd.keys().filter_map(|key| key.strip_prefix("test/v1/p/")?.split('/').next());
    for incarnation in stale {
        assert!(incarnations.contains(incarnation), "records of {incarnation}, which is dead, are left in etcd");
    }
}

/// Names that were made over HTTP are at all instances or at none, unless etcd or an instance has ever lost some.
fn check_names(world: &World) {
    let living = world.living();
    let made =
        |at| world.topics(at).into_iter().filter(|topic| topic.starts_with("made")).collect::<BTreeSet<_>>();
    for &at in &living {
        assert_eq!(made(at), made(living[0]), "instance {at} lists other names than {}", living[0]);
    }
}
