//! Every version of the file that was ever written can be read, and how large a large one is.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use ringlookupd::registry::{Saved, SavedChannel, SavedExpiry, SavedProducers, SavedTopic};
use ringlookupd::state::format::VERSION;
use ringlookupd::state::{Decoded, Encoder, decode};

use crate::world::{encoded, name, producer, put, random, topic};

/// What the file of version 1 holds.
fn first() -> Decoded {
    let hour = Duration::from_secs(3600);
    let channel = |text, expiry, producers| SavedChannel { name: name(text), expiry, producers };
    let orders = SavedTopic {
        tombstones: vec![(0, Duration::from_millis(44_999))],
        channels: vec![
            channel("archive", SavedExpiry::Kept, SavedProducers::Some(vec![])),
            channel("billing", SavedExpiry::None, SavedProducers::All),
            channel("mail#ephemeral", SavedExpiry::None, SavedProducers::Some(vec![2])),
        ],
        ..topic("orders", vec![0, 2])
    };
    let left = SavedTopic {
        is_listed: false,
        expiry: SavedExpiry::After(hour),
        channels: vec![channel("c", SavedExpiry::After(hour), SavedProducers::All)],
        ..topic("left#ephemeral", vec![])
    };
    let created = SavedTopic { expiry: SavedExpiry::Kept, channels: vec![], ..topic("created", vec![]) };
    let saved = Saved { producers: (0..3).map(producer).collect(), topics: vec![orders, left, created] };
    Decoded { wall: Duration::new(1_800_000_000, 123_456_789), checksum: 0, saved }
}

/// A file that this version writes is what an earlier build of the same version has written: whatever changes the bytes
/// needs another version, and the old one is read for ever.
#[test]
fn each_version_is_read() {
    assert_eq!(VERSION, 1, "a new version: keep a file of it, too");
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/state/v1.state");
    let expected = first();
    let bytes = fs::read(&path).unwrap_or_else(|_| {
        fs::write(&path, encoded(&expected.saved, expected.wall)).expect("a writable tree");
        panic!("{} was missing and is there now: keep it", path.display());
    });
    let decoded = decode(&bytes).expect("it is read");
    assert_eq!(decoded, Decoded { checksum: decoded.checksum, ..expected.clone() });
    assert_eq!(encoded(&expected.saved, expected.wall), bytes);
}

#[test]
fn what_is_written_is_what_is_read() {
    for seed in 0..2000 {
        let (saved, wall) = (random(seed), Duration::from_nanos(seed));
        let decoded = decode(&encoded(&saved, wall)).unwrap_or_else(|error| panic!("{seed}: {error}"));
        assert_eq!((decoded.saved, decoded.wall), (saved, wall), "{seed}");
    }
}

/// 2,000 producers, 100,000 topics with a channel each, 1,000,000 registrations of topics and as many of channels.
#[test]
fn a_large_cluster_is_a_file_of_few_megabytes() {
    let producers = (0..2000).map(producer).collect();
    let topics = (0..100_000).map(|number| {
        let mut producers: Vec<_> = (0..10).map(|nth| (number * 7 + nth * 191) % 2000).collect();
        producers.sort_unstable();
        topic(&format!("topic-of-a-large-cluster-{number}"), producers)
    });
    let saved = Saved { producers, topics: topics.collect() };
    let (mut bytes, begun) = (Vec::new(), Instant::now());
    let mut encoder = Encoder::new(&mut bytes, Duration::ZERO).expect("memory");
    put(&saved, &mut encoder).and_then(|()| encoder.finish()).expect("memory");
    let encoding = begun.elapsed();
    let begun = Instant::now();
    let decoded = decode(&bytes).expect("it is whole");
    println!("{} bytes, written in {encoding:?}, read in {:?}", bytes.len(), begun.elapsed());
    assert!(decoded.saved == saved);
    assert!(bytes.len() < 12_000_000, "{}", bytes.len());
}
