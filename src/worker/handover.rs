//! A worker while another process takes over: it accepts nothing, acts on what it has received, and waits. Either it goes on, or
//! the other process serves from now on, and this worker ends what it has.

use std::io;
use std::time::Duration;

use super::Worker;
use crate::cause::Cause;
use crate::context::Stage;
use crate::io::Driver;
use crate::limits::{HANDOVER_GRACE, Limit};
use crate::listen::Protocol;
use crate::upgrade::Decision;

impl Worker {
    /// Whether an iteration is over behind which nothing of the registry is left to do.
    pub(super) fn can_pause(&self) -> bool {
        self.is_pausing && self.listeners.are_resting() && !self.is_full()
    }

    /// Lets responses go out, and waits for the decision.
    pub(super) fn pause(&mut self, driver: &mut Driver) -> io::Result<()> {
        driver.wait(Duration::ZERO)?;
        let decision = self.context.shared.pause.arrive(self.number, driver.sockets()?);
        self.is_pausing = false;
        if decision == Decision::HandedOver {
            self.hand_over();
        }
        Ok(())
    }

    /// Another process serves. Connections of nsqd are closed, so that their nsqd connects there; HTTP clients have the responses to
    /// what they have sent.
    fn hand_over(&mut self) {
        self.context.stage = Stage::HandedOver;
        self.listeners.share_queues();
        let timeout = self.context.limits.time(Limit::DrainTimeout);
        self.begin_drain(HANDOVER_GRACE.min(timeout / 2));
        for token in self.slots.tokens(|connection| connection.service.protocol() == Protocol::V1) {
            let connection = self.slots.get(token);
            if connection.is_waiting() {
                self.shut_down(token, Cause::Shutdown);
            } else {
                // Responses that are staged go out first.
                connection.flush(Cause::Shutdown, &mut self.context);
                self.mark(token);
            }
        }
    }
}
