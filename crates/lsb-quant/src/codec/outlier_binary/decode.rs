//! Decoding one tile. This is the specification of the format.

use super::outliers;
use crate::codec::kernel;
use crate::codec::payload::Payload;
use crate::codec::raw::only_part;
use crate::codec::signs;
use crate::lanes::{Lanes, Work, dispatch};
use crate::scale::{TileExponent, read_halves};
use crate::{Group, Isa, Result, TensorDecoder, TileProducts};
use lsb_format::entropy::decode_positions_with;
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
                let [low, high] = exponent.levels(scale, mean);
                signs::fill_levels(plane, r * cols + g * group, low, high, weights);
            }
        }
    }
}

#[derive(Debug)]
pub(super) struct Decoder {
    pub(super) group: Group,
    /// Signs can be multiplied as they are.
    pub(super) multiplies: bool,
    /// Groups can be unpacked.
    pub(super) unpacks: bool,
}

/// A tile whose levels and signs are known; outliers are not decoded yet.
pub(super) struct Opened<'p> {
    pub(super) exponent: TileExponent,
    /// Of all groups, row by row.
    pub(super) scales: Vec<f32>,
    pub(super) means: Vec<f32>,
    pub(super) plane: &'p [u8],
    weights: usize,
    n_outliers: usize,
    magnitudes: &'p [u8],
    positions: &'p [u8],
}

impl<'p> Opened<'p> {
    /// # Errors
    /// If the parts are not of a tile of that size.
    pub(super) fn new(group: Group, tile: &Tile, parts: &[&'p [u8]]) -> Result<Self> {
        let weights = tile.weights();
        let mut payload = Payload::new(only_part(parts)?);
        let exponent = TileExponent::from_le_bytes(payload.array("exponent")?)?;
        let [flags] = payload.array("flags")?;
        if flags > 1 {
            return Err(Error::corruption("P30", format!("unknown flags {flags:#x} in a tile")).into());
        }
        let n_outliers = payload.u32("number of outliers")? as usize;
        if n_outliers > weights {
            let message = format!("{n_outliers} outliers among {weights} weights");
            return Err(Error::corruption("P34", message).into());
        }
        let n_magnitude_bytes = payload.u32("length of outliers")? as usize;

        let n_groups = group.in_tile(tile);
        let scales = read_halves("scale", payload.take("scales", 2 * n_groups)?, false)?;
        let means = match flags {
            0 => vec![0.0; n_groups],
            _ => read_halves("mean", payload.take("means", 2 * n_groups)?, true)?,
        };
        let plane = payload.take("sign plane", weights.div_ceil(8))?;
        bits::check_len(plane, 1, weights)?;
        let magnitudes = payload.take("outliers", n_magnitude_bytes)?;
        let positions = payload.rest();
        Ok(Opened { exponent, scales, means, plane, weights, n_outliers, magnitudes, positions })
    }

    /// Positions of outliers, in increasing order, and their values, in the place of others.
    ///
    /// # Errors
    /// If their bytes are damaged.
    pub(super) fn outliers(&self, positions: &mut Vec<u32>, values: &mut Vec<f32>) -> Result<()> {
        let (isa, bound) = (Isa::chosen(), self.weights as u32);
        decode_positions_with(self.positions, bound, self.n_outliers, positions, |run, table, out| {
            kernel::decode(isa, run, table, out)
        })?;
        values.clear();
        values.reserve(self.n_outliers);
        outliers::decode(self.magnitudes, self.n_outliers, |magnitude| {
            values.push(f32::from_bits(magnitude))
        })?;
        for (value, &position) in values.iter_mut().zip(&*positions) {
            let sign = u32::from(!signs::get(self.plane, position as usize)) << 31;
            *value = f32::from_bits(value.to_bits() | sign);
        }
        Ok(())
    }
}

impl TensorDecoder for Decoder {
    fn decode(&self, tile: &Tile, parts: &[&[u8]], out: &mut [f32]) -> Result<()> {
        let opened = Opened::new(self.group, tile, parts)?;
        let Opened { exponent, scales, means, plane, .. } = &opened;
        let (cols, group) = (tile.cols as usize, self.group.width(tile.cols as usize));
        dispatch(Levels { exponent: *exponent, cols, group, scales, means, plane, out });
        let (mut positions, mut values) = (Vec::new(), Vec::new());
        opened.outliers(&mut positions, &mut values)?;
        for (position, value) in positions.into_iter().zip(values) {
            out[position as usize] = value;
        }
        Ok(())
    }

    fn products(&self) -> Option<&dyn TileProducts> {
        self.multiplies.then_some(self)
    }
}
