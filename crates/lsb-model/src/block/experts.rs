//! Sparse experts: each token goes through the few that its router scores highest.

use super::{Pass, feed_forward};
use crate::spec::ExpertsSpec;
use crate::{Error, Result};
use candle_core::{Device, Tensor};

/// The block for inputs `x`, [tokens, hidden], normed already.
pub(super) fn run(spec: &ExpertsSpec, x: &Tensor, pass: &mut Pass<'_>) -> Result<Tensor> {
    let failed = || Error::compute(&spec.router.tensor);
    let logits = pass.map(&spec.router, x)?;
    let scores = logits.to_vec2::<f32>().map_err(failed())?;
    // For each expert the tokens it is chosen for, and their weights.
    let mut chosen: Vec<(Vec<u32>, Vec<f32>)> = vec![Default::default(); spec.experts.len()];
    for (token, scores) in scores.iter().enumerate() {
        for (expert, weight) in choose(scores, spec.per_token, spec.normalize) {
            chosen[expert].0.push(token as u32);
            chosen[expert].1.push(weight);
        }
    }
    let shares = match pass.tape {
        Some(_) => Some(differentiable(spec, &logits, &chosen).map_err(failed())?),
        None => None,
    };
    let mut sum = x.zeros_like().map_err(failed())?;
    for (number, (expert, (tokens, weights))) in spec.experts.iter().zip(chosen).enumerate() {
        if tokens.is_empty() {
            continue;
        }
        let n = tokens.len();
        let tokens = Tensor::from_vec(tokens, n, &Device::Cpu).map_err(failed())?;
        let weights = match &shares {
            Some(shares) => {
                shares.narrow(1, number, 1).and_then(|s| s.contiguous()?.index_select(&tokens, 0))
            }
            None => Tensor::from_vec(weights, (n, 1), &Device::Cpu),
        }
        .map_err(failed())?;
        let x = x.index_select(&tokens, 0).map_err(failed())?;
        let y = feed_forward::run(expert, &x, pass)?;
        let weighted = y.broadcast_mul(&weights);
        sum = weighted.and_then(|y| sum.index_add(&tokens, &y, 0)).map_err(failed())?;
    }
    Ok(sum)
}

/// The weights of all experts, [tokens, experts], zero where they were not chosen, in operations that have gradients.
fn differentiable(
    spec: &ExpertsSpec,
    logits: &Tensor,
    chosen: &[(Vec<u32>, Vec<f32>)],
) -> candle_core::Result<Tensor> {
    let (tokens, experts) = logits.dims2()?;
    let mut mask = vec![0.0f32; tokens * experts];
    for (expert, (tokens, _)) in chosen.iter().enumerate() {
        tokens.iter().for_each(|&t| mask[t as usize * experts + expert] = 1.0);
    }
    let mask = Tensor::from_vec(mask, (tokens, experts), logits.device())?;
    let shares = (candle_nn::ops::softmax(logits, 1)? * mask)?;
    if spec.normalize { shares.broadcast_div(&shares.sum_keepdim(1)?) } else { Ok(shares) }
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
