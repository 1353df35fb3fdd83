//! A linear map is one call; where its weights come from is not the caller's business.
//!
//! [`Dense`] holds f32 weights; [`Coded`] decodes them band by band into a reused buffer, from bytes in memory or
//! from a file, or, for the few tokens of a step of generation, multiplies while it decodes.

mod bands;
mod coded;
mod dense;
mod products;
#[cfg(test)]
mod tests;

pub(crate) use bands::Bands;
pub(crate) use coded::Coded;
pub(crate) use dense::Dense;

use crate::spec::MapSpec;
use crate::{Error, Result};
use candle_core::Tensor;
use std::fmt::Debug;
use std::ops::Range;

/// A linear map y = W x + b.
pub trait Linear: Debug + Send + Sync {
    /// Its names and sizes.
    fn spec(&self) -> &MapSpec;

    /// Outputs `rows` of the map for inputs `x` of shape [tokens, inputs], f32 and contiguous: a tensor of shape
    /// [tokens, number of rows].
    ///
    /// # Errors
    /// If shapes do not fit, or the weights cannot be read.
    fn forward_rows(&self, x: &Tensor, rows: Range<usize>) -> Result<Tensor>;

    /// Gradients at the inputs, [tokens, inputs], for gradients `y` at all outputs, [tokens, outputs], f32 and
    /// contiguous: `y W`.
    ///
    /// # Errors
    /// As [`Linear::forward_rows`].
    fn backward(&self, y: &Tensor) -> Result<Tensor>;

    /// All outputs.
    ///
    /// # Errors
    /// As [`Linear::forward_rows`].
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.forward_rows(x, 0..self.spec().outputs)
    }

    /// As [`Linear::forward`] in a step of generation: weights may be multiplied as they are decoded, which takes less time
    /// for a few tokens and rounds sums otherwise.
    ///
    /// # Errors
    /// As [`Linear::forward_rows`].
    fn forward_step(&self, x: &Tensor) -> Result<Tensor> {
        self.forward(x)
    }
}

/// Adds the part of the bias that belongs to `rows`.
fn add_bias(y: Tensor, bias: Option<&Tensor>, rows: &Range<usize>, spec: &MapSpec) -> Result<Tensor> {
    let Some(bias) = bias else { return Ok(y) };
    let part = bias.narrow(0, rows.start, rows.len());
    part.and_then(|part| y.broadcast_add(&part)).map_err(Error::compute(&spec.tensor))
}
