//! Norms.

use crate::spec::NormSpec;
use crate::weights::Weights;
use crate::{Error, Result};
use candle_core::Tensor;
use candle_nn::ops::{layer_norm, rms_norm};

/// Normalizes the last dimension of `x`, which is contiguous.
pub(crate) fn normalize(norm: &NormSpec, x: &Tensor, weights: &Weights) -> Result<Tensor> {
    let alpha = weights.vector(&norm.weight, norm.plus_one)?;
    let normed = match &norm.bias {
        Some(bias) => layer_norm(x, &alpha, &weights.vector(bias, false)?, norm.eps),
        None => rms_norm(x, &alpha, norm.eps),
    };
    normed.map_err(Error::compute(&norm.weight))
}
