//! A finished compression, for people and for machines.

use super::number::{bytes, count, decibel};
use super::table::Table;
use lsb_quant::Distortion;
use lsb_stream::{CompressReport, TensorReport};
use lsb_validate::WeightError;
use serde_json::{Value, json};

/// A finite number, or `null`.
pub(crate) fn finite(x: f64) -> Value {
    if x.is_finite() { json!(x) } else { Value::Null }
}

/// The error figures of a tensor that was measured or is known to be exact.
fn figures(t: &TensorReport) -> Option<WeightError> {
    match &t.distortion {
        Some(d) => Some(WeightError::from(d)),
        None if t.exact => Some(WeightError::from(&Distortion::default())),
        None => None,
    }
}

/// The JSON of `lsb compress`.
pub(crate) fn compress_json(report: &CompressReport) -> Value {
    let tensors: Vec<Value> = report
        .tensors
        .iter()
        .map(|t| {
            let error = figures(t);
            json!({
                "name": t.name, "layer": t.layer, "codec": t.codec, "parameters": t.parameters,
                "shape": t.shape, "dtype": t.dtype, "bytes": t.bytes, "source_bytes": t.source_bytes,
                "bpw": if t.weights == 0 { Value::Null } else { json!(8.0 * t.bytes as f64 / t.weights as f64) },
                "exact": error.map(|e| e.exact),
                "weight_snr_db": error.map(|e| finite(e.weight_snr_db)),
                "relative_error_percent": error.map(|e| finite(e.relative_error_percent)),
                "correlation": error.and_then(|e| e.correlation),
                "same_as": t.same_as, "notes": t.notes,
            })
        })
        .collect();
    let model = model_error(report);
    json!({
        "package": report.package, "codec": report.codec, "parameters": report.parameters,
        "source_bytes": report.source_bytes, "package_bytes": report.package_bytes,
        "weights": report.weights, "ratio": finite(report.ratio()), "bpw": finite(report.bpw()),
        "weight_snr_db": model.map(|e| finite(e.weight_snr_db)),
        "relative_error_percent": model.map(|e| finite(e.relative_error_percent)),
        "correlation": model.and_then(|e| e.correlation),
        "seconds": report.seconds, "peak_rss_bytes": report.peak_rss_bytes,
        "budget_bytes": report.budget_bytes, "budget_peak_bytes": report.budget_peak_bytes,
        "bytes_read": report.bytes_read, "resumed_tensors": report.resumed_tensors,
        "already_done": report.already_done, "warnings": report.warnings, "tensors": tensors,
    })
}

fn model_error(report: &CompressReport) -> Option<WeightError> {
    let stored: Vec<&Distortion> =
        report.tensors.iter().filter(|t| t.same_as.is_none()).filter_map(|t| t.distortion.as_ref()).collect();
    (!stored.is_empty()).then(|| WeightError::over(stored.iter().copied()))
}

/// Tensors of one kind and codec: the name without its layer.
struct Class<'a> {
    name: String,
    codec: String,
    tensors: Vec<&'a TensorReport>,
}

fn classes(report: &CompressReport) -> Vec<Class<'_>> {
    let mut out: Vec<Class<'_>> = Vec::new();
    for t in report.tensors.iter().filter(|t| t.same_as.is_none()) {
        let parts: Vec<&str> = t.name.split('.').filter(|p| p.parse::<u64>().is_err()).collect();
        let kept = parts.len().saturating_sub(3);
        let name = parts[kept..].join(".");
        let codec =
            if t.parameters.is_empty() { t.codec.clone() } else { format!("{} {}", t.codec, t.parameters) };
        match out.iter_mut().find(|c| c.name == name && c.codec == codec) {
            Some(class) => class.tensors.push(t),
            None => out.push(Class { name, codec, tensors: vec![t] }),
        }
    }
    out
}

/// What a person sees after `lsb compress`.
pub(crate) fn compress_text(report: &CompressReport, ram_limit: u64, full: bool) -> String {
    let mut out = String::new();
    let mut table = Table::new(&[
        "tensors",
        ">count",
        ">weights",
        "codec",
        ">bits/weight",
        ">weight SNR dB",
        ">|error|/range %",
        ">correlation",
    ]);
    let mut add = |name: String, codec: String, tensors: &[&TensorReport]| {
        let weights: u64 = tensors.iter().map(|t| t.weights).sum();
        let stored: u64 = tensors.iter().map(|t| t.bytes).sum();
        let sums: Vec<&Distortion> = tensors.iter().filter_map(|t| t.distortion.as_ref()).collect();
        let error =
            if sums.is_empty() { figures(tensors[0]) } else { Some(WeightError::over(sums.iter().copied())) };
        let bpw =
            if weights == 0 { "-".into() } else { format!("{:.3}", 8.0 * stored as f64 / weights as f64) };
        let dash = || "not measured".to_owned();
        table.row(vec![
            lsb_format::escape(&name),
            tensors.len().to_string(),
            count(weights),
            codec,
            bpw,
            error.map_or_else(dash, |e| decibel(e.weight_snr_db)),
            error.map_or_else(dash, |e| {
                if e.exact { "0".into() } else { format!("{:.3}", e.relative_error_percent) }
            }),
            error.and_then(|e| e.correlation).map_or_else(dash, |c| format!("{c:.5}")),
        ]);
    };
    if full {
        for t in report.tensors.iter().filter(|t| t.same_as.is_none()) {
            add(t.name.clone(), format!("{} {}", t.codec, t.parameters), &[t]);
        }
    } else {
        for class in classes(report) {
            add(class.name, class.codec, &class.tensors);
        }
    }
    out += &table.render();
    for t in report.tensors.iter().filter(|t| t.same_as.is_some()) {
        let keeper = t.same_as.as_deref().unwrap_or_default();
        out +=
            &format!("  {} is stored once, as {}\n", lsb_format::escape(&t.name), lsb_format::escape(keeper));
    }

    out += &format!(
        "\n{}: {} -> {}, ratio {:.2}, {:.3} bits per weight\n",
        report.package.display(),
        bytes(report.source_bytes),
        bytes(report.package_bytes),
        report.ratio(),
        report.bpw()
    );
    if let Some(e) = model_error(report) {
        out += &format!(
            "weight SNR {} dB, mean |error| / range {:.3} %, correlation {}\n",
            decibel(e.weight_snr_db),
            e.relative_error_percent,
            e.correlation.map_or("undefined".into(), |c| format!("{c:.5}"))
        );
    } else {
        out += "weight errors were not measured (quality_monitoring is off)\n";
    }
    if report.already_done {
        out += "the package was there already, complete, from the same input and options\n";
    } else {
        let rate = report.bytes_read as f64 / report.seconds.max(1e-9) / 1e6;
        out += &format!("{:.2} s, {} read at {rate:.0} MB/s", report.seconds, bytes(report.bytes_read));
        if report.resumed_tensors > 0 {
            out += &format!(", {} tensors taken over from an interrupted run", report.resumed_tensors);
        }
        out += "\n";
    }
    out += &format!(
        "peak memory {} of {} (weights and work: {} of {})\n",
        bytes(report.peak_rss_bytes),
        bytes(ram_limit),
        bytes(report.budget_peak_bytes),
        bytes(report.budget_bytes)
    );
    out
}
