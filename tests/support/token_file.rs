//! A file of tokens for a server under test.

use std::fs;

use tempfile::NamedTempFile;

/// A file that only its owner can read, and its flag. It is removed with the first.
pub fn token_file(text: &str) -> (NamedTempFile, String) {
    let file = NamedTempFile::new().expect("a file");
    fs::write(file.path(), text).expect("space for a file");
    let flag = format!("-auth-token-file={}", file.path().display());
    (file, flag)
}
