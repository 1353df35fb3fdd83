//! From attention scores to weights, in place.

use candle_core::{CpuStorage, InplaceOp1, Layout, Tensor};
use rayon::prelude::*;
use std::ops::Range;

/// Scales, caps and masks scores, then takes the softmax of each row. Rows that see no key become zeros.
pub(super) struct MaskedSoftmax {
    /// What scores are multiplied by.
    pub(super) scale: f32,
    /// Scores `s` become `cap * tanh(s / cap)`.
    pub(super) soft_cap: Option<f32>,
    /// Queries of one head; row r belongs to query r mod this.
    pub(super) queries: usize,
    /// Position of the first query, counted from the first key of the row.
    pub(super) first: isize,
    /// Whether a query sees only keys up to its own position.
    pub(super) causal: bool,
    /// How many keys back a query sees, itself included.
    pub(super) window: Option<usize>,
}

impl MaskedSoftmax {
    /// The keys, of `keys`, that the query of row `row` sees.
    fn visible(&self, row: usize, keys: usize) -> Range<usize> {
        let position = self.first + (row % self.queries) as isize;
        let end = if self.causal { (position + 1).clamp(0, keys as isize) as usize } else { keys };
        let start = self.window.map_or(0, |w| (position + 1 - w as isize).max(0) as usize);
        start.min(end)..end
    }

    /// The same as a new tensor, in operations that have gradients. `scores` are [heads, rows, keys].
    pub(super) fn differentiable(&self, scores: &Tensor) -> candle_core::Result<Tensor> {
        let (_, rows, keys) = scores.dims3()?;
        let mut scores = (scores * f64::from(self.scale))?;
        if let Some(cap) = self.soft_cap.map(f64::from) {
            scores = ((scores / cap)?.tanh()? * cap)?;
        }
        let mask: Vec<f32> = (0..rows)
            .flat_map(|row| {
                let visible = self.visible(row, keys);
                // Far below any score, and yet a number.
                (0..keys).map(move |key| if visible.contains(&key) { 0.0 } else { -1e30 })
            })
            .collect();
        let mask = Tensor::from_vec(mask, (1, rows, keys), scores.device())?;
        candle_nn::ops::softmax(&scores.broadcast_add(&mask)?, 2)
    }

    /// From the scores of row `row`, for every key, to weights.
    pub(super) fn row(&self, row: usize, scores: &mut [f32]) {
        let visible = self.visible(row, scores.len());
        scores[..visible.start].fill(0.0);
        scores[visible.end..].fill(0.0);
        let seen = &mut scores[visible];
        for s in seen.iter_mut() {
            *s *= self.scale;
        }
        if let Some(cap) = self.soft_cap {
            for s in seen.iter_mut() {
                *s = cap * (*s / cap).tanh();
            }
        }
        let largest = seen.iter().fold(f32::NEG_INFINITY, |m, &s| m.max(s));
        let mut sum = 0.0;
        for s in seen.iter_mut() {
            *s = (*s - largest).exp();
            sum += *s;
        }
        let inverse = 1.0 / sum;
        for s in seen.iter_mut() {
            *s *= inverse;
        }
    }
}

impl InplaceOp1 for MaskedSoftmax {
    fn name(&self) -> &'static str {
        "masked softmax"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> candle_core::Result<()> {
        let (CpuStorage::F32(scores), Some((start, end))) = (storage, layout.contiguous_offsets()) else {
            candle_core::bail!("attention scores are contiguous f32");
        };
        let keys = layout.dims().last().copied().unwrap_or(0).max(1);
        let rows = scores[start..end].par_chunks_mut(keys).enumerate();
        rows.with_min_len((1 << 14) / keys + 1).for_each(|(row, scores)| self.row(row, scores));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    #[test]
    fn queries_see_what_they_may() {
        let op = |first, causal, window| MaskedSoftmax {
            scale: 1.0,
            soft_cap: None,
            queries: 3,
            first,
            causal,
            window,
        };
        // Three queries behind two earlier keys, in two heads.
        let weights = |op: &MaskedSoftmax| {
            let scores = Tensor::zeros((2, 3, 5), candle_core::DType::F32, &Device::Cpu).unwrap();
            scores.inplace_op1(op).unwrap();
            let rows = scores.reshape((6, 5)).unwrap().to_vec2::<f32>().unwrap();
            assert_eq!(rows[..3], rows[3..], "heads are alike");
            rows[..3].to_vec()
        };
        let third = 1.0 / 3.0;
        let causal = weights(&op(2, true, None));
        assert_eq!(causal[0], [third, third, third, 0.0, 0.0]);
        assert_eq!(causal[2], [0.2; 5]);
        let window = weights(&op(2, true, Some(2)));
        assert_eq!(window[0], [0.0, 0.5, 0.5, 0.0, 0.0]);
        assert_eq!(window[2], [0.0, 0.0, 0.0, 0.5, 0.5]);
        assert_eq!(weights(&op(0, false, None))[0], [0.2; 5]);
    }
}
