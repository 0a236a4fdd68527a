//! How far long work is: a bar on a terminal, otherwise a line now and then, always on standard error.

use std::cell::Cell;
use std::io::{IsTerminal, Write};
use std::rc::Rc;
use std::time::{Duration, Instant};

use indicatif::{HumanCount, ProgressBar, ProgressStyle};
use tokio_util::task::AbortOnDropHandle;

const REDRAW: Duration = Duration::from_millis(100);
const LINE: Duration = Duration::from_secs(5);
/// The bar's length, in its own steps.
const STEPS: u64 = 1000;

/// When the work is done.
#[derive(Clone, Copy, Debug)]
pub enum Goal {
    Count(u64),
    Time(Duration),
}

/// Progress of one piece of work, shown until it is dropped.
pub struct Progress {
    done: Rc<Cell<u64>>,
    bar: ProgressBar,
    _painter: AbortOnDropHandle<()>,
}

impl Progress {
    /// Begins to show `doing`, counted in `unit`.
    pub fn show(doing: &'static str, unit: &'static str, goal: Goal) -> Self {
        let done = Rc::new(Cell::new(0));
        let (bar, pause) =
            if std::io::stderr().is_terminal() { (bar(), REDRAW) } else { (ProgressBar::hidden(), LINE) };
        let painter = tokio::task::spawn_local({
            let (done, bar) = (Rc::clone(&done), bar.clone());
            async move {
                let began = Instant::now();
                loop {
                    tokio::time::sleep(pause).await;
                    let moment = Moment { goal, done: done.get(), elapsed: began.elapsed() };
                    let text = format!("{doing}: {}", moment.text(unit));
                    if bar.is_hidden() {
                        // Progress that nobody reads is no reason to stop.
                        let _ = writeln!(std::io::stderr(), "{text}");
                    }
                    bar.set_position(moment.steps());
                    bar.set_message(text);
                }
            }
        });
        Self { done, bar, _painter: AbortOnDropHandle::new(painter) }
    }

    /// Where to count what is done.
    pub fn counter(&self) -> Rc<Cell<u64>> {
        Rc::clone(&self.done)
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

fn bar() -> ProgressBar {
    let style = ProgressStyle::with_template("[{bar:30}] {msg}").expect("a template of two known keys");
    ProgressBar::new(STEPS).with_style(style)
}

/// The work at one moment.
struct Moment {
    goal: Goal,
    done: u64,
    elapsed: Duration,
}

#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "shown to people, rounded"
)]
impl Moment {
    fn rate(&self) -> f64 {
        self.done as f64 / self.elapsed.as_secs_f64().max(1e-3)
    }

    /// How much of the work is done, in the bar's steps.
    fn steps(&self) -> u64 {
        let share = match self.goal {
            Goal::Count(total) => self.done as f64 / total.max(1) as f64,
            Goal::Time(total) => self.elapsed.as_secs_f64() / total.as_secs_f64().max(1e-3),
        };
        (share.min(1.0) * STEPS as f64) as u64
    }

    fn text(&self, unit: &str) -> String {
        let (done, rate) = (HumanCount(self.done), self.rate());
        let pace = format!("{}/s", HumanCount(rate as u64));
        let left = |seconds: f64| format!("{:.0} s left", seconds.max(0.0));
        match self.goal {
            Goal::Count(total) if rate > 0.0 => {
                let rest = left(total.saturating_sub(self.done) as f64 / rate);
                format!("{done} of {} {unit}, {pace}, {rest}", HumanCount(total))
            }
            Goal::Count(total) => format!("{done} of {} {unit}", HumanCount(total)),
            Goal::Time(total) => {
                format!("{done} {unit}, {pace}, {}", left(total.as_secs_f64() - self.elapsed.as_secs_f64()))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_holds_rate_and_time_left() {
        let moment = |goal, done| Moment { goal, done, elapsed: Duration::from_secs(2) };
        let text = |goal, done| moment(goal, done).text("registrations");
        let count = Goal::Count(10_000);
        assert_eq!(text(count, 4_000), "4,000 of 10,000 registrations, 2,000/s, 3 s left");
        assert_eq!(text(count, 0), "0 of 10,000 registrations");
        let time = Goal::Time(Duration::from_secs(10));
        assert_eq!(text(time, 4_000), "4,000 registrations, 2,000/s, 8 s left");
        assert_eq!(moment(count, 4_000).steps(), 400);
        assert_eq!(moment(time, 0).steps(), 200);
        assert_eq!(moment(count, 20_000).steps(), STEPS);
    }
}
