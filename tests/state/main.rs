//! The state on disk survives whatever happens to the process and its disk. What is read after the end of the process at
//! any operation, a loss of power included, is the last state that was written or the one that was being written, whole; a
//! damaged file is set aside and the one before is read; a disk that is full costs nothing but a warning.
//!
//! `RINGLOOKUPD_SEEDS=n` plays so many lives of a server, `RINGLOOKUPD_SEED=n` that one alone.

mod corruption;
mod disk;
mod kills;
mod locks;
mod saving;
mod versions;
mod world;
