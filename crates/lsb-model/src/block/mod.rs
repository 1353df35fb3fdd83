//! Runs one block on a chunk of tokens.

mod activation;
mod attention;
mod experts;
mod feed_forward;
mod gradient;
mod norm;
mod rotary;
mod softmax;

pub(crate) use attention::SCORES;
pub(crate) use gradient::{Seen, Tape, normalize as differentiable_norm, pull_back};
pub(crate) use norm::normalize;
pub(crate) use rotary::Rotary;

use crate::cache::KvCache;
use crate::linear::Linear;
use crate::spec::{BlockSpec, MapSpec, NormSpec, PartSpec};
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
    /// Where gradients are wanted: every operation is then one that candle can differentiate.
    pub(crate) tape: Option<&'a Tape>,
    /// A step of generation: maps may round sums otherwise than where many tokens go through them.
    pub(crate) step: bool,
}

impl Pass<'_> {
    /// Applies a map and shows it to the tap.
    fn map(&mut self, spec: &MapSpec, x: &Tensor) -> Result<Tensor> {
        let map: Arc<dyn Linear> = self.weights.map(spec)?;
        if let Some(tape) = self.tape {
            return tape.map(map, x);
        }
        if !self.tap.input(self.layer, spec, x)? {
            return Err(Error::Ended);
        }
        let y = if self.step { map.forward_step(x)? } else { map.forward(x)? };
        self.tap.linear(self.layer, spec, x, &y)?;
        Ok(y)
    }
}

impl Pass<'_> {
    /// Normalizes the last dimension.
    fn normalize(&self, norm: &NormSpec, x: &Tensor) -> Result<Tensor> {
        match self.tape {
            Some(_) => gradient::normalize(norm, x, self.weights),
            None => normalize(norm, x, self.weights),
        }
    }
}

/// Turns the residual stream `x`, [tokens, hidden], into that behind the block.
pub(crate) fn run(block: &BlockSpec, x: Tensor, pass: &mut Pass<'_>) -> Result<Tensor> {
    let failed = || Error::compute(format!("layer {}", block.layer));
    let mut sum: Option<Tensor> = None;
    for branch in &block.branches {
        let input = match &branch.before {
            Some(norm) => pass.normalize(norm, &x)?,
            None => x.clone(),
        };
        let mut y = match &branch.part {
            PartSpec::Attention(attention) => attention::attend(attention, input, pass)?,
            PartSpec::FeedForward(spec) => feed_forward::run(spec, &input, pass)?,
            PartSpec::Experts(spec) => experts::run(spec, &input, pass)?,
        };
        if let Some(norm) = &branch.after {
            y = pass.normalize(norm, &y)?;
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
        Some(norm) => pass.normalize(norm, &x),
        None => Ok(x),
    }
}
