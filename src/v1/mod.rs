//! The protocol that nsqd speaks: a magic, then command lines, one of which brings a JSON body.

mod error;
mod identify;
mod parse;
mod session;

pub use session::Session;
