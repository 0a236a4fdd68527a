//! The vocabulary between the core and the kernel: plain data both ways.
//!
//! The worker asks with [`Request`]s and gets [`Event`]s; only a [`Driver`] turns them into system calls
//! and back, by [`uring`] or by [`epoll`]. A test can play the kernel, because nothing here knows either. Rules
//! both sides keep:
//! - A connection has at most one `Receive` and one `Send` under way. `Accept` and `Receive` last until an event
//!   says that they are over (`armed: false`, or one of that name); everything else is answered once.
//! - A buffer belongs to whoever holds it: it moves into the request and comes back in the event.
//! - A [`Socket`] becomes the driver's with `Open`; all other requests name its token. `Close` is the last of them, after
//!   everything else on it was answered.
//! - `ShutdownWrite` and `ShutdownBoth` take effect when they are submitted and are not answered. Both are plain
//!   system calls: the ring would run them on a kernel thread, which cannot be created at the process's thread limit.

pub mod availability;
mod buffers;
mod driver;
pub mod epoll;
mod idle;
mod operation;
mod receives;
mod sockets;
pub mod uring;
mod waker;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use bytes::Bytes;
pub use driver::{Backend, BackendChoice, Driver, ParseBackendChoiceError};
pub use idle::IdleRing;
pub use sockets::{Socket, detect_dead_peers};
pub use waker::Waker;

/// One of a driver's listening sockets, by its position among those that the driver was made with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ListenerId(pub u32);

impl ListenerId {
    /// The ids of as many listeners as are asked for.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..).map(Self)
    }

    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// A connection's place in its worker's slot table. The generation tells its users apart, so that a
/// completion that arrives too late is noticed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Token {
    pub slot: u32,
    /// Below [`Token::GENERATIONS`].
    pub generation: u32,
}

impl Token {
    /// Generations wrap here, so that a token fits a completion's 64 bits beside its operation.
    pub const GENERATIONS: u32 = 1 << 24;
}

/// What becomes of the connections that the kernel has queued for a listening socket that is closed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Queue {
    /// They are accepted first: the socket is this process's alone.
    Accept,
    /// They stay for whoever else has the socket.
    Leave,
}

/// The same sockets once more; they are none that were closed.
fn again<'a>(sockets: impl Iterator<Item = Option<&'a TcpListener>>) -> io::Result<Vec<TcpListener>> {
    sockets.map(|socket| socket.ok_or(io::ErrorKind::NotConnected)?.try_clone()).collect()
}

/// What the worker asks of the kernel.
#[derive(Debug)]
pub enum Request {
    /// Accept until further notice.
    Accept(ListenerId),
    /// Stop accepting; answered by `AcceptEnded`, in place of the accept.
    StopAccept(ListenerId),
    /// Close the listening socket. Answered by `ListenerClosed`, which also ends an accept that is under way.
    CloseListener {
        listener: ListenerId,
        queue: Queue,
    },
    /// Set how soon the kernel notices that the peer of a connection is gone, for connections that are accepted from now on;
    /// see [`detect_dead_peers`]. Not answered.
    DetectDeadPeers {
        within: Duration,
    },
    /// Take over the socket of a connection, whose token names it from now on.
    Open {
        token: Token,
        socket: Socket,
    },
    /// Receive until further notice.
    Receive {
        token: Token,
    },
    /// Stop receiving: the receive ends soon, and its end answers this.
    StopReceive {
        token: Token,
    },
    Send {
        token: Token,
        buffer: SendBuffer,
    },
    /// Send FIN after what was sent.
    ShutdownWrite {
        token: Token,
    },
    /// Send FIN and receive no more: a receive and a send under way are over soon.
    ShutdownBoth {
        token: Token,
    },
    Close {
        token: Token,
    },
}

/// What the kernel tells the worker.
#[derive(Debug)]
pub enum Event<'a> {
    Accepted {
        listener: ListenerId,
        socket: Socket,
        peer: SocketAddr,
        armed: bool,
    },
    /// The accept is over, and the error, if there is one, says why.
    AcceptEnded {
        listener: ListenerId,
        error: Option<io::Error>,
    },
    /// Bytes in a buffer that is the kernel's again when the worker has looked at them.
    Received {
        token: Token,
        bytes: &'a [u8],
        armed: bool,
    },
    ReceiveEnded {
        token: Token,
        end: ReceiveEnd,
    },
    /// The buffer comes back as it went, with the number of its bytes that were taken.
    Sent {
        token: Token,
        buffer: SendBuffer,
        sent: io::Result<usize>,
    },
    /// The listening socket is closed; every connection that was in its queue has been accepted, if that was asked for.
    ListenerClosed(ListenerId),
    Closed {
        token: Token,
    },
    /// A [`Waker`] has been used, once or several times. This may come once more than is needed.
    Woken,
}

/// Why a receive is over.
#[derive(Debug)]
pub enum ReceiveEnd {
    /// The peer will send no more.
    Eof,
    /// All receive buffers were in use: receive again, they are back with the next iteration.
    NoBuffers,
    /// As asked by `StopReceive`.
    Stopped,
    Failed(io::Error),
}

/// Bytes on their way out, in one piece or several, and how many of the first piece are out already.
#[derive(Debug)]
pub struct SendBuffer {
    bytes: SendBytes,
    start: usize,
}

#[derive(Debug)]
enum SendBytes {
    Owned(Vec<u8>),
    /// Shared with others. None of the pieces is empty.
    Pieces(std::vec::IntoIter<Bytes>),
}

impl From<Vec<u8>> for SendBuffer {
    fn from(bytes: Vec<u8>) -> Self {
        Self { bytes: SendBytes::Owned(bytes), start: 0 }
    }
}

impl From<Bytes> for SendBuffer {
    fn from(bytes: Bytes) -> Self {
        Self::from(vec![bytes])
    }
}

impl From<Vec<Bytes>> for SendBuffer {
    /// The pieces go out one behind the other.
    fn from(mut pieces: Vec<Bytes>) -> Self {
        pieces.retain(|piece| !piece.is_empty());
        Self { bytes: SendBytes::Pieces(pieces.into_iter()), start: 0 }
    }
}

impl SendBuffer {
    /// What is still to be sent, as far as it lies in one piece; empty when all is out.
    pub fn rest(&self) -> &[u8] {
        self.pieces().next().unwrap_or_default()
    }

    /// What is still to be sent, in the pieces that it lies in.
    pub fn pieces(&self) -> impl Iterator<Item = &[u8]> {
        let (owned, shared) = match &self.bytes {
            SendBytes::Owned(bytes) => (Some(&bytes[..]), &[][..]),
            SendBytes::Pieces(pieces) => (None, pieces.as_slice()),
        };
        let mut start = self.start;
        let pieces = owned.into_iter().chain(shared.iter().map(|piece| &piece[..]));
        pieces.map(move |piece| &piece[std::mem::take(&mut start)..])
    }

    /// Notes that so many bytes are out.
    ///
    /// # Panics
    /// When there were not so many.
    pub fn advance(&mut self, sent: usize) {
        self.start += sent;
        match &mut self.bytes {
            SendBytes::Owned(bytes) => {
                assert!(self.start <= bytes.len(), "the kernel sends no more than it was given");
            }
            SendBytes::Pieces(pieces) => {
                while let Some(piece) = pieces.as_slice().first()
                    && self.start >= piece.len()
                {
                    self.start -= piece.len();
                    pieces.next();
                }
                assert!(self.start == 0 || pieces.len() > 0, "the kernel sends no more than it was given");
            }
        }
    }

    /// The vector, for reuse, when it was owned.
    pub fn into_owned(self) -> Option<Vec<u8>> {
        match self.bytes {
            SendBytes::Owned(bytes) => Some(bytes),
            SendBytes::Pieces(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_go_out_one_behind_the_other() {
        let pieces = ["ab", "", "cde", "f"].map(|piece| Bytes::from_static(piece.as_bytes()));
        for step in 1..=6 {
            let mut buffer = SendBuffer::from(pieces.to_vec());
            let mut sent = 0;
            while !buffer.rest().is_empty() {
                assert_eq!(buffer.pieces().collect::<Vec<_>>().concat(), b"abcdef"[sent..]);
                let len = step.min(6 - sent);
                buffer.advance(len);
                sent += len;
            }
            assert_eq!(sent, 6);
        }
    }
}
