//! Connections come in.

use std::io;
use std::net::SocketAddr;

use super::Worker;
use super::listeners::Wanted;
use crate::access::Reason;
use crate::admission::Admitted;
use crate::cause::Cause;
use crate::connection::{Connection, Session};
use crate::context::Stage;
use crate::io::{ListenerId, Request, Socket};
use crate::limits::{ACCEPT_BACKOFF, CONNECTIONS_MAX, Limit};
use crate::listen::{Listener, Protocol};
use crate::output::Output;
use crate::registry::{ProducerId, Source};
use crate::transport::Transport;
use crate::v1::CONNECTING;

impl Worker {
    pub(super) fn accepted(&mut self, listener: ListenerId, socket: Socket, peer: SocketAddr, armed: bool) {
        if !armed {
            self.accept_ended(listener, None);
        }
        // A listener for every interface is an IPv6 socket; stock shows the IPv4 peers as such.
        let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
        let Listener { service, ref transport, .. } = *self.listeners.get(listener);
        let transport = Transport::new(transport);
        self.context.counters.accepted[service as usize].increment();
        let is_nsqd = service.protocol() == Protocol::V1;
        let is_allowed = !is_nsqd || self.context.access.allows_nsqd(peer.ip());
        if is_nsqd && is_allowed {
            self.context.log.client(&peer).info(format_args!("TCP: new client({peer})"));
        }
        let next = self.slots.next();
        let id = ProducerId::new(Source::Worker(self.number), next.slot, next.generation);
        let session = Session::new(service, id, peer, next);
        let admission = &self.context.shared.admission;
        let (admitted, permit) =
            if is_allowed { admission.enter(peer.ip(), &self.context.limits) } else { admission.deny() };
        let output = Output::new(self.context.limits.size(Limit::OutputSize));
        let token = self.slots.insert(Connection::new(service, session, permit, transport, output));
        self.requests.push(Request::Open { token, socket });
        match admitted {
            // The producers of this process stay as they are: nsqd connects to the next one.
            Admitted::Welcome if is_nsqd && self.context.stage >= Stage::LeavingProducers => {
                self.shut_down(token, Cause::Shutdown);
            }
            Admitted::Welcome => {
                self.await_input(token);
                self.receive(token);
            }
            Admitted::Refused(limit) => self.refuse_over(token, limit),
            Admitted::Dropped(limit) => {
                self.context.exceeded(limit, peer);
                self.shut_down(token, Cause::Over(limit));
            }
            Admitted::Denied { with_error: true } => self.refuse_address(token),
            Admitted::Denied { with_error: false } => {
                self.context.denied(Reason::Address, peer, CONNECTING);
                self.shut_down(token, Cause::Denied);
            }
        }
    }

    pub(super) fn accept_ended(&mut self, listener: ListenerId, error: Option<io::Error>) {
        let mut until = self.context.now;
        if let Some(error) = error {
            until = until.after(ACCEPT_BACKOFF);
            self.context.counters.accept_failures[self.listeners.get(listener).service as usize].increment();
            if let Some(times) = self.context.shared.metrics.accept_failures_to_tell(self.context.now) {
                self.context.log.warn(format_args!(
                    "temporary Accept() failure - {error} (times since the last such line: {times})"
                ));
            }
        }
        self.listeners.accept_ended(listener, until);
    }

    /// Keeps accepting while there is room, and not otherwise.
    pub(super) fn request_accepts(&mut self) {
        let wanted = match &self.drain {
            Some(_) => Wanted::Close,
            None if self.is_pausing => Wanted::Pause,
            None if self.slots.len() < CONNECTIONS_MAX as usize => Wanted::Accept,
            None => Wanted::Pause,
        };
        self.listeners.request(wanted, self.context.now, &mut self.requests);
    }
}
