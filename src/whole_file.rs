//! Files that an operator writes and the server reads as a whole: the tokens, the topology.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};

/// A file that is open.
pub struct WholeFile {
    file: File,
    /// Its permissions (chmod(2)).
    pub mode: u32,
}

/// Why a file cannot be read. But for the first, the text goes on behind the name of the file.
#[derive(Debug)]
pub enum ReadError {
    Io(io::Error),
    /// It is a folder or a device, say.
    NoFile,
    TooLong {
        bytes_max: usize,
    },
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => error.fmt(f),
            Self::NoFile => f.write_str("is no file"),
            Self::TooLong { bytes_max } => write!(f, "has more than {bytes_max} bytes"),
        }
    }
}

impl From<io::Error> for ReadError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl WholeFile {
    /// # Errors
    /// It cannot be opened, or is no file.
    pub fn open(path: &str) -> Result<Self, ReadError> {
        // Whoever opens a FIFO would wait otherwise.
        let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
        let metadata = file.metadata()?;
        let mode = metadata.permissions().mode() & 0o7777;
        if metadata.is_file() { Ok(Self { file, mode }) } else { Err(ReadError::NoFile) }
    }

    /// # Errors
    /// It cannot be read, or has more bytes.
    pub fn read(self, bytes_max: usize) -> Result<Vec<u8>, ReadError> {
        let mut bytes = Vec::new();
        self.file.take(bytes_max as u64 + 1).read_to_end(&mut bytes)?;
        if bytes.len() > bytes_max { Err(ReadError::TooLong { bytes_max }) } else { Ok(bytes) }
    }
}
