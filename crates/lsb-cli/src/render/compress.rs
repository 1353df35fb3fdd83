//! A finished compression.

use super::codec::CodecLabels;
use super::figures;
use super::kind::groups;
use super::number::{bytes, count};
use super::table::Table;
use super::{bpw, finite};
use crate::phases;
use lsb_format::escape;
use lsb_quant::{Account, Distortion};
use lsb_stream::{CompressReport, LayerReport, TensorReport};
use lsb_validate::{QualityValidator, Verdict, WeightError};
use serde_json::{Value, json};

/// The error sums of a tensor. NaN and infinity that are stored exactly have none.
fn sums(t: &TensorReport) -> Option<&Distortion> {
    t.distortion.as_ref().filter(|d| !t.exact || d.sum_ee.is_finite())
}

/// The error figures of a tensor that was measured or is known to be exact.
fn tensor_error(t: &TensorReport) -> Option<WeightError> {
    match sums(t) {
        Some(d) => Some(WeightError::from(d)),
        None => t.exact.then(|| WeightError::from(&Distortion::default())),
    }
}

/// The figures of several tensors together; `None` where one of them was not measured.
fn error_over(tensors: &[&TensorReport]) -> Option<WeightError> {
    if tensors.is_empty() || !is_measured(tensors.iter().copied()) {
        return None;
    }
    Some(WeightError::over(tensors.iter().filter_map(|t| sums(t))))
}

/// True where every tensor that may have changed was compared with its source.
fn is_measured<'a>(tensors: impl IntoIterator<Item = &'a TensorReport>) -> bool {
    tensors.into_iter().all(|t| t.exact || t.distortion.is_some() || t.weights == 0)
}

/// Figures of the model; `None` where a tensor that may have changed was not measured.
pub(crate) fn measured(report: &CompressReport) -> Option<QualityValidator> {
    is_measured(&report.tensors).then(|| QualityValidator::of_compression(report))
}

fn stored(report: &CompressReport) -> impl Iterator<Item = &TensorReport> {
    report.tensors.iter().filter(|t| t.same_as.is_none())
}

/// Adds the keys of the three figures. An exact copy has no decibels: `exact` says so.
fn with_figures(mut object: Value, error: Option<WeightError>) -> Value {
    object["exact"] = json!(error.map(|e| e.exact));
    object["weight_snr_db"] = error.map_or(Value::Null, |e| finite(e.weight_snr_db));
    object["relative_error_percent"] = error.map_or(Value::Null, |e| finite(e.relative_error_percent));
    object["correlation"] = json!(error.and_then(|e| e.correlation));
    object
}

fn tensor_json(t: &TensorReport) -> Value {
    let object = json!({
        "name": t.name, "layer": t.layer, "codec": t.codec, "parameters": t.parameters,
        "shape": t.shape, "dtype": t.dtype, "weights": t.weights,
        "source_bytes": t.source_bytes, "bytes": t.bytes, "bpw": bpw(t.bytes, t.weights),
        "same_as": t.same_as, "tau": t.tau, "output_cost": t.output_cost, "account": t.account, "notes": t.notes,
    });
    with_figures(object, tensor_error(t))
}

fn layer_json(report: &CompressReport, layer: &LayerReport) -> Value {
    let members: Vec<&TensorReport> = stored(report).filter(|t| t.layer == layer.layer).collect();
    let object = json!({
        "layer": layer.layer, "weights": layer.weights, "source_bytes": layer.source_bytes,
        "bytes": layer.bytes, "bpw": bpw(layer.bytes, layer.weights),
    });
    with_figures(object, error_over(&members))
}

/// The JSON of `lsb compress`.
pub(crate) fn json(report: &CompressReport, verdict: &Verdict) -> Value {
    let figures = measured(report).map(|q| q.report());
    let object = json!({
        "package": report.package, "codec": report.codec, "parameters": report.parameters,
        "source_bytes": report.source_bytes, "package_bytes": report.package_bytes,
        "weights": report.weights, "ratio": finite(report.ratio()), "bpw": finite(report.bpw()),
        "seconds": report.seconds, "peak_rss_bytes": report.peak_rss_bytes,
        "budget_bytes": report.budget_bytes, "budget_peak_bytes": report.budget_peak_bytes,
        "bytes_read": report.bytes_read, "resumed_tensors": report.resumed_tensors,
        "already_done": report.already_done, "warnings": report.warnings,
        "phases": phases_json(), "calibration": report.calibration, "search": Value::Null, "tune": Value::Null,
        "passed": verdict.passed, "checks": verdict.checks,
        "lossy": figures.as_ref().and_then(|f| f.lossy),
        "layers": report.layers.iter().map(|l| layer_json(report, l)).collect::<Vec<_>>(),
        "tensors": report.tensors.iter().map(tensor_json).collect::<Vec<_>>(),
    });
    with_figures(object, figures.map(|f| f.model))
}

/// Thread seconds of every kind of calibrated work in this process.
fn phases_json() -> Value {
    Value::Object(phases::seconds().into_iter().map(|(name, s)| (name.to_owned(), finite(s))).collect())
}

/// How calibrated tensors came out beside what samples of their rows had told.
fn account(report: &CompressReport) -> String {
    let accounts: Vec<(&TensorReport, &Account)> =
        stored(report).filter_map(|t| t.account.as_ref().map(|a| (t, a))).collect();
    let sum = |f: &dyn Fn(&(&TensorReport, &Account)) -> f64| accounts.iter().map(f).sum::<f64>();
    let expected = sum(&|(_, a)| a.expected_bytes);
    if accounts.is_empty() || expected <= 0.0 {
        return String::new();
    }
    let taken = 100.0 * (sum(&|(t, _)| t.bytes as f64) / expected - 1.0);
    let ratios = accounts.iter().filter(|(_, a)| a.loss > 0.0 && a.expected_loss > 0.0);
    let logs: Vec<f64> = ratios.map(|(_, a)| (a.loss / a.expected_loss).ln()).collect();
    let loss = 100.0 * ((logs.iter().sum::<f64>() / logs.len().max(1) as f64).exp() - 1.0);
    let mut out = format!(
        "{} tensors were coded with the feedback of errors: {taken:+.1} % bytes and {loss:+.1} % output error against \
         what samples of rows had told\n",
        accounts.len()
    );
    let (cut, most) = accounts
        .iter()
        .fold((0, 0), |(n, most), (_, a)| (n + usize::from(a.factor.blocks > 1), most.max(a.factor.blocks)));
    if cut > 0 {
        out += &format!(
            "  {cut} of them in blocks of inputs, up to {most}, because second moments of all did not fit the memory\n"
        );
    }
    let dead = sum(&|(_, a)| a.factor.dead as f64);
    if dead > 0.0 {
        out += &format!("  {dead} inputs were zero throughout the text\n");
    }
    out
}

/// What a person sees after `lsb compress`: a row per kind of tensor, or with `full` per tensor.
pub(crate) fn text(report: &CompressReport, verdict: &Verdict, ram_limit: u64, full: bool) -> String {
    let labels = CodecLabels::new(stored(report).map(|t| (t.codec.as_str(), &t.parameters)));
    let label = |t: &TensorReport| labels.label(&t.codec, &t.parameters);
    let mut out = if full {
        let mut table =
            Table::new(&[&["tensor", ">weights", "codec", ">bits/weight"], &figures::TITLES[..]].concat());
        for t in stored(report) {
            add_row(&mut table, vec![escape(&t.name)], label(t), &[t]);
        }
        table.render()
    } else {
        let titles = ["tensors", ">count", ">weights", "codec", ">bits/weight"];
        let mut table = Table::new(&[&titles[..], &figures::TITLES[..]].concat());
        for group in groups(stored(report), |t| t.name.as_str(), label) {
            let codec = group.members.first().map(|t| label(t)).unwrap_or_default();
            let start = vec![escape(&group.title), group.members.len().to_string()];
            add_row(&mut table, start, codec, &group.members);
        }
        table.render()
    };
    out += &labels.legend();
    for t in &report.tensors {
        if let Some(keeper) = &t.same_as {
            out += &format!("  {} is stored once, as {}\n", escape(&t.name), escape(keeper));
        }
        for note in &t.notes {
            out += &format!("  {}: {note}\n", escape(&t.name));
        }
    }
    for note in &report.calibration {
        out += &format!("{note}\n");
    }
    out += &account(report);
    out += &totals(report, ram_limit);
    let judged = figures::verdict(verdict);
    if !judged.is_empty() {
        out += &format!("\n{judged}");
    }
    out
}

fn add_row(table: &mut Table, mut cells: Vec<String>, codec: String, members: &[&TensorReport]) {
    let weights = members.iter().map(|t| t.weights).sum();
    let stored: u64 = members.iter().map(|t| t.bytes).sum();
    cells.extend([count(weights), codec, bits(stored, weights)]);
    let error = match members {
        [one] => tensor_error(one),
        many => error_over(many),
    };
    cells.extend(figures::cells(error.as_ref()));
    table.row(cells);
}

/// Bits per weight, or a dash where there are no weights.
pub(crate) fn bits(bytes: u64, weights: u64) -> String {
    if weights == 0 { "-".into() } else { format!("{:.3}", 8.0 * bytes as f64 / weights as f64) }
}

fn totals(report: &CompressReport, ram_limit: u64) -> String {
    let mut out = format!(
        "\n{}: {} -> {}, ratio {:.2}, {} bits per weight\n",
        report.package.display(),
        bytes(report.source_bytes),
        bytes(report.package_bytes),
        report.ratio(),
        bits(report.package_bytes, report.weights)
    );
    match measured(report).map(|q| q.report()) {
        Some(f) => out += &figures::model(&f),
        None => out += "weight errors were not measured (quality_monitoring is off)\n",
    }
    if report.already_done {
        out += "the package was there already, complete, from the same input and options\n";
    } else {
        let rate = report.source_bytes as f64 / report.seconds.max(1e-9) / 1e9;
        out += &format!("{:.2} s, {rate:.3} GB/s of source", report.seconds);
        if report.bytes_read > report.source_bytes {
            out += &format!(" ({} read: what did not fit was read again)", bytes(report.bytes_read));
        }
        if report.resumed_tensors > 0 {
            out += &format!(", {} tensors taken over from an interrupted run", report.resumed_tensors);
        }
        out += "\n";
        let phases: Vec<String> =
            phases::seconds().into_iter().map(|(name, s)| format!("{name} {s:.1}")).collect();
        if !phases.is_empty() {
            out += &format!("thread seconds: {}\n", phases.join(", "));
        }
        out += &format!(
            "peak memory {} of {}, of which {} of {} reserved for weights and work\n",
            bytes(report.peak_rss_bytes),
            bytes(ram_limit),
            bytes(report.budget_peak_bytes),
            bytes(report.budget_bytes)
        );
    }
    out
}
