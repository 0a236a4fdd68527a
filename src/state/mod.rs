//! The registry on disk, so that a restart loses nothing.
//!
//! - [`format`]: the bytes of a state, and [`decode`]; `check`: what the registry can rely on when they were read.
//! - `stamp`: that the process was alive, and how silent each producer was.

mod check;
pub mod format;
mod stamp;

pub use format::{Decoded, Encoder, FormatError, Written, decode, encode};
pub use stamp::Stamp;
