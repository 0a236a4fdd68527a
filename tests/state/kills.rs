//! The process ends at any operation.

use std::collections::BTreeMap;
use std::time::Duration;

use ringlookupd::log::Log;
use ringlookupd::registry::{Name, Saved};
use ringlookupd::state::{Folder, Stamp};

use crate::disk::Faulty;
use crate::world::{put, random, variable};

/// Lives of a server that one seed stands for: each begins with reading and ends with a kill.
const LIVES: u64 = 20;
/// With as many lives each.
const SEEDS: u64 = 500;
/// More operations than a life has that writes a few times.
const OPERATIONS: u64 = 60;

/// What the disk may hold, by the time at which it was written.
#[derive(Default)]
struct Allowed {
    completed: Option<Duration>,
    /// Begun since.
    begun: Vec<Duration>,
    states: BTreeMap<Duration, Saved>,
    /// The stamps of each state, by the times of both.
    stamps: BTreeMap<(Duration, Duration), Duration>,
}

impl Allowed {
    /// A state is read: of the time at which it was written, and of times that were true then or at a stamp.
    fn check(&mut self, disk: &Faulty, what: &str) -> Option<Duration> {
        let names = disk.names();
        assert!(
            names.iter().all(|name| !name.contains("corrupt") && !name.contains("newer")),
            "{what}: {names:?}"
        );
        let mut folder = Folder::with(disk.clone());
        let Some(restored) = folder.read(Duration::ZERO, &Log::disabled()) else {
            assert_eq!(self.completed, None, "{what}: nothing is read");
            return None;
        };
        // The times tell which stamp was read.
        let written = self.states.iter().rev().find(|(_, saved)| topics(saved).eq(topics(&restored.saved)));
        let (&written, state) = written.unwrap_or_else(|| panic!("{what}: no state that was written"));
        let expected = if written == restored.wall {
            state.clone()
        } else {
            let more = self.stamps.get(&(written, restored.wall));
            later(state, *more.unwrap_or_else(|| panic!("{what}: no stamp of this state")))
        };
        assert_eq!(restored.saved, expected, "{what}");
        let is_last = self.completed == Some(written) || self.begun.contains(&written);
        assert!(is_last, "{what}: read {written:?}, completed {:?}, begun {:?}", self.completed, self.begun);
        // The names were synced before anything was read.
        (self.completed, self.begun) = (Some(written), Vec::new());
        Some(written)
    }

    fn write(&mut self, folder: &mut Folder<Faulty>, wall: Duration, saved: &Saved) -> Option<u32> {
        self.begun.push(wall);
        self.states.insert(wall, saved.clone());
        let (written, ()) = folder.write(wall, |encoder| put(saved, encoder)).ok()?;
        (self.completed, self.begun) = (Some(wall), Vec::new());
        Some(written.checksum)
    }
}

/// A state after so long, in which nothing has changed.
fn later(saved: &Saved, more: Duration) -> Saved {
    let mut saved = saved.clone();
    saved.producers.iter_mut().for_each(|producer| producer.silence += more);
    saved.age(more);
    saved
}

fn topics(saved: &Saved) -> impl Iterator<Item = &Name> {
    saved.topics.iter().map(|topic| &topic.name)
}

/// The distinct topics of a state make it known whichever times it is read with.
fn state(number: u64) -> Saved {
    let mut saved = random(number);
    saved.topics.push(crate::world::topic(&format!("state-{number}"), Vec::new()));
    saved
}

/// Plays one seed, and returns how often the process was killed.
fn play(seed: u64) -> u64 {
    let mut rng = fastrand::Rng::with_seed(seed);
    let (disk, mut allowed) = (Faulty::default(), Allowed::default());
    let (mut kills, mut clock) = (0, 0);
    for life in 0..LIVES {
        let what = format!("RINGLOOKUPD_SEED={seed}, life {life}");
        // The kill may come before anything was read.
        disk.kill_after(rng.u64(..OPERATIONS), rng.u64(..));
        if rng.u8(..4) == 0 {
            disk.fail_after(rng.u64(..OPERATIONS), *rng.choice(&[libc::ENOSPC, libc::EIO]).expect("some"));
        }
        let mut folder = Folder::with(disk.clone());
        folder.read(Duration::ZERO, &Log::disabled());
        let mut last = None;
        while !disk.is_killed() {
            clock += 1;
            let wall = Duration::from_secs(clock);
            match last {
                Some((checksum, written)) if rng.bool() => {
                    let more = wall.saturating_sub(written);
                    let silences: Vec<_> = allowed.states[&written]
                        .producers
                        .iter()
                        .map(|producer| producer.silence + more)
                        .collect();
                    allowed.stamps.insert((written, wall), more);
                    let _ = folder.stamp(&Stamp::encode(checksum, wall, silences.into_iter()));
                }
                _ => {
                    let written = allowed.write(&mut folder, wall, &state(seed * 1000 + clock));
                    last = written.map(|checksum| (checksum, wall)).or(last);
                }
            }
        }
        kills += 1;
        disk.restart();
        if rng.bool() {
            disk.lose_power(&mut rng);
        }
        // Whoever starts may be killed while it starts.
        if rng.u8(..4) == 0 {
            disk.kill_after(rng.u64(..4), 0);
            Folder::with(disk.clone()).read(Duration::ZERO, &Log::disabled());
            disk.restart();
            kills += 1;
        }
        allowed.check(&disk, &what);
    }
    kills
}

#[test]
fn what_is_read_after_a_kill_is_the_last_state_or_the_one_being_written() {
    let seeds = match variable("RINGLOOKUPD_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..variable("RINGLOOKUPD_SEEDS").unwrap_or(SEEDS),
    };
    let kills: u64 = seeds.clone().map(play).sum();
    println!("seeds {seeds:?}: {kills} kills");
}

/// Each operation of a write and of a stamp after two states, and no matter what of it a loss of power leaves.
#[test]
fn each_operation_of_a_write_can_be_the_last() {
    let whole = |kill_at: Option<u64>, seed: u64| {
        let (disk, mut allowed) = (Faulty::default(), Allowed::default());
        let mut folder = Folder::with(disk.clone());
        for clock in [1, 2] {
            allowed.write(&mut folder, Duration::from_secs(clock), &state(clock)).expect("no kill yet");
        }
        let before = disk.operations();
        if let Some(at) = kill_at {
            disk.kill_after(at, seed);
        }
        allowed.write(&mut folder, Duration::from_secs(3), &state(3));
        let operations = disk.operations() - before;
        disk.restart();
        if seed > 0 {
            disk.lose_power(&mut fastrand::Rng::with_seed(seed));
        }
        let read = allowed.check(&disk, &format!("killed at {kill_at:?}, power {seed}"));
        assert!(read >= Some(Duration::from_secs(2)));
        (operations, read)
    };
    let (operations, read) = whole(None, 0);
    assert_eq!(read, Some(Duration::from_secs(3)));
    assert!(operations > 6, "{operations}");
    for at in 0..operations {
        for seed in 0..50 {
            whole(Some(at), seed);
        }
    }
}
