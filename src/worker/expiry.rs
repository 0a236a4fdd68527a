//! Deadlines of connections, and producers that fall silent.

use std::time::Duration;

use super::Worker;
use crate::cause::Cause;
use crate::clock::Timestamp;
use crate::io::Token;
use crate::limits::Limit;

impl Worker {
    /// Sets the time that the peer has for what it owes. While it has something to read, another clock runs.
    pub(super) fn await_input(&mut self, token: Token) {
        let connection = self.slots.get(token);
        if !connection.is_waiting() {
            return;
        }
        let awaited = connection.session.awaited(&connection.input);
        // These count from the accept and from the first byte: another byte that completes nothing does not move
        // them.
        let from_its_begin = matches!(awaited, Some(Limit::HandshakeTimeout | Limit::RequestTimeout));
        if !(from_its_begin && connection.awaited == awaited) {
            connection.awaited = awaited;
            let patience = awaited.map_or(Duration::MAX, |limit| self.context.limits.time(limit));
            self.expect_within(token, patience);
        }
    }

    pub(super) fn expect_within(&mut self, token: Token, patience: Duration) {
        let deadline = self.context.now.after(patience);
        self.slots.get(token).deadline = deadline;
        self.next_deadline = self.next_deadline.min(deadline);
    }

    /// Ends what is out of time, and finds out when that is to be looked for again.
    pub(super) fn expire(&mut self) {
        let until = self.received_until;
        if until <= self.next_deadline {
            return;
        }
        let overdue = self.slots.tokens(|connection| connection.deadline < until);
        self.next_deadline = self.slots.earliest_deadline(until);
        for token in overdue {
            let connection = self.slots.get(token);
            match connection.awaited {
                Some(limit) if connection.is_waiting() => self.refuse_over(token, limit),
                Some(limit) => {
                    self.context.exceeded(limit, connection.session.peer());
                    self.shut_down(token, Cause::Over(limit));
                }
                // Its protocol is over already.
                None => self.shut_down(token, Cause::Eof),
            }
        }
    }

    /// Looks for producers that have fallen silent, and finds out when the next one may.
    pub(super) fn notice_silence(&mut self) {
        if self.received_until <= self.context.next_silence {
            return;
        }
        self.context.next_silence = Timestamp::MAX;
        for connection in self.slots.iter_mut() {
            connection.session.notice_silence(self.received_until, &mut self.context);
        }
    }
}
