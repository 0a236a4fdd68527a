//! A listening socket under epoll.

use std::io;
use std::net::TcpListener;

use rustix::net::SocketFlags;

use super::super::sockets::accept;
use super::super::{Event, ListenerId};

pub(super) struct Listener {
    /// `None` once it is closed.
    pub(super) socket: Option<TcpListener>,
    pub(super) armed: bool,
    /// It is to be closed when its queue is empty.
    pub(super) closing: bool,
    /// An edge came, and no accept has found the queue empty since.
    pub(super) waiting: bool,
    /// How many accepts it has before the next [`Epoll::wait`](super::Epoll::wait).
    pub(super) due: u32,
}

impl Listener {
    pub(super) fn new(socket: TcpListener) -> Self {
        Self { socket: Some(socket), armed: false, closing: false, waiting: false, due: 0 }
    }

    /// Accepts from now on. Another process may have used the socket by the ring, which has it blocking.
    pub(super) fn arm(&mut self) -> io::Result<()> {
        self.socket.as_ref().expect("nothing is accepted after the close").set_nonblocking(true)?;
        self.armed = true;
        Ok(())
    }

    pub(super) fn accept(&mut self, id: ListenerId) -> Option<Event<'static>> {
        while self.armed && self.waiting && self.due > 0 {
            self.due -= 1;
            let socket = self.socket.as_ref().expect("accepts are over when it is closed");
            match accept(socket, SocketFlags::NONBLOCK) {
                Ok(Some((socket, peer))) => {
                    return Some(Event::Accepted { listener: id, socket, peer, armed: true });
                }
                // Without descriptors the queue cannot be emptied: the close resets the rest of it.
                Ok(None) | Err(_) if self.closing => {
                    self.armed = false;
                    self.socket = None;
                    return Some(Event::ListenerClosed(id));
                }
                Ok(None) => self.waiting = false,
                Err(error) => {
                    self.armed = false;
                    return Some(Event::AcceptEnded { listener: id, error: Some(error.into()) });
                }
            }
        }
        None
    }
}
