//! Two processes never use one folder at a time, but for one that hands it over.

use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::process;
use std::time::Duration;

use ringlookupd::state::{Folder, FolderError, LOCK, PREVIOUS, STATE};
use tempfile::tempdir;

use crate::world::{names, put, random};

#[test]
fn a_second_server_is_refused_until_the_first_has_ended() {
    let place = tempdir().expect("a folder");
    let first = Folder::open(place.path()).expect("nobody has it");
    let pid = process::id();
    assert_eq!(fs::read_to_string(place.path().join(LOCK)).expect("the lock"), format!("{pid}\n"));
    let Err(error) = Folder::open(place.path()) else { panic!("two have it") };
    let path = place.path().display();
    let expected = format!(
        "{path}: another server (process {pid}) uses this folder; stop it, or give this one a folder of its own"
    );
    assert_eq!(error.to_string(), expected);
    drop(first);
    Folder::open(place.path()).expect("it is free again");
}

/// The lock goes with its descriptor, and stays when the process ends that has handed it over.
#[test]
fn a_lock_is_handed_over_without_a_moment_in_which_it_is_free() {
    let place = tempdir().expect("a folder");
    let old = Folder::open(place.path()).expect("nobody has it");
    let copy = || old.lock().expect("it has one").as_fd().try_clone_to_owned().expect("a descriptor");
    let new = Folder::inherit(place.path(), copy()).expect("it is the same lock");
    let taken = || matches!(Folder::open(place.path()), Err(FolderError::Taken(..)));
    assert!(taken());
    let other = tempdir().expect("a folder");
    fs::write(other.path().join(LOCK), "").expect("a file");
    assert!(matches!(Folder::inherit(other.path(), copy()), Err(FolderError::OtherLock(_))));
    drop(old);
    assert!(taken());
    drop(new);
    assert!(!taken());
}

/// One that is not held by whoever hands it over is taken if it is free.
#[test]
fn a_lock_that_somebody_else_holds_is_not_inherited() {
    let place = tempdir().expect("a folder");
    let holder = Folder::open(place.path()).expect("nobody has it");
    let file = || OwnedFd::from(fs::File::open(place.path().join(LOCK)).expect("the lock"));
    assert!(matches!(Folder::inherit(place.path(), file()), Err(FolderError::Taken(..))));
    drop(holder);
    Folder::inherit(place.path(), file()).expect("it is free");
}

#[test]
fn the_folder_is_made_by_the_operator() {
    let place = tempdir().expect("a folder");
    let missing = place.path().join("missing");
    let Err(error) = Folder::open(&missing) else { panic!("it is not there") };
    let expected = format!("{}: no such folder; make it, for the server's user alone", missing.display());
    assert_eq!(error.to_string(), expected);
    let file = place.path().join("file");
    fs::write(&file, "").expect("a file");
    assert!(matches!(Folder::open(&file), Err(FolderError::Io(..))));
    assert_eq!(names(place.path()), ["file"]);
}

/// On a real disk: the files, who may read them, and nothing that a write leaves behind.
#[test]
fn the_files_are_the_owners_alone() {
    let place = tempdir().expect("a folder");
    fs::write(place.path().join("nsqlookupd.state.tmp"), "of a process that was killed").expect("a file");
    fs::set_permissions(place.path(), fs::Permissions::from_mode(0o755)).expect("it is ours");
    let mut folder = Folder::open(place.path()).expect("nobody has it");
    assert_eq!(names(place.path()), [LOCK]);
    for number in 1..4 {
        let wall = Duration::from_secs(number);
        folder.write(wall, |encoder| put(&random(number), encoder)).expect("there is room");
    }
    folder.stamp(b"of no state").expect("there is room");
    assert_eq!(names(place.path()), [LOCK, "nsqlookupd.stamp", STATE, PREVIOUS]);
    for name in names(place.path()) {
        let mode = fs::metadata(place.path().join(&name)).expect("it is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
    let mode = fs::metadata(place.path()).expect("it is there").permissions().mode();
    assert_eq!(mode & 0o777, 0o755, "the folder is used as it is");
    let log = ringlookupd::log::Log::disabled();
    assert_eq!(folder.read(Duration::ZERO, &log).expect("the last").saved, random(3));
    fs::remove_file(place.path().join(STATE)).expect("it is there");
    assert_eq!(folder.read(Duration::ZERO, &log).expect("the one before").saved, random(2));
}
