//! What a block needs so that candle can differentiate it.

use crate::linear::Linear;
use crate::spec::{MapSpec, NormSpec};
use crate::weights::Weights;
use crate::{Error, Result};
use candle_core::{CpuStorage, CustomOp1, D, Device, Layout, Shape, Tensor, Var};
use std::sync::{Arc, Mutex, PoisonError};

/// What went through a linear map, forward and back.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) map: MapSpec,
    /// [tokens, inputs].
    pub(crate) x: Tensor,
    /// [tokens, outputs].
    pub(crate) y: Tensor,
    /// At the outputs, [tokens, outputs].
    pub(crate) gradient: Tensor,
    /// At the inputs, [tokens, inputs].
    pub(crate) at_inputs: Tensor,
}

/// Records what the backward pass shows.
#[derive(Debug, Default)]
pub(crate) struct Tape {
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Tape {
    /// Applies a map, with a gradient at its inputs.
    pub(super) fn map(&self, map: Arc<dyn Linear>, x: &Tensor) -> Result<Tensor> {
        let failed = Error::compute(map.spec().tensor.clone());
        let op = MapOp { map, seen: Arc::clone(&self.seen) };
        x.contiguous().and_then(|x| x.apply_op1(op)).map_err(failed)
    }

    /// What was seen since the last call, in the order of the backward pass.
    pub(crate) fn take(&self) -> Vec<Seen> {
        std::mem::take(&mut *self.seen.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A linear map as an operation of candle.
struct MapOp {
    map: Arc<dyn Linear>,
    seen: Arc<Mutex<Vec<Seen>>>,
}

fn inner(e: crate::Error) -> candle_core::Error {
    candle_core::Error::wrap(e)
}

impl CustomOp1 for MapOp {
    fn name(&self) -> &'static str {
        "linear map"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> candle_core::Result<(CpuStorage, Shape)> {
        let (CpuStorage::F32(values), Some((start, end))) = (storage, layout.contiguous_offsets()) else {
            candle_core::bail!("inputs of a map are contiguous f32");
        };
        let x = Tensor::from_slice(&values[start..end], layout.shape().clone(), &Device::Cpu)?;
        let y = self.map.forward(&x).map_err(inner)?;
        let shape = y.shape().clone();
        Ok((CpuStorage::F32(y.flatten_all()?.to_vec1()?), shape))
    }

    fn bwd(&self, x: &Tensor, y: &Tensor, gradient: &Tensor) -> candle_core::Result<Option<Tensor>> {
        let gradient = gradient.contiguous()?.detach();
        let at_inputs = self.map.backward(&gradient).map_err(inner)?;
        let map = self.map.spec().clone();
        let seen = Seen { map, x: x.detach(), y: y.detach(), gradient, at_inputs: at_inputs.clone() };
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).push(seen);
        Ok(Some(at_inputs))
    }
}

/// The gradient at `x` of the sum of `y * gradient`, where `y` was computed from `x`.
pub(crate) fn pull_back(x: &Var, y: &Tensor, gradient: &Tensor) -> candle_core::Result<Tensor> {
    let gradients = (y * gradient)?.sum_all()?.backward()?;
    match gradients.get(x) {
        Some(gradient) => Ok(gradient.detach()),
        None => x.zeros_like(),
    }
}

/// Normalizes the last dimension of `x` in operations that have gradients.
pub(crate) fn normalize(norm: &NormSpec, x: &Tensor, weights: &Weights) -> Result<Tensor> {
    let alpha = weights.vector(&norm.weight, norm.plus_one)?;
    let bias = norm.bias.as_ref().map(|bias| weights.vector(bias, false)).transpose()?;
    let normed = || {
        let x = match &bias {
            Some(_) => x.broadcast_sub(&x.mean_keepdim(D::Minus1)?)?,
            None => x.clone(),
        };
        let variance = x.sqr()?.mean_keepdim(D::Minus1)?;
        let x = x.broadcast_div(&(variance + f64::from(norm.eps))?.sqrt()?)?.broadcast_mul(&alpha)?;
        match &bias {
            Some(bias) => x.broadcast_add(bias),
            None => Ok(x),
        }
    };
    normed().map_err(Error::compute(&norm.weight))
}
