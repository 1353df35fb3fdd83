//! Decoding one tile. This is the specification of the format.

use crate::codec::payload::Payload;
use crate::codec::signs;
use crate::lanes::{Lanes, Work, dispatch};
use crate::scale::{TileExponent, read_halves};
use crate::{Group, Result, TensorDecoder};
use lsb_format::{Error, Tile, bits};

#[derive(Debug)]
pub(super) struct Decoder {
    pub(super) planes: usize,
    pub(super) group: Group,
}

impl TensorDecoder for Decoder {
    fn decode(&self, tile: &Tile, parts: &[&[u8]], out: &mut [f32]) -> Result<()> {
        if parts.is_empty() || parts.len() > self.planes {
            let message =
                format!("{} parts, where a tile of {} planes has 1 to as many", parts.len(), self.planes);
            return Err(Error::corruption("P30", message).into());
        }
        let (cols, group) = (tile.cols as usize, self.group.width(tile.cols as usize));
        let mut exponent = TileExponent::default();
        let mut factors = vec![1.0; parts.len()];
        let mut planes = Vec::with_capacity(parts.len());
        for (k, part) in parts.iter().enumerate() {
            let mut payload = Payload::new(part);
            if k == 0 {
                exponent = TileExponent::from_le_bytes(payload.array("exponent")?)?;
            }
            if k + 1 < self.planes {
                let stored = read_halves("factor", payload.take("factors", 2 * (k + 1))?, true)?;
                if k + 1 == parts.len() {
                    factors = stored;
                }
            }
            let scales = payload.take("scales", 2 * self.group.in_tile(tile))?;
            let plane = payload.take("sign plane", out.len().div_ceil(8))?;
            bits::check_len(plane, 1, out.len())?;
            payload.finish()?;
            planes.push((read_halves("scale", scales, false)?, plane));
        }

        dispatch(Weights { exponent, cols, group, planes: &planes, factors: &factors, out });
        Ok(())
    }
}

/// Adds up the planes of a tile.
struct Weights<'a> {
    exponent: TileExponent,
    cols: usize,
    group: usize,
    /// Scales of all groups, and signs, of each plane.
    planes: &'a [(Vec<f32>, &'a [u8])],
    /// Of each plane.
    factors: &'a [f32],
    out: &'a mut [f32],
}

impl Work for Weights<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, _: L) {
        let Weights { exponent, cols, group, planes, factors, out } = self;
        let mut number = 0;
        for (r, row) in out.chunks_mut(cols.max(1)).enumerate() {
            row.fill(0.0);
            for (g, weights) in row.chunks_mut(group).enumerate() {
                for ((scales, plane), factor) in planes.iter().zip(factors) {
                    let Some(&scale) = scales.get(number) else { break };
                    signs::add_signed(plane, r * cols + g * group, factor * scale, weights);
                }
                number += 1;
            }
            exponent.multiply_all(row);
        }
    }
}
