//! The two ways into the kernel, and which of them serves.

use std::io;
use std::net::TcpListener;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use super::epoll::{self, Epoll};
use super::uring::Ring;
use super::{Event, IdleRing, Request, Waker};

/// What the operator allows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BackendChoice {
    /// io_uring, or epoll where there is none.
    Auto,
    Only(Backend),
}

/// How a worker asks the kernel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Backend {
    Uring,
    Epoll,
}

impl Backend {
    /// The name that the kernel's manual pages have for it.
    #[must_use]
    pub fn full_name(self) -> &'static str {
        match self {
            Self::Uring => "io_uring",
            Self::Epoll => "epoll",
        }
    }
}

impl BackendChoice {
    /// Every choice.
    pub const ALL: [Self; 3] = [Self::Auto, Self::Only(Backend::Uring), Self::Only(Backend::Epoll)];

    /// The name that the flag and the file take.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Only(Backend::Uring) => "uring",
            Self::Only(Backend::Epoll) => "epoll",
        }
    }
}

/// A text that is no choice's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParseBackendChoiceError;

impl FromStr for BackendChoice {
    type Err = ParseBackendChoiceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|choice| choice.name() == text).ok_or(ParseBackendChoiceError)
    }
}

/// One worker's backend.
pub enum Driver {
    Ring(Box<Ring>),
    Epoll(Box<Epoll>),
}

impl Driver {
    /// On the ring, or with epoll without one. A [`ListenerId`](super::ListenerId) is the position of one of `listeners`; `waker` ends a [`Driver::wait`]. For
    /// `busy_poll` it polls before it lets the thread sleep.
    pub fn new(
        ring: Option<IdleRing>,
        listeners: Vec<TcpListener>,
        waker: Arc<Waker>,
        busy_poll: Duration,
    ) -> io::Result<Self> {
        match ring {
            Some(ring) => Ring::new(ring, listeners, waker, busy_poll).map(|ring| Self::Ring(Box::new(ring))),
            None => Epoll::new(listeners, waker, epoll::Sizes::default(), busy_poll)
                .map(|epoll| Self::Epoll(Box::new(epoll))),
        }
    }

    /// Asks for something. It is under way by the next [`Driver::wait`].
    pub fn submit(&mut self, request: Request) -> io::Result<()> {
        match self {
            Self::Ring(ring) => ring.submit(request),
            Self::Epoll(epoll) => {
                epoll.submit(request);
                Ok(())
            }
        }
    }

    /// Makes up for what the kernel has lost, if it loses anything. To be called once a tick.
    pub fn sweep(&mut self) -> io::Result<()> {
        match self {
            Self::Ring(ring) => ring.sweep(),
            Self::Epoll(_) => Ok(()),
        }
    }

    /// Waits until something happens, but not for longer than `timeout`.
    pub fn wait(&mut self, timeout: Duration) -> io::Result<()> {
        match self {
            Self::Ring(ring) => ring.wait(timeout),
            Self::Epoll(epoll) => epoll.wait(timeout),
        }
    }

    /// The bytes that the coming events will show, of a driver that has them already.
    pub fn received(&self) -> impl Iterator<Item = &[u8]> {
        let ring = match self {
            Self::Ring(ring) => Some(&**ring),
            // It receives when it is asked for the event.
            Self::Epoll(_) => None,
        };
        ring.into_iter().flat_map(Ring::received)
    }

    /// The listening sockets once more, for another process, in the order of the listeners.
    ///
    /// # Errors
    /// One of them cannot be duplicated, or is closed.
    pub fn sockets(&self) -> io::Result<Vec<TcpListener>> {
        match self {
            Self::Ring(ring) => ring.sockets(),
            Self::Epoll(epoll) => epoll.sockets(),
        }
    }

    /// What happened next, of all that had happened when [`Driver::wait`] returned.
    pub fn next_event(&mut self) -> Option<Event<'_>> {
        match self {
            Self::Ring(ring) => ring.next_event(),
            Self::Epoll(epoll) => epoll.next_event(),
        }
    }
}
