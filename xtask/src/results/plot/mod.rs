//! Scatter and line plots as SVG: what a page of figures needs and no more. The same points give the same text.

mod axis;
#[cfg(test)]
mod tests;

pub(super) use axis::{Axis, Scale};

use axis::Range;
use std::fmt::Write as _;

/// Size of the picture, in pixels.
const SIZE: (f64, f64) = (860.0, 520.0);
/// Where the plotted area begins and ends.
const LEFT: f64 = 74.0;
const RIGHT: f64 = 660.0;
const TOP: f64 = 48.0;
const BOTTOM: f64 = 462.0;

/// Dark enough to be read on the white ground that every plot brings along for dark pages.
const INK: &str = "#222222";
const GRID: &str = "#e2e2e2";

/// Shape of a point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Marker {
    Circle,
    Square,
    Diamond,
    Triangle,
    Cross,
}

/// One point, in units of the axes.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Point {
    pub x: f64,
    pub y: f64,
    /// What it is, shown where the mouse rests on it.
    pub name: String,
}

/// Points that belong together.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Series {
    /// In the legend.
    pub label: String,
    /// As `#rrggbb`.
    pub color: &'static str,
    pub marker: Marker,
    /// Markers are drawn as outlines, so that others show through.
    pub hollow: bool,
    /// Points are joined in their order.
    pub joined: bool,
    /// Names stand beside the points where there is room.
    pub named: bool,
    pub points: Vec<Point>,
}

/// A dashed horizontal line.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Guide {
    pub y: f64,
    pub label: String,
    /// As `#rrggbb`.
    pub color: &'static str,
}

/// A picture of some series.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Plot {
    pub title: String,
    pub x: Axis,
    pub y: Axis,
    pub series: Vec<Series>,
    pub guides: Vec<Guide>,
}

/// A rectangle that is taken: left, top, right, bottom.
type Taken = [f64; 4];

impl Plot {
    /// The picture. Points that an axis cannot show, such as zero on a logarithmic one, are left out.
    pub(super) fn svg(&self) -> String {
        let points = || self.series.iter().flat_map(|s| &s.points);
        let guides = self.guides.iter().map(|g| g.y);
        let x = Range::of(self.x.scale, points().map(|p| p.x), LEFT, RIGHT);
        let y = Range::of(self.y.scale, points().map(|p| p.y).chain(guides), BOTTOM, TOP);
        let mut out = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {0} {1}\" width=\"{0}\" height=\"{1}\" \
             font-family=\"Helvetica, Arial, sans-serif\" font-size=\"13\" fill=\"{INK}\">\n\
             <rect width=\"{0}\" height=\"{1}\" fill=\"#ffffff\"/>\n",
            SIZE.0, SIZE.1
        );
        let middle = (LEFT + RIGHT) / 2.0;
        text(&mut out, (middle, 28.0), "middle\" font-size=\"16\" font-weight=\"bold", &self.title);
        self.axes(&mut out, &x, &y);
        for guide in &self.guides {
            let at = y.position(guide.y).unwrap_or(BOTTOM);
            line(&mut out, (LEFT, at), (RIGHT, at), &format!("{}\" stroke-dasharray=\"6 4", guide.color));
        }
        let mut taken = Vec::new();
        for series in &self.series {
            let places = places(series, &x, &y);
            taken.extend(places.iter().map(|(at, _)| [at.0 - 6.0, at.1 - 6.0, at.0 + 6.0, at.1 + 6.0]));
            draw(&mut out, series, &places);
        }
        for series in self.series.iter().filter(|s| s.named) {
            for (at, point) in places(series, &x, &y) {
                name(&mut out, at, &point.name, &mut taken);
            }
        }
        self.legend(&mut out);
        out.push_str("</svg>\n");
        out
    }

    fn axes(&self, out: &mut String, x: &Range, y: &Range) {
        for (value, label) in x.ticks() {
            let Some(at) = x.position(value) else { continue };
            line(out, (at, TOP), (at, BOTTOM), GRID);
            text(out, (at, BOTTOM + 20.0), "middle", &label);
        }
        for (value, label) in y.ticks() {
            let Some(at) = y.position(value) else { continue };
            line(out, (LEFT, at), (RIGHT, at), GRID);
            text(out, (LEFT - 8.0, at + 4.5), "end", &label);
        }
        line(out, (LEFT, TOP), (LEFT, BOTTOM), INK);
        line(out, (LEFT, BOTTOM), (RIGHT, BOTTOM), INK);
        text(out, ((LEFT + RIGHT) / 2.0, BOTTOM + 44.0), "middle", &self.x.label);
        let middle = (TOP + BOTTOM) / 2.0;
        let turned = format!("middle\" transform=\"rotate(-90 20 {middle})");
        text(out, (20.0, middle), &turned, &self.y.label);
    }

    /// To the right of the plotted area: series, then dashed lines.
    fn legend(&self, out: &mut String) {
        let mut at = TOP + 8.0;
        for series in &self.series {
            if series.joined {
                let stroke = format!("{}\" stroke-width=\"2", series.color);
                line(out, (RIGHT + 16.0, at), (RIGHT + 44.0, at), &stroke);
            }
            marker(out, series, (RIGHT + 30.0, at), None);
            text(out, (RIGHT + 52.0, at + 4.5), "start", &series.label);
            at += 22.0;
        }
        for guide in &self.guides {
            let stroke = format!("{}\" stroke-dasharray=\"6 4", guide.color);
            line(out, (RIGHT + 16.0, at), (RIGHT + 44.0, at), &stroke);
            text(out, (RIGHT + 52.0, at + 4.5), "start", &guide.label);
            at += 22.0;
        }
    }
}

/// Where the points of a series lie in the picture.
fn places<'a>(series: &'a Series, x: &Range, y: &Range) -> Vec<((f64, f64), &'a Point)> {
    let place = |p: &'a Point| Some(((x.position(p.x)?, y.position(p.y)?), p));
    series.points.iter().filter_map(place).collect()
}

fn draw(out: &mut String, series: &Series, places: &[((f64, f64), &Point)]) {
    if series.joined && places.len() > 1 {
        let points: Vec<String> = places.iter().map(|((x, y), _)| format!("{x:.1},{y:.1}")).collect();
        let _ = writeln!(
            out,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{}\" stroke-width=\"2\"/>",
            points.join(" "),
            series.color
        );
    }
    for (at, point) in places {
        marker(out, series, *at, Some(&point.name));
    }
}

fn marker(out: &mut String, series: &Series, (x, y): (f64, f64), name: Option<&str>) {
    let fill = if series.hollow { "none" } else { series.color };
    let r = if series.hollow { 6.5 } else { 4.5 };
    let style = format!("fill=\"{fill}\" stroke=\"{}\" stroke-width=\"1.5\"", series.color);
    let polygon = |corners: &[(f64, f64)]| {
        let at: Vec<String> =
            corners.iter().map(|(dx, dy)| format!("{:.1},{:.1}", x + r * dx, y + r * dy)).collect();
        format!("<polygon points=\"{}\" {style}", at.join(" "))
    };
    let shape = match series.marker {
        Marker::Circle => format!("<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"{r}\" {style}"),
        Marker::Square => polygon(&[(-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)]),
        Marker::Diamond => polygon(&[(0.0, -1.25), (1.25, 0.0), (0.0, 1.25), (-1.25, 0.0)]),
        Marker::Triangle => polygon(&[(0.0, -1.2), (1.1, 0.8), (-1.1, 0.8)]),
        Marker::Cross => {
            let (a, b, c, d) = (x - r, y - r, x + r, y + r);
            format!("<path d=\"M{a:.1} {b:.1}L{c:.1} {d:.1}M{a:.1} {d:.1}L{c:.1} {b:.1}\" {style}")
        }
    };
    let tag = shape[1..].split(' ').next().unwrap_or_default();
    let _ = match name {
        Some(name) => writeln!(out, "{shape}><title>{}</title></{tag}>", escaped(name)),
        None => writeln!(out, "{shape}/>"),
    };
}

/// Writes the name of a point beside it, at the first of some places that is free; nowhere if none is.
fn name(out: &mut String, (x, y): (f64, f64), name: &str, taken: &mut Vec<Taken>) {
    let width = 5.8 * name.chars().count() as f64;
    let sides = [(8.0, 4.0), (8.0, -7.0), (8.0, 14.0), (-8.0 - width, 4.0), (-8.0 - width, 14.0)];
    for (dx, dy) in sides {
        let (left, base) = (x + dx, y + dy);
        let area = [left, base - 9.0, left + width, base + 2.0];
        let free = taken.iter().all(|t| t[2] < area[0] || t[0] > area[2] || t[3] < area[1] || t[1] > area[3]);
        if free && area[0] > LEFT && area[2] < RIGHT && area[1] > TOP && area[3] < BOTTOM {
            text(out, (left, base), "start\" font-size=\"10", name);
            taken.push(area);
            return;
        }
    }
}

/// `stroke` is a colour, with further attributes behind it.
fn line(out: &mut String, from: (f64, f64), to: (f64, f64), stroke: &str) {
    let _ = writeln!(
        out,
        "<line x1=\"{:.1}\" y1=\"{:.1}\" x2=\"{:.1}\" y2=\"{:.1}\" stroke=\"{stroke}\"/>",
        from.0, from.1, to.0, to.1
    );
}

/// `anchor` is `start`, `middle` or `end`, with further attributes behind it.
fn text(out: &mut String, at: (f64, f64), anchor: &str, content: &str) {
    let _ = writeln!(
        out,
        "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"{anchor}\">{}</text>",
        at.0,
        at.1,
        escaped(content)
    );
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
