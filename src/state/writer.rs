//! When a state is written, and what happens when that fails.
//!
//! It is written at most once in an interval, and only when something has changed. A write that takes long is followed by a
//! longer rest: this thread takes no more than [`STATE_CPU_PERCENT_MAX`] of a core and keeps the disk busy for no more than
//! half of the time. In between, a stamp says every [`STAMP_PERIOD`] that the process is alive. A write that fails, on a full
//! or read-only disk say, is logged and counted, and made again when the next is due; the server serves on.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::files::Files;
use super::folder::Folder;
use super::format::Encoder;
use super::stamp::Stamp;
use crate::clock::Timestamp;
use crate::limits::{STAMP_PERIOD, STATE_CPU_PERCENT_MAX, STATE_INTERVAL_MIN};
use crate::log::Log;
use crate::metrics::StateFigures;

/// What is to be saved.
pub trait Source: Send {
    /// The producers of a state, in the order in which they were written.
    type Producers: Send;

    /// A number that is another one whenever something has changed that is saved, but for silences.
    fn revision(&self) -> u64;

    /// Gives the encoder all producers and then all topics of one snapshot, with times relative to `now`.
    fn save(&mut self, now: Timestamp, to: &mut Encoder<'_>) -> io::Result<Self::Producers>;

    /// How long each of these producers has been silent, in their order. Of one that has gone, whatever was known last.
    fn silences<'a>(
        &'a self,
        producers: &'a Self::Producers,
        now: Timestamp,
    ) -> impl Iterator<Item = Duration> + 'a;
}

/// A moment, by all clocks that matter here.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Moment {
    /// The server's clock.
    pub now: Timestamp,
    /// The system's clock, since the Unix epoch: the only one that a later process has too.
    pub wall: Duration,
    /// CPU time of the thread.
    pub cpu: Duration,
}

/// Where moments come from.
pub trait Time {
    fn moment(&self) -> Moment;
}

/// Writes the states of one source into one folder.
pub struct Writer<S: Source, F: Files> {
    folder: Folder<F>,
    source: S,
    interval: Duration,
    figures: Arc<StateFigures>,
    log: Log,
    last: Option<Last<S::Producers>>,
    /// When it is looked whether something has changed.
    next_write: Timestamp,
    next_stamp: Timestamp,
    /// Whether the last try to write a state failed. A stamp that succeeds meanwhile is no reason to be content.
    has_failed: bool,
    /// Whether the last line of the log says that writing fails.
    has_warned: bool,
}

/// The state that was written last.
struct Last<P> {
    revision: u64,
    checksum: u32,
    producers: P,
}

impl<S: Source, F: Files> Writer<S, F> {
    /// The first step writes, whatever the folder holds.
    pub fn new(folder: Folder<F>, source: S, interval: Duration, figures: Arc<StateFigures>, log: Log) -> Self {
        Self {
            folder,
            source,
            interval: interval.max(STATE_INTERVAL_MIN),
            figures,
            log,
            last: None,
            next_write: Timestamp::default(),
            next_stamp: Timestamp::default(),
            has_failed: false,
            has_warned: false,
        }
    }

    /// Writes what is due. Returns how long nothing will be.
    pub fn step(&mut self, time: &impl Time) -> Duration {
        let begin = time.moment();
        if begin.now >= self.next_write {
            let mut rest = Duration::ZERO;
            if self.has_changed() {
                self.write(begin, time);
                rest = rest_after(begin, time.moment());
            }
            self.next_write = time.moment().now.after(rest.max(self.interval));
        }
        let now = time.moment();
        if now.now >= self.next_stamp {
            self.next_stamp = now.now.after(STAMP_PERIOD);
            self.stamp(now);
        }
        let next = self.next_write.min(self.next_stamp);
        next.since(time.moment().now)
    }

    /// Writes once more, due or not.
    pub fn finish(&mut self, time: &impl Time) {
        let begin = time.moment();
        if self.has_changed() {
            self.write(begin, time);
        } else {
            self.stamp(begin);
        }
    }

    pub fn into_folder(self) -> Folder<F> {
        self.folder
    }

    fn has_changed(&self) -> bool {
        self.last.as_ref().is_none_or(|last| last.revision != self.source.revision())
    }

    fn write(&mut self, begin: Moment, time: &impl Time) {
        // Before the snapshot is taken: what changes in between is written twice rather than never.
        let revision = self.source.revision();
        let source = &mut self.source;
        let written = self.folder.write(begin.wall, |encoder| source.save(begin.now, encoder));
        self.has_failed = written.is_err();
        match written {
            Ok((written, producers)) => {
                let end = time.moment();
                self.last = Some(Last { revision, checksum: written.checksum, producers });
                self.next_stamp = end.now.after(STAMP_PERIOD);
                self.figures.written(written.bytes, end.now.since(begin.now), begin.wall);
                self.succeeded();
            }
            Err(error) => self.failed(&error, begin.now),
        }
    }

    /// Nothing, before there is a state.
    fn stamp(&mut self, Moment { now, wall, .. }: Moment) {
        let Some(last) = &self.last else { return };
        let stamp = Stamp::encode(last.checksum, wall, self.source.silences(&last.producers, now));
        match self.folder.stamp(&stamp) {
            Ok(()) => {
                self.figures.stamped(wall);
                self.succeeded();
            }
            Err(error) => self.failed(&error, now),
        }
    }

    fn succeeded(&mut self) {
        if self.has_warned && !self.has_failed {
            self.has_warned = false;
            self.log.info(format_args!("the state is written to {} again", self.folder.path().display()));
        }
    }

    fn failed(&mut self, error: &io::Error, now: Timestamp) {
        if let Some(times) = self.figures.failed(now) {
            self.has_warned = true;
            let path = self.folder.path().display();
            self.log.warn(format_args!(
                "cannot write the state to {path} - {error} (times since the last such line: {times})"
            ));
        }
    }
}

/// How long a write is followed by none.
fn rest_after(begin: Moment, end: Moment) -> Duration {
    let cpu = end.cpu.saturating_sub(begin.cpu) * (100 / STATE_CPU_PERCENT_MAX);
    cpu.max(end.now.since(begin.now))
}
