//! The plots, as SVG: both axes logarithmic, a line for each server.

use std::path::Path;

use plotters::coord::combinators::{BindKeyPoints, IntoLogRange};
use plotters::element::DashedPathElement;
use plotters::prelude::*;

use super::chart::Chart;
use super::unit::{Unit, quantity};
use crate::failure::{Failure, Result};

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
    let mut places: Vec<f64> = points().map(|point| point.0).collect();
    places.sort_by(f64::total_cmp);
    places.dedup();
    let x = around(places.iter().copied());
    let (low, high) = decades(points().map(|point| point.1));
    let powers = (low..=high).map(|power| 10f64.powi(power)).collect();
    // A little more than that, or rounding leaves out the labels at the ends.
    let y = 10f64.powi(low) * 0.999..10f64.powi(high) * 1.001;
    let mut canvas = ChartBuilder::on(&area)
        .caption(&chart.title, ("sans-serif", 20))
        .margin(16)
        .x_label_area_size(44)
        .y_label_area_size(72)
        .build_cartesian_2d(
            (x.0..x.1).log_scale().with_key_points(places),
            y.log_scale().with_key_points(powers),
        )?;
    canvas
        .configure_mesh()
        .light_line_style(WHITE)
        .label_style(("sans-serif", 13))
        .x_desc(chart.x.title())
        .x_label_formatter(&|value| chart.x.label(*value))
        .y_label_formatter(&|value| power_of_ten(chart.unit, *value))
        .draw()?;
    for (place, line) in chart.lines.iter().enumerate() {
        let height = key_height(place);
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
    if chart.lines.iter().any(|line| !line.open.is_empty()) {
        let height = key_height(chart.lines.len());
        legend.draw(&TriangleMarker::new((LEGEND_LINE / 2, height), 7, BLACK.stroke_width(2)))?;
        legend.draw(&Text::new("given up: it takes longer", (LEGEND_LINE + 6, height - 7), ("sans-serif", 14)))?;
    }
    area.present()?;
    Ok(())
}

/// Where the legend tells of a line.
fn key_height(place: usize) -> i32 {
    60 + 24 * i32::try_from(place).expect("there are few lines")
}

/// A value that is 1, 10 or 100 in its unit, without decimals.
fn power_of_ten(unit: Unit, value: f64) -> String {
    quantity(unit, value).replace(".00", "").replace(".0", "")
}

/// The powers of ten around the values.
#[expect(clippy::cast_possible_truncation, reason = "the logarithm of what can be measured is small")]
fn decades(values: impl Iterator<Item = f64>) -> (i32, i32) {
    let (low, high) = extremes(values);
    let (low, high) = (low.log10().floor() as i32, high.log10().ceil() as i32);
    (low, high.max(low + 1))
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
    use super::super::chart::charts;
    use super::super::record::tests::comparison;
    use super::*;

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
        let powers = |values: &[f64]| decades(values.iter().copied());
        assert_eq!(powers(&[20.0, 3_000.0]), (1, 4));
        assert_eq!(powers(&[100.0]), (2, 3));
        assert_eq!(powers(&[0.0]), (-9, -8));
    }

    #[test]
    fn powers_of_ten_are_told_without_decimals() {
        let labels = [1e-5, 1e-3, 0.01, 1.0].map(|value| power_of_ten(Unit::Seconds, value));
        assert_eq!(labels, ["10 us", "1 ms", "10 ms", "1 s"]);
        assert_eq!(power_of_ten(Unit::PerCpuSecond, 1e5), "100,000");
    }
}
