//! Files that cannot be used are renamed, and the state before is read.

use std::time::Duration;

use ringlookupd::log::Log;
use ringlookupd::state::{Folder, PREVIOUS, STAMP, STATE, Stamp};

use crate::disk::Faulty;
use crate::world::{Lines, encoded, put, random};

const WALL: Duration = Duration::from_secs(1_800_000_000);

/// A folder with two states.
fn folder(last: &[u8], before: &[u8]) -> Faulty {
    let disk = Faulty::default();
    disk.put(STATE, last);
    disk.put(PREVIOUS, before);
    disk
}

fn read(disk: &Faulty, log: &Log) -> Option<ringlookupd::state::Restored> {
    Folder::with(disk.clone()).read(WALL, log)
}

/// With the right checksum, as of a later version.
fn of_version(version: u32) -> Vec<u8> {
    let sealed = [&b"nsqstate"[..], &version.to_le_bytes(), b"whatever it holds"].concat();
    [&sealed[..], &crc32fast::hash(&sealed).to_le_bytes()].concat()
}

#[test]
fn a_byte_that_changes_anywhere_sets_the_file_aside() {
    let (good, before) = (encoded(&random(1), WALL), encoded(&random(2), WALL));
    let aside = format!("{STATE}.corrupt-1800000000");
    for at in 0..good.len() {
        for bits in [1, 0x80, 0xff] {
            let mut bad = good.clone();
            bad[at] ^= bits;
            let disk = folder(&bad, &before);
            let restored = read(&disk, &Log::disabled()).expect("the state before");
            assert_eq!(restored.saved, random(2), "byte {at}");
            assert_eq!(disk.content(&aside).as_ref(), Some(&bad), "byte {at}: kept as it was");
            assert_eq!(disk.names(), [aside.as_str(), PREVIOUS]);
        }
    }
    for end in 0..good.len() {
        let disk = folder(&good[..end], &before);
        assert_eq!(read(&disk, &Log::disabled()).expect("the state before").saved, random(2), "cut at {end}");
    }
}

#[test]
fn the_log_says_what_was_set_aside_and_why() {
    let disk = folder(&of_version(2), b"nsqstate");
    // Names that are taken already.
    for name in ["nsqlookupd.state.newer-v2-1800000000", "nsqlookupd.state.newer-v2-1800000000-2"] {
        disk.put(name, b"an earlier one");
    }
    let lines = Lines::start();
    assert_eq!(read(&disk, &lines.log), None);
    assert_eq!(
        lines.end(),
        [
            "WARNING: /state/nsqlookupd.state cannot be used - format 2, and this program knows up to 1; it is kept as \
             nsqlookupd.state.newer-v2-1800000000-3",
            "WARNING: /state/nsqlookupd.state.prev cannot be used - truncated; it is kept as \
             nsqlookupd.state.prev.corrupt-1800000000",
            "WARNING: no state in /state can be used: the server starts without one",
        ]
    );
    assert_eq!(disk.content("nsqlookupd.state.newer-v2-1800000000-3"), Some(of_version(2)));
    assert_eq!(disk.content("nsqlookupd.state.prev.corrupt-1800000000").as_deref(), Some(&b"nsqstate"[..]));
    assert_eq!(disk.names().len(), 4);
}

/// An empty folder is that of a first start, and no reason to warn. A kill between two renames leaves the second file alone.
#[test]
fn a_file_that_is_missing_is_no_reason_to_warn() {
    let lines = Lines::start();
    let disk = Faulty::default();
    assert_eq!(read(&disk, &lines.log), None);
    disk.put(PREVIOUS, &encoded(&random(3), WALL));
    assert_eq!(read(&disk, &lines.log).expect("the state before").saved, random(3));
    assert_eq!(lines.end(), [""; 0]);
}

/// What cannot be renamed is not overwritten: not before it can be, however often it is tried, and not by a loss of power.
#[test]
fn nothing_is_written_over_a_file_that_cannot_be_set_aside() {
    let (bad, good) = (b"nsqstate, or something like it".to_vec(), encoded(&random(4), WALL));
    for seed in 0..100 {
        let disk = folder(&bad, &good);
        disk.fail(Some(libc::EROFS));
        let mut folder = Folder::with(disk.clone());
        let lines = Lines::start();
        assert_eq!(folder.read(WALL, &lines.log).expect("the state before").saved, random(4));
        let [line] = &lines.end()[..] else { panic!("one line") };
        assert!(line.contains("wrong checksum; nothing is written until it can be renamed to"), "{line}");
        let mut write = || folder.write(WALL, |encoder| put(&random(5), encoder));
        assert_eq!(write().expect_err("read-only").raw_os_error(), Some(libc::EROFS));
        assert_eq!(disk.content(STATE).as_ref(), Some(&bad));
        disk.fail(None);
        if seed % 2 == 0 {
            disk.fail_after(seed / 2 % 12, libc::EIO);
        }
        let _ = write();
        disk.restart();
        disk.lose_power(&mut fastrand::Rng::with_seed(seed));
        let kept = disk.names().into_iter().filter(|name| disk.content(name).as_ref() == Some(&bad));
        assert_eq!(kept.count(), 1, "seed {seed}: {:?}", disk.names());
        let restored = read(&disk, &Log::disabled()).expect("one of them").saved;
        assert!(restored == random(4) || restored == random(5), "seed {seed}");
    }
}

/// An unreadable file is one that cannot be used.
#[test]
fn a_file_that_the_disk_cannot_read_is_set_aside() {
    let disk = folder(&encoded(&random(6), WALL), &encoded(&random(7), WALL));
    let mut folder = Folder::with(disk.clone());
    disk.fail_next_read(libc::EIO);
    let lines = Lines::start();
    assert_eq!(folder.read(WALL, &lines.log).expect("the state before").saved, random(7));
    let lines = lines.end();
    assert!(lines[0].contains("cannot be used - Input/output error (os error 5); it is kept as"), "{lines:?}");
}

#[test]
fn a_stamp_counts_for_the_state_that_it_is_of() {
    let saved = random(8);
    let state = encoded(&saved, WALL);
    let checksum = u32::from_le_bytes(*state.last_chunk().expect("a checksum"));
    let later = WALL + Duration::from_secs(10);
    let silence = Duration::from_secs(4711);
    let stamp = |state, count| Stamp::encode(state, later, std::iter::repeat_n(silence, count));
    let count = saved.producers.len();
    assert!(count > 0);
    let good = stamp(checksum, count);
    let mut damaged = good.clone();
    damaged[20] ^= 1;
    for (stamp, counts) in [
        (good, true),
        (damaged, false),
        (stamp(checksum ^ 1, count), false),
        (stamp(checksum, count - 1), false),
        (Vec::new(), false),
    ] {
        let disk = Faulty::default();
        disk.put(STATE, &state);
        disk.put(STAMP, &stamp);
        let restored = read(&disk, &Log::disabled()).expect("the state");
        let mut expected = saved.clone();
        if counts {
            expected.producers.iter_mut().for_each(|producer| producer.silence = silence);
            expected.age(later.saturating_sub(WALL));
        }
        assert_eq!(restored.saved, expected);
        assert_eq!(restored.wall, if counts { later } else { WALL });
        assert_eq!(restored.gone(later), later.saturating_sub(restored.wall));
        assert_eq!(restored.gone(Duration::ZERO), Duration::ZERO, "a clock that was set back");
        assert_eq!(disk.names(), [STAMP, STATE], "a stamp is nothing to set aside");
    }
}
