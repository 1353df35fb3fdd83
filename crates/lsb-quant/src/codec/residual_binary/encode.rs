//! Encoding one tile.

use super::MAX_PLANES;
use super::fit::{fit, normal_equations};
use crate::codec::bitstream::BitWriter;
use crate::codec::divided::divided_weights;
use crate::codec::least_squares::NormalEquations;
use crate::codec::signs;
use crate::scale::{TileExponent, to_half};
use crate::{EncodedTile, Group, Result, TileEncoder};
use half::f16;
use lsb_format::{DType, Tile};

#[derive(Debug)]
pub(super) struct Encoder {
    pub(super) planes: usize,
    pub(super) group: Group,
    pub(super) refine: bool,
    pub(super) dtype: DType,
}

impl TileEncoder for Encoder {
    fn encode_tile(&self, tile: &Tile, bytes: &[u8], out: &mut EncodedTile) -> Result<()> {
        let (exponent, weights) = divided_weights(self.dtype, bytes)?;
        let cols = tile.cols as usize;
        let group = self.group.width(cols);
        let mut codes = vec![0; weights.len()];
        let mut scales: Vec<[f16; MAX_PLANES]> = Vec::with_capacity(self.group.in_tile(tile));
        let mut whole = NormalEquations::default();
        for (row, codes) in weights.chunks(cols).zip(codes.chunks_mut(cols)) {
            for (weights, codes) in row.chunks(group).zip(codes.chunks_mut(group)) {
                let halves = fit(weights, self.planes, self.refine, codes).map(to_half);
                scales.push(halves);
                if self.planes > 1 {
                    self.add_scaled(&mut whole, &normal_equations(weights, codes, self.planes), &halves);
                }
            }
        }
        self.write(exponent, &scales, &whole, &codes, out);
        Ok(())
    }
}

impl Encoder {
    /// Appends a tile of which `whole` are the equations of factors common to all groups.
    pub(super) fn write(
        &self,
        exponent: TileExponent,
        scales: &[[f16; MAX_PLANES]],
        whole: &NormalEquations,
        codes: &[u8],
        out: &mut EncodedTile,
    ) {
        for plane in 0..self.planes {
            if plane == 0 {
                out.buffer().extend_from_slice(&exponent.to_le_bytes());
            }
            if plane + 1 < self.planes {
                for factor in &whole.solve(plane + 1)[..=plane] {
                    out.buffer().extend_from_slice(&to_half(*factor).to_le_bytes());
                }
            }
            for s in scales {
                out.buffer().extend_from_slice(&s[plane].to_le_bytes());
            }
            let mut bits = BitWriter::new(out.buffer());
            signs::push_bits(&mut bits, codes, plane as u32);
            bits.finish();
            out.end_part();
        }
    }

    /// Adds a group's equations, in units of its own scales, to those of the tile, whose unknowns are factors
    /// common to all groups.
    pub(super) fn add_scaled(
        &self,
        whole: &mut NormalEquations,
        group: &NormalEquations,
        scales: &[f16; MAX_PLANES],
    ) {
        let scales = scales.map(|s| f64::from(s.to_f32()));
        for i in 0..self.planes {
            whole.moments[i] += scales[i] * group.moments[i];
            for j in 0..self.planes {
                whole.gram[i][j] += scales[i] * scales[j] * group.gram[i][j];
            }
        }
    }
}
