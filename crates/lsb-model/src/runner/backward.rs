//! Gradients, streamed: forward once with the residual stream kept in front of every block, then back, a block at a time.

use super::ModelRunner;
use crate::block::{Seen, Tape, differentiable_norm, pull_back};
use crate::spec::MapSpec;
use crate::tap::Tap;
use crate::{Error, Result};
use candle_core::{Tensor, Var};
use lsb_stream::ActivationStore;
use std::ops::Range;

/// What went through a linear map, forward and back, one row for each token.
#[derive(Clone, Copy, Debug)]
pub struct MapGradient<'a> {
    /// The map.
    pub map: &'a MapSpec,
    /// Its inputs, [tokens, inputs].
    pub x: &'a Tensor,
    /// Its outputs, bias included, [tokens, outputs].
    pub y: &'a Tensor,
    /// The objective's gradient at the outputs, [tokens, outputs].
    pub gradient: &'a Tensor,
    /// What comes of it at the inputs, [tokens, inputs].
    pub at_inputs: &'a Tensor,
}

/// Sees gradients at linear maps.
pub trait GradientTap {
    /// Maps come in the reverse order of a pass; an expert is shown only the tokens it was chosen for.
    ///
    /// # Errors
    /// The observer's own; the pass ends with it.
    fn linear(&mut self, seen: &MapGradient<'_>) -> Result<()>;

    /// Gradients at the residual stream in front of the first block, [tokens, hidden], of tokens with these ids.
    ///
    /// # Errors
    /// The observer's own.
    fn embedding(&mut self, ids: &[u32], gradient: &Tensor) -> Result<()>;
}

/// Some whole windows on their way back.
#[derive(Clone, Copy, Debug)]
pub struct Piece<'a> {
    /// Number of its first token among all.
    pub first: usize,
    /// Ids of its tokens.
    pub ids: &'a [u32],
    /// Its windows, as ranges among its tokens.
    pub windows: &'a [Range<usize>],
}

/// What is to be differentiated.
pub trait Objective {
    /// The gradient at the hidden states `hidden` behind the last norm, [tokens, hidden], of one piece. Maps behind them
    /// are shown to `tap` here.
    ///
    /// # Errors
    /// If the head cannot be computed.
    fn gradient(
        &mut self,
        model: &ModelRunner,
        piece: &Piece<'_>,
        hidden: &Tensor,
        tap: &mut dyn GradientTap,
    ) -> Result<Tensor>;
}

/// Runs `windows` through `model`, where `forward` sees its maps, and the gradients of `objective` back.
///
/// Whole windows go through a block at once, at least one: memory for their intermediate values is not counted in the
/// budget, so that windows should be short where memory is.
///
/// # Errors
/// If weights cannot be read, activations cannot be kept, or the objective or the tap fail.
pub fn backward(
    model: &ModelRunner,
    windows: &[Vec<u32>],
    objective: &mut dyn Objective,
    forward: &mut dyn Tap,
    tap: &mut dyn GradientTap,
) -> Result<()> {
    let ids: Vec<u32> = windows.concat();
    let mut batch = model.whole_batch(windows)?;
    let chunks = batch.chunks();
    let slots = || chunks.iter().map(|c| c.len() * model.spec().hidden).collect::<Vec<usize>>();
    let store = || ActivationStore::new(&model.activations, slots(), model.options.spill.as_deref());
    let blocks = &model.spec().blocks;
    let mut stored = Vec::with_capacity(blocks.len());
    for _ in blocks {
        let inputs = store()?;
        for i in 0..chunks.len() {
            inputs.put(i, &super::batch::flat(&batch.hidden(i)?)?)?;
        }
        stored.push(inputs);
        batch.step(forward)?;
    }
    let failed = || Error::compute("gradients");
    let gradients = store()?;
    for (i, chunk) in chunks.iter().enumerate() {
        let x = Var::from_tensor(&batch.hidden(i)?).map_err(failed())?;
        let normed = match &model.spec().norm {
            Some(norm) => differentiable_norm(norm, &x, &model.weights)?,
            None => x.as_tensor().clone(),
        };
        let sequences = batch.sequences(i);
        let piece = Piece { first: chunk.start, ids: &ids[chunk.clone()], windows: &sequences };
        let gradient = objective.gradient(model, &piece, &normed.detach(), tap)?;
        let at_x = match &model.spec().norm {
            Some(_) => pull_back(&x, &normed, &gradient).map_err(failed())?,
            None => gradient,
        };
        gradients.put(i, &super::batch::flat(&at_x)?)?;
    }
    let mut buffer = Vec::new();
    let mut read = |store: &ActivationStore, i: usize| -> Result<Tensor> {
        store.get(i, &mut buffer)?;
        let shape = (chunks[i].len(), model.spec().hidden);
        Tensor::from_slice(&buffer, shape, &candle_core::Device::Cpu).map_err(Error::compute("gradients"))
    };
    let tape = Tape::default();
    for (block, inputs) in blocks.iter().zip(stored).rev() {
        if chunks.len() > 1 {
            model.weights.keep();
        }
        for i in 0..chunks.len() {
            let x = Var::from_tensor(&read(&inputs, i)?).map_err(failed())?;
            let y = batch.differentiable(block, i, &x, &tape)?;
            let at_x = pull_back(&x, &y, &read(&gradients, i)?).map_err(failed())?;
            for seen in tape.take() {
                let Seen { map, x, y, gradient, at_inputs } = &seen;
                tap.linear(&MapGradient { map, x, y, gradient, at_inputs })?;
            }
            gradients.put(i, &super::batch::flat(&at_x)?)?;
        }
        model.weights.release();
    }
    for (i, chunk) in chunks.iter().enumerate() {
        tap.embedding(&ids[chunk.clone()], &read(&gradients, i)?)?;
    }
    Ok(())
}
