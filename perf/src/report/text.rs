//! A report for people: what was measured in words, in columns, with a histogram of the latencies.

use std::fmt::{self, Display, Formatter};

use super::{Bar, Latency, Report, restarts};
use crate::unit::{approximate, bytes, grouped, significant, time, times};

/// Of the highest bar.
const BAR_CHARACTERS: f64 = 40.0;

/// Lines that belong together: a label and a value each.
struct Section {
    title: String,
    lines: Vec<(String, String)>,
}

impl Display for Report {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { scenario, seconds, operations, per_second, histogram, .. } = self;
        let (operations, elapsed) = (grouped(*operations), time(*seconds));
        write!(f, "{scenario}: {operations} operations in {elapsed}, {} a second", significant(*per_second))?;
        let sections = sections(self);
        let lines = || sections.iter().flat_map(|section| &section.lines);
        let [labels, values] =
            [lines().map(|line| width(&line.0)).max(), lines().map(|line| width(&line.1)).max()];
        for Section { title, lines } in &sections {
            write!(f, "\n\n{title}")?;
            for (label, value) in lines {
                write!(
                    f,
                    "\n  {label:labels$}  {value:>values$}",
                    labels = labels.unwrap_or(0),
                    values = values.unwrap_or(0)
                )?;
            }
        }
        if !self.restarts.is_empty() {
            write!(f, "\n\nRestarts")?;
            restarts::table(&self.restarts).iter().try_for_each(|line| write!(f, "\n  {line}"))?;
        }
        if !histogram.is_empty() {
            write!(f, "\n\nHistogram of latencies")?;
            draw(f, histogram)?;
        }
        if self.client_bound {
            write!(f, "\n\nThe client was the bottleneck: its core was busy, the server's was not.")?;
        }
        Ok(())
    }
}

fn width(text: &str) -> usize {
    text.chars().count()
}

fn sections(report: &Report) -> Vec<Section> {
    let mut sections = Vec::new();
    let mut add = |title: &str, lines: Vec<(&str, String)>| {
        let lines = lines.into_iter().map(|(label, value)| (label.to_owned(), value)).collect();
        sections.push(Section { title: title.to_owned(), lines });
    };
    if let Some(Latency { p50, p90, p99, p999, max }) = report.latency_us {
        let quantiles = [("p50", p50), ("p90", p90), ("p99", p99), ("p999", p999), ("max", max)];
        let lines = quantiles.map(|(name, micros)| (quantile(name).unwrap_or(name), time(micros / 1e6)));
        add("Latency", lines.into());
    }
    if let Some(server) = report.server {
        let rate = match server.operations_per_cpu_second {
            0.0 => "too little to tell".into(),
            rate => significant(rate),
        };
        let lines = vec![
            ("CPU time", time(server.cpu_seconds)),
            ("operations for each CPU second", rate),
            ("resident memory", bytes(approximate(server.rss_bytes))),
            ("open files", grouped(server.open_files)),
        ];
        add(&format!("Server, process {}", server.pid), lines);
    }
    let client = report.client;
    let share = format!("{} %", significant((client.busy * 1e3).round() / 10.0));
    add("Client", vec![("CPU time", time(client.cpu_seconds)), ("share of a core", share)]);
    let mut figures: Vec<_> = report.figures.iter().collect();
    // The longest of all after the other quantiles.
    figures.sort_by_key(|(name, _)| name.replace("_max", "_~"));
    if !figures.is_empty() {
        let lines = figures.into_iter().map(|(name, value)| words(name, *value)).collect();
        sections.push(Section { title: "Figures".into(), lines });
    }
    sections
}

/// What a quantile's short name means.
fn quantile(name: &str) -> Option<&'static str> {
    Some(match name {
        "p50" => "median",
        "p90" => "90 % within",
        "p99" => "99 % within",
        "p999" => "99.9 % within",
        "max" => "longest",
        _ => return None,
    })
}

/// A figure in words. Its unit is in its name.
fn words(name: &str, value: f64) -> (String, String) {
    let mut words: Vec<&str> = name.split('_').collect();
    let has = |word: &str| name.split('_').any(|other| other == word);
    let text = match () {
        () if has("us") => time(value / 1e6),
        () if has("seconds") => time(value),
        () if has("bytes") => bytes(value),
        () if has("ratio") => times(value),
        () if name == "seed" => format!("{value}"),
        () => significant(value),
    };
    words.retain(|word| *word != "us");
    let quantile = words.last().and_then(|word| quantile(word));
    words.truncate(words.len() - usize::from(quantile.is_some()));
    let label = words.join(" ");
    let label =
        label.replace("rss bytes", "resident memory").replace("bytes", "size").replace("per ", "for each ");
    let label = label.replace("cpu second", "CPU second").replace("for each second", "a second");
    let label = label.replace("seconds", "time").replace(" cpu", " CPU time");
    (quantile.map_or(label.clone(), |quantile| format!("{label}, {quantile}")), text)
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a few characters")]
fn draw(f: &mut Formatter<'_>, histogram: &[Bar]) -> fmt::Result {
    let counts = || histogram.iter().map(|bar| bar.count);
    let (all, highest) = (approximate(counts().sum()), approximate(counts().max().unwrap_or(0)));
    let limits: Vec<_> = histogram.iter().map(|bar| time(bar.up_to_us / 1e6)).collect();
    let limit = limits.iter().map(|limit| width(limit)).max().unwrap_or(0);
    for (bar, up_to) in histogram.iter().zip(&limits) {
        let count = approximate(bar.count);
        let characters = (count / highest * BAR_CHARACTERS).ceil() as usize;
        let share = 100.0 * count / all;
        write!(f, "\n  up to {up_to:>limit$}  {share:5.1} %  {}", "#".repeat(characters))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::tests::report;
    use super::*;

    #[test]
    fn a_report_is_in_words_and_in_columns() {
        let mut report = report(301_234.0, true);
        let bar = |up_to_us, count| Bar { up_to_us, count };
        report.histogram = vec![bar(200.0, 750), bar(300.0, 0), bar(1000.0, 250)];
        report.figures = [("lookup_without_writes_us_max", 1234.0), ("lookup_without_writes_us_p50", 5.0)]
            .map(|(name, value)| (name.to_owned(), value))
            .into();
        let expected = "\
lookup: 1,000 operations in 1.00 s, 1,000 a second

Latency
  median                           100 us
  90 % within                      200 us
  99 % within                      400 us
  99.9 % within                    800 us
  longest                         1.60 ms

Server, process 1
  CPU time                         1.00 s
  operations for each CPU second  301,234
  resident memory                 67.1 MB
  open files                            9

Client
  CPU time                         1.00 s
  share of a core                   100 %

Figures
  lookup without writes, median   5.00 us
  lookup without writes, longest  1.23 ms

Histogram of latencies
  up to  200 us   75.0 %  ########################################
  up to  300 us    0.0 %  
  up to 1.00 ms   25.0 %  ##############

The client was the bottleneck: its core was busy, the server's was not.";
        assert_eq!(report.to_string(), expected);
    }

    #[test]
    fn a_figure_is_told_in_words_with_its_unit() {
        let table = [
            ("seconds_until_complete", 0.25, "time until complete", "250 ms"),
            ("writes_per_second", 99.5, "writes a second", "99.5"),
            ("visible_after_ok_us_p999", 1500.0, "visible after ok, 99.9 % within", "1.50 ms"),
            ("rss_bytes_per_connection", 988.0, "resident memory for each connection", "988 B"),
            ("large_answer_bytes", 2e6, "large answer size", "2.00 MB"),
            ("cycle_to_send_ratio", 1.5, "cycle to send ratio", "1.50x"),
            ("server_cpu_us_per_cycle", 12.0, "server CPU time for each cycle", "12.0 us"),
            ("lookups_per_cpu_second_with_changes", 5e4, "lookups for each CPU second with changes", "50,000"),
            ("instance_2_rss_bytes_before", 1e6, "instance 2 resident memory before", "1.00 MB"),
            ("topics_watched", 1000.0, "topics watched", "1,000"),
            ("seed", 4_012_345_678.0, "seed", "4012345678"),
        ];
        for (name, value, label, text) in table {
            assert_eq!(words(name, value), (label.to_owned(), text.to_owned()), "{name}");
        }
    }
}
