//! The encoder of a matrix with a plan: band by band, several at once.

use super::{Expected, Plan};
use crate::{Account, EncodedTile, Error, Result, Span, TensorEncoder, to_f32_into};
use rayon::prelude::*;

/// Weights of the bands that are worked on at once, where they are more than one.
const AT_ONCE: usize = 3 << 20;

/// Bands of so many weights that are worked on at once.
pub(crate) fn bands_at_once(weights: usize) -> usize {
    (2 * AT_ONCE / weights.max(1)).clamp(1, 4)
}

/// Encodes whole bands.
#[derive(Debug)]
pub(crate) struct FeedbackEncoder {
    plan: Plan,
    /// Weighted loss of the bands so far.
    loss: f64,
}

impl FeedbackEncoder {
    pub(crate) fn new(plan: Plan) -> Self {
        FeedbackEncoder { plan, loss: 0.0 }
    }
}

impl TensorEncoder for FeedbackEncoder {
    fn encode(&mut self, span: &Span<'_>, out: &mut [EncodedTile]) -> Result<()> {
        let plan = &self.plan;
        let across = plan.tiling.across().max(1);
        let tiles = span.tiles();
        if !tiles.start.is_multiple_of(across) || !(out.len() as u64).is_multiple_of(across) {
            return Err(Error::Payload(lsb_format::Error::argument("a span of half a band")));
        }
        let cols = plan.matrix.cols as usize;
        let width = plan.matrix.dtype.bits() as usize / 8;
        let origin = span.tiling().elements(tiles.clone()).start as usize;
        let one = |i: u64, out: &mut [EncodedTile]| -> Result<f64> {
            let first = tiles.start + i * across;
            let tile = plan.tiling.tile(first);
            let (row, rows) = (tile.row as usize, tile.rows as usize);
            let at = (row * cols - origin) * width;
            let mut weights = vec![0.0; rows * cols];
            to_f32_into(plan.matrix.dtype, &span.bytes()[at..at + rows * cols * width], &mut weights);
            let band = plan.quantize(row, weights)?;
            out.iter_mut().zip(first..).try_for_each(|(out, i)| plan.encode_tile(i, &band, out))?;
            Ok(band.weighted_loss)
        };
        let step = bands_at_once(plan.tiling.tile_rows() as usize * cols);
        for (k, group) in out.chunks_mut(step * across as usize).enumerate() {
            let results: Vec<Result<f64>> = group
                .par_chunks_mut(across as usize)
                .enumerate()
                .map(|(i, out)| one((k * step + i) as u64, out))
                .collect();
            // In the order of rows: the first error wins, and the sum is the same on any number of threads.
            for result in results {
                self.loss += result?;
            }
        }
        Ok(())
    }

    fn side(&self) -> Option<Vec<u8>> {
        Some(self.plan.side())
    }

    fn account(&self) -> Option<Account> {
        let Expected { bytes: expected_bytes, weighted_loss: expected_loss } = self.plan.expected();
        let factor = self.plan.factor_report();
        Some(Account { factor, expected_bytes, expected_loss, loss: self.loss })
    }

    fn finish(&mut self) -> Result<Vec<u8>> {
        Ok(self.plan.side())
    }
}
