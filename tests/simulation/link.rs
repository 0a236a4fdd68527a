//! One TCP connection as both of its ends see it.

use std::collections::VecDeque;

use ringlookupd::listen::Protocol;

/// The pipe in both directions, and what became of its ends.
pub struct Link {
    pub protocol: Protocol,
    pub client: ClientEnd,
    /// Sent by the client, not yet received.
    pub upload: VecDeque<u8>,
    /// Bytes that the worker has been given.
    pub uploaded: usize,
    /// The same before it ended its side.
    pub accepted: usize,
    /// Where in the upload the client owes nothing: between commands, between requests.
    pub boundaries: Vec<usize>,
    /// Sent by the worker, not yet read by the client.
    pub download: VecDeque<u8>,
    /// The most that `download` holds.
    pub window: usize,
    pub server: ServerEnd,
    /// The worker knows that the client has ended the connection, and its turn is over.
    pub gone: bool,
    /// An error, or the worker before its FIN, has ended the connection.
    pub cut: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ClientEnd {
    Open,
    /// It has sent FIN.
    Finished,
    Reset,
    /// Its host is gone without a word.
    Vanished,
}

/// What the worker has asked for; it never goes back.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Debug)]
pub enum ServerEnd {
    Open,
    /// FIN.
    Finished,
    /// The end of both directions.
    Aborted,
    Closed,
}

impl Link {
    pub fn new(protocol: Protocol, boundaries: Vec<usize>, window: usize) -> Self {
        Self {
            protocol,
            client: ClientEnd::Open,
            upload: VecDeque::new(),
            uploaded: 0,
            accepted: 0,
            boundaries,
            download: VecDeque::new(),
            window,
            server: ServerEnd::Open,
            gone: false,
            cut: false,
        }
    }

    /// Whether the client has begun something that is not whole at the worker.
    pub fn owes_more(&self) -> bool {
        self.uploaded > 0 && self.boundaries.binary_search(&self.uploaded).is_err()
    }

    /// Whether the client has read all that will ever come.
    pub fn is_at_end(&self) -> bool {
        self.download.is_empty() && self.server != ServerEnd::Open
    }
}
