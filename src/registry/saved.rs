//! What a registry holds, in a form that outlives it: for a file, and for the process that takes over. Producers are numbered, and
//! times are relative to the moment at which it was taken, so that they mean something to another clock.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::names::Name;
use super::producer::PeerInfo;

/// All of it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Saved {
    pub producers: Vec<SavedProducer>,
    pub topics: Vec<SavedTopic>,
}

/// A producer, which topics and channels name by its number.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SavedProducer {
    pub info: PeerInfo,
    /// `host:port` of its connection.
    pub remote_address: Box<str>,
    /// The time since its last PING.
    pub silence: Duration,
}

/// A topic.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SavedTopic {
    pub name: Name,
    /// False where its channels alone are left.
    pub is_listed: bool,
    pub expiry: SavedExpiry,
    /// The numbers of its producers, in order.
    pub producers: Vec<u32>,
    /// Producers that are tombstoned, and for how long they have been.
    pub tombstones: Vec<(u32, Duration)>,
    /// By name.
    pub channels: Vec<SavedChannel>,
}

/// A channel of a topic.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SavedChannel {
    pub name: Name,
    pub expiry: SavedExpiry,
    pub producers: SavedProducers,
}

/// The producers of a channel.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum SavedProducers {
    /// Those of its topic, which is so for most channels.
    All,
    /// These numbers, in order.
    Some(Vec<u32>),
}

/// When a name is forgotten.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub enum SavedExpiry {
    /// It has a producer, or is not forgotten without one.
    #[default]
    None,
    /// It was created over HTTP: never.
    Kept,
    /// After this time.
    After(Duration),
}
