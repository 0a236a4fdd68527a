//! How far the plan is: a bar on a terminal, otherwise a line for each cell, on standard error.

use std::cell::Cell;
use std::fmt::Display;
use std::io::{IsTerminal, Write};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// Shown until it is dropped.
pub struct Progress {
    bar: ProgressBar,
    begun: Cell<usize>,
    of: usize,
}

impl Progress {
    /// Of so many cells, repetitions counted.
    pub fn show(of: usize) -> Self {
        let bar = if std::io::stderr().is_terminal() {
            let style = ProgressStyle::with_template("[{bar:30}] {pos} of {len}, {eta} left; {msg}");
            let bar = ProgressBar::new(of as u64).with_style(style.expect("the template is a constant"));
            bar.enable_steady_tick(Duration::from_millis(200));
            bar
        } else {
            ProgressBar::hidden()
        };
        Self { bar, begun: Cell::new(0), of }
    }

    /// Another cell begins.
    pub fn next(&self, doing: impl Display) {
        self.bar.set_position(self.begun.get() as u64);
        self.begun.set(self.begun.get() + 1);
        self.bar.set_message(doing.to_string());
        if self.bar.is_hidden() {
            // Progress that nobody reads is no reason to stop.
            let _ = writeln!(std::io::stderr(), "{} of {}: {doing}", self.begun.get(), self.of);
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
