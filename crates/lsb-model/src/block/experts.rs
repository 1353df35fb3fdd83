//! Sparse experts: each token goes through the few that its router scores highest.

use super::{Pass, feed_forward};
use crate::spec::ExpertsSpec;
use crate::{Error, Result};
use candle_core::{Device, Tensor};

/// The block for inputs `x`, [tokens, hidden], normed already.
pub(super) fn run(spec: &ExpertsSpec, x: &Tensor, pass: &mut Pass<'_>) -> Result<Tensor> {
    let failed = || Error::compute(&spec.router.tensor);
    let scores = pass.map(&spec.router, x)?;
    let scores = scores.to_vec2::<f32>().map_err(failed())?;
    // For each expert the tokens it is chosen for, and their weights.
    let mut chosen: Vec<(Vec<u32>, Vec<f32>)> = vec![Default::default(); spec.experts.len()];
    for (token, scores) in scores.iter().enumerate() {
        for (expert, weight) in choose(scores, spec.per_token, spec.normalize) {
            chosen[expert].0.push(token as u32);
            chosen[expert].1.push(weight);
        }
    }
    let mut sum = x.zeros_like().map_err(failed())?;
    for (expert, (tokens, weights)) in spec.experts.iter().zip(chosen) {
        if tokens.is_empty() {
            continue;
        }
        let n = tokens.len();
        let tokens = Tensor::from_vec(tokens, n, &Device::Cpu).map_err(failed())?;
        let weights = Tensor::from_vec(weights, (n, 1), &Device::Cpu).map_err(failed())?;
        let x = x.index_select(&tokens, 0).map_err(failed())?;
        let y = feed_forward::run(expert, &x, pass)?;
        let weighted = y.broadcast_mul(&weights);
        sum = weighted.and_then(|y| sum.index_add(&tokens, &y, 0)).map_err(failed())?;
    }
    Ok(sum)
}

/// The experts of one token with their weights: the softmax over all scores, of which the largest are kept; of
/// equal ones the first.
fn choose(scores: &[f32], per_token: usize, normalize: bool) -> Vec<(usize, f32)> {
    let largest = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let exponents: Vec<f32> = scores.iter().map(|s| (s - largest).exp()).collect();
    let total: f32 = exponents.iter().sum();
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]).then(a.cmp(&b)));
    order.truncate(per_token);
    let kept: f32 = order.iter().map(|&i| exponents[i]).sum();
    let divisor = if normalize { kept } else { total };
    order.into_iter().map(|i| (i, exponents[i] / divisor)).collect()
}
