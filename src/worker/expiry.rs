//! Deadlines of connections, and producers that fall silent.

use std::time::Duration;

use super::Worker;
use crate::cause::Cause;
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
        self.timers.set(token.slot, deadline);
    }

    /// Looks at the connections whose timers have fired: which of them have no time left, and whose producers have fallen
    /// silent.
    pub(super) fn fire_timers(&mut self) {
        let until = self.received_until;
        let mut fired = std::mem::take(&mut self.fired);
        self.timers.fire(until, &mut fired);
        for slot in fired.drain(..) {
            let token = self.slots.token(slot);
            if self.slots.get(token).deadline < until {
                self.expire(token);
            }
            let connection = self.slots.get(token);
            connection.session.notice_silence(until, &mut self.context);
            let listed_until = connection.session.listed_until(&self.context.lifetimes);
            self.timers.set(slot, connection.deadline.min(listed_until));
        }
        self.fired = fired;
    }

    /// Ends what is out of time.
    fn expire(&mut self, token: Token) {
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
