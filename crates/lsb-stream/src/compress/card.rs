//! The two documents inside a package: `report.json` for machines, `README.md` for people.
//!
//! Both hold only what follows from input and options, so that equal runs give equal bytes: no times, no
//! memory figures, no paths.

use crate::report::{LayerReport, TensorReport};
use lsb_quant::{Distortion, Parameters};
use serde::{Deserialize, Serialize};
use std::fmt::Write;

/// Their names.
pub(crate) const DOCUMENTS: [&str; 2] = ["report.json", "README.md"];

/// `report.json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Document {
    pub(super) model: String,
    pub(super) codec: String,
    pub(super) parameters: Parameters,
    pub(super) source_bytes: u64,
    pub(super) weights: u64,
    pub(crate) tensors: Vec<TensorReport>,
    pub(super) warnings: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) calibration: Vec<String>,
}

impl Document {
    pub(crate) fn to_json(&self) -> Vec<u8> {
        let mut text = serde_json::to_vec(self).unwrap_or_default();
        text.push(b'\n');
        text
    }

    /// A model card in the form the Hugging Face Hub shows.
    pub(crate) fn to_card(&self) -> Vec<u8> {
        let bytes: u64 = self.tensors.iter().map(|t| t.bytes).sum();
        let bpw = 8.0 * bytes as f64 / self.weights.max(1) as f64;
        let mut out = String::new();
        let name = lsb_format::escape(&self.model);
        // Writing to a String cannot fail.
        let _ = write!(
            out,
            "---\nlibrary_name: lsb\ntags:\n- lsb\n- quantized\n---\n\n# {name}, compressed with lsb\n\n\
             {} weights in {bytes} bytes of tensor data: **{bpw:.3} bits per weight**, from {} bytes.\n\n\
             Check it with `lsb verify`, look into it with `lsb inspect`, and turn it back into safetensors with\n\
             `lsb decompress`. The figures below were measured on the weights when the package was made; what\n\
             they mean for the model's answers must be measured on text.\n\n",
            self.weights, self.source_bytes
        );
        let _ = writeln!(out, "| layer | weights | bits per weight | weight SNR (dB) | correlation |");
        let _ = writeln!(out, "|---|--:|--:|--:|--:|");
        for layer in layers(&self.tensors) {
            let bpw = 8.0 * layer.bytes as f64 / layer.weights.max(1) as f64;
            let (snr, correlation) = match layer.distortion {
                None => ("not measured".to_owned(), "not measured".to_owned()),
                Some(d) if d.sum_ee == 0.0 => ("exact".to_owned(), "1".to_owned()),
                Some(d) => {
                    (format!("{:.2}", -10.0 * d.relative_mse().log10()), format!("{:.6}", correlation(&d)))
                }
            };
            let _ =
                writeln!(out, "| {} | {} | {bpw:.3} | {snr} | {correlation} |", layer.layer, layer.weights);
        }
        for note in &self.calibration {
            let _ = writeln!(out, "\n{note}");
        }
        let _ = writeln!(out, "\nMost weights: `{}` with `{}`.", self.codec, self.parameters);
        if !self.warnings.is_empty() {
            let _ = writeln!(out, "\nWarnings:\n");
            for warning in &self.warnings {
                let _ = writeln!(out, "- {warning}");
            }
        }
        out.into_bytes()
    }
}

fn correlation(d: &Distortion) -> f64 {
    let n = d.weights as f64;
    let cov = d.sum_wq - d.sum_w * d.sum_q / n;
    let (var_w, var_q) = (d.sum_ww - d.sum_w * d.sum_w / n, d.sum_qq - d.sum_q * d.sum_q / n);
    cov / (var_w * var_q).sqrt()
}

/// Sums per layer, in the order layers first appear.
pub(super) fn layers(tensors: &[TensorReport]) -> Vec<LayerReport> {
    let mut out: Vec<LayerReport> = Vec::new();
    for t in tensors.iter().filter(|t| t.same_as.is_none()) {
        if out.last().is_none_or(|l| l.layer != t.layer) {
            out.push(LayerReport {
                layer: t.layer.clone(),
                weights: 0,
                source_bytes: 0,
                bytes: 0,
                distortion: None,
            });
        }
        if let Some(layer) = out.last_mut() {
            layer.weights += t.weights;
            layer.source_bytes += t.source_bytes;
            layer.bytes += t.bytes;
            if let Some(d) = &t.distortion {
                layer.distortion.get_or_insert_default().merge(d);
            }
        }
    }
    out
}

/// The codec most weights got, with its parameters.
pub(super) fn main_codec(tensors: &[TensorReport]) -> (String, Parameters) {
    let mut sums: Vec<(u64, &TensorReport)> = Vec::new();
    for t in tensors {
        match sums.iter_mut().find(|(_, s)| s.codec == t.codec && s.parameters == t.parameters) {
            Some((n, _)) => *n += t.weights,
            None => sums.push((t.weights, t)),
        }
    }
    // The first of equals, so that the answer does not depend on anything but the order of tensors.
    let most = sums.iter().map(|(n, _)| *n).max().unwrap_or(0);
    sums.iter()
        .find(|(n, _)| *n == most)
        .map_or_else(Default::default, |(_, t)| (t.codec.clone(), t.parameters.clone()))
}
