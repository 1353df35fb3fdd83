//! A run of consecutive tiles with the source bytes they cover.

use crate::MatrixInfo;
use lsb_format::{Tile, Tiling};
use std::borrow::Cow;
use std::ops::Range;

/// Consecutive tiles of a tensor and their weights, as they stand in the source.
#[derive(Clone, Debug)]
pub struct Span<'a> {
    matrix: MatrixInfo,
    tiling: Tiling,
    tiles: Range<u64>,
    bytes: &'a [u8],
}

impl<'a> Span<'a> {
    /// The span of `tiles` with its source bytes.
    ///
    /// # Panics
    /// If `bytes` is not as long as the tiles' weights in the matrix's element type.
    pub fn new(matrix: MatrixInfo, tiling: Tiling, tiles: Range<u64>, bytes: &'a [u8]) -> Self {
        let elements = tiling.elements(tiles.clone());
        let expected = matrix.dtype.byte_len(elements.end - elements.start);
        assert_eq!(Some(bytes.len() as u64), expected, "span bytes do not match its tiles");
        Span { matrix, tiling, tiles, bytes }
    }

    /// The whole matrix.
    pub fn matrix(&self) -> &MatrixInfo {
        &self.matrix
    }

    /// The partition the tiles belong to.
    pub fn tiling(&self) -> &Tiling {
        &self.tiling
    }

    /// Numbers of the tiles.
    pub fn tiles(&self) -> Range<u64> {
        self.tiles.clone()
    }

    /// How many tiles.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        (self.tiles.end - self.tiles.start) as usize
    }

    /// Index in the tensor of weight `index` of tile `i` of the span.
    pub fn weight_index(&self, i: usize, index: u64) -> u64 {
        let cols = self.tile(i).cols.max(1);
        self.first_weight(i) + index / cols * self.tiling.cols() + index % cols
    }

    /// Source bytes of the whole span.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Tile `i` of the span.
    pub fn tile(&self, i: usize) -> Tile {
        self.tiling.tile(self.tiles.start + i as u64)
    }

    /// Index in the tensor of the first weight of tile `i` of the span.
    pub fn first_weight(&self, i: usize) -> u64 {
        let tile = self.tile(i);
        tile.row * self.tiling.cols() + tile.col
    }

    /// Source bytes of tile `i` of the span, row-major: gathered from its rows where they do not follow one another.
    pub fn tile_source(&self, i: usize) -> Cow<'a, [u8]> {
        if self.tiling.is_contiguous() {
            return Cow::Borrowed(self.tile_bytes(i));
        }
        let (tile, origin) = (self.tile(i), self.tiling.elements(self.tiles.clone()).start);
        let byte = |element: u64| (element * self.matrix.dtype.bits() / 8) as usize;
        let mut out = Vec::with_capacity(byte(tile.rows * tile.cols));
        for row in tile.row..tile.row + tile.rows {
            let at = row * self.tiling.cols() + tile.col - origin;
            out.extend_from_slice(&self.bytes[byte(at)..byte(at + tile.cols)]);
        }
        Cow::Owned(out)
    }

    /// Source bytes of tile `i` of the span.
    ///
    /// # Panics
    /// If the partition is not contiguous.
    pub fn tile_bytes(&self, i: usize) -> &'a [u8] {
        assert!(self.tiling.is_contiguous(), "tiles of a grid are not contiguous");
        let origin = self.tiling.elements(self.tiles.clone()).start;
        let first = self.tiles.start + i as u64;
        let run = self.tiling.elements(first..first + 1);
        let byte = |element: u64| (element * self.matrix.dtype.bits() / 8) as usize;
        &self.bytes[byte(run.start - origin)..byte(run.end - origin)]
    }
}
