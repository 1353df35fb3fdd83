//! Observers of a forward pass.

use crate::Result;
use crate::spec::MapSpec;
use candle_core::Tensor;

/// Sees what goes into every linear map and what comes out. Calibration gathers inputs; judging compares outputs.
pub trait Tap {
    /// `map` of layer `layer` is about to turn `x`, [tokens, inputs]. Where this is not true, neither that nor anything behind
    /// it is wanted of these tokens: a [`Batch::peek`](crate::Batch::peek) leaves it out, others fail.
    ///
    /// # Errors
    /// As [`Tap::linear`].
    fn input(&mut self, layer: usize, map: &MapSpec, x: &Tensor) -> Result<bool> {
        let _ = (layer, map, x);
        Ok(true)
    }

    /// `map` of layer `layer` turned `x`, [tokens, inputs], into `y`, [tokens, outputs], both f32. Maps that share
    /// an input (queries, keys and values; gates and ups) are shown the same tensor one after the other. The
    /// tokens of one pass may come in several calls; an expert is shown only the tokens it was chosen for.
    /// `y` is changed in place once the call has returned: copy what is to be kept.
    ///
    /// # Errors
    /// The observer's own; the pass ends with it.
    fn linear(&mut self, layer: usize, map: &MapSpec, x: &Tensor, y: &Tensor) -> Result<()> {
        let _ = (layer, map, x, y);
        Ok(())
    }
}

/// Looks away.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoTap;

impl Tap for NoTap {}
