//! How a tensor is cut into runs for comparison: by its partition alone, so that sums and observations are
//! the same for any memory and any number of threads.

use lsb_format::Tiling;
use std::ops::Range;

/// Longest run through a partition whose tiles are not contiguous. Cutting a band of tiles decodes them once
/// per piece, so pieces are large.
const BAND_PIECE: u64 = 1 << 22;

/// The runs of one tensor, in order.
#[derive(Clone, Copy, Debug)]
pub(super) struct Units {
    tiling: Tiling,
    pieces_per_band: u64,
}

impl Units {
    pub(super) fn new(tiling: &Tiling) -> Self {
        let band = tiling.tile_rows().min(tiling.rows()).saturating_mul(tiling.cols());
        let pieces_per_band = if tiling.is_contiguous() { 1 } else { band.div_ceil(BAND_PIECE).max(1) };
        Units { tiling: *tiling, pieces_per_band }
    }

    /// Number of runs.
    pub(super) fn len(&self) -> u64 {
        self.tiling.len() / self.tiling.span_unit() * self.pieces_per_band
    }

    /// Elements of run `index`.
    pub(super) fn run(&self, index: u64) -> Range<u64> {
        let unit = self.tiling.span_unit();
        let (band, piece) = (index / self.pieces_per_band, index % self.pieces_per_band);
        let run = self.tiling.elements(band * unit..(band + 1) * unit);
        let at = |piece: u64| (run.start + piece * BAND_PIECE).min(run.end);
        if self.pieces_per_band == 1 { run } else { at(piece)..at(piece + 1) }
    }

    /// Elements of the longest run.
    pub(super) fn longest(&self) -> u64 {
        let run = if self.len() == 0 { 0..0 } else { self.run(0) };
        run.end - run.start
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_cover_the_tensor_once_in_order() {
        for (rows, cols, tile_rows, tile_cols) in
            [(10, 7, 3, 7), (10, 7, 3, 2), (3000, 5000, 1000, 512), (1, 1, 1, 1), (0, 5, 1, 5), (5, 9, 1, 4)]
        {
            let tiling = Tiling::new(rows, cols, tile_rows, tile_cols, 1).unwrap();
            let units = Units::new(&tiling);
            let mut next = 0;
            for i in 0..units.len() {
                let run = units.run(i);
                assert_eq!(run.start, next);
                assert!(run.end - run.start <= units.longest());
                next = run.end;
            }
            assert_eq!(next, rows * cols);
        }
    }
}
