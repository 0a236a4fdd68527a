//! The table: a line for each figure, a column for each server.

use std::fmt::Write;

use super::measure::{MEASURES, RELATIONS};
use super::record::{Comparison, Contender};
use super::scale::Name;
use super::score::Score;
use crate::unit::{Unit, approximate, bytes, grouped, quantity, significant, time, times};

/// What was compared, how, and with what result, as Markdown.
pub fn markdown(comparison: &Comparison) -> String {
    let mut text = heading(comparison);
    text += &table(comparison);
    text += &legend(comparison);
    text
}

fn heading(comparison: &Comparison) -> String {
    let Comparison { command, version, commit, began, seconds, wrk, etcd, host, cores, servers, .. } = comparison;
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
    if let Some(wrk) = wrk {
        writeln!(text, "- the second generator: {wrk}").expect("a String takes everything");
    }
    if let Some(etcd) = etcd {
        writeln!(text, "- on the load's core, one for each cluster: etcd {etcd}")
            .expect("a String takes everything");
    }
    text + "\n"
}

/// The table itself: a line for each measure of which any server has more than a sample at a scale, then one for each
/// relation.
pub fn table(comparison: &Comparison) -> String {
    let mut lines = vec![header(comparison)];
    let scores = |score: &dyn Fn(&Contender) -> Score| comparison.servers.iter().map(score).collect::<Vec<_>>();
    let is_there = |scores: &[Score]| scores.iter().any(Score::is_shown);
    for scale in &comparison.scales {
        for measure in MEASURES {
            let scores = scores(&|server| Score::of(comparison, scale.name, measure, server));
            if is_there(&scores) {
                lines.push(line(scale.name, measure.label, measure.unit, &scores));
            }
        }
    }
    for relation in RELATIONS {
        let scores = scores(&|server| Score::between(comparison, relation, server));
        if is_there(&scores) {
            lines.push(line(relation.of.0, relation.label, Unit::Times, &scores));
        }
    }
    aligned(&lines)
}

fn header(comparison: &Comparison) -> Vec<String> {
    let names = comparison.servers.iter().map(|server| server.name.clone());
    [String::new(), "median [range] (ratio)".to_owned()].into_iter().chain(names).collect()
}

fn line(scale: Name, label: &str, unit: Unit, scores: &[Score]) -> Vec<String> {
    let cells = scores.iter().enumerate().map(|(place, score)| {
        // What is a ratio already has no other.
        let has_ratio = place > 0 && unit != Unit::Times;
        cell(unit, score, if has_ratio { score.ratio_to(&scores[0]) } else { None })
    });
    [scale.to_string(), label.to_owned()].into_iter().chain(cells).collect()
}

fn cell(unit: Unit, score: &Score, ratio: Option<f64>) -> String {
    match score {
        Score::Absent => "-".into(),
        Score::Unknown => "?".into(),
        Score::Failed => "failed".into(),
        Score::OverLimit { seconds, over, of } if over == of => format!("> {}", time(*seconds)),
        Score::OverLimit { seconds, over, of } => format!("> {} ({over} of {of})", time(*seconds)),
        Score::Measured { is_client_bound, .. } => {
            let Some(spread) = score.spread() else { return "?".into() };
            let mark = if *is_client_bound && unit == Unit::PerSecond { "*" } else { "" };
            let [median, min, max] = [spread.median, spread.min, spread.max].map(|value| quantity(unit, value));
            let ratio = ratio.map(|ratio| format!(" ({})", times(ratio))).unwrap_or_default();
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
            "- {}: producers {}, topics of each {}, topics {}, channels of each {}; {} registrations, answers of {}",
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
    text += "- (x): as a multiple of the first server, the median over rounds. -: the server keeps no registry, has no watches, is no cluster, or has no such port. \
             *: the client was the bottleneck, the server is able to do more. > : given up after that time. \
             ?: not in the reports. What was measured once is in results.json alone.\n";
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

#[cfg(test)]
mod tests {
    use super::super::record::tests::comparison;
    use super::*;

    #[test]
    fn every_score_is_shown() {
        let measured = |is_client_bound| Score::Measured { samples: vec![1.0, 4.0, 2.0], is_client_bound };
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
            ["200 [100 .. 400]", "1,000 [900 .. 1,100] (5.50x)", "4,000 [4,000 .. 4,000] (20.0x)"]
        );
        assert_eq!(cells("mass disconnect")[2..], ["> 30.0 s", "500 ms [500 ms .. 500 ms]", "-"]);
        assert!(!table.contains("storm"), "no server has played it");
        assert!(!table.contains("with churn"), "it was played once");
    }

    #[test]
    fn failures_are_told_below() {
        let text = markdown(&comparison());
        assert!(text.contains("- failed: ringlookupd, /nodes at S: wrong answer to GET /nodes"), "{text}");
        assert!(text.contains("`lookupd-perf compare`") && text.contains("generator: wrk 4.1.0\n"), "{text}");
        assert!(text.contains("one for each cluster: etcd 3.5.0\n"), "{text}");
    }
}
