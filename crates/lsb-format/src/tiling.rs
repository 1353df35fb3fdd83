//! How a matrix is cut into tiles: the unit of random access, damage location and parallel work.
//!
//! The partition is a function of the matrix and the codec alone, never of threads, memory or CPU.

use crate::{Error, Result};
use std::ops::Range;

/// Weights in a tile of the standard partition (the last tile of a tensor may hold fewer).
pub const TILE_WEIGHTS: u64 = 1 << 18;

/// The largest tile the format allows, so that a reader's buffers are bounded before it reads.
pub const MAX_TILE_WEIGHTS: u64 = 1 << 20;

/// One tile of a matrix: a rectangle of rows and columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tile {
    /// Number of the tile, counted along rows first.
    pub index: u64,
    /// First row.
    pub row: u64,
    /// Rows in the tile.
    pub rows: u64,
    /// First column.
    pub col: u64,
    /// Columns in the tile.
    pub cols: u64,
}

impl Tile {
    /// Weights in the tile.
    pub fn weights(&self) -> usize {
        (self.rows * self.cols) as usize
    }
}

/// A partition of a `rows` x `cols` matrix into tiles of `tile_rows` x `tile_cols` (smaller at the edges),
/// numbered row of tiles by row of tiles.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tiling {
    rows: u64,
    cols: u64,
    tile_rows: u64,
    tile_cols: u64,
    parts: u8,
}

impl Tiling {
    /// A partition into tiles of the given size, each stored in `parts` separately readable pieces.
    ///
    /// # Errors
    /// If the size is zero or above [`MAX_TILE_WEIGHTS`], if the number of weights or tiles does not fit,
    /// or if `parts` is not 1 to 16.
    pub fn new(rows: u64, cols: u64, tile_rows: u64, tile_cols: u64, parts: u8) -> Result<Self> {
        let size = tile_rows.checked_mul(tile_cols).unwrap_or(0);
        if size == 0 || size > MAX_TILE_WEIGHTS {
            return Err(Error::corruption(
                "P10",
                format!("tiles of {tile_rows} x {tile_cols} weights: must be 1 to {MAX_TILE_WEIGHTS}"),
            ));
        }
        if rows.checked_mul(cols).is_none() {
            return Err(Error::corruption("B35", format!("a matrix of {rows} x {cols} overflows 64 bits")));
        }
        if parts == 0 || parts > 16 {
            return Err(Error::corruption("P10", format!("{parts} parts a tile: must be 1 to 16")));
        }
        let tiling = Tiling { rows, cols, tile_rows, tile_cols, parts };
        if tiling.len() > u32::MAX as u64 {
            return Err(Error::corruption("P10", format!("{} tiles: more than 2^32", tiling.len())));
        }
        Ok(tiling)
    }

    /// The standard partition: runs of whole rows of at most [`TILE_WEIGHTS`] weights, or, where one row is
    /// longer than that, runs of columns of one row. Every tile is one contiguous run of the matrix.
    ///
    /// # Errors
    /// As [`Tiling::new`].
    pub fn standard(rows: u64, cols: u64) -> Result<Self> {
        if cols > TILE_WEIGHTS {
            return Self::new(rows, cols, 1, TILE_WEIGHTS, 1);
        }
        let tile_rows = (TILE_WEIGHTS / cols.max(1)).min(rows).max(1);
        Self::new(rows, cols, tile_rows, cols.max(1), 1)
    }

    /// The same partition with every tile stored in `parts` pieces.
    ///
    /// # Errors
    /// If `parts` is not 1 to 16.
    pub fn with_parts(self, parts: u8) -> Result<Self> {
        Self::new(self.rows, self.cols, self.tile_rows, self.tile_cols, parts)
    }

    /// Rows of the matrix.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Columns of the matrix.
    pub fn cols(&self) -> u64 {
        self.cols
    }

    /// Rows of a tile that touches no edge.
    pub fn tile_rows(&self) -> u64 {
        self.tile_rows
    }

    /// Columns of a tile that touches no edge.
    pub fn tile_cols(&self) -> u64 {
        self.tile_cols
    }

    /// Separately readable pieces per tile; piece `k` refines pieces `0..k`.
    pub fn parts(&self) -> u8 {
        self.parts
    }

    /// Weights of the matrix.
    pub fn weights(&self) -> u64 {
        self.rows * self.cols
    }

    /// Tiles across one row of tiles.
    pub fn across(&self) -> u64 {
        self.cols.div_ceil(self.tile_cols)
    }

    /// Number of tiles; zero for an empty matrix.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> u64 {
        self.rows.div_ceil(self.tile_rows).saturating_mul(self.across())
    }

    /// Tile number `index`.
    ///
    /// # Panics
    /// If `index >= len()`.
    pub fn tile(&self, index: u64) -> Tile {
        assert!(index < self.len(), "tile {index} of {}", self.len());
        let (down, across) = (index / self.across(), index % self.across());
        let (row, col) = (down * self.tile_rows, across * self.tile_cols);
        Tile {
            index,
            row,
            rows: self.tile_rows.min(self.rows - row),
            col,
            cols: self.tile_cols.min(self.cols - col),
        }
    }

    /// True when every tile is one contiguous run of the row-major matrix.
    pub fn is_contiguous(&self) -> bool {
        self.tile_rows == 1 || self.tile_cols >= self.cols
    }

    /// How many consecutive tiles, starting at a multiple of this number, cover one contiguous run.
    pub fn span_unit(&self) -> u64 {
        if self.is_contiguous() { 1 } else { self.across() }
    }

    /// The contiguous run of elements that `tiles` cover.
    ///
    /// # Panics
    /// If the range is out of bounds, or cuts a row of tiles of a partition that is not contiguous.
    pub fn elements(&self, tiles: Range<u64>) -> Range<u64> {
        assert!(tiles.start <= tiles.end && tiles.end <= self.len());
        if tiles.is_empty() {
            return 0..0;
        }
        if !self.is_contiguous() {
            let unit = self.span_unit();
            assert!(tiles.start.is_multiple_of(unit) && tiles.end.is_multiple_of(unit), "a cut row of tiles");
        }
        let (first, last) = (self.tile(tiles.start), self.tile(tiles.end - 1));
        first.row * self.cols + first.col..(last.row + last.rows - 1) * self.cols + last.col + last.cols
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn prop_standard_tiles_cover_the_matrix_once_in_order(rows in 0u64..70, cols in 0u64..600_000) {
            let tiling = Tiling::standard(rows, cols).unwrap();
            let mut next = 0;
            for i in 0..tiling.len() {
                let run = tiling.elements(i..i + 1);
                prop_assert_eq!(run.start, next);
                prop_assert_eq!(run.end - run.start, tiling.tile(i).weights() as u64);
                prop_assert!(tiling.tile(i).weights() as u64 <= TILE_WEIGHTS);
                next = run.end;
            }
            prop_assert_eq!(next, rows * cols);
        }

        #[test]
        fn prop_grid_tiles_cover_every_weight(rows in 1u64..40, cols in 1u64..40, tr in 1u64..9, tc in 1u64..9) {
            let tiling = Tiling::new(rows, cols, tr, tc, 1).unwrap();
            let mut seen = vec![0u8; (rows * cols) as usize];
            for i in 0..tiling.len() {
                let t = tiling.tile(i);
                for r in t.row..t.row + t.rows {
                    for c in t.col..t.col + t.cols {
                        seen[(r * cols + c) as usize] += 1;
                    }
                }
            }
            prop_assert!(seen.iter().all(|&n| n == 1));
            let unit = tiling.span_unit();
            prop_assert_eq!(tiling.elements(0..unit).start, 0);
        }
    }

    #[test]
    fn hostile_sizes_are_refused() {
        assert!(Tiling::new(u64::MAX, 2, 1, 1, 1).is_err());
        assert!(Tiling::new(10, 10, 0, 1, 1).is_err());
        assert!(Tiling::new(10, 10, u64::MAX, u64::MAX, 1).is_err());
        assert!(Tiling::new(1 << 40, 1, 1, 1, 1).is_err());
        assert!(Tiling::new(10, 10, 1, 1, 0).is_err());
    }
}
