//! Clients that wait: woken by what has changed, by time, and by the end of the server.

use super::Worker;
use crate::connection::{Connection, Phase};
use crate::context::WorkerContext;
use crate::io::Token;
use crate::limits::WOKEN_TOGETHER;
use crate::watch::Update;

impl Worker {
    /// Lets clients have what has become visible since the last time.
    pub(super) fn inform_watchers(&mut self) {
        for _ in 0..WOKEN_TOGETHER {
            let Some(token) = self.due.pop_front() else { break };
            self.wake(token);
        }
        if self.context.watchers.is_empty() {
            return;
        }
        let now = self.context.now;
        self.context.watchers.look(now);
        // A request behind one that waited may begin a watch, which looks at what has changed for others, too.
        while self.context.watchers.has_news() {
            for Update { watchers, news } in self.context.watchers.take_updates() {
                for token in watchers {
                    self.at_work(token, |connection, context| connection.push(&news, context));
                }
            }
            for token in self.context.watchers.take_woken() {
                self.wake(token);
            }
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
