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
//! With [`Format::Json`] a line is an object, whose fields name the client, topic and channel where the caller does:
//!
//! ```text
//! {"time":"2026-11-22T10:37:00.123456+01:00","level":"info","message":"TCP: listening on [::]:4160"}
//! ```
//!
//! Characters that are not seen are escaped (control, direction of writing, line separators): what a client sends is
//! logged, and must neither start a line of its own, nor drive a terminal, nor reorder what a terminal displays. Unlike
//! stock, whose runtime ends the process when standard error is a closed pipe, a failed write is counted and the server
//! goes on.

mod about;
mod format;
mod level;
mod writer;

use std::fmt::{self, Write as _};
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::SystemTime;

use arc_swap::ArcSwap;

pub use about::About;
pub use format::{Format, ParseFormatError};
pub use level::{Level, ParseLevelError};
pub use writer::LogWriter;

use about::Fields;

use crate::limits::{LOG_MESSAGE_BYTES, LOG_QUEUE_LINES, LOG_REST};

/// Where messages go in. Clones share one queue; a clone costs a reference count.
#[derive(Clone, Debug)]
pub struct Log(Option<Arc<Shared>>);

/// What an operator sets of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogOptions {
    /// Messages below it are not logged.
    pub level: Level,
    /// The start of every line of [`Format::Text`].
    pub prefix: String,
    /// How a line is written.
    pub format: Format,
}

/// Stock's.
impl Default for LogOptions {
    fn default() -> Self {
        Self { level: Level::Info, prefix: "[nsqlookupd] ".to_owned(), format: Format::Text }
    }
}

#[derive(Debug)]
struct Shared {
    /// A [`Level`].
    level: AtomicU8,
    /// Whether the format is [`Format::Json`], which alone has fields.
    is_json: AtomicBool,
    prefix: ArcSwap<String>,
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
    /// None in a line of text.
    fields: Fields,
}

impl Shared {
    fn takes(&self, level: Level) -> bool {
        level as u8 >= self.level.load(Relaxed)
    }
}

impl Log {
    /// Starts the writer's thread on standard error.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub fn start(options: LogOptions) -> io::Result<(Self, LogWriter)> {
        Self::start_with(io::stderr(), options)
    }

    /// As [`Log::start`], with `sink` for standard error.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub fn start_with(sink: impl Write + Send + 'static, options: LogOptions) -> io::Result<(Self, LogWriter)> {
        let (queue, entries) = sync_channel(LOG_QUEUE_LINES);
        let LogOptions { level, prefix, format } = options;
        let shared = Arc::new(Shared {
            level: AtomicU8::new(level as u8),
            is_json: AtomicBool::new(format == Format::Json),
            prefix: ArcSwap::from_pointee(prefix),
            queue,
            dropped: AtomicU64::new(0),
            write_errors: AtomicU64::new(0),
            closing: AtomicBool::new(false),
        });
        let writer = LogWriter::start(sink, Arc::clone(&shared), entries)?;
        Ok((Self(Some(shared)), writer))
    }

    /// A log that takes nothing.
    #[must_use]
    pub fn disabled() -> Self {
        Self(None)
    }

    /// Changes the options while the log is in use. The level holds for every message after the call. Prefix and format
    /// hold for every line that is written after the call, those in the queue included; one that was queued as text
    /// has no fields.
    pub fn configure(&self, LogOptions { level, prefix, format }: LogOptions) {
        if let Some(shared) = &self.0 {
            shared.prefix.store(Arc::new(prefix));
            shared.is_json.store(format == Format::Json, Relaxed);
        }
        self.set_level(level);
    }

    /// Changes the level alone, for every message after the call.
    pub fn set_level(&self, level: Level) {
        if let Some(shared) = &self.0 {
            shared.level.store(level as u8, Relaxed);
        }
    }

    /// The least severe level that is logged; [`Level::Fatal`] for a log that takes nothing.
    #[must_use]
    pub fn level(&self) -> Level {
        self.0.as_ref().map_or(Level::Fatal, |shared| Level::ALL[usize::from(shared.level.load(Relaxed))])
    }

    /// Whether a message of this level is logged: ask before computing what only the log needs.
    #[must_use]
    pub fn enabled(&self, level: Level) -> bool {
        self.0.as_ref().is_some_and(|shared| shared.takes(level))
    }

    /// This log, for a message about a client; see [`About`].
    #[must_use]
    pub fn client<'a>(&'a self, client: &'a impl fmt::Display) -> About<'a> {
        About::new(self).client(client)
    }

    /// This log, for a message about a topic; see [`About`].
    #[must_use]
    pub fn topic<'a>(&'a self, topic: &'a impl fmt::Display) -> About<'a> {
        About::new(self).topic(topic)
    }

    /// Logs a message, formatted only if its level passes. Never waits: see [`Log::dropped`].
    fn write(&self, level: Level, about: About<'_>, message: fmt::Arguments<'_>) {
        let Some(shared) = self.0.as_ref().filter(|shared| shared.takes(level)) else {
            return;
        };
        let fields = if shared.is_json.load(Relaxed) { about.fields() } else { Fields::default() };
        let line = Line { at: SystemTime::now(), level, message: format_bounded(message), fields };
        if shared.queue.try_send(Entry::Line(line)).is_err() {
            shared.dropped.fetch_add(1, Relaxed);
        }
    }

    /// Logs at [`Level::Debug`].
    pub fn debug(&self, message: fmt::Arguments<'_>) {
        About::new(self).debug(message);
    }

    /// Logs at [`Level::Info`].
    pub fn info(&self, message: fmt::Arguments<'_>) {
        About::new(self).info(message);
    }

    /// Logs at [`Level::Warn`].
    pub fn warn(&self, message: fmt::Arguments<'_>) {
        About::new(self).warn(message);
    }

    /// Logs at [`Level::Error`].
    pub fn error(&self, message: fmt::Arguments<'_>) {
        About::new(self).error(message);
    }

    /// Logs at [`Level::Fatal`]; ending the process is the caller's.
    pub fn fatal(&self, message: fmt::Arguments<'_>) {
        self.write(Level::Fatal, About::new(self), message);
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
mod tests;
