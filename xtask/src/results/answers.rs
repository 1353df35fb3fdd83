//! Section on what packages of the trained model answer, calibrated, beside other programs.

use super::Page;
use super::input::Inputs;
use super::peers::{PEERS, bits_at};
use super::plot::{Axis, Marker, Plot, Point, Scale, Series};
use anyhow::Result;
use lsb_stream::CompressConfig;
use lsb_validate::benchmark::{BenchmarkReport, BenchmarkRow, markdown};
use lsb_validate::protocol::Protocol;
use lsb_validate::{CompressionBenchmark, Metric};
use std::fmt::Write as _;

/// Methods whose packages are run, coarse to fine.
const METHODS: &[&str] = &[
    "trellis:1",
    "residual-binary:1",
    "trellis:1.2",
    "outlier-binary",
    "trellis:1.4",
    "trellis:1.6",
    "ternary",
    "trellis:1.8",
    "trellis:2",
    "residual-binary:2",
    "gptq:2",
    "rtn:2",
    "trellis:2.3",
    "trellis:2.6",
    UNCALIBRATED,
    "trellis:2.84",
    "trellis:3",
    "residual-binary:3",
    "gptq:3",
    "rtn:3",
    "trellis:3.25",
    "trellis:3.6",
    "gptq:4",
    "rtn:4",
    "residual-binary:4",
    "trellis:4.25",
    "lossless",
];

/// The method of [`METHODS`] that is measured apart, without calibration.
const UNCALIBRATED: &str = "trellis:2.84 without calibration";

/// Bits per weight that `trellis` is meant to need less than any other program where that needs at least three bits,
/// less than any below, and less than `gptq` at three bits.
const GOALS: [f64; 3] = [0.7, 0.4, 0.8];

/// Lines of the plot: method, colour, marker, outlines alone.
const FAMILIES: &[(&str, &str, Marker, bool)] = &[
    ("trellis", "#0b3c8c", Marker::Circle, false),
    ("gptq", "#c2410c", Marker::Square, true),
    ("rtn", "#d9a400", Marker::Circle, false),
    ("outlier-binary", "#7b3294", Marker::Diamond, false),
    ("residual-binary", "#1b8a5a", Marker::Triangle, false),
    ("ternary", "#d6336c", Marker::Cross, false),
];

/// Table, plot, and what follows from them.
pub(super) fn section(inputs: &Inputs, page: &mut Page) -> Result<()> {
    let report = measure(inputs)?;
    let _ = writeln!(
        page.text,
        "### What it answers\n\n\
         Each package beside the original on held-out text (`fixtures/text/eval.txt`): {}. `trellis` and\n\
         `gptq` are calibrated as they are by default, on the text that comes with the program (forty books, which the\n\
         model was trained on; the held-out text is from others), but for the row that says otherwise; the other\n\
         codecs are not. Bits per weight are those of the whole package. BLEU, ROUGE and divergence compare 16 greedy\n\
         continuations of 48 tokens with the original's; a single other token changes all that follow, so they fall\n\
         fast. `output_correlation` is that of the outputs of every linear map, averaged over maps.\n\
         `docs/metrics.md` defines every column; peak memory is that of compressing while the original is in memory\n\
         as f32.\n",
        report.protocol
    );
    let _ = writeln!(page.text, "{}", markdown(&report));
    let alt =
        "KL divergence from the original over bits per weight, a line for each codec and other programs";
    page.show("reflm-kl.svg", alt, plot(&report.rows).svg());
    compare(&report.rows, &mut page.text);
    Ok(())
}

fn measure(inputs: &Inputs) -> Result<BenchmarkReport> {
    use Metric::{Bleu, Correlation, Divergence, Kl, Perplexity, Rouge, Top1};
    let run = |methods: Vec<&str>, folder: &str, calibration: CompressConfig| {
        CompressionBenchmark::new(&inputs.reflm, &inputs.eval)
            .methods(methods)
            .metrics([Perplexity, Kl, Top1, Correlation, Bleu, Rouge, Divergence])
            .protocol(Protocol::for_context(512))
            .calibration(calibration)
            .work(inputs.work.join(folder))
            .run(&mut |step| eprintln!("{}: {}", step.method, step.what))
    };
    let mut without = CompressConfig::default();
    without.calib = Some("none".to_owned());
    let codec = UNCALIBRATED.split(' ').next().unwrap_or_default();
    let mut apart = run(vec![codec], "bench-none", without)?;
    let methods = METHODS.iter().copied().filter(|m| *m != UNCALIBRATED).collect();
    let mut report = run(methods, "bench", CompressConfig::default())?;
    let at = METHODS.iter().position(|m| *m == UNCALIBRATED).unwrap_or(0);
    for mut row in apart.rows.drain(..) {
        row.method = UNCALIBRATED.to_owned();
        report.rows.insert(at, row);
    }
    Ok(report)
}

fn kl(row: &BenchmarkRow) -> Option<f64> {
    row.metrics.get("kl_mean").copied().flatten()
}

/// Rows of one codec, calibrated as by default.
fn family<'a>(rows: &'a [BenchmarkRow], name: &str) -> Vec<(&'a BenchmarkRow, f64)> {
    let of = |row: &&BenchmarkRow| row.method.split(':').next() == Some(name) && row.method != UNCALIBRATED;
    rows.iter().filter(of).filter_map(|row| Some((row, kl(row)?))).collect()
}

fn plot(rows: &[BenchmarkRow]) -> Plot {
    let point = |name: &str, x: f64, y: f64| Point {
        x,
        y,
        name: format!("{name}: {x:.3} bits per weight, KL {y:.4}"),
    };
    let mut series = Vec::new();
    for &(name, color, marker, hollow) in FAMILIES {
        let points: Vec<Point> =
            family(rows, name).iter().map(|(row, kl)| point(&row.method, row.bpw, *kl)).collect();
        let joined = points.len() > 1;
        series.push(Series { label: name.into(), color, marker, hollow, joined, named: false, points });
    }
    let apart = rows.iter().filter(|row| row.method == UNCALIBRATED);
    let points = apart.filter_map(|row| Some(point(&row.method, row.bpw, kl(row)?))).collect();
    series.insert(
        1,
        Series {
            label: "trellis, not calibrated".into(),
            color: "#0b3c8c",
            marker: Marker::Circle,
            hollow: true,
            joined: false,
            named: false,
            points,
        },
    );
    for (ik, label, marker) in
        [(false, "llama.cpp", Marker::Triangle), (true, "ik_llama.cpp", Marker::Diamond)]
    {
        let of = PEERS.iter().filter(|p| p.ik == ik);
        series.push(Series {
            label: label.into(),
            color: "#555555",
            marker,
            hollow: true,
            joined: false,
            named: true,
            points: of.map(|p| Point { x: p.bpw, y: p.kl, name: p.name.into() }).collect(),
        });
    }
    Plot {
        title: "reflm, held-out text: divergence from the original".into(),
        x: Axis { label: "bits per weight, whole package".into(), scale: Scale::Linear },
        y: Axis { label: "mean KL divergence, nats (logarithmic)".into(), scale: Scale::Log },
        series,
        guides: Vec::new(),
    }
}

/// Bits that `trellis` needs less than others for the same divergence.
fn compare(rows: &[BenchmarkRow], out: &mut String) {
    let line: Vec<(f64, f64)> = family(rows, "trellis").iter().map(|(row, kl)| (row.bpw, *kl)).collect();
    let _ = writeln!(
        out,
        "How many bits per weight `trellis` needs for the same divergence, between its rows above (the logarithm of KL\n\
         taken to be linear from one to the next; \"-\" where KL lies outside of them). The formats of llama.cpp and\n\
         ik_llama.cpp were measured once with ik_llama.cpp 8337e4c on the same model and text: every matrix in the one\n\
         format, importance matrix from 64 windows of the forty books that the calibration text here is taken from.\n\
         Their bits count the bytes of tensors alone, those of `trellis` the whole package; their KL is that of the\n\
         first 40 of the windows.\n\n\
         | other | bits per weight | KL | `trellis` at this KL | bits fewer | % fewer |\n|---|--:|--:|--:|--:|--:|"
    );
    let mut fewer = |name: &str, bpw: f64, kl: f64| {
        let found = bits_at(&line, kl);
        let cell = |value: Option<f64>| value.map_or("-".into(), |v| format!("{v:.3}"));
        let share = found.map_or("-".into(), |f| format!("{:.1}", 100.0 * (1.0 - f / bpw)));
        let less = found.map(|f| bpw - f);
        let _ = writeln!(out, "| {name} | {bpw:.3} | {kl:.4} | {} | {} | {share} |", cell(found), cell(less));
        less
    };
    let peers: Vec<(f64, Option<f64>)> = PEERS
        .iter()
        .map(|p| {
            let program = if p.ik { "ik_llama.cpp" } else { "llama.cpp" };
            (p.bpw, fewer(&format!("{program} {}", p.name), p.bpw, p.kl))
        })
        .collect();
    let gptq: Vec<(&str, Option<f64>)> = family(rows, "gptq")
        .iter()
        .map(|(row, kl)| (row.method.as_str(), fewer(&format!("`{}`", row.method), row.bpw, *kl)))
        .collect();
    let least = |from: f64, to: f64| {
        let inside = peers.iter().filter(|(bpw, _)| (from..to).contains(bpw));
        inside.filter_map(|(_, less)| *less).min_by(f64::total_cmp)
    };
    let three = gptq.iter().find(|(method, _)| *method == "gptq:3").and_then(|(_, less)| *less);
    out.push('\n');
    for (what, goal, found) in [
        ("the formats of other programs that take 3 bits or more", GOALS[0], least(3.0, f64::INFINITY)),
        ("the formats of other programs below 3 bits", GOALS[1], least(0.0, 3.0)),
        ("`gptq:3`", GOALS[2], three),
    ] {
        let held = match found {
            Some(found) if found >= goal => format!("met; the least is {found:.3}"),
            Some(found) => format!("**missed**; the least is {found:.3}"),
            None => "nothing to compare with".to_owned(),
        };
        let _ = writeln!(out, "* Goal of at least {goal} bits fewer than {what}: {held}.");
    }
    out.push('\n');
}
