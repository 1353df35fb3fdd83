//! Axes hold their values; a plot draws every point once and escapes what it is told.

use super::*;

fn labels(range: &Range) -> Vec<String> {
    range.ticks().into_iter().map(|(_, label)| label).collect()
}

#[test]
fn linear_axes_run_from_tick_to_tick() {
    let range = Range::of(Scale::Linear, [0.05, 0.79].into_iter(), 0.0, 100.0);
    assert_eq!(labels(&range), ["0.0", "0.1", "0.2", "0.3", "0.4", "0.5", "0.6", "0.7", "0.8"]);
    assert_eq!(range.position(0.0), Some(0.0));
    assert!((range.position(0.4).unwrap() - 50.0).abs() < 1e-9);
    assert_eq!(range.position(0.81), None);
    let range = Range::of(Scale::Linear, [1.2, 4.6].into_iter(), 0.0, 100.0);
    assert_eq!(labels(&range), ["1.0", "1.5", "2.0", "2.5", "3.0", "3.5", "4.0", "4.5", "5.0"]);
}

#[test]
fn logarithmic_axes_tick_at_one_two_and_five() {
    let range = Range::of(Scale::Log, [0.0, 0.008, 2.1].into_iter(), 100.0, 0.0);
    assert_eq!(labels(&range), ["0.005", "0.01", "0.02", "0.05", "0.1", "0.2", "0.5", "1", "2", "5"]);
    assert!((range.position((0.005f64 * 5.0).sqrt()).unwrap() - 50.0).abs() < 1e-9);
    assert_eq!(range.position(0.0), None, "zero has no logarithm");
    let range = Range::of(Scale::Log, [1.0, 100.0].into_iter(), 0.0, 1.0);
    assert_eq!(labels(&range), ["1", "2", "5", "10", "20", "50", "100"]);
}

#[test]
fn an_axis_without_values_or_with_one_has_an_extent() {
    for values in [vec![], vec![3.0], vec![0.0], vec![f64::NAN], vec![1e12]] {
        for scale in [Scale::Linear, Scale::Log] {
            let range = Range::of(scale, values.iter().copied(), 0.0, 100.0);
            assert!((2..30).contains(&range.ticks().len()), "{values:?}: {range:?}");
        }
    }
}

#[test]
fn plots_show_every_point_once_and_escape_labels() {
    let point = |x, y| Point { x, y, name: format!("{x} <&> \"{y}\"") };
    let series = |marker, hollow| Series {
        label: "a & b".into(),
        color: "#0072b2",
        marker,
        hollow,
        joined: true,
        named: true,
        points: vec![point(1.0, 0.1), point(2.0, 0.01), point(3.0, 0.0)],
    };
    let kinds = [Marker::Circle, Marker::Square, Marker::Diamond, Marker::Triangle, Marker::Cross];
    let axis = |scale| Axis { label: "<axis>".into(), scale };
    let plot = Plot {
        title: "title".into(),
        x: axis(Scale::Linear),
        y: axis(Scale::Log),
        series: kinds.iter().map(|&k| series(k, k == Marker::Cross)).collect(),
        guides: vec![Guide { y: 0.05, label: "goal".into(), color: "#888888" }],
    };
    let svg = plot.svg();
    assert_eq!(svg, plot.svg());
    assert_eq!(svg.matches("<title>").count(), 2 * kinds.len(), "zero is left out of a logarithmic axis");
    assert_eq!(svg.matches("<polyline").count(), kinds.len());
    assert!(svg.contains("1 &lt;&amp;&gt; &quot;0.1&quot;") && svg.contains("&lt;axis&gt;"));
    assert!(!svg.contains("NaN") && !svg.contains("a & b"));
    let (open, close) = (svg.matches("<text").count(), svg.matches("</text>").count());
    assert_eq!(open, close);
}
