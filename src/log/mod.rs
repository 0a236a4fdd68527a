//! The log: lines on standard error in stock's format, written by a thread of their own, so that a terminal or a pipe
//! that is not read never holds up a worker.
//!
//! ```text
//! [nsqlookupd] 2026/11/22 10:37:00.123456 INFO: TCP: listening on [::]:4160
//! ```
//!
//! Between the callers and the writer is a bounded queue. When it is full, lines are dropped and counted, and the
//! writer says how many as soon as it has caught up. Having written what was there, the writer rests for a moment: when
//! each line woke it, a change of a large topic and the lookup after it took a tenth more of the server's time.
//!
//! Characters that are not seen are escaped (control, direction of writing, line separators): what a client sends is
//! logged, and must neither start a line of its own, nor drive a terminal, nor reorder what a terminal displays. Unlike stock, whose runtime ends the process when standard error is a closed pipe, a failed write is
//! counted and the server goes on.

mod level;
mod writer;

use std::fmt::{self, Write as _};
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::SystemTime;

pub use level::{Level, ParseLevelError};
pub use writer::LogWriter;

use crate::limits::{LOG_MESSAGE_BYTES, LOG_QUEUE_LINES, LOG_REST};

/// Where messages go in. Clones share one queue; a clone costs a reference count.
#[derive(Clone, Debug)]
pub struct Log(Option<Arc<Shared>>);

#[derive(Debug)]
struct Shared {
    level: Level,
    queue: SyncSender<Entry>,
    dropped: AtomicU64,
    write_errors: AtomicU64,
    closing: AtomicBool,
}

#[derive(Debug)]
enum Entry {
    Line(Line),
    /// Ends the writer's wait, for it to see that the log is closing.
    Wake,
}

#[derive(Debug)]
struct Line {
    at: SystemTime,
    level: Level,
    message: String,
}

impl Log {
    /// Starts the writer's thread on standard error. Messages below `level` are not logged; `prefix` starts a line.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub fn start(level: Level, prefix: String) -> io::Result<(Self, LogWriter)> {
        Self::start_with(io::stderr(), level, prefix)
    }

    /// As [`Log::start`], with `sink` for standard error.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub fn start_with(
        sink: impl Write + Send + 'static,
        level: Level,
        prefix: String,
    ) -> io::Result<(Self, LogWriter)> {
        let (queue, entries) = sync_channel(LOG_QUEUE_LINES);
        let shared = Arc::new(Shared {
            level,
            queue,
            dropped: AtomicU64::new(0),
            write_errors: AtomicU64::new(0),
            closing: AtomicBool::new(false),
        });
        let writer = LogWriter::start(sink, prefix, Arc::clone(&shared), entries)?;
        Ok((Self(Some(shared)), writer))
    }

    /// A log that takes nothing.
    #[must_use]
    pub fn disabled() -> Self {
        Self(None)
    }

    /// Whether a message of this level is logged: ask before computing what only the log needs.
    #[must_use]
    pub fn enabled(&self, level: Level) -> bool {
        self.0.as_ref().is_some_and(|shared| level >= shared.level)
    }

    /// Logs a message, formatted only if its level passes. Never waits: see [`Log::dropped`].
    pub fn write(&self, level: Level, message: fmt::Arguments<'_>) {
        let Some(shared) = self.0.as_ref().filter(|shared| level >= shared.level) else {
            return;
        };
        let line = Line { at: SystemTime::now(), level, message: format_bounded(message) };
        if shared.queue.try_send(Entry::Line(line)).is_err() {
            shared.dropped.fetch_add(1, Relaxed);
        }
    }

    /// Logs at [`Level::Debug`].
    pub fn debug(&self, message: fmt::Arguments<'_>) {
        self.write(Level::Debug, message);
    }

    /// Logs at [`Level::Info`].
    pub fn info(&self, message: fmt::Arguments<'_>) {
        self.write(Level::Info, message);
    }

    /// Logs at [`Level::Warn`].
    pub fn warn(&self, message: fmt::Arguments<'_>) {
        self.write(Level::Warn, message);
    }

    /// Logs at [`Level::Error`].
    pub fn error(&self, message: fmt::Arguments<'_>) {
        self.write(Level::Error, message);
    }

    /// Logs at [`Level::Fatal`]; ending the process is the caller's.
    pub fn fatal(&self, message: fmt::Arguments<'_>) {
        self.write(Level::Fatal, message);
    }

    /// How many lines were dropped since the start, because the queue was full or the log had closed.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.0.as_ref().map_or(0, |shared| shared.dropped.load(Relaxed))
    }

    /// How many writes to standard error failed since the start.
    #[must_use]
    pub fn write_errors(&self) -> u64 {
        self.0.as_ref().map_or(0, |shared| shared.write_errors.load(Relaxed))
    }
}

/// Formats a message, and cuts it at [`LOG_MESSAGE_BYTES`].
fn format_bounded(message: fmt::Arguments<'_>) -> String {
    struct Bounded(String);

    impl fmt::Write for Bounded {
        fn write_str(&mut self, text: &str) -> fmt::Result {
            let room = LOG_MESSAGE_BYTES - self.0.len();
            if text.len() <= room {
                self.0.push_str(text);
                return Ok(());
            }
            let end = (0..=room).rev().find(|&end| text.is_char_boundary(end)).unwrap_or_default();
            self.0.push_str(&text[..end]);
            // Ends the formatting: nothing more is wanted.
            Err(fmt::Error)
        }
    }

    let mut bounded = Bounded(String::new());
    if bounded.write_fmt(message).is_err() {
        bounded.0.push_str("...");
    }
    bounded.0
}

#[cfg(test)]
mod tests {
    use std::sync::{Condvar, Mutex, MutexGuard};
    use std::time::Duration;

    use super::*;

    /// A sink that shows what was written, can be shut (writes wait), and can fail.
    #[derive(Clone, Default)]
    struct Sink(Arc<(Mutex<SinkState>, Condvar)>);

    #[derive(Default)]
    struct SinkState {
        writes: Vec<String>,
        shut: bool,
        failing: bool,
        attempts: usize,
    }

    impl Sink {
        fn state(&self) -> MutexGuard<'_, SinkState> {
            self.0.0.lock().unwrap()
        }

        fn change(&self, change: impl FnOnce(&mut SinkState)) {
            change(&mut self.state());
            self.0.1.notify_all();
        }

        fn await_attempts(&self, attempts: usize) {
            let _state = self.0.1.wait_while(self.state(), |state| state.attempts < attempts).unwrap();
        }

        fn text(&self) -> String {
            self.state().writes.concat()
        }

        /// The lines without what comes before the level.
        fn messages(&self) -> Vec<String> {
            let start = "> 2026/11/22 10:37:00.123456 ".len();
            self.text().lines().map(|line| line[start..].to_owned()).collect()
        }
    }

    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let mut state = self.state();
            state.attempts += 1;
            self.0.1.notify_all();
            state = self.0.1.wait_while(state, |state| state.shut).unwrap();
            if state.failing {
                return Err(io::ErrorKind::StorageFull.into());
            }
            state.writes.push(str::from_utf8(bytes).unwrap().to_owned());
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn start(sink: &Sink, level: Level) -> (Log, LogWriter) {
        Log::start_with(sink.clone(), level, "> ".to_owned()).unwrap()
    }

    #[test]
    fn a_line_is_in_stock_format() {
        let sink = Sink::default();
        let (log, writer) = start(&sink, Level::Info);
        log.warn(format_args!("topic {}", "orders"));
        writer.close();
        let shape: String = sink.text().chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
        assert_eq!(shape, "> 0000/00/00 00:00:00.000000 WARNING: topic orders\n");
    }

    #[test]
    fn a_message_below_the_level_is_not_even_formatted() {
        struct Unprintable;
        impl fmt::Display for Unprintable {
            fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
                panic!("formatted");
            }
        }

        let sink = Sink::default();
        let (log, writer) = start(&sink, Level::Warn);
        log.debug(format_args!("{Unprintable}"));
        log.info(format_args!("{Unprintable}"));
        log.warn(format_args!("w"));
        log.error(format_args!("e"));
        log.fatal(format_args!("f"));
        assert!(!log.enabled(Level::Info) && log.enabled(Level::Warn));
        writer.close();
        assert_eq!(sink.messages(), ["WARNING: w", "ERROR: e", "FATAL: f"]);

        let disabled = Log::disabled();
        disabled.fatal(format_args!("{Unprintable}"));
        assert!(!disabled.enabled(Level::Fatal));
        assert_eq!((disabled.dropped(), disabled.write_errors()), (0, 0));
    }

    #[test]
    fn a_client_cannot_forge_a_line_or_drive_a_terminal() {
        let sink = Sink::default();
        let (log, writer) = start(&sink, Level::Info);
        log.info(format_args!("a\r\n> 2026/01/01\tFATAL: \x1b[31m\0\x7f\u{85}\u{9b}2J \u{e9}\u{4e16} \\n"));
        writer.close();
        assert_eq!(
            sink.messages(),
            [r"INFO: a\r\n> 2026/01/01\tFATAL: \u{1b}[31m\0\u{7f}\u{85}\u{9b}2J ".to_owned()
                + "\u{e9}\u{4e16} \\n"]
        );
    }

    /// Characters that reorder, hide, join or break what surrounds them, and what is written as it is.
    #[test]
    fn invisible_characters_are_escaped() {
        let invisible = [
            '\u{ad}',
            '\u{61c}',
            '\u{180e}',
            '\u{200b}',
            '\u{200d}',
            '\u{200e}',
            '\u{200f}',
            '\u{202a}',
            '\u{202b}',
            '\u{202c}',
            '\u{202d}',
            '\u{202e}',
            '\u{2060}',
            '\u{2066}',
            '\u{2067}',
            '\u{2068}',
            '\u{2069}',
            '\u{feff}',
            '\u{fff9}',
            '\u{e0001}',
            '\u{e007f}',
            '\u{2028}',
            '\u{2029}',
            '\u{a0}',
            '\u{3000}',
            '\u{301}',
            '\u{fe0f}',
            '\u{e000}',
            '\u{10ffff}',
            '\u{378}',
        ];
        let sink = Sink::default();
        let (log, writer) = start(&sink, Level::Info);
        for character in invisible {
            log.info(format_args!("{character}"));
        }
        log.info(format_args!("'\"\\ ~\u{e9}\u{4e16}\u{1f600}\u{fffd}"));
        writer.close();
        let mut expected: Vec<_> =
            invisible.map(|character| format!("INFO: {}", character.escape_unicode())).into();
        expected.push("INFO: '\"\\ ~\u{e9}\u{4e16}\u{1f600}\u{fffd}".to_owned());
        assert_eq!(sink.messages(), expected);
    }

    #[test]
    fn a_long_message_is_cut_between_characters() {
        assert_eq!(format_bounded(format_args!("{:>1$}", "", LOG_MESSAGE_BYTES)).len(), LOG_MESSAGE_BYTES);
        // The two bytes of the letter would be the last one that fits and the first that does not.
        let head = "x".repeat(LOG_MESSAGE_BYTES - 1);
        assert_eq!(format_bounded(format_args!("{head}\u{e9}{}", "tail")), format!("{head}..."));
    }

    #[test]
    fn an_unread_sink_costs_lines_and_never_holds_up_a_caller() {
        let sink = Sink::default();
        sink.change(|state| state.shut = true);
        let (log, writer) = start(&sink, Level::Info);
        log.info(format_args!("first"));
        sink.await_attempts(1);
        for number in 0..LOG_QUEUE_LINES + 5 {
            log.info(format_args!("{number}"));
        }
        assert_eq!(log.dropped(), 5);
        sink.change(|state| state.shut = false);
        writer.close();

        let messages = sink.messages();
        assert_eq!(messages.len(), 1 + LOG_QUEUE_LINES + 1);
        assert_eq!(messages[LOG_QUEUE_LINES], format!("INFO: {}", LOG_QUEUE_LINES - 1));
        assert_eq!(
            messages[LOG_QUEUE_LINES + 1],
            "WARNING: 5 log lines were dropped: standard error is not read fast enough"
        );
    }

    #[test]
    fn queued_lines_leave_in_one_write() {
        let sink = Sink::default();
        sink.change(|state| state.shut = true);
        let (log, writer) = start(&sink, Level::Info);
        log.info(format_args!("first"));
        sink.await_attempts(1);
        for number in 0..100 {
            log.info(format_args!("{number}"));
        }
        sink.change(|state| state.shut = false);
        writer.close();
        assert_eq!(sink.messages().len(), 101);
        assert_eq!(sink.state().writes.len(), 2);
    }

    #[test]
    fn a_failed_write_is_counted_and_tears_no_line() {
        let sink = Sink::default();
        sink.change(|state| state.failing = true);
        let (log, writer) = start(&sink, Level::Info);
        log.info(format_args!("kept"));
        sink.await_attempts(1);
        sink.change(|state| state.failing = false);
        log.info(format_args!("later"));
        drop(writer);
        assert_eq!(log.write_errors(), 1);
        assert_eq!(sink.messages(), ["INFO: kept", "INFO: later"]);
    }

    #[test]
    fn closing_does_not_wait_for_ever_on_a_stuck_sink() {
        let sink = Sink::default();
        sink.change(|state| state.shut = true);
        let (log, mut writer) = start(&sink, Level::Info);
        log.info(format_args!("stuck"));
        sink.await_attempts(1);
        writer.close_within(Duration::ZERO);
        sink.change(|state| state.shut = false);
    }

    #[test]
    fn lines_after_the_close_are_counted() {
        let sink = Sink::default();
        let (log, writer) = start(&sink, Level::Info);
        log.clone().info(format_args!("before"));
        writer.close();
        log.info(format_args!("after"));
        assert_eq!(log.dropped(), 1);
        assert_eq!(sink.messages(), ["INFO: before"]);
    }
}
