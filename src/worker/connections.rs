//! A connection from its first byte to its close: input, output, and the phases in which it ends.

use std::io;

use super::Worker;
use crate::cause::Cause;
use crate::clock::Timestamp;
use crate::connection::{Phase, Receive};
use crate::io::{ReceiveEnd, Request, SendBuffer, Token};
use crate::limits::{LINGER, Limit, SPARE_BUFFER_BYTES_MAX, SPARE_BUFFERS_MAX};

impl Worker {
    pub(super) fn received(&mut self, token: Token, bytes: &[u8], armed: bool) {
        let connection = self.slots.get(token);
        connection.has_unread = false;
        if !armed {
            connection.receive = Receive::Idle;
        }
        self.take_input(token, bytes);
    }

    pub(super) fn receive_ended(&mut self, token: Token, end: &ReceiveEnd) {
        let connection = self.slots.get(token);
        connection.has_unread = matches!(end, ReceiveEnd::NoBuffers);
        match end {
            ReceiveEnd::NoBuffers => {
                connection.receive = Receive::Idle;
                self.context.counters.no_buffers.increment();
            }
            ReceiveEnd::Stopped => connection.receive = Receive::Idle,
            ReceiveEnd::Eof => {
                connection.receive = Receive::Eof;
                return self.take_input(token, &[]);
            }
            ReceiveEnd::Failed(error) => {
                connection.receive = Receive::Eof;
                // The second where the peer's network says that it is gone.
                if matches!(error.kind(), io::ErrorKind::TimedOut | io::ErrorKind::HostUnreachable) {
                    self.context.exceeded(Limit::DeadPeerTimeout, connection.session.peer());
                }
                self.shut_down(token, Cause::Receive(error));
            }
        }
        self.mark(token);
    }

    pub(super) fn sent(&mut self, token: Token, mut buffer: SendBuffer, sent: io::Result<usize>) {
        let connection = self.slots.get(token);
        connection.sending = false;
        match sent {
            Ok(sent) => buffer.advance(sent),
            Err(error) => self.shut_down(token, Cause::Send(&error)),
        }
        let connection = self.slots.get(token);
        if !buffer.rest().is_empty() && connection.phase != Phase::ShutDown {
            return self.send(token, buffer);
        }
        if let Some(buffer) = buffer.into_owned() {
            self.keep_spare(buffer);
        }
        let connection = self.slots.get(token);
        if connection.session.is_parked() {
            // It may have missed something meanwhile.
            self.wake(token);
        }
        let connection = self.slots.get(token);
        if connection.input.is_empty() && connection.receive != Receive::Eof {
            self.await_input(token);
            self.mark(token);
        } else {
            // Room for more replies: what waited for it goes on.
            self.take_input(token, &[]);
        }
    }

    pub(super) fn take_input(&mut self, token: Token, bytes: &[u8]) {
        let connection = self.slots.get(token);
        if connection.phase == Phase::Open {
            if connection.transport.is_handshaking()
                && self.handshakes.hold(token, &mut connection.transport, bytes)
            {
                return self.mark(token);
            }
            connection.output.lend(|| self.spare.pop().unwrap_or_default());
            connection.take_input(bytes, &mut self.context);
            self.settle_output(token);
            self.await_input(token);
        }
        self.mark(token);
    }

    /// After a session has been at work: takes back a buffer that it did not need, and sets its timer.
    pub(super) fn settle_output(&mut self, token: Token) {
        let connection = self.slots.get(token);
        let wakes_at = connection.session.wakes_at(&self.context.lifetimes);
        if let Some(buffer) = connection.output.reclaim() {
            self.keep_spare(buffer);
        }
        self.timers.set(token.slot, wakes_at);
    }

    pub(super) fn mark(&mut self, token: Token) {
        let connection = self.slots.get(token);
        if !connection.dirty {
            connection.dirty = true;
            self.dirty.push(token);
        }
    }

    /// Requests what the connections need that something has happened to.
    pub(super) fn respond(&mut self) {
        while let Some(token) = self.dirty.pop() {
            self.progress(token);
        }
    }

    /// Asks for whatever a connection needs next.
    fn progress(&mut self, token: Token) {
        let connection = self.slots.get(token);
        connection.dirty = false;
        if connection.output.is_full() && !connection.input.is_empty() && connection.receive == Receive::Armed {
            self.context.exceeded(Limit::OutputSize, connection.session.peer());
        }
        if !connection.sending
            && matches!(connection.phase, Phase::Open | Phase::Flushing)
            && let Some(buffer) = connection.next_buffer()
        {
            self.send(token, buffer);
        }
        let connection = self.slots.get(token);
        match connection.phase {
            Phase::Open if connection.is_behind() => self.stop_receiving(token),
            Phase::Open | Phase::Lingering => self.receive(token),
            Phase::Flushing => {
                if !connection.sending && !connection.has_output() {
                    self.linger(token);
                } else {
                    self.receive(token);
                }
            }
            Phase::ShutDown | Phase::Closing => {}
        }
        let connection = self.slots.get(token);
        let over = match connection.phase {
            Phase::Lingering => connection.receive == Receive::Eof,
            Phase::ShutDown => true,
            Phase::Open | Phase::Flushing | Phase::Closing => false,
        };
        if over && connection.is_quiet() {
            connection.phase = Phase::Closing;
            self.requests.push(Request::Close { token });
        }
    }

    fn send(&mut self, token: Token, buffer: SendBuffer) {
        let connection = self.slots.get(token);
        connection.sending = true;
        connection.awaited = Some(Limit::OutputTimeout);
        self.requests.push(Request::Send { token, buffer });
        self.expect_within(token, self.context.limits.time(Limit::OutputTimeout));
    }

    pub(super) fn receive(&mut self, token: Token) {
        let connection = self.slots.get(token);
        if connection.receive == Receive::Idle {
            connection.receive = Receive::Armed;
            self.requests.push(Request::Receive { token });
        }
    }

    /// Backpressure: no more is read than was asked about.
    fn stop_receiving(&mut self, token: Token) {
        let connection = self.slots.get(token);
        if connection.receive == Receive::Armed {
            connection.receive = Receive::Stopping;
            self.requests.push(Request::StopReceive { token });
            self.context.counters.receives_stopped.increment();
        }
    }

    /// Ends the protocol with an error that says why; the connection ends when that is sent.
    pub(super) fn refuse_over(&mut self, token: Token, limit: Limit) {
        self.slots.get(token).refuse_over(limit, &mut self.context);
        self.mark(token);
    }

    /// The same for a client whose address may not connect.
    pub(super) fn refuse_address(&mut self, token: Token) {
        self.slots.get(token).refuse_address(&mut self.context);
        self.mark(token);
    }

    fn linger(&mut self, token: Token) {
        self.expect_within(token, LINGER);
        let connection = self.slots.get(token);
        connection.phase = Phase::Lingering;
        connection.awaited = None;
        if connection.receive == Receive::Eof {
            return;
        }
        self.requests.push(Request::ShutdownWrite { token });
        self.receive(token);
    }

    /// Ends both directions of a connection at once: its peer is gone or out of time, or is owed nothing.
    pub(super) fn shut_down(&mut self, token: Token, cause: Cause<'_>) {
        let connection = self.slots.get(token);
        if matches!(connection.phase, Phase::ShutDown | Phase::Closing) {
            return;
        }
        connection.flush(cause, &mut self.context);
        connection.phase = Phase::ShutDown;
        connection.deadline = Timestamp::MAX;
        self.requests.push(Request::ShutdownBoth { token });
        self.mark(token);
    }

    fn keep_spare(&mut self, mut buffer: Vec<u8>) {
        if self.spare.len() < SPARE_BUFFERS_MAX && buffer.capacity() <= SPARE_BUFFER_BYTES_MAX {
            buffer.clear();
            self.spare.push(buffer);
        }
    }

    pub(super) fn closed(&mut self, token: Token) {
        self.timers.cancel(token.slot);
        let connection = self.slots.remove(token);
        assert_eq!(connection.phase, Phase::Closing, "closed when asked to");
        self.context.counters.closed[connection.service as usize].increment();
    }
}
