//! Which codec each tensor gets: rules first, then the codec asked for or the size target.

use super::target::{self, Choice};
use crate::config::with_option_defaults;
use crate::{CompressConfig, Error, Result, Target};
use lsb_format::DType;
use lsb_quant::{Estimate, MatrixInfo, Quantizer, Registry};
use std::sync::Arc;

/// What the planner knows about a tensor.
#[derive(Clone, Debug)]
pub(crate) struct TensorFacts {
    pub(crate) name: String,
    pub(crate) dtype: DType,
    pub(crate) shape: Vec<u64>,
    pub(crate) bytes: u64,
    /// Number of the earlier tensor with identical content.
    pub(crate) same_as: Option<usize>,
    /// Excluded from lossy coding because the caller limits the number of layers.
    pub(crate) keep: bool,
}

impl TensorFacts {
    pub(crate) fn matrix(&self) -> MatrixInfo {
        MatrixInfo::of_shape(&self.shape, self.dtype)
    }
}

/// A codec for a tensor, what it is expected to reach, and why it was chosen.
#[derive(Clone, Debug)]
pub(crate) struct Assignment {
    pub(crate) quantizer: Arc<dyn Quantizer>,
    pub(crate) estimate: Estimate,
    pub(crate) reason: String,
    /// What it may be stored with instead, where that turns out to be cheaper.
    pub(crate) others: Vec<Arc<dyn Quantizer>>,
}

/// Tensors with fewer weights than this, and vectors, stay as they are unless a rule or an exact codec
/// says otherwise: they are norms and biases, which cost next to nothing and matter much.
pub(crate) const SMALL: u64 = 4096;

/// Chooses a codec for every tensor.
///
/// # Errors
/// If a codec or rule does not exist or matches nothing, or a target cannot be reached.
pub(crate) fn assign(
    tensors: &[TensorFacts],
    source_bytes: u64,
    config: &CompressConfig,
    registry: &Registry,
    calibrated: bool,
) -> Result<Vec<Assignment>> {
    let raw = build(config, registry, "raw")?;
    let rules = compile_rules(tensors, config, registry)?;
    let default = config.codec.as_deref().map(|c| build(config, registry, c)).transpose()?;
    let target_bytes = target_bytes(tensors, source_bytes, config);
    let choice = choice(config, registry)?;
    if target_bytes.is_none() && !choice.is_empty() {
        let what = "codecs are chosen from for a target: give a ratio, bits per weight, or a size";
        return Err(Error::Config(what.into()));
    }
    let base = match (&default, target_bytes) {
        (Some(codec), _) => codec.clone(),
        // Of codecs to choose from, the others are measured against the one whose rate can be controlled.
        (None, _) if !choice.is_empty() => choice
            .iter()
            .find(|q| calibrated && controlled(&***q))
            .or(choice.first())
            .map_or_else(|| raw.clone(), Arc::clone),
        // A size that is met by calibration needs a codec whose rate can be controlled.
        (None, Some(_)) if calibrated => build(config, registry, "trellis")?,
        (None, _) => build(config, registry, "outlier-binary")?,
    };

    let mut out = Vec::with_capacity(tensors.len());
    let mut open = Vec::new();
    for (i, t) in tensors.iter().enumerate() {
        let matrix = t.matrix();
        let ruled = rules.iter().rev().find(|r| r.pattern.is_match(&t.name));
        let (quantizer, reason, free) = if t.keep {
            (raw.clone(), "outside the layers asked for".to_owned(), false)
        } else if let Some(rule) = ruled {
            (rule.quantizer.clone(), format!("rule {}", rule.text), false)
        } else if !t.dtype.is_float() {
            (raw.clone(), format!("{} is not a float type", t.dtype), false)
        } else {
            let exact = base.estimate(&matrix).is_some_and(|e| e.snr_db == f64::INFINITY);
            let small = t.shape.len() < 2 || matrix.rows < 2 || matrix.weights() < SMALL;
            if small && !exact {
                (raw.clone(), "a vector or a small tensor".to_owned(), false)
            } else {
                let reason = if default.is_some() { "the codec asked for" } else { "the default codec" };
                (base.clone(), reason.to_owned(), true)
            }
        };
        let (quantizer, estimate, reason) = match quantizer.estimate(&matrix) {
            Some(estimate) => (quantizer, estimate, reason),
            None if ruled.is_some() => {
                return Err(Error::Config(format!(
                    "{reason}: {} cannot hold tensor \"{}\" of type {}",
                    quantizer.id(),
                    lsb_format::escape(&t.name),
                    t.dtype
                )));
            }
            None => {
                let estimate = exact_estimate(t);
                (raw.clone(), estimate, format!("{} cannot hold {}", quantizer.id(), t.dtype))
            }
        };
        if free && quantizer.id() != "raw" && t.same_as.is_none() {
            open.push(i);
        }
        out.push(Assignment { quantizer, estimate, reason, others: Vec::new() });
    }
    if let Some(bytes) = target_bytes {
        if calibrated && controlled(&*base) {
            fit_rate(tensors, &mut out, &open, bytes, config, registry, &base)?;
            return Ok(out);
        }
        fit(tensors, &mut out, &open, bytes, config, registry)?;
    }
    Ok(out)
}

/// The codecs a target chooses from where they were asked for.
fn choice(config: &CompressConfig, registry: &Registry) -> Result<Vec<Arc<dyn Quantizer>>> {
    config.codecs.iter().map(|text| build(config, registry, text)).collect()
}

/// Whether one number, which a target may set, controls the codec's rate.
fn controlled(quantizer: &dyn Quantizer) -> bool {
    quantizer.rate_control().is_some_and(|r| r.bpw().is_some())
}

fn exact_estimate(t: &TensorFacts) -> Estimate {
    Estimate { bytes: t.bytes as f64, snr_db: f64::INFINITY }
}

/// Builds a codec with the options that stand for its parameters.
pub(crate) fn build(config: &CompressConfig, registry: &Registry, text: &str) -> Result<Arc<dyn Quantizer>> {
    let usage = |e: lsb_quant::Error| Error::Config(e.to_string());
    let (id, given) = registry.parse_parts(text).map_err(usage)?;
    let entry = registry.entry(&id).map_err(usage)?;
    registry.build(&id, &with_option_defaults(config, entry, given)).map_err(usage)
}

struct CompiledRule {
    pattern: regex::Regex,
    quantizer: Arc<dyn Quantizer>,
    text: String,
}

fn compile_rules(
    tensors: &[TensorFacts],
    config: &CompressConfig,
    registry: &Registry,
) -> Result<Vec<CompiledRule>> {
    config
        .rules
        .iter()
        .map(|rule| {
            let pattern = regex::Regex::new(&rule.pattern)
                .map_err(|e| Error::Config(format!("rule \"{rule}\": {e}")))?;
            if !tensors.iter().any(|t| pattern.is_match(&t.name)) {
                let example = tensors.first().map_or(String::new(), |t| lsb_format::escape(&t.name));
                return Err(Error::Config(format!(
                    "rule \"{rule}\" matches no tensor; names look like \"{example}\", `lsb inspect --full` lists them"
                )));
            }
            let quantizer = build(config, registry, &rule.codec)
                .map_err(|e| Error::Config(format!("rule \"{rule}\": {e}")))?;
            Ok(CompiledRule { pattern, quantizer, text: rule.to_string() })
        })
        .collect()
}

/// The package size to aim for, or `None` where the codec alone decides.
fn target_bytes(tensors: &[TensorFacts], source_bytes: u64, config: &CompressConfig) -> Option<f64> {
    let weights: u64 = stored(tensors).map(|t| t.matrix().weights()).sum();
    Some(match config.target? {
        Target::Ratio(ratio) => source_bytes as f64 / ratio,
        Target::Bpw(bpw) => weights as f64 * bpw / 8.0,
        Target::Bytes(bytes) => bytes as f64,
    })
}

/// Tensors that are stored, each content once.
pub(crate) fn stored(tensors: &[TensorFacts]) -> impl Iterator<Item = &TensorFacts> {
    tensors.iter().filter(|t| t.same_as.is_none())
}

/// Bytes around the tiles of a tensor: tile table, shard header entry, manifest entry.
pub(crate) fn record_bytes(t: &TensorFacts, quantizer: &dyn Quantizer) -> f64 {
    let Ok(tiling) = quantizer.tiling(&t.matrix()) else { return 0.0 };
    let table = 48.0 + 8.0 * tiling.len() as f64 * f64::from(tiling.parts());
    table + 200.0 + 2.0 * t.name.len() as f64
}

/// Manifest and shard header apart from their tensors.
pub(crate) const FIXED_BYTES: f64 = 1200.0;

/// Gives the open assignments the one rate at which the package meets `bytes`.
fn fit_rate(
    tensors: &[TensorFacts],
    assignments: &mut [Assignment],
    open: &[usize],
    bytes: f64,
    config: &CompressConfig,
    registry: &Registry,
    base: &Arc<dyn Quantizer>,
) -> Result<()> {
    let codec = base.id();
    let mut left = bytes - FIXED_BYTES;
    let mut weights = 0u64;
    for (i, a) in assignments.iter().enumerate().filter(|(i, _)| tensors[*i].same_as.is_none()) {
        left -= record_bytes(&tensors[i], &*a.quantizer);
        if open.binary_search(&i).is_ok() {
            weights += tensors[i].matrix().weights();
        } else {
            left -= a.estimate.bytes;
        }
    }
    let bpw = 8.0 * left / weights.max(1) as f64;
    let asked = config.codec.iter().chain(&config.codecs).map(|c| registry.parse_parts(c));
    let asked = asked.collect::<lsb_quant::Result<Vec<_>>>().map_err(|e| Error::Config(e.to_string()))?;
    let given = asked.into_iter().find(|(id, _)| id == codec).map(|(_, given)| given).unwrap_or_default();
    // What has a rate of its own to be controlled cannot be measured against this one.
    let others: Vec<_> = target::menu(config, registry)?
        .into_iter()
        .filter(|q| !config.codecs.is_empty() && !controlled(&**q))
        .collect();
    let at = |bpw: f64| build(config, registry, &format!("{codec}:{}", given.clone().with("bpw", bpw)));
    let quantizer = at(bpw).map_err(|e| {
        Error::Config(format!("the target of {} bytes leaves {bpw:.3} bits per weight: {e}", bytes.round()))
    })?;
    // A byte less for each: targets are met from below, and sizes of tensors are rounded.
    let estimates = estimates_within(left - open.len() as f64, bpw, &|bpw| {
        let quantizer = at(bpw).ok()?;
        let estimate =
            |&i: &usize| quantizer.estimate(&tensors[i].matrix()).unwrap_or(assignments[i].estimate);
        Some(open.iter().map(estimate).collect())
    });
    for (n, &i) in open.iter().enumerate() {
        let estimate = estimates.get(n).copied().unwrap_or(assignments[i].estimate);
        let reason = if others.is_empty() {
            "one step for the whole model meets the target size".into()
        } else {
            format!(
                "one step for the whole model meets the target size; {} others may be cheaper",
                others.len()
            )
        };
        let tiling = |q: &Arc<dyn Quantizer>| {
            q.tiling(&tensors[i].matrix()).ok().map(|t| (t.tile_rows(), t.tile_cols()))
        };
        // What is read in other tiles cannot take its place.
        let others = others.iter().filter(|q| tiling(q) == tiling(&quantizer)).cloned().collect();
        assignments[i] = Assignment { quantizer: Arc::clone(&quantizer), estimate, reason, others };
    }
    Ok(())
}

/// What is expected of tensors whose rate is found once they are read, such that all of them together take `bytes`: what lies
/// beside the levels of a tensor counts as well. `at` gives the estimates for a rate of levels.
fn estimates_within(bytes: f64, bpw: f64, at: &dyn Fn(f64) -> Option<Vec<Estimate>>) -> Vec<Estimate> {
    let total = |estimates: &[Estimate]| estimates.iter().map(|e| e.bytes).sum::<f64>().max(1.0);
    let mut estimates = at(bpw).unwrap_or_default();
    let mut rate = bpw;
    for _ in 0..8 {
        // Bytes are nearly proportional to the rate.
        rate *= bytes / total(&estimates);
        let Some(next) = at(rate) else { break };
        estimates = next;
    }
    let scale = bytes / total(&estimates);
    estimates.into_iter().map(|e| Estimate { bytes: e.bytes * scale, ..e }).collect()
}

/// Changes the open assignments so that the package meets `bytes` as closely as it can from below.
fn fit(
    tensors: &[TensorFacts],
    assignments: &mut [Assignment],
    open: &[usize],
    bytes: f64,
    config: &CompressConfig,
    registry: &Registry,
) -> Result<()> {
    let size = |i: usize, a: &Assignment| a.estimate.bytes + record_bytes(&tensors[i], &*a.quantizer);
    let fixed: f64 = (0..tensors.len())
        .filter(|i| tensors[*i].same_as.is_none() && open.binary_search(i).is_err())
        .map(|i| size(i, &assignments[i]))
        .sum::<f64>()
        + FIXED_BYTES;
    let menu = target::menu(config, registry)?;
    let mut choices: Vec<Vec<Choice>> = Vec::with_capacity(open.len());
    for &i in open {
        let matrix = tensors[i].matrix();
        let options = menu.iter().filter_map(|q| {
            let estimate = q.estimate(&matrix)?;
            let assignment =
                Assignment { quantizer: q.clone(), estimate, reason: String::new(), others: Vec::new() };
            let bytes = size(i, &assignment);
            let error = matrix.weights() as f64 * 10f64.powf(-estimate.snr_db / 10.0);
            Some(Choice { assignment, bytes, error })
        });
        choices.push(target::hull(options.collect()));
    }
    let picked = target::pick(&choices, bytes - fixed).map_err(|smallest| {
        Error::Config(format!(
            "the target of {} bytes cannot be reached: the smallest package would have {} bytes{}",
            bytes.round(),
            (smallest + fixed).ceil(),
            if config.codec.is_some() {
                "; let the target choose the codec by leaving --codec out"
            } else {
                ""
            }
        ))
    })?;
    for ((&i, options), pick) in open.iter().zip(&choices).zip(picked) {
        assignments[i] =
            Assignment { reason: "chosen for the target size".into(), ..options[pick].assignment.clone() };
    }
    Ok(())
}
