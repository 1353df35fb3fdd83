//! Weights in memory as f32.

use super::{Linear, add_bias};
use crate::spec::MapSpec;
use crate::{Error, Result};
use candle_core::Tensor;
use lsb_stream::Reservation;
use std::ops::Range;

/// A linear map whose weights are a tensor of f32.
#[derive(Debug)]
pub(crate) struct Dense {
    spec: MapSpec,
    /// In the shape they are stored in.
    weights: Tensor,
    bias: Option<Tensor>,
    _memory: Option<Reservation>,
}

impl Dense {
    pub(crate) fn new(
        spec: MapSpec,
        weights: Tensor,
        bias: Option<Tensor>,
        memory: Option<Reservation>,
    ) -> Dense {
        Dense { spec, weights, bias, _memory: memory }
    }
}

impl Linear for Dense {
    fn spec(&self) -> &MapSpec {
        &self.spec
    }

    fn forward_rows(&self, x: &Tensor, rows: Range<usize>) -> Result<Tensor> {
        let multiply = || {
            if self.spec.inputs_first {
                return x.matmul(&self.weights.narrow(1, rows.start, rows.len())?);
            }
            x.matmul(&self.weights.narrow(0, rows.start, rows.len())?.t()?)
        };
        let y = multiply().map_err(Error::compute(&self.spec.tensor))?;
        add_bias(y, self.bias.as_ref(), &rows, &self.spec)
    }

    fn backward(&self, y: &Tensor) -> Result<Tensor> {
        let product = match self.spec.inputs_first {
            true => self.weights.t().and_then(|w| y.matmul(&w)),
            false => y.matmul(&self.weights),
        };
        product.map_err(Error::compute(&self.spec.tensor))
    }
}
