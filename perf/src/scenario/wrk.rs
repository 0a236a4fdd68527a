//! `wrk`: lookups as another generator sends them. It reads no answer, so it needs less of its core than this program,
//! and the server meets other batches: what a lookup costs the server depends on who asks.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::process::{Command, Stdio};
use std::rc::Rc;
use std::time::Duration;

use serde::Deserialize;

use super::Context;
use super::again::Running;
use super::load::Questions;
use super::lookup::parse_path;
use super::options::{For, Load};
use crate::failure::{Failure, Result};
use crate::measure::{Latencies, Usage, children_cpu};
use crate::population::Population;
use crate::progress::{Goal, Progress};
use crate::report::{Latency, Report};

const PROGRAM: &str = "wrk";
const INSTALL: &str = "install it (Debian's package wrk)";
const ASK_AGAIN: Duration = Duration::from_millis(10);
/// Has wrk print what it found as one line of JSON, times in microseconds. A script without `request` and `response`
/// costs wrk nothing while it measures.
const SCRIPT: &str = r#"
function done(summary, latency, requests)
    local e = summary.errors
    io.write(string.format('\n{"requests":%d,"micros":%d,"failed":%d,"p50":%d,"p90":%d,"p99":%d,"p999":%d,"max":%d}\n',
        summary.requests, summary.duration, e.connect + e.read + e.write + e.status + e.timeout,
        latency:percentile(50), latency:percentile(90), latency:percentile(99), latency:percentile(99.9), latency.max))
end
"#;

#[derive(Debug, clap::Args)]
#[command(mut_arg("time", |arg| arg.help("How long to ask; wrk knows whole seconds")))]
pub struct Options {
    #[command(flatten)]
    pub population: Population,
    #[command(flatten)]
    pub load: Load,
    /// Threads of wrk
    #[arg(short, long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..1_000))]
    pub threads: u32,
    /// Ask for this instead of the first topic
    #[arg(long, value_name = "TARGET", value_parser = parse_path)]
    pub path: Option<String>,
}

/// What [`SCRIPT`] prints.
#[derive(Debug, Deserialize)]
struct Found {
    requests: u64,
    micros: f64,
    failed: u64,
    p50: f64,
    p90: f64,
    p99: f64,
    p999: f64,
    max: f64,
}

/// What wrk calls itself, if it is there.
pub fn version() -> Option<String> {
    let output = Command::new(PROGRAM).arg("--version").output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout);
    Some(text.split(" Copyright").next()?.trim().to_owned())
}

/// wrk looks at nothing but the status: one answer before and one after are looked at here.
///
/// # Errors
/// A wrong answer, and a request of wrk's that failed.
pub async fn run(context: Rc<Context>, options: &Options) -> Result<()> {
    let questions = match &options.path {
        Some(path) => Questions::Path(path.clone()),
        None => Questions::lookups(context.run_of(false)?, options.population, None),
    };
    let target = questions.target(0);
    let mut client = context.consumer().await?;
    client.get(target, |answer| questions.check(0, answer)).await?;

    let script = written(SCRIPT)?;
    let Load { connections, period: For { time } } = options.load;
    let threads = options.threads.min(connections);
    let mut command = Command::new(PROGRAM);
    command
        .args([format!("-c{connections}"), format!("-t{threads}"), format!("-d{}s", seconds(time))])
        .arg("-s")
        .arg(script.path())
        .arg(format!("http://{}{target}", context.http))
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    let progress = Progress::show("asking with wrk", "answers", Goal::Time(time));
    let before = children_cpu()?;
    let meter = context.meter()?;
    let mut child = Running(command.spawn().map_err(|error| Failure::io("start wrk", error, INSTALL))?);
    let Some(output) = context.stop.run_until_cancelled(output(&mut child)).await.transpose()? else {
        return Ok(());
    };
    let usage = meter.read()?;
    let wrk_cpu = children_cpu()?.saturating_sub(before).as_secs_f64();
    drop(progress);

    let report = report(usage, wrk_cpu, &format!("GET {target}, by wrk"), &output)?;
    client.get(target, |answer| questions.check(0, answer)).await?;
    context.print(&report)
}

/// Whole seconds, one at least.
fn seconds(time: Duration) -> u64 {
    time.as_secs() + u64::from(time.subsec_nanos() > 0 || time.is_zero())
}

fn written(script: &str) -> Result<tempfile::NamedTempFile> {
    let failed = |error| Failure::io("write a script for wrk", error, "set TMPDIR to where there is room");
    let mut file = tempfile::NamedTempFile::new().map_err(failed)?;
    file.write_all(script.as_bytes()).map_err(failed)?;
    Ok(file)
}

/// Waits for the end of wrk, and what it printed by then.
async fn output(Running(wrk): &mut Running) -> Result<String> {
    let failed = |error| Failure::io("run wrk", error, INSTALL);
    while wrk.try_wait().map_err(failed)?.is_none() {
        tokio::time::sleep(ASK_AGAIN).await;
    }
    let mut text = String::new();
    let stdout = wrk.stdout.as_mut().expect("it is a pipe");
    stdout.read_to_string(&mut text).map_err(failed)?;
    Ok(text)
}

/// What wrk printed, as a report of this program's.
fn report(usage: Usage, wrk_cpu: f64, question: &str, output: &str) -> Result<Report> {
    let line = output.lines().rev().find(|line| line.starts_with('{'));
    let Some(found) = line.and_then(|line| serde_json::from_str::<Found>(line).ok()) else {
        return Err(Failure::Refused(format!("wrk has not measured: \"{}\"", output.escape_default())));
    };
    if found.failed > 0 {
        let problem = format_args!("{} of {} requests failed", found.failed, found.requests);
        return Err(Failure::wrong(question, problem, output.as_bytes()));
    }
    let Found { p50, p90, p99, p999, max, .. } = found;
    let seconds = found.micros / 1e6;
    let usage = usage.and_of_a_child(wrk_cpu);
    let report = usage.report("wrk", found.requests, &Latencies::default(), BTreeMap::new())?;
    #[expect(clippy::cast_precision_loss, reason = "rates are not exact")]
    let per_second = found.requests as f64 / seconds;
    Ok(Report { seconds, per_second, latency_us: Some(Latency { p50, p90, p99, p999, max }), ..report })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::Meter;

    fn reported(output: &str) -> Result<Report> {
        report(Meter::start(None).unwrap().read().unwrap(), 0.5, "GET /ping, by wrk", output)
    }

    #[test]
    fn what_wrk_prints_becomes_a_report() {
        let line = r#"{"requests":3000,"micros":1500000,"failed":0,"p50":1,"p90":2,"p99":3,"p999":4,"max":5}"#;
        let report = reported(&format!("Running 1s test\nRequests/sec: 2000\n\n{line}\n")).unwrap();
        assert_eq!((report.operations, report.per_second, report.seconds), (3000, 2000.0, 1.5));
        assert_eq!(report.latency_us, Some(Latency { p50: 1.0, p90: 2.0, p99: 3.0, p999: 4.0, max: 5.0 }));
        assert!(report.client.cpu_seconds >= 0.5);
    }

    #[test]
    fn a_request_that_failed_is_a_wrong_answer() {
        let line = r#"{"requests":30,"micros":1,"failed":2,"p50":1,"p90":2,"p99":3,"p999":4,"max":5}"#;
        let text = reported(line).unwrap_err().to_string();
        assert!(text.starts_with("wrong answer to GET /ping, by wrk: 2 of 30 requests failed"), "{text}");
        assert!(reported("no such file").unwrap_err().to_string().contains("has not measured"));
    }

    #[test]
    fn wrk_measures_whole_seconds() {
        let times = [0, 50, 1000, 1001].map(|millis| seconds(Duration::from_millis(millis)));
        assert_eq!(times, [1, 1, 1, 2]);
    }
}
