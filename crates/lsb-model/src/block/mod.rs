//! Runs one block on a chunk of tokens.

mod activation;
mod attention;
mod experts;
mod feed_forward;
mod norm;
mod rotary;
mod softmax;

pub(crate) use attention::SCORES;
pub(crate) use norm::normalize;
pub(crate) use rotary::Rotary;

use crate::cache::KvCache;
use crate::linear::Linear;
use crate::spec::{BlockSpec, MapSpec, PartSpec};
use crate::tap::Tap;
use crate::weights::Weights;
use crate::{Error, Result};
use candle_core::Tensor;
use std::sync::Arc;

/// Tokens of one sequence inside a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Segment {
    /// Number of the sequence, which is that of its cache.
    pub(crate) sequence: usize,
    /// Position of its first token in the sequence.
    pub(crate) first: usize,
    /// Tokens.
    pub(crate) tokens: usize,
}

/// What a block is run with.
pub(crate) struct Pass<'a> {
    pub(crate) weights: &'a Weights,
    pub(crate) rotary: &'a [Rotary],
    /// The sequences whose tokens lie one after the other in the chunk.
    pub(crate) segments: &'a [Segment],
    /// Keys and values of each sequence; empty where every sequence lies in its chunk in one piece.
    pub(crate) caches: &'a mut [KvCache],
    pub(crate) tap: &'a mut dyn Tap,
    pub(crate) layer: usize,
}

impl Pass<'_> {
    /// Applies a map and shows it to the tap.
    fn map(&mut self, spec: &MapSpec, x: &Tensor) -> Result<Tensor> {
        let map: Arc<dyn Linear> = self.weights.map(spec)?;
        let y = map.forward(x)?;
        self.tap.linear(self.layer, spec, x, &y)?;
        Ok(y)
    }
}

/// Turns the residual stream `x`, [tokens, hidden], into that behind the block.
pub(crate) fn run(block: &BlockSpec, x: Tensor, pass: &mut Pass<'_>) -> Result<Tensor> {
    let failed = || Error::compute(format!("layer {}", block.layer));
    let mut sum: Option<Tensor> = None;
    for branch in &block.branches {
        let input = match &branch.before {
            Some(norm) => normalize(norm, &x, pass.weights)?,
            None => x.clone(),
        };
        let mut y = match &branch.part {
            PartSpec::Attention(attention) => attention::attend(attention, input, pass)?,
            PartSpec::FeedForward(spec) => feed_forward::run(spec, &input, pass)?,
            PartSpec::Experts(spec) => experts::run(spec, &input, pass)?,
        };
        if let Some(norm) = &branch.after {
            y = normalize(norm, &y, pass.weights)?;
        }
        sum = Some(match sum {
            Some(sum) => (sum + y).map_err(failed())?,
            None => y,
        });
    }
    let x = match sum {
        Some(sum) => (x + sum).map_err(failed())?,
        None => x,
    };
    match &block.after {
        Some(norm) => normalize(norm, &x, pass.weights),
        None => Ok(x),
    }
}
