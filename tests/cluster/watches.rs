//! A watch reports every change from its revision on, each revision whole.

use ringlookupd::cluster::store::{Modified, Operation, Watched};

use crate::asker::{Asker, put};
use crate::etcd::{Etcd, programs};

#[test]
fn changes_come_in_order_and_whole() {
    let Some(programs) = programs() else { return };
    let etcd = Etcd::start(&programs);
    let mut asker = Asker::new(&etcd.address());
    asker.watch(1, "p/", 0);
    let header = asker.begun(1);
    asker.put("q", "another prefix", 0).expect("room");
    let first = asker.change(vec![put("p/a", "1", 0), put("p/b", "1", 0)]).expect("room");
    let second = asker.change(vec![Operation::Delete("p/a".to_owned()), put("p/b", "2", 0)]).expect("room");

    for (revision, expected) in [(first, ["put p/a", "put p/b"]), (second, ["delete p/a", "put p/b"])] {
        let Watched::Changed(seen, changes) = asker.watched(1) else { panic!("a change") };
        assert_eq!((seen.cluster_id, seen.revision), (header.cluster_id, revision));
        assert_eq!(changes.iter().map(text).collect::<Vec<_>>(), expected);
        assert!(changes.iter().all(|change| revision_of(change) == revision), "{changes:?}");
    }

    // The next watch takes the place of the first, and reports it all again.
    asker.watch(2, "p/", first);
    asker.begun(2);
    let changes = asker.changes(2, 4);
    assert_eq!(changes.iter().map(text).collect::<Vec<_>>(), ["put p/a", "put p/b", "delete p/a", "put p/b"]);

    asker.stop_watch();
    asker.put("p/c", "", 0).expect("room");
    asker.watch(3, "p/c", second + 1);
    asker.begun(3);
    assert_eq!(asker.changes(3, 1).iter().map(text).collect::<Vec<_>>(), ["put p/c"]);
    asker.end();
}

/// etcd writes them as one line of many megabytes.
#[test]
fn a_long_past_comes_at_once() {
    let Some(programs) = programs() else { return };
    let etcd = Etcd::start(&programs);
    let mut asker = Asker::new(&etcd.address());
    let value: Vec<u8> = (0..100_000).map(|nth| u8::try_from(nth % 251).expect("small")).collect();
    for nth in 0..100 {
        asker.put(&format!("p/{nth:03}"), &value, 0).expect("room");
    }
    asker.watch(1, "p/", 1);
    asker.begun(1);
    let changes = asker.changes(1, 100);
    for (nth, change) in changes.iter().enumerate() {
        let Modified::Put(pair) = change else { panic!("{change:?}") };
        assert_eq!(pair.key, format!("p/{nth:03}"));
        assert!(pair.value == value, "{}", pair.key);
    }
    assert_eq!(changes.len(), 100);
}

#[test]
fn a_compacted_past_is_told() {
    let Some(programs) = programs() else { return };
    let etcd = Etcd::start(&programs);
    let mut asker = Asker::new(&etcd.address());
    asker.put("p/a", "1", 0).expect("room");
    let kept = asker.put("p/a", "2", 0).expect("room");
    etcd.ctl(&["compaction", &kept.to_string()]);
    asker.watch(1, "p/", 1);
    asker.begun(1);
    assert_eq!(asker.watched(1), Watched::Compacted);
    asker.watch(2, "p/", kept);
    asker.begun(2);
    assert_eq!(asker.changes(2, 1).iter().map(text).collect::<Vec<_>>(), ["put p/a"]);
}

fn text(change: &Modified) -> String {
    match change {
        Modified::Put(pair) => format!("put {}", pair.key),
        Modified::Deleted { key, .. } => format!("delete {key}"),
    }
}

fn revision_of(change: &Modified) -> i64 {
    match change {
        Modified::Put(pair) => pair.mod_revision,
        Modified::Deleted { revision, .. } => *revision,
    }
}
