//! Leaving everything to another process, at SIGUSR2.

use std::net::TcpListener;
use std::os::fd::AsFd;
use std::process;
use std::time::{Duration, Instant};

use super::Server;
use crate::clock::wall;
use crate::io::Queue;
use crate::limits::{HANDOVER_PATIENCE, SUCCESSOR_PERIOD, UPGRADE_PATIENCE};
use crate::mailbox::{Message, send_to_all};
use crate::process::signal_stop;
use crate::state::{Encoder, Folder, Saver, Source};
use crate::upgrade::{Decision, Failure, HandedSocket, Successor};

impl Server {
    /// Starts the program anew and leaves everything to it. Whether it serves: then the workers of this process end.
    pub(super) fn upgrade(&mut self) -> bool {
        if process::id() == 1 {
            self.log.warn(format_args!(
                "upgrade refused: this is process 1, with which its container ends; replace the container"
            ));
            return false;
        }
        match self.leave_to_successor() {
            Ok(pid) => {
                self.log.info(format_args!("upgrade: process {pid} serves, this one ends its connections"));
                // What was meant for the server is for the new process.
                if self.signals.wait(Some(Duration::ZERO)).stop {
                    signal_stop(pid);
                }
                true
            }
            Err(failure) => {
                self.shared.metrics.upgrade_failed();
                self.log.warn(format_args!("upgrade failed, this process goes on - {failure}"));
                false
            }
        }
    }

    fn leave_to_successor(&mut self) -> Result<u32, Failure> {
        let mut successor = self.program.start()?;
        let pid = successor.pid();
        self.log.info(format_args!("upgrade: process {pid} was started to take over"));
        match self.wait_until_prepared(&mut successor).and_then(|()| self.leave_to(&mut successor)) {
            Ok(()) => {
                // With the socket, which `successor` has, ends what the new process waits for.
                self.manager.is_followed_by(pid);
                Ok(pid)
            }
            Err(failure) => Err(successor.end(failure)),
        }
    }

    /// Meanwhile this process serves as before.
    fn wait_until_prepared(&mut self, successor: &mut Successor) -> Result<(), Failure> {
        let until = Instant::now() + UPGRADE_PATIENCE;
        while !successor.is_prepared(SUCCESSOR_PERIOD)? {
            let asked = self.handle_signals(Some(Duration::ZERO));
            if asked.stop {
                self.is_to_stop = true;
                return Err(Failure::Stopped);
            }
            if asked.upgrade {
                self.log.info(format_args!("upgrade: one is under way, SIGUSR2 is ignored"));
            }
            if Instant::now() > until {
                return Err(Failure::TimedOut("the new process"));
            }
        }
        Ok(())
    }

    /// Stops the world, and starts it again if the new process does not.
    fn leave_to(&mut self, successor: &mut Successor) -> Result<(), Failure> {
        let folder = self.saver.take().and_then(Saver::hand_over);
        self.shared.pause.begin();
        send_to_all(&self.mailboxes, Message::Pause);
        let result = self.leave_all(successor, folder.as_ref());
        let decision = if result.is_ok() { Decision::HandedOver } else { Decision::GoOn };
        self.shared.pause.decide(decision);
        if result.is_err() {
            self.saver = folder.and_then(|folder| self.keep(folder).ok());
        }
        result
    }

    fn leave_all(&self, successor: &mut Successor, folder: Option<&Folder>) -> Result<(), Failure> {
        let workers = self.shared.pause.wait(self.workers.len(), HANDOVER_PATIENCE);
        let sockets = self.handed(workers.ok_or(Failure::TimedOut("a worker"))?);
        let mut state = Vec::new();
        let now = self.clock.now();
        let encoded = Encoder::new(&mut state, wall()).and_then(|mut encoder| {
            self.source().save(now, &mut encoder)?;
            encoder.finish()
        });
        encoded.map_err(Failure::Io)?;
        let lock = folder.and_then(Folder::lock).map(AsFd::as_fd);
        successor.leave(&sockets, lock, &state, self.shared.readiness.check(now).is_ok())
    }

    /// The workers' sockets. Those that all of them share are handed over once.
    fn handed(&self, workers: Vec<Vec<TcpListener>>) -> Vec<HandedSocket> {
        let mut all = Vec::new();
        for (nth, sockets) in workers.into_iter().enumerate() {
            for (listener, socket) in self.listeners.iter().zip(sockets) {
                if nth == 0 || !listener.is_shared {
                    let is_shared = listener.queue == Queue::Leave;
                    all.push(HandedSocket { service: listener.service, is_shared, socket });
                }
            }
        }
        all
    }
}
