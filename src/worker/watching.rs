//! Clients that wait: woken by what has changed, by time, and by the end of the server.

use super::Worker;
use crate::connection::{Connection, Phase};
use crate::context::WorkerContext;
use crate::io::Token;
use crate::limits::WOKEN_TOGETHER;

impl Worker {
    /// Lets clients have what has become visible since the last time, so many of them: the others in the next iterations.
    pub(super) fn inform_watchers(&mut self) {
        let now = self.context.now;
        let mut left = WOKEN_TOGETHER;
        // One is for those whose time has come, however much there is to say.
        while left > 1 {
            self.context.watchers.look(now);
            match self.context.watchers.next_news() {
                Some((token, Some(news))) => {
                    self.at_work(token, |connection, context| connection.push(&news, context));
                }
                Some((token, None)) => self.wake(token),
                None => break,
            }
            left -= 1;
        }
        for _ in 0..left {
            let Some(token) = self.due.pop_front() else { break };
            self.wake(token);
        }
    }

    /// Lets everybody who waits have what there is, as the server stops.
    pub(super) fn wake_all(&mut self) {
        for token in self.context.watchers.tokens() {
            self.wake(token);
        }
    }

    /// Lets a client that waits have what is due. If it does not wait any more, its next request is looked at.
    pub(super) fn wake(&mut self, token: Token) {
        self.at_work(token, Connection::wake);
        let Some(connection) = self.slots.find(token) else { return };
        if connection.phase == Phase::Open && !connection.session.is_parked() {
            self.take_input(token, &[]);
        }
    }

    /// Does something with an open connection that may write.
    fn at_work(&mut self, token: Token, work: impl FnOnce(&mut Connection, &mut WorkerContext)) {
        let Some(connection) = self.slots.find(token).filter(|connection| connection.phase == Phase::Open) else {
            return;
        };
        connection.output.lend(|| self.spare.pop().unwrap_or_default());
        work(connection, &mut self.context);
        self.settle_output(token);
        self.mark(token);
    }
}
