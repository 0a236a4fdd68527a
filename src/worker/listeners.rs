//! A worker's listening sockets: when to accept, when to pause, when to close.

use crate::clock::Timestamp;
use crate::io::{ListenerId, Queue, Request};
use crate::listen::Listener;

/// The worker's sockets, one for each listener of the server, by [`ListenerId`].
pub(super) struct Listeners(Vec<Socket>);

struct Socket {
    listener: Listener,
    state: State,
}

/// What the worker wants of all its listening sockets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Wanted {
    Accept,
    /// More connections are to wait in the kernel's queue.
    Pause,
    /// The server stops.
    Close,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// A multishot accept is under way.
    Armed,
    /// Armed, and asked to stop.
    Stopping,
    /// To be armed again, not before this time.
    Resting {
        until: Timestamp,
    },
    /// Asked to close.
    Closing,
    Closed,
}

impl Listeners {
    /// Sockets that will accept from `now` on.
    pub(super) fn new(listeners: &[Listener], now: Timestamp) -> Self {
        let socket =
            |listener: &Listener| Socket { listener: listener.clone(), state: State::Resting { until: now } };
        Self(listeners.iter().map(socket).collect())
    }

    /// The listener of a socket.
    pub(super) fn get(&self, id: ListenerId) -> &Listener {
        &self.0[id.index()].listener
    }

    /// Notes that an accept is over, and when the next may begin.
    pub(super) fn accept_ended(&mut self, id: ListenerId, until: Timestamp) {
        let state = &mut self.0[id.index()].state;
        if matches!(state, State::Armed | State::Stopping) {
            *state = State::Resting { until };
        }
    }

    /// Notes that a socket is closed.
    pub(super) fn closed(&mut self, id: ListenerId) {
        self.0[id.index()].state = State::Closed;
    }

    /// Whether no accept is under way.
    pub(super) fn are_resting(&self) -> bool {
        self.0.iter().all(|socket| matches!(socket.state, State::Resting { .. }))
    }

    /// From now on the sockets are another process's, too: when they close, what waits in their queues is left to it.
    pub(super) fn share_queues(&mut self) {
        for socket in &mut self.0 {
            socket.listener.queue = Queue::Leave;
        }
    }

    pub(super) fn are_closed(&self) -> bool {
        self.0.iter().all(|socket| socket.state == State::Closed)
    }

    /// Appends what is to be asked of the kernel.
    pub(super) fn request(&mut self, wanted: Wanted, now: Timestamp, requests: &mut Vec<Request>) {
        for (id, socket) in ListenerId::all().zip(&mut self.0) {
            let (next, request) = match (socket.state, wanted) {
                (State::Resting { until }, Wanted::Accept) if now >= until => (State::Armed, Request::Accept(id)),
                (State::Armed, Wanted::Pause) => (State::Stopping, Request::StopAccept(id)),
                (State::Armed | State::Stopping | State::Resting { .. }, Wanted::Close) => {
                    (State::Closing, Request::CloseListener { listener: id, queue: socket.listener.queue })
                }
                _ => continue,
            };
            socket.state = next;
            requests.push(request);
        }
    }

    /// When the first of the sockets that rest is to be armed again.
    pub(super) fn next_accept(&self, now: Timestamp) -> Option<Timestamp> {
        let rests = self.0.iter().filter_map(|socket| match socket.state {
            State::Resting { until } if until > now => Some(until),
            _ => None,
        });
        rests.min()
    }
}
