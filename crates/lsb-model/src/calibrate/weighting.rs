//! From gradients to what errors of outputs cost.

use super::stages::stages;
use crate::{ModelSpec, Result, Sensitivity};
use lsb_quant::calibrate::{Calibration, DenseMoments, Moments};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// Tokens that gradients are estimated on at most.
const TOKENS: usize = 32768;
/// Products of tokens and weights from which on there are fewer, and the least number: means of squares need no more, and a
/// pass back costs three forward.
const WORK: usize = 1 << 38;
const LEAST: usize = 4096;

/// Windows of the calibration, evenly chosen, cut into pieces at whose length a block's intermediate values fit into
/// `bytes`, and that length.
pub(super) fn windows(all: &[Vec<u32>], spec: &ModelSpec, bytes: u64) -> (Vec<Vec<u32>>, usize) {
    let parts = spec.blocks.iter().flat_map(|b| &b.branches).flat_map(|b| b.part.every_map());
    let widest = parts.map(|m| m.inputs.max(m.outputs)).max().unwrap_or(0);
    let heads = spec.attentions().map(|a| a.heads).max().unwrap_or(0);
    // Values and gradients of a feed-forward block, or those of attention, with its scores.
    let needed = |n: usize| 4 * (12 * n * widest + 6 * n * n * heads) as u64;
    let longest = all.iter().map(Vec::len).max().unwrap_or(0);
    let mut length = longest.max(1);
    while length > 16 && needed(length) > bytes / 5 * 3 {
        length = length.div_ceil(2);
    }
    let weights: usize = spec.every_map().map(|m| m.inputs * m.outputs).sum();
    let wanted = (WORK / weights.max(1)).clamp(LEAST, TOKENS).div_ceil(length);
    let pieces: Vec<&[u32]> = all.iter().flat_map(|w| w.chunks(length)).collect();
    // A short rest says little, but it may be all there is.
    let whole = pieces.iter().filter(|p| 2 * p.len() >= length).count();
    let pieces = pieces.into_iter().filter(|p| whole == 0 || 2 * p.len() >= length);
    let pieces: Vec<Vec<u32>> = pieces.map(<[u32]>::to_vec).collect();
    let count = wanted.min(pieces.len());
    ((0..count).map(|i| pieces[(2 * i + 1) * pieces.len() / (2 * count)].clone()).collect(), length)
}

/// What a unit of squared error of each output costs.
///
/// The gradients' own answer, `F_r` for output `r`, is right for errors too small to matter: a model of second order. Errors
/// of few bits leave its reach, and how far they do is told by their size relative to the outputs', `Y_r` in mean
/// square. The cost is therefore `S^p / Y_r` with the relative sensitivity `S = F_r Y_r`, damped: of a tensor's outputs among
/// themselves by one exponent, of tensors among one another by a smaller one. Exponents were found on small models.
pub(super) struct Weighting {
    sensitivity: Sensitivity,
    /// Geometric mean over tensors of their mean relative sensitivity.
    middle: f64,
    /// Width of the residual stream.
    hidden: usize,
    /// Outputs of each map.
    rows: HashMap<String, usize>,
    /// The maps of a layer's experts that do the same, and of each map in which of these lists it stands.
    peers: Vec<Vec<String>>,
    peers_of: HashMap<String, usize>,
    /// By layer: experts' maps without gradients of their own.
    unseen: BTreeMap<usize, usize>,
}

/// Exponent of relative sensitivity among the outputs of one map.
const AMONG_OUTPUTS: f64 = 0.7;
/// Exponent of the mean relative sensitivity among maps.
const AMONG_MAPS: f64 = 0.3;
/// What is added to relative sensitivities, in units of their mean: gradients were seen on a few tokens only.
const DAMPING: f64 = 0.05;
/// The same for mean squares of outputs.
const POWER_DAMPING: f64 = 0.01;
/// Exponent of the frequencies of a vocabulary's rows, and what is added to them in units of their mean.
const AMONG_ROWS: f64 = 0.7;
const ROW_DAMPING: f64 = 0.02;
/// What errors of a vocabulary's rows cost against those of other maps.
const ROWS: f64 = 0.5;
/// The same of an embedding that is no head, whose errors count in units of its rows' size, and its exponent.
const EMBEDDING: f64 = 0.5;
const AMONG_USES: f64 = 0.3;

impl Weighting {
    pub(super) fn new(sensitivity: Sensitivity, spec: &ModelSpec) -> Self {
        let (mut sum, mut count) = (0.0, 0.0);
        let mut names: Vec<&String> = sensitivity.outputs.keys().collect();
        names.sort();
        for name in names {
            if let Some(relative) = sensitivity.relative(name) {
                sum += mean(&relative).max(1e-30).ln();
                count += 1.0;
            }
        }
        let middle = if count > 0.0 { f64::exp(sum / count) } else { 1.0 };
        let mut out = Weighting {
            sensitivity,
            middle,
            hidden: spec.hidden,
            rows: spec.every_map().map(|m| (m.tensor.clone(), m.outputs)).collect(),
            peers: Vec::new(),
            peers_of: HashMap::new(),
            unseen: BTreeMap::new(),
        };
        for block in &spec.blocks {
            for stage in stages(block).iter().filter(|s| s.per_token.is_some()) {
                let unseen = stage.every_map().filter(|m| out.own(&m.tensor).is_none()).count();
                if unseen > 0 {
                    *out.unseen.entry(block.layer).or_insert(0) += unseen;
                }
                for k in 0..stage.maps.iter().map(Vec::len).max().unwrap_or(0) {
                    let peers = stage.maps.iter().filter_map(|g| g.get(k)).map(|m| m.tensor.clone());
                    let peers: Vec<String> = peers.collect();
                    out.peers_of.extend(peers.iter().map(|p| (p.clone(), out.peers.len())));
                    out.peers.push(peers);
                }
            }
        }
        out
    }

    /// What a reader of the report should know.
    pub(super) fn notes(&self) -> Vec<String> {
        if self.unseen.is_empty() {
            return Vec::new();
        }
        let layers: Vec<String> = self.unseen.iter().map(|(l, n)| format!("{n} of layer {l}")).collect();
        vec![format!(
            "Maps of experts without gradients bear what those of the other experts bear on average: {}.",
            layers.join(", ")
        )]
    }

    /// The costs of a map's outputs, and whether they are those of errors in units of the mean squared output. A map of an
    /// expert that saw no gradient has the mean costs of its peers; any other bears errors of the middling relative size.
    pub(super) fn outputs(&self, tensor: &str) -> (Option<Arc<[f64]>>, bool) {
        let own = self.own(tensor).or_else(|| self.of_peers(tensor));
        match (own, self.rows.get(tensor)) {
            (Some(own), _) => (Some(own), false),
            (None, Some(&rows)) => (Some(vec![self.middle; rows].into()), true),
            (None, None) => (None, false),
        }
    }

    /// Mean costs over the peers of a map that saw gradients.
    fn of_peers(&self, tensor: &str) -> Option<Arc<[f64]>> {
        let peers = self.peers.get(*self.peers_of.get(tensor)?)?;
        let known: Vec<Arc<[f64]>> = peers.iter().filter_map(|p| self.own(p)).collect();
        let mut mean = vec![0.0; known.first()?.len()];
        for costs in &known {
            mean.iter_mut().zip(&**costs).for_each(|(m, c)| *m += c / known.len() as f64);
        }
        Some(mean.into())
    }

    /// The costs of a map's outputs; `None` where no gradient was seen.
    fn own(&self, tensor: &str) -> Option<Arc<[f64]>> {
        let powers = self.sensitivity.powers.get(tensor);
        let (Some(relative), Some(powers)) = (self.sensitivity.relative(tensor), powers) else {
            return self.head(tensor);
        };
        let (all, power) = (mean(&relative), mean(powers));
        if !(all > 0.0 && power > 0.0) {
            return None;
        }
        let scale = self.middle * (all / self.middle).max(1e-9).powf(AMONG_MAPS);
        let cost = |(s, y): (&f64, &f64)| {
            let y = power * damped(y / power, POWER_DAMPING);
            scale * damped(s / all, DAMPING).powf(AMONG_OUTPUTS) / y
        };
        Some(relative.iter().zip(powers).map(cost).collect())
    }

    /// The costs of logits.
    fn head(&self, tensor: &str) -> Option<Arc<[f64]>> {
        Some(smoothed(self.sensitivity.outputs.get(tensor)?))
    }

    /// What is known of an embedding: how often each row is used, and how gradients at it are related; where it is the head
    /// too, whose inputs have the moments `head`, both together.
    pub(super) fn embedding(&self, tensor: &str, head: Option<Arc<dyn Moments>>) -> Result<Calibration> {
        let s = &self.sensitivity;
        let n = s.embedding.len().isqrt();
        let Some(head) = head else {
            let total = s.tokens.max(1) as f64;
            let shares: Vec<f64> = s.counts.iter().map(|&c| c as f64 / total).collect();
            let moments = if n > 0 { s.embedding.clone() } else { identity(self.hidden) };
            // By the letter of the second order a row that is rarely used bears errors as large as itself. It does not.
            let all = mean(&shares).max(1e-30);
            let cost = |f: &f64| self.middle * EMBEDDING * damped(f / all, ROW_DAMPING).powf(AMONG_USES);
            return Ok(Calibration {
                inputs: Arc::new(DenseMoments::new(moments, self.hidden)),
                outputs: Some(shares.iter().map(cost).collect()),
                relative: true,
            });
        };
        let rows = s.outputs.get(tensor).map_or(0.0, |rows| rows.iter().sum::<f64>());
        if n == 0 || n != head.diagonal().len() || rows <= 0.0 {
            return Ok(Calibration { inputs: head, outputs: self.head(tensor), relative: false });
        }
        // Rows are used about as often as they are predicted, so that one weight serves for both.
        let all: Vec<usize> = (0..n).collect();
        let mut moments = head.block(&all).map_err(|e| lsb_format::Error::argument(e.to_string()))?;
        for (h, g) in moments.iter_mut().zip(&s.embedding) {
            *h += (f64::from(*g) / rows) as f32;
        }
        Ok(Calibration {
            inputs: Arc::new(DenseMoments::new(moments, n)),
            outputs: self.head(tensor),
            relative: false,
        })
    }
}

fn identity(n: usize) -> Vec<f32> {
    let mut out = vec![0.0; n * n];
    out.iter_mut().step_by(n + 1).for_each(|d| *d = 1.0);
    out
}

/// Weights of rows of a vocabulary: a text shows too few of the rare ones.
fn smoothed(rows: &[f64]) -> Arc<[f64]> {
    let all = mean(rows).max(1e-30);
    rows.iter().map(|r| ROWS * all * damped(r / all, ROW_DAMPING).powf(AMONG_ROWS)).collect()
}

/// A share of a mean, drawn towards it.
fn damped(share: f64, damping: f64) -> f64 {
    (share + damping) / (1.0 + damping)
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}
