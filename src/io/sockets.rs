//! Accepted sockets, owned by the driver from its `Open` to its `Close`.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{Shutdown, SocketFlags, acceptfrom_with, shutdown};

use socket2::{SockRef, TcpKeepalive};

use super::Token;
use crate::limits::{KEEPALIVE_PERIOD_MAX, KEEPALIVE_PERIOD_MIN, KEEPALIVE_PROBES, USER_TIMEOUT_MAX};

/// An accepted connection's descriptor. Dropping it closes the connection.
#[derive(Debug)]
pub struct Socket(OwnedFd);

impl From<OwnedFd> for Socket {
    fn from(descriptor: OwnedFd) -> Self {
        Self(descriptor)
    }
}

impl From<Socket> for OwnedFd {
    fn from(socket: Socket) -> Self {
        socket.0
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// A driver's sockets, by slot. Requests name a token, so nobody else can use or close a descriptor.
#[derive(Default)]
pub(super) struct Sockets(Vec<Option<(u32, Socket)>>);

impl Sockets {
    /// # Panics
    /// When the slot is taken: a slot is reused only after its close.
    pub(super) fn open(&mut self, token: Token, socket: Socket) {
        let slot = token.slot as usize;
        if self.0.len() <= slot {
            self.0.resize_with(slot + 1, || None);
        }
        let before = self.0[slot].replace((token.generation, socket));
        assert!(before.is_none(), "a slot is reused only after its close");
    }

    /// # Panics
    /// When there is no socket of this token: it is named after its close.
    #[inline]
    pub(super) fn get(&self, token: Token) -> BorrowedFd<'_> {
        match &self.0[token.slot as usize] {
            Some((generation, socket)) if *generation == token.generation => socket.as_fd(),
            _ => panic!("a socket is named only between its open and its close"),
        }
    }

    /// # Panics
    /// As [`Sockets::get`].
    pub(super) fn close(&mut self, token: Token) -> Socket {
        self.get(token);
        let (_, socket) = self.0[token.slot as usize].take().expect("it is there");
        socket
    }
}

/// Takes the next connection from the queue of a non-blocking listening socket; `None` when the queue is empty. epoll
/// needs non-blocking connections, the ring blocking ones: it fails what would block instead of waiting for it.
///
/// # Errors
/// Those of accept(2) that concern the process, such as EMFILE.
pub(super) fn accept(listener: &TcpListener, flags: SocketFlags) -> Result<Option<(Socket, SocketAddr)>, Errno> {
    loop {
        match acceptfrom_with(listener, flags | SocketFlags::CLOEXEC) {
            Ok((connection, peer)) => {
                // A connection that was reset in the queue has no address: it is closed here.
                if let Some(peer) = peer.and_then(|peer| SocketAddr::try_from(peer).ok()) {
                    return Ok(Some((Socket(connection), peer)));
                }
            }
            Err(Errno::AGAIN) => return Ok(None),
            // CONNABORTED: one connection failed in the queue (accept(2)).
            Err(Errno::CONNABORTED | Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
}

/// Sets how soon the kernel notices that a peer has vanished, on a listening socket whose connections inherit it: one that
/// is silent by keepalive probes, one that does not acknowledge what it is sent by the user timeout. [`Duration::MAX`]
/// leaves both to the kernel.
///
/// # Errors
/// Those of setsockopt(2).
pub fn detect_dead_peers<'a>(socket: impl Into<SockRef<'a>>, within: Duration) -> io::Result<()> {
    let socket = socket.into();
    if within == Duration::MAX {
        socket.set_keepalive(false)?;
        return socket.set_tcp_user_timeout(None);
    }
    // The first probe after one period, and the end one period after the last. For the default these are Go's.
    let period = (within / (KEEPALIVE_PROBES + 1)).clamp(KEEPALIVE_PERIOD_MIN, KEEPALIVE_PERIOD_MAX);
    let keepalive = TcpKeepalive::new().with_time(period).with_interval(period).with_retries(KEEPALIVE_PROBES);
    socket.set_tcp_keepalive(&keepalive)?;
    socket.set_tcp_user_timeout(Some(within.clamp(Duration::from_millis(1), USER_TIMEOUT_MAX)))
}

/// Ends one direction of a connection, or both.
pub(super) fn shut_down(socket: impl AsFd, how: Shutdown) {
    // Refused when the peer has reset the connection, which leaves nothing to shut down.
    let _ = shutdown(socket, how);
}
