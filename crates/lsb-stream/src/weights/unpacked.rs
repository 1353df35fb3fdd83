//! Weights of a package that stay in memory unpacked, where tiles are multiplied as fast as memory gives them.

use super::{Scratch, TensorFacts, TensorWeights, check_float, check_run, not_exact};
use crate::Result;
use lsb_format::Tiling;
use lsb_quant::{Activations, UnpackedTile};
use std::ops::Range;

/// A tensor whose levels lie in memory unpacked: what [`TensorWeights::unpack`] makes.
#[derive(Debug)]
pub struct UnpackedWeights {
    facts: TensorFacts,
    tiling: Tiling,
    tiles: Vec<UnpackedTile>,
}

impl UnpackedWeights {
    /// The tensor, of whose tiling `tiles` are.
    pub(super) fn new(facts: TensorFacts, tiling: Tiling, tiles: Vec<UnpackedTile>) -> Self {
        UnpackedWeights { facts, tiling, tiles }
    }

    /// Bytes of memory that the tiles take.
    pub fn bytes(&self) -> u64 {
        self.tiles.iter().map(UnpackedTile::bytes).sum()
    }
}

impl TensorWeights for UnpackedWeights {
    fn facts(&self) -> &TensorFacts {
        &self.facts
    }

    fn tiling(&self) -> &Tiling {
        &self.tiling
    }

    fn is_exact(&self) -> bool {
        false
    }

    fn scratch_bytes(&self) -> u64 {
        4 * self.tiling.tile_rows().min(self.tiling.rows()) * self.tiling.tile_cols().min(self.tiling.cols())
    }

    /// Of each tile, only the rows that are asked for.
    fn read_f32(&self, elements: Range<u64>, out: &mut [f32], scratch: &mut Scratch) -> Result<()> {
        check_float(&self.facts)?;
        check_run(&self.facts, &elements, size_of_val(out), 32)?;
        let (tiling, cols) = (&self.tiling, self.tiling.cols());
        let rows = elements.start / cols.max(1)..elements.end.div_ceil(cols.max(1));
        let first = rows.start / tiling.tile_rows() * tiling.across();
        for (index, unpacked) in (0..).zip(&self.tiles).skip(first as usize) {
            let tile = tiling.tile(index);
            let here = rows.start.max(tile.row)..rows.end.min(tile.row + tile.rows);
            if here.is_empty() {
                break;
            }
            let values = &mut scratch.values;
            values.clear();
            values.resize(((here.end - here.start) * tile.cols) as usize, 0.0);
            unpacked.decode_rows((here.start - tile.row) as usize..(here.end - tile.row) as usize, values);
            for (row, values) in here.zip(values.chunks(tile.cols as usize)) {
                let begin = row * cols + tile.col;
                let (from, to) = (begin.max(elements.start), (begin + tile.cols).min(elements.end));
                if from < to {
                    out[(from - elements.start) as usize..(to - elements.start) as usize]
                        .copy_from_slice(&values[(from - begin) as usize..(to - begin) as usize]);
                }
            }
        }
        Ok(())
    }

    fn read_exact(&self, _: Range<u64>, _: &mut [u8], _: &mut Scratch) -> Result<()> {
        Err(not_exact(&self.facts))
    }

    fn has_products(&self, tokens: usize) -> bool {
        self.tiles.iter().all(|tile| tile.multiplies(tokens))
    }

    fn activation_bytes(&self) -> usize {
        self.tiles.iter().map(UnpackedTile::activation_bytes).max().unwrap_or(0)
    }

    fn add_products(
        &self,
        tiles: Range<u64>,
        x: &Activations<'_>,
        y: &mut [f32],
        _: &mut Scratch,
    ) -> Result<()> {
        let _phase = tracing::debug_span!("multiplying").entered();
        for index in tiles {
            let (tile, Some(unpacked)) = (self.tiling.tile(index), self.tiles.get(index as usize)) else {
                continue;
            };
            unpacked.add_products(x, tile.col as usize, y);
        }
        Ok(())
    }
}
