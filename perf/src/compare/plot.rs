//! The plots, as SVG: both axes logarithmic, a line for each server with its name at the end. Written by hand, so that
//! the file has a style sheet and with it colours for dark pages.

use std::fmt::{self, Write};
use std::path::Path;

use super::chart::{Chart, Line};
use crate::failure::{Failure, Result};
use crate::unit::{Unit, quantity, time};

const WIDTH: f64 = 880.0;
const HEIGHT: f64 = 480.0;
/// The plot's own area: names stand to the right of it, titles and values elsewhere.
const LEFT: f64 = 96.0;
const RIGHT: f64 = 660.0;
const TOP: f64 = 56.0;
const BOTTOM: f64 = 412.0;
/// From one name to the next at least.
const NAME_HEIGHT: f64 = 20.0;

/// For a server by its place, on a light page and on a dark one. They differ in lightness too.
const COLOURS: [[&str; 2]; 6] = [
    ["#57606a", "#b1bac4"],
    ["#c84a00", "#ff9a4d"],
    ["#0a5fb4", "#6cb6ff"],
    ["#00795c", "#4ac8a0"],
    ["#a4418a", "#e58ac8"],
    ["#8a6100", "#e6b450"],
];
/// The page, its text, the frame and the grid.
const PAGE: [[&str; 4]; 2] =
    [["#ffffff", "#1f2328", "#8c959f", "#dfe3e8"], ["#0d1117", "#e6edf3", "#6e7681", "#262c34"]];

/// Draws a chart into `folder`.
///
/// # Errors
/// When the file cannot be written.
pub fn draw(chart: &Chart, folder: &Path) -> Result<()> {
    let path = folder.join(format!("{}.svg", chart.name));
    std::fs::write(&path, render(chart)).map_err(|error| {
        Failure::io(format_args!("write {}", path.display()), error, "give another folder as --out")
    })
}

fn render(chart: &Chart) -> String {
    let mut text = String::new();
    Frame::around(chart).write(chart, &mut text).expect("a String takes everything");
    text
}

/// Which values the axes reach from and to.
struct Frame {
    x: (f64, f64),
    y: (f64, f64),
    /// Where the axes have a value.
    places: Vec<f64>,
    powers: Vec<f64>,
}

impl Frame {
    fn around(chart: &Chart) -> Self {
        let points = || chart.lines.iter().flat_map(|line| line.points.iter().chain(&line.open));
        let mut places: Vec<f64> = points().map(|point| point.0).collect();
        places.sort_by(f64::total_cmp);
        places.dedup();
        let x = extremes(places.iter().copied());
        let (low, high) = decades(points().map(|point| point.1));
        let powers = (low..=high).map(|power| 10f64.powi(power)).collect();
        // Room for the marks of the first and the last.
        Self { x: (x.0 / 1.5, x.1 * 1.5), y: (10f64.powi(low), 10f64.powi(high)), places, powers }
    }

    fn x(&self, value: f64) -> f64 {
        LEFT + (RIGHT - LEFT) * share(value, self.x)
    }

    fn y(&self, value: f64) -> f64 {
        BOTTOM - (BOTTOM - TOP) * share(value, self.y)
    }

    fn write(&self, chart: &Chart, svg: &mut String) -> fmt::Result {
        let title = escaped(&chart.title);
        writeln!(
            svg,
            r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" font-family="system-ui, sans-serif" font-size="14" role="img" aria-label="{title}">"#
        )?;
        writeln!(svg, "<style>\n{}@media (prefers-color-scheme: dark) {{\n{}}}\n</style>", style(0), style(1))?;
        writeln!(svg, r#"<rect class="page" width="{WIDTH}" height="{HEIGHT}"/>"#)?;
        writeln!(svg, r#"<g class="text"><text x="{LEFT}" y="32" font-size="19">{title}</text>"#)?;
        self.axes(chart, svg)?;
        svg.push_str("</g>\n");
        // The last is on top.
        for line in &chart.lines {
            self.line(line, svg)?;
        }
        self.names(chart, svg)?;
        svg.push_str("</svg>\n");
        Ok(())
    }

    fn axes(&self, chart: &Chart, svg: &mut String) -> fmt::Result {
        for &value in &self.powers {
            let (y, label) = (self.y(value), escaped(&power_of_ten(chart.unit, value)));
            writeln!(svg, r#"<path class="grid" d="M{LEFT} {y:.1}H{RIGHT}"/>"#)?;
            writeln!(svg, r#"<text x="{:.1}" y="{:.1}" text-anchor="end">{label}</text>"#, LEFT - 8.0, y + 5.0)?;
        }
        for &value in &self.places {
            let (x, label) = (self.x(value), escaped(&chart.x.label(value)));
            writeln!(svg, r#"<path class="grid" d="M{x:.1} {TOP}V{BOTTOM}"/>"#)?;
            writeln!(svg, r#"<text x="{x:.1}" y="{:.1}" text-anchor="middle">{label}</text>"#, BOTTOM + 20.0)?;
        }
        writeln!(svg, r#"<path class="frame" d="M{LEFT} {TOP}V{BOTTOM}H{RIGHT}"/>"#)?;
        let (x, y) = (LEFT.midpoint(RIGHT), TOP.midpoint(BOTTOM));
        let titles = [escaped(chart.x.title()), escaped(chart.y)];
        writeln!(svg, r#"<text x="{x}" y="{:.1}" text-anchor="middle">{}</text>"#, BOTTOM + 48.0, titles[0])?;
        writeln!(
            svg,
            r#"<text transform="translate(20 {y}) rotate(-90)" text-anchor="middle">{}</text>"#,
            titles[1]
        )
    }

    fn line(&self, line: &Line, svg: &mut String) -> fmt::Result {
        let (width, radius) = if line.is_main { (4.5, 5.5) } else { (2.0, 4.0) };
        let dashes = if line.dashed { r#" stroke-dasharray="7 5""# } else { "" };
        let colour = line.server % COLOURS.len();
        writeln!(svg, r#"<g class="server{colour}" fill="none" stroke="currentColor" stroke-width="{width}">"#)?;
        writeln!(svg, r#"<polyline points="{}"{dashes}/>"#, self.pairs(&line.points))?;
        for &(x, y) in &line.points {
            let (x, y) = (self.x(x), self.y(y));
            writeln!(svg, r#"<circle cx="{x:.1}" cy="{y:.1}" r="{radius}" fill="currentColor" stroke="none"/>"#)?;
        }
        for open in &line.open {
            let before: Vec<_> = line.points.last().into_iter().chain([open]).copied().collect();
            writeln!(svg, r#"<polyline points="{}" stroke-dasharray="2 5"/>"#, self.pairs(&before))?;
            let (x, y) = (self.x(open.0), self.y(open.1));
            writeln!(svg, r#"<path d="M{:.1} {:.1}l8 14h-16z" class="open"/>"#, x, y - 9.0)?;
        }
        svg.push_str("</g>\n");
        Ok(())
    }

    fn pairs(&self, points: &[(f64, f64)]) -> String {
        let pairs = points.iter().map(|&(x, y)| format!("{:.1},{:.1}", self.x(x), self.y(y)));
        pairs.collect::<Vec<_>>().join(" ")
    }

    /// Each line's name at the height of its end, or as near as the others let it be.
    fn names(&self, chart: &Chart, svg: &mut String) -> fmt::Result {
        let mut ends: Vec<_> = chart.lines.iter().filter_map(|line| Some((line, line.end()?))).collect();
        ends.sort_by(|(_, one), (_, other)| other.1.total_cmp(&one.1));
        let wanted: Vec<f64> = ends.iter().map(|(_, end)| self.y(end.1)).collect();
        for ((line, end), height) in ends.iter().zip(apart(&wanted, NAME_HEIGHT, (TOP, BOTTOM))) {
            let weight = if line.is_main { "bold" } else { "normal" };
            let given_up = line.open.last().map(|open| format!(" (not done in {})", time(open.1)));
            let name = escaped(&(line.label.clone() + &given_up.unwrap_or_default()));
            writeln!(svg, r#"<g class="server{}" fill="currentColor">"#, line.server % COLOURS.len())?;
            let (from_x, from_y) = (self.x(end.0) + 8.0, self.y(end.1));
            let to = format!("L{:.1} {height:.1}H{:.1}", RIGHT - 2.0, RIGHT + 6.0);
            writeln!(svg, r#"<path class="leader" d="M{from_x:.1} {from_y:.1}{to}"/>"#)?;
            let (x, y) = (RIGHT + 10.0, height + 5.0);
            writeln!(svg, r#"<text x="{x:.1}" y="{y:.1}" font-weight="{weight}">{name}</text></g>"#)?;
        }
        Ok(())
    }
}

/// The style sheet for light pages (0) or dark ones (1).
fn style(kind: usize) -> String {
    let [page, text, frame, grid] = PAGE[kind];
    let mut style = format!(
        ".page {{ fill: {page} }}\n\
         .text {{ fill: {text} }}\n\
         .frame {{ fill: none; stroke: {frame} }}\n\
         .grid {{ fill: none; stroke: {grid} }}\n\
         .open {{ fill: {page}; stroke-width: 2 }}\n\
         .leader {{ fill: none; stroke: currentColor; stroke-width: 1; stroke-opacity: 0.6 }}\n"
    );
    for (place, colours) in COLOURS.iter().enumerate() {
        writeln!(style, ".server{place} {{ color: {} }}", colours[kind]).expect("a String takes everything");
    }
    style
}

/// Heights in ascending order, moved as little as need be to be `gap` apart and between the bounds.
fn apart(wanted: &[f64], gap: f64, (top, bottom): (f64, f64)) -> Vec<f64> {
    // With the gaps taken out they only have to be in order. Neighbours that are not share their mean: (sum, count).
    let mut groups: Vec<(f64, u32)> = Vec::new();
    let without_gaps = (0..).zip(wanted).map(|(place, height)| height - gap * f64::from(place));
    let mean = |(sum, count): (f64, u32)| sum / f64::from(count);
    for height in without_gaps {
        groups.push((height, 1));
        while let [.., before, last] = groups[..]
            && mean(before) > mean(last)
        {
            groups.truncate(groups.len() - 2);
            groups.push((before.0 + last.0, before.1 + last.1));
        }
    }
    let heights = groups.iter().flat_map(|&group| std::iter::repeat_n(mean(group), group.1 as usize));
    let gaps: f64 = wanted.iter().skip(1).map(|_| gap).sum();
    let lowest = (bottom - gaps).max(top);
    (0..).zip(heights).map(|(place, height)| height.clamp(top, lowest) + gap * f64::from(place)).collect()
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('"', "&quot;")
}

/// Where a value lies between the ends of a logarithmic axis.
fn share(value: f64, (low, high): (f64, f64)) -> f64 {
    (value.max(1e-9) / low).ln() / (high / low).ln()
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
    fn charts_are_drawn_with_titles_and_names() {
        let folder = tempfile::tempdir().unwrap();
        for chart in charts(&comparison()) {
            draw(&chart, folder.path()).unwrap();
            let svg = std::fs::read_to_string(folder.path().join(format!("{}.svg", chart.name))).unwrap();
            assert!(svg.starts_with("<svg") && svg.ends_with("</svg>\n"), "{}", chart.name);
            for text in [&*chart.title, chart.y, chart.x.title(), "prefers-color-scheme: dark"] {
                assert!(svg.contains(text), "{}: {text}", chart.name);
            }
            assert!(chart.lines.iter().all(|line| svg.contains(&line.label)), "{}", chart.name);
        }
    }

    #[test]
    fn the_main_line_is_drawn_last_and_thickest_and_one_given_up_says_so() {
        let charts = charts(&comparison());
        let lookups = render(&charts[0]);
        let lines: Vec<_> = lookups.lines().filter(|line| line.contains("stroke-width=")).collect();
        assert!(lines.last().unwrap().contains(r#"class="server1""#), "{lines:?}");
        assert!(lines.last().unwrap().contains(r#"stroke-width="4.5""#), "{lines:?}");
        assert_eq!(lookups.matches(r#"stroke-width="4.5""#).count(), 1);
        assert!(render(&charts[1]).contains(">stock (not done in 30.0 s)<"));
    }

    #[test]
    fn names_are_moved_apart_as_little_as_need_be() {
        let spread = |wanted: &[f64]| apart(wanted, 10.0, (0.0, 100.0));
        assert_eq!(spread(&[20.0, 50.0]), [20.0, 50.0], "there is room");
        assert_eq!(spread(&[50.0, 50.0]), [45.0, 55.0]);
        assert_eq!(spread(&[40.0, 50.0, 51.0, 90.0]), [37.0, 47.0, 57.0, 90.0]);
        assert_eq!(spread(&[0.0, 1.0, 100.0]), [0.0, 10.0, 100.0]);
        assert_eq!(spread(&[99.0, 100.0]), [90.0, 100.0], "within the bounds");
        assert!(spread(&[]).is_empty());
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
