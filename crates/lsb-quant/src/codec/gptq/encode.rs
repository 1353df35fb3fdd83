//! Encoding one tile of rows whose inputs are known.

use crate::codec::divided::divided_weights;
use crate::codec::feedback::{KnownInputs, Levels, NUMBERS, PerNumber, Refits, quantize};
use crate::codec::rtn::fit::{Grid, inverse, nearest};
use crate::codec::rtn::tile::Layout;
use crate::scale::to_half;
use crate::{EncodedTile, Result, TileEncoder};
use half::f16;
use lsb_format::{DType, Tile};

#[derive(Debug)]
pub(super) struct Encoder {
    pub(super) layout: Layout,
    pub(super) dtype: DType,
    pub(super) inputs: KnownInputs,
    /// Fit scales and zero points, instead of spanning all weights.
    pub(super) fitted: bool,
}

impl TileEncoder for Encoder {
    fn encode_tile(&self, tile: &Tile, bytes: &[u8], out: &mut EncodedTile) -> Result<()> {
        let (exponent, weights) = divided_weights(self.dtype, bytes)?;
        let (grid, cols) = (self.layout.grid, tile.cols as usize);
        let group = self.layout.group.width(cols);
        let mut groups = Vec::with_capacity(self.layout.group.in_tile(tile));
        for row in weights.chunks(cols) {
            for (weights, importance) in row.chunks(group).zip(self.inputs.importance().chunks(group)) {
                let (scale, zero) =
                    if self.fitted { grid.fit_weighted(weights, importance) } else { grid.span(weights) };
                groups.push(Integers::new(grid, scale, zero));
            }
        }
        let refits = if self.fitted { Refits::BeforeCodes } else { Refits::Never };
        let found = quantize(&Grids { grid }, &self.inputs, &weights, group, groups, refits);
        let stored: Vec<(f16, u8)> = found.groups.iter().map(|g| (g.scale, g.zero)).collect();
        self.layout.write(exponent, &stored, &found.codes, out);
        Ok(())
    }
}

/// Scale and zero point of a group, as stored and as computed with.
#[derive(Clone, Debug)]
struct Integers {
    scale: f16,
    zero: u8,
    step: f32,
    inverse: f32,
    zero_point: f32,
}

impl Integers {
    fn new(grid: Grid, scale: f16, zero: u8) -> Self {
        let step = scale.to_f32();
        Integers { scale, zero, step, inverse: inverse(step), zero_point: grid.zero_point(zero) }
    }
}

/// The levels of all groups. A group has two numbers: its scale, and the value of the middle of its integers.
struct Grids {
    grid: Grid,
}

impl Grids {
    fn middle(&self) -> f32 {
        0.5 * self.grid.last()
    }
}

impl Levels for Grids {
    type Group = Integers;

    fn numbers(&self) -> usize {
        if self.grid.symmetric { 1 } else { 2 }
    }

    fn code(&self, group: &Integers, _row: usize, _col: usize, target: f32) -> (u8, f32) {
        let q = nearest(target, group.inverse, group.zero_point, self.grid.last());
        (q as u8, group.step * (q - group.zero_point))
    }

    fn value(&self, group: &Integers, code: u8) -> Option<f32> {
        Some(group.step * (f32::from(code) - group.zero_point))
    }

    fn directions(&self, code: u8) -> PerNumber<f32> {
        let mut out = [0.0; NUMBERS];
        (out[0], out[1]) = (f32::from(code) - self.middle(), 1.0);
        out
    }

    fn moved(&self, group: &Integers, change: &PerNumber<f64>) -> Integers {
        let (scale, middle) = (f64::from(group.step), f64::from(self.middle()));
        let moved = to_half(scale + change[0]);
        if moved.to_f32() <= 0.0 {
            return group.clone();
        }
        let value = scale * (middle - f64::from(group.zero_point)) + change[1];
        let zero = self.grid.nearest_zero((middle - value / f64::from(moved.to_f32())) as f32);
        Integers::new(self.grid, moved, zero)
    }
}
