//! What `lsb tune` found.

use super::number::bytes;
use lsb_model::tune::Tuned;
use lsb_stream::peak_rss_bytes;
use lsb_stream::retouch::Retouched;
use serde_json::{Value, json};
use std::path::Path;

/// What only the run knows.
pub(crate) struct Summary<'a> {
    /// The new package.
    pub(crate) output: &'a Path,
    /// Bytes of side information of the tuned tensors, before and after.
    pub(crate) side_bytes: [usize; 2],
    pub(crate) seconds: f64,
}

fn bpw(made: &Retouched) -> f64 {
    8.0 * made.package_bytes as f64 / made.manifest.weights.max(1) as f64
}

/// The document with the keys that `docs/command-line.md` promises.
pub(crate) fn json(tuned: &Tuned, made: &Retouched, summary: &Summary<'_>) -> Value {
    json!({
        "package": summary.output.display().to_string(),
        "tensors": tuned.factors.len(),
        "kl_before": tuned.before,
        "kl_after": tuned.after,
        "steps": tuned.steps,
        "best_step": tuned.best_step,
        "tokens": tuned.tokens[0],
        "held_out_tokens": tuned.tokens[1],
        "side_bytes_before": summary.side_bytes[0],
        "side_bytes_after": summary.side_bytes[1],
        "package_bytes": made.package_bytes,
        "bpw": bpw(made),
        "already_done": made.already_done,
        "seconds": summary.seconds,
        "peak_rss_bytes": peak_rss_bytes(),
    })
}

/// The same for people.
pub(crate) fn text(tuned: &Tuned, made: &Retouched, summary: &Summary<'_>) -> String {
    let change = 100.0 * (tuned.after / tuned.before - 1.0);
    let [before, after] = summary.side_bytes.map(|n| bytes(n as u64));
    format!(
        "{}: {} tensors tuned, scales of {before} -> {after}, {:.3} bits per weight\n\
         divergence from the original on {} held-out tokens: {:.5} -> {:.5} nats per token ({change:+.1} %)\n\
         step {} of {} was the best, trained on {} tokens; {:.2} s\n",
        summary.output.display(),
        tuned.factors.len(),
        bpw(made),
        tuned.tokens[1],
        tuned.before,
        tuned.after,
        tuned.best_step,
        tuned.steps,
        tuned.tokens[0],
        summary.seconds,
    )
}
