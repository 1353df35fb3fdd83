//! The encoder of a matrix with a plan: band by band, several at once.

use super::Plan;
use crate::{EncodedTile, Error, Result, Span, TensorEncoder, to_f32_into};
use rayon::prelude::*;

/// Encodes whole bands.
#[derive(Debug)]
pub(crate) struct FeedbackEncoder {
    plan: Plan,
}

impl FeedbackEncoder {
    pub(crate) fn new(plan: Plan) -> Self {
        FeedbackEncoder { plan }
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
        let results: Vec<Result<()>> = out
            .par_chunks_mut(across as usize)
            .enumerate()
            .map(|(i, out)| {
                let first = tiles.start + i as u64 * across;
                let tile = plan.tiling.tile(first);
                let (row, rows) = (tile.row as usize, tile.rows as usize);
                let at = (row * cols - origin) * width;
                let mut weights = vec![0.0; rows * cols];
                to_f32_into(plan.matrix.dtype, &span.bytes()[at..at + rows * cols * width], &mut weights);
                let band = plan.quantize(row, &weights)?;
                drop(weights);
                out.iter_mut().zip(first..).try_for_each(|(out, i)| plan.encode_tile(i, &band, out))
            })
            .collect();
        // The first error in the order of rows wins.
        results.into_iter().collect()
    }

    fn side(&self) -> Option<Vec<u8>> {
        Some(self.plan.side())
    }

    fn finish(&mut self) -> Result<Vec<u8>> {
        Ok(self.plan.side())
    }
}
