//! The picture itself: two axes, a grid, lines and a legend, as SVG text.

use std::fmt::Write;

use super::Series;

/// Space around the plot: left, right, top, bottom.
const MARGIN: [f64; 4] = [76.0, 76.0, 76.0, 56.0];
/// Prefill and generation.
const COLOURS: [&str; 2] = ["#1f5fa8", "#c2571a"];
/// Steps that an axis aims at.
const TICKS: f64 = 6.0;

/// An axis from zero: its ticks are round numbers, the last one beyond every value.
#[derive(Debug, PartialEq)]
struct Axis {
    step: f64,
    end: f64,
}

impl Axis {
    /// `covers`: the axis ends at a tick, not at the largest value.
    fn new(largest: f64, covers: bool) -> Axis {
        let largest = if largest > 0.0 { largest } else { 1.0 };
        let rough = largest / TICKS;
        let power = 10f64.powf(rough.log10().floor());
        let step = [1.0, 2.0, 2.5, 5.0, 10.0].map(|round| round * power).into_iter().find(|step| *step >= rough);
        let step = step.unwrap_or(10.0 * power);
        Axis { step, end: if covers { (largest / step).ceil() * step } else { largest } }
    }

    fn ticks(&self) -> impl Iterator<Item = f64> {
        let (step, end) = (self.step, self.end);
        (0..).map(move |i| f64::from(i) * step).take_while(move |tick| *tick <= end * (1.0 + 1e-9))
    }
}

/// A tick's number: thousands with a `k`.
fn label(value: f64) -> String {
    let short = |value: f64| {
        let text = format!("{value:.3}");
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    };
    if value >= 1000.0 { format!("{}k", short(value / 1000.0)) } else { short(value) }
}

/// Where values lie on the page.
struct Frame {
    size: (f64, f64),
    x: Axis,
    /// Prefill on the left, generation on the right.
    y: [Axis; 2],
}

impl Frame {
    fn at(&self, axis: usize, x: f64, y: f64) -> (f64, f64) {
        let (left, right, top, bottom) = self.bounds();
        (left + x / self.x.end * (right - left), bottom - y / self.y[axis].end * (bottom - top))
    }

    fn bounds(&self) -> (f64, f64, f64, f64) {
        (MARGIN[0], self.size.0 - MARGIN[1], MARGIN[2], self.size.1 - MARGIN[3])
    }
}

/// All series over one another; the second one is dashed.
pub(super) fn draw(series: &[Series], title: &str, (width, height): (u32, u32)) -> String {
    let largest =
        |column: usize| series.iter().flat_map(|series| &series.points).map(|point| point[column]).fold(0.0, f64::max);
    let frame = Frame {
        size: (f64::from(width), f64::from(height)),
        x: Axis::new(largest(0), false),
        y: [Axis::new(largest(1), true), Axis::new(largest(2), true)],
    };
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {width} {height}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
    );
    text(
        &mut out,
        (frame.size.0 / 2.0, 28.0),
        "middle",
        "#222",
        &format!("<tspan font-size=\"17\">{}</tspan>", escape(title)),
    );
    grid(&mut out, &frame);
    for (i, series) in series.iter().enumerate() {
        lines(&mut out, &frame, series, i > 0);
    }
    legend(&mut out, &frame, series);
    out.push_str("</svg>\n");
    out
}

fn grid(out: &mut String, frame: &Frame) {
    let (left, right, top, bottom) = frame.bounds();
    for tick in frame.y[0].ticks() {
        let (_, y) = frame.at(0, 0.0, tick);
        segment(out, (left, y), (right, y), "#e4e4e4");
        text(out, (left - 8.0, y + 4.0), "end", COLOURS[0], &label(tick));
    }
    for tick in frame.y[1].ticks() {
        let (_, y) = frame.at(1, 0.0, tick);
        segment(out, (right, y), (right + 5.0, y), COLOURS[1]);
        text(out, (right + 9.0, y + 4.0), "start", COLOURS[1], &label(tick));
    }
    for tick in frame.x.ticks() {
        let (x, _) = frame.at(0, tick, 0.0);
        segment(out, (x, bottom), (x, bottom + 5.0), "#666");
        text(out, (x, bottom + 19.0), "middle", "#444", &label(tick));
    }
    for (from, to) in
        [((left, top), (left, bottom)), ((right, top), (right, bottom)), ((left, bottom), (right, bottom))]
    {
        segment(out, from, to, "#666");
    }
    text(out, (f64::midpoint(left, right), bottom + 42.0), "middle", "#222", "context, tokens");
    for (x, turn, colour, what) in
        [(20.0, -90, COLOURS[0], "prefill, tokens/s"), (frame.size.0 - 20.0, 90, COLOURS[1], "generation, tokens/s")]
    {
        let y = f64::midpoint(top, bottom);
        let _ = writeln!(
            out,
            "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"middle\" fill=\"{colour}\" \
             transform=\"rotate({turn} {x:.1} {y:.1})\">{what}</text>"
        );
    }
}

fn lines(out: &mut String, frame: &Frame, series: &Series, dashed: bool) {
    for (axis, colour) in COLOURS.iter().enumerate() {
        let places = series.points.iter().map(|point| frame.at(axis, point[0], point[axis + 1]));
        let points: Vec<String> = places.clone().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        let _ = writeln!(
            out,
            "<polyline fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"{} points=\"{}\"/>",
            dash(dashed),
            points.join(" ")
        );
        for (x, y) in places {
            let _ = writeln!(out, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"2.5\" fill=\"{colour}\"/>");
        }
    }
}

fn legend(out: &mut String, frame: &Frame, series: &[Series]) {
    let (left, right, ..) = frame.bounds();
    let width = (right - left) / (2 * series.len()) as f64;
    let entries = series.iter().enumerate().flat_map(|(i, series)| [(i, 0, series), (i, 1, series)]);
    for (at, (i, axis, series)) in entries.enumerate() {
        let x = left + at as f64 * width;
        let colour = COLOURS[axis];
        let _ = writeln!(
            out,
            "<line x1=\"{x:.1}\" y1=\"52\" x2=\"{:.1}\" y2=\"52\" stroke=\"{colour}\" stroke-width=\"2\"{}/>",
            x + 26.0,
            dash(i > 0)
        );
        let what = ["prefill", "generation"][axis];
        text(out, (x + 32.0, 56.0), "start", "#222", &format!("{what} {}", escape(&series.name)));
    }
}

fn dash(dashed: bool) -> &'static str {
    if dashed { " stroke-dasharray=\"6 4\"" } else { "" }
}

fn segment(out: &mut String, from: (f64, f64), to: (f64, f64), colour: &str) {
    let ((x1, y1), (x2, y2)) = (from, to);
    let _ = writeln!(out, "<line x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\" stroke=\"{colour}\"/>");
}

fn text(out: &mut String, (x, y): (f64, f64), anchor: &str, colour: &str, content: &str) {
    let _ =
        writeln!(out, "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" fill=\"{colour}\">{content}</text>");
}

/// Text that XML takes for text.
fn escape(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            c if c.is_control() => out.push(' '),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_cover_every_value() {
        for (largest, step, end) in
            [(1.0, 0.2, 1.0), (32_768.0, 10_000.0, 40_000.0), (617.0, 200.0, 800.0), (14.0, 2.5, 15.0)]
        {
            let axis = Axis::new(largest, true);
            assert!((axis.step - step).abs() < 1e-9 && (axis.end - end).abs() < 1e-9, "{largest}: {axis:?}");
        }
        assert_eq!(Axis::new(32_768.0, false).end, 32_768.0);
        assert_eq!([0.0, 0.25, 999.0, 1000.0, 2500.0].map(label), ["0", "0.25", "999", "1k", "2.5k"]);
    }

    #[test]
    fn a_picture_has_two_lines_a_series_and_no_stray_markup() {
        let series = |name: &str, scale: f64| Series {
            name: name.to_owned(),
            points: (1..5).map(|i| [1000.0 * f64::from(i), scale / f64::from(i), 3.0]).collect(),
        };
        let one = draw(&[series("a", 100.0)], "a < b & c", (960, 540));
        assert_eq!(one.matches("<polyline").count(), 2);
        assert!(one.contains("a &lt; b &amp; c") && !one.contains("stroke-dasharray") && !one.contains("NaN"));
        let two = draw(&[series("a", 100.0), series("b", 50.0)], "t", (960, 540));
        assert_eq!((two.matches("<polyline").count(), two.matches("stroke-dasharray").count()), (4, 4));
    }
}
