//! The operations on files that a folder of states is made of, so that tests can put one between them that fails, loses
//! power or ends the process at any of them.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// The files of one folder, by their names in it.
pub trait Files {
    type File: Write;

    /// Makes an empty file for writing, instead of one that is there by this name.
    fn create(&mut self, name: &str) -> io::Result<Self::File>;

    /// Returns when the file's content has reached the disk.
    fn sync(&mut self, file: &mut Self::File) -> io::Result<()>;

    /// Gives a file another name, instead of one that is there by it, in one step.
    fn rename(&mut self, from: &str, to: &str) -> io::Result<()>;

    fn remove(&mut self, name: &str) -> io::Result<()>;

    fn read(&mut self, name: &str) -> io::Result<Vec<u8>>;

    fn exists(&mut self, name: &str) -> io::Result<bool>;

    /// Returns when the names have reached the disk.
    fn sync_folder(&mut self) -> io::Result<()>;

    /// For messages.
    fn path(&self) -> &Path;
}

/// A folder of the file system.
#[derive(Debug)]
pub struct Disk {
    path: PathBuf,
    folder: File,
}

impl Disk {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let folder = OpenOptions::new().read(true).custom_flags(libc::O_DIRECTORY).open(path)?;
        Ok(Self { path: path.to_owned(), folder })
    }
}

impl Files for Disk {
    type File = File;

    /// A file that only its owner reads: names of topics are nobody else's business.
    fn create(&mut self, name: &str) -> io::Result<File> {
        let path = self.path.join(name);
        // What is there may be a link to somewhere else.
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
    }

    fn sync(&mut self, file: &mut File) -> io::Result<()> {
        file.sync_all()
    }

    fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.path.join(from), self.path.join(to))
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        fs::remove_file(self.path.join(name))
    }

    fn read(&mut self, name: &str) -> io::Result<Vec<u8>> {
        fs::read(self.path.join(name))
    }

    fn exists(&mut self, name: &str) -> io::Result<bool> {
        self.path.join(name).symlink_metadata().map(|_| true).or_else(|error| match error.kind() {
            io::ErrorKind::NotFound => Ok(false),
            _ => Err(error),
        })
    }

    fn sync_folder(&mut self) -> io::Result<()> {
        self.folder.sync_all()
    }

    fn path(&self) -> &Path {
        &self.path
    }
}
