//! Any run of elements from tiles: which tiles cover it, and which part of each goes where.

use crate::Result;
use lsb_format::{Tile, Tiling};
use std::ops::Range;

/// Reads `elements` from tiles of `tiling` into `out`. `len` says how many `T` a number of elements takes
/// (as many for f32, bytes for bytes) and must be exact at the ends of tiles and of the run. `decode` fills
/// a whole tile; tiles the run covers in one piece are decoded in place, the others through `spare`, which
/// never grows beyond one tile.
///
/// The run lies inside the matrix and `out` is as long as the run: the caller checked both.
pub(super) fn gather<T: Copy + Default>(
    tiling: &Tiling,
    elements: Range<u64>,
    len: impl Fn(u64) -> usize,
    out: &mut [T],
    spare: &mut Vec<T>,
    mut decode: impl FnMut(&Tile, &mut [T]) -> Result<()>,
) -> Result<()> {
    if elements.is_empty() {
        return Ok(());
    }
    let cols = tiling.cols();
    let bands = elements.start / cols / tiling.tile_rows()..=(elements.end - 1) / cols / tiling.tile_rows();
    for index in bands.start() * tiling.across()..(bands.end() + 1) * tiling.across() {
        let tile = tiling.tile(index);
        let (begin, end) = span(&tile, cols);
        if end <= elements.start || begin >= elements.end {
            continue;
        }
        let whole = end - begin == tile.weights() as u64;
        if whole && begin >= elements.start && end <= elements.end {
            decode(&tile, &mut out[len(begin - elements.start)..len(end - elements.start)])?;
            continue;
        }
        spare.clear();
        spare.resize(len(tile.weights() as u64), T::default());
        decode(&tile, spare)?;
        // A contiguous tile is one long row: pieces of narrow elements then start at whole bytes.
        let (rows, width) = if whole { (1, end - begin) } else { (tile.rows, tile.cols) };
        for r in 0..rows {
            let row = begin + r * cols;
            let (from, to) = (row.max(elements.start), (row + width).min(elements.end));
            if from < to {
                let source = len(r * width + from - row);
                let at = len(from - elements.start);
                let n = len(to - from);
                out[at..at + n].copy_from_slice(&spare[source..source + n]);
            }
        }
    }
    Ok(())
}

/// The first element of a tile and the one after its last.
fn span(tile: &Tile, cols: u64) -> (u64, u64) {
    (tile.row * cols + tile.col, (tile.row + tile.rows - 1) * cols + tile.col + tile.cols)
}
