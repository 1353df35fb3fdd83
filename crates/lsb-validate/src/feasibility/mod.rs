//! Which targets cannot hold together, and why, told before a weight is read.
//!
//! The yardstick is Shannon's rate-distortion function of Gaussian weights: R bits per weight give at most
//! `6.02 R` dB and a correlation of at most `sqrt(1 - 2^(-2R))`, whatever the codec. Bits that restore the
//! source exactly end the rule: a number of 16 bits cannot need more than 16.
//!
//! Gaussian weights of one variance are the hardest of their power. Heavier tails and tensors of unequal
//! variance let a codec do somewhat better, so a narrow conflict is a warning and a wide one is certain.

use crate::targets::QualityTargets;
use crate::verdict::plain;
use lsb_format::DType;
use lsb_stream::Plan;
use serde::Serialize;

/// `20 log10(2)`: what one bit per weight is worth on Gaussian weights.
pub const DB_PER_BIT: f64 = 6.020_599_913_279_624;

/// The most dB that `bpw` bits per weight can give on Gaussian weights.
pub fn best_snr_db(bpw: f64) -> f64 {
    DB_PER_BIT * bpw
}

/// The highest correlation that `bpw` bits per weight can give on Gaussian weights.
pub fn best_correlation(bpw: f64) -> f64 {
    (1.0 - (-2.0 * bpw).exp2()).max(0.0).sqrt()
}

/// The fewest bits per weight that can give `snr_db` on Gaussian weights.
pub fn bpw_for_snr_db(snr_db: f64) -> f64 {
    (snr_db / DB_PER_BIT).max(0.0)
}

/// The fewest bits per weight that can give `correlation` on Gaussian weights; infinite for 1.
pub fn bpw_for_correlation(correlation: f64) -> f64 {
    let r = correlation.clamp(0.0, 1.0);
    -0.5 * (1.0 - r * r).log2()
}

/// What must be known of the source.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SourceFacts {
    /// Stored weights.
    pub weights: u64,
    /// Bytes of the weight files.
    pub source_bytes: u64,
    /// Bits per weight at which the source is restored exactly (about, by entropy coding of exponents).
    pub lossless_bpw: f64,
}

impl SourceFacts {
    /// Of weights that are all of one type.
    pub fn uniform(weights: u64, dtype: DType) -> Self {
        let source_bytes = dtype.byte_len(weights).unwrap_or(u64::MAX);
        SourceFacts { weights, source_bytes, lossless_bpw: lossless_bits(dtype) }
    }
}

impl From<&Plan> for SourceFacts {
    fn from(plan: &Plan) -> Self {
        let stored = || plan.tensors.iter().filter(|t| t.same_as.is_none());
        let bits: f64 = stored().map(|t| t.weights as f64 * lossless_bits(t.dtype)).sum();
        SourceFacts {
            weights: plan.weights,
            source_bytes: plan.source_bytes,
            lossless_bpw: bits / plan.weights.max(1) as f64,
        }
    }
}

/// The exponent of a Gaussian weight carries about 2.6 bits of its 8 (2.5 of the 5 of f16).
fn lossless_bits(dtype: DType) -> f64 {
    let saved = match dtype {
        DType::BF16 | DType::F32 => 5.4,
        DType::F16 => 2.5,
        DType::F64 => 8.4,
        _ => 0.0,
    };
    dtype.bits() as f64 - saved
}

/// What a plan expects to reach.
#[derive(Clone, Debug, PartialEq)]
pub struct Prediction {
    /// Codec of most weights.
    pub codec: String,
    /// Bytes of the package.
    pub bytes: u64,
    /// Signal-to-noise ratio in dB of what is not exact, on Gaussian weights of equal variance; infinite
    /// where all is exact.
    pub snr_db: f64,
}

impl From<&Plan> for Prediction {
    fn from(plan: &Plan) -> Self {
        let stored: Vec<_> = plan.tensors.iter().filter(|t| t.same_as.is_none() && t.weights > 0).collect();
        // Exact tensors are left out, as they are from the figure that targets are judged by.
        let lossy = || stored.iter().filter_map(|t| Some((t.weights as f64, t.predicted_snr_db?)));
        let weights: f64 = lossy().map(|(n, _)| n).sum();
        let noise: f64 = lossy().map(|(n, snr_db)| n * 10f64.powf(-snr_db / 10.0)).sum();
        let mut codecs: Vec<(&str, u64)> = Vec::new();
        for t in &stored {
            match codecs.iter_mut().find(|(id, _)| *id == t.codec) {
                Some((_, n)) => *n += t.weights,
                None => codecs.push((&t.codec, t.weights)),
            }
        }
        let codec = codecs.iter().rev().max_by_key(|(_, n)| *n).map_or("", |(id, _)| id);
        let snr_db = if noise > 0.0 { 10.0 * (weights / noise).log10() } else { f64::INFINITY };
        Prediction { codec: codec.to_owned(), bytes: plan.predicted_bytes, snr_db }
    }
}

/// Why targets conflict.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ConflictKind {
    /// No codec can meet them together on Gaussian weights.
    Impossible,
    /// The planned codec is not expected to meet the target; another may.
    Codec,
}

/// Targets that cannot hold together.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Conflict {
    /// Why.
    pub kind: ConflictKind,
    /// The targets, as limits: `weight_snr_db >= 40`.
    pub targets: Vec<String>,
    /// Bits per weight the quality target needs.
    pub needed_bpw: Option<f64>,
    /// Bits per weight the size target leaves.
    pub allowed_bpw: Option<f64>,
    /// The best value of the quality target's measurement at that size (or that the codec is expected to give).
    pub best: Option<f64>,
    /// All of it in words, with what to change.
    pub explanation: String,
}

/// What is known about a set of targets before any work.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Feasibility {
    /// Targets that cannot hold, strongest reason first.
    pub conflicts: Vec<Conflict>,
    /// What a reader of the targets should know though nothing conflicts.
    pub notes: Vec<String>,
}

/// A quality target in bits.
struct Need {
    target: String,
    bpw: f64,
    best_at: fn(f64) -> f64,
    unit: &'static str,
}

/// A size target in bits.
struct Allowance {
    target: String,
    bpw: f64,
}

/// Says which of `targets` cannot hold together on `source`, and which the `prediction` of a plan misses.
pub fn feasibility(
    targets: &QualityTargets,
    source: &SourceFacts,
    prediction: Option<&Prediction>,
) -> Feasibility {
    let mut out = Feasibility::default();
    if source.weights == 0 {
        return out;
    }
    let (needs, allowances) = (needs(targets), allowances(targets, source));
    for need in &needs {
        // The tightest size target is the one to name; looser ones add nothing.
        let tightest = allowances.iter().min_by(|a, b| a.bpw.total_cmp(&b.bpw));
        let needed = need.bpw.min(source.lossless_bpw);
        if let Some(allowance) = tightest.filter(|a| a.bpw < needed) {
            out.conflicts.push(impossible(need, allowance, needed, source));
        }
    }
    if let Some(prediction) = prediction {
        out.conflicts.extend(shortfalls(targets, source, prediction, &allowances));
    }
    if let Some(limit) = targets.max_relative_error_percent.filter(|&x| x > 0.0) {
        out.notes.push(range_note(limit));
    }
    if needs.iter().any(|n| n.bpw > source.lossless_bpw) {
        out.notes.push(format!(
            "a quality target asks for more than {} bits per weight, at which the source can be stored exactly: \
             use the codec lossless",
            plain2(source.lossless_bpw)
        ));
    }
    out
}

fn needs(targets: &QualityTargets) -> Vec<Need> {
    let snr = targets.min_weight_snr_db.filter(|x| !x.is_nan()).map(|x| Need {
        target: format!("weight_snr_db >= {}", plain(x)),
        bpw: bpw_for_snr_db(x),
        best_at: best_snr_db,
        unit: " dB",
    });
    let correlation = targets.min_correlation.filter(|x| !x.is_nan()).map(|x| Need {
        target: format!("correlation >= {}", plain(x)),
        bpw: bpw_for_correlation(x),
        best_at: best_correlation,
        unit: "",
    });
    snr.into_iter().chain(correlation).collect()
}

fn allowances(targets: &QualityTargets, source: &SourceFacts) -> Vec<Allowance> {
    let weights = source.weights as f64;
    let source_bpw = 8.0 * source.source_bytes as f64 / weights;
    let positive = |x: Option<f64>| x.filter(|&x| x > 0.0);
    let ratio = positive(targets.min_ratio)
        .map(|x| Allowance { target: format!("ratio >= {}", plain(x)), bpw: source_bpw / x });
    let bpw = positive(targets.max_bpw).map(|x| Allowance { target: format!("bpw <= {}", plain(x)), bpw: x });
    let storage = positive(targets.max_storage_gb)
        .map(|x| Allowance { target: format!("storage_gb <= {}", plain(x)), bpw: 8e9 * x / weights });
    ratio.into_iter().chain(bpw).chain(storage).collect()
}

fn impossible(need: &Need, allowance: &Allowance, needed: f64, source: &SourceFacts) -> Conflict {
    let best = (need.best_at)(allowance.bpw);
    let source_bpw = 8.0 * source.source_bytes as f64 / source.weights as f64;
    Conflict {
        kind: ConflictKind::Impossible,
        targets: vec![need.target.clone(), allowance.target.clone()],
        needed_bpw: Some(needed),
        allowed_bpw: Some(allowance.bpw),
        best: Some(best),
        explanation: format!(
            "{} needs at least {} bits per weight on Gaussian weights whatever the codec (Shannon), and {} \
             leaves {}: at most {}{} there; lower the one target to that, or accept {} bits (ratio {})",
            need.target,
            plain2(needed),
            allowance.target,
            plain2(allowance.bpw),
            plain(round_down(best)),
            need.unit,
            plain2(needed),
            plain2(source_bpw / needed),
        ),
    }
}

fn shortfalls(
    targets: &QualityTargets,
    source: &SourceFacts,
    prediction: &Prediction,
    allowances: &[Allowance],
) -> Vec<Conflict> {
    let bpw = 8.0 * prediction.bytes as f64 / source.weights as f64;
    let codec = &prediction.codec;
    let conflict = |target: String, needed, allowed, best, explanation| Conflict {
        kind: ConflictKind::Codec,
        targets: vec![target],
        needed_bpw: needed,
        allowed_bpw: allowed,
        best,
        explanation,
    };
    let mut out = Vec::new();
    if let Some(limit) = targets.min_weight_snr_db.filter(|&x| prediction.snr_db < x) {
        let target = format!("weight_snr_db >= {}", plain(limit));
        let text = format!(
            "{codec} as planned is expected to give {} dB at {} bits per weight on Gaussian weights, below {target}",
            plain2(prediction.snr_db),
            plain2(bpw)
        );
        out.push(conflict(target, Some(bpw_for_snr_db(limit)), None, Some(prediction.snr_db), text));
    }
    // A codec whose decoded values are conditional means has r² = 1 - noise/signal; others have less.
    let r = (1.0 - 10f64.powf(-prediction.snr_db / 10.0)).max(0.0).sqrt();
    if let Some(limit) = targets.min_correlation.filter(|&x| r < x) {
        let target = format!("correlation >= {}", plain(limit));
        let text = format!(
            "{codec} as planned is expected to give a correlation of {} on Gaussian weights, below {target}",
            plain(r)
        );
        out.push(conflict(target, Some(bpw_for_correlation(limit)), None, Some(r), text));
    }
    for allowance in allowances.iter().filter(|a| bpw > a.bpw) {
        let text = format!(
            "{codec} as planned is expected to take {} bits per weight, and {} leaves {}",
            plain2(bpw),
            allowance.target,
            plain2(allowance.bpw)
        );
        out.push(conflict(allowance.target.clone(), Some(bpw), Some(allowance.bpw), None, text));
    }
    out
}

/// Weights of the tensor that the note on the range speaks of.
const NOTE_WEIGHTS: f64 = 4096.0 * 4096.0;

/// The SNR at which `n` Gaussian weights with Gaussian errors have this relative error.
fn snr_db_at_relative_error(percent: f64, n: f64) -> f64 {
    // Expected maximum of n Gaussian values, first terms of the extreme-value expansion.
    let a = (2.0 * n.ln()).sqrt();
    let largest = a - (n.ln().ln() + (4.0 * std::f64::consts::PI).ln()) / (2.0 * a) + 0.577_215_664_9 / a;
    let mean_abs = (2.0 / std::f64::consts::PI).sqrt();
    20.0 * (100.0 * mean_abs / (2.0 * largest * percent)).log10()
}

fn range_note(limit: f64) -> String {
    format!(
        "relative_error_percent <= {} divides by the range of the weights, which one outlier widens, so it bounds no \
         rate and says little alone: 4096 x 4096 Gaussian weights meet it at about {:.0} dB, and with a range ten \
         times as wide already at {:.0} dB; read the SNR beside it",
        plain(limit),
        snr_db_at_relative_error(limit, NOTE_WEIGHTS),
        snr_db_at_relative_error(limit, NOTE_WEIGHTS) - 20.0,
    )
}

fn plain2(x: f64) -> String {
    format!("{x:.2}")
}

/// Four digits, rounded towards zero: a promise of "at most" must not be rounded up.
fn round_down(x: f64) -> f64 {
    let scale = if x.abs() < 1.0 { 1e4 } else { 1e1 };
    (x * scale).floor() / scale
}

#[cfg(test)]
mod tests;
