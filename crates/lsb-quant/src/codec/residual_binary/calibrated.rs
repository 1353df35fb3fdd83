//! Encoding one tile of rows whose inputs are known.
//!
//! Scales start as those of least squares with weights `1 / U_ii^2`. A weight gets the signs whose sum is nearest to what
//! is wanted of it when its column is reached, the error is fed back, and scales are fitted to the outputs once signs are
//! known.

use super::MAX_PLANES;
use super::encode::Encoder;
use super::fit::{falling, fit_refined, refine_weighted, weighted_equations};
use crate::codec::divided::divided_weights;
use crate::codec::feedback::{KnownInputs, Levels, PerNumber, Refits, quantize};
use crate::codec::least_squares::NormalEquations;
use crate::scale::to_half;
use crate::{EncodedTile, Result, TileEncoder};
use half::f16;
use lsb_format::Tile;

#[derive(Debug)]
pub(super) struct CalibratedEncoder {
    pub(super) plain: Encoder,
    pub(super) inputs: KnownInputs,
}

impl TileEncoder for CalibratedEncoder {
    fn encode_tile(&self, tile: &Tile, bytes: &[u8], out: &mut EncodedTile) -> Result<()> {
        let (exponent, weights) = divided_weights(self.plain.dtype, bytes)?;
        let (planes, cols) = (self.plain.planes, tile.cols as usize);
        let group = self.plain.group.width(cols);
        let mut groups = Vec::with_capacity(self.plain.group.in_tile(tile));
        let mut codes = vec![0; group];
        for row in weights.chunks(cols) {
            for (weights, importance) in row.chunks(group).zip(self.inputs.importance().chunks(group)) {
                let scales = fit_refined(weights, planes, &mut codes[..weights.len()]);
                groups.push(Sums::new(&refine_weighted(weights, importance, planes, scales)));
            }
        }
        let levels = Planes { planes };
        let found = quantize(&levels, &self.inputs, &weights, group, groups, Refits::AfterCodes);
        let scales: Vec<[f16; MAX_PLANES]> = found.groups.iter().map(|g| g.stored).collect();
        let mut whole = NormalEquations::default();
        let rows = weights.chunks(cols).zip(found.codes.chunks(cols));
        let pieces = rows.flat_map(|(weights, codes)| {
            let importance = self.inputs.importance().chunks(group);
            weights.chunks(group).zip(codes.chunks(group)).zip(importance)
        });
        for (((weights, codes), importance), scales) in pieces.zip(&scales) {
            let equations = weighted_equations(weights, importance, codes, planes);
            self.plain.add_scaled(&mut whole, &equations, scales);
        }
        self.plain.write(exponent, &scales, &whole, &found.codes, out);
        Ok(())
    }
}

/// The scales of a group, as stored and as computed with.
#[derive(Clone, Debug)]
struct Sums {
    stored: [f16; MAX_PLANES],
    scales: [f32; MAX_PLANES],
}

impl Sums {
    fn new(scales: &[f64; MAX_PLANES]) -> Self {
        let stored = scales.map(to_half);
        Sums { stored, scales: stored.map(f16::to_f32) }
    }
}

/// Bit `k` of a code is the sign of plane `k`. A group has one number per plane: its scale.
struct Planes {
    planes: usize,
}

impl Levels for Planes {
    type Group = Sums;

    fn numbers(&self) -> usize {
        self.planes
    }

    fn code(&self, group: &Sums, _row: usize, _col: usize, target: f32) -> (u8, f32) {
        let (mut left, mut value, mut code) = (target, 0.0, 0);
        for (k, &scale) in group.scales[..self.planes].iter().enumerate() {
            let positive = left > 0.0;
            let signed = if positive { scale } else { -scale };
            left -= signed;
            value += signed;
            code |= u8::from(positive) << k;
        }
        (code, value)
    }

    fn value(&self, group: &Sums, code: u8) -> Option<f32> {
        let signed = |(k, &scale): (usize, &f32)| if code >> k & 1 == 1 { scale } else { -scale };
        Some(group.scales[..self.planes].iter().enumerate().map(signed).fold(0.0, |sum, x| sum + x))
    }

    fn directions(&self, code: u8) -> PerNumber<f32> {
        std::array::from_fn(|k| if code >> k & 1 == 1 { 1.0 } else { -1.0 })
    }

    fn moved(&self, group: &Sums, change: &PerNumber<f64>) -> Sums {
        let scales = std::array::from_fn(|k| f64::from(group.scales[k]) + change[k]);
        Sums::new(&falling(scales))
    }
}
