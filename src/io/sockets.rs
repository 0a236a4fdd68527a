//! The system calls on sockets that both backends make the same way.
#![expect(unsafe_code, reason = "sockets are raw descriptors in the vocabulary")]

use std::net::{SocketAddr, TcpListener};
use std::os::fd::{BorrowedFd, IntoRawFd};

use rustix::io::Errno;
use rustix::net::{Shutdown, SocketFlags, acceptfrom_with, shutdown};

use super::Socket;

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
                    return Ok(Some((Socket(connection.into_raw_fd()), peer)));
                }
            }
            Err(Errno::AGAIN) => return Ok(None),
            // CONNABORTED: one connection failed in the queue (accept(2)).
            Err(Errno::CONNABORTED | Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
}

/// Ends one direction of a connection, or both.
pub(super) fn shut_down(socket: Socket, how: Shutdown) {
    // Refused when the peer has reset the connection, which leaves nothing to shut down.
    let _ = shutdown(open(&socket), how);
}

/// The descriptor of a socket.
pub(super) fn open(socket: &Socket) -> BorrowedFd<'_> {
    // SAFETY: a socket is open from its `Accepted` until its `Close`, which is the last request that names it.
    unsafe { BorrowedFd::borrow_raw(socket.0) }
}
