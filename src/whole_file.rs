//! Files that an operator writes and the server reads as a whole: the tokens, the topology, the user of etcd.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};

/// A file that is open.
pub struct WholeFile(File);

/// Bits of a secret file's mode that must not be set: others may not read it, and only its owner may write.
const UNSAFE_MODE: u32 = 0o027;

/// Why a file cannot be read. But for the first, the text goes on behind the name of the file.
#[derive(Debug)]
pub enum ReadError {
    Io(io::Error),
    /// It is a folder or a device, say.
    NoFile,
    /// Others may read a secret, or somebody else than its owner may write it.
    Mode(u32),
    TooLong {
        bytes_max: usize,
    },
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => error.fmt(f),
            Self::NoFile => f.write_str("is no file"),
            Self::Mode(mode) => write!(
                f,
                "has mode {mode:04o}: others must not read it, nor anybody but its owner write; use 0640 or 0600"
            ),
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
        if file.metadata()?.is_file() { Ok(Self(file)) } else { Err(ReadError::NoFile) }
    }

    /// Opens a file with a secret, which others must not be able to read.
    ///
    /// # Errors
    /// As [`Self::open`], and they can.
    pub fn open_secret(path: &str) -> Result<Self, ReadError> {
        let file = Self::open(path)?;
        let mode = file.0.metadata()?.permissions().mode() & 0o7777;
        if mode & UNSAFE_MODE == 0 { Ok(file) } else { Err(ReadError::Mode(mode)) }
    }

    /// # Errors
    /// It cannot be read, or has more bytes.
    pub fn read(self, bytes_max: usize) -> Result<Vec<u8>, ReadError> {
        let mut bytes = Vec::new();
        self.0.take(bytes_max as u64 + 1).read_to_end(&mut bytes)?;
        if bytes.len() > bytes_max { Err(ReadError::TooLong { bytes_max }) } else { Ok(bytes) }
    }
}
