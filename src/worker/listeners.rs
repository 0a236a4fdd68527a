//! A worker's listening sockets: when to accept, when to pause, when to close.

use crate::clock::Timestamp;
use crate::io::{Request, Service};

/// The state of each listening socket.
pub(super) struct Listeners([State; Service::ALL.len()]);

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
    pub(super) fn new(now: Timestamp) -> Self {
        Self([State::Resting { until: now }; Service::ALL.len()])
    }

    /// Notes that an accept is over, and when the next may begin.
    pub(super) fn accept_ended(&mut self, service: Service, until: Timestamp) {
        let state = &mut self.0[service as usize];
        if matches!(state, State::Armed | State::Stopping) {
            *state = State::Resting { until };
        }
    }

    /// Notes that a socket is closed.
    pub(super) fn closed(&mut self, service: Service) {
        self.0[service as usize] = State::Closed;
    }

    pub(super) fn are_closed(&self) -> bool {
        self.0 == [State::Closed; Service::ALL.len()]
    }

    /// Appends what is to be asked of the kernel.
    pub(super) fn request(&mut self, wanted: Wanted, now: Timestamp, requests: &mut Vec<Request>) {
        for (service, state) in Service::ALL.into_iter().zip(&mut self.0) {
            let (next, request) = match (*state, wanted) {
                (State::Resting { until }, Wanted::Accept) if now >= until => {
                    (State::Armed, Request::Accept(service))
                }
                (State::Armed, Wanted::Pause) => (State::Stopping, Request::StopAccept(service)),
                (State::Armed | State::Stopping | State::Resting { .. }, Wanted::Close) => {
                    (State::Closing, Request::CloseListener(service))
                }
                _ => continue,
            };
            *state = next;
            requests.push(request);
        }
    }

    /// When the first of the sockets that rest is to be armed again.
    pub(super) fn next_accept(&self, now: Timestamp) -> Option<Timestamp> {
        let rests = self.0.iter().filter_map(|state| match *state {
            State::Resting { until } if until > now => Some(until),
            _ => None,
        });
        rests.min()
    }
}
