//! Products with the few tokens of a step of generation, made while weights are decoded.

use super::Bands;
use crate::Result;
use lsb_stream::TensorWeights;
use rayon::prelude::*;

/// Tokens that are multiplied at once at most.
pub(super) const TOKENS: usize = 64;

/// Tokens that are multiplied at once even where their partial sums take more than [`PARTS_BYTES`].
const FEW_TOKENS: usize = 8;

/// Bytes of partial sums that lie in memory at once, but for those of one row of tiles.
pub(super) const PARTS_BYTES: usize = 1 << 20;

/// Tiles that are multiplied together.
const PAIR: u64 = 2;

/// `x`, of shape `[tokens, columns]`, times all rows of `weights`, transposed: `[tokens, rows]`. Pairs of tiles give
/// partial sums, which are added in the order of the tiles: results do not depend on the number of threads.
///
/// # Errors
/// If the weights cannot be read.
pub(super) fn times_rows(
    weights: &dyn TensorWeights,
    x: &[f32],
    tokens: usize,
    bands: &Bands,
) -> Result<Vec<f32>> {
    let [rows, columns] = [weights.tiling().rows(), weights.tiling().cols()].map(|n| n as usize);
    let mut y = vec![0.0; tokens * rows];
    if !y.is_empty() && columns > 0 {
        let token_bytes = 4 * weights.tiling().tile_rows() * weights.tiling().across().div_ceil(PAIR);
        let at_once = (PARTS_BYTES / token_bytes.max(1) as usize).clamp(FEW_TOKENS, TOKENS);
        for (x, y) in x.chunks(at_once * columns).zip(y.chunks_mut(at_once * rows)) {
            add_some(weights, x, y.len() / rows, bands, y)?;
        }
    }
    Ok(y)
}

/// Adds the products of as many tokens as their partial sums allow to `y`.
fn add_some(
    weights: &dyn TensorWeights,
    x: &[f32],
    tokens: usize,
    bands: &Bands,
    y: &mut [f32],
) -> Result<()> {
    let tiling = *weights.tiling();
    let rows = tiling.rows() as usize;
    let (across, down) = (tiling.across(), tiling.len() / tiling.across());
    let pairs = across.div_ceil(PAIR);
    // Where every part begins; those of the last row of tiles may not need all of it.
    let part = tokens * tiling.tile_rows().min(tiling.rows()) as usize;
    let at_once = (PARTS_BYTES as u64 / (4 * part as u64 * pairs)).max(1);
    let mut parts = Vec::new();
    for first in (0..down).step_by(at_once as usize) {
        let tile_rows = first..(first + at_once).min(down);
        parts.clear();
        parts.resize((tile_rows.end - tile_rows.start) as usize * pairs as usize * part, 0.0_f32);
        parts.par_chunks_mut(part).enumerate().try_for_each(|(unit, sums)| {
            let start = first * across + unit as u64 / pairs * across + unit as u64 % pairs * PAIR;
            let end = (start + PAIR).min((start / across + 1) * across);
            let rows = tiling.tile(start).rows as usize;
            let sums = sums.get_mut(..tokens * rows).unwrap_or_default();
            bands.with_scratch(|scratch| weights.add_products(start..end, x, tokens, sums, scratch))
        })?;
        for (row, sums) in tile_rows.zip(parts.chunks(part * pairs as usize)) {
            let tile = tiling.tile(row * across);
            let (top, height) = (tile.row as usize, tile.rows as usize);
            for sums in sums.chunks(part) {
                for (y, sums) in y.chunks_mut(rows).zip(sums.chunks(height)).take(tokens) {
                    y[top..top + height].iter_mut().zip(sums).for_each(|(y, sum)| *y += sum);
                }
            }
        }
    }
    Ok(())
}
