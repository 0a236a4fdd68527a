//! The load: scenarios of this program as processes of their own, on a core of their own.

use std::cell::Cell;
use std::fs::File;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::cell::RUN;
use super::cpu::spawn_on;
use super::record::Outcome;
use crate::failure::{Failure, LATE, Result};
use crate::report::Report;

/// From one look for the generator's report to the next.
const POLL: Duration = Duration::from_millis(5);

/// How long one answer may take, for the generator: it is the cell's limit that ends what takes too long.
const PATIENCE: &str = "1h";

/// Starts scenarios.
#[derive(Debug)]
pub struct Generator {
    pub program: PathBuf,
    pub core: usize,
    /// For the output of scenarios.
    pub folder: PathBuf,
    /// Options that every scenario is given.
    pub options: Vec<String>,
    /// Set when a signal asked for the end.
    pub stop: Arc<AtomicBool>,
    /// How many were started.
    pub started: Cell<usize>,
}

/// A scenario that runs until this is dropped.
#[derive(Debug)]
pub struct Scenario {
    process: Child,
    /// Its reports, one a line.
    reports: PathBuf,
    /// How many of them were taken.
    taken: usize,
    errors: PathBuf,
}

impl Generator {
    /// Starts a scenario; its outcome is to be waited for.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(&self, arguments: &[String]) -> Result<Scenario> {
        let failed = |error| {
            Failure::io(format_args!("start {}", self.program.display()), error, "is there room for its output?")
        };
        let number = self.started.get();
        self.started.set(number + 1);
        let reports = self.folder.join(format!("reports-{number}"));
        let errors = self.folder.join(format!("errors-{number}"));
        let file = |path| File::create(path).map(Stdio::from);
        let mut command = Command::new(&self.program);
        command
            .args(arguments)
            .args(["--timeout", PATIENCE, "--json"])
            // What is made ends with its server.
            .args(["--run", RUN, "--keep"])
            .args(&self.options)
            .stdin(Stdio::piped())
            .stdout(file(&reports).map_err(failed)?)
            .stderr(file(&errors).map_err(failed)?)
            // Ctrl-C is for us alone, who then end all that we started.
            .process_group(0);
        let process = spawn_on(self.core, &mut command).map_err(failed)?;
        Ok(Scenario { process, reports, taken: 0, errors })
    }

    /// Waits for the next report. What has not reported after `patience` is given up as over `limit`.
    ///
    /// # Errors
    /// When a signal came.
    pub fn outcome(&self, scenario: &mut Scenario, limit: Duration, patience: Duration) -> Result<Outcome> {
        let began = Instant::now();
        loop {
            if self.stop.load(Ordering::Relaxed) {
                return Err(Failure::Refused("stopped by a signal: the results are not complete".into()));
            }
            if let Some(outcome) = scenario.outcome(limit)? {
                return Ok(outcome);
            }
            if began.elapsed() > patience {
                return Ok(Outcome::OverLimit { seconds: limit.as_secs_f64() });
            }
            std::thread::sleep(POLL);
        }
    }
}

impl Scenario {
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Lets one that waits measure once more, for so long.
    pub fn ask(&mut self, time: Duration) {
        let line = format!("{}\n", humantime::format_duration(time));
        // To one that has ended nothing can be written; its outcome tells why.
        let _ = self.process.stdin.as_mut().expect("it is a pipe").write_all(line.as_bytes());
    }

    /// What came of it, if it has come to that.
    fn outcome(&mut self, limit: Duration) -> Result<Option<Outcome>> {
        let ended = self.process.try_wait().map_err(|error| {
            Failure::io("wait for a scenario", error, "nobody else may wait for our processes")
        })?;
        if let Some(report) = self.report() {
            self.taken += 1;
            return Ok(Some(Outcome::Measured(report)));
        }
        Ok(ended.map(|status| match status.code() {
            Some(code) if code == i32::from(LATE) => Outcome::OverLimit { seconds: limit.as_secs_f64() },
            _ => {
                let errors = std::fs::read_to_string(&self.errors).unwrap_or_default();
                let error = errors.lines().last().map_or_else(|| status.to_string(), str::to_owned);
                Outcome::Failed { error }
            }
        }))
    }

    /// The next report, once it is whole.
    fn report(&self) -> Option<Report> {
        let reports = std::fs::read_to_string(&self.reports).unwrap_or_default();
        serde_json::from_str(reports.split_inclusive('\n').nth(self.taken)?.strip_suffix('\n')?).ok()
    }
}

impl Drop for Scenario {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::report;

    const MOMENT: Duration = Duration::from_millis(50);
    const LONG: Duration = Duration::from_secs(60);

    /// A shell that plays the scenario.
    fn generator(folder: &tempfile::TempDir) -> Generator {
        let core = super::super::cpu::tests::any_core();
        let (folder, stop) = (folder.path().to_owned(), Arc::default());
        Generator { program: "sh".into(), core, folder, options: Vec::new(), stop, started: Cell::default() }
    }

    fn play(script: &str, limit: Duration) -> (Outcome, Scenario) {
        let folder = tempfile::tempdir().unwrap();
        let generator = generator(&folder);
        let mut scenario = generator.start(&["-c".to_owned(), script.to_owned()]).unwrap();
        (generator.outcome(&mut scenario, limit, limit).unwrap(), scenario)
    }

    #[test]
    fn one_that_waits_reports_each_time_it_is_asked() {
        let json = serde_json::to_string(&report(7.0, false)).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let generator = generator(&folder);
        let script = format!("while read -r time && test $time = 50ms; do echo '{json}'; done; exit {LATE}");
        let mut scenario = generator.start(&["-c".to_owned(), script]).unwrap();
        for _ in 0..2 {
            assert_eq!(scenario.outcome(LONG).unwrap(), None, "nobody has asked");
            scenario.ask(MOMENT);
            let outcome = generator.outcome(&mut scenario, LONG, LONG).unwrap();
            assert_eq!(outcome, Outcome::Measured(report(7.0, false)));
        }
        drop(scenario.process.stdin.take());
        let ended = generator.outcome(&mut scenario, LONG, LONG).unwrap();
        assert_eq!(ended, Outcome::OverLimit { seconds: 60.0 });
    }

    #[test]
    fn a_report_is_taken_from_a_scenario_that_goes_on() {
        let json = serde_json::to_string(&report(7.0, false)).unwrap();
        let (outcome, scenario) = play(&format!("echo '{json}'; sleep 60"), LONG);
        assert_eq!(outcome, Outcome::Measured(report(7.0, false)));
        let proc = format!("/proc/{}", scenario.pid());
        assert!(std::fs::exists(&proc).unwrap(), "it goes on");
        drop(scenario);
        assert!(!std::fs::exists(&proc).unwrap(), "it is ended");
    }

    #[test]
    fn what_takes_too_long_is_over_its_limit() {
        assert_eq!(play("sleep 60", MOMENT).0, Outcome::OverLimit { seconds: 0.05 });
        assert_eq!(play(&format!("exit {LATE}"), LONG).0, Outcome::OverLimit { seconds: 60.0 });
    }

    #[test]
    fn the_last_line_tells_what_failed() {
        let failed = |error: &str| Outcome::Failed { error: error.into() };
        assert_eq!(play("echo progress >&2; echo wrong answer >&2; exit 1", LONG).0, failed("wrong answer"));
        assert_eq!(play("exit 2", LONG).0, failed("exit status: 2"));
        assert_eq!(play("kill -9 $$", LONG).0, failed("signal: 9 (SIGKILL)"));
    }

    #[test]
    fn a_signal_ends_the_wait() {
        let folder = tempfile::tempdir().unwrap();
        let generator = generator(&folder);
        generator.stop.store(true, Ordering::Relaxed);
        let mut scenario = generator.start(&["-c".to_owned(), "sleep 60".to_owned()]).unwrap();
        let stopped = generator.outcome(&mut scenario, LONG, LONG);
        assert!(stopped.unwrap_err().to_string().starts_with("stopped by a signal"));
    }
}
