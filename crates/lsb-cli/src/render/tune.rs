//! What tuning found.

use super::number::bytes;
use lsb_model::tune::Tuned;
use lsb_stream::retouch::Retouched;
use serde_json::{Value, json};

fn bpw(made: &Retouched) -> f64 {
    8.0 * made.package_bytes as f64 / made.manifest.weights.max(1) as f64
}

/// The keys that `docs/command-line.md` promises. `side_bytes` are those of scales before and after.
pub(crate) fn json(tuned: &Tuned, made: &Retouched, side_bytes: [usize; 2]) -> Value {
    json!({
        "tensors": tuned.factors.len(),
        "kl_before": tuned.before,
        "kl_after": tuned.after,
        "steps": tuned.steps,
        "best_step": tuned.best_step,
        "tokens": tuned.tokens[0],
        "held_out_tokens": tuned.tokens[1],
        "side_bytes_before": side_bytes[0],
        "side_bytes_after": side_bytes[1],
        "package_bytes": made.package_bytes,
        "bpw": bpw(made),
    })
}

/// The same for people.
pub(crate) fn text(tuned: &Tuned, made: &Retouched, side_bytes: [usize; 2]) -> String {
    let change = 100.0 * (tuned.after / tuned.before.max(1e-30) - 1.0);
    let [before, after] = side_bytes.map(|n| bytes(n as u64));
    format!(
        "{} tensors tuned, scales of {before} -> {after}, {:.3} bits per weight\n\
         divergence from the original on {} held-out tokens: {:.5} -> {:.5} nats per token ({change:+.1} %)\n\
         step {} of {} was the best, trained on {} tokens\n",
        tuned.factors.len(),
        bpw(made),
        tuned.tokens[1],
        tuned.before,
        tuned.after,
        tuned.best_step,
        tuned.steps,
        tuned.tokens[0],
    )
}
