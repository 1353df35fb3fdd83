//! Products with the tokens of a step of generation or of a prompt, made by tiles themselves.

use super::Bands;
use crate::Result;
use lsb_quant::Activations;
use lsb_stream::{FEW_TOKENS, TensorWeights};
use rayon::prelude::*;

/// Of more than [`FEW_TOKENS`] tokens, so many are multiplied at once at least and at most: tiles are decoded again for
/// every time.
pub(super) const TOKENS: usize = 64;
const MOST_TOKENS: usize = 512;

/// Bytes of partial sums that lie in memory at once, but for those of one row of tiles.
pub(super) const PARTS_BYTES: usize = 1 << 20;

/// Bytes that activations take at most in the form in which tiles multiply them, but for [`TOKENS`].
const ACTIVATIONS_BYTES: usize = 8 << 20;

/// Tiles that are multiplied together.
const PAIR: u64 = 2;

/// `x`, of shape `[tokens, columns]`, times all rows of `weights`, transposed: `[tokens, rows]`. Results do not depend on the
/// number of threads.
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
    if y.is_empty() || columns == 0 {
        return Ok(y);
    }
    if tokens <= FEW_TOKENS {
        // A row of tiles is more than one thread's share of a small matrix.
        add_parts(weights, &Activations::new(x, tokens), PAIR, bands, &mut y)?;
        return Ok(y);
    }
    let tiling = weights.products_tiling(tokens);
    let token_bytes = 4 * tiling.tile_rows().min(tiling.rows()) as usize;
    let at_once = (PARTS_BYTES / (token_bytes * bands.lanes()))
        .clamp(TOKENS, MOST_TOKENS)
        .min(kept_tokens(weights.activation_bytes() * columns));
    // Of equal length: the last ones are not few.
    let parts = tokens.div_ceil(at_once);
    for part in 0..parts {
        let [start, end] = [part, part + 1].map(|part| part * tokens / parts);
        let x = Activations::new(&x[start * columns..end * columns], end - start);
        add_parts(weights, &x, tiling.across(), bands, &mut y[start * rows..end * rows])?;
    }
    Ok(y)
}

/// Tokens at once at most, where each takes so many bytes in the form in which tiles multiply it.
fn kept_tokens(bytes: usize) -> usize {
    ACTIVATIONS_BYTES.checked_div(bytes).unwrap_or(MOST_TOKENS).clamp(TOKENS, MOST_TOKENS)
}

/// The bytes of all of them, for rows of so many columns at most.
pub(super) fn kept_bytes(columns: usize) -> u64 {
    let bytes = Activations::MOST_BYTES * columns;
    (kept_tokens(bytes) * bytes) as u64
}

/// Adds products to `y`. Every `width` neighbours in a row of tiles give partial sums, which are added in the order of the
/// tiles.
fn add_parts(
    weights: &dyn TensorWeights,
    x: &Activations<'_>,
    width: u64,
    bands: &Bands,
    y: &mut [f32],
) -> Result<()> {
    let tokens = x.tokens();
    let tiling = weights.products_tiling(tokens);
    let rows = tiling.rows() as usize;
    let (across, down) = (tiling.across(), tiling.len() / tiling.across());
    let shares = across.div_ceil(width);
    // Where every part begins; those of the last row of tiles may not need all of it.
    let part = tokens * tiling.tile_rows().min(tiling.rows()) as usize;
    let most = (PARTS_BYTES as u64 / (4 * part as u64 * shares)).max(1);
    // As many for every thread.
    let lanes = (bands.lanes() as u64).div_ceil(shares).max(1);
    let at_once = if most < lanes { most } else { most / lanes * lanes };
    let mut parts = Vec::new();
    for first in (0..down).step_by(at_once as usize) {
        let tile_rows = first..(first + at_once).min(down);
        parts.clear();
        parts.resize((tile_rows.end - tile_rows.start) as usize * shares as usize * part, 0.0_f32);
        parts.par_chunks_mut(part).enumerate().try_for_each(|(unit, sums)| {
            let start = first * across + unit as u64 / shares * across + unit as u64 % shares * width;
            let end = (start + width).min((start / across + 1) * across);
            let rows = tiling.tile(start).rows as usize;
            let sums = sums.get_mut(..tokens * rows).unwrap_or_default();
            bands.with_scratch(|scratch| weights.add_products(start..end, x, sums, scratch))
        })?;
        for (row, sums) in tile_rows.zip(parts.chunks(part * shares as usize)) {
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
