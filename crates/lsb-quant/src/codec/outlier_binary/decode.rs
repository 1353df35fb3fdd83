//! Decoding one tile. This is the specification of the format.

use super::outliers;
use crate::codec::payload::Payload;
use crate::codec::raw::only_part;
use crate::codec::signs;
use crate::lanes::{Lanes, Work, dispatch};
use crate::scale::{TileExponent, read_halves};
use crate::{Group, Result, TensorDecoder};
use lsb_format::entropy::decode_positions;
use lsb_format::{Error, Tile, bits};

/// Fills a tile with the levels of its groups.
struct Levels<'a> {
    exponent: TileExponent,
    cols: usize,
    group: usize,
    /// Of all groups.
    scales: &'a [f32],
    means: &'a [f32],
    plane: &'a [u8],
    out: &'a mut [f32],
}

impl Work for Levels<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, _: L) {
        let Levels { exponent, cols, group, scales, means, plane, out } = self;
        let mut levels = scales.iter().zip(means);
        for (r, row) in out.chunks_mut(cols.max(1)).enumerate() {
            for (g, weights) in row.chunks_mut(group).enumerate() {
                let Some((&scale, &mean)) = levels.next() else { break };
                let (scale, mean) = (f64::from(scale), f64::from(mean));
                let (low, high) = (exponent.restore(mean - scale), exponent.restore(mean + scale));
                signs::fill_levels(plane, r * cols + g * group, low, high, weights);
            }
        }
    }
}

#[derive(Debug)]
pub(super) struct Decoder {
    pub(super) group: Group,
}

impl TensorDecoder for Decoder {
    fn decode(&self, tile: &Tile, parts: &[&[u8]], out: &mut [f32]) -> Result<()> {
        let mut payload = Payload::new(only_part(parts)?);
        let exponent = TileExponent::from_le_bytes(payload.array("exponent")?)?;
        let [flags] = payload.array("flags")?;
        if flags > 1 {
            return Err(Error::corruption("P30", format!("unknown flags {flags:#x} in a tile")).into());
        }
        let n_outliers = payload.u32("number of outliers")? as usize;
        if n_outliers > out.len() {
            let message = format!("{n_outliers} outliers among {} weights", out.len());
            return Err(Error::corruption("P34", message).into());
        }
        let n_magnitude_bytes = payload.u32("length of outliers")? as usize;

        let n_groups = self.group.in_tile(tile);
        let scales = read_halves("scale", payload.take("scales", 2 * n_groups)?, false)?;
        let means = match flags {
            0 => vec![0.0; n_groups],
            _ => read_halves("mean", payload.take("means", 2 * n_groups)?, true)?,
        };
        let plane = payload.take("sign plane", out.len().div_ceil(8))?;
        bits::check_len(plane, 1, out.len())?;

        let (cols, group) = (tile.cols as usize, self.group.width(tile.cols as usize));
        dispatch(Levels { exponent, cols, group, scales: &scales, means: &means, plane, out });

        let magnitudes = payload.take("outliers", n_magnitude_bytes)?;
        let mut positions = Vec::new();
        decode_positions(payload.rest(), out.len() as u32, n_outliers, &mut positions)?;
        let mut next = positions.iter();
        outliers::decode(magnitudes, n_outliers, |magnitude| {
            if let Some(&p) = next.next() {
                let sign = if signs::get(plane, p as usize) { 0 } else { 1 << 31 };
                out[p as usize] = f32::from_bits(magnitude | sign);
            }
        })?;
        Ok(())
    }
}
