//! What is differentiated to learn what a model minds.

use crate::runner::{GradientTap, MapGradient, Objective, Piece};
use crate::{Error, ModelRunner, Result};
use candle_core::{Device, Tensor};
use rayon::prelude::*;

/// Logits held at once.
const LOGITS: usize = 1 << 22;

/// The log likelihood of tokens drawn from the model's own predictions.
pub(super) struct Fisher {
    pub(super) seed: u64,
}

impl Objective for Fisher {
    fn gradient(
        &mut self,
        model: &ModelRunner,
        piece: &Piece<'_>,
        hidden: &Tensor,
        tap: &mut dyn GradientTap,
    ) -> Result<Tensor> {
        let head = model.head()?;
        let (vocab, tokens) = (model.logits().max(1), piece.ids.len());
        let step = (LOGITS / vocab).clamp(1, tokens.max(1));
        let failed = || Error::compute("gradients at the logits");
        let mut parts = Vec::with_capacity(tokens.div_ceil(step));
        for start in (0..tokens).step_by(step) {
            let n = step.min(tokens - start);
            let x = hidden.narrow(0, start, n).and_then(|x| x.contiguous()).map_err(failed())?;
            let y = head.outputs(&x)?;
            let logits = head.capped(y.clone())?;
            let mut values = logits.flatten_all().and_then(|y| y.to_vec1::<f32>()).map_err(failed())?;
            let cap = head.soft_cap();
            values.par_chunks_mut(vocab).enumerate().for_each(|(i, row)| {
                let mut random = Random::new(self.seed, (piece.first + start + i) as u64);
                to_gradient(row, random.uniform(), cap);
            });
            let gradient = Tensor::from_vec(values, (n, vocab), &Device::Cpu).map_err(failed())?;
            let at_inputs = head.backward(&gradient)?;
            let (map, gradient) = (head.map_spec(), &gradient);
            tap.linear(&MapGradient { map, x: &x, y: &y, gradient, at_inputs: &at_inputs })?;
            parts.push(at_inputs);
        }
        Tensor::cat(&parts, 0).map_err(failed())
    }
}

/// Turns logits into the gradient of the log likelihood of the token that `draw`, 0 to 1, picks from their softmax.
fn to_gradient(row: &mut [f32], draw: f64, cap: Option<f32>) {
    // The slope of the cap at each logit.
    let slope = |y: f32| cap.map_or(1.0, |cap| 1.0 - (y / cap) * (y / cap));
    let largest = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let total: f64 = row.iter().map(|&y| f64::from(y - largest).exp()).sum();
    let mut left = draw * total;
    let mut drawn = row.len().saturating_sub(1);
    for (i, &y) in row.iter().enumerate() {
        left -= f64::from(y - largest).exp();
        if left < 0.0 {
            drawn = i;
            break;
        }
    }
    for (i, y) in row.iter_mut().enumerate() {
        let p = (f64::from(*y - largest).exp() / total) as f32;
        *y = (if i == drawn { 1.0 } else { 0.0 } - p) * slope(*y);
    }
}

/// An encoder's normalized embedding in random directions.
pub(super) struct Directions {
    pub(super) seed: u64,
}

impl Objective for Directions {
    fn gradient(
        &mut self,
        model: &ModelRunner,
        piece: &Piece<'_>,
        hidden: &Tensor,
        _: &mut dyn GradientTap,
    ) -> Result<Tensor> {
        let failed = || Error::compute("gradients at the embedding");
        let width = model.spec().hidden.max(1);
        let values = hidden.flatten_all().and_then(|h| h.to_vec1::<f32>()).map_err(failed())?;
        let mut out = vec![0.0f32; values.len()];
        for window in piece.windows {
            let rows = window.start * width..window.end * width;
            let count = window.len().max(1) as f64;
            let mut mean = vec![0.0f64; width];
            for row in values[rows.clone()].chunks(width) {
                mean.iter_mut().zip(row).for_each(|(m, &h)| *m += f64::from(h) / count);
            }
            let length = mean.iter().map(|m| m * m).sum::<f64>().sqrt().max(1e-12);
            let mut random = Random::new(self.seed, (piece.first + window.start) as u64);
            let direction: Vec<f64> = (0..width).map(|_| random.normal()).collect();
            let along: f64 = direction.iter().zip(&mean).map(|(v, m)| v * m / length).sum();
            for row in out[rows].chunks_mut(width) {
                for ((o, v), m) in row.iter_mut().zip(&direction).zip(&mean) {
                    *o = ((v - along * m / length) / (length * count)) as f32;
                }
            }
        }
        Tensor::from_vec(out, hidden.shape().clone(), &Device::Cpu).map_err(failed())
    }
}

/// Random numbers that depend on a seed and a place alone (splitmix64).
struct Random(u64);

impl Random {
    fn new(seed: u64, place: u64) -> Self {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ place.wrapping_mul(0xd134_2543_de82_ef95))
    }

    /// At least 0, below 1.
    fn uniform(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Of mean 0 and variance 1 (Box and Muller, 1958).
    fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.uniform()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.uniform()).cos()
    }
}
