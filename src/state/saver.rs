//! The thread that writes the state.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use super::files::Files;
use super::folder::Folder;
use super::writer::{Moment, Source, Time, Writer};
use crate::clock::{Clock, wall};
use crate::limits::STATE_FINISH_PATIENCE;
use crate::log::Log;
use crate::metrics::StateFigures;

/// Writes the state of a server in the background until [`Saver::finish`] or [`Saver::hand_over`]. Dropped, it stops without a last write.
pub struct Saver {
    orders: Sender<Order>,
    ended: Receiver<Folder>,
    log: Log,
}

/// How the thread is to end.
enum Order {
    Finish,
    HandOver,
}

impl Saver {
    /// Starts the thread, which writes at once, and from then on at most once in `interval`.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub fn start(
        folder: Folder,
        source: impl Source + 'static,
        interval: Duration,
        clock: Clock,
        figures: Arc<StateFigures>,
        log: &Log,
    ) -> io::Result<Self> {
        let (orders, to_do) = channel();
        let (end, ended) = channel();
        let mut writer = Writer::new(folder, source, interval, figures, log.clone());
        thread::Builder::new().name("state".to_owned()).spawn(move || {
            run(&mut writer, &ThreadTime(clock), &to_do);
            // Nobody waits any more for one that took too long.
            let _ = end.send(writer.into_folder());
        })?;
        Ok(Self { orders, ended, log: log.clone() })
    }

    /// Writes once more at once, and stops. `None` when the disk does not let it end, or its thread has panicked.
    pub fn finish(self) -> Option<Folder> {
        self.end(Order::Finish)
    }

    /// Stops without writing, for another process to take the folder. The thread that has begun to write completes that.
    /// Where the other process comes to nothing, the folder can be given to a new [`Saver`]. `None` as in
    /// [`Saver::finish`].
    pub fn hand_over(self) -> Option<Folder> {
        self.end(Order::HandOver)
    }

    fn end(self, order: Order) -> Option<Folder> {
        // Refused by a thread that has panicked, which is noticed below.
        let _ = self.orders.send(order);
        let folder = self.ended.recv_timeout(STATE_FINISH_PATIENCE).ok();
        if folder.is_none() {
            self.log.error(format_args!("the last state was not written within {STATE_FINISH_PATIENCE:?}"));
        }
        folder
    }
}

fn run<S: Source, F: Files>(writer: &mut Writer<S, F>, time: &impl Time, orders: &Receiver<Order>) {
    loop {
        match orders.recv_timeout(writer.step(time)) {
            Err(RecvTimeoutError::Timeout) => {}
            Ok(Order::Finish) => return writer.finish(time),
            Ok(Order::HandOver) | Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

/// The clocks of the thread that asks.
struct ThreadTime(Clock);

impl Time for ThreadTime {
    fn moment(&self) -> Moment {
        let cpu = clock_gettime(ClockId::ThreadCPUTime).try_into().unwrap_or_default();
        Moment { now: self.0.now(), wall: wall(), cpu }
    }
}
