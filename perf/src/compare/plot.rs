//! The plots, as SVG: both axes logarithmic, a line for each server.

use std::path::Path;

use plotters::coord::combinators::IntoLogRange;
use plotters::element::DashedPathElement;
use plotters::prelude::*;

use super::measure::{MEASURES, Measure, Score, Unit};
use super::record::{Comparison, Outcome};
use super::suite::{Cell, Name, Scale};
use super::table::quantity;
use crate::failure::{Failure, Result};
use crate::report::Report;

const SIZE: (u32, u32) = (880, 480);
const LEGEND_WIDTH: u32 = 180;
const LEGEND_LINE: i32 = 22;
/// Told apart by those who see few colours, too (Okabe and Ito).
const COLOURS: [RGBColor; 6] = [
    RGBColor(0, 0, 0),
    RGBColor(213, 94, 0),
    RGBColor(0, 114, 178),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
];

/// One picture.
#[derive(Clone, Debug, PartialEq)]
pub struct Chart {
    /// The file's name without its ending.
    pub name: String,
    pub title: String,
    pub x: Axis,
    pub unit: Unit,
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
            "Lookups for each server CPU second",
            Cell::Lookup,
            Unit::PerCpuSecond,
        ),
        by_registrations(comparison, "memory", "Resident memory with all registered", Cell::Populate, Unit::Bytes),
        by_registrations(
            comparison,
            "disconnect",
            "From a mass disconnect until no lookup shows it",
            Cell::Disconnect,
            Unit::Seconds,
        ),
    ];
    charts.extend(comparison.scales.iter().map(|scale| latencies(comparison, scale)));
    charts.retain(|chart| !chart.lines.is_empty());
    charts
}

/// A cell's first measure in that unit, over the size of the population.
fn by_registrations(comparison: &Comparison, name: &str, title: &str, cell: Cell, unit: Unit) -> Chart {
    let is_wanted = |measure: &&Measure| measure.cell == cell && measure.unit == unit;
    let measure = MEASURES.iter().find(is_wanted).expect("every chart shows a measure of the table");
    let lines = comparison.servers.iter().enumerate().map(|(place, server)| {
        let mut line = Line::of(&server.name, place);
        for scale in &comparison.scales {
            let x = registrations(scale);
            match Score::of(comparison, scale.name, measure, server) {
                Score::Measured { spread, .. } => line.points.push((x, spread.median)),
                Score::OverLimit { seconds, .. } if unit == Unit::Seconds => line.open.push((x, seconds)),
                _ => {}
            }
        }
        line
    });
    let lines = lines.filter(|line| !line.points.is_empty() || !line.open.is_empty()).collect();
    Chart { name: name.into(), title: title.into(), x: Axis::Registrations, unit, lines }
}

#[expect(clippy::cast_precision_loss, reason = "a place on an axis")]
fn registrations(scale: &Scale) -> f64 {
    scale.population.registrations() as f64
}

/// The distribution of lookup latency, with and without churn: medians of each quantile.
fn latencies(comparison: &Comparison, scale: &Scale) -> Chart {
    let mut lines = Vec::new();
    for (place, server) in comparison.servers.iter().enumerate() {
        let reports: Vec<&Report> = reports(comparison, scale.name, &server.name).collect();
        for (label, dashed) in [("", false), (" with churn", true)] {
            let mut line = Line { dashed, ..Line::of(&format!("{}{label}", server.name), place) };
            for (x, name) in QUANTILES {
                let values = reports.iter().filter_map(|report| quantile(report, name, dashed));
                line.points.extend(super::statistics::Spread::of(values).map(|spread| (x, spread.median / 1e6)));
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
        unit: Unit::Seconds,
        lines,
    }
}

fn reports<'a>(comparison: &'a Comparison, scale: Name, server: &'a str) -> impl Iterator<Item = &'a Report> {
    comparison.outcomes(scale, Cell::Churn, server).filter_map(|outcome| match outcome {
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
    fn of(label: &str, server: usize) -> Self {
        Self { label: label.into(), server, dashed: false, points: Vec::new(), open: Vec::new() }
    }
}

impl Axis {
    fn title(self) -> &'static str {
        match self {
            Self::Registrations => "registrations",
            Self::Quantile => "share of the lookups that were answered within",
        }
    }

    fn label(self, value: f64) -> String {
        match self {
            Self::Registrations => quantity(Unit::PerSecond, value),
            Self::Quantile if value >= 9999.0 => "all".into(),
            Self::Quantile => format!("{} %", (1e4 - 1e4 / value).round() / 100.0),
        }
    }
}

/// Draws a chart into `folder`.
///
/// # Errors
/// When the file cannot be written.
pub fn draw(chart: &Chart, folder: &Path) -> Result<()> {
    let path = folder.join(format!("{}.svg", chart.name));
    let mut text = String::new();
    render(chart, &mut text).expect("a String takes everything");
    std::fs::write(&path, text).map_err(|error| {
        Failure::io(format_args!("write {}", path.display()), error, "give another folder as --out")
    })
}

fn render(chart: &Chart, text: &mut String) -> std::result::Result<(), Box<dyn std::error::Error>> {
    let area = SVGBackend::with_string(text, SIZE).into_drawing_area();
    area.fill(&WHITE)?;
    let (area, legend) = area.split_horizontally(SIZE.0 - LEGEND_WIDTH);
    let points = || chart.lines.iter().flat_map(|line| line.points.iter().chain(&line.open));
    let x = around(points().map(|point| point.0));
    let y = decades(points().map(|point| point.1));
    let mut canvas = ChartBuilder::on(&area)
        .caption(&chart.title, ("sans-serif", 20))
        .margin(16)
        .x_label_area_size(44)
        .y_label_area_size(72)
        .build_cartesian_2d((x.0..x.1).log_scale(), (y.0..y.1).log_scale())?;
    canvas
        .configure_mesh()
        .light_line_style(WHITE)
        .x_desc(chart.x.title())
        .x_label_formatter(&|value| chart.x.label(*value))
        .y_label_formatter(&|value| quantity(chart.unit, *value))
        .draw()?;
    for (line, height) in chart.lines.iter().zip((60..).step_by(24)) {
        let style = COLOURS[line.server % COLOURS.len()].stroke_width(2);
        let points = || line.points.iter().copied();
        let sample = [(0, height), (LEGEND_LINE, height)];
        if line.dashed {
            canvas.draw_series(DashedLineSeries::new(points(), 6, 4, style))?;
            legend.draw(&DashedPathElement::new(sample, 6, 4, style))?;
        } else {
            canvas.draw_series(LineSeries::new(points(), style))?;
            legend.draw(&PathElement::new(sample, style))?;
        }
        legend.draw(&Text::new(line.label.clone(), (LEGEND_LINE + 6, height - 7), ("sans-serif", 14)))?;
        canvas.draw_series(points().map(|point| Circle::new(point, 4, style.filled())))?;
        canvas.draw_series(line.open.iter().map(|point| TriangleMarker::new(*point, 7, style)))?;
    }
    area.present()?;
    Ok(())
}

/// The powers of ten around the values.
fn decades(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let (low, high) = extremes(values);
    let (low, high) = (low.log10().floor(), high.log10().ceil());
    let high = high.max(low + 1.0);
    // A little more than that, or rounding leaves out the labels at the ends.
    (10f64.powf(low) * 0.999, 10f64.powf(high) * 1.001)
}

/// The values with room for their marks.
fn around(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let (low, high) = extremes(values);
    (low / 1.5, high * 1.5)
}

fn extremes(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let (low, high) =
        values.fold((f64::INFINITY, 0.0), |(low, high): (f64, f64), value| (low.min(value), high.max(value)));
    (low.max(1e-9), high.max(1e-9))
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
        assert_eq!(lookups.lines[1].points, [(10_000.0, 1_000.0)]);
        let disconnect = &charts[1];
        assert_eq!(disconnect.lines[0].open, [(10_000.0, 30.0)], "a limit is shown, too");
        assert_eq!(disconnect.lines[1].points, [(10_000.0, 0.5)]);
        let [calm, churn] = &charts[2].lines[..] else { panic!("one server has played churn") };
        assert_eq!((calm.dashed, calm.points.len()), (false, 2), "the report has two quantiles of it");
        assert_eq!((churn.dashed, churn.points.len()), (true, 5));
    }

    #[test]
    fn charts_are_drawn() {
        let folder = tempfile::tempdir().unwrap();
        for chart in charts(&comparison()) {
            draw(&chart, folder.path()).unwrap();
            let svg = std::fs::read_to_string(folder.path().join(format!("{}.svg", chart.name))).unwrap();
            assert!(svg.starts_with("<svg") && svg.contains(&chart.title), "{}", chart.name);
            assert!(chart.lines.iter().all(|line| svg.contains(&line.label)), "{}", chart.name);
        }
    }

    #[test]
    fn axes_end_at_powers_of_ten() {
        let powers = |values: &[f64]| {
            let (low, high) = decades(values.iter().copied());
            (low.log10().round(), high.log10().round())
        };
        assert_eq!(powers(&[20.0, 3_000.0]), (1.0, 4.0));
        assert_eq!(powers(&[100.0]), (2.0, 3.0));
        assert_eq!(powers(&[0.0]), (-9.0, -8.0));
    }

    #[test]
    fn quantiles_are_labelled_by_their_share() {
        let labels = [2.0, 10.0, 100.0, 1e3, 1e4].map(|value| Axis::Quantile.label(value));
        assert_eq!(labels, ["50 %", "90 %", "99 %", "99.9 %", "all"]);
        assert_eq!(Axis::Registrations.label(1e6), "1,000,000");
    }
}
