//! A disk that ends the process at any operation, fails, and loses what was not synced when the power goes.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind, Write};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};

use ringlookupd::state::Files;

/// A handle: who takes another of the same disk sees the same files.
#[derive(Clone, Default)]
pub struct Faulty(Arc<Mutex<Disk>>);

#[derive(Default)]
struct Disk {
    files: Vec<Content>,
    /// What the kernel shows.
    names: BTreeMap<String, usize>,
    /// What the disk has.
    synced_names: BTreeMap<String, usize>,
    /// Changes of names that were not synced, each of one operation: names, and the files that they are of since.
    pending: Vec<Vec<(String, Option<usize>)>>,
    operations: u64,
    /// The operation at which the process ends: it and all later ones have no effect, but for a part of a write.
    kill_at: Option<u64>,
    /// What all operations fail with that change something.
    error: Option<i32>,
    /// What the first such operation from that number on fails with.
    error_at: Option<(u64, i32)>,
    /// What the next read fails with.
    read_error: Option<i32>,
    torn: u64,
}

#[derive(Clone, Default)]
struct Content {
    bytes: Vec<u8>,
    synced: Vec<u8>,
}

/// A file that was opened for writing.
pub struct Open {
    disk: Faulty,
    number: usize,
}

impl Faulty {
    fn disk(&self) -> MutexGuard<'_, Disk> {
        self.0.lock().expect("no panic")
    }

    /// Ends the process so many operations from now on.
    pub fn kill_after(&self, operations: u64, torn: u64) {
        let mut disk = self.disk();
        (disk.kill_at, disk.torn) = (Some(disk.operations + operations), torn);
    }

    /// Whether the process has ended.
    pub fn is_killed(&self) -> bool {
        let disk = self.disk();
        disk.kill_at.is_some_and(|at| disk.operations > at)
    }

    /// How many operations there were.
    pub fn operations(&self) -> u64 {
        self.disk().operations
    }

    /// Lets operations fail with an error number, or succeed again.
    pub fn fail(&self, error: Option<i32>) {
        self.disk().error = error;
    }

    /// Lets the first one fail that comes after so many operations.
    pub fn fail_after(&self, operations: u64, error: i32) {
        let mut disk = self.disk();
        disk.error_at = Some((disk.operations + operations, error));
    }

    pub fn fail_next_read(&self, error: i32) {
        self.disk().read_error = Some(error);
    }

    /// Another process begins.
    pub fn restart(&self) {
        let mut disk = self.disk();
        (disk.kill_at, disk.error, disk.error_at) = (None, None, None);
    }

    /// The power was off: of the names that were not synced any may have reached the disk, each operation as a whole, and
    /// of the content any part.
    pub fn lose_power(&self, rng: &mut fastrand::Rng) {
        let mut guard = self.disk();
        let disk = &mut *guard;
        for (name, file) in std::mem::take(&mut disk.pending).into_iter().filter(|_| rng.bool()).flatten() {
            match file {
                Some(file) => disk.synced_names.insert(name, file),
                None => disk.synced_names.remove(&name),
            };
        }
        disk.names.clone_from(&disk.synced_names);
        for content in &mut disk.files {
            if content.bytes != content.synced {
                content.bytes.truncate(rng.usize(..=content.bytes.len()));
                let at = rng.usize(..=content.bytes.len());
                content.bytes[at..].fill(0);
            }
            content.synced.clone_from(&content.bytes);
        }
    }

    pub fn names(&self) -> Vec<String> {
        self.disk().names.keys().cloned().collect()
    }

    pub fn content(&self, name: &str) -> Option<Vec<u8>> {
        let disk = self.disk();
        disk.names.get(name).map(|&file| disk.files[file].bytes.clone())
    }

    /// Puts a file there, synced.
    pub fn put(&self, name: &str, bytes: &[u8]) {
        let mut guard = self.disk();
        let disk = &mut *guard;
        let number = disk.files.len();
        disk.files.push(Content { bytes: bytes.to_vec(), synced: bytes.to_vec() });
        disk.names.insert(name.to_owned(), number);
        disk.synced_names.insert(name.to_owned(), number);
    }
}

impl Disk {
    /// Whether the next operation happens, which changes something or does not.
    fn next(&mut self, changes: bool) -> io::Result<()> {
        let number = self.operations;
        self.operations += 1;
        if self.kill_at.is_some_and(|at| number >= at) {
            return Err(ErrorKind::Other.into());
        }
        let now = if changes {
            self.error_at.take_if(|(at, _)| number >= *at).map(|(_, error)| error).or(self.error)
        } else {
            self.read_error.take()
        };
        now.map_or(Ok(()), |error| Err(io::Error::from_raw_os_error(error)))
    }

    fn set(&mut self, changes: Vec<(String, Option<usize>)>) {
        for (name, file) in &changes {
            match file {
                Some(file) => self.names.insert(name.clone(), *file),
                None => self.names.remove(name),
            };
        }
        self.pending.push(changes);
    }

    fn find(&self, name: &str) -> io::Result<usize> {
        self.names.get(name).copied().ok_or_else(|| ErrorKind::NotFound.into())
    }
}

impl Files for Faulty {
    type File = Open;

    fn create(&mut self, name: &str) -> io::Result<Open> {
        let mut disk = self.disk();
        disk.next(true)?;
        let number = disk.files.len();
        disk.files.push(Content::default());
        disk.set(vec![(name.to_owned(), Some(number))]);
        drop(disk);
        Ok(Open { disk: self.clone(), number })
    }

    fn sync(&mut self, file: &mut Open) -> io::Result<()> {
        let mut disk = self.disk();
        disk.next(true)?;
        let content = &mut disk.files[file.number];
        content.synced.clone_from(&content.bytes);
        Ok(())
    }

    fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        let mut disk = self.disk();
        disk.next(true)?;
        let file = disk.find(from)?;
        disk.set(vec![(to.to_owned(), Some(file)), (from.to_owned(), None)]);
        Ok(())
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        let mut disk = self.disk();
        disk.next(true)?;
        disk.find(name)?;
        disk.set(vec![(name.to_owned(), None)]);
        Ok(())
    }

    fn read(&mut self, name: &str) -> io::Result<Vec<u8>> {
        let mut disk = self.disk();
        disk.next(false)?;
        let file = disk.find(name)?;
        Ok(disk.files[file].bytes.clone())
    }

    fn exists(&mut self, name: &str) -> io::Result<bool> {
        let mut disk = self.disk();
        disk.next(false)?;
        Ok(disk.names.contains_key(name))
    }

    fn sync_folder(&mut self) -> io::Result<()> {
        let mut disk = self.disk();
        disk.next(true)?;
        disk.pending.clear();
        let names = disk.names.clone();
        disk.synced_names = names;
        Ok(())
    }

    fn path(&self) -> &Path {
        Path::new("/state")
    }
}

impl Write for Open {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut disk = self.disk.disk();
        // Pieces, so that there are several operations of a file.
        let bytes = &bytes[..bytes.len().min(64)];
        let is_last = disk.kill_at == Some(disk.operations);
        let next = disk.next(true);
        let written = match next {
            Ok(()) => bytes.len(),
            Err(_) if is_last => usize::try_from(disk.torn).expect("few") % (bytes.len() + 1),
            Err(_) => 0,
        };
        let number = self.number;
        disk.files[number].bytes.extend_from_slice(&bytes[..written]);
        next.map(|()| written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
