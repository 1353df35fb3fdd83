//! Rows of a matrix, each decoded once however often it is asked for.

use crate::Result;
use lsb_stream::{Scratch, TensorWeights};

/// Row `i` of `rows` for every i, one behind the other. A band of tiles is decoded once for all its rows.
pub(super) fn gather(weights: &dyn TensorWeights, rows: &[usize], width: usize) -> Result<Vec<f32>> {
    let mut out = vec![0.0; rows.len() * width];
    let mut order: Vec<usize> = (0..rows.len()).collect();
    order.sort_by_key(|&i| rows[i]);
    let tile_rows = usize::try_from(weights.tiling().tile_rows()).unwrap_or(usize::MAX).max(1);
    let (mut scratch, mut band) = (Scratch::default(), Vec::new());
    for same_band in order.chunk_by(|&a, &b| rows[a] / tile_rows == rows[b] / tile_rows) {
        let (Some(&first), Some(&last)) = (same_band.first(), same_band.last()) else { continue };
        let (first, last) = (rows[first], rows[last]);
        band.resize((last + 1 - first) * width, 0.0);
        weights.read_f32((first * width) as u64..((last + 1) * width) as u64, &mut band, &mut scratch)?;
        for &i in same_band {
            let at = (rows[i] - first) * width;
            out[i * width..(i + 1) * width].copy_from_slice(&band[at..at + width]);
        }
    }
    Ok(out)
}
