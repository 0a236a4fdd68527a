//! The state on disk is what was saved, and every version of it can be read.

mod versions;
mod world;
