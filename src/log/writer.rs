//! The side of the log that writes.

use std::io::{self, BufWriter, Write};
use std::sync::Arc;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, SystemTime};

use super::about::Fields;
use super::{Entry, LOG_QUEUE_LINES, LOG_REST, Level, Line, Shared, format};

/// How much the writer gathers before it writes, if the queue gives it so much.
const BATCH_BYTES: usize = 64 * 1024;

/// How long closing the log waits for a standard error that nobody reads.
const CLOSE_PATIENCE: Duration = Duration::from_secs(2);

/// The writer's thread. Dropping it closes the log: what is queued is written, then the thread ends. Lines that come
/// later are dropped.
#[derive(Debug)]
#[must_use = "dropping the writer closes the log"]
pub struct LogWriter {
    shared: Arc<Shared>,
    /// Disconnects when the thread is done.
    ended: Receiver<()>,
    thread: Option<JoinHandle<()>>,
}

impl LogWriter {
    /// Starts the thread, which takes what `entries` gives until the log closes.
    pub(super) fn start(
        sink: impl Write + Send + 'static,
        shared: Arc<Shared>,
        entries: Receiver<Entry>,
    ) -> io::Result<Self> {
        let (end, ended) = channel();
        let output = Output {
            sink: BufWriter::with_capacity(BATCH_BYTES, sink),
            line: String::new(),
            reported: 0,
            shared: Arc::clone(&shared),
        };
        let thread = thread::Builder::new().name("log".to_owned()).spawn(move || output.run(&entries, end))?;
        Ok(Self { shared, ended, thread: Some(thread) })
    }

    /// Closes the log. Waits until all is written, but not for ever on a standard error that nobody reads.
    pub fn close(mut self) {
        self.close_within(CLOSE_PATIENCE);
    }

    pub(super) fn close_within(&mut self, timeout: Duration) {
        let Some(thread) = self.thread.take() else {
            return;
        };
        // SeqCst, here and in the writer: it must not see the full queue emptied and yet the log open.
        self.shared.closing.store(true, SeqCst);
        // Refused by a full queue, whose writer is awake.
        let _ = self.shared.queue.try_send(Entry::Wake);
        if self.ended.recv_timeout(timeout) == Err(RecvTimeoutError::Disconnected) {
            // A panic of the sink has printed itself; closing adds nothing.
            let _ = thread.join();
        }
    }
}

impl Drop for LogWriter {
    fn drop(&mut self) {
        self.close_within(CLOSE_PATIENCE);
    }
}

/// The writer's side.
struct Output<W: Write> {
    /// Keeps what a failed write left over, so that a line is not torn when writing works again.
    sink: BufWriter<W>,
    line: String,
    /// Of the dropped lines, how many a warning has reported.
    reported: u64,
    shared: Arc<Shared>,
}

impl<W: Write> Output<W> {
    /// Writes until the log closes; `_end` is dropped when that is done.
    fn run(mut self, entries: &Receiver<Entry>, _end: Sender<()>) {
        loop {
            // Asked before the queue is read: what was queued before the log closed is then among what is taken.
            let closing = self.closing();
            for entry in entries.try_iter().take(LOG_QUEUE_LINES) {
                if let Entry::Line(line) = entry {
                    self.put(&line);
                }
            }
            self.report_dropped();
            let flushed = self.sink.flush();
            self.count(&flushed);
            if closing {
                return;
            }
            // Who logs while this thread rests need not wake it.
            thread::sleep(LOG_REST);
            // Asked again, for the queue may have been too full to take the wake.
            if !self.closing()
                && let Ok(Entry::Line(line)) = entries.recv()
            {
                self.put(&line);
            }
        }
    }

    fn closing(&self) -> bool {
        self.shared.closing.load(SeqCst)
    }

    fn put(&mut self, line: &Line) {
        self.line.clear();
        if self.shared.is_json.load(Relaxed) {
            format::json(&mut self.line, line);
        } else {
            format::text(&mut self.line, line, &self.shared.prefix.load());
        }
        let written = self.sink.write_all(self.line.as_bytes());
        self.count(&written);
    }

    fn report_dropped(&mut self) {
        let dropped = self.shared.dropped.load(Relaxed);
        let news = dropped - self.reported;
        if news > 0 {
            self.reported = dropped;
            self.put(&Line {
                at: SystemTime::now(),
                level: Level::Warn,
                message: format!("{news} log lines were dropped: standard error is not read fast enough"),
                fields: Fields::default(),
            });
        }
    }

    fn count(&self, result: &io::Result<()>) {
        if result.is_err() {
            self.shared.write_errors.fetch_add(1, Relaxed);
        }
    }
}
