//! The client sides of both protocols, written from NSQ's documents and stock's source, and stricter than a client
//! need be: what no nsqlookupd sends is a wrong answer here.

mod connection;
pub mod events;
pub mod http;
pub mod v1;

pub use connection::{Connection, Link};

/// Why bytes are not what the protocol allows.
#[derive(Debug, PartialEq, Eq)]
pub struct Malformed(pub String);

impl std::fmt::Display for Malformed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}
