//! What the plots show.

use super::cell::Cell;
use super::measure::{MEASURES, Measure};
use super::record::{Comparison, Contender, Outcome};
use super::scale::{Name, Scale};
use super::score::Score;
use super::statistics::Spread;
use crate::report::Report;
use crate::unit::{Unit, quantity};

/// The server that the others are there to be held against: drawn last and thickest.
const MAIN: &str = "ringlookupd";
/// A server that differs from another in single round trips only: its lines would lie on that one's.
const NOT_DRAWN: &str = "busy-poll";

/// One picture.
#[derive(Clone, Debug, PartialEq)]
pub struct Chart {
    /// The file's name without its ending.
    pub name: String,
    pub title: String,
    pub x: Axis,
    /// What the vertical axis shows.
    pub y: &'static str,
    pub unit: Unit,
    /// In the order in which they are drawn.
    pub lines: Vec<Line>,
}

/// What the horizontal axis shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Axis {
    Registrations,
    /// As 1 / (1 - quantile), so that each nine takes as much room as the one before.
    Quantile,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Line {
    pub label: String,
    /// Which server's colour.
    pub server: usize,
    pub is_main: bool,
    pub dashed: bool,
    pub points: Vec<(f64, f64)>,
    /// Where a server was given up: the truth lies above.
    pub open: Vec<(f64, f64)>,
}

/// Every chart that the samples suffice for.
pub fn charts(comparison: &Comparison) -> Vec<Chart> {
    let mut charts = vec![
        by_registrations(
            comparison,
            "lookups",
            ["Lookups against the size of the registry", "lookups for each CPU second of the server"],
            Cell::Lookup,
            Unit::PerCpuSecond,
        ),
        by_registrations(
            comparison,
            "memory",
            ["Memory against the size of the registry", "resident memory of the server"],
            Cell::Populate,
            Unit::Bytes,
        ),
        by_registrations(
            comparison,
            "disconnect",
            ["All producers disconnect at once", "time until no lookup shows a producer"],
            Cell::Disconnect,
            Unit::Seconds,
        ),
    ];
    charts.extend(comparison.scales.iter().map(|scale| latencies(comparison, scale)));
    for scale in &comparison.scales {
        charts.push(arrivals(
            comparison,
            scale,
            "watch",
            ["From the OK to REGISTER to a watcher", "time until a watcher knows"],
            &[(Cell::Watch, ""), (Cell::LongPoll, ", long polls"), (Cell::Poll, ", polls")],
        ));
        charts.push(arrivals(
            comparison,
            scale,
            "cluster",
            ["From the OK at one instance to each other", "time until the instance lists the change"],
            &[(Cell::Cluster, "")],
        ));
    }
    charts.retain(|chart| !chart.lines.is_empty());
    for chart in &mut charts {
        chart.lines.sort_by_key(|line| line.is_main);
    }
    charts
}

/// A cell's first measure in that unit, over the size of the population.
fn by_registrations(
    comparison: &Comparison,
    name: &str,
    [title, y]: [&'static str; 2],
    cell: Cell,
    unit: Unit,
) -> Chart {
    let is_wanted = |measure: &&Measure| measure.cell == cell && measure.unit == unit;
    let measure = MEASURES.iter().find(is_wanted).expect("every chart shows a measure of the table");
    let lines = drawn(comparison).map(|(place, server)| {
        let mut line = Line::of(server, "", place);
        for scale in comparison.scales.iter().filter(|scale| scale.name.is_a_size()) {
            let (x, score) = (registrations(scale), Score::of(comparison, scale.name, measure, server));
            line.points.extend(score.spread().map(|spread| (x, spread.median)));
            if let (Score::OverLimit { seconds, .. }, Unit::Seconds) = (score, unit) {
                line.open.push((x, seconds));
            }
        }
        line
    });
    let lines = lines.filter(|line| !line.points.is_empty() || !line.open.is_empty()).collect();
    Chart { name: name.into(), title: title.into(), x: Axis::Registrations, y, unit, lines }
}

#[expect(clippy::cast_precision_loss, reason = "a place on an axis")]
fn registrations(scale: &Scale) -> f64 {
    scale.population.registrations() as f64
}

/// The distribution of lookup latency, with and without churn: medians of each quantile.
fn latencies(comparison: &Comparison, scale: &Scale) -> Chart {
    let mut lines = Vec::new();
    for (place, server) in drawn(comparison) {
        let reports: Vec<&Report> = reports(comparison, scale.name, Cell::Churn, &server.name).collect();
        for (label, dashed) in [("", false), (" with churn", true)] {
            let mut line = Line { dashed, ..Line::of(server, label, place) };
            for (x, name) in QUANTILES {
                let values = reports.iter().filter_map(|report| quantile(report, name, dashed));
                line.points.extend(Spread::of(values).map(|spread| (x, spread.median / 1e6)));
            }
            if !line.points.is_empty() {
                lines.push(line);
            }
        }
    }
    Chart {
        name: format!("latency-{}", scale.name.to_string().to_lowercase()),
        title: format!("Lookup latency at a fixed rate, population {}", scale.name),
        x: Axis::Quantile,
        y: "latency of a lookup",
        unit: Unit::Seconds,
        lines,
    }
}

/// The distribution of what a change takes to reach those who are to know of it, in some cells: medians of each quantile.
fn arrivals(
    comparison: &Comparison,
    scale: &Scale,
    name: &str,
    [title, y]: [&'static str; 2],
    cells: &[(Cell, &str)],
) -> Chart {
    let mut lines = Vec::new();
    for (place, server) in drawn(comparison) {
        for &(cell, label) in cells {
            let reports: Vec<&Report> = reports(comparison, scale.name, cell, &server.name).collect();
            let mut line = Line { dashed: !label.is_empty(), ..Line::of(server, label, place) };
            for (x, name) in QUANTILES {
                let values = reports.iter().filter_map(|report| quantile(report, name, true));
                // What came before the OK took no time, which no logarithm shows.
                let spread = Spread::of(values).filter(|spread| spread.median > 0.0);
                line.points.extend(spread.map(|spread| (x, spread.median / 1e6)));
            }
            if !line.points.is_empty() {
                lines.push(line);
            }
        }
    }
    Chart {
        name: format!("{name}-{}", scale.name.to_string().to_lowercase()),
        title: format!("{title}, population {}", scale.name),
        x: Axis::Quantile,
        y,
        unit: Unit::Seconds,
        lines,
    }
}

/// The servers that have lines, with their places.
fn drawn(comparison: &Comparison) -> impl Iterator<Item = (usize, &Contender)> {
    comparison.servers.iter().enumerate().filter(|(_, server)| server.name != NOT_DRAWN)
}

fn reports<'a>(
    comparison: &'a Comparison,
    scale: Name,
    cell: Cell,
    server: &'a str,
) -> impl Iterator<Item = &'a Report> {
    comparison.outcomes(scale, cell, server).filter_map(|outcome| match outcome {
        Outcome::Measured(report) => Some(report),
        _ => None,
    })
}

/// Quantiles by their place on the axis; the largest of all has no nines and stands where 99.99 % would.
const QUANTILES: [(f64, &str); 5] = [(2.0, "p50"), (10.0, "p90"), (100.0, "p99"), (1e3, "p999"), (1e4, "max")];

/// Microseconds.
fn quantile(report: &Report, name: &str, with_churn: bool) -> Option<f64> {
    if !with_churn {
        return report.figures.get(&format!("lookup_without_writes_us_{name}")).copied();
    }
    let latency = report.latency_us?;
    Some(match name {
        "p50" => latency.p50,
        "p90" => latency.p90,
        "p99" => latency.p99,
        "p999" => latency.p999,
        _ => latency.max,
    })
}

impl Line {
    fn of(server: &Contender, label: &str, place: usize) -> Self {
        Self {
            label: format!("{}{label}", server.name),
            server: place,
            is_main: server.name == MAIN,
            dashed: false,
            points: Vec::new(),
            open: Vec::new(),
        }
    }

    /// The last point, where the name stands.
    pub fn end(&self) -> Option<(f64, f64)> {
        let points = self.points.iter().chain(&self.open).copied();
        points.max_by(|one, other| one.0.total_cmp(&other.0))
    }
}

impl Axis {
    pub fn title(self) -> &'static str {
        match self {
            Self::Registrations => "registrations in the registry",
            Self::Quantile => "share of them that took no longer",
        }
    }

    pub fn label(self, value: f64) -> String {
        match self {
            Self::Registrations => quantity(Unit::PerSecond, value),
            Self::Quantile if value >= 9999.0 => "all".into(),
            Self::Quantile => format!("{} %", (1e4 - 1e4 / value).round() / 100.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::record::tests::comparison;
    use super::*;

    #[test]
    fn charts_show_what_there_are_samples_for() {
        let charts = charts(&comparison());
        let names: Vec<_> = charts.iter().map(|chart| &*chart.name).collect();
        assert_eq!(names, ["lookups", "disconnect", "latency-s"]);
        let lookups = &charts[0];
        let labels: Vec<_> = lookups.lines.iter().map(|line| &*line.label).collect();
        assert_eq!(labels, ["stock", "floor", "ringlookupd"], "the last is on top");
        assert_eq!(lookups.lines[2].points, [(10_000.0, 1_000.0)]);
        let disconnect = &charts[1];
        assert_eq!(disconnect.lines[0].open, [(10_000.0, 30.0)], "a limit is shown, too");
        assert_eq!(disconnect.lines[0].end(), Some((10_000.0, 30.0)));
        assert_eq!(disconnect.lines[1].points, [(10_000.0, 0.5)]);
        let [calm, churn] = &charts[2].lines[..] else { panic!("one server has played churn") };
        assert_eq!((calm.dashed, calm.points.len()), (false, 2), "the report has two quantiles of it");
        assert_eq!((churn.dashed, churn.points.len()), (true, 5));
    }

    #[test]
    fn each_way_to_watch_has_a_line() {
        let mut comparison = comparison();
        for sample in &mut comparison.samples {
            match (sample.cell, &*sample.server) {
                (Cell::Lookup, "stock") => sample.cell = Cell::Poll,
                (Cell::Lookup, "ringlookupd") => sample.cell = Cell::Watch,
                _ => {}
            }
        }
        let charts = charts(&comparison);
        let watches = charts.iter().find(|chart| chart.name == "watch-s").unwrap();
        let lines: Vec<_> = watches.lines.iter().map(|line| (&*line.label, line.dashed)).collect();
        assert_eq!(lines, [("stock, polls", true), ("ringlookupd", false)]);
        assert_eq!(watches.lines[1].points[0], (2.0, 100e-6));
    }

    #[test]
    fn changes_between_instances_have_a_chart_of_their_own() {
        let mut comparison = comparison();
        for sample in comparison.samples.iter_mut().filter(|sample| sample.server == "ringlookupd") {
            sample.cell = Cell::Cluster;
        }
        let charts = charts(&comparison);
        let cluster = charts.iter().find(|chart| chart.name == "cluster-s").unwrap();
        let [line] = &cluster.lines[..] else { panic!("one server is a cluster") };
        assert_eq!((&*line.label, line.dashed, line.points[0]), ("ringlookupd", false, (2.0, 100e-6)));
        assert!(charts.iter().all(|chart| chart.name != "watch-s"));
    }

    #[test]
    fn busy_poll_is_in_the_table_alone() {
        let mut comparison = comparison();
        comparison.servers[2].name = NOT_DRAWN.into();
        assert!(charts(&comparison).iter().all(|chart| chart.lines.iter().all(|line| line.server != 2)));
    }

    #[test]
    fn quantiles_are_labelled_by_their_share() {
        let labels = [2.0, 10.0, 100.0, 1e3, 1e4].map(|value| Axis::Quantile.label(value));
        assert_eq!(labels, ["50 %", "90 %", "99 %", "99.9 %", "all"]);
        assert_eq!(Axis::Registrations.label(1e6), "1,000,000");
    }
}
