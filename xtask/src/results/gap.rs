//! Section on the distance from Shannon's bound, where nothing but independent Gaussian weights is to be coded.

use super::Page;
use super::input::{Inputs, bits, error};
use super::plot::{Axis, Guide, Marker, Plot, Point, Scale, Series};
use anyhow::Result;
use lsb_format::DType;
use std::fmt::Write as _;

/// Rows and columns: weights enough for figures good to 0.003 bits.
const SHAPE: [u64; 2] = [1024, 512];

/// Bits per weight that trellises are asked for.
const RATES: [f64; 5] = [1.5, 2.0, 2.5, 3.0, 4.0];

/// States of the trellises, and the largest distance that they are meant to have, in bits.
const GOALS: [(u32, f64); 2] = [(8, 0.09), (64, 0.07)];

/// Decibels of one bit.
const BIT: f64 = 6.0206;

/// One line or set of points.
struct Family {
    label: String,
    codecs: Vec<String>,
    color: &'static str,
    marker: Marker,
    hollow: bool,
}

impl Family {
    fn fixed(label: &str, settings: &[&str], color: &'static str, marker: Marker, hollow: bool) -> Family {
        let codec = |s: &&str| if s.is_empty() { label.to_owned() } else { format!("{label}:{s}") };
        let codecs = settings.iter().map(codec).collect();
        Family { label: label.to_owned(), codecs, color, marker, hollow }
    }
}

fn families() -> Vec<Family> {
    let trellis = |states: u32, color| Family {
        label: format!("trellis, {states} states"),
        codecs: RATES.iter().map(|bpw| format!("trellis:bpw={bpw},states={states}")).collect(),
        color,
        marker: Marker::Circle,
        hollow: false,
    };
    vec![
        trellis(GOALS[0].0, "#56a0d3"),
        trellis(GOALS[1].0, "#0b3c8c"),
        Family::fixed("gptq", &["2", "3", "4"], "#c2410c", Marker::Square, true),
        Family::fixed("rtn", &["2", "3", "4"], "#d9a400", Marker::Circle, false),
        Family::fixed("outlier-binary", &[""], "#7b3294", Marker::Diamond, false),
        Family::fixed("residual-binary", &["1", "2", "3", "4"], "#1b8a5a", Marker::Triangle, false),
        Family::fixed("ternary", &[""], "#d6336c", Marker::Cross, false),
    ]
}

/// Table and plot.
pub(super) fn section(inputs: &Inputs, page: &mut Page) -> Result<()> {
    let model = inputs.gaussian("unit", SHAPE, DType::F32)?;
    let _ = writeln!(
        page.text,
        "## How far from Shannon's bound: unit Gaussian weights, {} x {}, f32, without calibration\n\n\
         No input is known better than another (H = I), and no weight than another. Every stored byte of the tensor\n\
         counts: tiles with their headers, models, escapes and scales, and the tile table; without calibration\n\
         `trellis` has no scales of rows or columns that could be left out. *Gap* is bits per weight less SNR / {BIT},\n\
         the bits more than the best thinkable code takes for the same error. `gptq` is `rtn` here, search of the\n\
         range included: its feedback needs inputs that depend on each other.\n\n\
         | codec | bits per weight | SNR dB | gap, bits |\n|---|--:|--:|--:|",
        SHAPE[0], SHAPE[1]
    );
    let mut series = Vec::new();
    for family in families() {
        let mut points = Vec::new();
        for codec in &family.codecs {
            let report = inputs.compress(&model, codec)?;
            let tensors = [&report.tensors[0]];
            let (x, snr) = (bits(&tensors), error(&tensors).weight_snr_db);
            let y = x - snr / BIT;
            let _ = writeln!(page.text, "| `{codec}` | {x:.4} | {snr:.3} | {y:.4} |");
            points.push(Point { x, y, name: format!("{codec}: {x:.3} bits, gap {y:.3}") });
        }
        let Family { label, color, marker, hollow, .. } = family;
        series.push(Series { label, color, marker, hollow, joined: points.len() > 1, named: false, points });
    }
    page.text.push('\n');
    for ((states, most), series) in GOALS.iter().zip(&series) {
        let _ = writeln!(page.text, "{}", verdict(*states, *most, &series.points));
    }
    page.text.push('\n');
    let guide = |(states, most): &(u32, f64), color| Guide {
        y: *most,
        label: format!("goal, {states} states: {most}"),
        color,
    };
    let axis = |label: &str| Axis { label: label.to_owned(), scale: Scale::Linear };
    let plot = Plot {
        title: format!("Unit Gaussian weights, {} x {}: bits above Shannon's bound", SHAPE[0], SHAPE[1]),
        x: axis("bits per weight"),
        y: axis("gap, bits per weight"),
        series,
        guides: vec![guide(&GOALS[0], "#56a0d3"), guide(&GOALS[1], "#0b3c8c")],
    };
    let alt = "Bits above Shannon's bound over bits per weight, one line for each codec";
    page.show("gaussian-gap.svg", alt, plot.svg());
    Ok(())
}

/// Whether a goal is met, in a line of a list.
fn verdict(states: u32, most: f64, points: &[Point]) -> String {
    let worst = points.iter().map(|p| p.y).fold(f64::MIN, f64::max);
    let held = if worst <= most { "met" } else { "**missed**" };
    format!(
        "* Goal of at most {most} bits with {states} states at each of these rates: {held}; the largest gap is {worst:.4}."
    )
}
