//! Weights that are decoded band by band while they are multiplied.

use super::{Bands, Linear, add_bias, products};
use crate::spec::MapSpec;
use crate::{Error, Result};
use candle_core::{DType, Device, Tensor};
use lsb_stream::TensorWeights;
use rayon::prelude::*;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

/// A linear map whose weights lie in their stored form, in memory or in a file.
pub(crate) struct Coded {
    spec: MapSpec,
    weights: Arc<dyn TensorWeights>,
    bias: Option<Tensor>,
    bands: Arc<Bands>,
}

impl Coded {
    pub(crate) fn new(
        spec: MapSpec,
        weights: Arc<dyn TensorWeights>,
        bias: Option<Tensor>,
        bands: Arc<Bands>,
    ) -> Coded {
        Coded { spec, weights, bias, bands }
    }

    /// Rows of the stored matrix, cut into bands that end where tiles end.
    fn cut(&self, rows: Range<usize>, columns: usize) -> Vec<Range<usize>> {
        let tile_rows = usize::try_from(self.weights.tiling().tile_rows()).unwrap_or(usize::MAX).max(1);
        // Whole tiles where they are small enough; of a taller tile no more than a band at a time.
        let wanted = Bands::rows_at_once(columns);
        let step = if tile_rows <= wanted { wanted / tile_rows * tile_rows } else { tile_rows };
        let mut bands = Vec::new();
        let mut start = rows.start;
        while start < rows.end {
            let end = ((start / step + 1) * step).min(rows.end);
            bands.push(start..end);
            start = end;
        }
        bands
    }

    fn band<R>(
        &self,
        rows: &Range<usize>,
        columns: usize,
        use_band: impl FnOnce(Tensor) -> candle_core::Result<R>,
    ) -> Result<R> {
        let elements = (rows.start * columns) as u64..(rows.end * columns) as u64;
        self.bands.with(&*self.weights, elements, [rows.len(), columns], use_band)
    }

    /// `x` times the transposed rows `rows` of the stored matrix, which is `columns` wide: every band gives some of the
    /// results.
    fn times_rows(&self, x: &Tensor, rows: Range<usize>, columns: usize) -> Result<Tensor> {
        let first = rows.start;
        let tokens = x.dim(0).map_err(self.failed())?;
        let y = Tensor::zeros((tokens, rows.len()), DType::F32, &Device::Cpu).map_err(self.failed())?;
        self.bands.for_each(&self.cut(rows, columns), |band| {
            self.band(band, columns, |w| y.slice_set(&x.matmul(&w.t()?)?, 1, band.start - first))
        })?;
        Ok(y)
    }

    /// `x` times columns `wanted` of the stored matrix of `rows` rows and `columns` columns: every band adds to all
    /// results, in the order of the bands.
    fn times_columns(&self, x: &Tensor, [rows, columns]: [usize; 2], wanted: Range<usize>) -> Result<Tensor> {
        let tokens = x.dim(0).map_err(self.failed())?;
        let mut y = Tensor::zeros((tokens, wanted.len()), DType::F32, &Device::Cpu).map_err(self.failed())?;
        for group in self.cut(0..rows, columns).chunks(self.bands.lanes()) {
            let parts: Vec<Result<Tensor>> = group
                .par_iter()
                .map(|band| {
                    self.band(band, columns, |w| {
                        let x = x.narrow(1, band.start, band.len())?.contiguous()?;
                        x.matmul(&w.narrow(1, wanted.start, wanted.len())?)
                    })
                })
                .collect();
            for part in parts {
                y = (y + part?).map_err(self.failed())?;
            }
        }
        Ok(y)
    }

    fn failed(&self) -> impl FnOnce(candle_core::Error) -> Error + use<> {
        Error::compute(self.spec.tensor.clone())
    }
}

impl Linear for Coded {
    fn spec(&self) -> &MapSpec {
        &self.spec
    }

    fn forward_rows(&self, x: &Tensor, rows: Range<usize>) -> Result<Tensor> {
        let y = if self.spec.inputs_first {
            self.times_columns(x, [self.spec.inputs, self.spec.outputs], rows.clone())?
        } else {
            self.times_rows(x, rows.clone(), self.spec.inputs)?
        };
        add_bias(y, self.bias.as_ref(), &rows, &self.spec)
    }

    fn forward_step(&self, x: &Tensor) -> Result<Tensor> {
        let tokens = x.dim(0).map_err(self.failed())?;
        if self.spec.inputs_first || !self.weights.has_products(tokens) {
            return self.forward(x);
        }
        let inputs = x.flatten_all().and_then(|x| x.to_vec1::<f32>()).map_err(self.failed())?;
        let y = products::times_rows(&*self.weights, &inputs, tokens, &self.bands)?;
        let y = Tensor::from_vec(y, (tokens, self.spec.outputs), &Device::Cpu).map_err(self.failed())?;
        add_bias(y, self.bias.as_ref(), &(0..self.spec.outputs), &self.spec)
    }

    fn backward(&self, y: &Tensor) -> Result<Tensor> {
        let MapSpec { inputs, outputs, .. } = self.spec;
        if self.spec.inputs_first {
            self.times_rows(y, 0..inputs, outputs)
        } else {
            self.times_columns(y, [outputs, inputs], 0..inputs)
        }
    }
}

impl fmt::Debug for Coded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Coded").field("spec", &self.spec).field("weights", self.weights.facts()).finish()
    }
}
