//! Encoding one tile.

use super::MAX_PLANES;
use super::fit::{fit, normal_equations};
use crate::codec::divided::{divide_into, exponent_of};
use crate::codec::least_squares::NormalEquations;
use crate::codec::signs;
use crate::lanes::{Lanes, Work, dispatch};
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
        let exponent = exponent_of(self.dtype, bytes)?;
        let Fitted { codes, scales, whole } = dispatch(Fit { coder: self, tile, bytes, exponent });
        self.write(exponent, &scales, &whole, &codes, out);
        Ok(())
    }
}

/// Fits the groups of a tile.
struct Fit<'a> {
    coder: &'a Encoder,
    tile: &'a Tile,
    bytes: &'a [u8],
    exponent: TileExponent,
}

struct Fitted {
    /// Signs of every weight, bit `k` for plane `k`.
    codes: Vec<u8>,
    /// Of every group.
    scales: Vec<[f16; MAX_PLANES]>,
    /// The equations of factors common to all groups.
    whole: NormalEquations,
}

impl Work for Fit<'_> {
    type Output = Fitted;

    #[inline(always)]
    fn run<L: Lanes>(self, lanes: L) -> Fitted {
        let Fit { coder, tile, bytes, exponent } = self;
        let (cols, width) = (tile.cols as usize, (coder.dtype.bits() / 8) as usize);
        let group = coder.group.width(cols);
        let mut row = vec![0.0; cols];
        let mut codes = vec![0; tile.weights()];
        let mut scales: Vec<[f16; MAX_PLANES]> = Vec::with_capacity(coder.group.in_tile(tile));
        let mut whole = NormalEquations::default();
        for (bytes, codes) in bytes.chunks(cols * width).zip(codes.chunks_mut(cols)) {
            divide_into(coder.dtype, bytes, exponent, &mut row);
            for (weights, codes) in row.chunks(group).zip(codes.chunks_mut(group)) {
                let halves = fit(lanes, weights, coder.planes, coder.refine, codes).map(to_half);
                scales.push(halves);
                if coder.planes > 1 {
                    let equations = normal_equations(weights, codes, coder.planes);
                    coder.add_scaled(&mut whole, &equations, &halves);
                }
            }
        }
        Fitted { codes, scales, whole }
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
            signs::append_bits(codes, plane as u32, out.buffer());
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
