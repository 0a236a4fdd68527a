//! The table: a line for each figure, a column for each server.

use std::fmt::Write;

use super::measure::{MEASURES, Measure, Score, Unit};
use super::record::{Comparison, Contender};
use super::suite::Name;

/// What was compared, how, and with what result, as Markdown.
pub fn markdown(comparison: &Comparison) -> String {
    let mut text = heading(comparison);
    text += &table(comparison);
    text += &legend(comparison);
    text
}

fn heading(comparison: &Comparison) -> String {
    let Comparison { command, version, commit, began, seconds, host, cores, servers, .. } = comparison;
    let commit = commit.as_deref().unwrap_or("unknown");
    let mut text = format!(
        "`{command}`\n\n\
         lookupd-perf {version}, commit {commit}, {began}, {seconds:.0} s. {} ({} cores, {}), {}. \
         Servers on core {}, load on core {}; load average before: {}.\n\n",
        host.cpu,
        host.cores,
        bytes(approximate(host.memory_bytes)),
        host.kernel,
        cores.server,
        cores.load,
        significant(host.load_average),
    );
    for Contender { name, command, version, .. } in servers {
        let version = version.as_deref().unwrap_or("no version");
        writeln!(text, "- {name}: {version}, `{command}`").expect("a String takes everything");
    }
    text + "\n"
}

/// The table itself: a line for each measure that any server has at a scale.
pub fn table(comparison: &Comparison) -> String {
    let mut lines = vec![header(comparison)];
    for scale in &comparison.scales {
        for measure in &MEASURES {
            let scores: Vec<_> = comparison
                .servers
                .iter()
                .map(|server| Score::of(comparison, scale.name, measure, server))
                .collect();
            if scores.iter().any(|score| *score != Score::Absent) {
                lines.push(line(scale.name, measure, &scores));
            }
        }
    }
    aligned(&lines)
}

fn header(comparison: &Comparison) -> Vec<String> {
    let names = comparison.servers.iter().map(|server| server.name.clone());
    [String::new(), "median [range] (ratio)".to_owned()].into_iter().chain(names).collect()
}

fn line(scale: Name, measure: &Measure, scores: &[Score]) -> Vec<String> {
    let cells = scores.iter().enumerate().map(|(place, score)| {
        let ratio = if place > 0 { score.ratio_to(&scores[0]) } else { None };
        cell(measure.unit, score, ratio)
    });
    [scale.to_string(), measure.label.to_owned()].into_iter().chain(cells).collect()
}

fn cell(unit: Unit, score: &Score, ratio: Option<f64>) -> String {
    match score {
        Score::Absent => "-".into(),
        Score::Unknown => "?".into(),
        Score::Failed => "failed".into(),
        Score::OverLimit { seconds, over, of } if over == of => format!("> {}", time(*seconds)),
        Score::OverLimit { seconds, over, of } => format!("> {} ({over} of {of})", time(*seconds)),
        Score::Measured { spread, is_client_bound } => {
            let mark = if *is_client_bound && unit == Unit::PerSecond { "*" } else { "" };
            let [median, min, max] = [spread.median, spread.min, spread.max].map(|value| quantity(unit, value));
            let ratio = ratio.map(|ratio| format!(" ({}x)", significant(ratio))).unwrap_or_default();
            format!("{median}{mark} [{min} .. {max}]{ratio}")
        }
    }
}

fn legend(comparison: &Comparison) -> String {
    let mut text = String::from("\n");
    for scale in &comparison.scales {
        let population = scale.population;
        writeln!(
            text,
            "- {}: {} producers, each with {} of {} topics, {} channel each; {} registrations, answers of {}",
            scale.name,
            grouped(population.producers.into()),
            grouped(population.topics_per_producer.into()),
            grouped(population.topics.into()),
            population.channels,
            grouped(population.registrations()),
            bytes(approximate(scale.answer_bytes() as u64)),
        )
        .expect("a String takes everything");
    }
    text += "- (x): the median as a multiple of the first server's. -: the server keeps no registry, or has no such port. \
             *: the client was the bottleneck, the server is able to do more. > : given up after that time. \
             ?: not in the reports.\n";
    for failure in comparison.failures() {
        writeln!(text, "- failed: {failure}").expect("a String takes everything");
    }
    text
}

/// Cells in columns of equal width, as a Markdown table.
fn aligned(lines: &[Vec<String>]) -> String {
    let columns = lines.iter().map(Vec::len).max().unwrap_or(0);
    let width =
        |column: usize| lines.iter().filter_map(|line| line.get(column)).map(|cell| cell.chars().count()).max();
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0).max(3)).collect();
    let row = |cells: &[String]| {
        let cells: Vec<_> = cells.iter().zip(&widths).map(|(cell, &width)| format!("{cell:width$}")).collect();
        format!("| {} |\n", cells.join(" | "))
    };
    let mut text = String::new();
    for (number, line) in lines.iter().enumerate() {
        text += &row(line);
        if number == 0 {
            text += &row(&widths.iter().map(|width| "-".repeat(*width)).collect::<Vec<_>>());
        }
    }
    text
}

/// A value with its unit.
pub fn quantity(unit: Unit, value: f64) -> String {
    match unit {
        Unit::PerCpuSecond | Unit::PerSecond => significant(value),
        Unit::Bytes => bytes(value),
        Unit::Seconds => time(value),
    }
}

#[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
fn approximate(number: u64) -> f64 {
    number as f64
}

fn time(seconds: f64) -> String {
    match seconds {
        1.0.. => format!("{} s", significant(seconds)),
        1e-3.. => format!("{} ms", significant(seconds * 1e3)),
        _ => format!("{} us", significant(seconds * 1e6)),
    }
}

fn bytes(bytes: f64) -> String {
    match bytes {
        1e9.. => format!("{} GB", significant(bytes / 1e9)),
        1e6.. => format!("{} MB", significant(bytes / 1e6)),
        1e3.. => format!("{} KB", significant(bytes / 1e3)),
        _ => format!("{} B", significant(bytes)),
    }
}

/// Three digits, more only before the decimal point.
fn significant(value: f64) -> String {
    let decimals = match value.abs() {
        0.0 | 99.95.. => 0,
        9.995.. => 1,
        0.9995.. => 2,
        _ => 3,
    };
    let text = format!("{value:.decimals$}");
    match text.parse() {
        Ok(whole) => grouped(whole),
        Err(_) => text,
    }
}

/// Thousands apart.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::record::tests::comparison;
    use super::*;
    use crate::compare::statistics::Spread;

    #[test]
    fn numbers_have_three_digits_and_thousands_apart() {
        let texts =
            [(0.0, "0"), (0.0213, "0.021"), (0.5, "0.500"), (9.994, "9.99"), (99.94, "99.9"), (99.96, "100")];
        for (value, text) in texts.into_iter().chain([(1234.4, "1,234"), (58_012.3, "58,012"), (1e6, "1,000,000")])
        {
            assert_eq!(significant(value), text, "{value}");
        }
    }

    #[test]
    fn units_suit_the_size() {
        assert_eq!(quantity(Unit::Seconds, 0.000_078), "78.0 us");
        assert_eq!(quantity(Unit::Seconds, 0.133), "133 ms");
        assert_eq!(quantity(Unit::Seconds, 30.0), "30.0 s");
        assert_eq!(quantity(Unit::Bytes, 345e6), "345 MB");
        assert_eq!(quantity(Unit::Bytes, 63.0), "63.0 B");
        assert_eq!(quantity(Unit::PerSecond, 21_605.0), "21,605");
    }

    #[test]
    fn every_score_is_shown() {
        let spread = Spread { median: 2.0, min: 1.0, max: 4.0 };
        let measured = |is_client_bound| Score::Measured { spread, is_client_bound };
        let over = |over| Score::OverLimit { seconds: 30.0, over, of: 3 };
        let shown = |unit, score, ratio| cell(unit, &score, ratio);
        assert_eq!(shown(Unit::Seconds, Score::Absent, None), "-");
        assert_eq!(shown(Unit::Seconds, Score::Unknown, None), "?");
        assert_eq!(shown(Unit::Seconds, Score::Failed, None), "failed");
        assert_eq!(shown(Unit::Seconds, over(3), None), "> 30.0 s");
        assert_eq!(shown(Unit::Seconds, over(1), None), "> 30.0 s (1 of 3)");
        assert_eq!(shown(Unit::PerSecond, measured(true), Some(0.5)), "2.00* [1.00 .. 4.00] (0.500x)");
        assert_eq!(shown(Unit::PerCpuSecond, measured(true), None), "2.00 [1.00 .. 4.00]");
    }

    #[test]
    fn columns_are_aligned() {
        let lines = [["a", "bbbb"], ["cc", "d"]].map(|line| line.map(str::to_owned).to_vec());
        assert_eq!(aligned(&lines), "| a   | bbbb |\n| --- | ---- |\n| cc  | d    |\n");
    }

    #[test]
    fn the_first_server_is_what_ratios_are_to_and_nothing_is_left_out() {
        let table = table(&comparison());
        let line = |label: &str| table.lines().find(|line| line.contains(label)).unwrap().to_owned();
        let cells = |label: &str| {
            line(label).split(" | ").map(|cell| cell.trim_matches([' ', '|']).to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(cells("median")[2..], ["stock", "ringlookupd", "floor"]);
        let lookups = cells("lookups for each server CPU second");
        assert_eq!(lookups[0], "S");
        assert_eq!(
            lookups[2..],
            ["200 [100 .. 400]", "1,000 [900 .. 1,100] (5.00x)", "4,000 [4,000 .. 4,000] (20.0x)"]
        );
        assert_eq!(cells("mass disconnect")[2..], ["> 30.0 s", "500 ms [500 ms .. 500 ms]", "-"]);
        assert!(!table.contains("storm"), "no server has played it");
    }

    #[test]
    fn failures_are_told_below() {
        let text = markdown(&comparison());
        assert!(text.contains("- failed: ringlookupd, /nodes at S: wrong answer to GET /nodes"), "{text}");
        assert!(text.contains("`lookupd-perf compare`"), "{text}");
    }
}
