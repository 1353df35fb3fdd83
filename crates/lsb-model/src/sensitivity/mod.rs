//! How much a model minds errors at the outputs of its linear maps.

mod objective;
#[cfg(test)]
mod tests;

use crate::runner::{GradientTap, MapGradient, backward};
use crate::spec::MapSpec;
use crate::tap::Tap;
use crate::{Error, ModelRunner, Result};
use candle_core::Tensor;
use objective::{Directions, Fisher};
use std::collections::HashMap;

/// Mean squares of gradients, estimated on a text.
///
/// For a language model the gradients are those of the log likelihood of tokens drawn from the model's own predictions:
/// their mean squares are the diagonal of the Fisher information, and half of it times squared errors is the divergence that
/// the errors cause (second order). For an encoder they are those of its normalized embedding in random directions.
#[derive(Clone, Debug, Default)]
pub struct Sensitivity {
    /// For each linear map, by tensor: the mean square of the gradient at each output, over all tokens.
    pub outputs: HashMap<String, Vec<f64>>,
    /// For each linear map but the head: the mean square of each output.
    pub powers: HashMap<String, Vec<f64>>,
    /// Mean of `g g^T` of the gradients `g` at the embedding's output, [hidden, hidden]; empty for wide models.
    pub embedding: Vec<f32>,
    /// How often each token occurred.
    pub counts: Vec<u64>,
    /// Tokens in all.
    pub tokens: usize,
}

/// Widest residual stream whose second moments of gradients are kept.
const WIDEST: usize = 4096;

impl Sensitivity {
    /// Estimates the sensitivity of `model` on `windows`.
    ///
    /// # Errors
    /// If the model cannot be run.
    pub fn estimate(model: &ModelRunner, windows: &[Vec<u32>], seed: u64) -> Result<Sensitivity> {
        let hidden = model.spec().hidden;
        let mut out = Sensitivity {
            embedding: if hidden <= WIDEST { vec![0.0; hidden * hidden] } else { Vec::new() },
            counts: vec![0; model.spec().vocab],
            ..Sensitivity::default()
        };
        let mut powers = Powers::default();
        match model.spec().head {
            Some(_) => backward(model, windows, &mut Fisher { seed }, &mut powers, &mut out)?,
            None => backward(model, windows, &mut Directions { seed }, &mut powers, &mut out)?,
        }
        out.powers = powers.0;
        out.tokens = windows.iter().map(Vec::len).sum();
        let count = out.tokens.max(1) as f64;
        out.outputs.values_mut().chain(out.powers.values_mut()).flatten().for_each(|x| *x /= count);
        out.embedding.iter_mut().for_each(|x| *x /= count as f32);
        Ok(out)
    }

    /// The product of both for each output of a map: what an error as large as the output costs.
    pub(crate) fn relative(&self, tensor: &str) -> Option<Vec<f64>> {
        let (outputs, powers) = (self.outputs.get(tensor)?, self.powers.get(tensor)?);
        Some(outputs.iter().zip(powers).map(|(f, y)| f * y).collect())
    }
}

/// Sums of squares of outputs.
#[derive(Default)]
struct Powers(HashMap<String, Vec<f64>>);

impl Tap for Powers {
    fn linear(&mut self, _: usize, map: &MapSpec, _: &Tensor, y: &Tensor) -> Result<()> {
        let sums = self.0.entry(map.tensor.clone()).or_insert_with(|| vec![0.0; map.outputs]);
        add_squares(&map.tensor, "an output", y, sums)
    }
}

/// Adds the squares of every column of `y`, [tokens, columns], to `sums`. They are `what` of the map of `tensor`.
fn add_squares(tensor: &str, what: &str, y: &Tensor, sums: &mut [f64]) -> Result<()> {
    let values = y.flatten_all().and_then(|y| y.to_vec1::<f32>()).map_err(Error::compute(tensor))?;
    for row in values.chunks(sums.len().max(1)) {
        for (sum, &y) in sums.iter_mut().zip(row) {
            if !y.is_finite() {
                return Err(not_finite(tensor, format!("{what} is {y}")).into());
            }
            *sum += f64::from(y) * f64::from(y);
        }
    }
    Ok(())
}

/// The error of numbers that a model computes and nothing can be learnt from.
pub(crate) fn not_finite(tensor: &str, what: impl std::fmt::Display) -> lsb_format::Error {
    lsb_format::Error::argument(format!("{what} where the model reads the calibration text"))
        .in_tensor(tensor)
        .advise("its weights or those before it overflow there; --calib none compresses without running the model")
}

impl GradientTap for Sensitivity {
    fn linear(&mut self, seen: &MapGradient<'_>) -> Result<()> {
        let MapGradient { map, gradient, .. } = *seen;
        let sums = self.outputs.entry(map.tensor.clone()).or_insert_with(|| vec![0.0; map.outputs]);
        add_squares(&map.tensor, "a gradient at an output", gradient, sums)
    }

    fn embedding(&mut self, ids: &[u32], gradient: &Tensor) -> Result<()> {
        for &id in ids {
            if let Some(count) = self.counts.get_mut(id as usize) {
                *count += 1;
            }
        }
        if self.embedding.is_empty() {
            return Ok(());
        }
        let products = gradient
            .t()
            .and_then(|t| t.contiguous())
            .and_then(|t| t.matmul(gradient))
            .and_then(|p| p.flatten_all()?.to_vec1::<f32>())
            .map_err(Error::compute("gradients at the embedding"))?;
        self.embedding.iter_mut().zip(products).for_each(|(s, p)| *s += p);
        Ok(())
    }
}
