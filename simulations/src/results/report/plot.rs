//! Plots as SVG: lines with confidence bands, steps, and bars. Their looks are the page's style sheet.

use std::fmt::Write;

use super::axis::{Axis, Range};
use super::markup::Text;
use super::number;

/// The most lines in one plot: each has a colour and a dash of its own.
pub const MAX_LINES: usize = 6;

const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 360.0;
const RIGHT: f64 = 40.0;
const TOP: f64 = 14.0;
const BOTTOM: f64 = 56.0;

/// A value with what is known of it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    /// Along the horizontal axis.
    pub x: f64,
    /// The value.
    pub y: f64,
    /// 95 % confidence interval of the value.
    pub interval: Option<(f64, f64)>,
}

/// Values that belong together.
#[derive(Clone, Debug, PartialEq)]
pub struct Line {
    /// What tells it from the others.
    pub label: String,
    /// From left to right.
    pub points: Vec<Point>,
}

/// How values are drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Measured at some points: each has a mark.
    Marked,
    /// Measured all the time, which runs from left to right.
    Smooth,
    /// A value holds up to the next.
    Stepped,
}

/// A plot of lines.
#[derive(Clone, Debug, PartialEq)]
pub struct Plot {
    /// What it shows.
    pub title: String,
    /// What one sees in it, for those who don't.
    pub description: String,
    /// The horizontal axis with its unit.
    pub across: String,
    /// The vertical axis with its unit.
    pub upward: String,
    /// How the lines are drawn.
    pub shape: Shape,
    /// At most [`MAX_LINES`].
    pub lines: Vec<Line>,
    /// What the reader should know, such as what was left out.
    pub note: String,
}

/// A plot of bars, one for each category.
#[derive(Clone, Debug, PartialEq)]
pub struct Bars {
    /// What it shows.
    pub title: String,
    /// What one sees in it, for those who don't.
    pub description: String,
    /// The axis of the values with its unit.
    pub along: String,
    /// The categories; of a point, only the value and its interval count.
    pub bars: Vec<(String, Point)>,
    /// What the reader should know.
    pub note: String,
}

/// The axes of a plot of lines, and where on paper they lie.
struct Frame {
    x: Axis,
    y: Axis,
    left: f64,
}

impl Frame {
    fn around(plot: &Plot) -> Self {
        let all = || plot.lines.iter().flat_map(|line| &line.points);
        let range = match plot.shape {
            // Time passes evenly.
            Shape::Smooth => Range::Level,
            Shape::Marked | Shape::Stepped => Range::Spread,
        };
        let x = Axis::of(all().map(|point| point.x), range);
        let ends = || {
            all().flat_map(|point| {
                let (low, high) = point.interval.unwrap_or((point.y, point.y));
                [point.y, low, high]
            })
        };
        // What grows by a power is a straight line where both axes are logarithmic.
        let spread = Axis::of(ends(), Range::Spread).rounded();
        let is_power = plot.shape == Shape::Marked && x.is_logarithmic() && spread.is_logarithmic();
        let y = if is_power {
            spread
        } else if plot.shape == Shape::Stepped {
            // Shares of all, from none to all.
            Axis::of(ends(), Range::FromZero)
        } else {
            Axis::of(ends(), Range::Level)
        };
        let longest = y.ticks().iter().map(|(_, text)| text.chars().count()).max();
        Self {
            x,
            y,
            // The axis's name, then numbers with some 8 a digit.
            left: 44.0 + 8.0 * longest.unwrap_or(0) as f64,
        }
    }

    fn across(&self, x: f64) -> f64 {
        self.left + self.x.place(x) * (WIDTH - self.left - RIGHT)
    }

    fn upward(&self, y: f64) -> f64 {
        HEIGHT - BOTTOM - self.y.place(y) * (HEIGHT - TOP - BOTTOM)
    }
}

fn scale(axis: &Axis) -> &'static str {
    if axis.is_logarithmic() {
        ", logarithmic"
    } else {
        ""
    }
}

impl Plot {
    /// The plot as a figure of HTML.
    #[must_use]
    pub fn figure(&self, id: usize) -> String {
        let frame = Frame::around(self);
        let mut svg = begin(id, &self.title, &self.description, HEIGHT);
        self.draw_axes(&mut svg, &frame);
        for (place, line) in self.lines.iter().enumerate().take(MAX_LINES) {
            line.draw(&mut svg, place, self.shape, &frame);
        }
        svg.push_str("</svg>");
        let legend = if self.lines.len() > 1 {
            self.legend()
        } else {
            String::new()
        };
        framed(&self.title, &legend, &svg, &self.note)
    }

    fn draw_axes(&self, svg: &mut String, frame: &Frame) {
        let left = frame.left;
        let (bottom, right) = (HEIGHT - BOTTOM, WIDTH - RIGHT);
        for (value, text) in frame.y.ticks() {
            let at = frame.upward(value);
            let _ = write!(
                svg,
                "<path class=\"grid\" d=\"M{left} {at:.1}H{right}\"/>\
                 <text class=\"end\" x=\"{:.1}\" y=\"{:.1}\">{text}</text>",
                left - 8.0,
                at + 5.0
            );
        }
        for (value, text) in frame.x.ticks() {
            let at = frame.across(value);
            let _ = write!(
                svg,
                "<path class=\"axis\" d=\"M{at:.1} {bottom}v5\"/>\
                 <text class=\"middle\" x=\"{at:.1}\" y=\"{:.1}\">{text}</text>",
                bottom + 20.0
            );
        }
        let (middle, height) = ((left + right) / 2.0, (TOP + bottom) / 2.0);
        let _ = write!(
            svg,
            "<path class=\"axis\" d=\"M{left} {bottom}H{right}\"/>\
             <text class=\"middle name\" x=\"{middle}\" y=\"{:.1}\">{}{}</text>\
             <text class=\"middle name\" transform=\"translate(16 {height}) rotate(-90)\">{}{}</text>",
            HEIGHT - 10.0,
            Text(&self.across),
            scale(&frame.x),
            Text(&self.upward),
            scale(&frame.y)
        );
    }

    fn legend(&self) -> String {
        let mut list = String::from("<ul class=\"legend\">");
        for (place, line) in self.lines.iter().enumerate().take(MAX_LINES) {
            let mark = if self.shape == Shape::Marked {
                mark(place, 14.0, 7.0)
            } else {
                String::new()
            };
            let _ = write!(
                list,
                "<li><svg class=\"key\" viewBox=\"0 0 28 14\" aria-hidden=\"true\">\
                 <path class=\"line l{place}\" d=\"M0 7H28\"/>{mark}</svg>{}</li>",
                Text(&line.label)
            );
        }
        list.push_str("</ul>");
        list
    }
}

impl Line {
    fn draw(&self, svg: &mut String, place: usize, shape: Shape, frame: &Frame) {
        let at =
            |point: &Point, value: f64| format!("{:.1} {:.1}", frame.across(point.x), frame.upward(value));
        let known: Vec<(&Point, (f64, f64))> = self
            .points
            .iter()
            .filter_map(|point| Some((point, point.interval?)))
            .collect();
        if known.len() > 1 {
            let up = known.iter().map(|(point, (_, high))| at(point, *high));
            let down = known.iter().rev().map(|(point, (low, _))| at(point, *low));
            let band: Vec<String> = up.chain(down).collect();
            let _ = write!(svg, "<path class=\"band l{place}\" d=\"M{}Z\"/>", band.join("L"));
        }
        let mut path = String::new();
        for (index, point) in self.points.iter().enumerate() {
            match (index, shape) {
                (0, _) => path.push('M'),
                (_, Shape::Stepped) => {
                    let _ = write!(path, "H{:.1}L", frame.across(point.x));
                }
                _ => path.push('L'),
            }
            path.push_str(&at(point, point.y));
        }
        let _ = write!(svg, "<path class=\"line l{place}\" d=\"{path}\"/>");
        if shape == Shape::Marked {
            for point in &self.points {
                if let Some((low, high)) = point.interval {
                    svg.push_str(&whisker(
                        place,
                        frame.across(point.x),
                        frame.upward(low),
                        frame.upward(high),
                    ));
                }
                svg.push_str(&mark(place, frame.across(point.x), frame.upward(point.y)));
            }
        }
    }
}

impl Bars {
    /// The plot as a figure of HTML: bars from left to right, so that long names have room.
    #[must_use]
    pub fn figure(&self, id: usize) -> String {
        const ROW: f64 = 46.0;
        let ends = self.bars.iter().flat_map(|(_, point)| {
            let (low, high) = point.interval.unwrap_or((point.y, point.y));
            [point.y, low, high]
        });
        let axis = Axis::of(ends, Range::FromZero);
        let (left, top) = (12.0, 8.0);
        let bottom = top + ROW * self.bars.len() as f64;
        let along = |value: f64| left + axis.place(value) * (WIDTH - left - RIGHT);
        let mut svg = begin(id, &self.title, &self.description, bottom + BOTTOM);
        for (value, text) in axis.ticks() {
            let at = along(value);
            let _ = write!(
                svg,
                "<path class=\"grid\" d=\"M{at:.1} {top}V{bottom}\"/>\
                 <text class=\"middle\" x=\"{at:.1}\" y=\"{:.1}\">{text}</text>",
                bottom + 20.0
            );
        }
        for (place, (name, point)) in self.bars.iter().enumerate() {
            let row = top + ROW * place as f64;
            let (from, to) = (along(point.y.min(0.0)), along(point.y.max(0.0)));
            let _ = write!(
                svg,
                "<text x=\"{left}\" y=\"{:.1}\">{}: {}</text>\
                 <rect class=\"bar\" x=\"{from:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"16\"/>",
                row + 16.0,
                Text(name),
                number::plain(point.y),
                row + 23.0,
                (to - from).max(0.5)
            );
            if let Some((low, high)) = point.interval {
                let (low, high, middle) = (along(low), along(high), row + 31.0);
                let _ = write!(
                    svg,
                    "<path class=\"whisker\" d=\"M{low:.1} {middle}H{high:.1}M{low:.1} {0}v10M{high:.1} {0}v10\"/>",
                    middle - 5.0
                );
            }
        }
        let zero = along(0.0);
        let _ = write!(
            svg,
            "<path class=\"axis\" d=\"M{zero:.1} {top}V{bottom}\"/>\
             <text class=\"middle name\" x=\"{}\" y=\"{:.1}\">{}</text></svg>",
            WIDTH / 2.0,
            bottom + 44.0,
            Text(&self.along)
        );
        framed(&self.title, "", &svg, &self.note)
    }
}

fn begin(id: usize, title: &str, description: &str, height: f64) -> String {
    format!(
        "<svg class=\"plot\" viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-labelledby=\"t{id} d{id}\">\
         <title id=\"t{id}\">{}</title><desc id=\"d{id}\">{}</desc>",
        Text(title),
        Text(description)
    )
}

fn framed(title: &str, legend: &str, svg: &str, note: &str) -> String {
    let note = if note.is_empty() {
        String::new()
    } else {
        format!("<p class=\"note\">{}</p>", Text(note))
    };
    // Narrow screens roll a plot sideways: shrunk, its texts could not be read. Those who use keys can roll it too.
    format!(
        "<figure><figcaption>{}</figcaption>{legend}<div class=\"roll\" tabindex=\"0\" role=\"group\" \
         aria-label=\"{}\">{svg}</div>{note}</figure>\n",
        Text(title),
        Text(title)
    )
}

fn whisker(place: usize, x: f64, low: f64, high: f64) -> String {
    format!(
        "<path class=\"line whiskers l{place}\" d=\"M{x:.1} {low:.1}V{high:.1}M{0:.1} {low:.1}h8M{0:.1} {high:.1}h8\"/>",
        x - 4.0
    )
}

/// A mark of a form of its own for each line: colours are not all that tells them apart.
fn mark(place: usize, x: f64, y: f64) -> String {
    let form = match place {
        0 => "m-4 0a4 4 0 1 0 8 0a4 4 0 1 0 -8 0",
        1 => "m-4 -4h8v8h-8z",
        2 => "m0 -5l5 9h-10z",
        3 => "m0 -5.5l5.5 5.5l-5.5 5.5l-5.5 -5.5z",
        4 => "m0 5l5 -9h-10z",
        _ => "m-1.5 -5h3v3.5h3.5v3h-3.5v3.5h-3v-3.5h-3.5v-3h3.5z",
    };
    format!("<path class=\"mark l{place}\" d=\"M{x:.1} {y:.1}{form}\"/>")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_lie_where_their_ticks_are() {
        let point = |x: f64, y: f64| Point {
            x,
            y,
            interval: Some((y - 1.0, y + 1.0)),
        };
        let plot = Plot {
            title: "t".into(),
            description: "d".into(),
            across: "x".into(),
            upward: "y".into(),
            shape: Shape::Marked,
            lines: vec![Line {
                label: "l".into(),
                points: vec![point(0.0, 1.0), point(5.0, 9.0)],
            }],
            note: String::new(),
        };
        let frame = Frame::around(&plot);
        // The axis goes from 0 to 10, which has two digits.
        assert_eq!(frame.left, 60.0);
        assert_eq!((frame.across(0.0), frame.across(5.0)), (60.0, WIDTH - RIGHT));
        assert_eq!((frame.upward(0.0), frame.upward(10.0)), (HEIGHT - BOTTOM, TOP));
        let figure = plot.figure(3);
        // The line, the band from its upper to its lower edge, and a whisker.
        assert!(
            figure.contains("class=\"line l0\" d=\"M60.0 275.0L600.0 43.0\""),
            "{figure}"
        );
        assert!(
            figure.contains("d=\"M60.0 246.0L600.0 14.0L600.0 72.0L60.0 304.0Z\""),
            "{figure}"
        );
        assert!(figure.contains("M60.0 304.0V246.0"), "{figure}");
        assert!(figure.contains("aria-labelledby=\"t3 d3\"") && !figure.contains("legend"));
    }

    #[test]
    fn bars_begin_at_zero() {
        let bar = |name: &str, y: f64| {
            (
                name.to_owned(),
                Point {
                    x: 0.0,
                    y,
                    interval: None,
                },
            )
        };
        let bars = Bars {
            title: "t".into(),
            description: "d".into(),
            along: "x".into(),
            bars: vec![bar("gain", 2.0), bar("loss", -2.0)],
            note: String::new(),
        };
        let figure = bars.figure(0);
        // From -2 to 2 over 588, so zero is at 306.
        assert!(
            figure.contains("x=\"306.0\" y=\"31.0\" width=\"294.0\""),
            "{figure}"
        );
        assert!(
            figure.contains("x=\"12.0\" y=\"77.0\" width=\"294.0\""),
            "{figure}"
        );
    }
}
