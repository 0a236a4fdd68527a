//! The protocol that nsqd speaks: a magic, then command lines, one of which brings a JSON body.

pub mod error;
pub mod identify;
pub mod parse;
mod session;

pub use session::{CONNECTING, Session};
